"""Binance's USD-M futures: live klines over shared WebSocket connections, and history by REST. No key is needed."""

from providers.binance_usdm.provider import BinanceUsdmProvider

__all__ = ["BinanceUsdmProvider"]
