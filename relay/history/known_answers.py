"""Answers made of what is known, without asking anybody: candles, encoded candles, and what may be missing; pure.

What is known was read from the store, was said by a provider a moment ago, or is told by the live stream.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from relay.core.intervals import length_s, next_open, open_time
from relay.core.model import is_unreadable
from relay.core.spans import FOREVER, Span, clip_spans, span_at
from relay.history.doubts import Doubt, is_long
from relay.history.live_edge import LiveEdge
from relay.history.range_walk import RangeWalk
from relay.history.requests import HistoryRequest, PastCandles, ProviderAnswer
from relay.storage.chunks import Chunk, encode, joined


class EncodedCandles(NamedTuple):
    """Candles as clients get them; `is_current` says whether the same question would get the same answer now.

    `doubted` are open times of which a candle may be missing, between them or after the last. Without `is_whole` there
    may be more where they end, beyond what one request may ask a provider for.
    """

    chunks: Sequence[Chunk]
    last_is_closed: bool
    doubted: tuple[Span, ...] = ()
    is_current: Callable[[], bool] = lambda: False
    is_whole: bool = True

    @property
    def chunk(self) -> Chunk:
        """All candles in one."""
        return joined(self.chunks)


class KnownAnswer(NamedTuple):
    """An answer for which nobody has to be asked. It holds while the store does not change, but no longer than `edge`
    says the same, where there is one, nor than `until`, a time of the monotonic clock.
    """

    text: EncodedCandles
    edge: LiveEdge | None
    until: float


def known_answer(request: RangeWalk, chunks: Sequence[Chunk], known: Span, end: int, now: float) -> KnownAnswer | None:
    """Return the answer to a request for what opened before `end`, None if a provider has to be asked for a part of it.

    `chunks` are what the store has of the span that is `known` where the request begins; `now` is monotonic.
    """
    is_newest = not request.is_forward
    low, high = known
    last_is_closed = True
    newer = [candle for _, candle in sorted(request.answered(low, high).items())] if request.answers else None
    if newer:
        newer = [candle for candle in newer if not is_unreadable(candle)]
    if newer:
        if chunks and newer[0].time <= chunks[-1].times[-1]:
            return None
        is_open = [candle.time in request.open_times() for candle in newer]
        if any(is_open[:-1]):
            return None
        chunk = joined((*chunks, encode(newer, request.asked.encoding))).within(
            0, FOREVER, request.limit, newest=is_newest
        )
        last_is_closed = not (is_open[-1] and chunk.times[-1] == newer[-1].time)
        chunks = (chunk,)
    count = sum([len(chunk.times) for chunk in chunks])
    if count < request.limit and (low > request.low if is_newest else high < end):
        return None
    doubts: Sequence[Doubt] = request.doubts
    if doubts:
        if chunks and count >= request.limit:
            low, high = (chunks[0].times[0], end) if is_newest else (low, chunks[-1].times[-1] + 1)
        doubts = [doubt for doubt in doubts if doubt.span.start < high and low < doubt.span.end]
        if any(doubt.again_at <= now for doubt in doubts):
            return None
    doubted: tuple[Span, ...] = ()
    if request.has_hearsay:
        times = [time for chunk in chunks for time in chunk.times]
        found = _doubted_of(request, times, last_is_closed, is_full=count >= request.limit)
        doubted = _doubts_told(request.asked, times, found)
    used = [answer for answer in request.answers if answer.span.start < end]
    # What the live stream knows was adopted first.
    edge = request.edge if request.edge is not None and request.answers[0] in used else None
    until = [answer.answered_at + request.source.info.fresh_s for answer in used[edge is not None :]]
    until_at = min([*until, *(doubt.again_at for doubt in doubts)], default=math.inf)
    return KnownAnswer(EncodedCandles(chunks, last_is_closed, doubted), edge, until_at)


def encoded_past(asked: HistoryRequest, past: PastCandles) -> EncodedCandles:
    """Return candles that were found, encoded; nobody knows for how long the answer holds."""
    doubted = _doubts_told(asked, [candle.time for candle in past.candles], past.doubted)
    return EncodedCandles(
        (encode(past.candles, asked.encoding),),
        past.last_is_closed,
        (*doubted, *past.unreadable),
        is_whole=past.is_whole or not asked.source.has_history,
    )


def past_of(request: RangeWalk, *, is_complete: bool) -> PastCandles:
    """Return what a request has found; it ends with the first candle that is not closed."""
    rows, open_row, lost = request.rows, request.open_row, sorted(request.lost)
    if open_row is not None:
        rows = [row for row in rows if row.time <= open_row]
        lost = [time for time in lost if time < open_row]
    last_is_closed = open_row is None or not rows or rows[-1].time != open_row
    spans = tuple(Span(time, next_open(request.key.interval, time)) for time in lost) if is_complete else ()
    times = sorted([*(row.time for row in rows), *lost])
    doubted = _doubted_of(request, times, last_is_closed, is_full=request.missing <= 0) if is_complete else ()
    asked_at = min((answer.asked_at for answer in request.answers if answer.reaches_present), default=None)
    return PastCandles(tuple(rows), last_is_closed, is_complete and not lost, (), spans, doubted, asked_at)


def _doubted_of(request: RangeWalk, times: Sequence[int], last_is_closed: bool, *, is_full: bool) -> tuple[Span, ...]:
    """Return where a candle may be missing from what was found of a request, as `PastCandles` names it.

    `times` are the open times of all that was found; with `is_full` it is as much as was asked for.
    """
    # What is not over is missed by nobody.
    high = min(request.high(), int(request.source.clock.now()) - length_s(request.key.interval) + 1)
    follows = next_open(request.key.interval, times[-1]) if times else request.low
    tail = () if _stands_still(request, times, follows) else request.doubted(times, follows, high)
    if not times:
        return tail
    doubted = request.doubted(times, request.low if request.is_forward else times[0], times[-1])
    if not is_full:
        doubted = (*request.emptied(times), *doubted)
    return doubted if not last_is_closed or (request.is_forward and is_full) else (*doubted, *tail)


def _stands_still(request: RangeWalk, times: Sequence[int], follows: int) -> bool:
    """Say whether a request reaches the present and it is sure that its first candle after `times` did not open.

    What is too new to be sure of is no other matter then. Without any candle `follows` may lie between two open times.
    """
    interval, sure = request.key.interval, span_at(request.sure(), follows)
    is_of_present = open_time(interval, int(request.source.clock.now())) < request.high()
    return is_of_present and sure is not None and (bool(times) or sure.end - follows >= length_s(interval))


def known_spans(request: RangeWalk, past: PastCandles) -> tuple[Span, ...]:
    """Return of which open times it is known what there is, where `past` is all that was found of a request."""
    first = past.candles[0].time if len(past.candles) >= request.limit else 0
    known = [*request.stored, *([] if request.live is None else [request.live])]
    if request.source.info.has_every_candle:
        # What nobody vouches for is a gap there.
        closed = past.candles if past.last_is_closed else past.candles[:-1]
        known += [Span(row.time, next_open(request.key.interval, row.time)) for row in closed]
    else:
        known += [doubt.span for doubt in request.doubts]
        known += map(_known_of, request.answers[request.live is not None :])
    known = clip_spans(known, first, FOREVER)
    for time in request.lost:
        known = [*clip_spans(known, 0, time), *clip_spans(known, time + 1, FOREVER)]
    return tuple(known)


def _doubts_told(asked: HistoryRequest, times: Sequence[int], doubted: Sequence[Span]) -> tuple[Span, ...]:
    """Return which of the doubts about what was found are told; `times` are the open times of all candles found.

    What comes before the first candle of all may be asked for by anybody. What follows the last one counts where each
    interval has a candle, unless there is so much that the instrument was halted or went away.
    """
    if not times:
        return tuple(doubted)
    told = clip_spans(doubted, times[0] if asked.start is not None else 0, times[-1])
    if asked.source.info.has_every_candle:
        tail = clip_spans(doubted, times[-1] + 1, FOREVER)
        if tail and not is_long(tail[0].start, tail[-1].end, asked.key.interval):
            told += tail
    return tuple(told)


def _known_of(answer: ProviderAnswer) -> Span:
    """Return which closed candles an answer from a while ago tells for sure: none beyond its newest one."""
    end = answer.span.start
    if answer.candles:
        newest = answer.candles[-1].time
        end = newest if newest == answer.open_time else newest + 1
    return Span(answer.span.start, min(answer.span.end, end))
