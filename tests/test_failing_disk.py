"""A relay whose disk is full, locked or damaged: it streams on, says so everywhere, and writes later what waited."""

import asyncio
import contextlib
import errno
import logging
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from providers.sandbox import Sandbox
from relay.app import STORE
from relay.storage.upkeep import overview, reading
from relay.storage.verify import verify
from tests.conftest import StartRelay
from tests.running import Running, WsClient, eventually

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


@pytest.fixture
async def fast(relay_with: StartRelay) -> AsyncIterator[Sandbox]:
    async with Sandbox(speed=4, pace_s=0.05, forex_always_open=True) as fast:
        yield fast


async def closed_times(client: WsClient, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found.append((await client.update(is_closed=True))["candle"]["time"])
    return found


async def assert_it_is_said(relay: Running, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    await eventually(lambda: relay.app[STORE].problem == reason)
    ready = await relay.get("/readyz")
    assert (ready.status, ready.body["detail"]) == (503, f"the store cannot be used: {reason}")
    assert (await relay.get("status")).body["store"]["problem"] == reason
    assert (await relay.get("/healthz")).status == 200
    assert len([text for text in caplog.messages if text.startswith(f"store cannot write: {reason};")]) == 1


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


async def test_full_disk(
    fast: Sandbox, relay_with: StartRelay, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "relay.db"
    relay = await relay_with(sandbox=fast, database=str(path))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    times = await closed_times(client, 1)
    with filled(small_disk):
        # More than fits, and it is answered all the same.
        answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=5000)
        assert (answer.status, len(answer.body["candles"])) == (200, 5000)
        times += await closed_times(client, 3)
        await assert_it_is_said(relay, "the disk is full", caplog)
        times += await closed_times(client, 3)
        assert await relay.connect()
    await assert_nothing_is_lost(relay, path, times)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM candles").fetchone()[0] > 5000


async def test_locked_file(
    fast: Sandbox, relay_with: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "relay.db"
    relay = await relay_with(sandbox=fast, database=str(path))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    times = await closed_times(client, 1)
    async with locked(path):
        times += await closed_times(client, 3)
        await assert_it_is_said(relay, "another program has locked it", caplog)
        answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=500)
        assert (answer.status, len(answer.body["candles"])) == (200, 500)
        times += await closed_times(client, 3)
    await assert_nothing_is_lost(relay, path, times)


async def test_damaged_file(
    fast: Sandbox, relay_with: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.storage")
    path = tmp_path / "relay.db"
    relay = await relay_with(sandbox=fast, database=str(path))
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
