"""What is written to a database while its files are looked at: only what SQLite did not do is harm."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import overload

import pytest

from relay.storage.footprint import Footprint, Harm, OpenFiles

WRITTEN_OVER = Harm("the file was written over", keeps_log=False)


class MarkedPages(Sequence[int]):
    """Pages of a database; once, `meanwhile` is called before the first of them is read, or after the last."""

    def __init__(self) -> None:
        self._numbers = (1, 2)
        self.before: Callable[[], object] | None = None
        self.after: Callable[[], object] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self._numbers[index]

    def __iter__(self) -> Iterator[int]:
        before, self.before = self.before, None
        if before is not None:
            before()
        yield from self._numbers
        after, self.after = self.after, None
        if after is not None:
            after()


class OpenedDatabase:
    """A database with a log, and the files of it as the relay looks at them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = wal")
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.connection.execute("CREATE TABLE totals (candles INTEGER)")
        self.connection.execute("INSERT INTO totals VALUES (0)")
        self.checkpoint()
        # A log of which all is copied is begun anew by the next write, which shows.
        self.write()
        self.pages = MarkedPages()
        self.files = OpenFiles(str(path), self.pages)

    def write(self) -> None:
        """Change one of the pages, in the log."""
        self.connection.execute("UPDATE totals SET candles = candles + 1")

    def checkpoint(self) -> None:
        """Copy the log into the database, as another program may."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            assert other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0

    def touch(self) -> None:
        """Have the database look as if it were written."""
        os.utime(self.path)

    def overwrite(self) -> None:
        """Do what a backup that is copied over the file does."""
        with self.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 4096)

    def seen(self, before: Footprint) -> Footprint:
        """Return how the files are, which nobody harmed."""
        seen = self.files.look(before)
        assert isinstance(seen, Footprint)
        return seen


@pytest.fixture
def database(tmp_path: Path) -> Iterator[OpenedDatabase]:
    opened = OpenedDatabase(tmp_path / "relay.db")
    yield opened
    opened.connection.close()
    opened.files.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_checkpoint_while_the_database_is_looked_at_is_no_harm(database: OpenedDatabase, moment: str) -> None:
    left = database.files.footprint()
    database.write()
    database.touch()
    setattr(database.pages, moment, database.checkpoint)
    seen = database.seen(left)
    database.touch()
    seen = database.seen(seen)
    database.overwrite()
    assert database.files.look(seen) == WRITTEN_OVER


@pytest.mark.parametrize("moment", ["before", "after"])
def test_checkpoint_while_it_is_noted_how_the_files_are_left_is_no_harm(database: OpenedDatabase, moment: str) -> None:
    database.write()
    setattr(database.pages, moment, database.checkpoint)
    left = database.files.footprint()
    database.touch()
    seen = database.seen(left)
    database.overwrite()
    assert database.files.look(seen) == WRITTEN_OVER


def test_checkpoint_that_shows_in_no_time_stamp_is_no_harm_later(database: OpenedDatabase) -> None:
    left = database.files.footprint()
    database.write()
    database.checkpoint()
    # As if both had been in the same tick of the file system's clock.
    os.utime(database.path, ns=(left.stamp[1], left.stamp[1]))
    seen = database.seen(left)
    assert seen.stamp == left.stamp
    database.touch()
    database.seen(seen)


def test_checkpoints_without_end_hide_harm_for_no_longer_than_they_last(database: OpenedDatabase) -> None:
    def copy_again() -> None:
        database.write()
        database.checkpoint()
        database.pages.after = copy_again

    left = database.files.footprint()
    database.touch()
    copy_again()
    seen = database.seen(left)
    assert seen.log is None
    database.pages.after = None
    seen = database.seen(seen)
    assert seen.log is not None
    database.overwrite()
    assert database.files.look(seen) == WRITTEN_OVER


def test_what_is_done_while_it_is_looked_is_found_by_the_next_look(database: OpenedDatabase) -> None:
    left = database.files.footprint()
    database.touch()
    database.pages.after = database.overwrite
    seen = database.seen(left)
    assert database.files.look(seen) == WRITTEN_OVER
