"""What candles carry beside prices and volume, in the store: kept, read, encoded, revised and checked."""

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay.core.clock import Clock
from relay.core.model import EXTRA_FIELDS, Candle, CandleExtras, ExtendedCandle, StreamKey
from relay.core.spans import Span
from relay.core.written_numbers import written_candle, written_texts
from relay.storage.chunks import EXTENDED, EXTENDED_CSV_HEAD, Chunk, as_csv, as_lines, encode, joined
from relay.storage.inspect import overview, reading
from relay.storage.store import Store
from relay.storage.verify import Fault, verify

KEY = StreamKey("BTCUSDT", "1m")
KLINES: dict[str, list[list[Any]]] = json.loads(
    (Path(__file__).parents[1] / "data" / "binance" / "klines.json").read_text(encoding="utf-8")
)
FIRST = 1_763_000_040


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "relay.db", Clock())
    yield store
    await store.close()


def full(number: int, trades: int | None = 3, close: float = 1.5) -> ExtendedCandle:
    return ExtendedCandle(
        FIRST + 60 * number, 1.0, 2.0, 0.5, close, 10.0, quote_volume=15.0, trades=trades, taker_volume=4.0
    )


def bare(number: int, close: float = 1.5) -> Candle:
    return Candle(*full(number, close=close))


async def stored(store: Store) -> list[CandleExtras | None]:
    return [candle.extras for candle in await store.read("p", KEY, 0, 1 << 40, extended=True)]


# -- rows ----------------------------------------------------------------------------------------------------------


