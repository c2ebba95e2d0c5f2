"""Pages through the history of a venue that is asked by windows of time; no I/O of its own."""

from collections.abc import Awaitable, Callable, Sequence

from relay.core.model import Candle

Ask = Callable[[int, int, int], Awaitable[Sequence[Candle]]]
"""`ask(start, end, step_s)`: the candles of `step_s` seconds with `start` ≤ open time < `end`, in any order."""


async def page_candles(
    ask: Ask,
    *,
    start: int | None,
    end: int,
    limit: int,
    step_s: int,
    page: int,
    oldest: int = 0,
    coarse_s: int | None = None,
) -> list[Candle]:
    """Return what `relay_candles` has to: the first `limit` candles from `start`, or the last `limit` before `end`.

    `ask` is called with windows of at most `page` candles, none of them before `oldest`. After an empty window, candles
    of `coarse_s` seconds say where the next ones are, so that a hole or a late listing costs a few calls; without
    `coarse_s` one window follows the other.
    """
    pager = _Pager(ask, max(oldest, start or 0), end, page)
    if start is None:
        return await pager.last(limit, step_s, coarse_s)
    return await pager.first(limit, step_s, coarse_s)


class _Pager:
    def __init__(self, ask: Ask, start: int, end: int, page: int) -> None:
        self._ask = ask
        self._start = start
        self._end = end
        self._page = page

    async def _window(self, start: int, end: int, step_s: int) -> list[Candle]:
        return sorted(candle for candle in await self._ask(start, end, step_s) if start <= candle.time < end)

    async def first(self, limit: int, step_s: int, coarse_s: int | None) -> list[Candle]:
        found: list[Candle] = []
        at = self._start
        while at < self._end and len(found) < limit:
            till = min(self._end, at + self._page * step_s)
            rows = await self._window(at, till, step_s)
            found += rows
            at = till
            if not rows and coarse_s is not None and at < self._end:
                at = await self._first_from(at, coarse_s)
        return found[:limit]

    async def last(self, limit: int, step_s: int, coarse_s: int | None) -> list[Candle]:
        found: list[Candle] = []
        till = self._end
        while till > self._start and len(found) < limit:
            at = max(self._start, till - self._page * step_s)
            rows = await self._window(at, till, step_s)
            found = rows + found
            till = at
            if not rows and coarse_s is not None and till > self._start:
                till = await self._last_until(till, coarse_s)
        return found[-limit:]

    async def _first_from(self, at: int, coarse_s: int) -> int:
        """Return a time from which on there is something, the end if there is nothing."""
        opened = at - at % coarse_s
        while opened < self._end:
            till = opened + self._page * coarse_s
            if rows := await self._window(opened, min(self._end, till), coarse_s):
                return max(at, rows[0].time)
            opened = till
        return self._end

    async def _last_until(self, till: int, coarse_s: int) -> int:
        """Return a time before which there is something, the start if there is nothing."""
        first = self._start - self._start % coarse_s
        at = till
        while at > first:
            before = max(first, at - self._page * coarse_s)
            if rows := await self._window(before, at, coarse_s):
                return min(till, rows[-1].time + coarse_s)
            at = before
        return self._start
