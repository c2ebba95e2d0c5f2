"""A database that is not under its name any more while it is used, or changed from outside: noticed, said, honest."""

import asyncio
import errno
import itertools
import logging
import os
import random
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path

import pytest

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import Candle, StreamKey
from relay.core.past_change import PastChange
from relay.core.spans import Span
from relay.storage import footprint
from relay.storage.chunks import joined
from relay.storage.database import FileChecks
from relay.storage.inspect import overview, reading, vacuum
from relay.storage.store import Store
from relay.storage.verify import verify
from tests.support.conditions import eventually

KEY = StreamKey("BTCUSDT", "1m")
FAST = FileChecks(check_s=0.02, absent_s=0.1, verify_s=0.05)
AT_REST = FAST._replace(check_s=1000.0)


def minutes(*numbers: int) -> list[Candle]:
    return [Candle(60 * number, 1.0, 1.0, 1.0, 1.0, 2.5) for number in numbers]


@asynccontextmanager
async def opened(path: Path, pace: FileChecks = FAST) -> AsyncIterator[Store]:
    store = await Store.open(path, Clock(), pace=pace)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    return place / "relay.db"


async def everything(store: Store) -> list[Candle]:
    return await store.read("demo", KEY, 0, 1 << 40)


async def encoded(store: Store) -> list[int]:
    return [*joined((await store.chunks("demo", KEY, 0, 1 << 40, 100_000, False)).chunks).times]


async def known(store: Store) -> list[Span]:
    return await store.spans("demo", KEY, 0, 1 << 40)


