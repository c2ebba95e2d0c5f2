"""Calls for the past: what providers are asked, one call for equal questions, and again for what is in doubt.

`answer_reach` says how far an answer reaches, `final_candles` puts what is final of it into the store, and
`recent_answers` keeps what may still change, such as the open candle, for a moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.errors import BadAnswer, ProviderError, ProviderUnavailable
from relay.core.fair_queue import FairQueue, QueueTurn
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span, span_at
from relay.history.answer_reach import AnswerMoments, AnswerReach, reach_of, usable_rows
from relay.history.doubts import Doubts
from relay.history.final_candles import FinalCandles, KnownCandles, News
from relay.history.recent_answers import RecentAnswers
from relay.history.requests import CandleSource, PageRequest, ProviderAnswer
from relay.history.settling import Settling
from relay.storage.past_seen import PastSeen
from relay.storage.store import Store

MOST_AGAIN = 8
"""Calls for what is in doubt that one request may cause."""

OnAnswer = Callable[[CandleSource, StreamKey, Candle], Awaitable[bool]]
"""Takes the first candle of an answer before the answer is used; says whether it is odd, to be had a second time."""

OnDisagreement = Callable[[str, StreamKey, int], Awaitable[bool]]
"""Finds out whether a provider's symbol still names the instrument that is known up to an open time."""


class ProviderCall(NamedTuple):
    """A call that is under way; no other one may ask for a part of the same span while the past is as `seen`."""

    span: Span
    task: asyncio.Task[ProviderAnswer]
    turn: QueueTurn
    seen: PastSeen


class _Came(NamedTuple):
    # An answer, of which what was over at `proven` is final.
    candles: Sequence[Candle]
    times: Sequence[int]
    reach: AnswerReach
    asked_at: float
    answered_at: float
    proven: float
    is_odd: bool


