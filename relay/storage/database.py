"""The open database file: one connection, one user at a time, what its errors become, and whether it is still there.

Once the file is not the one under its name any more, or was written over in its place, or there is none, the connection
is given up for one to the file that is there. Until there is one an empty database in memory is read in its place, and
nothing can be written.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import aiosqlite

from relay.core.errors import StoreError
from relay.core.threads import in_thread
from relay.storage.damage import Suspicion
from relay.storage.health import Problems
from relay.storage.opening import MEMORY, connected
from relay.storage.place import DatabasePlace, PlaceSeen, stamp_of
from relay.storage.schema import reason_of
from relay.storage.sql import Tables
from relay.telemetry.events import event

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_STALLED = "the disk does not answer"


class FileChecks(NamedTuple):
    """How often is looked after the files, in seconds.

    `check_s` lies between two looks; a file that is gone is created anew when it was away for `absent_s`: whoever
    deletes one may be about to put another there. SQLite goes through a file that may be damaged every `verify_s`. A
    disk that keeps one user waiting for `stall_s` is taken for one that does not answer.
    """

    check_s: float = 1.0
    absent_s: float = 3.0
    verify_s: float = 60.0
    stall_s: float = 15.0


async def _nothing() -> None:
    pass


class Database:
    """Owns the connection, which `tables` uses; `read` and `write` lend it, to one user at a time.

    aiosqlite runs one statement at a time, not one transaction: without the lock reads would see half of one.

    `on_change` is called when what was read before may not hold any more, `on_new_file` after it whenever there is
    another file, outside of the lock, `on_stall` when the disk does not answer. `replacements` counts other files.
    """

    def __init__(
        self,
        name: str,
        connection: aiosqlite.Connection,
        place: DatabasePlace | None,
        problems: Problems,
        pace: FileChecks,
    ) -> None:
        self._name = name
        self._place = place
        self._pace = pace
        self._device = None if place is None else place.device
        self._lost_at = 0.0
        self._unsettled: tuple[int, int, int] | None = None
        self._data_version: int | None = None
        self._suspicion = Suspicion("" if place is None else place.path, problems, pace.verify_s)
        self._alarm = asyncio.Event()
        self._is_closing = False
        self._is_stalled = False
        self._watching: asyncio.Task[None] | None = None
        self.tables = Tables(connection)
        self.problems = problems
        self.lock = asyncio.Lock()
        self.on_change: Callable[[], None] = lambda: None
        self.on_stall: Callable[[StoreError], None] = lambda error: None
        self.on_new_file: Callable[[], Awaitable[None]] = _nothing
        self.replacements = 0

    @classmethod
    async def open(cls, path: str | Path, problems: Problems, pace: FileChecks | None = None) -> "Database":
        """Open or create the file and bring its schema up to date; `:memory:` keeps nothing.

        Raises `StoreError` with one sentence that names the file and says what to do, or which relay uses it.
        """
        name = str(path)
        database = cls(name, *await connected(name), problems, pace or FileChecks())
        await database._note_version()
        return database

    def watch(self) -> None:
        """Begin to look after the files, until `close`."""
        if self._place is not None:
            self._watching = asyncio.create_task(self._watch(), name="database watch")

    async def close(self) -> None:
        """Close the file and let others have it; nobody may use it any more."""
        self._is_closing = True
        self._alarm.set()
        if self._watching is not None:
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._suspicion.close()
        place, self._place = self._place, None
        if place is not None and not (await in_thread(place.look)).keeps_log:
            await in_thread(place.drop_log)
        with suppress(sqlite3.Error):
            await self.connection.close()
        if place is not None:
            await in_thread(place.leave)

    @property
    def connection(self) -> aiosqlite.Connection:
        """The connection that is used now."""
        return self.tables.connection

    @property
    def file_number(self) -> int:
        """The number of the file on its device, -1 where there is none."""
        return -1 if self._place is None else self._place.file_number

    @property
    def refusal(self) -> StoreError | None:
        """Why nothing can be written now, as far as that is known beforehand."""
        is_gone = self._is_stalled or (self._place is None and self._name != MEMORY)
        reason = self.problems.of("file" if is_gone else "write")
        return None if reason is None else StoreError(f"the store cannot be written: {reason}", reason)

    async def read(self, read: Callable[P, Awaitable[T]], *asked: P.args, **_: P.kwargs) -> T:
        """Return what a read finds, and take down whether the file can be read. Raises `StoreError`."""
        if self._is_stalled:
            raise StoreError(f"the store cannot be read: {_STALLED}", _STALLED)
        try:
            async with self.lock:
                if (place := self._place) is not None:
                    place.guard()
                found = await read(*asked, **_)
                # Only now: of what was done to the file before nothing is to be in what was found.
                if place is not None and not place.is_untouched and (seen := await in_thread(place.look)).is_in_place:
                    raise self._lose(seen, "read")
        except (sqlite3.Error, ValueError, OverflowError) as error:
            reason = reason_of(error)
            if isinstance(error, sqlite3.Error):
                self.problems.note("read", reason)
            self._suspicion.raise_(error)
            raise StoreError(f"the store cannot be read: {reason}", reason) from error
        self.problems.clear("read")
        return found

    async def write(self, write: Callable[P, Awaitable[T]], *what: P.args, **_: P.kwargs) -> T:
        """Change something in the file that has the name now. Raises `StoreError`, and then it is not done."""
        if self._is_stalled:
            raise StoreError(f"the store cannot be written: {_STALLED}", _STALLED)
        try:
            async with self.lock:
                await self._look()
                try:
                    return await write(*what, **_)
                finally:
                    await self._settle()
        except (sqlite3.Error, ValueError, OverflowError) as error:
            self._suspicion.raise_(error)
            reason = reason_of(error)
            raise StoreError(f"the store cannot be written: {reason}", reason) from error

    # -- looking after the files -------------------------------------------------------------------

    async def check(self) -> bool:
        """Look whether the file is the one that was opened; if not, go on with what is there, as soon as can be.

        Returns whether it went on with another file.
        """
        async with self.lock:
            if self._place is not None:
                self._suspicion.follow()
                try:
                    await self._look()
                    if self.problems.of("write"):
                        # Where nothing may grow there is room in a log that is emptied.
                        try:
                            await self.tables.fetch("PRAGMA wal_checkpoint(TRUNCATE)")
                        finally:
                            await self._settle()
                    return False
                except (sqlite3.Error, ValueError) as error:
                    self._suspicion.raise_(error)
                    return False
                except StoreError:
                    await self._let_go()
            return await self._go_on()

    async def _watch(self) -> None:
        while not self._is_closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._alarm.wait(), self._pace.check_s)
            self._alarm.clear()
            if not self._is_closing and await self._checked():
                await self.on_new_file()

    async def _checked(self) -> bool:
        """Do what `check` does, and say so while it cannot get to the file."""
        check = asyncio.create_task(self.check(), name="database check")
        done, _ = await asyncio.wait({check}, timeout=self._pace.stall_s)
        if not done:
            # Whoever comes next is not kept waiting too.
            self._is_stalled = True
            self.problems.note("file", _STALLED)
            self.on_stall(StoreError(f"the store cannot be written: {_STALLED}", _STALLED))
            await asyncio.wait({check})
            self._is_stalled = False
            if self.problems.of("file") == _STALLED:
                self.problems.clear("file")
        return check.result()

    async def _look(self) -> None:
        """Notice what other programs did. Raises `StoreError` when the file is not there, and `sqlite3.Error`."""
        if self._name == MEMORY:
            return
        reason = self.problems.of("file") or "the file does not exist any more"
        if self._place is not None:
            seen = await in_thread(self._place.look)
            if not seen.lost:
                await self._notice_changes(self._place, seen)
                return
            raise self._lose(seen, "written")
        raise StoreError(f"the store cannot be written: {reason}", reason)

    def _lose(self, seen: PlaceSeen, done: str) -> StoreError:
        """Have the file given up soon; return what says so."""
        self.problems.note("file", seen.lost)
        self._alarm.set()
        return StoreError(f"the store cannot be {done}: {seen.lost}", seen.lost)

    async def _settle(self) -> None:
        """Take down how the files are after a change of our own, or an attempt that failed."""
        if self._place is not None and not await in_thread(self._place.settle):
            # A failure has SQLite empty its memory, and count that as it counts what others write.
            await self._note_version()

    async def _note_version(self) -> None:
        """Take down what no other program has changed yet."""
        with suppress(sqlite3.Error):
            ((self._data_version,),) = await self.tables.fetch("PRAGMA data_version")

    async def _notice_changes(self, place: DatabasePlace, seen: PlaceSeen) -> None:
        ((version,),) = await self.tables.fetch("PRAGMA data_version")
        before, self._data_version = self._data_version, version
        is_changed = place.is_changed(seen)
        if is_changed or before != version:
            place.settle(seen)
        if is_changed:
            # By a checkpoint of another program, or not by way of SQLite: that shows where nothing is remembered.
            self._suspicion.raise_()
            await self.tables.fetch("PRAGMA shrink_memory")
        if is_changed or before != version:
            self.tables.forget_ids()
            self.on_change()
            about = event("store_changed")
            log.info("another program wrote to the database; the relay reads it again", extra=about)

    async def _let_go(self) -> None:
        """Close what is not the file any more; from now on nothing is known."""
        assert self._place is not None
        place, self._place = self._place, None
        seen = await in_thread(place.look)
        self._unsettled = None if seen.keeps_log else (0, 0, 0)
        self._lost_at = asyncio.get_running_loop().time()
        await self._suspicion.close()
        stand_in, _ = await connected(MEMORY)
        old = self.tables.use(stand_in)
        if seen.keeps_log:
            # What is in its log only belongs into that file, which may have another name now.
            with suppress(sqlite3.Error, ValueError):
                await old.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            await in_thread(place.drop_log)
        with suppress(sqlite3.Error, ValueError):
            await old.close()
        await in_thread(place.leave)
        self.on_change()

    async def _go_on(self) -> bool:
        """Open what is there now; return whether that could be done."""
        if self._unsettled is not None:
            # Whoever writes over a file may not be done.
            before, self._unsettled = self._unsettled, await in_thread(stamp_of, self._name)
            if before != self._unsettled:
                return False
        may_create = asyncio.get_running_loop().time() >= self._lost_at + self._pace.absent_s
        try:
            connection, place = await connected(self._name, may_create=may_create, device=self._device)
        except StoreError as error:
            self.problems.note("file", error.reason)
            return False
        assert place is not None
        stand_in = self.tables.use(connection)
        await stand_in.close()
        self._place, self._device = place, place.device
        await self._note_version()
        self._suspicion = Suspicion(place.path, self.problems, self._pace.verify_s)
        if self._unsettled is not None:
            self._unsettled = None
            self._suspicion.raise_()
        self.replacements += 1
        self.on_change()
        for doing in ("read", "file"):
            self.problems.clear(doing)
        log.warning("the store continues with the file that is there now", extra=event("store_replaced"))
        return True