def kept(path: Path) -> tuple[list[Candle], list[Span]]:
    """Return what a file holds, as another program reads it."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT time, open, high, low, close, volume FROM candles ORDER BY time").fetchall()
        spans = connection.execute('SELECT start, "end" FROM spans ORDER BY start').fetchall()
    return [Candle._make(row) for row in rows], [Span._make(span) for span in spans]


async def fill(store: Store) -> None:
    """Store five minutes, and have memory know them in every way."""
    await store.add("demo", KEY, minutes(1, 2, 3, 4, 5), Span(60, 301))
    assert await known(store) == [Span(60, 301)]
    assert await encoded(store) == [60, 120, 180, 240, 300]


async def assert_honest(store: Store, path: Path) -> None:
    """Memory, file and what SQLite and `relay store --check` say of it agree; what closes next is kept there."""
    store.put_closed("demo", KEY, minutes(9)[0], None)
    await store.flush()
    assert store.problem is None
    candles, spans = kept(path)
    assert minutes(9)[0] in candles
    assert await everything(store) == candles
    assert await encoded(store) == [candle.time for candle in candles]
    assert await known(store) == spans
    with reading(str(path)) as connection:
        assert verify(connection, overview(connection, str(path)).streams, time.time()).faults == []


def works_on(store: Store, count: int) -> bool:
    """Say whether it works, after so many changes of the file."""
    return store.problem is None and store.replacements >= count


# Another file under the name


def nothing(path: Path) -> None:
    pass


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    for file in path.parent.glob("relay.db*"):
        file.unlink()


def move_away(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def put_empty_file(path: Path) -> None:
    empty = path.with_name("empty")
    empty.touch(mode=0o600)
    empty.replace(path)


def put_backup(path: Path) -> None:
    path.with_name("backup.db").replace(path)


def put_link(path: Path, target: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(target)
    link.replace(path)


def put(path: Path, content: bytes | None) -> None:
    """Have something else under the name: these bytes, or a directory."""
    delete_all(path)
    path.mkdir() if content is None else path.write_bytes(content)


def take_away(path: Path, content: bytes | None) -> None:
    """Undo `put`, which nobody has changed meanwhile."""
    if content is None:
        path.rmdir()
    else:
        assert path.read_bytes() == content
        path.unlink()


def put_back(path: Path) -> None:
    assert not path.exists()
    path.with_name("moved.db").rename(path)


def put_new_directory(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.mkdir()


@pytest.mark.parametrize("lose", [delete, delete_all, move_away, put_empty_file, put_new_directory])
async def test_store_goes_on_with_a_new_file_and_claims_nothing_of_the_old_one(
    path: Path, lose: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        await fill(store)
        seen = store.look()
        lose(path)
        await eventually(lambda: store.replacements == 1)
        assert not seen.has_all("demo", KEY)
        assert (await everything(store), await encoded(store), await known(store)) == ([], [], [])
        await assert_honest(store, path)
        assert kept(path) == (minutes(9), [Span(540, 541)])
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said[0] in {
        f"store cannot be used: the file was {what}; 0 candles waiting" for what in ("deleted", "replaced")
    }
    assert said[1:] == [
        "store works again; 0 candles waiting, 0 dropped",
        "the store continues with the file that is there now",
    ]


async def test_restored_backup_is_all_that_is_known(path: Path) -> None:
    backup = path.with_name("backup.db")
    async with opened(backup) as store:
        await store.add("demo", KEY, minutes(1, 2), Span(0, 180))
    async with opened(path) as store:
        await fill(store)
        # The log of the file that is lost stays behind and is not small: SQLite would take it for the backup's.
        assert path.with_name("relay.db-wal").stat().st_size > 4096
        put_backup(path)
        await eventually(lambda: store.replacements == 1)
        assert await everything(store) == minutes(1, 2)
        assert await known(store) == [Span(0, 180)]
        await assert_honest(store, path)


async def test_a_past_that_changed_since_is_not_that_of_a_backup(path: Path) -> None:
    backup = path.with_name("backup.db")
    async with opened(backup) as store:
        await store.add("demo", KEY, minutes(1, 2), Span(0, 180))
    async with opened(path) as store:
        await fill(store)
        store.removals.void("demo", PastChange(KEY, minutes(2)[0].time))
        await store.flush()
        put_backup(path)
        await eventually(lambda: store.replacements == 1)
        assert await everything(store) == minutes(2)
        await store.flush()
        await assert_honest(store, path)
    assert kept(path)[0] == minutes(2, 9)


async def test_file_that_was_moved_away_has_all_that_was_acknowledged(path: Path) -> None:
    async with opened(path) as store:
        await fill(store)
        move_away(path)
        await eventually(lambda: store.replacements == 1)
    assert kept(path.with_name("moved.db")) == (minutes(1, 2, 3, 4, 5), [Span(60, 301)])


async def test_symbolic_link_that_is_turned_to_another_file(path: Path) -> None:
    first, second = path.with_name("first.db"), path.with_name("second.db")
    async with opened(second) as store:
        await store.add("demo", KEY, minutes(1), Span(60, 61))
    put_link(path, first)
    async with opened(path) as store:
        await fill(store)
        put_link(path, second)
        await eventually(lambda: store.replacements == 1)
        assert await everything(store) == minutes(1)
        await assert_honest(store, path)
        with pytest.raises(StoreError, match=f"process id {os.getpid()} uses it"):
            await Store.open(second, Clock())
        async with opened(first) as other:
            assert await everything(other) == minutes(1, 2, 3, 4, 5)


async def test_what_closes_while_there_is_no_file_waits_for_one(path: Path) -> None:
    async with opened(path) as store:
        await fill(store)
        shutil.rmtree(path.parent)
        store.put_closed("demo", KEY, minutes(6)[0], None)
        await eventually(lambda: store.problem)
        store.put_closed("demo", KEY, minutes(7)[0], 360)
        with pytest.raises(StoreError, match="cannot be written"):
            await store.flush()
        with pytest.raises(StoreError, match="cannot be written"):
            await store.add("demo", KEY, minutes(8), Span(480, 481))
        # What waits is known; what the file held is not.
        assert await everything(store) == minutes(6, 7, 8)
        assert await known(store) == [Span(360, 421), Span(480, 481)]
        assert (await store.streams_summary()).queued == 3
        path.parent.mkdir()
        await eventually(lambda: store.problem is None)
        await store.flush()
        assert kept(path)[0] == minutes(6, 7, 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"this is a diary, and not a short one " * 500, "it is not a database"), (None, "it is not a file")],
)
async def test_something_else_under_the_name_is_left_alone(path: Path, content: bytes | None, reason: str) -> None:
    async with opened(path) as store:
        await fill(store)
        put(path, content)
        await eventually(lambda: store.problem == reason)
        assert await everything(store) == []
        take_away(path, content)
        await eventually(lambda: store.replacements == 1)
        await assert_honest(store, path)


async def test_file_that_is_away_for_a_moment_is_not_made_anew(path: Path) -> None:
    async with opened(path, FAST._replace(absent_s=1000.0)) as store:
        await fill(store)
        move_away(path)
        await eventually(lambda: store.problem == "the file was deleted")
        for _ in range(5):
            await store._database.check()
        put_back(path)
        await eventually(lambda: store.replacements == 1)
        assert await everything(store) == minutes(1, 2, 3, 4, 5)
        await assert_honest(store, path)


async def test_who_has_to_know_of_another_file_is_told(path: Path) -> None:
    async with opened(path) as store:
        told: list[list[Candle]] = []

        async def take() -> None:
            told.append(await everything(store))

        store.on_new_file(take)
        await fill(store)
        delete(path)
        await eventually(lambda: told)
        assert told == [[]]


@pytest.mark.parametrize("seed", [1, 2])
async def test_attacks_in_any_order_under_load_leave_an_honest_file(path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    is_over = asyncio.Event()

    async def live(store: Store) -> None:
        for number in itertools.count(10):
            store.put_closed("demo", KEY, minutes(number)[0], 60 * (number - 1))
            with suppress(StoreError):
                await encoded(store)
            await asyncio.sleep(0.005)
            if is_over.is_set():
                return

    async with opened(path, FAST._replace(absent_s=0.05)) as store:
        writing = asyncio.create_task(live(store))
        attacks = [delete, delete_all, move_away, put_empty_file, put_new_directory]
        attacks += [partial(delete_beside, suffix) for suffix in ("-wal", "-shm", "-lock")]
        for count in range(12):
            await asyncio.sleep(randomness.uniform(0, 0.3))
            # There has to be something to attack, and the last one is noticed before the end.
            await eventually(partial(works_on, store, count))
            randomness.choice(attacks)(path)
        await eventually(partial(works_on, store, 12))
        is_over.set()
        await writing
        await assert_honest(store, path)


# The files beside it


def delete_beside(suffix: str, path: Path) -> None:
    path.with_name(path.name + suffix).unlink()


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-lock"])
@pytest.mark.parametrize("is_replaced", [False, True])
async def test_file_of_sqlite_that_is_lost_loses_nothing(path: Path, suffix: str, is_replaced: bool) -> None:
    async with opened(path) as store:
        await fill(store)
        beside = path.with_name(path.name + suffix)
        beside.unlink()
        if is_replaced:
            beside.write_bytes(b"not what it was")
        await eventually(lambda: store.replacements == 1)
        assert await everything(store) == minutes(1, 2, 3, 4, 5)
        await assert_honest(store, path)


# One relay


async def test_second_relay_is_refused_whatever_it_calls_the_file(path: Path) -> None:
    async with opened(path):
        link, hard_link = path.with_name("link.db"), path.with_name("hard.db")
        link.symlink_to(path)
        for name in (path, link, path.parent / ".." / path.parent.name / path.name):
            with pytest.raises(StoreError) as refused:
                await Store.open(name, Clock())
            reason = f"the relay with process id {os.getpid()} uses it"
            assert str(refused.value) == f"database {name}: {reason}; stop it or name another file"
        os.link(path, hard_link)
        with pytest.raises(StoreError, match="has a second name"):
            await Store.open(hard_link, Clock())
        hard_link.unlink()
    async with opened(path):
        pass


async def test_relay_whose_lock_was_taken_keeps_away(path: Path) -> None:
    async with opened(path, FileChecks(check_s=1000.0)) as store:
        await fill(store)
        path.with_name("relay.db-lock").unlink()
        async with opened(path) as other:
            store.put_closed("demo", KEY, minutes(6)[0], None)
            with pytest.raises(StoreError, match="its lock file was deleted or replaced"):
                await store.flush()
            await eventually(lambda: store.problem == f"the relay with process id {os.getpid()} uses it")
            await other.add("demo", KEY, minutes(7), Span(420, 421))
        await store._database.check()
        await store.flush()
        assert kept(path)[0] == minutes(1, 2, 3, 4, 5, 6, 7)


# Another program writes to it


async def test_what_another_program_deletes_is_not_claimed(path: Path) -> None:
    async with opened(path) as store:
        await fill(store)
        with closing(sqlite3.connect(path)) as other, other:
            for table in ("candles", "spans", "chunks", "streams"):
                other.execute(f"DELETE FROM {table}")
            other.execute("UPDATE totals SET candles = 0")
        seen = store.look()
        await eventually(lambda: not seen.has_all("demo", KEY))
        assert (await everything(store), await encoded(store), await known(store)) == ([], [], [])
        await assert_honest(store, path)


async def test_vacuum_beside_a_store_harms_nothing(path: Path) -> None:
    async with opened(path) as store:
        await store.add("demo", KEY, minutes(*range(1, 3000)), Span(60, 180_000))
        await store.removals.trim("demo", KEY, 512 * 60, 10_000)
        await asyncio.to_thread(vacuum, str(path))
        seen = store.look()
        await eventually(lambda: not seen.has_all("demo", KEY))
        await store._database.check()
        assert (store.problem, store.replacements) == (None, 0)
        assert (await everything(store))[0].time == 512 * 60


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xa5" * 4096)


async def test_damage_is_noticed_before_anybody_reads_it_and_is_not_forgotten(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        await store.add("demo", KEY, minutes(*range(1, 3000)), Span(60, 180_000))
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(path, path.with_name("backup.db"))
        await asyncio.to_thread(overwrite, path)
        await eventually(lambda: store.problem == "the file is damaged")
        # Other parts of it can be read and written.
        await store.streams()
        await store.documents.put("note", b"{}")
        for _ in range(3):
            await store._database.check()
        assert store.problem == "the file is damaged"
        assert len([text for text in caplog.messages if text.startswith("store cannot")]) == 1
        put_backup(path)
        await eventually(lambda: store.problem is None)
        assert await everything(store) == minutes(*range(1, 3000))


def cut_off(path: Path) -> None:
    os.truncate(path, 3 * 4096)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def copy_over(path: Path) -> None:
    shutil.copyfile(path.with_name("backup.db"), path)


async def test_file_that_is_cut_off_is_damaged(path: Path) -> None:
    async with opened(path) as store:
        for number in range(10):
            await store.add("demo", StreamKey(f"S{number}", "1m"), minutes(*range(60)), Span(0, 3600))
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        await store._database.check()
        cut_off(path)
        await eventually(lambda: store.problem == "the file is damaged")
        delete_all(path)
        await eventually(lambda: store.problem is None)
        await assert_honest(store, path)


def size_of(path: Path) -> int:
    return path.stat().st_size


async def copy_to_file(store: Store, path: Path) -> None:
    """Have SQLite write its log into the file, as other programs may."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await store._database.check()


