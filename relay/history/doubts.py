"""What providers did not give although it may be there, and when to ask for it again; pure: moments are passed in.

That something is missing from one answer is no fact. A row whose values cannot be used says that there is a candle: it
is asked for again until it can be read. Where there is no row at all, there may be none: that is believed when several
answers, some time apart, agree. Until then both are in doubt: nobody has to wait for them, and nothing is stored. Only
a market that is often quiet is stored with its holes at once, and looked at again as a whole; so are rows whose values
had to be widened, since there may never be better ones.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from relay.core.intervals import length_s, next_open
from relay.core.model import StreamKey
from relay.core.spans import Span, clip_spans, gaps_between, merge_spans
from relay.core.trading_hours import TradingHours

OPEN = TradingHours()
"""A market that never closes."""
ROW_PAUSES_S = (5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""How long a row that cannot be used is left alone after each answer that had it so; the last one for ever."""
EMPTY_PAUSES_S = (30.0, 300.0, 1800.0)
"""The same for a span without a row; it is believed to be empty when the answer after the last pause agrees."""
MOST_HOLES = 4
"""An answer with more holes between its rows is of a market that is often quiet: it is looked at again as a whole."""
_LONGEST_CLOSURE_S = 180 * 86_400
"""No market is closed for so long between two sessions."""
MOST_LEFT_OUT = 500
"""More candles than this before the first that is known, or after the last, are told as missing to nobody."""
MOST_OF_STREAM = 1024
MOST = 50_000

_SHORTEST_MONTH_S = 28 * 86_400
_TURNS = 4
_DAY_S = 86_400


class Doubt(NamedTuple):
    """Open times that `answers` answers in turn did not give; asked for again from `again_at` on.

    With `is_row` it is one open time, at which there is a row that cannot be used. With `is_sparse` there are rows in
    it, with so many holes between or with values that had to be widened, and all of it is taken to be known meanwhile.
    With `is_bare` no answer about it had any row at all: it does not even say where candles begin.
    """

    span: Span
    is_row: bool
    answers: int
    again_at: float
    is_sparse: bool = False
    is_bare: bool = False


