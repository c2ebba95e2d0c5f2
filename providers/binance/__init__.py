"""Binance spot: live klines over shared WebSocket connections, and history from its REST calls. No key is needed."""

from providers.binance.provider import BinanceProvider

__all__ = ["BinanceProvider"]
