"""A trading calendar that knows no arithmetic: it walks from minute to minute and looks at the local clock; slow."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

MINUTE_S = 60
_WARM_UP_S = 2 * 86_400


class WalkedCalendar(NamedTuple):
    """Sessions as hours and minutes of a clock, by weekday (Monday is 0) and by date; `pauses` are for weekdays only.

    It is open in a minute if the latest time that the local clock has shown by then lies in a session. Where all times
    are multiples of more than a minute, so may the steps be.
    """

    zone: str
    week: Mapping[int, Sequence[tuple[str, str]]]
    pauses: Sequence[tuple[str, str]] = ()
    dated: Mapping[date, Sequence[tuple[str, str]]] = {}
    yearly: Mapping[str, Sequence[tuple[str, str]]] = {}
    step_s: int = MINUTE_S

    def walk(self, start: int, end: int) -> Iterator[tuple[int, bool]]:
        """Yield each minute of a span and whether it is open then."""
        zone = ZoneInfo(self.zone)
        shown = datetime.min
        for moment in range(start - _WARM_UP_S, end, self.step_s):
            clock = datetime.fromtimestamp(moment, UTC).astimezone(zone).replace(tzinfo=None)
            shown = max(shown, clock)
            if moment >= start:
                yield moment, self._is_open(shown)

    def _is_open(self, shown: datetime) -> bool:
        # A day of trading ends on its date, and begins on that or on the day before.
        return any(
            opens <= shown < closes
            for day in (shown.date(), shown.date() + timedelta(days=1))
            for opens, closes in self._sessions(day)
        )

    def _sessions(self, day: date) -> list[tuple[datetime, datetime]]:
        usual = self.week.get(day.weekday(), ())
        if day in self.dated:
            return [_on(day, *hours) for hours in self.dated[day]]
        if usual and f"{day:%m-%d}" in self.yearly:
            return [_on(day, *hours) for hours in self.yearly[f"{day:%m-%d}"]]
        parts = [_on(day, *hours) for hours in usual]
        for pause in self.pauses:
            for first, last in (_on(day + timedelta(days=days), *pause) for days in (-1, 0, 1)):
                parts = [one for a, b in parts for one in ((a, min(b, first)), (max(a, last), b)) if one[0] < one[1]]
        return parts

    def sessions(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return when it opens and closes in a span."""
        found: list[tuple[int, int]] = []
        for moment, is_open in self.walk(start, end):
            if is_open and found and found[-1][1] == moment:
                found[-1] = found[-1][0], moment + self.step_s
            elif is_open:
                found.append((moment, moment + self.step_s))
        return found


def _on(day: date, opens: str, closes: str) -> tuple[datetime, datetime]:
    midnight = datetime(day.year, day.month, day.day)

    def at(text: str) -> datetime:
        return midnight + timedelta(hours=int(text[:2]), minutes=int(text[2:]))

    last = at(closes) if closes != "0000" else midnight + timedelta(days=1)
    return (at(opens) if at(opens) < last else at(opens) - timedelta(days=1)), last
