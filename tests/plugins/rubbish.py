"""Misbehaves: between good updates it yields everything else that one can think of."""

import asyncio
import math
import time
from decimal import Decimal

from relay import Candle, PriceUpdate, ProviderInfo, StreamKey, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="rubbish", api=2, title="Rubbish", asset_classes=("demo",), intervals=("1m",))


def rubbish(key, opened):
    """Give a name and a value for each kind of rubbish."""
    good = Candle(opened, 2.0, 3.0, 1.0, 2.0, 5.0)
    yield "None", None
    yield "text", "BTCUSDT"
    yield "tuple", (key, good)
    yield "object", object()
    yield "other stream", PriceUpdate(StreamKey("NEVERASKED", "1m"), good)
    yield "key is a text", PriceUpdate("GOOD@1m", good)
    yield "key is a list", PriceUpdate(["GOOD", "1m"], good)
    yield "key is None", PriceUpdate(None, good)
    yield "candle is None", PriceUpdate(key, None)
    yield "candle is a tuple", PriceUpdate(key, tuple(good))
    yield "candle is a dict", PriceUpdate(key, good._asdict())
    yield "NaN", PriceUpdate(key, good._replace(close=math.nan))
    yield "infinite", PriceUpdate(key, good._replace(high=math.inf))
    yield "low above high", PriceUpdate(key, good._replace(low=4.0))
    yield "close above high", PriceUpdate(key, good._replace(close=3.5))
    yield "negative volume", PriceUpdate(key, good._replace(volume=-1.0))
    yield "text price", PriceUpdate(key, good._replace(open="2.0"))
    yield "None price", PriceUpdate(key, good._replace(open=None))
    yield "Decimal", PriceUpdate(key, Candle(opened, *map(Decimal, (2, 3, 1, 2, 5))))
    yield "bool price", PriceUpdate(key, good._replace(low=True))
    yield "huge int", PriceUpdate(key, good._replace(high=10**400))
    yield "wide int", PriceUpdate(key, good._replace(high=10**30))
    yield "float time", PriceUpdate(key, good._replace(time=float(opened)))
    yield "text time", PriceUpdate(key, good._replace(time=str(opened)))
    yield "time in ms", PriceUpdate(key, good._replace(time=opened * 1000))
    yield "negative time", PriceUpdate(key, good._replace(time=-60))
    yield "is_closed 1", PriceUpdate(key, good, is_closed=1)
    yield "is_closed None", PriceUpdate(key, good, is_closed=None)
    yield "ts_event text", PriceUpdate(key, good, ts_event_ms="now")
    yield "ts_event in s", PriceUpdate(key, good, ts_event_ms=opened)
    yield "ts_event float", PriceUpdate(key, good, ts_event_ms=opened * 1000.0)
    yield "ts_event in ns", PriceUpdate(key, good, ts_event_ms=opened * 10**9)
    yield "revised", PriceUpdate(key, good, is_closed=True, is_revised=True)
    yield "backfilled", PriceUpdate(key, good, is_backfilled=True)


@hookimpl
async def relay_stream(watchlist):
    price = 2.0
    while True:
        opened = int(time.time()) // 60 * 60
        for key in watchlist.streams:
            for _, value in rubbish(key, opened):
                yield value
            price = 2.5 if price == 2.0 else 2.0
            yield PriceUpdate(key, Candle(opened, 2.0, 3.0, 1.0, price, 5.0))
        await asyncio.sleep(0.05)
