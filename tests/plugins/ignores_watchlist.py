"""Misbehaves: goes on with what it was asked first, whatever was withdrawn."""

import asyncio
import itertools
import time

from relay import Candle, PriceUpdate, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="ignores_watchlist", api=2, title="Ignores watchlist", asset_classes=("demo",), intervals=("1m",)
    )


@hookimpl
async def relay_stream(watchlist):
    wanted = watchlist.streams
    for number in itertools.count():
        # In handfuls: the first hundreds after a withdrawal pass for late.
        for key in wanted * 5:
            yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 2.0, 1.0, 1.0 + number % 2))
        await asyncio.sleep(0.02)