@pytest.mark.parametrize("pause_s", [None, 0.0, 0.3])
@pytest.mark.parametrize("has_log", [False, True])
async def test_file_that_a_backup_was_copied_over_is_all_that_is_known(
    path: Path, has_log: bool, pause_s: float | None
) -> None:
    async with opened(path.with_name("backup.db")) as store:
        await store.add("demo", KEY, minutes(1), Span(0, 61))
    async with opened(path) as store:
        await fill(store)
        if not has_log:
            await copy_to_file(store, path)
        if pause_s is not None:
            # Who copies empties the file first, and may be seen between.
            await asyncio.to_thread(path.write_bytes, b"")
            await eventually(lambda: store.replacements == 1)
            await asyncio.sleep(pause_s)
        await asyncio.to_thread(copy_over, path)
        await eventually(lambda: store.replacements >= 1 if pause_s is None else store.replacements >= 2)
        async with asyncio.timeout(10):
            while (await everything(store), await known(store)) != (minutes(1), [Span(0, 61)]):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        await assert_honest(store, path)


@pytest.mark.parametrize("has_log", [False, True])
async def test_file_that_is_emptied_in_its_place_is_a_new_one(path: Path, has_log: bool) -> None:
    async with opened(path) as store:
        await fill(store)
        if not has_log:
            await copy_to_file(store, path)
        await asyncio.to_thread(empty, path)
        await eventually(lambda: store.replacements)
        assert (await everything(store), await known(store)) == ([], [])
        await assert_honest(store, path)


