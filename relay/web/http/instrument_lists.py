"""The lists of symbols and instruments as they are sent: made once for each state of the directory, piece by piece."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Coroutine, Iterable
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeVar

import orjson

from relay.instruments.directory import Directory, Listed
from relay.web.http.cached_body import Body

Kind = Literal["symbols", "instruments"]

AT_A_TIME = 200
"""So many rows take a millisecond or two; then updates have their turn."""
MANY = 2000
"""So many are sorted or joined at once."""

T = TypeVar("T")


class _Row(NamedTuple):
    """One instrument: what it is called, and its row as JSON."""

    name: str
    asset_class: str
    json: bytes


class InstrumentLists:
    """Gives the lists as bodies. Who asks while one is made waits for it; nobody makes it twice."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._state: object = None
        self._rows: asyncio.Task[list[_Row]] | None = None
        self._bodies: dict[tuple[Kind, str | None], asyncio.Task[Body]] = {}
        self._running: set[asyncio.Task[Any]] = set()

    async def body(self, kind: Kind, asset_class: str | None) -> Body:
        """Return a list; one of a single asset class, which somebody has, or of all."""
        state = self._directory.state
        if state != self._state:
            # What is being made is finished for those that wait.
            self._state, self._rows = state, None
            self._bodies.clear()
        key = (kind, asset_class)
        making = self._bodies.get(key)
        if making is None:
            if self._rows is None:
                self._rows = self._start(self._all_rows())
            making = self._bodies[key] = self._start(self._make(self._rows, kind, asset_class))
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

    async def _make(self, rows: asyncio.Task[list[_Row]], kind: Kind, asset_class: str | None) -> Body:
        chosen = [row async for row in _slowly(await rows) if asset_class is None or row.asset_class == asset_class]
        if kind == "instruments":
            values = [row.json for row in chosen]
        else:
            names = await _sorted([row.name for row in chosen])
            values = [orjson.dumps(name) async for name, more in _slowly(pairwise([*names, None])) if name != more]
        parts = [b"["]
        for start in range(0, len(values), MANY):
            parts += [b"," if start else b"", b",".join(values[start : start + MANY])]
            await asyncio.sleep(0)
        body = Body([*parts, b"]"], "application/json")
        await body.pack()
        return body

    async def _all_rows(self) -> list[_Row]:
        """Return the instruments of all providers, sorted by symbol."""
        listed = [
            (one.instrument.symbol, one.provider.name, one) async for one in _slowly(self._directory.everything())
        ]
        return [self._row(one) async for _, _, one in _slowly(await _sorted(listed))]

    def _row(self, one: Listed) -> _Row:
        provider, instrument = one
        name = self._directory.name_of(provider, instrument.symbol.upper())
        row = {
            "symbol": name,
            "provider": provider.name,
            "asset_class": instrument.asset_class,
            "base": instrument.base,
            "quote": instrument.quote,
            "intervals": one.intervals,
            "status": instrument.status,
            "attribution": provider.info.attribution,
        }
        return _Row(name, instrument.asset_class, orjson.dumps(row))


async def _slowly(values: Iterable[T]) -> AsyncIterator[T]:
    """Yield values, and let others have their turn after some of them."""
    for place, value in enumerate(values, 1):
        yield value
        if place % AT_A_TIME == 0:
            await asyncio.sleep(0)


async def _sorted(values: list[Any]) -> list[Any]:
    """Sort; all at once that would take a tenth of a second for 100,000 values."""
    runs = []
    for start in range(0, len(values), MANY):
        runs.append(sorted(values[start : start + MANY]))
        await asyncio.sleep(0)
    return [value async for value in _slowly(heapq.merge(*runs))]
