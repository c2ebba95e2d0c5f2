"""A relay whose disk is full, or whose file is locked, damaged or gone: it streams on, says so, and writes later."""

import asyncio
import contextlib
import errno
import json
import logging
import random
import re
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.app import STORE
from relay.storage.inspect import overview, reading
from relay.storage.verify import verify
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.metrics_page import scrape
from tests.support.relay_process import serving
from tests.support.running_relay import Running, WsClient
from tests.support.sandbox import Sandbox

STREAM = {"symbol": "BTCUSDT", "interval": "1s"}
LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 1 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def filled(place: Path) -> Iterator[None]:
    """Take all room that is left."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    with pytest.raises(OSError, match="No space left") as caught:
        (place / "more").write_bytes(b"x" * 8192)
    assert caught.value.errno == errno.ENOSPC
    (place / "more").unlink(missing_ok=True)
    yield
    filler.unlink()


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Have another process lock the file."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOCKER, str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"locked\n"
    yield
    process.kill()
    await process.wait()


async def closed_times(client: WsClient, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found.append((await client.update(is_closed=True))["candle"]["time"])
    return found


async def following(relay_with: StartRelay, path: Path) -> tuple[Running, WsClient, list[int]]:
    """Start a relay with a database, and a client that has got a closed candle; its time comes last."""
    relay = await relay_with(database=str(path))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    return relay, client, await closed_times(client, 1)


async def assert_it_is_said(relay: Running, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    await eventually(lambda: relay.app[STORE].problem == reason)
    ready = await relay.get("/readyz")
    assert (ready.status, ready.body["detail"]) == (503, f"the store cannot be used: {reason}")
    assert (await relay.get("status")).body["store"]["problem"] == reason
    assert (await relay.get("/healthz")).status == 200
    assert len([text for text in caplog.messages if re.match(f"store cannot (write|be used): {reason};", text)]) == 1


async def assert_nothing_is_lost(relay: Running, path: Path, times: list[int]) -> None:
    """All that was told as closed is in the file; so it is with the provider's candles in between."""
    await eventually(lambda: relay.app[STORE].problem is None)
    await relay.app[STORE].flush()
    assert (await relay.get("/readyz")).status == 200
    assert (await relay.get("status")).body["store"]["problem"] is None
    assert (await relay.app[STORE].streams_summary()).dropped == 0
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute(
            "SELECT time FROM candles JOIN streams ON id = stream_id WHERE interval = '1s' AND time BETWEEN ? AND ?",
            (times[0], times[-1]),
        ).fetchall()
    assert {at for (at,) in stored} >= set(times)
    with reading(str(path)) as connection:
        assert verify(connection, overview(connection, str(path)).streams, time.time() + 86_400).faults == []


async def test_full_disk(relay_with: StartRelay, small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = small_disk / "relay.db"
    relay, client, times = await following(relay_with, path)
    with filled(small_disk):
        # More than fits, and it is answered all the same.
        answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=5000)
        assert (answer.status, len(answer.body["candles"])) == (200, 5000)
        times += await closed_times(client, 3)
        await assert_it_is_said(relay, "the disk is full", caplog)
        times += await closed_times(client, 3)
        assert await relay.connect()
    await assert_nothing_is_lost(relay, path, times)
    # Its own attempts that failed are not taken for changes of another program.
    assert [text for text in caplog.messages if "another program" in text] == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM candles").fetchone()[0] > 5000


async def test_locked_file(relay_with: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "relay.db"
    relay, client, times = await following(relay_with, path)
    async with locked(path):
        times += await closed_times(client, 3)
        await assert_it_is_said(relay, "another program has locked it", caplog)
        answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=500)
        assert (answer.status, len(answer.body["candles"])) == (200, 500)
        times += await closed_times(client, 3)
    await assert_nothing_is_lost(relay, path, times)


async def test_damaged_file(relay_with: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay.storage")
    path = tmp_path / "relay.db"
    relay = await relay_with(database=str(path))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    await relay.get("history", symbol="BTCUSDT", interval="1m", limit=5000)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        # All but the first page, which says what is where.
        file.seek(4096)
        file.write(random.Random(1).randbytes(size - 4096))
    await relay.app[STORE]._database.connection.execute_fetchall("PRAGMA shrink_memory")
    await closed_times(client, 3)
    await assert_it_is_said(relay, "the file is damaged", caplog)
    await closed_times(client, 3)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", end_time=1_700_000_000)
    assert (answer.status, answer.body["detail"]) == (503, "the relay's store cannot be used now; try again later")
    newcomer = await relay.connect()
    await newcomer.subscribe("ETHUSDT@1s", bars=3)
    await newcomer.update(is_closed=True)


async def test_file_system_that_is_gone_gets_no_file_in_its_place(relay_with: StartRelay, small_disk: Path) -> None:
    path = small_disk / "relay.db"
    relay, client, times = await following(relay_with, path)
    run("umount", "-l", str(small_disk))
    await eventually(lambda: relay.app[STORE].problem == "the file and its file system do not exist any more")
    # What closed before that may have been written to what is gone, and be heard of only now.
    since = time.time()
    while times[-1] < since:
        times += await closed_times(client, 1)
    assert names(small_disk) == []
    # Another one that has a file of that name is as good.
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small_disk))
    run("touch", str(path))
    await eventually(lambda: relay.app[STORE].problem is None)
    times += await closed_times(client, 1)
    await relay.app[STORE].flush()
    assert times == [*range(times[0], times[0] + len(times))]
    assert stored_times(path, "1s") >= {at for at in times if at >= since}