async def test_file_that_gets_an_earlier_state_of_itself_has_that_and_nothing_of_the_log(path: Path) -> None:
    async with opened(path) as store:
        await store.add("demo", KEY, minutes(1, 2), Span(60, 121))
        await copy_to_file(store, path)
        await asyncio.to_thread(shutil.copyfile, path, path.with_name("backup.db"))
        await store.add("demo", KEY, minutes(3, 4), Span(121, 241))
        await copy_to_file(store, path)
        await store.add("demo", KEY, minutes(5), Span(241, 301))
        # Not its size tells one from the other.
        assert len({await asyncio.to_thread(size_of, file) for file in (path, path.with_name("backup.db"))}) == 1
        await asyncio.to_thread(copy_over, path)
        await eventually(lambda: store.replacements == 1)
        assert (await everything(store), await known(store)) == (minutes(1, 2), [Span(60, 121)])
        await assert_honest(store, path)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def cut_to(path: Path, suffix: str, share: float) -> None:
    os.truncate(beside(path, suffix), int(beside(path, suffix).stat().st_size * share))


def fill_with(path: Path, suffix: str, content: Callable[[int], bytes]) -> None:
    with beside(path, suffix).open("r+b") as file:
        file.write(content(os.fstat(file.fileno()).st_size))


