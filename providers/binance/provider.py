"""Binance spot: who it is, and what differs from the other markets of Binance.

What the venue documents is named by its page in https://github.com/binance/binance-spot-api-docs, as of 2026-07-21.
"""

from providers.binance.books import BookCodec, live_book
from providers.binance.codec import BinanceCodec
from providers.binance.pairs import pair_of
from providers.binance.weights import WEIGHTS
from providers.binance_markets.plugin import MarketPlugin
from providers.binance_markets.rules import MarketRules
from relay import ProviderInfo, Setting

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""web-socket-streams.md, "Kline/Candlestick chart intervals"; rest-api.md has the same."""

_WS_URLS = ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision")
"""web-socket-streams.md; the second one, for market data only, is in faqs/market_data_only.md."""
_REST_URLS = ("https://api.binance.com", "https://data-api.binance.vision")
"""rest-api.md; the second one, for public data only, is in faqs/market_data_only.md."""

_RULES = MarketRules(
    root="/api/v3",
    codec=BinanceCodec,
    # enums.md, "Rate limiters".
    weight_a_minute=6000,
    # rest-api.md, "Kline/Candlestick data": the largest `limit`. What a larger one does is not documented.
    klines_page=1000,
    list_query={"showPermissionSets": "false"},
    instrument=pair_of,
    native_weights=WEIGHTS,
    live=live_book,
    live_codec=BookCodec,
)
_INFO = ProviderInfo(
    name="binance",
    api=(2, 1),
    title="Binance",
    asset_classes=("crypto",),
    intervals=INTERVALS,
    attribution="Market data by Binance (https://www.binance.com)",
    settings=(
        Setting("ws_url", "urls", _WS_URLS, "Addresses of the stream servers, tried in turn"),
        Setting("rest_url", "urls", _REST_URLS, "Addresses of the REST servers, tried in turn"),
    ),
    # web-socket-streams.md, "Websocket Limits": 1024; the rest is room for streams on their way in and out.
    streams_per_feed=1000,
    # web-socket-streams.md, "General WSS information".
    feed_life_s=24 * 3600.0,
    # Our choice: closing events on record came 6 ms to 1.8 s after the close.
    close_grace_s=5.0,
    fresh_s=1.0,
    instruments_ttl_s=3600.0,
    candles_per_call=_RULES.klines_page,
    calls_at_once=4,
    # Recorded klines of all intervals; only days by threes begin on a day of their pair.
    is_utc_grid=True,
    # A kline without trades has the last price and no volume; outages alone leave holes (2021-04-20, 02:00 to 04:29).
    has_every_candle=True,
    # rest-api.md: the weight of a call does not depend on how many it asks for. How many is our choice.
    candles_back=3,
    # It has thousands. In maintenance it lists a few for a while, or test pairs; even a small venue of it has these.
    least_instruments=10,
    always_listed=("BTCUSDT", "ETHUSDT", "BNBUSDT"),
    # rest-api.md, "Kline/Candlestick data"; the klines of streams have the same.
    candle_extras=("quote_volume", "trades", "taker_volume", "taker_quote_volume"),
)


class BinanceProvider(MarketPlugin):
    """The plugin; one instance a relay, which holds what its feeds and calls share."""

    def __init__(self) -> None:
        super().__init__(_INFO, _RULES)
