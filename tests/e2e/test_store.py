"""The store: nothing acknowledged is lost, nothing is claimed that is not there, and a failing disk harms nobody."""

import asyncio
import itertools
import json
import logging
import random
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span, merge_spans
from relay.storage.chunks import joined
from relay.storage.documents import Document
from relay.storage.limits import STORE_LIMITS, StoreLimits
from relay.storage.schema import APPLICATION_ID, MIGRATIONS, open_database
from relay.storage.store import Store
from tests.support.conditions import eventually

KEY = StreamKey(symbol="BTCUSDT", interval="1m")
OTHER = StreamKey(symbol="BTCUSDT", interval="1h")


def candle(open_time: int, price: float = 1.0) -> Candle:
    return Candle(time=open_time, open=price, high=price, low=price, close=price, volume=2.5)


def minutes(*numbers: int) -> list[Candle]:
    return [candle(60 * number) for number in numbers]


@asynccontextmanager
async def opened(
    path: Path | str, *, clock: Clock | None = None, limits: StoreLimits = STORE_LIMITS
) -> AsyncIterator[Store]:
    # A store that is not closed keeps its thread, and with it the interpreter.
    store = await Store.open(path, clock or Clock(), limits=limits)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "relay.db") as store:
        yield store


async def everything(store: Store, key: StreamKey = KEY) -> list[Candle]:
    return await store.read("demo", key, 0, 1 << 40)


async def coverage(store: Store, key: StreamKey = KEY) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in await store.spans("demo", key, 0, 1 << 40)]


# Reading and adding


async def test_candles_come_back_as_they_were_added(store: Store) -> None:
    row = Candle(time=60, open=0.1, high=1e9, low=1e-9, close=0.30000000000000004, volume=12345.678)
    await store.add("demo", KEY, [row], Span(60, 61))
    assert await everything(store) == [row]


async def test_read_gives_the_first_or_the_last_of_a_half_open_range(store: Store) -> None:
    await store.add("demo", KEY, minutes(1, 2, 3, 4, 5), Span(0, 301))
    assert await store.read("demo", KEY, 60, 300) == minutes(1, 2, 3, 4)
    assert await store.read("demo", KEY, 60, 300, limit=2) == minutes(1, 2)
    assert await store.read("demo", KEY, 60, 300, limit=2, newest=True) == minutes(3, 4)
    assert await store.read("demo", KEY, 60, 300, limit=0) == []


async def test_streams_do_not_mix(store: Store) -> None:
    await store.add("demo", KEY, minutes(1), Span(60, 61))
    await store.add("demo", OTHER, minutes(2), Span(120, 121))
    await store.add("else", KEY, minutes(3), Span(180, 181))
    assert await everything(store) == minutes(1)
    assert await everything(store, OTHER) == minutes(2)
    assert await coverage(store) == [(60, 61)]


async def test_spans_that_touch_become_one_and_are_cut_to_the_range(store: Store) -> None:
    await store.add("demo", KEY, [], Span(100, 200))
    await store.add("demo", KEY, [], Span(300, 400))
    assert await coverage(store) == [(100, 200), (300, 400)]
    await store.add("demo", KEY, [], Span(200, 300))
    assert await coverage(store) == [(100, 400)]
    assert await store.spans("demo", KEY, 150, 250) == [Span(150, 250)]
    assert await store.spans("demo", KEY, 400, 500) == []


async def test_rows_without_a_span_claim_nothing(store: Store) -> None:
    await store.add("demo", KEY, minutes(1), None)
    assert await everything(store) == minutes(1)
    assert await coverage(store) == []


async def test_live_candles_that_follow_one_another_leave_no_gap(store: Store) -> None:
    store.put_closed("demo", KEY, candle(60), after=None)
    store.put_closed("demo", KEY, candle(180), after=60)
    store.put_closed("demo", KEY, candle(600), after=None)
    await store.flush()
    assert await coverage(store) == [(60, 181), (600, 601)]


async def test_live_candle_does_not_vouch_for_the_one_before_it(store: Store) -> None:
    store.put_closed("demo", KEY, candle(180), after=60)
    assert await coverage(store) == [(61, 181)]


