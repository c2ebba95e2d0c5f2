"""Interval names and the arithmetic of open times; pure.

Open times are never computed for candles that the provider delivers: it stamps them. What is computed here is when
the next one is due, counted from the last one delivered.
"""

from datetime import UTC, datetime

from relay.errors import Code, RequestError

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")

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
    raise RequestError(
        Code.UNKNOWN_INTERVAL, f"unknown interval {text[:20]!r}; use one of {' '.join(INTERVALS)}", interval=text[:20]
    )


def length_s(interval: str) -> int:
    """Return the length in seconds; for a month the longest one."""
    return _LENGTH_S[interval]


def next_open(interval: str, open_time: int) -> int:
    """Return when the candle after the one opened at `open_time` is due, in Unix seconds."""
    if interval != "1M":
        return open_time + _LENGTH_S[interval]
    at = datetime.fromtimestamp(open_time, UTC)
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return int(at.replace(year=year, month=month).timestamp())