async def test_files_that_may_not_grow(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))"
    url = "history?symbol=BTCUSDT&interval=1m&limit=5000"
    async with serving(tmp_path, "--database", "relay.db", prepare=limit) as served, aiohttp.ClientSession() as session:

        async def ready() -> tuple[int, str]:
            async with session.get(f"{served.url}/readyz") as answer:
                return answer.status, (await answer.json()).get("detail", "")

        for _ in range(2):
            async with session.get(f"{served.url}/api/v1/market-data/{url}") as answer:
                assert len((await answer.json())["candles"]) == 5000
        assert await ready() == (503, "the store cannot be used: the disk has an error")
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await served.logs("store works again")
        assert await ready() == (200, "")
    assert len(stored_times(tmp_path / "relay.db", "1m")) >= 4999


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def names(place: Path) -> list[str]:
    return sorted(file.name for file in place.iterdir())


def delete_all(place: Path) -> None:
    for file in place.glob("relay.db*"):
        file.unlink()


def stored_times(path: Path, interval: str) -> set[int]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT time FROM candles JOIN streams ON id = stream_id WHERE interval = ?", (interval,)
        ).fetchall()
    return {time for (time,) in rows}


def documents(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, body FROM documents").fetchall())


@pytest.mark.usefixtures("patient_loop")  # The relay is asked before it makes another file.
async def test_deleted_file(relay_with: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "relay.db"
    relay = await relay_with(database=str(path))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    past: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "limit": 500, "end_time": 1_700_000_000}
    history = (await relay.get("history", **past)).body
    assert len(history["candles"]) == 500
    times = await closed_times(client, 2)
    delete_all(tmp_path)
    await eventually(lambda: relay.app[STORE].problem)
    ready = await relay.get("/readyz")
    assert (ready.status, ready.body["detail"]) == (503, "the store cannot be used: the file was deleted")
    assert (await relay.get("/healthz")).status == 200
    assert (await scrape(relay))("relay_store_up") == 0
    # While there is none the past comes from the provider, and what closes waits.
    assert (await relay.get("history", **past)).body == history
    times += await closed_times(client, 3)
    await eventually(lambda: relay.app[STORE].problem is None)
    times += await closed_times(client, 3)
    assert times == [*range(times[0], times[0] + len(times))]
    assert (await relay.get("/readyz")).status == 200
    assert (await relay.get("status")).body["store"]["replacements"] == 1
    assert (await scrape(relay))("relay_store_replacements_total") == 1
    assert "store cannot be used: the file was deleted;" in caplog.text
    assert (await relay.get("history", **past)).body == history
    await relay.app[STORE].flush()
    assert stored_times(path, "1s") >= set(times[-3:])
    assert stored_times(path, "1m") >= {candle["time"] for candle in history["candles"]}
    with reading(str(path)) as connection:
        assert verify(connection, overview(connection, str(path)).streams, time.time() + 86_400).faults == []


async def test_file_that_is_replaced_by_its_backup_counts_credits_on(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    path, backup = tmp_path / "relay.db", tmp_path / "backup.db"
    relay = await relay_with(database=str(path))
    await relay.get("history", symbol="EUR/USD", interval="1h", limit=10)
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)
    before = documents(backup)
    await relay.get("history", symbol="EUR/USD", interval="1h", limit=10, end_time=1_700_000_000)
    after = documents(path)
    assert json.loads(after["memory:twelve_data"])["days"] != json.loads(before["memory:twelve_data"])["days"]
    backup.replace(path)
    # Nobody else may open it before: the log of the file that is lost is still beside it.
    await eventually(lambda: relay.app[STORE].replacements == 1)
    await eventually(lambda: documents(path).get("memory:twelve_data") == after["memory:twelve_data"])
    # What the backup lacks is asked for again, and only that.
    calls = len(sandbox.twelve_data.requests)
    for end_time, count in ((None, 0), (1_700_000_000, 1), (1_700_000_000, 1)):
        more: dict[str, Any] = {} if end_time is None else {"end_time": end_time}
        answer = await relay.get("history", symbol="EUR/USD", interval="1h", limit=10, **more)
        assert len(answer.body["candles"]) == 10
        assert len(sandbox.twelve_data.requests) == calls + count
