"""How Twelve Data cuts, labels, pads and writes the bars of currency pairs; pure but for the market it reads."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple
from zoneinfo import ZoneInfo

from providers.sandbox.intervals import local_end_time, local_open_time
from providers.sandbox.listings import DAY_MS, HOUR_MS, Pair
from providers.sandbox.market import Market

SYDNEY = ZoneInfo("Australia/Sydney")
# The server's own list; its error message prints it in this order.
INTERVALS = ("1min", "5min", "15min", "30min", "45min", "1h", "2h", "4h", "8h", "1day", "1week", "1month")
_NAMES = {"1min": "1m", "5min": "5m", "15min": "15m", "30min": "30m", "45min": "45m",
          "1day": "1d", "1week": "1w", "1month": "1M"}  # fmt: skip
_LONG = ("1d", "1w", "1M")
_REMEMBERED = 16_384
"""Our own: who polls is given nearly the same bars each time."""


class Bar(NamedTuple):
    """One bar of a pair in its price units; `start` is its open time in milliseconds."""

    start: int
    open: int
    high: int
    low: int
    close: int


class Moment(NamedTuple):
    """A date of a request: the instant in milliseconds, and whether only a day was named."""

    at_ms: int
    is_day: bool


def parse_moment(text: str, zone: tzinfo) -> Moment | None:
    """Read `2026-01-31`, `2026-01-31 15:04:05` or the same with a `T`; None if it is no date."""
    match = re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?", text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    return Moment(int(moment.timestamp() * 1000), match[4] is None)


def is_lost(start_ms: int) -> bool:
    """Tell whether a bar is lost because its Sydney label comes twice, when summer time ends there."""
    return _is_lost_hour(start_ms // HOUR_MS)


@lru_cache(maxsize=_REMEMBERED)
def _is_lost_hour(hour: int) -> bool:
    local = datetime.fromtimestamp(hour * HOUR_MS // 1000, SYDNEY)
    return local.fold == 0 and local.utcoffset() != local.replace(fold=1).utcoffset()


@lru_cache(maxsize=_REMEMBERED)
def label(interval: str, start_ms: int, zone: tzinfo) -> str:
    """Write a bar's open time as the answer shows it."""
    local = datetime.fromtimestamp(start_ms / 1000, zone)
    return local.isoformat(" ", "seconds")[: 10 if _NAMES.get(interval) in _LONG else 19]


@lru_cache(maxsize=_REMEMBERED)
def price_text(units: int, decimals: int, dp: int = -1) -> str:
    """Write a price: trailing zeros cut, or rounded to `dp` decimals when that is not -1."""
    value = Decimal(units).scaleb(-decimals)
    if dp >= 0:
        return str(value.quantize(Decimal(1).scaleb(-dp), rounding=ROUND_HALF_EVEN))
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Bars:
    """Find the bars of a pair, newest first; closed hours are filled with almost flat ones."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def newest(
        self, pair: Pair, interval: str, zone: tzinfo, now_ms: int, first_ms: int | None, last_ms: int, limit: int
    ) -> list[Bar]:
        """Find up to `limit` bars whose open time lies from `first_ms` to `last_ms`, newest first."""
        short = _NAMES.get(interval, interval)
        bars: list[Bar] = []
        for start in self._opens(pair, short, zone, min(now_ms, last_ms)):
            if first_ms is not None and start < first_ms:
                break
            if short not in _LONG and is_lost(start):
                continue
            bar = self._bar(pair, short, zone, start, now_ms)
            if bar is not None:
                bars.append(bar)
                if len(bars) == limit:
                    break
        return bars

    def _opens(self, pair: Pair, short: str, zone: tzinfo, last_ms: int) -> Iterator[int]:
        earliest = pair.listed_day * DAY_MS
        at = last_ms
        while (opened := local_open_time(short, at, zone)) >= earliest:
            yield opened
            at = opened - 1

    def _bar(self, pair: Pair, short: str, zone: tzinfo, start: int, now_ms: int) -> Bar | None:
        end = local_end_time(short, start, zone)
        if not self._market.exists(pair.symbol, start, end):
            return None
        part = self._market.span(pair.symbol, start, max(start + 1, min(end, now_ms + 1)))
        if part.trades == 0:
            is_quiet_but_open = any(
                self._market.is_open(pair.symbol, at)
                for at in range(start, min(end, now_ms + 1), max(60_000, (end - start) // 24))
            )
            if is_quiet_but_open:
                return Bar(start, part.close, part.close, part.close, part.close)
            return self.padded(pair, short, start, part.close)
        return Bar(start, part.open, part.high, part.low, part.close)

    def padded(self, pair: Pair, short: str, start: int, price: int) -> Bar | None:
        """Invent the almost flat bar that stands where the market was closed."""
        dice = bar_dice(pair.symbol, short, start)
        step = max(1, price // 60_000)
        opened = price + dice % (step + 1)
        close = price + dice // 1000 % (step + 1)
        return Bar(start, opened, max(opened, close) + step * 2, min(opened, close) - step, close)


def day_bounds(text: str, zone: tzinfo, now_ms: int) -> tuple[Moment, int] | None:
    """Read the `date` parameter: the day's first instant and its last millisecond."""
    today = datetime.fromtimestamp(now_ms / 1000, zone).date()
    named = {"today": today, "yesterday": today - timedelta(days=1)}.get(text.lower())
    moment = parse_moment(named.isoformat() if named else text, zone)
    if moment is None:
        return None
    following = datetime.fromtimestamp(moment.at_ms / 1000, zone).date() + timedelta(days=1)
    end = datetime(following.year, following.month, following.day, tzinfo=zone)
    return moment, int(end.timestamp() * 1000) - 1


def utc_text(at_ms: int) -> str:
    """Write an instant as the server writes times of its own."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def bar_dice(symbol: str, interval: str, start: int) -> int:
    """Draw a large number for a bar, always the same one."""
    return int.from_bytes(blake2b(f"{symbol}|{interval}|{start}".encode(), digest_size=6).digest(), "big")
