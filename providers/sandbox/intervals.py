"""The exchanges' calendars: when a candle of an interval opens and ends; the sandbox's own copy on purpose."""

from datetime import UTC, datetime, timedelta, tzinfo

from providers.sandbox.listings import DAY_MS, HOUR_MS

MINUTE_MS = 60_000

FIXED_MS: dict[str, int] = {
    "1s": 1_000, "1m": MINUTE_MS, "3m": 3 * MINUTE_MS, "5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS, "45m": 45 * MINUTE_MS, "1h": HOUR_MS, "2h": 2 * HOUR_MS, "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS, "8h": 8 * HOUR_MS, "12h": 12 * HOUR_MS, "1d": DAY_MS, "3d": 3 * DAY_MS, "1w": 7 * DAY_MS,
}  # fmt: skip
_MONDAY = 4  # 1970-01-05, counted in days


def open_time(interval: str, at_ms: int, listed_day: int = 0, shift_ms: int = 0) -> int:
    """Find the open time of the candle that holds a moment.

    `shift_ms` is the offset of the zone in which candles are cut. Three-day candles count from the listing.
    """
    local = at_ms + shift_ms
    if interval == "1M":
        moment = datetime.fromtimestamp(local // 1000, UTC)
        return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * 1000 - shift_ms
    length = FIXED_MS[interval]
    origin = 0
    if interval == "1w":
        origin = _MONDAY * DAY_MS
    elif interval == "3d":
        origin = listed_day % 3 * DAY_MS
    return (local - origin) // length * length + origin - shift_ms


def end_time(interval: str, open_ms: int, shift_ms: int = 0) -> int:
    """Find the first millisecond after the candle that opens at `open_ms`."""
    if interval != "1M":
        return open_ms + FIXED_MS[interval]
    local = datetime.fromtimestamp((open_ms + shift_ms) // 1000, UTC)
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000 - shift_ms


def local_open_time(interval: str, at_ms: int, zone: tzinfo) -> int:
    """Find the open time of a candle cut by a zone's calendar, for one day and longer; shorter ones stay in UTC."""
    if interval not in ("1d", "1w", "1M"):
        return open_time(interval, at_ms)
    local = datetime.fromtimestamp(at_ms / 1000, zone)
    day = datetime(local.year, local.month, local.day, tzinfo=zone)
    if interval == "1w":
        day = _midnight(day - timedelta(days=day.weekday()), zone)
    elif interval == "1M":
        day = day.replace(day=1)
    return int(day.timestamp() * 1000)


def local_end_time(interval: str, open_ms: int, zone: tzinfo) -> int:
    """Find the first millisecond after a candle cut by a zone's calendar."""
    if interval not in ("1d", "1w", "1M"):
        return end_time(interval, open_ms)
    day = datetime.fromtimestamp(open_ms / 1000, zone)
    if interval == "1d":
        day = day + timedelta(days=1)
    elif interval == "1w":
        day = day + timedelta(days=7)
    else:
        day = day.replace(year=day.year + 1, month=1) if day.month == 12 else day.replace(month=day.month + 1)
    return int(_midnight(day, zone).timestamp() * 1000)


def _midnight(day: datetime, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)
