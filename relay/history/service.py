"""The past of a stream: candles from the store, else from the provider; equal requests share one call.

What is known is never asked again, and what is not known is never passed off as empty. What a provider did not give
although it may be there is left out, and asked for again when it is time to.
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.intervals import next_open
from relay.core.model import Candle, StreamKey, is_unreadable, is_widened
from relay.core.spans import FOREVER, Span, clip_spans, span_at
from relay.history.doubts import Doubt, is_long
from relay.history.identity_checks import IdentityChecks
from relay.history.provider_calls import ProviderCall, ProviderCalls
from relay.history.range_walk import RangeWalk, doubted_of, past_of
from relay.history.requests import CandleSource, HistoryRequest, LiveEdge, PastCandles, ProviderAnswer
from relay.history.row_turns import RowTurns
from relay.storage.chunks import Chunk, encode, joined, window_s
from relay.storage.revisions import Revisions
from relay.storage.set_aside import is_aside
from relay.storage.store import Store
from relay.streams.subscriptions import CONNECTED, Stream

MAX_CALLS = 50
"""Provider calls that one request may cause; what it has then is not complete."""

SOURCES = ("cache", "store", "provider")
"""Where an answer comes from: the memory of this process, its database, or a provider that was asked for a part."""


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


def live_of(stream: Stream | None) -> LiveEdge | None:
    """Return what a stream knows of the present, if it is live, or its market closed, and nothing is missing."""
    if stream is None or not (stream.status == CONNECTED or _is_resting(stream)):
        return None
    series, last = stream.series, stream.series.last
    if series.is_catching_up or last is None:
        return None
    due_at = series.due_at()
    if due_at is not None and stream.feeder.clock.now() > due_at + stream.feeder.close_grace_s:
        # It has been silent for so long that candles may have closed unseen.
        return None
    # From right behind the candle before, if that is known: then nothing is left to ask the provider for.
    before = None if series.last_is_closed else series.closed_before(last.time)
    seq, since = stream.seq, last.time if before is None else before + 1
    return LiveEdge(since, last, series.last_is_closed, lambda: stream.seq == seq and live_of(stream) is not None)


def _is_resting(stream: Stream) -> bool:
    """Say whether a stream is silent because its market is closed by its hours: there is nothing to be missed."""
    now = int(stream.feeder.clock.now())
    return stream.status == "market_closed" and stream.series.market.is_closed(now, now + 1)


class HistoryService:
    """Answers for any range of any stream; owns the `calls` of providers. `served` counts answers by their source."""

    def __init__(self, store: Store, clock: Clock, identity_checks: IdentityChecks | None = None) -> None:
        self._store = store
        self._clock = clock
        self._identity_checks = identity_checks
        self.calls = ProviderCalls(store, clock, None if identity_checks is None else identity_checks.note_answer)
        self.served: Counter[str] = Counter()
        self._turns = RowTurns()

    async def text(self, asked: HistoryRequest) -> EncodedCandles:
        """Return what `candles` does, encoded. Nothing is awaited when all of it is in memory."""
        await self._settled(asked)
        request = self._begin(asked)
        found = await self._known_text(request)
        if found is not None:
            return found
        past = await self.candles(asked)
        doubted = _doubts_told(asked, [candle.time for candle in past.candles], past.doubted)
        return EncodedCandles(
            (encode(past.candles),),
            past.last_is_closed,
            (*doubted, *past.unreadable),
            is_whole=past.is_whole or not asked.source.has_history,
        )

    async def candles(self, asked: HistoryRequest) -> PastCandles:
        """Return what is asked for.

        Raises `ProviderError` when the provider has to be asked and fails (what it gave before that is kept) and
        `StoreError` when the store cannot be read. Cancelling ends the request, not the provider calls: others may wait
        for the same.
        """
        if asked.limit <= 0:
            return PastCandles((), True, True)
        await self._settled(asked)
        if asked.client is None:
            return await self._of_one_instrument(asked, self._past)
        # Of each provider for itself: one that hangs holds up no other.
        async with self._turns.turn((asked.source.name, asked.client), asked.limit):
            return await self._of_one_instrument(asked, self._past)

    async def _of_one_instrument(
        self, asked: HistoryRequest, find: Callable[[HistoryRequest], Awaitable[PastCandles]]
    ) -> PastCandles:
        """Return what is found, all of it of the instrument that the symbol names by then."""
        name, symbol = asked.source.name, asked.key.symbol
        while True:
            age = self._store.age(name, symbol)
            past = await find(asked)
            if asked.is_spliced:
                await self._settled(asked, is_spliced=True)
            if age == self._store.age(name, symbol):
                return past

    async def _settled(self, asked: HistoryRequest, *, is_spliced: bool = False) -> None:
        """Return when what is stored of a symbol may be used; `is_spliced`: and what a stream of it remembers."""
        if self._identity_checks is not None and not self._identity_checks.is_settled(asked.source, asked.key):
            await self._identity_checks.settle(asked.source, asked.key, is_spliced=is_spliced)

    def _begin(self, asked: HistoryRequest) -> RangeWalk:
        request = RangeWalk(asked, self._clock.monotonic())
        if (edge := asked.live()) is not None:
            request.adopt_live(edge)
        return request

    async def _past(self, asked: HistoryRequest) -> PastCandles:
        request = self._begin(asked)
        request.is_strict = asked.must_be_new
        past, origin = await self._walk(request, asked.client)
        low, high = request.reached()
        is_due = asked.source.has_history and self.calls.must_ask_again(asked.source, asked.key, low, high)
        if is_due and await self.ask_again(asked.source, asked.key, low, asked.client, end=high):
            again = RangeWalk(asked, request.began_at)
            again.answers, again.live = request.answers, request.live
            again.is_strict = asked.must_be_new
            past, _ = await self._walk(again, asked.client)
            origin = "provider"
        if origin:
            self.served[origin] += 1
        return past

    async def ask_again(
        self, source: CandleSource, key: StreamKey, start: int, client: str | None, *, end: int = FOREVER
    ) -> bool:
        """Ask for what is in doubt from `start` on where it is time to; return whether anything was asked.

        Raises `StoreError` when the store cannot be read.
        """
        stored = await self._store.spans(source.name, key, start, end)
        return await self.calls.ask_again(source, key, start, end, stored, client)

    async def _walk(self, request: RangeWalk, client: str | None) -> tuple[PastCandles, str]:
        """Return what a request asks for, and where it was had from; what is in doubt is not asked for."""
        source, key = request.source, request.key
        calls = 0
        origin = "store"
        while True:
            high = request.high()
            if request.low >= high:
                return PastCandles((), True, True), ""
            ended = self.calls.ended
            if await self._advance(request, high):
                if not request.is_outdated():
                    return past_of(request, is_complete=True), origin
                request.begin_anew()
                continue
            if not source.has_history:
                return await self._all_stored(request, high), origin
            if ended != self.calls.ended:
                continue  # a call that ended while the store was read may have been for the same
            origin = "provider"
            awaited: dict[ProviderCall, None] = {}
            for piece in request.pieces(high):
                busy = self.calls.under_way(source, key, piece.span)
                if not busy:
                    if calls >= MAX_CALLS:
                        break
                    calls += 1
                    busy = [self.calls.start(source, key, piece, client)]
                for call in busy:
                    call.turn.hasten(client)
                    awaited[call] = None
            if not awaited:
                return past_of(request, is_complete=False), origin
            for answer in await self.calls.wait(awaited):
                request.adopt(answer)

    async def stored(self, asked: HistoryRequest) -> PastCandles:
        """Return of the last candles those that are known without asking the provider, and what is `known` of them.

        There may be more, so it is never complete. Raises `StoreError` when the store cannot be read.
        """
        self.served["store"] += 1
        return await self._of_one_instrument(asked, self._stored)

    async def _stored(self, asked: HistoryRequest) -> PastCandles:
        source, key = asked.source, asked.key
        request = self._begin(asked)
        while True:
            deletions = self._store.deletions(source.name, key)
            request.stored = await self._store.spans(source.name, key, 0, FOREVER)
            request.doubts = self.calls.doubts.of((source.name, key))
            self.calls.recent.adopt(request)
            past = await self._all_stored(request, request.high())
            if deletions == self._store.deletions(source.name, key):
                break  # else old candles were deleted meanwhile
        first = past.candles[0].time if len(past.candles) >= asked.limit else 0
        known = [*request.stored, *([] if request.live is None else [request.live])]
        if source.info.has_every_candle:
            # What nobody vouches for is a gap there.
            closed = past.candles if past.last_is_closed else past.candles[:-1]
            known += [Span(row.time, next_open(key.interval, row.time)) for row in closed]
        else:
            known += [doubt.span for doubt in request.doubts]
            known += map(_known_of, request.answers[request.live is not None :])
        known = clip_spans(known, first, FOREVER)
        for time in request.lost:
            known = [*clip_spans(known, 0, time), *clip_spans(known, time + 1, FOREVER)]
        return past._replace(known=tuple(known))

    def keep(
        self, provider: str, key: StreamKey, candle: Candle, after: int | None, *, is_revised: bool = False
    ) -> int | None:
        """Queue a closed candle of the live stream for the store, as `Store.put_closed` does; return what that does.

        That nothing is known to be missing since `after` does not end a doubt.
        """
        if after is not None and self.calls.doubts.touch((provider, key), after + 1, candle.time):
            after = None
        if is_widened(candle):
            self.calls.doubts.look_again((provider, key), Span(candle.time, candle.time + 1), self._clock.monotonic())
        return self._store.put_closed(provider, key, candle, after, is_revised=is_revised)

    @property
    def revision(self) -> int:
        """The number of the newest revision of any candle."""
        return self._store.revision

    async def revisions(self, source: CandleSource, key: StreamKey, after: int) -> Revisions:
        """Return what of a stream was revised since the revision `after`. Raises `StoreError`."""
        return await self._store.revisions(source.name, key, after)

    async def forget(self, source: CandleSource, symbol: str, before: int | None) -> None:
        """Forget what is stored of a symbol, all or what opened before; the next who wants it has it asked for anew.

        Raises `StoreError`, and then nothing is forgotten.
        """
        await self._store.forget(source.name, symbol, None, before)
        self.calls.doubts.drop(source.name, symbol)

    async def newest(self, source: CandleSource, most: int) -> list[tuple[StreamKey, Span]]:
        """Return from where to where something is stored of each stream of a provider, the newest first, `most`.

        Raises `StoreError`.
        """
        stored = await self._store.newest(source.name, most)
        return [(key, span) for key, span in stored if not is_aside(key.symbol)]

    async def cut_future(self, source: CandleSource) -> None:
        """Forget what is stored of a provider's future. Raises `StoreError`."""
        await self._store.cut_future(source.name)

    async def close(self) -> None:
        """Cancel the provider calls under way and wait for their end."""
        await self.calls.close()

    # -- what is known -----------------------------------------------------------------------------

    async def _known_text(self, request: RangeWalk) -> EncodedCandles | None:
        """Return the answer to a request if the provider need not be asked for it."""
        source, key, is_newest = request.source, request.key, not request.is_forward
        store, name = self._store, source.name
        end = request.high()
        if request.low >= end:
            return EncodedCandles((), True)
        deletions = store.deletions(name, key)
        near = min(end - 1, int(source.clock.now())) if is_newest else request.low + window_s(key.interval)
        # Before anything else is awaited: what is written from here on makes this answer an old one.
        request.stored, version, is_remembered = await store.known(name, key, near=near)
        request.doubts = self.calls.doubts.of((name, key))
        self.calls.recent.adopt(request)
        span = span_at(request.known(), end - 1 if is_newest else request.low)
        if span is None:
            return None
        low, high = max(span.start, request.low), min(span.end, end)
        stored = await store.chunks(name, key, low, high, request.limit, is_newest)
        if deletions != store.deletions(name, key):
            return None
        chunks, last_is_closed = stored.chunks, True
        newer = [candle for _, candle in sorted(request.answered(low, high).items())] if request.answers else None
        if newer:
            newer = [candle for candle in newer if not is_unreadable(candle)]
        if newer:
            if chunks and newer[0].time <= chunks[-1].times[-1]:
                return None
            is_open = [candle.time in request.open_times() for candle in newer]
            if any(is_open[:-1]):
                return None
            chunk = joined((*chunks, encode(newer))).within(0, FOREVER, request.limit, newest=is_newest)
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
            now = self._clock.monotonic()
            if any(doubt.again_at <= now for doubt in doubts):
                return None
        doubted: tuple[Span, ...] = ()
        if request.has_hearsay:
            times = [time for chunk in chunks for time in chunk.times]
            found = doubted_of(request, times, last_is_closed, is_full=count >= request.limit)
            doubted = _doubts_told(request.asked, times, found)
        self.served["cache" if is_remembered and stored.is_remembered else "store"] += 1
        used = [answer for answer in request.answers if answer.span.start < end]
        # What the live stream knows was adopted first.
        edge = request.edge if request.edge is not None and request.answers[0] in used else None
        until = [answer.answered_at + source.info.fresh_s for answer in used[edge is not None :]]
        until_at = min([*until, *(doubt.again_at for doubt in doubts)], default=math.inf)
        clock = self._clock

        def is_current() -> bool:
            return (
                version == store.version(name, key)
                and clock.monotonic() < until_at
                and (edge is None or edge.is_current())
            )

        return EncodedCandles(chunks, last_is_closed, doubted, is_current)

    async def _advance(self, request: RangeWalk, high: int) -> bool:
        """Take what is known next to where the request stands; True when it has all it wants."""
        source, key, open_row, lost = request.source, request.key, request.open_row, request.lost
        while True:
            request.open_row, request.lost = open_row, [*lost]
            deletions = self._store.deletions(source.name, key)
            request.stored = await self._store.spans(source.name, key, request.low, FOREVER)
            request.doubts = self.calls.doubts.of((source.name, key))
            self.calls.recent.adopt(request)
            at, to = request.next_known(high)
            rows = await self._rows(request, min(at, to), max(at, to)) if at != to else []
            if deletions == self._store.deletions(source.name, key):
                break  # else old candles were deleted in between: what was known then is not known now
        if request.is_forward:
            request.rows += rows
        else:
            request.rows[:0] = rows
        # Without anything known it stands at the present still, which moves on.
        if request.is_forward or at != to:
            request.pass_to(at, to)
        return request.missing <= 0 or (to >= high if request.is_forward else to <= 0)

    async def _rows(self, request: RangeWalk, start: int, end: int) -> list[Candle]:
        source, key, newest = request.source, request.key, not request.is_forward
        rows = await self._store.read(source.name, key, start, end, request.missing, newest)
        extra = request.unstored(start, end)
        if not extra:
            return rows
        lost = [time for time, candle in extra.items() if is_unreadable(candle)]
        merged = extra | {candle.time: candle for candle in rows}
        stored = {candle.time for candle in rows}
        rows = [merged[time] for time in sorted(merged) if time in stored or time not in lost]
        if len(rows) >= request.missing:
            rows = rows[len(rows) - request.missing :] if newest else rows[: request.missing]
            start, end = (rows[0].time, end) if newest else (start, rows[-1].time)
        request.lost += [time for time in lost if start <= time < end and time not in stored]
        request.note_open(rows, stored)
        return rows

    async def _all_stored(self, request: RangeWalk, high: int) -> PastCandles:
        request.open_row = None
        request.rows, request.lost = [], []
        request.rows = await self._rows(request, request.low, high)
        return past_of(request, is_complete=False)


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
