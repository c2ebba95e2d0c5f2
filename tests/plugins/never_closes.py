"""Misbehaves: says a long farewell."""

import asyncio
import time

from relay import Candle, PriceUpdate, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="never_closes", api=2, title="Never closes", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    try:
        while True:
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 1.0, 1.0, 1.0))
            await asyncio.sleep(0.05)
    finally:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