async def test_reads_see_what_is_queued_and_what_is_revised(store: Store) -> None:
    await store.add("demo", KEY, minutes(1, 2, 3), Span(60, 181))
    store.put_closed("demo", KEY, candle(120, price=9.0), after=60)
    store.put_closed("demo", KEY, candle(240), after=180)
    assert await everything(store) == [candle(60), candle(120, price=9.0), candle(180), candle(240)]
    assert await store.read("demo", KEY, 0, 1000, limit=2, newest=True) == minutes(3, 4)
    assert await coverage(store) == [(60, 241)]
    await store.flush()
    assert await everything(store) == [candle(60), candle(120, price=9.0), candle(180), candle(240)]


async def test_queued_candles_are_written_without_being_asked_for(store: Store, tmp_path: Path) -> None:
    store.put_closed("demo", KEY, candle(60), after=None)
    other = sqlite3.connect(tmp_path / "relay.db")
    await eventually(lambda: other.execute("SELECT count(*) FROM candles").fetchone()[0])
    other.close()


async def test_last_revision_of_one_batch_stays(store: Store) -> None:
    for price in (1.0, 2.0, 3.0):
        store.put_closed("demo", KEY, candle(60, price=price), after=None)
    await store.flush()
    assert await everything(store) == [candle(60, price=3.0)]
    assert (await store.streams_summary()).candles == 1


async def test_unstorable_candle_harms_no_other(store: Store) -> None:
    store.put_closed("demo", KEY, candle(60, price=float("nan")), after=None)
    store.put_closed("demo", KEY, candle(1 << 70), after=None)
    store.put_closed("demo", KEY, candle(120), after=60)
    await store.flush()
    assert await everything(store) == [candle(120)]
    assert await coverage(store) == [(61, 121)]
    assert store.rejected == 2
    assert store.problem is None


async def test_summary_counts_rows_once(store: Store) -> None:
    await store.add("demo", KEY, minutes(1, 2, 3), Span(60, 181))
    await store.add("demo", KEY, minutes(2, 3, 4), Span(60, 241))
    await store.add("demo", OTHER, minutes(1), Span(0, 61))
    summary = await store.streams_summary()
    assert (summary.streams, summary.candles, summary.spans) == (2, 5, 2)
    assert summary.file_bytes > 0


async def test_documents_are_replaced_and_dated(tmp_path: Path) -> None:
    wall = 1000.5
    async with opened(tmp_path / "relay.db", clock=Clock(wall=lambda: wall)) as store:
        assert await store.documents.get("symbols") is None
        await store.documents.put("symbols", b"[1]")
        wall = 2000.5
        await store.documents.put("symbols", b"[2]")
        assert await store.documents.get("symbols") == Document(body=b"[2]", stored_at=2000.5)


async def test_cancelled_add_is_still_written(store: Store) -> None:
    adding = asyncio.create_task(store.add("demo", KEY, minutes(1, 2), Span(60, 121)))
    await asyncio.sleep(0)
    adding.cancel()
    await asyncio.gather(adding, return_exceptions=True)
    await store.flush()
    assert await everything(store) == minutes(1, 2)


async def test_adds_at_the_same_time_all_return(store: Store) -> None:
    await asyncio.gather(*(store.add("demo", KEY, minutes(n), Span(60 * n, 60 * n + 60)) for n in range(200)))
    assert await coverage(store) == [(0, 12000)]
    assert len(await everything(store)) == 200


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
def test_merged_spans_hold_the_same_times(pairs: list[tuple[int, int]]) -> None:
    spans = [Span(start, end) for start, end in pairs]
    merged = merge_spans(spans)
    assert {t for span in merged for t in range(*span)} == {t for span in spans for t in range(*span)}
    assert all(earlier.end < later.start for earlier, later in itertools.pairwise(merged))


# Opening and closing


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path / "relay.db") as store:
        await store.add("demo", KEY, minutes(1), Span(0, 61))
        store.put_closed("demo", KEY, candle(120), after=60)
    async with opened(tmp_path / "relay.db") as store:
        assert await everything(store) == minutes(1, 2)
        assert await coverage(store) == [(0, 121)]


