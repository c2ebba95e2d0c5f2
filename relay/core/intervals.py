"""Interval names and the arithmetic of open times; pure.

Open times are never computed for candles that the provider delivers: it stamps them. What is computed here is when
the next one is due, counted from the last one delivered, and where candles open that the relay builds itself.
"""

import re
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from relay.core.errors import Code, RequestError

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")

_UNIT_WORDS = (
    (1, ("", "s", "sec", "secs", "second", "seconds")),
    (60, ("", "m", "min", "mins", "minute", "minutes")),
    (3600, ("h", "hr", "hour", "hours", "hourly")),
    (86_400, ("d", "day", "days", "daily")),
    (604_800, ("w", "wk", "week", "weeks", "weekly")),
    (31 * 86_400, ("mo", "mon", "mn", "month", "months", "monthly")),
)
"""What people call units, with nothing for seconds and then for minutes."""

_LENGTH_S = {name: int(name[:-1]) * _UNIT_S[name[-1]] for name in INTERVALS if name != "1M"} | {"1M": 31 * 86_400}


def parse_interval(text: str) -> str:
    """Return the canonical name: `1H`, `4H`, `1D` and `1W` are taken too; `1m` is a minute, `1M` a month.

    Raises `RequestError` (unknown_interval) that lists the names.
    """
    if text in _LENGTH_S:
        return text
    lowered = text[:-1] + text[-1:].lower()
    if text[-1:] in {"S", "H", "D", "W"} and lowered in _LENGTH_S:
        return lowered
    meant = meant_interval(text[:20])
    raise RequestError(
        Code.UNKNOWN_INTERVAL,
        f"unknown interval {text[:20]!r}; {f'did you mean {meant}? ' if meant else ''}use one of {' '.join(INTERVALS)}",
        interval=text[:20],
    )


def meant_interval(text: str) -> str:
    """Return the interval that another spelling means: `60` (seconds), `15` (minutes), `H4`, `M`; "" for none."""
    if text.strip() == "M":
        return "1M"
    found = re.fullmatch(r"([0-9]{0,6}) ?([a-z]*)|([a-z]+)([0-9]{1,6})", text.strip().lower())
    count, unit, unit_before, count_behind = found.groups(default="") if found else ("", "", "", "")
    count, unit = count or count_behind, unit or unit_before
    for unit_s, words in _UNIT_WORDS if count or unit else ():
        for name, length_s in _LENGTH_S.items():
            # Nobody who writes 1 means a second.
            if unit in words and length_s == int(count or 1) * unit_s and (unit or name != "1s"):
                return name
    return ""


def length_s(interval: str) -> int:
    """Return the length in seconds; for a month the longest one."""
    return _LENGTH_S[interval]


def next_open(interval: str, open_time: int) -> int:
    """Return when the candle after the one opened at `open_time` is due, in Unix seconds."""
    if interval != "1M":
        return open_time + _LENGTH_S[interval]
    at = datetime.fromtimestamp(open_time, UTC)
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    days, next_days = monthrange(at.year, at.month)[1], monthrange(year, month)[1]
    # What opens on the last day of a month begins the next one in another zone, and so does what follows.
    day = next_days if at.day == days else min(at.day, next_days)
    return int(at.replace(year=year, month=month, day=day).timestamp())


_QUARTER_S = 900
_MINUTE_S = 60
_DAY_S = 86_400
_FARTHEST_ZONE_S = 14 * 3600


def first_open_after(interval: str, moment: int, an_open: int | None = None) -> int:
    """Return the first open time after a moment, in Unix seconds: the next one if the moment is an open time itself.

    `an_open` is a later open time, or an earlier one, by which others are reckoned; without one UTC's are.
    """
    if interval == "1M" or an_open is None:
        opened = open_time(interval, moment)
        following = next_open(interval, moment)
        return following if moment == opened or following == an_open else next_open(interval, opened)
    length = _LENGTH_S[interval]
    return an_open - (an_open - moment - 1) // length * length


def is_open_time(interval: str, moment: int, *, is_utc: bool) -> bool:
    """Say whether a candle may open then, if it is on the grid of `grid_s`.

    With `is_utc` weeks open on Monday and months on the first, in UTC, and days by threes on any day. Elsewhere months
    open on the first of some zone, and of others the market says it.
    """
    if interval == "1M" and not is_utc:
        return abs(moment - open_time(interval, moment + _FARTHEST_ZONE_S)) <= _FARTHEST_ZONE_S
    return not is_utc or interval == "3d" or open_time(interval, moment) == moment


def grid_s(interval: str, *, is_utc: bool = False) -> int:
    """Return of how many seconds an open time is a multiple, in UTC.

    It is the length up to a quarter of an hour. Longer candles may open by the hours of a market or another zone's day,
    on a whole minute. With `is_utc` it is the length up to a day, and a day beyond: weeks, months and days by threes
    begin on some day.
    """
    length = _LENGTH_S[interval]
    if is_utc:
        return min(length, _DAY_S)
    return length if length <= _QUARTER_S else _MINUTE_S


Opens = Callable[[int], int]
"""Gives the open time of the candle of one interval that holds a moment; both in Unix seconds."""

# 1970-01-01 was a Thursday.
_FIRST_MONDAY = 4 * 86_400


def open_time(interval: str, moment: int) -> int:
    """Return when the candle that holds `moment` opened, in UTC: weeks on Monday, months on the first.

    Both are in Unix seconds. Days counted by threes begin with 1970-01-01; venues count them from days of their own.
    """
    if interval == "1M":
        at = datetime.fromtimestamp(moment, UTC)
        return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp())
    phase = _FIRST_MONDAY if interval == "1w" else 0
    return moment - (moment - phase) % _LENGTH_S[interval]


def opens_of(interval: str) -> Opens:
    """Return `open_time` of one interval, for a caller that may bring boundaries of its own instead."""
    return partial(open_time, interval)


def end_of(interval: str, opens: Opens, opened: int) -> int:
    """Return when a candle ends whose boundaries `opens` gives: where the next one opens.

    Days may have 23 to 25 hours and months 28 to 31 days: the middle of the one that follows is looked up.
    """
    return opens(opened + max(1, _LENGTH_S[interval] * 3 // 2))
