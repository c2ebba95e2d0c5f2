"""How far an answer of a provider reaches, what of it is final, and which of its rows can be used; pure."""

from collections.abc import Sequence
from typing import NamedTuple

from relay.core.model import Candle, StreamKey, is_widened, unreadable
from relay.core.spans import FOREVER, Span
from relay.history.range_walk import settled_before
from relay.history.requests import CandleSource, PageRequest


class UsableRows(NamedTuple):
    """The good candles of an answer by open time, and the open times of all its rows, those of faulty ones too.

    `dropped` counts rows with values that make no sense.
    """

    candles: list[Candle]
    times: list[int]
    dropped: int


def usable_rows(answered: Sequence[Candle], start: int, end: int) -> UsableRows:
    """Return what can be used of an answer about a range.

    A faulty candle is dropped, but still says how far the answer reaches.
    """
    times: list[int] = []
    good: dict[int, Candle] = {}
    dropped = 0
    for candle in answered:
        if not isinstance(candle.time, int) or _is_faulty(candle):
            dropped += 1
        elif start <= candle.time < end:
            good[candle.time] = candle
        if isinstance(candle.time, int) and start <= candle.time < end:
            times.append(candle.time)
    times.sort()
    return UsableRows([good[time] for time in sorted(good)], times, dropped)


class AnswerMoments(NamedTuple):
    """When an answer was had, by the provider's time: it is as old as `now`, and had come `after`.

    `certain` is a present that more than one source gives.
    """

    now: float
    after: float
    certain: float


class AnswerReach(NamedTuple):
    """What an answer says of time: all of `span` is known by it, and of `final` for good.

    From `unsettled` to the end of the span it may still change; `open_time` is that of the one candle which is open.
    """

    span: Span
    final: Span
    unsettled: int
    open_time: int | None

    def rows(self, candles: Sequence[Candle], times: Sequence[int]) -> tuple[Candle, ...]:
        """Return what the answer has in its span, faulty rows as `unreadable` makes them."""
        # What is open can be left out: it is not the last word anyway.
        by_time = {one.time: one for one in candles if one.time != self.open_time or not is_widened(one)}
        said = [
            by_time.get(time) or unreadable(time)
            for time in dict.fromkeys(times)
            if time in by_time or time != self.open_time
        ]
        return tuple(candle for candle in said if self.span.start <= candle.time < self.span.end)


def reach_of(
    source: CandleSource, key: StreamKey, piece: PageRequest, times: Sequence[int], is_full: bool, at: AnswerMoments
) -> AnswerReach:
    """Return how far an answer reaches whose rows in the piece open at `times`; `is_full`: it had room for no more."""
    newest = times[-1] if times else None
    start, end = piece.start, piece.end
    if start is None:
        start = times[0] if is_full else 0
    elif is_full:
        end = times[-1] + 1

    grace_s = source.info.close_grace_s
    over_at = None if newest is None else source.market(key.symbol).end_of(key.interval, newest)

    def is_final_at(at: float) -> bool:
        is_past = piece.followed_at is not None and piece.followed_at + grace_s <= at
        return over_at is None or is_past or over_at + grace_s <= at

    def known_until_at(at: float) -> int:
        if piece.followed_at is not None and piece.followed_at + grace_s <= at:
            return end
        if newest is not None and not is_final_at(at):
            return newest
        return max(settled_before(source, key, at), 0 if newest is None else newest + 1)

    is_final, known_until = is_final_at(at.now), known_until_at(at.now)
    # What is written down is never beyond a present that only one source gives, however far the rows reach.
    final = Span(start, min(end, known_until, known_until_at(at.certain), int(at.certain) + 1))

    reaches_present = piece.reaches_present and end == piece.end
    is_clock_late = piece.reaches_present and at.after >= piece.end
    if is_clock_late or (is_full and piece.start is not None and not is_final):
        # The newest candles, or the final values of the last one, are still to be asked for.
        end = max(start, min(end, known_until))
        reaches_present = False
    is_open = over_at is not None and piece.followed_at is None and over_at > at.now
    open_time = newest if newest is not None and is_open and start <= newest < end else None
    unsettled = max(start, min(end, known_until))
    return AnswerReach(Span(start, FOREVER if reaches_present else end), final, unsettled, open_time)


def _is_faulty(candle: Candle) -> bool:
    try:
        return candle.fault() is not None
    except (TypeError, OverflowError):
        return True
