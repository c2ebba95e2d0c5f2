"""The kline streams of Binance spot, and what all of its streams have in common."""

from providers.binance_markets.codec import KlineCodec

STREAMS_PATH = "/stream"
STREAMS_PER_SECOND = 5
"""web-socket-streams.md, "Websocket Limits"; pings and pongs count."""


class BinanceCodec(KlineCodec):
    """Kline streams of spot on one combined connection."""

    path = STREAMS_PATH
    messages_per_second = STREAMS_PER_SECOND
