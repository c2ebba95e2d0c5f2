"""Candles of another relay: how they are written in its messages, and what of its history can be believed; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay import Candle, ExtendedCandle, ProviderUnavailable, TradingCalendar, next_open, unreadable

LATE_S = 10.0
"""Our choice, `close_grace_s` here: one that the other relay has not closed so long after its end is waited for."""
_SETTLES_S = 120.0
"""Our choice: so long the other relay may still be fetching what it missed; later it is a gap there, too."""
_MOST_HOLES = 1000
"""Our choice."""


def read_candle(wire: Mapping[str, Any]) -> Candle:
    """Return a candle of a message or an answer. Raises `LookupError` or `TypeError`; the relay judges the values."""
    values = wire["time"], wire["open"], wire["high"], wire["low"], wire["close"], wire["volume"]
    if "trades" not in wire:
        return Candle(*values)
    return ExtendedCandle(
        *values,
        quote_volume=wire["quote_volume"],
        trades=wire["trades"],
        taker_volume=wire["taker_volume"],
        taker_quote_volume=wire["taker_quote_volume"],
    )


def believed(
    answer: Mapping[str, Any],
    start: int | None,
    end: int,
    now: float,
    calendar: TradingCalendar | None,
) -> Sequence[Candle]:
    """Return the candles of an answer of `history`, with unreadable ones for those that it says are missing.

    `now` is when it was given, in Unix seconds. Raises `ProviderUnavailable` if it is too early to say: the last candle
    is over and not closed, or what was missed is still being fetched.
    """
    interval = answer["interval"]
    candles = [read_candle(one) for one in answer["candles"]]
    if candles and answer["last_is_closed"] is False and next_open(interval, candles[-1].time) + LATE_S <= now:
        raise ProviderUnavailable("the last of these candles is not closed at the other relay yet")
    if answer.get("complete") is not False:
        return candles
    missing = list(_missing(interval, candles, start, min(end, int(now)), calendar))
    if len(missing) > _MOST_HOLES or any(next_open(interval, time) + _SETTLES_S > now for time in missing):
        raise ProviderUnavailable("the other relay is still fetching some of these candles")
    return sorted([*candles, *map(unreadable, missing)], key=lambda candle: candle.time)


def _missing(
    interval: str, candles: Sequence[Candle], start: int | None, until: int, calendar: TradingCalendar | None
) -> Iterator[int]:
    """Yield the open times that an answer leaves out, as far as they are known by what it has."""
    known = {candle.time for candle in candles}
    if not candles:
        return
    time = candles[0].time
    if start is not None:
        # Steps back to the start, of intervals whose length is known.
        length = next_open(interval, time) - time
        time -= max(0, time - start) // length * length
    count = 0
    while (following := next_open(interval, time)) <= until and count <= _MOST_HOLES:
        if time not in known and (calendar is None or calendar.trading_between(time, following)):
            count += 1
            yield time
        time = following
