"""The open database file: one connection, one user at a time, and what its errors become; knows no queue, no memory."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

import aiosqlite

from relay.errors import StoreError
from relay.storage.problems import Problems
from relay.storage.schema import open_database, reason_of
from relay.storage.tables import Tables

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """Owns the connection, which `tables` and others use while they hold the `lock`; `read` and `write` take it.

    aiosqlite runs one statement at a time, not one transaction: without the lock reads would see half of one.
    """

    def __init__(self, connection: aiosqlite.Connection, problems: Problems) -> None:
        self.connection = connection
        self.tables = Tables(connection)
        self.problems = problems
        self.lock = asyncio.Lock()

    @classmethod
    async def open(cls, path: str | Path, problems: Problems) -> "Database":
        """Open or create the file and bring its schema up to date; `:memory:` keeps nothing.

        Raises `StoreError` with one sentence that names the file and says what to do.
        """
        name = str(path)
        failure: list[StoreError] = []

        def connect() -> sqlite3.Connection:
            try:
                return open_database(name)
            except StoreError as error:
                # aiosqlite leaves its thread unawaited when this function raises, so it gets a connection to close.
                failure.append(error)
                return sqlite3.connect(":memory:")

        connection = await aiosqlite.Connection(connect, 64)
        if failure:
            await connection.close()
            raise failure[0]
        return cls(connection, problems)

    async def close(self) -> None:
        """Close the file; nobody may use it any more."""
        with suppress(sqlite3.Error):
            await self.connection.close()

    async def read(self, read: Callable[P, Awaitable[T]], *asked: P.args, **_: P.kwargs) -> T:
        """Return what a read finds, and take down whether the file can be read. Raises `StoreError`."""
        try:
            async with self.lock:
                found = await read(*asked, **_)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            reason = reason_of(error)
            if isinstance(error, sqlite3.Error):
                self.problems.note("read", reason)
            raise StoreError(f"the store cannot be read: {reason}") from error
        self.problems.clear("read")
        return found

    async def write(self, write: Callable[P, Awaitable[T]], *what: P.args, **_: P.kwargs) -> T:
        """Change something that does not wait in the queue. Raises `StoreError`, and then it is not done."""
        try:
            async with self.lock:
                return await write(*what, **_)
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"the store cannot be written: {reason_of(error)}") from error
