"""Blocks the event loop for 1.5 s: in its stream, in what the stream calls, or in what a library calls back."""

import asyncio
import json
import time

from relay import Candle, PriceUpdate, ProviderInfo, Setting, hookimpl


class Lazy(json.JSONDecoder):
    """The standard library calls this back, so the innermost line of the plugin is in here."""

    def decode(self, text):
        time.sleep(1.5)
        return text


def decode(where):
    if where == "decode":
        time.sleep(1.5)
    elif where == "library":
        json.loads("1", cls=Lazy)


@hookimpl
def relay_provider():
    settings = (Setting("where", "choice", "stream", choices=("stream", "decode", "library")),)
    return ProviderInfo("blocks", 2, "Blocks", ("demo",), ("1m",), settings=settings)


@hookimpl
async def relay_stream(watchlist, settings):
    where = settings["where"]
    while True:
        if where == "stream":
            time.sleep(1.5)  # noqa: ASYNC251 - that is the point
        decode(where)
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 1.0, 1.0, 1.0))
        await asyncio.sleep(2)
