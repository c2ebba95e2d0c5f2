"""Prices, volumes, times and durations as text, for terminals and pipes; pure."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import orjson

_MOST_PLACES = 10
_BARS = "▁▂▃▄▅▆▇█"
_BARS_ASCII = "_.-=*#"
_LONG = ("d", "w", "M")
# Control characters that JSON does not have escaped, and what turns or hides the text around it.
_STEERS = re.compile("[\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def number(value: float) -> str:
    """Return the shortest exact text, never with an exponent: `1e-07` is `0.0000001`, `2.0` is `2`."""
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")


def places(values: Iterable[float]) -> int:
    """Return the decimal places that show all values to ten significant digits, up to ten places."""
    texts = (format(Decimal(f"{value:.10g}"), "f") for value in values)
    return min(_MOST_PLACES, max((len(text.partition(".")[2]) for text in texts), default=0))


def fixed(value: float, decimals: int) -> str:
    """Return the value with so many decimal places."""
    return f"{value:.{decimals}f}"


def volume(value: float) -> str:
    """Return a volume in at most six characters: `0`, `0.0123`, `12.35`, `4.57K`, `1.20M`."""
    if value == 0:
        return "0"
    size = abs(value)
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if size >= limit:
            scaled = value / limit
            return f"{scaled:.2f}{unit}" if abs(scaled) < 100 else f"{scaled:.0f}{unit}"
    if size < 0.0001:
        return "<.0001"
    return f"{value:.4f}" if size < 1 else f"{value:.2f}"


def change(value: float, base: float) -> str:
    """Return the change against a base in percent, with its sign."""
    if base == 0:
        return "-"
    percent = (value - base) / base * 100
    return f"{percent:+.2f}%" if abs(percent) < 1000 else f"{percent:+.0f}%"


def moment(seconds: float) -> str:
    """Return Unix seconds as `2025-11-24T16:00:00Z`, or as they are where no calendar has them."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return str(seconds)


def short_moment(seconds: float, interval: str) -> str:
    """Return what tells candles of this interval apart: the time of day (UTC), or the date for long ones."""
    date, _, time = moment(seconds).removesuffix("Z").partition("T")
    return date if interval.endswith(_LONG) or not time else time


def duration(seconds: float) -> str:
    """Return a duration in two units at most: `0.4s`, `12s`, `3m20s`, `5h02m`, `4d03h`."""
    if seconds < 0:
        return "0s"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def sparkline(values: Sequence[float], *, is_ascii: bool = False) -> str:
    """Return one character a value, from the lowest to the highest of them; level where all are equal."""
    bars = _BARS_ASCII if is_ascii else _BARS
    if not values:
        return ""
    low, high = min(values), max(values)
    if high == low:
        return bars[len(bars) // 2 - 1] * len(values)
    return "".join(bars[min(len(bars) - 1, int((value - low) / (high - low) * len(bars)))] for value in values)


def listed(values: Iterable[object]) -> str:
    """Return words with spaces between them, and phrases with commas."""
    texts = [str(value) for value in values]
    return (", " if any(" " in text for text in texts) else " ").join(texts)


def json_line(value: object) -> str:
    """Return a value as JSON on one line that cannot steer the terminal."""
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", orjson.dumps(value).decode())


def printable(text: str) -> str:
    """Return a text of the relay so that it stays on one line and cannot steer the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
