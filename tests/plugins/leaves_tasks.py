"""Misbehaves: starts a task for each feed and forgets it."""

import asyncio
import time

from relay import Candle, PriceUpdate, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="leaves_tasks", api=2, title="Leaves tasks", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    _kept.append(asyncio.create_task(asyncio.sleep(3600)))
    while True:
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 1.0, 1.0, 1.0))
        await asyncio.sleep(0.05)


_kept = []
