"""The lists of symbols and instruments as bodies: made once for each state of the directory, beside the event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple, TypeVar

from relay.core.threads import in_thread
from relay.instruments.directory import Directory
from relay.web.http.cached_body import Body
from relay.web.http.instrument_rows import InstrumentRows

Kind = Literal["symbols", "instruments"]

T = TypeVar("T")


class Selection(NamedTuple):
    """Which instruments are wanted; None is all. `asset_class` and `provider` are of those that there are."""

    asset_class: str | None = None
    provider: str | None = None
    query: str | None = None
    limit: int | None = None


class InstrumentLists:
    """Gives the lists as bodies. Who asks while one is made waits for it; nobody makes it twice.

    A search, or the beginning of a list, is small and made anew each time.
    """

    def __init__(self, directory: Directory, make_rows: Callable[[Directory], InstrumentRows] = InstrumentRows) -> None:
        self._directory = directory
        self._make_rows = make_rows
        self._state: object = None
        self._rows: asyncio.Task[InstrumentRows] | None = None
        self._index: asyncio.Task[Any] | None = None
        self._bodies: dict[tuple[Kind, Selection], asyncio.Task[Body]] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def body(self, kind: Kind, wanted: Selection) -> Body:
        """Return a list."""
        state = self._directory.state
        if state != self._state:
            # What is being made is finished for those that wait.
            self._state, self._rows, self._index = state, None, None
            self._bodies.clear()
        if self._rows is None:
            self._rows = self._start(in_thread(self._make_rows, self._directory))
        if wanted.query is not None or wanted.limit is not None:
            return await self._small(self._rows, kind, wanted)
        making = self._bodies.get((kind, wanted))
        if making is None:
            making = self._bodies[kind, wanted] = self._start(self._make(self._rows, kind, wanted))
        # Others wait for it too, and the next to ask wants it.
        return await asyncio.shield(making)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(self) -> None:
        """End what is being made."""
        running = [*self._running]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _make(self, making: asyncio.Task[InstrumentRows], kind: Kind, wanted: Selection) -> Body:
        rows = await asyncio.shield(making)
        body = await in_thread(_body, rows, kind, wanted)
        await body.pack()
        return body

    async def _small(self, making: asyncio.Task[InstrumentRows], kind: Kind, wanted: Selection) -> Body:
        """Return the best hits of a search, or the first rows."""
        if wanted.query is None:
            return await in_thread(_body, await asyncio.shield(making), kind, wanted)
        if self._index is None:
            self._index = self._start(_indexed(making))
        index = self._index
        rows = await asyncio.shield(making)
        found = await (await asyncio.shield(index)).find(
            wanted.query, wanted.limit or len(rows), rows.chosen(wanted.asset_class, wanted.provider)
        )
        return Body(rows.instruments(found), "application/json")


async def _indexed(making: asyncio.Task[InstrumentRows]) -> Any:
    return await in_thread((await asyncio.shield(making)).index)


def _body(rows: InstrumentRows, kind: Kind, wanted: Selection) -> Body:
    numbers = rows.numbers(wanted.asset_class, wanted.provider, wanted.limit)
    parts = rows.symbols(numbers) if kind == "symbols" else rows.instruments(numbers)
    return Body(parts, "application/json")
