"""Reading the rows of an answer about the past one by one, so that a bad row costs only itself; pure."""

from collections.abc import Callable, Sequence
from typing import Any

from relay.core.errors import BadAnswer
from relay.core.intervals import grid_s, is_open_time, next_open, open_time
from relay.core.model import Candle, unreadable, widened, worth

NO_SENSE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_MOST_LOST = 1000
MOST_ROWS = 20_000
"""No provider that is known gives more than 5,000 at once."""


def read_rows(
    rows: Sequence[Any],
    interval: str,
    time_of: Callable[[Any], int],
    candle_of: Callable[[Any, int], Candle],
    *,
    is_utc_grid: bool = False,
    is_newest_first: bool = False,
) -> list[Candle]:
    """Return the candles of the rows, oldest first, each open time once. Prices are above zero.

    A row that `candle_of(row, time)` cannot read is `unreadable(time)`, and so is one with values that contradict each
    other by more than a little; by a little it is widened. Where `time_of(row)` raises, or is no open time of the
    interval, all open times between its neighbours are unreadable: it is one of them. Of two rows with one open time
    that differ the one stands that did not have to be widened; else the first where the newest come first, since it was
    written later; else none does. Raises `BadAnswer` when no time can be read, and for more than 20,000 rows.
    """
    step = grid_s(interval, is_utc=is_utc_grid)
    found: dict[int, Candle] = {}
    times: list[int | None] = []
    fault = ""
    if len(rows) > MOST_ROWS:
        raise BadAnswer(f"the answer has {len(rows):,} rows, more than the limit of {MOST_ROWS:,}")
    for row in rows:
        try:
            time = time_of(row)
            if time < 0 or time % step or not is_open_time(interval, time, is_utc=is_utc_grid):
                raise ValueError(f"{time} is not an open time of {interval}")
        except NO_SENSE as error:
            fault = fault or f"{type(error).__name__}: {error}"
            times.append(None)
            continue
        times.append(time)
        candle = _sound(row, time, candle_of)
        known = found.get(time)
        if known is None or worth(candle) > worth(known):
            found[time] = candle
        elif worth(candle) == worth(known) and candle != known and not is_newest_first:
            found[time] = unreadable(time)
    if times and not found:
        raise BadAnswer(f"no row can be read: {fault}")
    for time in _lost(times[::-1] if is_newest_first else times, interval):
        found.setdefault(time, unreadable(time))
    return [found[time] for time in sorted(found)]


def _sound(row: Any, time: int, candle_of: Callable[[Any, int], Candle]) -> Candle:
    try:
        candle = candle_of(row, time)
        if candle.fault() is not None:
            candle = widened(candle)
        return candle if candle.fault() is None and candle.low > 0 else unreadable(time)
    except NO_SENSE:
        return unreadable(time)


def _lost(times: Sequence[int | None], interval: str) -> list[int]:
    """Return the open times that rows without a readable time may have had: those between their neighbours."""
    known = [time for time in times if time is not None]
    if len(known) == len(times):
        return []
    lost: list[int] = []
    before: int | None = None
    is_lost = False
    for time in times:
        if time is None:
            is_lost = True
            continue
        if is_lost and before is None:
            lost.append(open_time(interval, time - 1) if interval == "1M" else 2 * time - next_open(interval, time))
        elif is_lost and before is not None:
            at = next_open(interval, before)
            while at < time and len(lost) < _MOST_LOST:
                lost.append(at)
                at = next_open(interval, at)
        before, is_lost = time, False
    if is_lost:
        lost.append(next_open(interval, known[-1]))
    return lost
