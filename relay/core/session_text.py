"""The text form of weekly trading hours, as charts know it: `0930-1600`, `24x7`, `0900-1630|0900-1400:6`; pure.

It is the form that TradingView documents for `session` of a symbol. Times are local. A session that begins at the time
at which it ends, or later, begins on the day before: `1700-1700` of a Monday begins on Sunday. `0000` at the end is the
midnight that ends the day. Days are digits, 1 for Sunday up to 7 for Saturday; without any they are Monday to Friday.
Hours with days replace those without on these days.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

DAY_MINUTES = 1440
ALL_DAY = (0, DAY_MINUTES)
ALWAYS = "24x7"
EXAMPLES = "write 0930-1600, 0900-1130,1230-1530, 1700-1700, 0900-1630|0900-1400:6 or 24x7"

Minutes = tuple[int, int]
"""From when until when, in minutes since the midnight with which a day begins; below 0 on the day before."""
Day = tuple[Minutes, ...]
"""The sessions of one day, ascending, none touches the next."""

_SESSION = re.compile(r"([0-9]{2})([0-9]{2})-([0-9]{2})([0-9]{2})", re.ASCII)
_DAYS = re.compile(r"[1-7]{1,7}", re.ASCII)
_WORKDAYS = "23456"
_SUNDAY_LAST = 7
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}", re.ASCII)
_ADVICE = "such as '24x7', '1700-1700 America/New_York' or '0930-1600 America/New_York'"


def parse_day(text: str) -> Day:
    """Return the sessions of one day: `0930-1300`, or several that ascend with commas between.

    Raises `ValueError` that names the text and what would be right.
    """
    found: list[Minutes] = []
    for part in text.split(","):
        match = _SESSION.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()[:40]!r} is not a session: write HHMM-HHMM, for example 0930-1600")
        hour, minute, last_hour, last_minute = map(int, match.groups())
        if hour > 23 or minute > 59 or last_minute > 59 or last_hour * 60 + last_minute > DAY_MINUTES:
            raise ValueError(f"{part.strip()!r} is not a session: times are from 0000 to 2359")
        start, end = hour * 60 + minute, last_hour * 60 + last_minute or DAY_MINUTES
        found.append((start if start < end else start - DAY_MINUTES, end))
    for (_, end), (start, _) in pairwise(found):
        if start <= end:
            raise ValueError(f"the sessions of {text[:80]!r} overlap or do not ascend; write those that touch as one")
    return tuple(found)


def parse_week(text: str) -> tuple[Day, ...]:
    """Return the sessions of Monday to Sunday.

    Raises `ValueError` that names the text and what would be right.
    """
    if text.strip() == ALWAYS:
        return ((ALL_DAY,),) * 7
    usual: Day | None = None
    named: dict[int, Day] = {}
    for part in text.split("|"):
        hours, colon, days = part.strip().partition(":")
        if "-" in days:
            raise ValueError(f"{part.strip()[:40]!r} is not a session: write HHMM-HHMM, for example 0930-1600")
        sessions = parse_day(hours)
        if not colon:
            if usual is not None:
                raise ValueError(f"{text[:80]!r} has hours without days twice; name the days, as in 0900-1400:6")
            usual = sessions
            continue
        if _DAYS.fullmatch(days) is None:
            raise ValueError(f"{days[:20]!r} are not days: 1 is Sunday, 7 is Saturday, as in 0900-1400:6")
        for digit in days:
            if _weekday(digit) in named:
                raise ValueError(f"{text[:80]!r} has hours for day {digit} twice")
            named[_weekday(digit)] = sessions
    for digit in _WORKDAYS if usual is not None else "":
        named.setdefault(_weekday(digit), usual or ())
    return tuple(named.get(weekday, ()) for weekday in range(7))


@lru_cache(1024)
def fault_of_session(text: str) -> str | None:
    """Say what is wrong with the session of an instrument, or None.

    It is `24x7`, or the text of a week and the time zone in which it is meant: `0930-1600 America/New_York`.
    """
    if text == ALWAYS:
        return None
    hours, _, zone = text.rpartition(" ")
    try:
        if hours in ("", ALWAYS) or hours != hours.strip():
            raise ValueError
        parse_week(hours)
    except ValueError:
        return f"{text!r:.80} is not a session {_ADVICE}"
    try:
        if _ZONE.fullmatch(zone) is None:
            raise ValueError
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError):
        return f"{text!r:.80} names the time zone {zone!r:.70}, which there is not; write one {_ADVICE}"
    return None


def without_pauses(day: Day, pauses: Iterable[Minutes]) -> Day:
    """Return the sessions of a day without daily pauses, which recur on the days before and after it as well."""
    parts = list(day)
    for start, end in [
        (start + shift, end + shift) for start, end in pauses for shift in (-DAY_MINUTES, 0, DAY_MINUTES)
    ]:
        cut = [(first, min(last, start)) for first, last in parts] + [(max(first, end), last) for first, last in parts]
        parts = sorted({(first, last) for first, last in cut if first < last})
    return tuple(parts)


def week_text(week: Sequence[Day]) -> str:
    """Return the text of the sessions of Monday to Sunday; `parse_week` reads it."""
    if all(day == (ALL_DAY,) for day in week):
        return ALWAYS
    digits: dict[str, str] = {}
    for weekday in sorted(range(7), key=_digit):
        if week[weekday]:
            text = ",".join(f"{_clock(start)}-{_clock(end)}" for start, end in week[weekday])
            digits[text] = digits.get(text, "") + _digit(weekday)
    return "|".join(text if days == _WORKDAYS else f"{text}:{days}" for text, days in digits.items())


def _clock(minute: int) -> str:
    hours, minutes = divmod(minute % DAY_MINUTES, 60)
    return f"{hours:02}{minutes:02}"


def _weekday(digit: str) -> int:
    """Return a day as `date.weekday` counts it: Monday is 0."""
    return (int(digit) - 2) % 7


def _digit(weekday: int) -> str:
    return str((weekday + 1) % _SUNDAY_LAST + 1)
