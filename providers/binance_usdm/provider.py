"""Binance's USD-M futures: who it is, and what differs from the other markets of Binance.

What the venue documents is named by its page in
https://developers.binance.com/docs/derivatives/usds-margined-futures, read from copies of 2025-03 to 2026-10.
"""

from providers.binance_markets.plugin import MarketPlugin
from providers.binance_markets.rules import MarketRules
from providers.binance_usdm.codec import UsdmCodec
from providers.binance_usdm.contracts import contract_of
from providers.binance_usdm.weights import WEIGHTS
from relay import ProviderInfo, Setting

INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
""""Kline/Candlestick Streams"; `1s`, which some copies list as well, was measured to be refused as invalid."""

_WS_URLS = ("wss://fstream.binance.com",)
""""Websocket Market Streams"; the codec adds the category."""
_REST_URLS = ("https://fapi.binance.com",)
""""General Info"."""

_RULES = MarketRules(
    root="/fapi/v1",
    codec=UsdmCodec,
    # "ENUM definitions", and recorded lists; one recorded list of the test network says 6,000.
    weight_a_minute=2400,
    # "Kline/Candlestick Data": the largest `limit`. A larger one was measured to be refused.
    klines_page=1500,
    list_query={},
    instrument=contract_of,
    native_weights=WEIGHTS,
)
_INFO = ProviderInfo(
    name="binance_usdm",
    api=(2, 1),
    title="Binance USD-M Futures",
    asset_classes=("future",),
    intervals=INTERVALS,
    attribution="Market data by Binance (https://www.binance.com)",
    settings=(
        Setting("ws_url", "urls", _WS_URLS, "Addresses of the stream servers, tried in turn"),
        Setting("rest_url", "urls", _REST_URLS, "Addresses of the REST servers, tried in turn"),
    ),
    # "Websocket Market Streams": 1024 since 2025-07, and one more ends the connection; 200 in older copies of the page,
    # and in https://nautilustrader.io still.
    streams_per_feed=200,
    # "Websocket Market Streams".
    feed_life_s=24 * 3600.0,
    # Our choice: closing events on record came 0.2 to 2.0 s after the close.
    close_grace_s=5.0,
    fresh_s=1.0,
    instruments_ttl_s=3600.0,
    candles_per_call=_RULES.klines_page,
    calls_at_once=4,
    # By convention of all markets of Binance, as its spot klines on record.
    is_utc_grid=True,
    # By convention, as for spot: a kline without trades has the last price and no volume.
    has_every_candle=True,
    # Our choice: calls weigh by their rows, and after a gap these are a few, far from the next larger weight.
    candles_back=3,
    # Contracts are called like the pairs that they are on: `BTCUSDT` is spot.
    always_pinned=True,
    # It has hundreds; recorded lists of all times have these.
    least_instruments=10,
    always_listed=("BTCUSDT", "ETHUSDT", "BNBUSDT"),
    # "Kline/Candlestick Data"; the klines of streams have the same.
    candle_extras=("quote_volume", "trades", "taker_volume", "taker_quote_volume"),
)


class BinanceUsdmProvider(MarketPlugin):
    """The plugin; one instance a relay, which holds what its feeds and calls share."""

    def __init__(self) -> None:
        super().__init__(_INFO, _RULES)
