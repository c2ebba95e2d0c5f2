"""History of Twelve Data in pages: it gives the newest N of a range, whatever is asked first."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime

from providers.twelve_data.answers import (
    INTERVALS,
    NO_CODES,
    PAGE,
    KeyRefused,
    SeriesAnswer,
    contradiction,
    read_series,
)
from providers.twelve_data.forex import Hours
from relay import BadAnswer, Candle, next_open

_WINDOW = 4990
"""Our choice below `PAGE`: a window of so many candles, and one too many at its end, is not cut to the newest 5,000."""
_GROWTH = 4
"""Our choice: so many times a window grows after an empty one, and shrinks after one that was cut."""
_HOUR_S = 3600
"""Recorded: candles of up to an hour open at multiples of their length; longer ones where the provider says."""

Ask = Callable[[str, Mapping[str, str | int]], Awaitable[object]]


class BarPages:
    """The pages of one request for history of one stream.

    `ask` makes a call (path, parameters). `kept` remembers pages that lie in the past until the request has succeeded,
    so that one that failed halfway costs only the rest when it is made again.
    """

    def __init__(
        self,
        symbol: str,
        interval: str,
        hours: Hours,
        ask: Ask,
        kept: "KeptPages",
        earliest: dict[str, int | None],
        currencies: Mapping[str, str] = NO_CODES,
        *,
        now: Callable[[], float],
    ) -> None:
        self._now = now
        self._symbol = symbol
        self._interval = interval
        self._length = next_open(interval, 0)
        self._hours = hours
        self._week = hours.week
        self._ask = ask
        self._kept = kept
        self._earliest = earliest
        self._currencies = currencies
        self._used: list[object] = []

    async def candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        """Return the first candles from `start`, without it the last ones before `end`."""
        found = await (self._newest(end, limit) if start is None else self._first(max(0, start), end, limit))
        self._kept.drop(self._used)
        return found

    async def _newest(self, end: int, limit: int) -> list[Candle]:
        """Page backwards."""
        found: list[Candle] = []
        while len(found) < limit and end > 0:
            # Padded candles fill pages without being wanted: do not ask for those at the end, allow for others.
            opens = self._week.session_at(end).opens
            if end + self._length <= opens:
                end = self._week.last_close(end)
            since = self._week.before_trading(end, (limit - len(found)) * self._length)
            size = min(PAGE, (end - since) // self._length + 3)
            # One candle too many, since whether the end date is included depends on the interval.
            page = await self._page({"end_date": end + self._length}, size)
            found = [candle for candle in page.candles if candle.time < end] + found
            if page.rows < size or page.oldest >= end:
                break
            end = page.oldest
        return found[-limit:]

    async def _first(self, start: int, end: int, limit: int) -> list[Candle]:
        """Page forwards by windows small enough not to be cut, growing while they are empty."""
        found: list[Candle] = []
        ceiling = _WINDOW
        if (end - start) // self._length > _WINDOW:
            earliest = await self._first_of_all()
            if earliest is None:
                ceiling = (end - start) // self._length + 1
            else:
                start = max(start, earliest - self._length)
        least = 0
        while start < end and len(found) < limit:
            left = limit - len(found)
            length = min(max(left + left // 10 + 5, least), ceiling) * self._length
            start = max(start, self._week.session_at(start).opens - self._length + 1)
            if self._length <= _HOUR_S:
                # They open at multiples of their length: none lies between closed hours and the session's start.
                start = -(-start // self._length) * self._length
            until = min(self._week.after_trading(start, length), start + ceiling * self._length, end)
            if start >= until:
                break
            page = await self._page({"start_date": start, "end_date": until + self._length}, PAGE)
            if page.rows >= PAGE and until - start > _WINDOW * self._length:
                # The oldest were cut off: look at less of it.
                ceiling = max(_WINDOW, (until - start) // self._length // _GROWTH)
                continue
            found += [candle for candle in page.candles if start <= candle.time < until]
            least = 0 if page.candles else max(_WINDOW, least * _GROWTH)
            start = until
        return found[:limit]

    async def _page(self, dates: Mapping[str, int], size: int) -> SeriesAnswer:
        """Ask for one page; an empty range is an error there, and no rows here."""
        params: dict[str, str | int] = {
            "symbol": self._symbol,
            "interval": INTERVALS[self._interval],
            "outputsize": size,
            **{name: _date(moment) for name, moment in dates.items()},
        }
        name = tuple(sorted(params.items(), key=str))
        self._used.append(name)
        if (known := self._kept.get(name)) is not None:
            return known
        body = await self._ask("/time_series", params)
        series: SeriesAnswer | KeyRefused
        if isinstance(body, KeyRefused):
            series = body
        else:
            series = read_series(body, self._interval, self._hours, self._symbol, self._currencies, now=self._now())
        if isinstance(series, KeyRefused):
            if not series.is_empty:
                raise series.error()
            series = SeriesAnswer(0, 0, 0, [])
        if series.says_nothing:
            raise BadAnswer("time_series: no row can be read")
        if not series.spoilt:
            self._kept.put(name, dates["end_date"], series)
        return series

    async def _first_of_all(self) -> int | None:
        """Ask once when the first candle opened, None if the provider does not say."""
        if self._interval not in self._earliest:
            params = {"symbol": self._symbol, "interval": INTERVALS[self._interval]}
            body = await self._ask("/earliest_timestamp", params)
            stamp = body.get("unix_time") if isinstance(body, dict) else None
            is_past = type(stamp) is int and 0 <= stamp <= self._kept.now()
            is_other = contradiction(body, self._symbol, INTERVALS[self._interval], self._currencies) is not None
            self._earliest[self._interval] = stamp if is_past and not is_other else None
        return self._earliest[self._interval]


class KeptPages:
    """The last few pages of requests that did not succeed yet; none that ends less than an hour ago."""

    def __init__(self, now: Callable[[], float], most: int = 8) -> None:
        self.now = now
        self._most = most
        self._pages: dict[object, SeriesAnswer] = {}

    def get(self, name: object) -> SeriesAnswer | None:
        """Return a page that was kept."""
        return self._pages.get(name)

    def put(self, name: object, end: int, series: SeriesAnswer) -> None:
        """Keep a page, in place of the oldest one."""
        if end < self.now() - 3600:
            self._pages[name] = series
            if len(self._pages) > self._most:
                del self._pages[next(iter(self._pages))]

    def drop(self, names: Iterable[object]) -> None:
        """Forget the pages of a request that succeeded."""
        for name in names:
            self._pages.pop(name, None)


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
