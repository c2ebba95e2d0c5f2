"""A provider with a steady number of updates per second, made in the process: for measurements of what follows."""

import asyncio
import itertools
import time

from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, Setting, hookimpl

TICK_S = 0.02
DAY_S = 86_400


@hookimpl
def relay_provider():
    return ProviderInfo(
        "even_pace",
        API_VERSION,
        "Even pace",
        ("demo",),
        ("1d",),
        settings=(Setting("per_second", "int", 1000, "Updates per second of all streams together"),),
    )


@hookimpl
async def relay_stream(watchlist, settings):
    due, turn, at = 0.0, itertools.count(), time.monotonic()
    while True:
        await asyncio.sleep(TICK_S)
        now = time.monotonic()
        due, at = due + (now - at) * settings["per_second"], now
        streams = list(watchlist.streams)
        watchlist.accept(streams)
        if not streams:
            due = 0.0
        while due >= 1.0:
            due -= 1.0
            n = next(turn)
            key, moment = streams[n % len(streams)], time.time()
            price = 60_000.0 + n % 997 / 100
            candle = Candle(int(moment) // DAY_S * DAY_S, 60_000.0, 60_010.0, 60_000.0, price, n % 1000 / 8)
            yield PriceUpdate(key, candle, ts_event_ms=int(moment * 1000))
