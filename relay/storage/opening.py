"""Opens a database for the one relay that may use it, in the thread of its connection."""

import logging
import sqlite3

import aiosqlite

from relay.core.errors import StoreError
from relay.storage.place import DatabasePlace
from relay.storage.schema import open_database
from relay.telemetry.events import event

log = logging.getLogger(__name__)

MEMORY = ":memory:"


async def connected(
    name: str, *, may_create: bool = True, device: int | None = None
) -> tuple[aiosqlite.Connection, DatabasePlace | None]:
    """Take the place of a file, create the file if there is none, and open it; `:memory:` has no place.

    Raises `StoreError` with one sentence that names the file and says what to do, or which relay uses it.
    """
    failure: list[StoreError] = []
    places: list[DatabasePlace] = []

    def connect() -> sqlite3.Connection:
        try:
            if name == MEMORY:
                return open_database(name, name)
            places.append(DatabasePlace.acquire(name, may_create=may_create, device=device))
            opened = open_database(places[0].path, name)
            try:
                pages = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'totals'").fetchall()
                places[0].note([1, *(number for (number,) in pages)])
            except (StoreError, sqlite3.Error):
                opened.close()
                raise
            return opened
        except StoreError as error:
            # aiosqlite leaves its thread unawaited when this function raises, so it gets a connection to close.
            failure.append(error)
            return sqlite3.connect(MEMORY)

    connection = await aiosqlite.Connection(connect, 64)
    if failure:
        await connection.close()
        for place in places:
            place.leave()
        raise failure[0]
    if places and (wide := places[0].wide()):
        shown = ", ".join(f"{path} (mode {mode:o})" for path, mode in wide.items())
        log.warning(
            "other users can access %s; chmod 600 prevents that", shown, extra=event("store_readable", files=[*wide])
        )
    return connection, places[0] if places else None
