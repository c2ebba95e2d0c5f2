"""Where a database is on the disk: whose it is, and whether what stands under its names is what was opened; no SQL.

SQLite keeps to the files that it opened, whatever their names stand for later. What is
opened here is closed only after SQLite has closed it: that ends the locks that SQLite has on it.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from relay.core.errors import StoreError
from relay.storage.footprint import INDEX, LOG, Footprint, Harm, OpenFiles

MODE = 0o600
"""Of what is created; SQLite gives its two files the mode of the database."""

_LOCK = "-lock"
_ADVICE = "check that its directory exists and is writable"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

Identity = tuple[int, int]
"""The numbers of a device and of a file on it; no other file has them while this one is open."""


class PlaceSeen(NamedTuple):
    """What a look shows: why the files are not what was left (or nothing), and how they are.

    `is_in_place` says that the file was written over, and `keeps_log` that what is in its log belongs to it.
    """

    lost: str
    footprint: Footprint | None
    is_in_place: bool = False
    keeps_log: bool = True


class DatabasePlace:
    """The files of one database, which no other relay uses while this is held; the kernel frees it when a process ends.

    `path` is that of the database, free of symbolic links, as SQLite wants it.
    """

    def __init__(self, name: str, path: str, lock: int) -> None:
        self._name = os.path.abspath(name)
        self._lock = lock
        self._opened: dict[str, Identity | None] = {"": identity(path), _LOCK: identity(path + _LOCK)}
        self._files: OpenFiles | None = None
        self._left: Footprint | None = None
        self.path = path

    @classmethod
    def acquire(cls, name: str, *, may_create: bool = True, device: int | None = None) -> "DatabasePlace":
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
            raise StoreError(f"database {name}: it cannot be opened, it is not a file; name a file", "it is not a file")
        if found is not None and found.st_nlink > 1:
            reason = "it has a second name (a hard link), by which another relay could use it"
            raise StoreError(f"database {name}: {reason}; remove the link or copy the file", reason)
        if found is None and not may_create:
            raise StoreError(f"database {name}: the file was deleted; put it back", "the file was deleted")
        lock = -1
        try:
            if found is None and device not in (None, os.stat(os.path.dirname(path)).st_dev):
                reason = "the file and its file system do not exist any more"
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

    @property
    def file_number(self) -> int:
        """The number of the file on its device."""
        opened = self._opened[""]
        return -1 if opened is None else opened[1]

    def note(self, pages: Sequence[int]) -> None:
        """Take down what SQLite has opened; the content of some `pages` tells one state of the database from another.

        Raises `StoreError` if it may not be what `acquire` has found.
        """
        self._opened |= {suffix: identity(self.path + suffix) for suffix in (LOG, INDEX)}
        try:
            self._files = OpenFiles(self.path, pages)
        except OSError as error:
            raise _refused(self._name, error) from None
        self.settle()
        if lost := self.look().lost:
            raise StoreError(f"database {self._name}: {lost} while it was opened; try again", lost)

    def look(self) -> PlaceSeen:
        """Say what stands under the names now, and whether that is what was left when `settle` was called."""
        try:
            found = os.stat(self._name)
        except (FileNotFoundError, NotADirectoryError):
            return PlaceSeen("the file was deleted", None)
        except OSError:
            return PlaceSeen("the file cannot be reached", None)
        if (found.st_dev, found.st_ino) != self._opened[""]:
            return PlaceSeen("the file was replaced", None)
        for suffix, what in ((LOG, "write-ahead log"), (INDEX, "index"), (_LOCK, "lock file")):
            if identity(self.path + suffix) != self._opened[suffix]:
                return PlaceSeen(f"its {what} was deleted or replaced", None)
        if self._files is None or self._left is None:
            return PlaceSeen("", None)
        try:
            seen = self._files.look(self._left)
        except OSError:
            # What to make of it SQLite will find out.
            return PlaceSeen("", self._left)
        if isinstance(seen, Harm):
            return PlaceSeen(seen.reason, None, is_in_place=True, keeps_log=seen.keeps_log)
        if self._left.log is None and seen.stamp == self._left.stamp:
            # Now it can be said what the log was when the database was written last.
            self._left = seen
        return PlaceSeen("", seen)

    def settle(self, seen: PlaceSeen | None = None) -> bool:
        """Take down how the files are, after a change of our own, or how they were seen, if that is dealt with.

        Harm that was done meanwhile is left for the next look. Returns whether anything may have been committed since,
        by whom ever.
        """
        left = self._left
        if seen is not None:
            self._left = seen.footprint
            return True
        with suppress(OSError):
            if self._files is None:
                return True
            now = self._files.footprint() if left is None else self._files.look(left)
            if isinstance(now, Footprint):
                self._left = now
                return left is None or now.commits != left.commits
        return True

    def is_changed(self, seen: PlaceSeen) -> bool:
        """Say whether something was written to the files since, beside what was committed by way of SQLite's log."""
        now, left = seen.footprint, self._left
        if now is None or left is None:
            return False
        return now.stamp != left.stamp or (now.log_stamp != left.log_stamp and now.log == left.log)

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has written to the files since; waits for no disk, where `look` may."""
        try:
            return self._files is None or self._left is None or self._files.is_untouched(self._left)
        except OSError:
            return False

    def guard(self) -> None:
        """See to it that SQLite's index can be read; takes a microsecond."""
        with suppress(OSError):
            if self._files is not None:
                self._files.guard_index()

    def drop_log(self) -> None:
        """Have SQLite take nothing from the log into a database that it does not belong to."""
        with suppress(OSError):
            if self._files is not None:
                self._files.drop_log()

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
        if self._files is not None:
            self._files.close()
        if identity(self.path) != self._opened[""]:
            for suffix in (LOG, INDEX):
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


def stamp_of(name: str) -> tuple[int, int, int]:
    """Return which file stands under a name, how large it is and when it was written last; zeros if there is none."""
    try:
        found = os.stat(name)
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


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
            raise StoreError(f"database {name}: {reason}; stop it or name another file", reason) from None
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
        reason = "its file system has no locks, so a second relay could use the file at the same time"
        return StoreError(f"database {name}: {reason}; name a file on a disk of this machine", reason)
    reason = "the disk is full" if error.errno in _DISK_FULL else "it cannot be opened"
    return StoreError(f"database {name}: {reason}; {_ADVICE}", reason)
