"""Calls for the past: what providers are asked, one call for equal questions, and what their answers are worth.

A good answer is put into the store; what may still change of it, such as the open candle, is kept for a moment.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

from relay.clock import Clock
from relay.errors import ProviderUnavailable, StoreError
from relay.intervals import next_open
from relay.model import Candle, StreamKey
from relay.ranges import Answer, CandleSource, Piece, RangeRequest, settled_before
from relay.storage.coverage import FOREVER, Span
from relay.storage.store import Store
from relay.turns import Turn, Turns

_MOST_RECENT = 4096


class Call(NamedTuple):
    """A call that is under way; no other one may ask for a part of the same span."""

    span: Span
    task: asyncio.Task[Answer]
    turn: Turn


class Calls:
    """Owns the calls under way. They go on when a request that waits is cancelled: others may wait for the same.

    `ended` counts those that are over, `dropped` candles that providers sent with values that make no sense.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._under_way: dict[tuple[str, StreamKey], list[Call]] = {}
        self._turns: dict[str, Turns] = {}
        self._recent: dict[tuple[str, StreamKey], Answer] = {}
        self._is_closed = False
        self.ended = 0
        self.dropped = 0

    def adopt_recent(self, request: RangeRequest) -> None:
        """Have a request believe what the provider said last of what is not settled, if that is still fresh."""
        stream = (request.source.name, request.key)
        answer = self._recent.get(stream)
        if answer is None:
            return
        if self._clock.monotonic() - answer.answered_at >= request.source.info.fresh_s:
            del self._recent[stream]
        elif not (answer.reaches_present and any(span.start > answer.span.start for span in request.stored)):
            # A later span would mean that the stream went on since, past the candle that was open then.
            request.adopt(answer)

    def under_way(self, source: CandleSource, key: StreamKey, span: Span) -> list[Call]:
        """Return the calls that ask for a part of a span."""
        return [call for call in self._under_way.get((source.name, key), ()) if _overlap(call.span, span)]

    def start(self, source: CandleSource, key: StreamKey, piece: Piece, client: str | None) -> Call:
        """Ask a provider when it is the client's turn; nothing of the piece may be under way."""
        if self._is_closed:
            raise ProviderUnavailable("the relay is shutting down")
        stream = (source.name, key)
        turns = self._turns.get(source.name)
        if turns is None:
            turns = self._turns[source.name] = Turns(source.info.calls_at_once, source.budgets)
        turn = turns.turn(client)
        task = asyncio.create_task(self._ask(source, key, piece, turn), name=f"history {source.name} {key}")
        call = Call(piece.span, task, turn)

        def end(task: asyncio.Task[Answer]) -> None:
            self._under_way[stream].remove(call)
            if not self._under_way[stream]:
                del self._under_way[stream]
            self.ended += 1
            if not task.cancelled():
                task.exception()  # seen, even if every request that waited for it was cancelled

        self._under_way.setdefault(stream, []).append(call)
        task.add_done_callback(end)
        return call

    async def wait(self, calls: Collection[Call]) -> list[Answer]:
        """Return the answers when all are there, or raise the first failure."""
        # Not `await task`: that would cancel it for the others when the request that waits is cancelled.
        done, _ = await asyncio.wait([call.task for call in calls], return_when=asyncio.FIRST_EXCEPTION)
        if any(task.cancelled() for task in done):
            raise ProviderUnavailable("the relay is shutting down")
        return [call.task.result() for call in calls if call.task.done()]

    def tasks(self) -> list[asyncio.Task[Answer]]:
        """Return the tasks of all calls under way."""
        return [call.task for calls in self._under_way.values() for call in calls]

    async def close(self) -> None:
        """Cancel all calls and wait for their end."""
        self._is_closed = True
        tasks = self.tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what answers are worth ----------------------------------------------------------------------

    async def _ask(self, source: CandleSource, key: StreamKey, piece: Piece, turn: Turn) -> Answer:
        async with turn:
            before, certain, asked_at = source.clock.now(), source.clock.certain(), self._clock.monotonic()
            answered = await source.candles(key, piece.start, piece.end, piece.limit)
            after, certain = source.clock.now(), min(certain, source.clock.certain())
        # An answer is as old as its question, and a clock that was ahead until this answer set it must close nothing.
        now = min(before, after)
        candles, times = self._clean(answered, 0 if piece.start is None else piece.start, piece.end)
        newest = times[-1] if times else None
        is_full = len(times) >= piece.limit and not piece.is_bounded
        start, end = piece.start, piece.end
        if start is None:
            start = times[0] if is_full else 0
        elif is_full:
            end = times[-1] + 1

        grace_s = source.info.close_grace_s

        def is_final_at(at: float) -> bool:
            is_past = piece.followed_at is not None and piece.followed_at + grace_s <= at
            return newest is None or is_past or next_open(key.interval, newest) + grace_s <= at

        def known_until_at(at: float) -> int:
            if piece.followed_at is not None and piece.followed_at + grace_s <= at:
                return end
            if newest is not None and not is_final_at(at):
                return newest
            return max(settled_before(source, key, at), 0 if newest is None else newest + 1)

        is_final, known_until = is_final_at(now), known_until_at(now)
        # What is written down is never beyond a present that only one source gives, however far the rows reach.
        stored = Span(start, min(end, known_until, known_until_at(certain), int(certain) + 1))
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
        unsettled = max(start, min(end, known_until))
        if reaches_present:
            end = FOREVER
        if unsettled < end:
            newer = tuple(candle for candle in candles if unsettled <= candle.time < end)
            rest = Answer(Span(unsettled, end), newer, open_time, asked_at, answered_at)
            self._remember((source.name, key), rest)
        kept = tuple(candle for candle in candles if start <= candle.time < end)
        return Answer(Span(start, end), kept, open_time, asked_at, answered_at)

    def _remember(self, stream: tuple[str, StreamKey], answer: Answer) -> None:
        self._recent.pop(stream, None)
        self._recent[stream] = answer
        while len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]

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


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end
