"""The kline streams of Binance spot."""

from providers.binance_markets.codec import KlineCodec


class BinanceCodec(KlineCodec):
    """Kline streams of spot on one combined connection."""

    path = "/stream"
    messages_per_second = 5
    """web-socket-streams.md, "Websocket Limits"; pings and pongs count."""