async def test_memory_store_keeps_nothing() -> None:
    async with opened(":memory:") as store:
        await store.add("demo", KEY, minutes(1), Span(0, 61))
        assert await everything(store) == minutes(1)
        await store.close()
    store.put_closed("demo", KEY, candle(60), after=None)
    with pytest.raises(StoreError, match="closed"):
        await everything(store)
    with pytest.raises(StoreError, match="closed"):
        await store.add("demo", KEY, minutes(1), None)


async def test_file_of_a_newer_relay_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreError) as caught:
        await Store.open(path, Clock())
    assert str(caught.value) == (
        f"database {path}: has schema version 99, this relay supports up to {len(MIGRATIONS)};"
        " upgrade the relay, restore a backup of the time before, or name another file"
    )


async def test_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        await Store.open(path, Clock())
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"name,price\nBTCUSDT,1\n" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "relay.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="move it away or name another file") as caught:
        await Store.open(path, Clock())
    assert str(path) in str(caught.value)


async def test_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="check that its directory exists"):
        await Store.open(tmp_path / "nowhere" / "relay.db", Clock())


def test_file_locked_for_good_is_said(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another program has locked it; stop the other program"):
        open_database(str(path), "relay.db", timeout_s=0.1)
    other.close()


async def test_file_of_an_earlier_version_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    async with opened(path) as store:
        await store.add("demo", KEY, minutes(1), Span(0, 61))
    later = open_database(
        str(path), "relay.db", migrations=(*MIGRATIONS, ("ALTER TABLE streams ADD COLUMN note TEXT",))
    )
    assert later.execute("SELECT candles.time, streams.note FROM candles, streams").fetchall() == [(60, None)]
    assert later.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    later.close()


async def test_failed_migration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    async with opened(path):
        pass
    broken = ("ALTER TABLE streams ADD COLUMN note TEXT", "CREATE NONSENSE")
    with pytest.raises(StoreError):
        open_database(str(path), "relay.db", migrations=(*MIGRATIONS, broken))
    async with opened(path):
        pass
    with sqlite3.connect(path) as other:
        assert "note" not in {row[1] for row in other.execute("PRAGMA table_info(streams)")}
    other.close()


async def test_file_without_chunks_is_read_and_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    first = open_database(str(path), "relay.db", migrations=MIGRATIONS[:1])
    first.execute("INSERT INTO streams VALUES (1, 'demo', ?, ?)", KEY)
    first.executemany("INSERT INTO candles VALUES (1, ?, ?, ?, ?, ?, ?)", minutes(*range(600)))
    first.execute("INSERT INTO spans VALUES (1, 0, 36000)")
    first.execute("UPDATE totals SET candles = 600")
    first.close()
    async with opened(path) as store:
        assert (await encoded(store))[0] == minutes(*range(600))
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT number, until FROM chunks ORDER BY 1").fetchall() == [(0, 30_661), (1, 35_941)]
    other.close()


# Encoded


async def encoded(
    store: Store, start: int = 0, end: int = 1 << 40, limit: int = 1 << 40, newest: bool = False
) -> tuple[list[Candle], bool]:
    """What `chunks` gives, as candles, and whether the database was not read for it."""
    stored = await store.chunks("demo", KEY, start, end, limit, newest)
    chunk = joined(stored.chunks)
    found = [Candle(**one) for one in json.loads(b"[%b]" % chunk.text)]
    assert [candle.time for candle in found] == list(chunk.times)
    return found, stored.is_remembered


async def test_windows_near_to_what_is_wanted_come_with_the_spans(tmp_path: Path) -> None:
    async with opened(tmp_path / "relay.db") as store:
        await store.add("demo", KEY, minutes(*range(0, 3000, 7)), Span(0, 180_000))
    async with opened(tmp_path / "relay.db") as store:
        assert await store.known("demo", KEY, near=179_999) == ([Span(0, 180_000)], 1, False)
        assert await encoded(store, 0, 180_000, limit=100, newest=True) == (minutes(*range(0, 3000, 7)[-100:]), True)
        assert await encoded(store, 0, 180_000, limit=200, newest=True) == (minutes(*range(0, 3000, 7)[-200:]), False)
        assert await encoded(store, 0, 180_000, limit=200, newest=True) == (minutes(*range(0, 3000, 7)[-200:]), True)
    async with opened(tmp_path / "relay.db") as store:
        await store.known("demo", KEY, near=60_000)
        assert await encoded(store, 0, 180_000, limit=3, newest=True) == (minutes(*range(0, 3000, 7)[-3:]), False)


async def test_encoded_candles_are_read_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "relay.db") as store:
        await store.add("demo", KEY, minutes(*range(1600)), Span(0, 96_000))
    async with opened(tmp_path / "relay.db") as store:
        assert await encoded(store, limit=3, newest=True) == (minutes(1597, 1598, 1599), False)
        assert await encoded(store, limit=3, newest=True) == (minutes(1597, 1598, 1599), True)
        assert await encoded(store, 30_660, 30_780) == (minutes(511, 512), False)
        assert await encoded(store, 30_600, 30_780) == (minutes(510, 511, 512), True)


