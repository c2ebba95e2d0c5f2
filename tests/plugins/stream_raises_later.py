"""Misbehaves: its stream fails after each second update."""

import time

from relay import Candle, PriceUpdate, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="stream_raises_later",
        api=2,
        title="Stream raises later",
        asset_classes=("demo",),
        intervals=("1m",),
    )


@hookimpl
async def relay_stream(watchlist):
    for price in (1.0, 2.0):
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, price, price, price, price))
    raise ZeroDivisionError("price by no volume")
