"""Copies a relay's database into another file, also while a relay writes to it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from relay.core.errors import StoreError
from relay.storage.inspect import reading
from relay.storage.schema import reason_of

_PART = ".part"
_ONLY_THE_OWNER = 0o600


class Backup(NamedTuple):
    """A copy that is whole and was checked."""

    path: str
    size: int


def back_up(name: str, target: str) -> Backup:
    """Copy one state of the database into a file that does not exist yet; it appears when it is whole.

    A running relay goes on writing meanwhile; what it writes after the start is not in the copy. Raises `StoreError`
    with one sentence that names the file and says what to do, and leaves nothing behind then.
    """
    path = Path(target)
    if path.is_dir():
        raise StoreError(f"backup {target}: it is a folder; name a file in it")
    if path.exists():
        raise StoreError(f"backup {target}: the file exists; name another one, or delete it first")
    part = Path(f"{target}{_PART}")
    with reading(name) as connection:
        try:
            # Not by SQLite, whose files others may read.
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _ONLY_THE_OWNER))
        except FileExistsError:
            raise StoreError(f"backup {target}: {part} exists, of a backup that runs or broke off; delete it") from None
        except OSError as error:
            raise StoreError(f"backup {target}: {error.strerror}; name a file in another folder") from None
        try:
            _copy(connection, part)
            size = part.stat().st_size
            part.rename(path)
        except sqlite3.Error as error:
            raise StoreError(f"backup {target}: {reason_of(error)}; name a file on another disk") from error
        except OSError as error:
            raise StoreError(f"backup {target}: {error.strerror}; name another file") from None
        finally:
            part.unlink(missing_ok=True)
    return Backup(target, size)


def _copy(connection: sqlite3.Connection, part: Path) -> None:
    with closing(sqlite3.connect(part, isolation_level=None)) as copy:
        # In one step, within the transaction that reads: what a relay writes meanwhile would begin it anew.
        connection.backup(copy)
        # One file: without a log beside it.
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    with part.open("rb") as file:
        os.fsync(file.fileno())
