"""Pages through the history of an exchange: of `since` and `limit` each makes something else; no I/O of its own.

Some give the first candles from `since` on, some those of the next `limit` intervals only, and some their newest ones
whatever `since` is. What is common: there is nothing between `since` and the first candle of an answer.
"""

import time
from collections.abc import Awaitable, Callable

from relay import Candle

Ask = Callable[[str, int, int], Awaitable[list[Candle]]]
"""`ask(interval, since, count)`: candles from `since` on, oldest first."""

OLDEST = 1_262_304_000
"""2010. Our own choice: no exchange of ccxt is older."""
DAY_S = 86_400
STEPS = {
    **{"1s": 1, "1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "2h": 7200, "4h": 14_400},
    **{"6h": 21_600, "8h": 28_800, "12h": 43_200, "1d": DAY_S, "3d": 3 * DAY_S, "1w": 7 * DAY_S, "1M": 28 * DAY_S},
}
"""Seconds of a candle; of a month those of the shortest one, so that a window holds no more candles than it should."""


class CandlePages:
    """Answers one call of `relay_candles`; `page` is how many candles an answer has at most."""

    def __init__(self, ask: Ask, interval: str, page: int, intervals: tuple[str, ...]) -> None:
        self._ask = ask
        self._interval = interval
        self._step_s = STEPS[interval]
        self._page = page
        self._days = "1d" if "1d" in intervals and self._step_s < DAY_S else None

    async def first(self, start: int, end: int, limit: int) -> list[Candle]:
        """Return the first `limit` candles with `start` ≤ open time < `end`. Raises `ProviderError`."""
        found: list[Candle] = []
        at = max(start, OLDEST)
        end = min(end, int(time.time()) + 1)
        is_empty = False
        while at < end and len(found) < limit:
            wanted = min(limit - len(found), -(-(end - at) // self._step_s))
            # As many as are wanted; after a window without any, as many as there can be.
            count = min(self._page, max(wanted, 2)) if not is_empty else self._page
            rows = await self._ask(self._interval, at, count)
            is_empty = not rows
            if rows:
                found += [row for row in rows if row.time < end]
                at = rows[-1].time + 1
                if rows[-1].time + self._step_s >= end:
                    break
            else:
                at = await self._first_from(at + count * self._step_s, end)
        return found[:limit]

    async def last(self, end: int, limit: int) -> list[Candle]:
        """Return the last `limit` candles before `end`. Raises `ProviderError`."""
        found: list[Candle] = []
        till = min(end, int(time.time()) + 1)
        is_known = False
        is_empty = False
        while till > OLDEST and len(found) < limit:
            count = min(self._page, limit - len(found) + 1) if not is_empty else self._page
            at = max(OLDEST, till - count * self._step_s)
            rows = [row for row in await self._ask(self._interval, at, count) if row.time < till]
            found = rows + found
            till, is_empty = at, not rows
            if is_empty and not is_known:
                is_known = True
                # What is the oldest that there is? Of exchanges that keep few candles it is not long ago.
                oldest = await self._ask(self._interval, OLDEST, self._page)
                if oldest and oldest[0].time >= till:
                    break
            if is_empty:
                till = await self._last_until(till)
        return found[-limit:]

    async def _first_from(self, at: int, end: int) -> int:
        """Return a time from which on there is something, the end if there is nothing, by candles of days."""
        if self._days is None:
            return at
        opened = at - at % DAY_S
        while opened < end:
            if rows := await self._ask(self._days, opened, self._page):
                return max(at, rows[0].time)
            opened += self._page * DAY_S
        return end

    async def _last_until(self, till: int) -> int:
        """Return a time before which there is something, the oldest if there is nothing, by candles of days."""
        if self._days is None:
            return till
        while till > OLDEST:
            before = max(OLDEST, till - self._page * DAY_S)
            if rows := [row for row in await self._ask(self._days, before, self._page) if row.time < till]:
                return min(till, rows[-1].time + DAY_S)
            till = before
        return OLDEST
