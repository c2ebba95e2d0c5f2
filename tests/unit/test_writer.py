"""The task that writes: who waits for it is always answered."""

import asyncio

import pytest

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.storage.store import Store

KEY = StreamKey(symbol="BTCUSDT", interval="1m")
CANDLE = Candle(time=60, open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0)


async def _broken(*_: object) -> None:
    raise RuntimeError("nobody foresaw this")


async def test_closing_answers_who_waits_for_a_writer_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.storage.sql.Tables.write", _broken)
    store = await Store.open(":memory:", Clock())
    adding = asyncio.create_task(store.add("demo", KEY, [CANDLE], Span(60, 61)))
    await asyncio.sleep(0)  # it is queued
    await store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        await adding


async def test_what_comes_after_closing_is_refused_and_counted() -> None:
    store = await Store.open(":memory:", Clock())
    before = await store.streams_summary()
    await store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        await store.add("demo", KEY, [CANDLE], Span(60, 61))
    store.put_closed("demo", KEY, CANDLE, after=None)
    await store.flush()  # nothing waits
    assert (before.dropped, store._queue.dropped) == (0, 1)