def put_old_one(path: Path, suffix: str) -> None:
    shutil.copyfile(path.with_name(f"old{suffix}"), beside(path, suffix))


IN_PLACE: dict[str, Callable[[Path, str], None]] = {
    "empty": partial(cut_to, share=0),
    "half": partial(cut_to, share=0.5),
    "zeros": partial(fill_with, content=bytes),
    "noise": partial(fill_with, content=os.urandom),
    "old": put_old_one,
}


async def fill_with_log(store: Store, path: Path) -> None:
    """Have five minutes in the file, and five in its log; what log and index were before is in `old-wal`, `old-shm`."""
    await store.add("demo", KEY, minutes(1, 2, 3, 4, 5), Span(60, 301))
    for suffix in ("-wal", "-shm"):
        await asyncio.to_thread(shutil.copyfile, beside(path, suffix), path.with_name(f"old{suffix}"))
    await copy_to_file(store, path)
    for number in range(6, 11):
        await store.add("demo", KEY, minutes(number), Span(60 * number - 59, 60 * number + 1))
    assert len(await encoded(store)) == 10


@pytest.mark.parametrize("harm", IN_PLACE)
async def test_log_that_is_written_over_is_noticed_and_not_used(
    path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as store:
        await fill_with_log(store, path)
        await asyncio.to_thread(IN_PLACE[harm], path, "-wal")
        # Waits in memory, and is kept.
        store.put_closed("demo", KEY, minutes(20)[0], None)
        await eventually(lambda: store.replacements == 1)
        await eventually(lambda: store.problem is None)
        await store.flush()
        assert await everything(store) == minutes(1, 2, 3, 4, 5, 20)
        await assert_honest(store, path)
    said = [text for text in caplog.messages if "written over" in text]
    assert len(said) == 1
    assert said[0].startswith("store cannot be used: its write-ahead log was written over;")


@pytest.mark.parametrize("harm", IN_PLACE)
async def test_index_that_is_written_over_loses_nothing(path: Path, harm: str) -> None:
    # A statement that runs while the index is cut off ends the process: nothing else may run here.
    async with opened(path, AT_REST) as store:
        await fill_with_log(store, path)
        await asyncio.to_thread(IN_PLACE[harm], path, "-shm")
        # That may be refused, but it is not wrong.
        with suppress(StoreError):
            assert await everything(store) == minutes(*range(1, 11))
        store.put_closed("demo", KEY, minutes(20)[0], None)
        await store._database.check()
        await eventually(lambda: store.problem is None)
        await store.flush()
        assert await everything(store) == minutes(*range(1, 11), 20)
        await assert_honest(store, path)


async def test_index_that_is_set_back_loses_nothing(path: Path) -> None:
    async with opened(path, AT_REST) as store:
        await fill_with_log(store, path)
        await asyncio.to_thread(shutil.copyfile, beside(path, "-shm"), path.with_name("old-shm"))
        await store.add("demo", KEY, minutes(11), Span(601, 661))
        await asyncio.to_thread(put_old_one, path, "-shm")
        assert await store._database.check()
        assert await everything(store) == minutes(*range(1, 12))
        await assert_honest(store, path)


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_harm_just_before_the_end_does_not_get_into_the_file(path: Path, suffix: str) -> None:
    async with opened(path.with_name("backup.db")) as store:
        await store.add("demo", KEY, minutes(1), Span(0, 61))
    async with opened(path, AT_REST) as store:
        await fill_with_log(store, path)
        if suffix:
            await asyncio.to_thread(IN_PLACE["zeros"], path, suffix)
        else:
            await asyncio.to_thread(copy_over, path)
    assert kept(path)[0] == minutes(1, 2, 3, 4, 5) if suffix else minutes(1)
    with reading(str(path)) as connection:
        assert verify(connection, overview(connection, str(path)).streams, time.time()).faults == []


async def test_nothing_is_answered_from_a_file_that_was_written_over(path: Path) -> None:
    async with opened(path.with_name("backup.db")) as store:
        await store.add("demo", KEY, minutes(1), Span(0, 61))
    async with opened(path, AT_REST) as store:
        await fill_with_log(store, path)
        await asyncio.to_thread(copy_over, path)
        with pytest.raises(StoreError, match="cannot be read: the file was written over"):
            await everything(store)


async def test_files_that_cannot_be_looked_at_end_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with opened(path) as store:
        await fill_with_log(store, path)
        with monkeypatch.context() as broken:
            broken.setattr(footprint, "_stamp", fail)
            assert await everything(store) == minutes(*range(1, 11))
            await store.add("demo", KEY, minutes(11), Span(601, 661))
            await asyncio.sleep(0.1)
        await asyncio.to_thread(IN_PLACE["zeros"], path, "-wal")
        await eventually(lambda: store.replacements == 1)


# Programs that do no harm


def read_all(path: Path) -> None:
    with reading(str(path)) as connection:
        assert verify(connection, overview(connection, str(path)).streams, time.time()).faults == []


def copy_into(path: Path) -> None:
    target = path.with_name("into.db")
    target.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"VACUUM INTO '{target}'")


