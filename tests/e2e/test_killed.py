"""`kill -9` while the store writes in every way at once: what was acknowledged is there, and nothing false is claimed.

Eight kills by default; `--kills 50` for the long run.
"""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from relay.core.clock import Clock
from relay.core.model import StreamKey
from relay.storage.chunks import window_s
from relay.storage.inspect import overview, reading
from relay.storage.store import Store
from relay.storage.verify import verify
from tests.support.heavy_writer import KEPT_S, NOW, candle, exists

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests/data/store").glob("version-*.sql"))


async def write_and_kill(path: Path, seed: int, pause_s: float) -> set[tuple[str, int]]:
    """Run the writer, kill it so long after its first acknowledged write; return what it had acknowledged."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.heavy_writer",
        str(path),
        str(seed),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    printed = await process.stdout.readline()
    rest = asyncio.create_task(process.stdout.read())
    await asyncio.wait({rest}, timeout=pause_s)
    assert not rest.done(), "the writer ended by itself"
    process.kill()
    printed += await rest
    await process.wait()
    found = set()
    for line in printed.decode().splitlines(keepends=True):
        if line.endswith("\n"):
            symbol, start, end = line.split()
            found |= {(symbol, at) for at in range(int(start), int(end), 60) if exists(at)}
    return found


async def test_killed_at_random_the_file_stays_right(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "relay.db"
    randomness = random.Random(5)
    acknowledged: set[tuple[str, int]] = set()
    # Retention may have deleted what is older; of a window that is partly older it deletes nothing.
    oldest = (NOW - KEPT_S) // window_s("1m") * window_s("1m")
    stored: dict[tuple[str, int], object] = {}
    for kill in range(request.config.getoption("--kills")):
        acknowledged |= await write_and_kill(path, kill, randomness.uniform(0, 0.6))

        with reading(str(path)) as connection:
            found = overview(connection, str(path))
            verified = verify(connection, found.streams, time.time() + 10 * 365 * 86_400)
        assert verified.faults == []

        store = await Store.open(path, Clock())
        try:
            stored = {}
            claimed = set()
            for symbol in "ABC":
                key = StreamKey(symbol, "1m")
                for row in await store.read("demo", key, 0, 1 << 40):
                    stored[symbol, row.time] = row
                for span in await store.spans("demo", key, 0, 1 << 40):
                    claimed |= {(symbol, at) for at in range(-(-span.start // 60) * 60, span.end, 60) if exists(at)}
        finally:
            await store.close()
        assert claimed == stored.keys()
        assert {place for place in acknowledged if place[1] >= oldest} <= stored.keys()
    assert len(acknowledged) > 1000
    assert all(row in (candle(at), candle(at, price=2.0)) for (_, at), row in stored.items())


CUT_OFF = """
import asyncio, faulthandler, os, sys
from relay.core.clock import Clock
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.storage.store import Store

async def main():
    faulthandler.enable()
    store = await Store.open(sys.argv[1], Clock())
    await store.add("demo", StreamKey("A", "1m"), [Candle(60, 1.0, 1.0, 1.0, 1.0, 1.0)], Span(60, 61))
    os.truncate(sys.argv[1] + "-shm", 0)
    # As a statement does that runs already: nobody has looked before.
    await store._database.tables.fetch("SELECT count(*) FROM candles")

asyncio.run(main())
"""


async def test_process_that_dies_of_an_index_cut_off_under_a_statement_says_so_and_loses_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "relay.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CUT_OFF, str(path), stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGBUS
    assert said.startswith(b"Fatal Python error: Bus error")
    store = await Store.open(path, Clock())
    try:
        assert [candle.time for candle in await store.read("demo", StreamKey("A", "1m"), 0, 1 << 40)] == [60]
    finally:
        await store.close()


# -- in the middle of a migration ------------------------------------------------------------------

MIGRATION = """
import os, signal, sys
from relay.storage.schema import MIGRATIONS, open_database

class Deadly(tuple):
    def __iter__(self):
        yield from [*super().__iter__()][:-1]
        os.kill(os.getpid(), signal.SIGKILL)

open_database(sys.argv[1], "relay.db", migrations=(*MIGRATIONS[:-1], Deadly(MIGRATIONS[-1])))
"""


def migrate_and_kill(path: Path, file: Path) -> None:
    """Make a database of an earlier version, and kill whoever brings it up to date before the end."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(file.read_text(encoding="utf-8"))
        version = connection.execute("PRAGMA user_version").fetchone()
    killed = subprocess.run([sys.executable, "-c", MIGRATION, str(path)], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == version
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_kill_in_the_middle_of_a_migration_is_harmless(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "relay.db"
    await asyncio.to_thread(migrate_and_kill, path, file)
    store = await Store.open(path, Clock())
    try:
        found = await store.read("binance", StreamKey("BTCUSDT", "1m"), 0, 1 << 40, extended=True)
        assert len(found) == 102
        assert all(candle.extras is None for candle in found)
    finally:
        await store.close()
