"""Calls for the past: what providers are asked, one call for equal questions, and what their answers are worth.

A good answer is put into the store; what may still change of it, such as the open candle, is kept for a moment. What
it did not give although it may be there is in doubt, and asked for again later. Where it speaks of candles that are
known already, or were given to somebody before they had settled, the two are compared.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.errors import ProviderError, ProviderUnavailable, StoreError
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey, is_widened, unreadable
from relay.core.spans import FOREVER, Span, gaps_between, span_at
from relay.history.comparison import compare
from relay.history.doubts import Doubts
from relay.history.fair_queue import FairQueue, QueueTurn
from relay.history.range_walk import CandleSource, PageRequest, ProviderAnswer, RangeWalk, settled_before
from relay.storage.store import Store
from relay.telemetry.events import event

log = logging.getLogger(__name__)

MOST_AGAIN = 8
"""Calls for what is in doubt that one request may cause."""

_MOST_RECENT = 4096
_MOST_GIVEN = 64

OnAnswer = Callable[[CandleSource, StreamKey, Candle], Awaitable[None]]
"""Takes the first candle of an answer before the answer is used."""


class News(NamedTuple):
    """What a provider says of the past of a stream that is not what was known: values that `changed`, candles `found`.

    It was asked at `asked_at` of its own time.
    """

    provider: str
    key: StreamKey
    changed: Sequence[Candle]
    found: Sequence[Candle]
    asked_at: float


class ProviderCall(NamedTuple):
    """A call that is under way; no other one may ask for a part of the same span."""

    span: Span
    task: asyncio.Task[ProviderAnswer]
    turn: QueueTurn


class ProviderCalls:
    """Owns the calls under way. They go on when a request that waits is cancelled: others may wait for the same.

    `ended` counts those that are over, `dropped` candles that providers sent with values that make no sense. By
    provider, `compared` counts known candles that an answer spoke of again, and `differed` those that it gave other
    values. `on_news` gets what is new in the past once it is on its way into the store; `on_disagreement(provider, key,
    compared, differing)` is called when an answer is so far off what is known that it must be about something else:
    what is stored then stays as it is.
    """

    def __init__(self, store: Store, clock: Clock, on_answer: OnAnswer | None = None) -> None:
        self.doubts = Doubts()
        self.compared: Counter[str] = Counter()
        self.differed: Counter[str] = Counter()
        self.on_news: Callable[[News], None] = _ignore
        self.on_disagreement: Callable[[str, StreamKey, int, int], None] = _ignore
        self._logged: dict[tuple[str, StreamKey, str], None] = {}
        self._store = store
        self._clock = clock
        self._on_answer = on_answer
        self._under_way: dict[tuple[str, StreamKey], list[ProviderCall]] = {}
        self._turns: dict[str, FairQueue] = {}
        # With the age of the symbol's past: what was said of another instrument is worth nothing.
        self._recent: dict[tuple[str, StreamKey], tuple[int, ProviderAnswer]] = {}
        self._given: dict[tuple[str, StreamKey], dict[int, Candle]] = {}
        self._is_closed = False
        self.ended = 0
        self.dropped = 0

    def adopt_recent(self, request: RangeWalk) -> None:
        """Have a request believe what the provider said last of what is not settled, if that is still fresh."""
        stream = (request.source.name, request.key)
        age, answer = self._recent.get(stream, (0, None))
        if answer is None:
            return
        is_old = self._clock.monotonic() - answer.answered_at >= request.source.info.fresh_s
        if is_old or age != self._store.age(request.source.name, request.key.symbol):
            del self._recent[stream]
        elif not (answer.reaches_present and any(span.start > answer.span.start for span in request.stored)):
            # A later span would mean that the stream went on since, past the candle that was open then.
            request.adopt(answer)

    def note_given(self, source: CandleSource, key: StreamKey, candles: Iterable[Candle]) -> None:
        """Note closed candles that somebody was given; those that had not settled then are compared when they have."""
        given = {candle.time: candle for candle in candles}
        if given:
            known = self._given.pop((source.name, key), {}) | given
            self._given[source.name, key] = dict(sorted(known.items())[-_MOST_GIVEN:])
        while len(self._given) > _MOST_RECENT:
            del self._given[next(iter(self._given))]

    def under_way(self, source: CandleSource, key: StreamKey, span: Span) -> list[ProviderCall]:
        """Return the calls that ask for a part of a span."""
        return [call for call in self._under_way.get((source.name, key), ()) if _overlap(call.span, span)]

    def start(self, source: CandleSource, key: StreamKey, piece: PageRequest, client: str | None) -> ProviderCall:
        """Ask a provider when it is the client's turn; nothing of the piece may be under way."""
        if self._is_closed:
            raise ProviderUnavailable("the relay is shutting down")
        stream = (source.name, key)
        turns = self._turns.get(source.name)
        if turns is None:
            turns = self._turns[source.name] = FairQueue(source.info.calls_at_once, source.budgets)
        turn = turns.turn(client)
        task = asyncio.create_task(self._ask(source, key, piece, turn), name=f"history {source.name} {key}")
        call = ProviderCall(piece.span, task, turn)

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
        for doubt in self.doubts.due(stream, start, end, now):
            if doubt.is_sparse:
                continue
            if (known := span_at(stored, doubt.span.start)) is not None and doubt.span.end <= known.end:
                self.doubts.forget(stream, doubt)
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

    # -- what answers are worth ----------------------------------------------------------------------

    async def _ask(self, source: CandleSource, key: StreamKey, piece: PageRequest, turn: QueueTurn) -> ProviderAnswer:
        age = self._store.age(source.name, key.symbol)
        known = await self._known(source, key, piece)
        async with turn:
            clock, asked_at = source.clock, self._clock.monotonic()
            before, certain = clock.over(), clock.certain()
            back = _candles_back(source, key, piece, known)
            first = piece.start if piece.start is None or not back else piece.start - back * length_s(key.interval)
            answered = await source.candles(key, first, piece.end, piece.limit + back)
            after, certain = clock.now(), min(certain, clock.certain())
            answered_at = self._clock.monotonic()
        candles, all_times = self._clean(answered, first or 0, piece.end)
        if candles:
            clock.see(candles[-1].time)
        # An answer is as old as its question, and a clock that was ahead until this answer set it must close nothing.
        now = min(clock.at(asked_at) if clock.is_wall_behind else before, clock.over())
        times = [time for time in all_times if time >= (piece.start or 0)]
        if self._on_answer is not None and piece.start is not None and candles:
            await self._on_answer(source, key, candles[0])
        newest = times[-1] if times else None
        is_full = max(len(times), len(all_times) - back) >= piece.limit and not piece.is_bounded
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
        final = Span(start, min(end, known_until, known_until_at(certain), int(certain) + 1))
        is_valid = age == self._store.age(source.name, key.symbol)
        if final.end > final.start and is_valid:
            await self._settle(source, key, final, known, candles, times, min(now, certain), asked_at)

        reaches_present = piece.reaches_present and end == piece.end
        is_clock_late = piece.reaches_present and after >= piece.end
        if is_clock_late or (is_full and piece.start is not None and not is_final):
            # The newest candles, or the final values of the last one, are still to be asked for.
            end = max(start, min(end, known_until))
            reaches_present = False
        is_open = newest is not None and piece.followed_at is None and next_open(key.interval, newest) > now
        open_time = newest if newest is not None and is_open and start <= newest < end else None
        unsettled = max(start, min(end, known_until))
        if reaches_present:
            end = FOREVER
        # What is open can be left out: it is not the last word anyway.
        by_time = {one.time: one for one in candles if one.time != open_time or not is_widened(one)}
        said = [
            by_time.get(time) or unreadable(time)
            for time in dict.fromkeys(times)
            if time in by_time or time != open_time
        ]
        if unsettled < end and is_valid:
            newer = tuple(candle for candle in said if unsettled <= candle.time < end)
            rest = ProviderAnswer(Span(unsettled, end), newer, open_time, asked_at, answered_at)
            self._remember((source.name, key), age, rest)
        kept = tuple(candle for candle in said if start <= candle.time < end)
        return ProviderAnswer(Span(start, end), kept, open_time, asked_at, answered_at)

    async def _known(self, source: CandleSource, key: StreamKey, piece: PageRequest) -> "_Known":
        """Return what the store knows of what an answer may speak of, some candles before it too."""
        if piece.start is None:
            return _Known([], {})
        start = max(0, piece.start - source.info.candles_back * length_s(key.interval))
        spans = await self._store.spans(source.name, key, start, piece.end)
        rows = await self._store.read(source.name, key, start, piece.end) if spans else []
        return _Known(spans, {row.time: row for row in rows if span_at(spans, row.time) is not None})

    async def _settle(
        self,
        source: CandleSource,
        key: StreamKey,
        final: Span,
        known: "_Known",
        candles: Sequence[Candle],
        times: Sequence[int],
        now: float,
        asked_at: float,
    ) -> None:
        """Take what an answer shows of what is over, which is the span `final` and what is known of before it.

        What was not known is stored, or in doubt. What was known before the question is put right, unless the stream
        told something newer meanwhile, and so is what was learnt of it while the answer was under way. What had to be
        widened puts nothing right, also not what somebody was given, and is looked at again.
        """
        name, stream = source.name, (source.name, key)
        grace_s = source.info.close_grace_s
        wide = [one.time for one in candles if is_widened(one) and next_open(key.interval, one.time) + grace_s <= now]
        if wide:
            self.doubts.look_again(stream, Span(wide[0], wide[-1] + 1), asked_at)
        again = [
            candle
            for candle in candles
            if span_at(known.spans, candle.time) is not None and next_open(key.interval, candle.time) + grace_s <= now
        ]
        changed, found = self._judge(stream, known, again)
        if changed or found:
            rows = await self._store.read(name, key, again[0].time, again[-1].time + 1)
            stored = {row.time: row for row in rows}
            changed = [one for one in changed if stored.get(one.time) == known.rows.get(one.time)]
            found = [one for one in found if one.time not in stored]
        given = self._given.get(stream, {})
        if given:
            candles = [given.get(one.time, one) if is_widened(one) else one for one in candles]
        # What the live stream put there while the answer was under way is newer.
        spans = await self._store.spans(name, key, *final)
        news = [*changed, *found]
        writes: list[Span] = []
        good = [candle.time for candle in candles]
        for part in gaps_between(spans, *final):
            inside = [time for time in times if part.start <= time < part.end]
            if self.doubts.of(stream):
                found += [
                    one for one in _part(candles, good, part) if self.doubts.touch(stream, one.time, one.time + 1)
                ]
            writes += self.doubts.weigh(stream, part, inside, {*inside}.difference(good), asked_at)
        if given:
            settled = [candle for span in writes for candle in _part(candles, good, span)]
            changed += [one for one in settled if given.pop(one.time, one) != one]
        for candle in news:
            self._store.put_closed(name, key, candle, None)
        adding = [self._store.add(name, key, _part(candles, good, span), span) for span in writes]
        # When the disk fails the store keeps them in memory and says so itself.
        for result in await asyncio.gather(*adding, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, StoreError):
                raise result
        if changed or found:
            self.on_news(News(name, key, changed, found, now))

    def _judge(
        self, stream: tuple[str, StreamKey], known: "_Known", again: Sequence[Candle]
    ) -> tuple[list[Candle], list[Candle]]:
        """Count what was compared; return what is to be put right: values that changed, and candles that are new."""
        name, key = stream
        result = compare(known.rows, again)
        differing = len(result.changed)
        self.compared[name] += result.compared
        self.differed[name] += differing
        if result.is_other:
            if self._is_first(stream, "far"):
                log.warning(
                    "%s of %s: %d of %d candles are far from those stored: it may be another instrument now",
                    key,
                    name,
                    differing,
                    result.compared,
                    extra=event("past_disagrees", provider=name, stream=str(key)),
                )
            self.on_disagreement(name, key, result.compared, differing)
            return [], []
        if differing and self._is_first(stream, "changed"):
            log.warning(
                "%s of %s: the provider changed candles after their close, as at %d",
                key,
                name,
                result.changed[0].time,
                extra=event("past_changed", provider=name, stream=str(key)),
            )
        return [*result.changed], [*result.found]

    def _is_first(self, stream: tuple[str, StreamKey], what: str) -> bool:
        """Say whether something is to be logged of a stream: it is once."""
        name, key = stream
        if (name, key, what) in self._logged:
            return False
        self._logged[name, key, what] = None
        if len(self._logged) > _MOST_RECENT:
            del self._logged[next(iter(self._logged))]
        return True

    def _remember(self, stream: tuple[str, StreamKey], age: int, answer: ProviderAnswer) -> None:
        self._recent.pop(stream, None)
        self._recent[stream] = age, answer
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


class _Known(NamedTuple):
    # What the store knew before a call.
    spans: list[Span]
    rows: dict[int, Candle]


def _ignore(*_: object) -> None:
    pass


def _part(candles: Sequence[Candle], times: Sequence[int], span: Span) -> Sequence[Candle]:
    """Return the candles of a span; `times` are the open times of all, ascending."""
    return candles[bisect_left(times, span.start) : bisect_left(times, span.end)]


def _candles_back(source: CandleSource, key: StreamKey, piece: PageRequest, known: _Known) -> int:
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


def _is_faulty(candle: Candle) -> bool:
    try:
        return candle.fault() is not None
    except (TypeError, OverflowError):
        return True


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end
