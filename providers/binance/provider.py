"""Binance spot: what differs from the other markets of Binance.

What the venue documents is named by its page in https://github.com/binance/binance-spot-api-docs, as of 2026-07-21.
"""

from providers.binance.books import BookCodec, live_book
from providers.binance.codec import BinanceCodec
from providers.binance.pairs import pair_of
from providers.binance.weights import WEIGHTS
from providers.binance_markets.plugin import MarketPlugin
from providers.binance_markets.rules import MarketRules

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""web-socket-streams.md, "Kline/Candlestick chart intervals"; rest-api.md has the same."""

RULES = MarketRules(
    name="binance",
    title="Binance",
    asset_class="crypto",
    intervals=INTERVALS,
    # web-socket-streams.md; the second one, for market data only, is in faqs/market_data_only.md.
    ws_urls=("wss://stream.binance.com:9443", "wss://data-stream.binance.vision"),
    # rest-api.md; the second one, for public data only, is in faqs/market_data_only.md.
    rest_urls=("https://api.binance.com", "https://data-api.binance.vision"),
    # web-socket-streams.md, "Websocket Limits": 1024; the rest is room for streams on their way in and out.
    streams_per_feed=1000,
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
    # Error -1100 of calls names it as the legal range of a symbol: letters of any script, digits and three signs.
    symbol_form=r"[\w.-]+",
)


class BinanceProvider(MarketPlugin):
    """The plugin; one instance a relay, which holds what its feeds and calls share."""

    def __init__(self) -> None:
        super().__init__(RULES)
