"""`relay store --backup`: a copy of the database beside a process that goes on writing, or nothing at all."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import StreamKey
from relay.core.spans import Span
from relay.storage.backup import back_up
from relay.storage.inspect import overview, reading
from relay.storage.store import Store
from relay.storage.verify import verify
from tests.support.heavy_writer import candle, exists

ROOT = Path(__file__).parents[2]
KEY = StreamKey("BTCUSDT", "1m")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with a thousand candles."""
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    await store.add("binance", KEY, [candle(60 * number) for number in range(1000)], Span(0, 60_000))
    await store.close()
    return path


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def store_command(*words: str) -> Result:
    return CliRunner().invoke(main, ["store", *words])


@pytest.mark.real_time  # The writer is a process.
async def test_copies_made_while_a_store_is_written_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.heavy_writer", str(path), "1"), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdout is not None
    acknowledged: set[int] = set()
    try:
        for number in range(5):
            for _ in range(20):
                symbol, start, end = (await writer.stdout.readline()).decode().split()
                if symbol == "C":
                    # Only what is live; the rest is trimmed.
                    acknowledged |= {at for at in range(int(start), int(end), 60) if exists(at)}
            copy = tmp_path / f"copy-{number}.db"
            await asyncio.to_thread(back_up, str(path), str(copy))
            with reading(str(copy)) as connection:
                streams = overview(connection, str(copy)).streams
                # Of the writer's own present, in which nothing is in the future.
                assert verify(connection, streams, 1e11).faults == []
                stored = connection.execute(
                    "SELECT time FROM candles JOIN streams ON id = stream_id WHERE symbol = 'C'"
                ).fetchall()
            assert acknowledged <= {at for (at,) in stored}
    finally:
        writer.kill()
        await writer.communicate()
    assert len(acknowledged) > 50
    left = sorted(name for name in os.listdir(tmp_path) if name.startswith("copy-"))
    assert left == [f"copy-{number}.db" for number in range(5)]


async def test_a_relay_opens_the_copy_as_its_own_file(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    said = store_command("--database", str(path), "--backup", str(copy))
    assert said.exit_code == 0
    assert said.output.startswith(f"copied to {copy}: {copy.stat().st_size / 1000:.0f} KB\n")
    assert copy.stat().st_mode & 0o777 == 0o600
    store = await Store.open(copy, Clock())
    assert len(await store.read("binance", KEY, 0, 60_000, 2000)) == 1000
    await store.close()


def test_a_file_that_exists_is_kept(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    said = store_command("--database", str(path), "--backup", str(path))
    assert (said.exit_code, said.output) == (
        2,
        f"relay: backup {path}: the file exists; name another one, or delete it first\n",
    )
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none/copy.db: No such file or directory; name a file in another folder"):
        back_up(str(path), str(tmp_path / "none" / "copy.db"))


def test_a_folder_is_no_file_to_delete(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it is a folder; name a file in it"):
        back_up(str(path), str(tmp_path))


def test_a_full_disk_leaves_nothing_behind(path: Path, tiny_disk: Path) -> None:
    with pytest.raises(StoreError, match=r"copy.db: the disk is full; name a file on another disk"):
        back_up(str(path), str(tiny_disk / "copy.db"))
    assert [*tiny_disk.iterdir()] == []


def test_what_was_asked_for_beside_it_comes_after_it(path: Path, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    assert store_command("--database", str(path), "--backup", copy, "--forget", "BTCUSDT").exit_code == 0
    with reading(copy) as connection:
        assert [stream.candles for stream in overview(connection, copy).streams] == [1000]
    with reading(str(path)) as connection:
        assert overview(connection, str(path)).streams == []
