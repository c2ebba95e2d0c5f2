"""Damage of a database: what shows it, and SQLite's own way through all of the file, beside those who use it."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from relay.core.threads import in_thread
from relay.storage.health import Problems

DAMAGED = "the file is damaged"
_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_damage(error: Exception) -> bool:
    """Say whether an error of a statement shows that the file is damaged."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _CODES


class Suspicion:
    """Whether one file may be damaged; it is verified at most every `verify_s`, which takes 1 s for each 80 MB.

    That it is damaged stands among the `problems` until it proves to be sound: that other parts of it can be read and
    written is no cure.
    """

    def __init__(self, path: str, problems: Problems, verify_s: float) -> None:
        self._path = path
        self._problems = problems
        self._verify_s = verify_s
        self._verified_at = -verify_s
        self._is_suspect = False
        self._is_closing = False
        self._verifying: asyncio.Task[None] | None = None

    def raise_(self, error: Exception | None = None) -> None:
        """Take it that the file may be damaged, or that an error shows that it is."""
        if error is None:
            self._is_suspect = True
        elif is_damage(error):
            self._is_suspect = True
            self._problems.note("file", DAMAGED)

    def follow(self) -> None:
        """Begin to verify the file if that is due."""
        is_busy = self._verifying is not None and not self._verifying.done()
        if self._is_suspect and not is_busy and _now() >= self._verified_at + self._verify_s:
            self._verifying = asyncio.create_task(self._verify(), name="database verification")

    async def close(self) -> None:
        """Verify no longer; nothing is said of the file any more."""
        self._is_closing = True
        if self._verifying is not None:
            await asyncio.gather(self._verifying, return_exceptions=True)

    async def _verify(self) -> None:
        self._is_suspect = False
        is_sound = await in_thread(self._is_sound)
        self._verified_at = _now()
        if self._is_closing:
            return
        if is_sound is False:
            self._problems.note("file", DAMAGED)
        self._is_suspect |= is_sound is not True
        if not self._is_suspect and self._problems.of("file") == DAMAGED:
            self._problems.clear("file")

    def _is_sound(self) -> bool | None:
        """Say whether SQLite finds the file in order, by what is on the disk; None: it cannot be said."""
        address = f"{Path(self._path).as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=1.0)) as connection:
                connection.set_progress_handler(lambda: self._is_closing, 100_000)
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        except sqlite3.Error as error:
            return False if is_damage(error) else None


def _now() -> float:
    return asyncio.get_running_loop().time()
