"""What all markets of Binance say of themselves alike; pure.

Pages of spot are files in https://github.com/binance/binance-spot-api-docs, as of 2026-07-21, those of futures are in
https://developers.binance.com/docs/derivatives/usds-margined-futures, read from copies of 2025-03 to 2026-10.
"""

from providers.binance_markets.rules import MarketRules
from relay import ProviderInfo, Setting


def description_of(rules: MarketRules) -> ProviderInfo:
    """Return who the provider of a market is."""
    return ProviderInfo(
        name=rules.name,
        api=(2, 1),
        title=rules.title,
        asset_classes=(rules.asset_class,),
        intervals=rules.intervals,
        attribution="Market data by Binance (https://www.binance.com)",
        settings=(
            Setting("ws_url", "urls", rules.ws_urls, "Addresses of the stream servers, tried in turn"),
            Setting("rest_url", "urls", rules.rest_urls, "Addresses of the REST servers, tried in turn"),
        ),
        streams_per_feed=rules.streams_per_feed,
        # web-socket-streams.md, "General WSS information", and "Websocket Market Streams" of futures.
        feed_life_s=24 * 3600.0,
        # Our choice: closing events on record came 6 ms to 2.0 s after the close.
        close_grace_s=5.0,
        fresh_s=1.0,
        instruments_ttl_s=3600.0,
        candles_per_call=rules.klines_page,
        calls_at_once=4,
        # Recorded klines of spot, of all intervals; only days by threes begin on a day of their pair. For futures it is
        # the convention of all markets of Binance.
        is_utc_grid=True,
        # A kline without trades has the last price and no volume; outages alone leave holes, such as that of spot on
        # 2021-04-20, 02:00 to 04:29. For futures it is the convention.
        has_every_candle=True,
        # rest-api.md: the weight of a call to spot does not depend on how many it asks for. Calls to futures weigh by
        # their rows, and after a gap these are a few, far from the next larger weight. How many is our choice.
        candles_back=3,
        # They have hundreds or thousands, recorded lists of all times have these, and even a small venue of Binance. In
        # maintenance it lists a few for a while, or test pairs.
        least_instruments=10,
        always_listed=("BTCUSDT", "ETHUSDT", "BNBUSDT"),
        # "Kline/Candlestick data" of both; the klines of streams have the same.
        candle_extras=("quote_volume", "trades", "taker_volume", "taker_quote_volume"),
        symbol_form=rules.symbol_form,
        always_pinned=rules.always_pinned,
    )