async def test_what_an_exchange_wrote_is_read_back_to_the_last_digit(tmp_path: Path) -> None:
    for is_first_run in (True, False):
        store = await Store.open(tmp_path / "relay.db", Clock())
        for name, rows in KLINES.items():
            symbol, interval = name.split("@")
            key = StreamKey(symbol, interval)
            if is_first_run:
                candles = [written_candle(row[0] // 1000, (*row[1:6], row[7], row[9], row[10]), row[8]) for row in rows]
                await store.add("binance", key, candles, None)
            found = await store.read("binance", key, 0, 1 << 40, extended=True)
            assert [(one.time * 1000, *(written_texts(one) or ()), one.trades) for one in found] == [
                (row[0], *row[1:6], row[7], row[9], row[10], row[8]) for row in rows
            ]
        await store.close()


@pytest.mark.parametrize("is_written", [True, False], ids=["in the file", "in the queue"])
async def test_the_same_values_without_extras_take_none_away_and_others_do(store: Store, is_written: bool) -> None:
    await store.add("p", KEY, [full(0), full(1), bare(2)], None)
    for candle in (bare(0), bare(1, close=1.75), full(2)):
        store.put_closed("p", KEY, candle, None)
    if is_written:
        await store.flush()
    assert await stored(store) == [full(0).extras, None, full(2).extras]
    store.put_extras("p", KEY, [full(0, trades=4), full(1, close=1.75)])
    if is_written:
        await store.flush()
    assert await stored(store) == [full(0, trades=4).extras, full(1).extras, full(2).extras]
    assert next(candle.extras for candle in await store.read("p", KEY, 0, 1 << 40)) is None or not is_written


async def test_whole_numbers_and_long_texts_are_kept_as_numbers_and_in_short(store: Store) -> None:
    extras: Any = {"quote_volume": 15, "written": ",".join(["1.00000000"] * 8)}
    await store.add("p", KEY, [ExtendedCandle(FIRST, 1, 1, 1, 1, 1, **extras)], None)
    (found,) = await stored(store)
    assert found == CandleExtras(quote_volume=15.0, written=".8")
    assert type(found.quote_volume) is float


# -- encoded -------------------------------------------------------------------------------------------------------


def objects(chunk: Chunk) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = orjson.loads(b"[%b]" % chunk.text)
    return rows


async def test_extended_chunks_have_four_more_values_and_plain_ones_are_as_ever(tmp_path: Path) -> None:
    candles = [full(n) if n % 3 else bare(n) for n in range(700)]
    end = candles[-1].time + 1
    for is_first_run in (True, False):
        store = await Store.open(tmp_path / "relay.db", Clock())
        if is_first_run:
            await store.add("p", KEY, candles, Span(FIRST, end))
        for _ in range(2):
            plain = joined((await store.chunks("p", KEY, 0, end, 1000, False)).chunks)
            extended = joined((await store.chunks("p", KEY, 0, end, 1000, False, EXTENDED)).chunks)
            assert plain == encode([Candle(*candle) for candle in candles])
            assert objects(extended) == [
                {**candle._asdict(), **{name: getattr(candle, name) for name in EXTRA_FIELDS}} for candle in candles
            ]
            assert list(extended.times) == list(plain.times)
        assert EXTENDED.bare_times(extended) == [candle.time for candle in candles if candle.extras is None]
        await store.close()


async def test_extended_chunks_in_memory_follow_what_is_written(store: Store) -> None:
    await store.add("p", KEY, [full(n) for n in range(10)], Span(FIRST, FIRST + 600))

    async def trades() -> list[int | None]:
        found = await store.chunks("p", KEY, FIRST, FIRST + 6000, 100, False, EXTENDED)
        return [row["trades"] for row in objects(joined(found.chunks))]

    assert await trades() == [3] * 10
    store.put_closed("p", KEY, full(10, trades=7), FIRST + 540)
    assert await trades() == [3] * 10 + [7]
    store.put_extras("p", KEY, [full(10, trades=8), full(0, trades=1)])
    assert await trades() == [1] + [3] * 9 + [8]
    await store.flush()
    assert await trades() == [1] + [3] * 9 + [8]
    found = await store.chunks("p", KEY, FIRST, FIRST + 6000, 100, False, EXTENDED)
    assert found.is_remembered


def test_extended_lines_and_csv() -> None:
    chunk = encode([full(0), bare(1)], EXTENDED)
    lines = as_lines(chunk).splitlines()
    assert [orjson.loads(line)["trades"] for line in lines] == [3, None]
    assert (EXTENDED_CSV_HEAD + as_csv(chunk, extended=True)).decode().splitlines() == [
        "time,open,high,low,close,volume,quote_volume,trades,taker_volume,taker_quote_volume",
        f"{FIRST},1.0,2.0,0.5,1.5,10.0,15.0,3,4.0,",
        f"{FIRST + 60},1.0,2.0,0.5,1.5,10.0,,,,",
    ]
    assert EXTENDED.bare_times(chunk) == [FIRST + 60]
    assert EXTENDED.bare_times(encode([full(0)], EXTENDED)) == []


# -- revisions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_written", [True, False], ids=["in the file", "in the queue"])
async def test_who_gets_no_extras_is_not_given_revisions_of_those_alone(store: Store, is_written: bool) -> None:
    await store.add("p", KEY, [full(n) for n in range(3)], Span(FIRST, FIRST + 180))
    before = store.numbers.newest
    store.put_closed("p", KEY, full(0, close=1.75), None, is_revised=True)
    for number in (0, 1):
        store.put_closed("p", KEY, full(number, 4, 1.5 if number else 1.75), None, is_revised=True, is_of_extras=True)
    if is_written:
        await store.flush()
    plain = await store.revisions("p", KEY, before)
    extended = await store.revisions("p", KEY, before, extended=True)
    assert [candle.time for candle in plain.candles] == [FIRST]
    assert [(candle.time, candle.trades) for candle in extended.candles] == [(FIRST, 4), (FIRST + 60, 4)]
    assert plain.is_complete
    assert extended.is_complete


# -- the check -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("quote_volume", -1.0, "the quote volume or what takers bought is not a number of 0 or more"),
        ("taker_volume", "x", "the quote volume or what takers bought is not a number of 0 or more"),
        ("taker_quote_volume", 9e999, "the quote volume or what takers bought is not a number of 0 or more"),
        ("trades", -1, "the number of trades is not a whole number of 0 or more"),
        ("trades", 1.5, "the number of trades is not a whole number of 0 or more"),
        ("written", "x", "the numbers as they were written are not those of the candle"),
        ("written", ".8,.8", "the numbers as they were written are not those of the candle"),
        ("written", b".8", "the numbers as they were written are not those of the candle"),
        ("quote_volume", 5.5, None),
        ("trades", None, None),
    ],
)
async def test_the_check_finds_extras_that_make_no_sense(
    tmp_path: Path, column: str, value: object, what: str | None
) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    candles = [written_candle(FIRST + 60 * n, ("1.00000000",) * 8, 3) for n in range(3)]
    await store.add("p", KEY, candles, Span(FIRST, FIRST + 180))
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE candles SET {column} = ? WHERE time = ?", (value, FIRST + 60))
    with reading(str(path)) as connection:
        found = verify(connection, overview(connection, str(path)).streams, time.time()).faults
    assert found == ([] if what is None else [Fault("p BTCUSDT@1m", what, 1, (FIRST + 60,))])
