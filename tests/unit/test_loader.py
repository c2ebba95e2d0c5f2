"""What memory learns of a stream from the file while the stream goes on being written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relay.core.clock import Clock
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.storage.limits import StoreLimits
from relay.storage.store import Store

KEY = StreamKey(symbol="BTCUSDT", interval="1m")


@asynccontextmanager
async def small_store() -> AsyncIterator[Store]:
    """A store that lets two candles wait."""
    store = await Store.open(":memory:", Clock(), limits=StoreLimits(max_queued=2))
    try:
        yield store
    finally:
        await store.close()


def put(store: Store, *numbers: int) -> None:
    """Deliver closed candles of the live stream, one after the other."""
    for number in numbers:
        candle = Candle(time=60 * number, open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0)
        store.put_closed("demo", KEY, candle, after=60 * (number - 1))


async def known(store: Store) -> list[Span]:
    return await store.spans("demo", KEY, 0, 1 << 40)


async def test_candles_given_up_are_not_known_any_more() -> None:
    async with small_store() as store:
        assert await known(store) == []
        async with store._database.lock:
            put(store, 1, 2, 3)
        assert await known(store) == [Span(61, 181)]


async def test_candles_given_up_while_the_stream_is_read_are_not_known() -> None:
    async with small_store() as store:
        async with store._database.lock:
            put(store, 1, 2)
            reading = asyncio.create_task(known(store))
            await asyncio.sleep(0)  # it has taken what waits, and cannot read
            put(store, 3)
        assert await reading == [Span(61, 181)]


async def test_candles_put_while_the_stream_is_read_are_known() -> None:
    async with small_store() as store:
        async with store._database.lock:
            put(store, 1)
            reading = asyncio.create_task(known(store))
            await asyncio.sleep(0)
            put(store, 2)
        assert await reading == [Span(1, 121)]