class Doubts:
    """What is in doubt of all streams. The memory is bounded: what is forgotten is unknown, and asked for as such."""

    def __init__(self) -> None:
        self._of: OrderedDict[tuple[str, StreamKey], tuple[Doubt, ...]] = OrderedDict()
        self._count = 0

    def of(self, stream: tuple[str, StreamKey]) -> tuple[Doubt, ...]:
        """Return what is in doubt of a stream, ascending."""
        return self._of.get(stream, ()) if self._of else ()

    def streams(self) -> list[tuple[str, StreamKey]]:
        """Return the streams of which something is in doubt."""
        return [*self._of]

    def count(self, provider: str) -> int:
        """Return how many doubts there are about a provider's streams."""
        return sum(len(doubts) for (name, _), doubts in self._of.items() if name == provider)

    def touch(self, stream: tuple[str, StreamKey], start: int, end: int) -> bool:
        """Say whether something between two open times is in doubt and not known."""
        return any(
            max(start, doubt.span.start) < min(end, doubt.span.end) and not doubt.is_sparse
            for doubt in self._of.get(stream, ())
        )

    def due(self, stream: tuple[str, StreamKey], start: int, end: int, now: float) -> list[Doubt]:
        """Return what to ask for again of a range, the newest first."""
        return [
            doubt
            for doubt in reversed(self._of.get(stream, ()))
            if doubt.again_at <= now and doubt.span.start < end and start < doubt.span.end
        ]

    def weigh(
        self,
        stream: tuple[str, StreamKey],
        answered: Span,
        times: Sequence[int],
        bad: Collection[int],
        now: float,
        *,
        is_bare: bool = False,
        market: TradingHours = OPEN,
    ) -> list[Span]:
        """Take what an answer that was asked for at `now` gave of a span; return which of it is known from now on.

        `times` are the open times of all its rows in the span, ascending; those in `bad` have values that make no
        sense. `is_bare` says that the answer had no row, elsewhere neither. Where the `market` is closed nothing is in
        doubt.
        """
        before = self.of(stream)
        doubts = [part for doubt in before for part in ([doubt] if doubt.is_sparse else _outside(doubt, answered))]
        rows = {doubt.span.start: doubt for doubt in before if doubt.is_row}
        doubts += [_grown(Span(time, time + 1), True, rows.get(time), now) for time in bad]
        empty = [doubt for doubt in before if not doubt.is_row and not doubt.is_sparse]
        holes, sparse = holes_of(times, answered, stream[1].interval, market)
        for hole in holes:
            parts = [(doubt, span) for doubt in empty for span in clip_spans((doubt.span,), *hole)]
            new = gaps_between(merge_spans(span for _, span in parts), *hole)
            agreed = [_grown(span, False, doubt, now, is_bare=is_bare) for doubt, span in parts]
            doubts += [doubt for doubt in agreed if doubt.answers <= len(EMPTY_PAUSES_S)]
            doubts += [_grown(span, False, None, now, is_bare=is_bare) for span in new]
        known = gaps_between(merge_spans(doubt.span for doubt in doubts if not doubt.is_sparse), *answered)
        if sparse is not None:
            doubts.append(_grown(sparse, False, None, now)._replace(is_sparse=True))
        self._keep(stream, doubts, now)
        return known

    def look_again(self, stream: tuple[str, StreamKey], span: Span, now: float) -> None:
        """Have a span whose candles are known looked at again as a whole, unless it is to be anyway."""
        before = self.of(stream)
        if not any(one.is_sparse and one.span.start <= span.start and span.end <= one.span.end for one in before):
            self._keep(stream, [*before, _grown(span, False, None, now)._replace(is_sparse=True)], now)

    def is_last(self, stream: tuple[str, StreamKey], time: int, now: float) -> bool:
        """Say whether an answer that was asked for at `now` is the last one that what is known at a time is held to."""
        return any(
            doubt.is_sparse and doubt.answers >= len(EMPTY_PAUSES_S) and doubt.again_at <= now
            for doubt in self.of(stream)
            if doubt.span.start <= time < doubt.span.end
        )

    def agree(self, stream: tuple[str, StreamKey], answered: Span, now: float) -> None:
        """Count an answer about a whole sparse span, whatever it brought: that is known by now."""
        doubts = []
        for doubt in self.of(stream):
            if doubt.is_sparse and answered.start <= doubt.span.start and doubt.span.end <= answered.end:
                doubt = _grown(doubt.span, False, doubt, now)
                if doubt.answers > len(EMPTY_PAUSES_S):
                    continue
            doubts.append(doubt)
        self._keep(stream, doubts, now)

    def postpone(self, stream: tuple[str, StreamKey], span: Span, now: float) -> None:
        """Leave what is due of a span alone for its last pause once more: it could not be asked for."""
        self._keep(
            stream,
            [
                doubt._replace(again_at=now + _pause_s(doubt.is_row, doubt.answers))
                if doubt.again_at <= now and doubt.span.start < span.end and span.start < doubt.span.end
                else doubt
                for doubt in self.of(stream)
            ],
            now,
        )

    def leave_out(self, stream: tuple[str, StreamKey], known: Sequence[Span], now: float) -> None:
        """Take what is known from elsewhere (merged spans) out of what is in doubt, but not out of sparse spans."""
        doubts: list[Doubt] = []
        for doubt in self.of(stream):
            parts = [doubt.span] if doubt.is_sparse else gaps_between(known, *doubt.span)
            if parts != [doubt.span]:
                parts = [hole for part in parts for hole in holes_beside((), part, stream[1].interval)]
            doubts += [doubt._replace(span=part) for part in parts]
        self._keep(stream, doubts, now)

    def forget(self, stream: tuple[str, StreamKey], doubt: Doubt) -> None:
        """Drop a doubt: what it was about is unknown."""
        self._keep(stream, [other for other in self.of(stream) if other != doubt])

    def drop(self, provider: str, symbol: str) -> None:
        """Forget what is in doubt of a symbol at all intervals: its past is to be learnt anew."""
        for name, key in [*self._of]:
            if (name, key.symbol) == (provider, symbol):
                self._keep((name, key), ())

    def _keep(self, stream: tuple[str, StreamKey], doubts: Iterable[Doubt], now: float = 0.0) -> None:
        self._count -= len(self._of.pop(stream, ()))
        kept = _joined(doubts, now)[-MOST_OF_STREAM:]
        if kept:
            self._of[stream] = tuple(kept)
            self._count += len(kept)
        while self._count > MOST and len(self._of) > 1:
            _, lost = self._of.popitem(last=False)
            self._count -= len(lost)


