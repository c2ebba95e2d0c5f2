"""What is not valid any more: no read gives it, whether that is written yet or not, and it comes back in no way."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import Candle, StreamKey
from relay.core.past_change import PastChange
from relay.core.spans import Span, cut_spans
from relay.storage.chunks import decode, joined
from relay.storage.inspect import overview, reading
from relay.storage.set_aside import CHECKING, aside_name
from relay.storage.sql import Tables
from relay.storage.store import Store
from relay.storage.verify import verify
from relay.storage.write_queue import WriteQueue
from tests.support.examples import examples
from tests.support.virtual_time import run

KEY = StreamKey("ACME", "1m")
HOUR = StreamKey("ACME", "1h")
START = 1_700_000_000 // 3600 * 3600


def minute(number: int, close: float = 2.0) -> Candle:
    return Candle(START + 60 * number, 1.0, 9.0, 1.0, close, 1.0)


def minutes(*numbers: int, close: float = 2.0) -> list[Candle]:
    return [minute(number, close) for number in numbers]


def around(first: int, last: int) -> Span:
    return Span(START + 60 * first, START + 60 * last + 1)


async def known(store: Store, key: StreamKey = KEY) -> tuple[list[Candle], list[Candle], list[Span]]:
    """Return what both ways of reading give, and the spans."""
    chunks = (await store.chunks("p", key, 0, 1 << 40, 5000, False)).chunks
    return await store.read("p", key, 0, 1 << 40), decode(joined(chunks)), await store.spans("p", key, 0, 1 << 40)


def refuse_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(Tables, "write", refuse)
    monkeypatch.setattr(Tables, "void", refuse)


@pytest.mark.parametrize("is_written", [True, False])
async def test_a_change_takes_effect_before_it_is_written(tmp_path: Path, is_written: bool) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("p", KEY, minutes(*range(1200)), around(0, 1199))
    await known(store)
    seen = store.look()
    store.removals.void("p", PastChange(KEY, START + 60 * 1000))
    assert not seen.is_same("p", "ACME")
    assert not seen.has_all("p", KEY)
    assert store.version("p", KEY) == -1
    if is_written:
        await store.flush()
    left = minutes(*range(1000, 1200))
    assert await known(store) == (left, left, [around(1000, 1199)])
    # What is written later is as good as ever.
    await store.add("p", KEY, minutes(7, 8, close=3.0), around(7, 8))
    assert (await known(store))[1] == [*minutes(7, 8, close=3.0), *left]
    await store.close()
    with reading(str(tmp_path / "relay.db")) as connection:
        found = overview(connection, str(tmp_path / "relay.db"))
        assert verify(connection, found.streams, START + 1e6).faults == []
    store = await Store.open(tmp_path / "relay.db", Clock())
    assert (await known(store))[0] == [*minutes(7, 8, close=3.0), *left]
    await store.close()


async def test_a_correction_in_the_middle_leaves_both_sides(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("p", KEY, minutes(*range(20)), around(0, 19))
    await store.add("p", HOUR, [Candle(START, 1.0, 1.0, 1.0, 1.0)], Span(START, START + 1))
    store.removals.void("p", PastChange(KEY, START + 60 * 8, after=START + 60 * 5, one_interval=True))
    rows, _, spans = await known(store)
    assert rows == minutes(*range(5), *range(8, 20))
    assert spans == [Span(START, START + 60 * 4 + 1), Span(START + 60 * 8, START + 60 * 19 + 1)]
    assert len((await known(store, HOUR))[0]) == 1
    # The hour holds those minutes.
    store.removals.void("p", PastChange(KEY, START + 60 * 8, after=START + 60 * 5))
    assert (await known(store, HOUR))[0] == []
    await store.close()


async def test_what_is_taken_away_for_a_check_goes_too(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("p", KEY, minutes(1, 2), around(1, 2))
    aside = aside_name("ACME", CHECKING)
    await store.removals.set_aside("p", "ACME", aside)
    store.removals.void("p", PastChange(KEY))
    await store.removals.take_back("p", aside, "ACME")
    assert (await known(store))[0] == []
    await store.close()


async def test_while_nothing_can_be_written_the_old_is_not_given_and_the_new_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("p", KEY, minutes(*range(10)), around(0, 9))
    with monkeypatch.context() as patch:
        refuse_writing(patch)
        store.put_closed("p", KEY, minute(10), START + 60 * 9)
        revision = store.numbers.newest
        store.removals.void("p", PastChange(KEY, START + 60 * 8))
        with pytest.raises(StoreError):
            await store.flush()
        assert (await known(store))[1] == minutes(8, 9, 10)
        with pytest.raises(StoreError):
            await store.add("p", KEY, minutes(1, close=3.0), around(1, 1))
        assert (await known(store))[0] == [minute(1, 3.0), *minutes(8, 9, 10)]
        found = await store.revisions("p", KEY, revision)
        assert (found.is_complete, found.is_forgotten) == (False, True)
    await asyncio.sleep(60)
    await store.flush()
    assert (await known(store))[0] == [minute(1, 3.0), *minutes(8, 9, 10)]
    await store.close()


async def test_an_answer_from_before_is_not_stored(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    seen = store.look()
    store.removals.void("p", PastChange(KEY))
    await store.add("p", KEY, minutes(1), around(1, 1), seen=seen)
    assert (await known(store))[0] == []
    await store.add("p", KEY, minutes(1), around(1, 1), seen=store.look())
    assert (await known(store))[0] == minutes(1)
    await store.close()


def test_a_flood_of_changes_waits_in_little_room_and_is_given_up_by_no_excess() -> None:
    queue = WriteQueue(most=3)
    stream = ("p", KEY)
    for number in range(10_000):
        queue.push_void(stream, Span(number * 7 % 100, 200 + number * 13 % 100), number)
    assert len(queue) <= 9
    union = queue.voids_of(stream)
    assert min(union).start == 0
    assert max(span.end for span in union) == 299
    for number in range(50):
        queue.push(stream, (minute(number),), None)
        queue.drop_excess()
    assert queue.voids_of(stream) == union
    assert queue.candles == 3
    sizes = []
    while queue:
        batch = queue.batch()
        assert len({write.is_void for write in batch}) == 1
        sizes.append(len(batch))
        for _ in batch:
            queue.pop()
    assert sizes == [len(union), 3]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6),
    st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_spans_are_cut(pairs: Sequence[tuple[int, int]], gone: tuple[int, int]) -> None:
    spans = [Span(*pair) for pair in pairs]
    left = cut_spans(spans, Span(*gone))
    for time in range(52):
        is_in = any(span.start <= time < span.end for span in spans) and not gone[0] <= time < gone[1]
        assert any(span.start <= time < span.end for span in left) is is_in


steps = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 700), st.integers(1, 300)),
    st.tuples(st.just("close"), st.integers(0, 900), st.just(0)),
    st.tuples(st.just("void"), st.integers(0, 900), st.integers(0, 900)),
    st.tuples(st.sampled_from(["flush", "read", "wait"]), st.just(0), st.just(0)),
)


@settings(max_examples=examples(15))
@given(st.lists(steps, max_size=14))
def test_reads_give_what_was_stored_last_and_is_valid(play: list[tuple[str, int, int]]) -> None:
    async def perform() -> None:
        store = await Store.open(":memory:", Clock())
        model: dict[int, Candle] = {}
        for number, (step, first, second) in enumerate(play):
            close = 2.0 + number / 8
            if step == "add":
                model |= {one.time: one for one in minutes(*range(first, first + second), close=close)}
                candles = minutes(*range(first, first + second), close=close)
                await store.add("p", KEY, candles, around(first, first + second - 1))
            elif step == "close":
                model[minute(first).time] = minute(first, close)
                store.put_closed("p", KEY, minute(first, close), None)
            elif step == "void" and first < second:
                store.removals.void("p", PastChange(KEY, START + 60 * second, after=START + 60 * first))
                model = {time: one for time, one in model.items() if not first <= (time - START) // 60 < second}
            elif step == "flush":
                await store.flush()
            elif step == "wait":
                await asyncio.sleep(1)
            expected = [model[time] for time in sorted(model)]
            rows, chunks, spans = await known(store)
            assert rows == expected
            assert chunks == expected
            assert all(any(span.start <= time < span.end for span in spans) for time in model)
        await store.close()

    run(lambda loop: perform())
