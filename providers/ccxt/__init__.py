"""Any exchange that the package `ccxt` has candles of, as a provider; it is an extra, `market-relay[ccxt]`."""

from providers.ccxt.provider import CcxtProvider

__all__ = ["CcxtProvider"]