def holes_of(
    times: Sequence[int], answered: Span, interval: str, market: TradingHours = OPEN
) -> tuple[list[Span], Span | None]:
    """Return where between and beside the rows of an answer a candle could be, ascending; `times` are ascending.

    Where there are too many holes between rows, they are not told one by one; what they span comes last. None lies
    where the `market` is closed, but one that is longer than any closure is told as one: nothing was there yet, and to
    divide decades by sessions would hold up everything else.
    """
    length, an_open = length_s(interval), times[0] if times else None
    holes: list[Span] = []
    for hole in holes_beside(times, answered, interval):
        is_divided = hole.end - hole.start <= _LONGEST_CLOSURE_S
        holes += (Span(*part) for part in market.open_parts(*hole, length, an_open)) if is_divided else (hole,)
    between = [hole for hole in holes if times and times[0] < hole.start and hole.end <= times[-1]]
    if len(between) <= MOST_HOLES:
        return holes, None
    return [hole for hole in holes if hole not in between], Span(between[0].start, between[-1].end)


def holes_beside(times: Sequence[int], part: Span, interval: str) -> list[Span]:
    """Return where in a part of time candles could be beside those that open at `times`, which are ascending."""
    first = bisect_left(times, part.start)
    at = max(part.start, next_open(interval, times[first - 1])) if first else part.start
    holes: list[Span] = []
    for time in times[first : bisect_left(times, part.end)]:
        if at < time:
            holes.append(Span(at, time))
        at = next_open(interval, time)
    if at < part.end:
        holes.append(Span(at, part.end))
    if not first and holes and holes[0].start == part.start and not _may_hold_one(holes[0], interval, times):
        del holes[0]
    return holes


def is_long(start: int, end: int, interval: str) -> bool:
    """Say whether a hole is so long that there was no candle, or none any more, rather than that some were left out."""
    return end - start > MOST_LEFT_OUT * length_s(interval)


def _may_hold_one(span: Span, interval: str, times: Sequence[int]) -> bool:
    """Say whether a candle can open in a span before `times`.

    Candles of a day and less open at multiples of their length, or as far apart where `times` tell when others do.
    """
    length = length_s(interval)
    if span.end - span.start >= _shortest_s(interval):
        return True
    if length > _DAY_S:
        return not times
    return span.start + ((times[0] if times else 0) - span.start) % length < span.end


def _shortest_s(interval: str) -> int:
    return _SHORTEST_MONTH_S if interval == "1M" else length_s(interval)


def _pause_s(is_row: bool, answers: int) -> float:
    pauses = ROW_PAUSES_S if is_row else EMPTY_PAUSES_S
    return pauses[min(answers, len(pauses)) - 1]


def _grown(span: Span, is_row: bool, before: Doubt | None, now: float, *, is_bare: bool = False) -> Doubt:
    """Return the doubt about a span after one more answer; one that comes within the pause says nothing new."""
    if before is None:
        return Doubt(span, is_row, 1, now + _pause_s(is_row, 1), is_bare=is_bare)
    before = before._replace(span=span, is_bare=before.is_bare and is_bare)
    if now < before.again_at:
        return before
    answers = before.answers + 1
    return before._replace(answers=answers, again_at=now + _pause_s(is_row, answers))


def _outside(doubt: Doubt, answered: Span) -> list[Doubt]:
    parts = (Span(doubt.span.start, min(doubt.span.end, answered.start)), Span(answered.end, doubt.span.end))
    parts = (parts[0], Span(max(parts[1].start, doubt.span.start), parts[1].end))
    return [doubt._replace(span=part) for part in parts if part.start < part.end]


def _joined(doubts: Iterable[Doubt], now: float) -> list[Doubt]:
    """Return doubts in order; those that touch and are equally old are one, as emptiness that grows with time is.

    They are where both are due, or are at about the same time: to wait for the younger one again and again, as it
    grows, would be to wait for ever.
    """
    joined: list[Doubt] = []
    for doubt in sorted(doubts):
        last = joined[-1] if joined else None
        if (
            last is not None
            and not (last.is_row or doubt.is_row or last.is_sparse or doubt.is_sparse)
            and (last.span.end, last.answers, last.is_bare) == (doubt.span.start, doubt.answers, doubt.is_bare)
            and _turn(last, now) == _turn(doubt, now)
        ):
            span = Span(last.span.start, doubt.span.end)
            joined[-1] = last._replace(span=span, again_at=max(last.again_at, doubt.again_at))
        else:
            joined.append(doubt)
    return joined


def _turn(doubt: Doubt, now: float) -> float:
    """Return when a doubt comes up, in parts of its last pause; the same for all that have by now."""
    return max(doubt.again_at, now) // (_pause_s(doubt.is_row, doubt.answers) / _TURNS)