async def test_live_candles_reach_the_memory_without_a_read(store: Store) -> None:
    await store.add("demo", KEY, minutes(1, 2), Span(0, 121))
    assert (await encoded(store))[0] == minutes(1, 2)
    version = store.version("demo", KEY)
    store.put_closed("demo", KEY, candle(180), after=120)
    assert store.version("demo", KEY) != version
    assert await encoded(store) == (minutes(1, 2, 3), True)
    assert await coverage(store) == [(0, 181)]


async def test_a_revision_reaches_memory_and_stored_chunks(tmp_path: Path) -> None:
    async with opened(tmp_path / "relay.db") as store:
        await store.add("demo", KEY, minutes(*range(100)), Span(0, 6000))
        assert (await encoded(store))[0] == minutes(*range(100))
        version = store.version("demo", KEY)
        store.put_closed("demo", KEY, candle(60, price=9.0), after=None)
        assert store.version("demo", KEY) != version
        revised = [candle(0), candle(60, price=9.0), *minutes(*range(2, 100))]
        assert (await encoded(store))[0] == revised
    async with opened(tmp_path / "relay.db") as store:
        assert (await encoded(store))[0] == revised


async def test_a_damaged_chunk_is_made_anew_from_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    async with opened(path) as store:
        await store.add("demo", KEY, minutes(*range(100)), Span(0, 6000))
        await store.add("demo", KEY, minutes(600), Span(36_000, 36_001))
    with sqlite3.connect(path) as other:
        assert other.execute("UPDATE chunks SET text = substr(text, 1, 2000) WHERE number = 0").rowcount == 1
    other.close()
    for _ in range(2):
        async with opened(path) as store:
            assert (await encoded(store))[0] == minutes(*range(100), 600)


async def test_streams_beyond_the_memory_are_read_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "relay.db", limits=StoreLimits(most_streams=1)) as store:
        await store.add("demo", KEY, minutes(1), Span(0, 61))
        assert (await encoded(store))[0] == minutes(1)
        await store.spans("demo", OTHER, 0, 100)
        assert store.version("demo", KEY) == -1
        store.put_closed("demo", KEY, candle(120), after=60)
        assert (await encoded(store))[0] == minutes(1, 2)
        assert await coverage(store) == [(0, 121)]


class Rows(NamedTuple):
    """One action, on so many candles from a number on; the price tells revisions apart."""

    kind: str
    first: int
    many: int


actions = st.lists(
    st.builds(
        Rows,
        st.sampled_from(["add", "add", "live", "live", "live", "revise", "read", "read", "both", "flush", "reopen"]),
        st.integers(0, 1100),
        st.integers(1, 300),
    ),
    min_size=4,
    max_size=14,
)