class ProviderCalls:
    """Owns the calls under way. They go on when a request that waits is cancelled: others may wait for the same.

    `ended` counts those that are over, `dropped` candles that providers sent with values that make no sense. By
    provider, `compared` counts known candles that an answer spoke of again, and `differed` those that it gave other
    values. `on_news` gets what is new in the past once it is on its way into the store. `on_disagreement(provider, key,
    until)` is asked when an answer is so far off what is known up to an open time that it may be about something else.
    Unless the symbol names the same instrument as before nothing of it is taken, and else what a second answer says.
    """

    def __init__(self, store: Store, clock: Clock, on_answer: OnAnswer | None = None) -> None:
        self.doubts = Doubts()
        self.on_news: Callable[[News], None] = _ignore
        self.on_disagreement: OnDisagreement = _is_other
        self._store = store
        self._clock = clock
        self._on_answer = on_answer
        self._under_way: dict[tuple[str, StreamKey], list[ProviderCall]] = {}
        self._turns: dict[str, FairQueue] = {}
        self.recent = RecentAnswers(clock)
        self.settling = Settling(clock)
        self.finals = FinalCandles(store, self.doubts)
        self.compared, self.differed = self.finals.compared, self.finals.differed
        self._is_closed = False
        self.ended = 0
        self.dropped = 0

    def under_way(self, source: CandleSource, key: StreamKey, span: Span) -> list[ProviderCall]:
        """Return the calls that ask for a part of a span; not those begun before the past was learnt to be another."""
        calls = self._under_way.get((source.name, key), ())
        return [one for one in calls if _overlap(one.span, span) and one.seen.is_same(source.name, key.symbol)]

    def turn(self, source: CandleSource, client: str | None) -> QueueTurn:
        """Return the place of a call to a provider among its others."""
        turns = self._turns.get(source.name)
        if turns is None:
            turns = self._turns[source.name] = FairQueue(source.info.calls_at_once, source.budgets)
        return turns.turn(client)

    def start(self, source: CandleSource, key: StreamKey, piece: PageRequest, client: str | None) -> ProviderCall:
        """Ask a provider when it is the client's turn; nothing of the piece may be under way."""
        if self._is_closed:
            raise ProviderUnavailable("the relay is shutting down")
        stream = (source.name, key)
        turn = self.turn(source, client)
        seen = self._store.look()
        task = asyncio.create_task(self._ask(source, key, piece, turn, seen), name=f"history {source.name} {key}")
        call = ProviderCall(piece.span, task, turn, seen)

        def end(task: asyncio.Task[ProviderAnswer]) -> None:
            self._under_way[stream].remove(call)
            if not self._under_way[stream]:
                del self._under_way[stream]
            self.ended += 1
            if not task.cancelled():
                task.exception()  # seen, even if every request that waited for it was cancelled

        self._under_way.setdefault(stream, []).append(call)
        task.add_done_callback(end)
        return call

    async def wait(self, calls: Collection[ProviderCall]) -> list[ProviderAnswer]:
        """Return the answers when all are there, or raise the first failure."""
        # Not `await task`: that would cancel it for the others when the request that waits is cancelled.
        done, _ = await asyncio.wait([call.task for call in calls], return_when=asyncio.FIRST_EXCEPTION)
        if any(task.cancelled() for task in done):
            raise ProviderUnavailable("the relay is shutting down")
        return [call.task.result() for call in calls if call.task.done()]

    def tasks(self) -> list[asyncio.Task[ProviderAnswer]]:
        """Return the tasks of all calls under way."""
        return [call.task for calls in self._under_way.values() for call in calls]

    def is_busy(self, provider: str) -> bool:
        """Say whether a call to a provider is under way or waits for its turn."""
        return any(name == provider for name, _ in self._under_way)

    async def close(self) -> None:
        """Cancel all calls and wait for their end."""
        self._is_closed = True
        tasks = self.tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what is in doubt ----------------------------------------------------------------------------

    def must_ask_again(self, source: CandleSource, key: StreamKey, start: int, end: int) -> bool:
        """Say whether it is time to ask again for something in doubt between two open times."""
        return bool(self.doubts.due((source.name, key), start, end, self._clock.monotonic()))

    async def ask_again(
        self, source: CandleSource, key: StreamKey, start: int, end: int, stored: Sequence[Span], client: str | None
    ) -> bool:
        """Ask for what is in doubt of a range where it is time to; return whether anything was asked.

        `stored` is what the store knows: that is in doubt no more. No failure is raised: it stays in doubt. Rows that
        cannot be read go first; what would use more than half of a budget waits for another time, all but one row.
        """
        stream, now = (source.name, key), self._clock.monotonic()
        self.doubts.leave_out(stream, stored, now)
        doubted = self.doubts.due(stream, start, end, now)
        rows = _side_by_side([doubt.span for doubt in doubted if doubt.is_row], key)
        spans = [*rows, *(doubt.span for doubt in doubted if not doubt.is_row)]
        room = min([MOST_AGAIN, *(budget.limit // 2 - budget.used for budget in source.budgets())])
        most = max(room, min(1, len(rows)))
        for span in spans[most:]:
            self.doubts.postpone(stream, span, now)
        awaited: dict[ProviderCall, None] = {}
        for span in spans[:most]:
            calls = self.under_way(source, key, span)
            if not calls:
                is_short = span.end - span.start <= length_s(key.interval)
                most = min(source.info.candles_per_call, (span.end - span.start) // length_s(key.interval) + 2)
                calls = [
                    self.start(
                        source, key, PageRequest(span.start or None, span.end, most, None, False, is_short), client
                    )
                ]
            for call in calls:
                call.turn.hasten(client)
                awaited[call] = None
        if awaited:
            await asyncio.wait([call.task for call in awaited])
        now = self._clock.monotonic()
        for call in awaited:
            error = None if call.task.cancelled() else call.task.exception()
            if error is not None and not isinstance(error, ProviderError):
                raise error
            if error is None and not call.task.cancelled():
                answer = call.task.result()
                self.doubts.agree(stream, call.span, now)
                # If there is something after all, what this answer did not reach is simply unknown.
                for doubt in self.doubts.due(stream, *call.span, now) if answer.candles else ():
                    if not doubt.is_sparse:
                        self.doubts.forget(stream, doubt)
            self.doubts.postpone(stream, call.span, now)
        return bool(awaited)

    # -- one call ------------------------------------------------------------------------------------

    async def _ask(
        self, source: CandleSource, key: StreamKey, piece: PageRequest, turn: QueueTurn, seen: PastSeen
    ) -> ProviderAnswer:
        def is_valid() -> bool:
            return seen.is_same(source.name, key.symbol)

        self.settling.check(source.name, key.symbol, key.interval, piece.span)
        known = await self.finals.known(source, key, piece)
        back = _candles_back(source, key, piece, known)
        came = await self._answer(source, key, piece, turn, back)
        if not is_valid():
            known = KnownCandles([], {})
        compared = self.finals.compare(source, key, known, came.candles, came.proven)
        is_same = True
        if compared.is_other:
            is_same = await self.on_disagreement(source.name, key, compared.changed[-1].time)
        if is_same and (compared.is_other or came.is_odd):
            # It is not what the provider said in between.
            came = await self._answer(source, key, piece, turn, back)
            compared = self.finals.compare(source, key, known, came.candles, came.proven)
        candles, times, reach = came.candles, came.times, came.reach
        final = reach.final
        if final.end > final.start and is_valid() and is_same:
            news = await self.finals.take(
                source, key, final, known, compared, candles, times, came.proven, came.asked_at, seen
            )
            if news is not None and is_valid():
                self.on_news(news)
        rows = reach.rows(candles, times)
        if reach.unsettled < reach.span.end and is_valid():
            newer = tuple(candle for candle in rows if reach.unsettled <= candle.time)
            span = Span(reach.unsettled, reach.span.end)
            rest = ProviderAnswer(span, newer, reach.open_time, came.asked_at, came.answered_at)
            self.recent.keep((source.name, key), seen, rest)
        return ProviderAnswer(reach.span, rows, reach.open_time, came.asked_at, came.answered_at)

    async def _answer(
        self, source: CandleSource, key: StreamKey, piece: PageRequest, turn: QueueTurn, back: int
    ) -> _Came:
        """Ask a provider, `back` candles before the piece too, and return what came once it may be used."""
        async with turn:
            clock, asked_at = source.clock, self._clock.monotonic()
            before, certain = clock.over(), clock.certain()
            first = piece.start if piece.start is None or not back else piece.start - back * length_s(key.interval)
            answered = await source.candles(key, first, piece.end, piece.limit + back)
            after, certain = clock.now(), min(certain, clock.certain())
            answered_at = self._clock.monotonic()
        candles, all_times, dropped = usable_rows(answered, first or 0, piece.end)
        self.dropped += dropped
        if candles:
            clock.see(candles[-1].time)
        # An answer is as old as its question, and a clock that was ahead until this answer set it must close nothing.
        now = min(clock.at(asked_at) if clock.is_wall_behind else before, clock.over())
        times = [time for time in all_times if time >= (piece.start or 0)]
        is_odd = False
        if self._on_answer is not None and piece.start is not None and candles:
            is_odd = await self._on_answer(source, key, candles[0])
        is_full = max(len(times), len(all_times) - back) >= piece.limit and not piece.is_bounded
        if is_full and not times:
            raise BadAnswer(f"{source.info.title} sent only candles before the requested ones")
        reach = reach_of(source, key, piece, times, is_full, AnswerMoments(now, after, certain))
        return _Came(candles, times, reach, asked_at, answered_at, min(now, certain), is_odd)


def _ignore(*_: object) -> None:
    pass


async def _is_other(*_: object) -> bool:
    return False


def _candles_back(source: CandleSource, key: StreamKey, piece: PageRequest, known: KnownCandles) -> int:
    """Return how many known candles before a piece can be asked for with it at no cost."""
    most = source.info.candles_back
    if piece.start is None or not most or piece.limit + most > source.info.candles_per_call:
        return 0
    span = span_at(known.spans, piece.start - 1)
    return 0 if span is None else min(most, (piece.start - span.start) // length_s(key.interval))


def _side_by_side(rows: Sequence[Span], key: StreamKey) -> list[Span]:
    """Return what to ask for at once, the newest first: rows that follow one another are one question."""
    spans: list[Span] = []
    for span in rows:
        if spans and next_open(key.interval, span.start) == spans[-1].start:
            spans[-1] = Span(span.start, spans[-1].end)
        else:
            spans.append(span)
    return spans


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end
