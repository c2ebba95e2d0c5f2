"""Where a database is on the disk: whose it is, and whether what stands under its names is what was opened; no SQL.

SQLite keeps to the files that it opened, whatever their names stand for later. The database itself is never opened
here: closing it again would end the locks that SQLite has on it.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from relay.core.errors import StoreError

MODE = 0o600
"""Of what is created; SQLite gives its two files the mode of the database."""

_LOG, _INDEX, _LOCK = "-wal", "-shm", "-lock"
_ADVICE = "check that its directory exists and is writable"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

Identity = tuple[int, int]
"""The numbers of a device and of a file on it; no other file has them while this one is open."""


class PlaceSeen(NamedTuple):
    """What a look shows: why the files are not those that were opened (or nothing), and how the database is.

    `stamp` is another one after every write to the database itself, which is not every transaction.
    """

    lost: str
    stamp: tuple[int, int]


class DatabasePlace:
    """The files of one database, which no other relay uses while this is held; the kernel frees it when a process ends.

    `path` is that of the database, free of symbolic links, as SQLite wants it.
    """

    def __init__(self, name: str, path: str, lock: int) -> None:
        self._name = os.path.abspath(name)
        self._lock = lock
        self._opened: dict[str, Identity | None] = {"": identity(path), _LOCK: identity(path + _LOCK)}
        self.path = path

    @classmethod
    def take(cls, name: str, *, may_create: bool = True, device: int | None = None) -> "DatabasePlace":
        """Take the place for this process, and create the file if there is none; `device` is the only one for that.

        Raises `StoreError`, which names the file and whoever has it.
        """
        path = os.path.realpath(name)
        try:
            found = os.stat(path)
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise _refused(name, error) from None
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise StoreError(f"database {name}: it cannot be opened, it is no file; name a file", "it is no file")
        if found is not None and found.st_nlink > 1:
            reason = "it has a second name (a hard link), by which another relay could use it"
            raise StoreError(f"database {name}: {reason}; remove the link or copy the file", reason)
        if found is None and not may_create:
            raise StoreError(f"database {name}: the file was deleted; put it back", "the file was deleted")
        lock = -1
        try:
            if found is None and device not in (None, os.stat(os.path.dirname(path)).st_dev):
                reason = "the file is gone, and so is its file system"
                raise StoreError(f"database {name}: {reason}; mount it", reason)
            lock = _locked(path + _LOCK, name, found)
            if found is None:
                with suppress(FileExistsError):
                    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
            return cls(name, path, lock)
        except OSError as error:
            if lock >= 0:
                os.close(lock)
            raise _refused(name, error) from None

    @property
    def device(self) -> int:
        """The number of the device that the database is on."""
        opened = self._opened[""]
        return -1 if opened is None else opened[0]

    def note(self) -> None:
        """Take down what SQLite has opened. Raises `StoreError` if it may not be what `take` has found."""
        self._opened |= {suffix: identity(self.path + suffix) for suffix in (_LOG, _INDEX)}
        if lost := self.look().lost:
            raise StoreError(f"database {self._name}: {lost} while it was opened; try again", lost)

    def look(self) -> PlaceSeen:
        """Say what stands under the names now."""
        try:
            found = os.stat(self._name)
        except (FileNotFoundError, NotADirectoryError):
            return PlaceSeen("the file was deleted", (0, 0))
        except OSError:
            return PlaceSeen("the file cannot be reached", (0, 0))
        stamp = found.st_size, found.st_mtime_ns
        if (found.st_dev, found.st_ino) != self._opened[""]:
            return PlaceSeen("the file was replaced", stamp)
        if not found.st_size:
            return PlaceSeen("the file was emptied", stamp)
        for suffix, what in ((_LOG, "write-ahead log"), (_INDEX, "index"), (_LOCK, "lock file")):
            if identity(self.path + suffix) != self._opened[suffix]:
                return PlaceSeen(f"its {what} was deleted or replaced", stamp)
        return PlaceSeen("", stamp)

    def wide(self) -> dict[str, int]:
        """Return which of the files other users may use, and their modes."""
        found = {}
        for suffix in self._opened:
            with suppress(OSError):
                mode = stat.S_IMODE(os.stat(self.path + suffix).st_mode)
                if mode & 0o077:
                    found[self.path + suffix] = mode
        return found

    def leave(self) -> None:
        """Give the place up, once SQLite has closed the files.

        Where another file stands in the place of the database, the old one's log is removed: SQLite would take it for
        the new one's.
        """
        if identity(self.path) != self._opened[""]:
            for suffix in (_LOG, _INDEX):
                if (opened := self._opened.get(suffix)) is not None and identity(self.path + suffix) == opened:
                    with suppress(OSError):
                        os.unlink(self.path + suffix)
        _release(self._lock, self.path)


@contextmanager
def claimed(name: str) -> Iterator[None]:
    """Keep relays away from an existing database while something is changed in it.

    Raises `StoreError`, which names the file and whoever has it.
    """
    path = os.path.realpath(name)
    try:
        lock = _locked(path + _LOCK, name, os.stat(path))
    except OSError as error:
        raise _refused(name, error) from None
    try:
        yield
    finally:
        _release(lock, path)


def identity(path: str) -> Identity | None:
    """Return which file stands under a name, None if there is none or nobody can say."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _locked(path: str, name: str, database: os.stat_result | None) -> int:
    """Create the lock file and lock it; return its number. Raises `OSError` and `StoreError`."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            if database is not None and os.geteuid() == 0:
                # As SQLite does it: what root creates must not shut out the relay that comes next.
                with suppress(OSError):
                    os.fchown(lock, database.st_uid, database.st_gid)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(lock)
            if (found.st_dev, found.st_ino) == identity(path):
                _sign(lock)
                return lock
        except BlockingIOError:
            owner = _owner(lock)
            os.close(lock)
            reason = f"{owner} uses it"
            raise StoreError(f"database {name}: {reason}; stop that one or name another file", reason) from None
        except BaseException:
            os.close(lock)
            raise
        # Whoever had it removed the file before this one was locked.
        os.close(lock)


def _release(lock: int, path: str) -> None:
    # Removed while it is locked: who waits with this one sees that another stands, or none, under its name.
    found = os.fstat(lock)
    if identity(path + _LOCK) == (found.st_dev, found.st_ino):
        with suppress(OSError):
            os.unlink(path + _LOCK)
    os.close(lock)


def _sign(lock: int) -> None:
    # On a full disk nobody is named.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)


def _owner(lock: int) -> str:
    pid, _, host = os.pread(lock, 300, 0).decode(errors="replace").strip().partition(" ")
    if not pid.isdecimal():
        return "another relay"
    return f"the relay with process id {pid}" + (f" on {host}" if host != socket.gethostname() else "")


def _refused(name: str, error: OSError) -> StoreError:
    if error.errno in _NO_LOCKS:
        reason = "its file system knows no locks, so that a second relay would go unnoticed"
        return StoreError(f"database {name}: {reason}; name a file on a disk of this machine", reason)
    reason = "the disk is full" if error.errno in _DISK_FULL else "it cannot be opened"
    return StoreError(f"database {name}: {reason}; {_ADVICE}", reason)