@settings(max_examples=40)
@given(actions, st.sampled_from([0, 60_000, 1 << 24]))
def test_memory_chunks_and_rows_always_agree(script: list[Rows], cache_bytes: int) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "relay.db"
            truth: dict[int, Candle] = {}
            known: set[int] = set()
            newest = 0
            store = await Store.open(path, Clock(), cache_bytes=cache_bytes)
            try:
                for turn, (kind, first, count) in enumerate(script, 1):
                    if kind == "reopen":
                        await store.close()
                        store = await Store.open(path, Clock(), cache_bytes=cache_bytes)
                        # Only the windows near to this are known now.
                        await store.known("demo", KEY, near=60 * first)
                        continue
                    if kind == "flush":
                        await store.flush()
                        continue
                    if kind in ("live", "revise"):
                        number = newest + 1 if kind == "live" else first
                        newest = max(newest, number)
                        truth[60 * number] = candle(60 * number, price=float(turn))
                        known.add(number)
                        store.put_closed("demo", KEY, truth[60 * number], after=None)
                        continue
                    jobs = []
                    if kind in ("add", "both"):
                        rows = [candle(60 * n, price=float(turn)) for n in range(first, first + count) if n % 7]
                        truth |= {row.time: row for row in rows}
                        known |= set(range(first, first + count))
                        newest = max(newest, first + count)
                        jobs.append(store.add("demo", KEY, rows, Span(60 * first, 60 * (first + count))))
                    if kind in ("read", "both"):
                        others = asyncio.gather(*jobs)
                        start, end, newest_first = 60 * first, 60 * (first + count), bool(first % 2)
                        found, _ = await encoded(store, start, end, count // 2 + 1, newest_first)
                        await others
                        if kind == "read":
                            inside = [truth[t] for t in sorted(truth) if start <= t < end]
                            assert found == (inside[-(count // 2 + 1) :] if newest_first else inside[: count // 2 + 1])
                            assert (await encoded(store, start, end))[0] == inside
                            assert (await encoded(store, limit=count, newest=True))[0] == [
                                truth[t] for t in sorted(truth)[-count:]
                            ]
                    else:
                        await asyncio.gather(*jobs)
                    assert (await encoded(store))[0] == [truth[t] for t in sorted(truth)]
                    assert await everything(store) == [truth[t] for t in sorted(truth)]
                    covered = {n for span in await coverage(store) for n in range(-(-span[0] // 60), -(-span[1] // 60))}
                    assert covered == known
            finally:
                await store.close()

    asyncio.run(play())


# Killed

WRITER = """
import asyncio, sys
from relay.core.clock import Clock
from relay.core.spans import Span, merge_spans
from relay.core.model import Candle, StreamKey
from relay.storage.store import Span, Store

async def history(store, key, n):
    # Batches in reversed order, so that the spans are merged in every way.
    while True:
        n += 1
        at = 6_000_000_000 - n * 600
        rows = [Candle(at + 60 * i, 1, 1, 1, 1, n) for i in range(10)]
        await store.add("demo", key, rows, Span(at, at + 600))
        print(key.symbol, at, 10, flush=True)

async def live(store, key):
    n, last = 0, None
    while True:
        for _ in range(50):
            n += 1
            store.put_closed("demo", key, Candle(n * 60, 1, 1, 1, 1, 1), last)
            last = n * 60
        await store.flush()
        print(key.symbol, last - 49 * 60, 50, flush=True)

async def main():
    store = await Store.open(sys.argv[1], Clock())
    n = (await store.streams_summary()).candles
    a, b, c = (StreamKey(symbol, "1m") for symbol in "ABC")
    await asyncio.gather(history(store, a, n), history(store, b, n), live(store, c))

asyncio.run(main())
"""


async def test_kill_loses_nothing_acknowledged_and_claims_nothing_missing(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    randomness = random.Random(4)
    acknowledged: dict[StreamKey, set[int]] = {}
    for _ in range(5):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout is not None
        printed = b"".join([await process.stdout.readline() for _ in range(randomness.randrange(20, 200))])
        process.kill()
        printed += await process.stdout.read()
        await process.wait()
        for line in printed.decode().splitlines(keepends=True):
            if line.endswith("\n"):
                symbol, start, count = line.split()
                times = {int(start) + 60 * i for i in range(int(count))}
                acknowledged.setdefault(StreamKey(symbol, "1m"), set()).update(times)
        async with opened(path) as store:
            for key, times in acknowledged.items():
                stored = {row.time for row in await everything(store, key)}
                assert times <= stored
                claimed = {t for start, end in await coverage(store, key) for t in range(-(-start // 60) * 60, end, 60)}
                assert claimed <= stored
            with sqlite3.connect(path) as other:
                assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert other.execute("PRAGMA foreign_key_check").fetchall() == []
                assert other.execute("SELECT count(*) FROM candles").fetchone() == (
                    (await store.streams_summary()).candles,
                )
            other.close()
    assert sum(len(times) for times in acknowledged.values()) > 1000


# Failing


async def limit_pages(store: Store, more: int) -> None:
    # SQLite answers SQLITE_FULL above this many pages, as on a full disk.
    (pages,) = next(iter(await store._database.connection.execute_fetchall("PRAGMA page_count")))
    await store._database.connection.execute_fetchall(f"PRAGMA max_page_count = {pages + more}")


async def test_full_disk_keeps_candles_until_there_is_room(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay.storage")
    await store.add("demo", KEY, minutes(1), Span(0, 61))
    await limit_pages(store, 1)
    rows = [candle(60 * n) for n in range(2, 2000)]
    with pytest.raises(StoreError, match="the store cannot be written: the disk is full"):
        await store.add("demo", KEY, rows, Span(61, 120_000))
    assert str(store.problem) == "the disk is full"
    store.put_closed("demo", KEY, candle(120_000), after=119_940)
    with pytest.raises(StoreError, match="the disk is full"):
        await store.add("demo", OTHER, minutes(7), Span(420, 421))
    assert await everything(store) == [candle(60), *rows, candle(120_000)]
    assert await coverage(store) == [(0, 120_001)]
    with pytest.raises(StoreError, match="the disk is full"):
        await store.flush()

    await limit_pages(store, 10_000)
    await store.flush()
    assert not store.problem
    assert await everything(store) == [candle(60), *rows, candle(120_000)]
    assert await everything(store, OTHER) == minutes(7)
    assert (await store.streams_summary())[4:] == (0, 0)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_full_disk_is_tried_again_without_being_asked(tmp_path: Path) -> None:
    limits = StoreLimits(least_retry_s=0.05, most_retry_s=0.1)
    async with opened(tmp_path / "relay.db", limits=limits) as store:
        await limit_pages(store, 0)
        with pytest.raises(StoreError):
            await store.add("demo", KEY, [candle(60 * n) for n in range(500)], Span(0, 30_000))
        await limit_pages(store, 10_000)
        await eventually(lambda: store.problem is None)
        assert (await store.streams_summary()).candles == 500


async def test_oldest_are_dropped_when_too_many_wait(tmp_path: Path) -> None:
    async with opened(tmp_path / "relay.db", limits=StoreLimits(max_queued=300)) as store:
        await limit_pages(store, 0)
        last = None
        for n in range(1, 1001):
            store.put_closed("demo", KEY, candle(60 * n), after=last)
            last = 60 * n
        with pytest.raises(StoreError):
            await store.flush()
        assert (await store.streams_summary()).dropped == 700
        assert await everything(store) == [candle(60 * n) for n in range(701, 1001)]
        assert await coverage(store) == [(700 * 60 + 1, 60_001)]
        await limit_pages(store, 10_000)
        await store.flush()
        assert await coverage(store) == [(700 * 60 + 1, 60_001)]


async def test_locked_file_delays_writes_and_not_reads(store: Store, tmp_path: Path) -> None:
    await store.add("demo", KEY, minutes(1), Span(0, 61))
    other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another program has locked it"):
        await store.add("demo", KEY, minutes(2), Span(61, 121))
    assert await everything(store) == minutes(1, 2)
    other.execute("ROLLBACK")
    other.close()
    await store.flush()
    assert store.problem is None
    assert await coverage(store) == [(0, 121)]


async def test_file_locked_at_the_end_does_not_hold_up_closing(tmp_path: Path) -> None:
    async with opened(tmp_path / "relay.db", limits=StoreLimits(batch_s=0.01, close_attempts=2)) as store:
        other = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        store.put_closed("demo", KEY, candle(60), after=None)
        await asyncio.wait_for(store.close(), 20)
        other.close()


async def test_damaged_file_is_said_and_live_candles_are_still_taken(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    async with opened(path) as store:
        await store.add("demo", KEY, [candle(60 * n) for n in range(20_000)], Span(0, 1_200_000))
    content = bytearray(path.read_bytes())
    content[20 * 4096 :] = random.Random(1).randbytes(len(content) - 20 * 4096)
    path.write_bytes(content)
    async with opened(path) as store:
        with pytest.raises(StoreError, match="the store cannot be read: the file is damaged") as caught:
            await everything(store)
        assert str(tmp_path) not in str(caught.value)
        assert store.problem == "the file is damaged"
        store.put_closed("demo", KEY, candle(60 * 30_000), after=None)
