"""An open database tells what other programs commit from its own attempts that fail."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from relay.core.errors import StoreError
from relay.storage.database import Database
from relay.storage.health import Problems
from relay.storage.write_queue import WriteQueue

PAGE_BYTES = 4096


@contextmanager
def no_larger_file_than(path: Path) -> Iterator[None]:
    """Have the system refuse what would make any file larger than this one is."""
    before, size = resource.getrlimit(resource.RLIMIT_FSIZE), path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def commit_something(path: Path) -> None:
    """Do what another program may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO documents VALUES ('theirs', '1', 0)")


@pytest.mark.parametrize("commits", [0, 1])
async def test_only_what_another_program_commits_is_read_again(commits: int, tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    changes: list[int] = []
    database = await Database.open(path, Problems(WriteQueue(1000)))
    database.on_change = lambda: changes.append(1)

    async def write() -> None:
        connection = database.connection
        await connection.execute("BEGIN IMMEDIATE")
        try:
            await connection.execute("INSERT INTO documents VALUES ('ours', zeroblob(?), 0)", (100 * PAGE_BYTES,))
        finally:
            await connection.rollback()

    try:
        # What does not fit into the memory is written before the end.
        await database.connection.execute("PRAGMA cache_size = 10")
        await database.check()
        for number in range(3):
            if number < commits:
                commit_something(path)
            with no_larger_file_than(tmp_path / "relay.db-wal"), pytest.raises(StoreError, match="disk has an error"):
                await database.write(write)
        await database.check()
    finally:
        await database.close()
    assert len(changes) == commits
