"""What a provider wants to know after a restart: one small JSON value; no store, no provider."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

Write = Callable[[bytes], Awaitable[bool]]
"""Writes the value; False when that failed."""


class Memory:
    """One provider's place in the database; `value` is what was saved last, also by an earlier run, or None."""

    def __init__(self, body: bytes | None = None, write: Write | None = None) -> None:
        self._write = write
        self.value: Any = None
        if body is not None:
            try:
                self.value = orjson.loads(body)
            except orjson.JSONDecodeError:
                self.value = None

    async def save_again(self) -> None:
        """Keep the value in another database than the one it was saved in (host only). Raises `TypeError` as `save`."""
        if self.value is not None:
            await self.save(self.value)

    async def save(self, value: Any) -> bool:
        """Keep this value in place of the one before; a kill of the process after the return does not lose it.

        False means that the disk fails: then it is known to this run only. Raises `TypeError` for what is no JSON.
        """
        try:
            body = orjson.dumps(value)
        except orjson.JSONEncodeError as error:
            raise TypeError(str(error)) from error
        self.value = value
        if self._write is None:
            return False
        return await self._write(body)
