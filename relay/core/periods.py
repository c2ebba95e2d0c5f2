"""Which candles of a shorter interval make one of a longer interval: by UTC, or by the sessions of a market; pure."""

from typing import NamedTuple

from relay.core.intervals import length_s, next_open, open_time
from relay.core.model import OpenHours
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours

_DAY_S = 86_400
_LONGEST_AHEAD_S = 4 * _DAY_S
"""Our own bound on closed days before a Monday: days of a weekend count for it, as it opens."""


class CandlePeriod(NamedTuple):
    """The time of one long candle: its open time, and the first moment at which nothing more of it is traded."""

    opens: int
    ends: int


class Periods:
    """The candles of `interval` that candles of the shorter interval `base` make.

    In UTC, or without hours, they are multiples of their length, days, weeks from Monday, months, and days by threes
    counted from 1970-01-01; if days of the provider begin at another hour, so do they. With a `calendar` candles of
    less than a day are counted from the opening of each session, and the last one ends with it; longer ones are made of
    days of trading, and open with the first of them, as those of the provider do. Which shorter
    candles are in none of them `counts` says. `market` are the hours of the symbol; where they are known without a
    calendar they are its sessions. Without them trading ends at `expires_at`.

    Those that are equal make the same candles.
    """

    __slots__ = ("_calendar", "_day", "_holding", "_known", "_length", "_market", "_rules", "base", "interval")

    def __init__(
        self,
        interval: str,
        base: str,
        *,
        calendar: TradingCalendar | None = None,
        market: TradingHours | None = None,
        is_utc_grid: bool = False,
        expires_at: int | None = None,
    ) -> None:
        self._rules = (interval, base, calendar, market, is_utc_grid, expires_at)
        self.interval = interval
        self.base = base
        self._length = length_s(interval)
        self._calendar = None if is_utc_grid else calendar
        if market is None:
            hours = (lambda moment: None) if calendar is None else calendar.session_at
            market = TradingHours(hours, expires_at)
        self._market = market
        self._known = CandlePeriod(0, 0)
        # Of which moments the day of trading is known, and when that opens.
        self._day = (0, 0, 0)
        self._holding = self._by_utc if is_utc_grid else self._by_hours

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Periods) and self._rules == other._rules

    def __hash__(self) -> int:
        return hash(self._rules)

    def holding(self, opened: int) -> CandlePeriod:
        """Return the period that a candle of the shorter interval belongs to, by its open time."""
        known = self._known
        if not known.opens <= opened < known.ends:
            known = self._known = self._holding(opened)
        return known

    def counts(self, opened: int) -> bool:
        """Say whether the short candle that opened then is a part of a long one.

        One of the hours between two days of trading, which providers may send as well, is a part of neither day.
        """
        if self._calendar is None or self._length < _DAY_S or self.base == "1d":
            return True
        begin, end, opens = self._day
        if not begin <= opened < end:
            try:
                sessions = self._calendar.day_of(opened).sessions
            except ValueError:
                return True
            opens = sessions[0].opens
            self._day = opened, sessions[-1].closes, opens
        return opened + length_s(self.base) > opens

    def is_over_with(self, opened: int, period: CandlePeriod) -> bool:
        """Say whether the short candle that opened then is the last one of its period."""
        end = self._market.end_of(self.base, opened)
        return end >= period.ends or self._market.is_closed(end, period.ends)

    def is_begun_by(self, opened: int, period: CandlePeriod) -> bool:
        """Say whether no part of a period can have opened before the short candle that opened then."""
        return opened <= period.opens or self._market.is_closed(period.opens, opened)

    def is_traded_in(self, period: CandlePeriod, start: int, end: int) -> bool:
        """Say whether short candles of a period may open from `start` until before `end`."""
        start, end = max(start, period.opens), min(end, period.ends)
        return start < end and not self._market.is_closed(start, end)

    @property
    def ahead_s(self) -> int:
        """So much earlier than a long candle one of its parts may open."""
        return _LONGEST_AHEAD_S if self._calendar is not None and self.base == "1d" else 0

    def _by_utc(self, opened: int) -> CandlePeriod:
        opens = open_time(self.interval, opened)
        return CandlePeriod(opens, next_open(self.interval, opens))

    def _by_hours(self, opened: int) -> CandlePeriod:
        calendar = self._calendar
        if calendar is None:
            session = None if self._length >= _DAY_S else self._market.session_at(opened)
            return self._by_own_days(opened) if session is None else self._in_session(opened, session)
        try:
            if self._length >= _DAY_S:
                return self._of_days(opened, calendar)
            sessions = calendar.day_of(opened).sessions
        except ValueError:
            return self._by_utc(opened)
        return self._in_session(opened, next(one for one in sessions if opened < one.closes))

    def _in_session(self, opened: int, session: OpenHours) -> CandlePeriod:
        if opened + length_s(self.base) <= session.opens:
            # Of hours in which the market is closed as far as anybody said.
            opens, ends = self._by_utc(opened)
            while (before := self._market.session_at(opens)) is not None and before.closes <= opened:
                # The last candle of that session may have the same open time.
                opens = before.closes
            return CandlePeriod(opens, min(ends, session.opens))
        opens = session.opens + max(0, opened - session.opens) // self._length * self._length
        return CandlePeriod(opens, min(opens + self._length, session.closes))

    def _by_own_days(self, opened: int) -> CandlePeriod:
        """Return the period by days of UTC, or by the provider's, whose dates are those of their middles."""
        if self.base != "1d":
            return self._by_utc(opened)
        date = (opened + _DAY_S // 2) // _DAY_S * _DAY_S
        opens, ends = self._by_utc(date)
        return CandlePeriod(opens + opened - date, ends + opened - date)

    def _of_days(self, opened: int, calendar: TradingCalendar) -> CandlePeriod:
        day = calendar.day_of(opened)
        first, following = (moment // _DAY_S for moment in self._by_utc(day.date * _DAY_S))
        ends = calendar.last_day(following).sessions[-1].closes
        if self.base != "1d" or opened == day.sessions[0].opens:
            return CandlePeriod(calendar.first_day(first).sessions[0].opens, ends)
        if opened % _DAY_S == 0:
            return CandlePeriod(first * _DAY_S, ends)
        # By the clock of the market, above all at midnight.
        return CandlePeriod(calendar.midnight(first, opened - calendar.midnight(day.date)), ends)
