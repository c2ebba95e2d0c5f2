"""Misbehaves: the setting `answer` says what its history does; its stream is fine."""

import asyncio
import time
from decimal import Decimal

from relay import Candle, PriceUpdate, ProviderInfo, Setting, hookimpl

ANSWERS = ("none", "dict", "texts", "decimals", "rows", "generator", "raises", "exits", "cancels", "hangs", "stays")


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="wrong_history",
        api=2,
        title="Wrong history",
        asset_classes=("demo",),
        intervals=("1m",),
        settings=(Setting("answer", "choice", "none", choices=ANSWERS),),
    )


@hookimpl
async def relay_stream(watchlist):
    while True:
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 1.0, 1.0, 1.0))
        await asyncio.sleep(0.05)


@hookimpl
async def relay_candles(start, settings):
    answer = settings["answer"]
    if answer == "raises":
        raise RuntimeError("no history today")
    if answer == "exits":
        raise SystemExit(3)
    if answer == "cancels":
        raise asyncio.CancelledError
    if answer == "hangs":
        await asyncio.Event().wait()
    while answer == "stays":
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    opened = start or 60
    return {
        "none": None,
        "dict": {opened: 1.0},
        "texts": ["candle", "candle"],
        "decimals": [Candle(opened, *map(Decimal, (1, 1, 1, 1, 1)))],
        "rows": [(opened, 1.0, 1.0, 1.0, 1.0, 1.0)],
        "generator": (candle for candle in ()),
    }[answer]
