"""The kline streams of Binance's USD-M futures."""

from providers.binance_markets.codec import KlineCodec


class UsdmCodec(KlineCodec):
    """Kline streams of contracts on one combined connection.

    Klines are in the category `market`: https://developers.binance.com/docs/derivatives/usds-margined-futures,
    "Important WebSocket Change Notice" of 2026-03-06. Paths without a category were switched off on 2026-04-23; they
    may still open, and have no klines then.
    """

    path = "/market/stream"
    messages_per_second = 10
    """"Websocket Market Streams"; 15 at once were measured to pass."""
