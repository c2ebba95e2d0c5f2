"""Small JSON documents by name, such as the list of a provider's instruments."""

from typing import NamedTuple

from relay.core.clock import Clock
from relay.storage.database import Database


class Document(NamedTuple):
    """A small JSON document and when it was stored, in Unix seconds."""

    body: bytes
    stored_at: float


class Documents:
    """The documents of one database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, name: str) -> Document | None:
        """Return the document of this name, or None. Raises `StoreError`."""
        read = self._database.tables.fetch
        rows = await self._database.read(read, "SELECT body, stored_at FROM documents WHERE name = ?", (name,))
        return next((Document._make(row) for row in rows), None)

    async def put(self, name: str, body: bytes) -> None:
        """Store a document in place of the one of the same name. Raises `StoreError`, and then it is not kept."""
        values = (name, body, self._clock.wall())
        write = self._database.tables.fetch
        await self._database.write(write, "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", values)
