"""The lists of symbols and instruments as bodies: made once for each state of the directory, beside the event loop."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from relay.core.threads import in_thread
from relay.instruments.directory import Directory, Listed
from relay.protocol.symbol_names import is_symbol
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
        making_rows = self._rows_now()
        if wanted.query is not None or wanted.limit is not None:
            return await self._small(making_rows, kind, wanted)
        making = self._bodies.get((kind, wanted))
        if making is None:
            making = self._bodies[kind, wanted] = self._start(self._make(making_rows, kind, wanted))
        # Others wait for it too, and the next to ask wants it.
        return await asyncio.shield(making)

    async def search(self, typed: str | None, wanted: Selection, client: str) -> list[Listed]:
        """Return the instruments that fit what somebody typed, the best first; without a text the first by symbol."""
        wanted = await self.understood(typed, wanted, client)
        making = self._rows_now()
        if wanted.query is not None:
            found = await self._found(making, wanted)
        else:
            found = await in_thread(
                (await asyncio.shield(making)).numbers, wanted.asset_class, wanted.provider, wanted.limit
            )
        rows = await asyncio.shield(making)
        return [rows.listed(number) for number in found]

    async def understood(self, typed: str | None, wanted: Selection, client: str) -> Selection:
        """Return the selection that is meant by what somebody typed, which may be the id of an instrument."""
        if typed is not None and wanted.provider is None:
            pin, colon, rest = typed.partition(":")
            if colon and rest and pin.lower() in self._directory.listing:
                if is_symbol(rest.upper()):
                    # Somebody names one symbol of one provider: a provider that lists nothing is asked for it.
                    await self._directory.settled(pin.lower(), rest.upper(), [client])
                return wanted._replace(provider=pin.lower(), query=rest)
        return wanted._replace(query=typed)

    def _rows_now(self) -> asyncio.Task[InstrumentRows]:
        """Return what makes, or has made, the rows of the directory as it is now."""
        state = self._directory.state
        if state != self._state:
            # What is being made is finished for those that wait.
            self._state, self._rows, self._index = state, None, None
            self._bodies.clear()
        if self._rows is None:
            self._rows = self._start(in_thread(self._make_rows, self._directory))
        return self._rows

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
        found = await self._found(making, wanted)
        return Body((await asyncio.shield(making)).instruments(found), "application/json")

    async def _found(self, making: asyncio.Task[InstrumentRows], wanted: Selection) -> Sequence[int]:
        """Return the rows that fit a query, the best first."""
        if self._index is None:
            self._index = self._start(_indexed(making))
        index = self._index
        rows = await asyncio.shield(making)
        hits: Sequence[int] = await (await asyncio.shield(index)).find(
            wanted.query or "", wanted.limit or len(rows), rows.chosen(wanted.asset_class, wanted.provider)
        )
        return hits


async def _indexed(making: asyncio.Task[InstrumentRows]) -> Any:
    return await in_thread((await asyncio.shield(making)).index)


def _body(rows: InstrumentRows, kind: Kind, wanted: Selection) -> Body:
    numbers = rows.numbers(wanted.asset_class, wanted.provider, wanted.limit)
    parts = rows.symbols(numbers) if kind == "symbols" else rows.instruments(numbers)
    return Body(parts, "application/json")
