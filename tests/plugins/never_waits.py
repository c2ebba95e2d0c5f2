"""Misbehaves: yields without ever waiting for anything."""

import itertools
import time

from relay import Candle, PriceUpdate, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="never_waits", api=2, title="Never waits", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    for number in itertools.count():
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 1.0 + number, 1.0, 1.0))
