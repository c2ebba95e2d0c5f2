"""Binance's USD-M futures: what differs from the other markets of Binance.

What the venue documents is named by its page in
https://developers.binance.com/docs/derivatives/usds-margined-futures, read from copies of 2025-03 to 2026-10.
"""

from providers.binance_markets.plugin import MarketPlugin
from providers.binance_markets.rules import MarketRules
from providers.binance_usdm.codec import UsdmCodec
from providers.binance_usdm.contracts import contract_of
from providers.binance_usdm.weights import WEIGHTS

INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
""""Kline/Candlestick Streams"; `1s`, which some copies list as well, was measured to be refused as invalid."""

RULES = MarketRules(
    name="binance_usdm",
    title="Binance USD-M Futures",
    asset_class="future",
    intervals=INTERVALS,
    # "Websocket Market Streams"; the codec adds the category.
    ws_urls=("wss://fstream.binance.com",),
    # "General Info".
    rest_urls=("https://fapi.binance.com",),
    # "Websocket Market Streams": 1024 since 2025-07, and one more ends the connection; 200 in older copies of the page,
    # and in https://nautilustrader.io still.
    streams_per_feed=200,
    root="/fapi/v1",
    codec=UsdmCodec,
    # "ENUM definitions", and recorded lists; one recorded list of the test network says 6,000.
    weight_a_minute=2400,
    # "Kline/Candlestick Data": the largest `limit`. A larger one was measured to be refused.
    klines_page=1500,
    list_query={},
    instrument=contract_of,
    native_weights=WEIGHTS,
    # Contracts are called like the pairs that they are on: `BTCUSDT` is spot.
    always_pinned=True,
)


class BinanceUsdmProvider(MarketPlugin):
    """The plugin; one instance a relay, which holds what its feeds and calls share."""

    def __init__(self) -> None:
        super().__init__(RULES)
