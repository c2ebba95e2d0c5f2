"""When a market is traded: weekly hours in its zone, holidays and days with other hours; pure."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from math import gcd
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from relay.core.model import OpenHours
from relay.core.session_text import ALL_DAY, ALWAYS, EXAMPLES, Day, parse_day, parse_week, week_text, without_pauses
from relay.core.spans import FOREVER

_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_EPOCH = datetime(1970, 1, 1)
_EPOCH_DAY = _EPOCH.date().toordinal()
_FIRST, _LAST = -2_208_988_800, 7_258_118_400
"""What is before 1900 and after 2199 is asked for by mistake: it counts as open."""
_MOST_YEARLY = 100
"""Our choice: so many days of each year may be named; more would be no trading days."""
_MOST_REMEMBERED = 4096
_MOST_CLOSED_DAYS = 3653
_ANY_YEAR = 2000
"""A leap year, for days that recur each year."""
_MONTH_AND_DAY = len("12-25")


class TradingDay(NamedTuple):
    """A day of trading: its date, counted in days since 1970-01-01, and its sessions, at least one."""

    date: int
    sessions: tuple[OpenHours, ...]


class TradingCalendar:
    """The hours of a market. Share one among all symbols that keep the same: it remembers what it computed.

    `zone` is an IANA name: `America/New_York`. `sessions` are the weekly hours in its local time, in the form that
    charts use: `0930-1600` is Monday to Friday, `1700-1700` begins on the evening before, `0900-1130,1230-1530` has two
    sessions a day, `0900-1630|0900-1400:6` other hours on Friday (1 is Sunday, 7 is Saturday), and `24x7` is always.
    `pauses` are taken out of the weekly hours of each day: `1130-1230`. `holidays` are days without trading,
    `2026-04-03` or, each year, `12-25`; `special_days` have hours of their own: `{"2026-11-27": "0930-1300"}`. A day of
    trading is named by the date on which it ends, and takes its evening before with it. A date of one year stands for
    itself; a date of each year changes only days that would be days of trading.

    Moments are Unix seconds. A local time that the clocks skip is the moment at which they are put forward; one that
    they show twice is the first. Raises `ValueError` that names what is wrong and what would be right.
    """

    __slots__ = (
        "_dated",
        "_days",
        "_grid_s",
        "_is_traded",
        "_is_whole",
        "_span",
        "_week",
        "_weeks",
        "_yearly",
        "_zone",
        "zone",
    )

    def __init__(
        self,
        zone: str,
        sessions: str,
        *,
        pauses: str = "",
        holidays: Iterable[str | date] = (),
        special_days: Mapping[str, str] | Mapping[date, str] | None = None,
    ) -> None:
        self.zone = zone
        self._zone = _zone_of(zone)
        cut = parse_day(pauses) if pauses else ()
        try:
            week = parse_week(sessions)
        except ValueError as error:
            raise ValueError(f"{error}; {EXAMPLES}") from None
        self._is_traded = tuple(map(bool, week))
        self._week = tuple(without_pauses(day, cut) for day in week)
        if not any(self._week):
            raise ValueError(f"the pauses {pauses!r} leave nothing of the sessions {sessions!r}")
        self._dated: dict[date, Day] = {}
        self._yearly: dict[tuple[int, int], Day] = {}
        if isinstance(holidays, str):
            raise ValueError(f"holidays is the text {holidays!r}, not a list of dates")
        for day in holidays:
            self._name(day, ())
        for day, hours in (special_days or {}).items():
            self._name(day, parse_day(hours))
        if len(self._yearly) > _MOST_YEARLY:
            raise ValueError(f"{len(self._yearly)} days of each year are named, more than {_MOST_YEARLY}")
        self._is_whole = all(day == (ALL_DAY,) for day in self._week)
        named = [day.toordinal() for day in self._dated]
        self._span = min(named, default=0), max(named, default=0)
        self._days: dict[int, tuple[OpenHours, ...]] = {}
        self._weeks: dict[int, tuple[list[int], list[OpenHours]]] = {}
        self._grid_s = 0

    def _name(self, day: str | date, hours: Day) -> None:
        known: Mapping[date, Day] | Mapping[tuple[int, int], Day]
        if isinstance(day, str) and len(day) == _MONTH_AND_DAY:
            named = _date_of(f"{_ANY_YEAR}-{day}", day)
            each = (named.month, named.day)
            known, self._yearly[each] = dict(self._yearly), hours
            is_twice = each in known
        else:
            named = day if type(day) is date else _date_of(day, day)
            is_twice = named in self._dated
            self._dated[named] = hours
        if is_twice:
            raise ValueError(f"{day} is named twice among the holidays and special days")

    def __repr__(self) -> str:
        return f"TradingCalendar({self.zone!r}, {self.sessions!r})"

    # -- the text form -----------------------------------------------------------------------------

    @property
    def sessions(self) -> str:
        """The weekly hours without pauses and without a zone, as `session` of a chart's symbol: `0930-1600`, `24x7`."""
        return week_text(self._week)

    @property
    def text(self) -> str:
        """The weekly hours with their zone, as `session` of an instrument: `1700-1700 America/New_York`, or `24x7`."""
        sessions = self.sessions
        return sessions if sessions == ALWAYS else f"{sessions} {self.zone}"

    # -- what is open ------------------------------------------------------------------------------

    @property
    def is_always_open(self) -> bool:
        """Whether it never closes."""
        return self._is_whole and not self._dated and not self._yearly

    def session_at(self, moment: float) -> OpenHours:
        """Return the hours of trading without a pause that hold a `moment` (Unix seconds), or else the next ones.

        Sessions that touch are one: a week of currencies lasts from Sunday to Friday.
        """
        closes, sessions = self._known(moment)
        return sessions[bisect_right(closes, moment)]

    def is_open(self, moment: float) -> bool:
        """Say whether it is traded at a `moment` (Unix seconds)."""
        return self.session_at(moment).opens <= moment

    def last_close(self, moment: float) -> int:
        """Return the end of trading before a `moment`, in Unix seconds: the moment, rounded up, while it is traded."""
        opens = self.session_at(moment).opens
        if moment > opens or opens <= _FIRST:
            return int(-(-moment // 1))
        at = opens
        while True:
            closes, _ = self._known(at)
            place = bisect_right(closes, opens - 1)
            if place:
                return closes[place - 1]
            at -= _WEEK_S

    def trading_between(self, start: float, end: float) -> float:
        """Return how many seconds from `start` to `end` (Unix seconds) it is traded."""
        total = 0.0
        at = start
        while at < end:
            opens, closes = self.session_at(at)
            total += max(0.0, min(closes, end) - max(opens, at))
            at = closes
        return total

    def after_trading(self, start: int, seconds: int) -> int:
        """Return when it will have been traded for so many `seconds`, counted from `start` (Unix seconds)."""
        opens, closes = self.session_at(start)
        start = max(start, opens)
        while closes - start < seconds:
            seconds -= closes - start
            start, closes = self.session_at(closes)
        return start + seconds

    def before_trading(self, end: int, seconds: int) -> int:
        """Return since when it has been traded for so many `seconds`, counted back from `end` (Unix seconds)."""
        end = self.last_close(end)
        opens = self.session_at(end - 1).opens
        while end - opens < seconds:
            seconds -= end - opens
            end = self.last_close(opens)
            opens = self.session_at(end - 1).opens
        return end - seconds

    def offset_s(self, moment: float) -> int:
        """Return local time minus UTC at a `moment` (Unix seconds), in seconds."""
        at = datetime.fromtimestamp(min(max(moment, _FIRST), _LAST), self._zone)
        return int((at.utcoffset() or timedelta()).total_seconds())

    # -- days of trading ---------------------------------------------------------------------------

    def day_of(self, moment: int) -> TradingDay:
        """Return the day of trading that holds a `moment` (Unix seconds), or else the next one.

        Sessions of days that touch are of both: a day of currencies is from 17:00 to 17:00 in New York. Raises
        `ValueError` where there is none for ten years.
        """
        first = moment // _DAY_S - 1
        for day in range(first, first + _MOST_CLOSED_DAYS):
            sessions = self._on(_EPOCH_DAY + day)
            if sessions and moment < sessions[-1].closes:
                return TradingDay(day, sessions)
        raise ValueError(f"nothing is traded in the ten years from {moment} on")

    def first_day(self, since: int) -> TradingDay:
        """Return the first day of trading `since` a date, which is counted in days since 1970-01-01.

        Raises `ValueError` where there is none for ten years.
        """
        for day in range(since, since + _MOST_CLOSED_DAYS):
            if sessions := self._on(_EPOCH_DAY + day):
                return TradingDay(day, sessions)
        raise ValueError(f"nothing is traded in the ten years from day {since} on")

    def last_day(self, before: int) -> TradingDay:
        """Return the last day of trading `before` a date, which is counted in days since 1970-01-01.

        Raises `ValueError` where there is none for ten years.
        """
        for day in range(before - 1, before - _MOST_CLOSED_DAYS, -1):
            if sessions := self._on(_EPOCH_DAY + day):
                return TradingDay(day, sessions)
        raise ValueError(f"nothing is traded in the ten years before day {before}")

    def midnight(self, day: int, after_s: int = 0) -> int:
        """Return when the local clock shows 0:00 of a `day`, or `after_s` later or earlier, in Unix seconds.

        The day is counted in days since 1970-01-01; the seconds are cut to minutes.
        """
        return self._moment(_EPOCH_DAY + day, after_s // 60)

    @property
    def opening_grid_s(self) -> int:
        """The longest time, at most a day, of which all openings are multiples, in seconds of UTC.

        The hours of some winters and summers and the days with hours of their own stand for all.
        """
        if not self._grid_s:
            weeks = [date(year, month, day) for year in range(1996, 2041, 4) for month in (1, 7) for day in range(1, 8)]
            days = [day.toordinal() for day in (*weeks, *self._dated)]
            self._grid_s = gcd(_DAY_S, *(hours.opens for day in days for hours in self._on(day)))
        return self._grid_s

    # -- a week at a time --------------------------------------------------------------------------

    def _known(self, moment: float) -> tuple[list[int], list[OpenHours]]:
        """Return the sessions of the week that holds a moment, up to one that outlasts it, and first their closes."""
        week = int(moment // _WEEK_S) if _FIRST <= moment < _LAST else (_FIRST if moment < _FIRST else _LAST)
        known = self._weeks.get(week)
        if known is None:
            if len(self._weeks) >= _MOST_REMEMBERED:
                self._weeks.clear()
                self._days.clear()
            sessions = self._sessions_of(week)
            known = self._weeks[week] = [session.closes for session in sessions], sessions
        return known

    def _sessions_of(self, week: int) -> list[OpenHours]:
        if week == _FIRST:
            return [OpenHours(-FOREVER, _FIRST), OpenHours(_FIRST, FOREVER)]
        if week == _LAST or self.is_always_open:
            return [OpenHours(-FOREVER, FOREVER)]
        start = week * _WEEK_S
        end = start + _WEEK_S
        # A day of trading begins up to a day before its date, and a zone is up to 14 hours ahead.
        first = _EPOCH_DAY + start // _DAY_S - 2
        last = first + 11
        step = 8
        while True:
            merged = _merged(part for day in range(first, last + 1) for part in self._on(day))
            # What touches the first or the last midnight may go on beyond it.
            begin, until = self._moment(first, 0), self._moment(last, 0)
            known = [one for one in merged if one.closes > start]
            if known and known[0].opens <= begin:
                if not self._is_endless(first, is_back=True):
                    first, step = first - step, step * 2
                    continue
                known[0] = OpenHours(-FOREVER, known[0].closes)
            place = next((place for place, one in enumerate(known) if one.closes >= end), None)
            if place is None or known[place].closes >= until:
                if place is None or not self._is_endless(last, is_back=False):
                    last, step = last + step, step * 2
                    continue
                known[place] = OpenHours(known[place].opens, FOREVER)
            return known[: place + 1]

    def _is_endless(self, day: int, *, is_back: bool) -> bool:
        """Say whether it is always open from a day on, or before it."""
        if not self._is_whole or self._yearly:
            return False
        first, last = self._span
        return day < first - 1 if is_back else day > last + 1

    def _on(self, ordinal: int) -> tuple[OpenHours, ...]:
        """Return the sessions of one day of trading."""
        found = self._days.get(ordinal)
        if found is None:
            if len(self._days) >= _MOST_REMEMBERED * 8:
                self._days.clear()
            day = date.fromordinal(ordinal)
            hours = self._week[day.weekday()]
            if self._is_traded[day.weekday()]:
                hours = self._yearly.get((day.month, day.day), hours)
            hours = self._dated.get(day, hours)
            moments = [OpenHours(self._moment(ordinal, start), self._moment(ordinal, end)) for start, end in hours]
            found = self._days[ordinal] = tuple(one for one in moments if one.opens < one.closes)
        return found

    def _moment(self, ordinal: int, minute: int) -> int:
        """Return the first moment at which the local clock shows a minute of a day or a later one."""
        local = datetime.combine(date.fromordinal(ordinal), datetime.min.time()) + timedelta(minutes=minute)
        early, late = (
            local.replace(fold=fold).replace(tzinfo=self._zone).utcoffset() or timedelta() for fold in (0, 1)
        )
        moment = int((local - _EPOCH - early).total_seconds())
        if late <= early:
            return moment
        # The clocks skip it: it lies behind the change by the offset of before, ahead of it by the one of after.
        low, high = moment - int((late - early).total_seconds()), moment
        while high - low > 1:
            middle = (low + high) // 2
            if datetime.fromtimestamp(middle, UTC).astimezone(self._zone).utcoffset() == late:
                high = middle
            else:
                low = middle
        return high


def _merged(parts: Iterable[OpenHours]) -> list[OpenHours]:
    merged: list[OpenHours] = []
    for part in sorted(parts):
        if merged and part.opens <= merged[-1].closes:
            merged[-1] = OpenHours(merged[-1].opens, max(merged[-1].closes, part.closes))
        else:
            merged.append(part)
    return merged


def _zone_of(name: object) -> ZoneInfo:
    try:
        if not isinstance(name, str):
            raise ValueError
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"{name!r:.60} is not a time zone; write its IANA name, for example America/New_York"
        ) from None


def _date_of(text: object, shown: object) -> date:
    try:
        if not isinstance(text, str):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{shown!r:.40} is not a day: write 2026-12-25, or 12-25 for each year") from None
