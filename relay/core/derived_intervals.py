"""Which intervals can be built from those that a provider has, and from which one each; pure."""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

from relay.core.intervals import INTERVALS, length_s
from relay.core.periods import Periods
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours

_DAY_S, _HOUR_S = 86_400, 3600
_MOST_PARTS = 45_000
"""Our own bound: a month of minutes. Of more parts not even one candle could be had with one request."""
_OPENINGS = 3


class Derivation(NamedTuple):
    """How candles of one stream are built: of those of the interval `base`, which make the `periods`.

    The instrument was listed at `listed_at`, in Unix seconds, None if nobody says it.
    """

    base: str
    periods: Periods
    listed_at: int | None = None


class GridOfHours(NamedTuple):
    """What decides where candles open: a calendar or hours, or UTC; see `Periods`."""

    calendar: TradingCalendar | None = None
    market: TradingHours | None = None
    is_utc_grid: bool = False

    def opening_grid_s(self, now: int) -> int:
        """Return of how many seconds openings are a multiple, so that no shorter candle lies across one.

        Longer ones than an hour may open by another zone's day where nobody says how they do. `now` is in Unix seconds.
        """
        if self.is_utc_grid:
            return _DAY_S
        if self.calendar is not None:
            return self.calendar.opening_grid_s
        grid, market = _HOUR_S, self.market or TradingHours()
        for _ in range(_OPENINGS):
            if (session := market.session_at(now)) is None:
                break
            grid, now = gcd(grid, session.opens), session.closes
        return grid


@lru_cache(4096)
def bases(intervals: tuple[str, ...], grid_s: int, *, has_days: bool = True) -> dict[str, str]:
    """Return the intervals that can be built, in order, each with the longest one of `intervals` that divides it.

    Candles of less than a day open at multiples of their length, counted from openings that are multiples of `grid_s`
    seconds; days, weeks, months and days by threes are made of whole days. Without `has_days` it is not known which
    shorter candles make a day.
    """
    found = {}
    shorter = sorted((one for one in intervals if one in INTERVALS), key=length_s, reverse=True)
    for interval in INTERVALS:
        if interval in intervals:
            continue
        length = length_s(interval)
        for base in shorter:
            base_s = length_s(base)
            if base_s >= length or length // base_s > _MOST_PARTS:
                continue
            fits = base_s < _DAY_S and not min(length, _DAY_S) % base_s and not grid_s % base_s
            if base == "1d" or (fits and (length < _DAY_S or has_days)):
                found[interval] = base
                break
    return found


def derived_intervals(intervals: tuple[str, ...], grid: GridOfHours, now: int) -> dict[str, str]:
    """Return what `bases` does for an instrument with these hours; `now` is in Unix seconds."""
    market = grid.market
    has_days = grid.is_utc_grid or grid.calendar is not None or market is None or market.session_at(now) is None
    return bases(intervals, grid.opening_grid_s(now), has_days=has_days)