def save(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, closing(sqlite3.connect(path.with_name("saved.db"))) as target:
        other.backup(target)


def write_note(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT OR REPLACE INTO documents VALUES ('note', '{}', 1)")


def take_back_writes(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA cache_size = 5")
        other.execute("BEGIN IMMEDIATE")
        # More than the cache holds: some of it is in the log before it is taken back.
        for number in range(50):
            other.execute("INSERT INTO documents VALUES (?, json_quote(hex(zeroblob(2500))), 1)", (str(number),))
        other.execute("ROLLBACK")


def copy_log(path: Path, how: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA wal_checkpoint({how})")


def touch(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        os.utime(beside(path, suffix))


HARMLESS: dict[str, Callable[[Path], None]] = {
    "check": read_all,
    "vacuum": lambda path: vacuum(str(path)),
    "vacuum into": copy_into,
    "backup": save,
    "write": write_note,
    "write and take back": take_back_writes,
    "checkpoint": partial(copy_log, how="PASSIVE"),
    "restart of the log": partial(copy_log, how="RESTART"),
    "empty log": partial(copy_log, how="TRUNCATE"),
    "touch": touch,
}


@pytest.mark.parametrize("what", HARMLESS)
async def test_what_other_programs_may_do_is_not_taken_for_harm(path: Path, what: str) -> None:
    async with opened(path) as store:
        await fill_with_log(store, path)
        for number in range(11, 15):
            await asyncio.to_thread(HARMLESS[what], path)
            await store._database.check()
            await store.add("demo", KEY, minutes(number), Span(60 * number - 59, 60 * number + 1))
            assert (store.problem, store.replacements) == (None, 0)
        assert await everything(store) == minutes(*range(1, 15))
        await assert_honest(store, path)


@pytest.mark.parametrize("seed", [1, 2])
async def test_other_programs_under_load_are_not_taken_for_harm(path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    async with opened(path) as store:
        await fill_with_log(store, path)
        is_over = threading.Event()

        def use() -> None:
            while not is_over.is_set():
                with suppress(sqlite3.OperationalError, StoreError):
                    HARMLESS[randomness.choice(sorted(HARMLESS))](path)

        using = [asyncio.create_task(asyncio.to_thread(use)) for _ in range(2)]
        for number in range(11, 200):
            store.put_closed("demo", KEY, minutes(number)[0], 60 * (number - 1))
            with suppress(StoreError):
                await everything(store)
            await store._database.check()
            assert store.replacements == 0
        is_over.set()
        await asyncio.gather(*using)
        await eventually(lambda: store.problem is None)
        await store.flush()
        assert await everything(store) == minutes(*range(1, 200))


# A disk that does not answer


@pytest.mark.real_time  # A thread hangs.
async def test_disk_that_does_not_answer_is_said_and_keeps_nobody_waiting(path: Path) -> None:
    async with opened(path, FAST._replace(stall_s=0.1)) as store:
        await fill(store)
        answers = threading.Event()
        await store._database.connection.create_function("wait", 0, answers.wait)
        waiting = asyncio.create_task(store._database.read(store._tables.fetch, "SELECT wait()"))
        await asyncio.sleep(0)
        adding = asyncio.create_task(store.add("demo", KEY, minutes(6), Span(301, 361)))
        await eventually(lambda: store.problem == "the disk does not answer")
        with pytest.raises(StoreError, match="cannot be written: the disk does not answer"):
            await adding
        with pytest.raises(StoreError, match="cannot be read: the disk does not answer"):
            await store.streams_summary()
        store.put_closed("demo", KEY, minutes(7)[0], 360)
        answers.set()
        await waiting
        await eventually(lambda: store.problem is None)
        await store.flush()
        assert await everything(store) == minutes(1, 2, 3, 4, 5, 6, 7)
        await assert_honest(store, path)


# Modes


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(path: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}


@pytest.mark.usefixtures("open_umask")
async def test_files_are_the_owners_alone_whatever_the_umask(path: Path) -> None:
    async with opened(path) as store:
        for count, lose in enumerate((nothing, delete_all, put_new_directory)):
            lose(path)
            await eventually(partial(works_on, store, count))
            await fill(store)
            assert modes(path) == dict.fromkeys(("relay.db", "relay.db-wal", "relay.db-shm", "relay.db-lock"), 0o600)
    assert modes(path) == {"relay.db": 0o600}


async def test_wider_mode_of_an_earlier_file_is_said_and_left(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path):
        pass
    await asyncio.to_thread(path.chmod, 0o644)
    async with opened(path) as store:
        await fill(store)
        assert modes(path)["relay.db"] == 0o644
        assert modes(path)["relay.db-lock"] == 0o600
    said = {record.getMessage() for record in caplog.records}
    files = ", ".join(f"{path}{suffix} (mode 644)" for suffix in ("", "-wal", "-shm"))
    assert f"other users can access {files}; chmod 600 prevents that" in said
