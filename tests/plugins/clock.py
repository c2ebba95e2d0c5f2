"""The smallest complete provider: each second it closes a candle that holds the number of the second."""

import asyncio
import time

from relay import Candle, PriceUpdate, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="clock", api=2, title="Clock", asset_classes=("demo",), intervals=("1s",))


@hookimpl
async def relay_stream(watchlist):
    opened = int(time.time())
    while True:
        await asyncio.sleep(opened + 1 - time.time())
        second = opened % 60
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(opened, second, second, second, second), is_closed=True)
        opened += 1
