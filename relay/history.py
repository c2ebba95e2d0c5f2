"""The past of a stream: candles from the store, else from the provider; equal requests share one call.

What is known is never asked again, and what is not known is never passed off as empty. Open times are not computed
here: the provider's grid has holes and odd ends, so everything is reckoned in spans of time.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from relay.clock import Clock, ProviderClock
from relay.errors import ProviderUnavailable, StoreError
from relay.intervals import length_s, next_open
from relay.model import Candle, ProviderInfo, StreamKey
from relay.store import Span, Store, merge_spans

MAX_CALLS = 50
MAX_CANDLES_PER_CALL = 5000

# How far ahead of its clock a provider is asked about the present, in case that clock runs behind.
_AHEAD_S = 120
_FOREVER = 1 << 60
_MAX_PRESENT = 4096
_SHORTEST_MONTH_S = 28 * 86_400


class CandleSource(Protocol):
    """A provider as history sees it: `clock` is its time, `candles` its `relay_candles`."""

    @property
    def name(self) -> str: ...
    @property
    def clock(self) -> ProviderClock: ...
    @property
    def info(self) -> ProviderInfo: ...
    @property
    def has_history(self) -> bool: ...
    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]: ...


class Past(NamedTuple):
    """Candles, oldest first; `is_complete` is False when not all that was asked for could be had."""

    candles: tuple[Candle, ...]
    last_is_closed: bool
    is_complete: bool


class Live(NamedTuple):
    """What a live stream knows about the present: from the open time `since` on there is nothing but `candle`.

    Everything before `since` was put into the store, as far as it was delivered: `since` is the open time of the last
    closed candle plus 1.
    """

    since: int
    candle: Candle | None
    is_closed: bool = False


class _Answer(NamedTuple):
    # What a provider said about a span. Its candles stand only where the store does not know better.
    span: Span
    candles: tuple[Candle, ...]
    open_time: int | None  # of the one candle that is not closed
    asked_at: float
    answered_at: float

    @property
    def reaches_present(self) -> bool:
        return self.span.end == _FOREVER


class _Piece(NamedTuple):
    # What to ask. `start` None: the newest before `end`. Before `followed_at` there is a candle of `end` or later.
    start: int | None
    end: int
    limit: int
    followed_at: int | None
    reaches_present: bool


class _Request:
    # One request's walk through time: forwards from `start`, or backwards from `end`.

    def __init__(
        self, source: CandleSource, key: StreamKey, start: int | None, end: int | None, limit: int, began_at: float
    ) -> None:
        self.source = source
        self.key = key
        self.is_forward = start is not None
        self.low = max(start or 0, 0)
        self.end = end
        self.limit = limit
        self.began_at = began_at
        self.is_strict = False
        self.at: int | None = self.low if self.is_forward else None  # known and read up to here
        self.rows: list[Candle] = []
        self.answers: list[_Answer] = []
        self.stored: list[Span] = []
        self.reach = limit

    @property
    def missing(self) -> int:
        return self.limit - len(self.rows)

    def present(self) -> int:
        """Return an open time that no candle has reached yet."""
        return int(self.source.clock.now()) + length_s(self.key.interval) + _AHEAD_S

    def high(self) -> int:
        """Return the end of the range asked for, exclusive."""
        present = self.present()
        return present if self.end is None else min(self.end + 1, present)

    def adopt(self, answer: _Answer) -> None:
        """Believe an answer for the rest of this request; of those about the present only the first."""
        if self.is_strict and answer.asked_at < self.began_at:
            return
        if not answer.reaches_present or not any(other.reaches_present for other in self.answers):
            self.answers.append(answer)

    def known(self) -> list[Span]:
        return merge_spans([*self.stored, *(answer.span for answer in self.answers)])

    def is_stored(self, time: int) -> bool:
        return any(span.start <= time < span.end for span in self.stored)

    def followed_at(self, end: int) -> int | None:
        # A stored span ends after a closed candle, at an open one, or so long ago that none can be open.
        later = [span.end for span in self.stored if span.end > end]
        later += [candle.time for answer in self.answers for candle in answer.candles if candle.time >= end]
        return min(later, default=None)

    def piece(self, high: int) -> _Piece:
        """Return what to ask next. `at` is where the known time ends."""
        at = high if self.at is None else self.at
        known = self.known()
        settled = _settled_before(self.source, self.key, self.source.clock.now())
        if self.is_forward:
            later = next((span.start for span in known if span.start > at), None)
            end = high if later is None else min(later, high)
            reaches_present = later is None and end > settled
            # Never just one: it could be the open candle for ever.
            limit = min(max(self.missing, 2), MAX_CANDLES_PER_CALL)
            return _Piece(at, self.present() if reaches_present else end, limit, self.followed_at(end), reaches_present)
        reaches_present = at > settled and not any(span.start >= at for span in known)
        end = self.present() if reaches_present else at
        length = _SHORTEST_MONTH_S if self.key.interval == "1M" else length_s(self.key.interval)
        extra = max(0, int(self.source.clock.now()) - at) // length + 2 if end > at and self.end is not None else 0
        earlier = max((span.end for span in known if span.end <= at), default=0)
        if not earlier:
            limit = min(self.missing + extra, MAX_CANDLES_PER_CALL)
            return _Piece(None, end, limit, self.followed_at(end), reaches_present)
        # The newest before `at` could run into what an earlier span holds, so the question gets a start: far enough
        # back for the missing candles if the grid had no holes, farther each time it turns out to have some.
        newest = min(at, max(int(self.source.clock.now()) + 1, earlier + 1))
        start = max(earlier, newest - self.reach * length)
        self.reach = max(self.reach, 64) * 8
        limit = min((newest - start) // length + 2 + extra, MAX_CANDLES_PER_CALL)
        return _Piece(start, end, limit, self.followed_at(end), reaches_present)


class History:
    """Answers for any range of any stream; owns the provider calls that it makes.

    `dropped` counts candles that providers sent with values that make no sense.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._calls: dict[tuple[str, StreamKey], asyncio.Task[_Answer]] = {}
        self._present: dict[tuple[str, StreamKey], _Answer] = {}
        self._ended = 0
        self._is_closed = False
        self.dropped = 0

    async def candles(
        self,
        source: CandleSource,
        key: StreamKey,
        *,
        start: int | None,
        end: int | None,
        limit: int,
        live: Callable[[], Live | None] | None = None,
        must_be_new: bool = False,
    ) -> Past:
        """Return the first `limit` candles from `start` on, or without it the last `limit` up to `end` or now.

        `start` and `end` are open times, both inclusive. `live` gives the present of a stream that is live, in place of
        a provider call; it is called once, before anything else. With `must_be_new` no answer about the present is
        taken that was asked for before this call, however fresh.

        Raises `ProviderError` when the provider has to be asked and fails (what it gave before that is kept) and
        `StoreError` when the store cannot be read. Cancelling ends the request, not the provider call: others may wait
        for the same.
        """
        request = _Request(source, key, start, end, limit, self._clock.monotonic())
        present = live() if live is not None else None
        if present is not None:
            request.adopt(self._from_live(present))
        request.is_strict = must_be_new
        if limit <= 0:
            return Past((), True, True)
        calls = 0
        while True:
            high = request.high()
            if request.low >= high:
                return Past((), True, True)
            ended = self._ended
            if await self._advance(request, high):
                return _past(request, is_complete=True)
            if not source.has_history:
                return await self._all_stored(request, high)
            call = self._calls.get((source.name, key))
            if call is None:
                if ended != self._ended:
                    continue  # a call that ended while the store was read may have been for the same
                if calls >= MAX_CALLS:
                    return _past(request, is_complete=False)
                calls += 1
                call = self._start_call(source, key, request.piece(high))
            # Not `await call`: that would cancel it for the others when this request is cancelled.
            await asyncio.wait((call,))
            if call.cancelled():
                raise ProviderUnavailable("the relay is shutting down")
            request.adopt(call.result())

    async def close(self) -> None:
        """Cancel the provider calls under way and wait for their end."""
        self._is_closed = True
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _advance(self, request: _Request, high: int) -> bool:
        """Take what is known next to where the request stands; True when it has all it wants."""
        source, key = request.source, request.key
        request.stored = await self._store.spans(source.name, key, request.low, _FOREVER)
        self._adopt_present(request)
        known = request.known()
        if request.is_forward:
            at = request.low if request.at is None else request.at
            to = next((min(span.end, high) for span in known if span.start <= at < span.end), at)
            if to > at:
                request.rows += await self._rows(request, at, to)
            request.at = to
            return request.missing <= 0 or to >= high
        at = high if request.at is None else request.at
        to = next((max(span.start, 0) for span in known if span.start < at <= span.end), at)
        if to < at:
            request.rows[:0] = await self._rows(request, to, at)
            request.at = to
        return request.missing <= 0 or to <= 0

    async def _rows(self, request: _Request, start: int, end: int) -> list[Candle]:
        source, key, newest = request.source, request.key, not request.is_forward
        rows = await self._store.read(source.name, key, start, end, request.missing, newest)
        extra = {
            candle.time: candle
            for answer in request.answers
            for candle in answer.candles
            if start <= candle.time < end and not request.is_stored(candle.time)
        }
        if extra:
            merged = extra | {candle.time: candle for candle in rows}
            rows = [merged[time] for time in sorted(merged)]
            rows = rows[max(len(rows) - request.missing, 0) :] if newest else rows[: request.missing]
        return rows

    async def _all_stored(self, request: _Request, high: int) -> Past:
        request.rows = []
        request.rows = await self._rows(request, request.low, high)
        return _past(request, is_complete=False)

    def _from_live(self, live: Live) -> _Answer:
        candles = () if live.candle is None else (live.candle,)
        open_time = None if live.candle is None or live.is_closed else live.candle.time
        now = self._clock.monotonic()
        return _Answer(Span(live.since, _FOREVER), candles, open_time, now, now)

    def _adopt_present(self, request: _Request) -> None:
        stream = (request.source.name, request.key)
        answer = self._present.get(stream)
        if answer is None:
            return
        if self._clock.monotonic() - answer.answered_at >= request.source.info.fresh_s:
            del self._present[stream]
        elif not any(span.start > answer.span.start for span in request.stored):
            # A later span would mean that the stream went on since, past the candle that was open then.
            request.adopt(answer)

    def _start_call(self, source: CandleSource, key: StreamKey, piece: _Piece) -> asyncio.Task[_Answer]:
        if self._is_closed:
            raise ProviderUnavailable("the relay is shutting down")
        stream = (source.name, key)

        def end(call: asyncio.Task[_Answer]) -> None:
            del self._calls[stream]
            self._ended += 1
            if not call.cancelled():
                call.exception()  # seen, even if every request that waited for it was cancelled

        call = asyncio.create_task(self._ask(source, key, piece), name=f"history {source.name} {key}")
        self._calls[stream] = call
        call.add_done_callback(end)
        return call

    async def _ask(self, source: CandleSource, key: StreamKey, piece: _Piece) -> _Answer:
        before, asked_at = source.clock.now(), self._clock.monotonic()
        answered = await source.candles(key, piece.start, piece.end, piece.limit)
        after = source.clock.now()
        # An answer is as old as its question, and a clock that was ahead until this answer set it must close nothing.
        now = min(before, after)
        candles, times = self._clean(answered, 0 if piece.start is None else piece.start, piece.end)
        newest = times[-1] if times else None
        is_full = len(times) >= piece.limit
        start, end = piece.start, piece.end
        if start is None:
            start = times[0] if is_full else 0
        elif is_full:
            end = times[-1] + 1

        grace_s = source.info.close_grace_s
        is_past = piece.followed_at is not None and piece.followed_at + grace_s <= now
        is_final = newest is None or is_past or next_open(key.interval, newest) + grace_s <= now
        if is_past:
            known_until = end
        elif newest is not None and not is_final:
            known_until = newest
        else:
            known_until = max(_settled_before(source, key, now), 0 if newest is None else newest + 1)
        stored = Span(start, min(end, known_until))
        if stored.end > stored.start:
            # When the disk fails the store keeps them in memory and says so itself.
            with suppress(StoreError):
                await self._store.add(
                    source.name, key, [candle for candle in candles if candle.time < stored.end], stored
                )

        reaches_present = piece.reaches_present and end == piece.end
        is_clock_late = piece.reaches_present and after >= piece.end
        if is_clock_late or (is_full and piece.start is not None and not is_final):
            # The newest candles, or the final values of the last one, are still to be asked for.
            end = max(start, min(end, known_until))
            reaches_present = False
        is_open = newest is not None and piece.followed_at is None and next_open(key.interval, newest) > now
        open_time = newest if newest is not None and is_open and start <= newest < end else None
        answered_at = self._clock.monotonic()
        if reaches_present:
            end = _FOREVER
            rest = Span(max(start, min(piece.end, known_until)), _FOREVER)
            newer = tuple(candle for candle in candles if candle.time >= rest.start)
            self._remember((source.name, key), _Answer(rest, newer, open_time, asked_at, answered_at))
        kept = tuple(candle for candle in candles if start <= candle.time < end)
        return _Answer(Span(start, end), kept, open_time, asked_at, answered_at)

    def _remember(self, stream: tuple[str, StreamKey], answer: _Answer) -> None:
        self._present.pop(stream, None)
        self._present[stream] = answer
        while len(self._present) > _MAX_PRESENT:
            del self._present[next(iter(self._present))]

    def _clean(self, answered: Sequence[Candle], start: int, end: int) -> tuple[list[Candle], list[int]]:
        """Return the good candles of the range by open time, and the open times of all of them, faulty ones too.

        A faulty candle is dropped, but still says how far the answer reaches.
        """
        times: list[int] = []
        good: dict[int, Candle] = {}
        for candle in answered:
            if not isinstance(candle.time, int) or _is_faulty(candle):
                self.dropped += 1
            elif start <= candle.time < end:
                good[candle.time] = candle
            if isinstance(candle.time, int) and start <= candle.time < end:
                times.append(candle.time)
        times.sort()
        return [good[time] for time in sorted(good)], times


def _is_faulty(candle: Candle) -> bool:
    try:
        return candle.fault() is not None
    except (TypeError, OverflowError):
        return True


def _settled_before(source: CandleSource, key: StreamKey, now: float) -> int:
    # A candle opened later may still be missing from the provider's answers.
    return math.floor(now - length_s(key.interval) - source.info.close_grace_s)


def _past(request: _Request, *, is_complete: bool) -> Past:
    rows = request.rows
    open_times = {answer.open_time for answer in request.answers if answer.open_time is not None}
    for index, candle in enumerate(rows):
        if candle.time in open_times and not request.is_stored(candle.time):
            # What a live stream stored meanwhile would make the values of this one look final.
            return Past(tuple(rows[: index + 1]), False, is_complete)
    return Past(tuple(rows), True, is_complete)
