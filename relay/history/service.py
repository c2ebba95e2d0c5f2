"""The past of a stream: candles from the store, else from the provider; equal requests share one call.

What is known is never asked again, and what is not known is never passed off as empty. What a provider did not give
although it may be there is left out, and asked for again when it is time to. How an answer is made of what is known
stands in `known_answers`, what a live stream knows in `live_edge`, and how intervals that a provider lacks are built in
`derived_history`.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

from relay.core.clock import Clock
from relay.core.derived_intervals import Derivation
from relay.core.errors import ProviderUnavailable, RateLimited
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey, is_bare, is_widened, parted
from relay.core.past_change import PastChange
from relay.core.spans import FOREVER, Span, within
from relay.history.bare_candles import BareCandles
from relay.history.derived_history import DerivedHistory
from relay.history.identity_checks import IdentityChecks
from relay.history.known_answers import EncodedCandles, encoded_past, known_answer, known_spans, past_of
from relay.history.provider_calls import ProviderCall, ProviderCalls
from relay.history.range_walk import RangeWalk
from relay.history.requests import CallAllowance, CandleSource, HistoryRequest, PastCandles
from relay.history.row_turns import RowTurns
from relay.storage.chunks import WINDOW, decode, joined, window_s
from relay.storage.past_seen import PastSeen
from relay.storage.revisions import Revisions
from relay.storage.set_aside import is_aside
from relay.storage.store import Store

T = TypeVar("T")

PATIENCE_S = 5.0
"""So long after a start requests wait for what a provider says to have changed meanwhile."""

FROM_CHUNKS = 2 * WINDOW
"""So many candles are taken from the chunks in memory; to read the rows of more costs the event loop less."""

MAX_CALLS = 50
"""Provider calls that one request may cause; what it has then is not complete."""

KNOWN_WAIT_S = 1.0
"""So long what is known is waited for: it may have to be compared with what a silent provider says."""

MOST_TRIES = 5
"""So often a request begins again because what it found was changed meanwhile."""

_NEAR = 8
"""Candles no further apart than so many are read at once."""

SOURCES = ("cache", "store", "provider")
"""Where an answer comes from: the memory of this process, its database, or a provider that was asked for a part."""


class HistoryService:
    """Answers for any range of any stream; owns the `calls` of providers. `served` counts answers by their source.

    `derivation_of` says how the candles of a stream are built, None if the provider has them.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        identity_checks: IdentityChecks | None = None,
        derivation_of: Callable[[CandleSource, StreamKey], Derivation | None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._identity_checks = identity_checks
        self.calls = ProviderCalls(store, clock, None if identity_checks is None else identity_checks.note_answer)
        self.served: Counter[str] = Counter()
        self._turns = RowTurns()
        self._awaited: dict[str, tuple[asyncio.Event, float]] = {}
        self._bare = BareCandles(self.calls, store, clock)
        self.derivation_of = derivation_of or _has_all
        self.derived = DerivedHistory(self, store.version, clock.monotonic)

    async def text(self, asked: HistoryRequest) -> EncodedCandles:
        """Return what `candles` does, encoded. Nothing is awaited when all of it is in memory."""
        return await self._of_one_past(asked, self._text)

    async def _text(self, asked: HistoryRequest) -> EncodedCandles:
        if (derivation := self.derivation_of(asked.source, asked.key)) is not None:
            return await self.derived.text(asked, derivation)
        await self._settled(asked)
        found = await self._known_text(self._begin(asked))
        if found is None:
            return encoded_past(asked, await self.candles(asked))
        bare = self._bare_in(asked, found)
        if not bare:
            return found
        async with self._turns.turn((asked.source.name, asked.client or ""), asked.limit):
            is_filled = await self._bare.fill(asked, bare)
        if is_filled:
            found = await self._known_text(self._begin(asked)) or found
        # Another request asks for what it still lacks.
        return found._replace(is_current=lambda: False) if self._bare_in(asked, found) else found

    def _bare_in(self, asked: HistoryRequest, text: EncodedCandles) -> list[int]:
        """Return the open times of candles in an answer whose extras are to be asked for."""
        if not asked.needs_extras:
            return []
        times = [time for chunk in text.chunks for time in chunk.bare_times()]
        if times and not text.last_is_closed and times[-1] == text.chunks[-1].times[-1]:
            times.pop()
        return self._bare.wanted(asked, times)

    async def candles(self, asked: HistoryRequest) -> PastCandles:
        """Return what is asked for.

        Raises `ProviderError` when the provider has to be asked and fails (what it gave before that is kept) and
        `StoreError` when the store cannot be read. Cancelling ends the request, not the provider calls: others may wait
        for the same.
        """
        if (derivation := self.derivation_of(asked.source, asked.key)) is not None:
            return await self._of_one_past(asked, lambda seeing: self.derived.candles(seeing, derivation))
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

        async def found(seeing: HistoryRequest) -> PastCandles:
            past = await find(seeing)
            if asked.is_spliced:
                await self._settled(asked, is_spliced=True)
            return past

        return await self._of_one_past(asked, found)

    async def _of_one_past(self, asked: HistoryRequest, find: Callable[[HistoryRequest], Awaitable[T]]) -> T:
        """Return what is found once nothing of it is from before the past became another one.

        Whoever has `seen` the past before finds that out for all its requests at once.
        """
        if asked.seen is not None:
            return await find(asked)
        for _ in range(MOST_TRIES):
            seen = self._store.look()
            found = await find(dataclasses.replace(asked, seen=seen))
            if seen.is_same(asked.source.name, asked.key.symbol):
                return found
        raise ProviderUnavailable(
            f"{asked.source.info.title} changes the history of {asked.key.symbol} again and again"
        )

    def await_past(self, provider: str) -> asyncio.Event:
        """Have requests wait for a moment until it is known what a provider changed since the last run.

        It is once the event that this returns is set.
        """
        known = asyncio.Event()
        self._awaited[provider] = known, self._clock.monotonic() + PATIENCE_S
        return known

    async def _settled(self, asked: HistoryRequest, *, is_spliced: bool = False) -> None:
        """Return when what is stored of a symbol may be used; `is_spliced`: and what a stream of it remembers."""
        if self._awaited and (awaited := self._awaited.get(asked.source.name)) is not None:
            known, until = awaited
            with suppress(TimeoutError):
                await asyncio.wait_for(known.wait(), max(0.0, until - self._clock.monotonic()))
            self._awaited.pop(asked.source.name, None)
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
        if asked.allowance is not None and asked.allowance.is_none:
            return past
        low, high = request.reached()
        is_due = asked.source.has_history and self.calls.must_ask_again(asked.source, asked.key, low, high)
        if is_due and await self.ask_again(asked.source, asked.key, low, asked.client, end=high):
            again = RangeWalk(asked, request.began_at)
            again.answers, again.live = request.answers, request.live
            again.is_strict = asked.must_be_new
            past, _ = await self._walk(again, asked.client)
            origin = "provider"
        if asked.needs_extras:
            closed, _ = parted(past.candles, past.last_is_closed)
            if await self._bare.fill(asked, [candle.time for candle in closed if is_bare(candle)]):
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
        allowance = request.asked.allowance or CallAllowance()
        origin = ""
        while True:
            high = request.high()
            if request.low >= high:
                return PastCandles((), True, True), ""
            ended = self.calls.ended
            if await self._advance(request, high):
                if not request.is_outdated():
                    return past_of(request, is_complete=True), origin or _found_in(request)
                request.begin_anew()
                continue
            if not source.has_history:
                return await self._all_stored(request, high), _found_in(request)
            if ended != self.calls.ended:
                continue  # a call that ended while the store was read may have been for the same
            origin = "provider"
            awaited: dict[ProviderCall, None] = {}
            for piece in request.pieces(high):
                if allowance.is_none:
                    break
                busy = self.calls.under_way(source, key, piece.span)
                if not busy:
                    if allowance.left <= 0:
                        break
                    allowance.left -= 1
                    if request.asked.on_call is not None:
                        request.asked.on_call()
                    busy = [self.calls.start(source, key, piece, client)]
                for call in busy:
                    call.turn.hasten(client)
                    awaited[call] = None
            if not awaited:
                return past_of(request, is_complete=False), origin
            try:
                answers = await self.calls.wait(awaited)
            except RateLimited:
                if any(call.turn.client == client or client in call.turn.clients for call in awaited):
                    raise
                # Whoever began the call had its share of the budget; this client has a share of its own.
                continue
            if request.asked.on_answer is not None:
                request.asked.on_answer()
            for answer in answers:
                request.adopt(answer)

    async def stored(self, asked: HistoryRequest) -> PastCandles:
        """Return of the last candles those that are known without asking the provider, and what is `known` of them.

        There may be more, so it is never complete. Raises `StoreError` when the store cannot be read.
        """
        if (derivation := self.derivation_of(asked.source, asked.key)) is not None:
            return await self._of_one_past(asked, lambda seeing: self.derived.stored(seeing, derivation))
        self.served["store"] += 1
        return await self._of_one_instrument(asked, self._stored)

    async def known(self, asked: HistoryRequest) -> PastCandles:
        """Return what `stored` does, as far as it can be read soon.

        Nothing is known of a symbol while what is stored of it may be from before a change, or of another instrument.
        Raises as `stored` does.
        """
        if self._may_be_used(asked):
            with suppress(TimeoutError):
                async with asyncio.timeout(KNOWN_WAIT_S):
                    past = await self.stored(asked)
                if self._may_be_used(asked):
                    return past
        return PastCandles((), True, False)

    async def known_text(self, asked: HistoryRequest) -> EncodedCandles:
        """Return what `known` does, encoded; it holds for no other request."""
        return encoded_past(asked, await self.known(asked))

    def _may_be_used(self, asked: HistoryRequest) -> bool:
        """Say whether `_settled` has nothing to wait for."""
        name = asked.source.name
        if name in self._awaited:
            known, until = self._awaited[name]
            if not known.is_set() and self._clock.monotonic() < until:
                return False
        return self._identity_checks is None or self._identity_checks.may_be_used(asked.source, asked.key)

    async def _stored(self, asked: HistoryRequest) -> PastCandles:
        source, key = asked.source, asked.key
        request = self._begin(asked)
        seen = asked.seen or self._store.look()
        while True:
            request.stored = await self._store.spans(source.name, key, 0, FOREVER)
            request.doubts = self.calls.doubts.of((source.name, key))
            self.calls.recent.adopt(request)
            past = await self._all_stored(request, request.high())
            if seen.has_all(source.name, key):
                break  # else old candles were deleted meanwhile
            seen = self._store.look()
        return past._replace(known=known_spans(request, past))

    def keep(
        self,
        provider: str,
        key: StreamKey,
        candle: Candle,
        after: int | None,
        *,
        is_revised: bool = False,
        is_of_extras: bool = False,
    ) -> int | None:
        """Queue a closed candle of the live stream for the store, as `Store.put_closed` does; return what that does.

        That nothing is known to be missing since `after` does not end a doubt about a candle between.
        """
        if after is not None and self.calls.doubts.touch((provider, key), next_open(key.interval, after), candle.time):
            after = None
        if is_widened(candle):
            self.calls.doubts.look_again((provider, key), Span(candle.time, candle.time + 1), self._clock.monotonic())
        return self._store.put_closed(provider, key, candle, after, is_revised=is_revised, is_of_extras=is_of_extras)

    async def known_at(
        self, source: CandleSource, key: StreamKey, times: Collection[int]
    ) -> dict[int, tuple[Candle, float]]:
        """Return the closed candles of some open times that somebody may have been given, as they are known.

        Each has the provider's time at which it was so, or was final. What is being asked for is waited for. Raises
        `StoreError` when the store cannot be read.
        """
        grace_s = source.info.close_grace_s
        found: dict[int, tuple[Candle, float]] = {}
        for span in _near_one_another(sorted(times), length_s(key.interval)):
            while calls := self.calls.under_way(source, key, span):
                await asyncio.wait([call.task for call in calls])
            given = self.calls.finals.given(source.name, key)
            rows = await self._store.read(source.name, key, *span, extended=True)
            found |= {time: (given[time], 0.0) for time in times if time in given}
            found |= {row.time: (row, next_open(key.interval, row.time) + grace_s) for row in rows}
        return found

    @property
    def revision(self) -> int:
        """The number of the newest revision of any candle."""
        return self._store.numbers.newest

    @property
    def store_id(self) -> str:
        """What names the store that numbers revisions."""
        return self._store.id

    async def revisions(self, source: CandleSource, key: StreamKey, after: int, *, extended: bool = False) -> Revisions:
        """Return what of a stream was revised since the revision `after`, as `Store.revisions` does."""
        if (derivation := self.derivation_of(source, key)) is None:
            return await self._store.revisions(source.name, key, after, extended=extended)
        of_parts = await self._store.revisions(
            source.name, key._replace(interval=derivation.base), after, extended=extended
        )
        return await self.derived.revisions(source, key, derivation, of_parts, extended=extended)

    def look(self) -> PastSeen:
        """Return the past as it is now, as `Store.look` does."""
        return self._store.look()

    def change_past(self, source: CandleSource, change: PastChange) -> None:
        """Forget all that is known of what a provider changed, at once; whoever wants it has it asked for anew.

        Calls under way bring nothing of it any more. `written` says when the next run knows it as well. Raises
        `StoreError` once the store is closed.
        """
        name, symbol = source.name, change.symbol
        self._store.removals.void(name, change)
        self.calls.settling.begin(name, change)
        self.calls.doubts.drop(name, symbol)
        self.calls.finals.forget(name, symbol)
        if self._identity_checks is not None:
            self._identity_checks.note_past_change(name, change)

    async def written(self) -> None:
        """Return when all that was kept or forgotten by now is in the database. Raises `StoreError` if it cannot be."""
        await self._store.flush()

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
        seen = request.asked.seen or store.look()
        # Before anything else is awaited: what is written from here on makes this answer an old one.
        request.stored, version, is_remembered = await store.known(name, key, near=_near(request, end))
        request.doubts = self.calls.doubts.of((name, key))
        self.calls.recent.adopt(request)
        at, to = request.next_known(end)
        if at == to:
            return None
        known = Span(min(at, to), max(at, to))
        stored = await store.chunks(name, key, *known, request.limit, is_newest, request.asked.encoding)
        if not seen.has_all(name, key):
            return None
        clock = self._clock
        answer = known_answer(request, stored.chunks, known, end, clock.monotonic())
        if answer is None:
            return None
        self.served["cache" if is_remembered and stored.is_remembered else "store"] += 1
        text, edge, until = answer

        def is_current() -> bool:
            return (
                version == store.version(name, key)
                and clock.monotonic() < until
                and (edge is None or edge.is_current())
            )

        return text._replace(is_current=is_current)

    async def _advance(self, request: RangeWalk, high: int) -> bool:
        """Take what is known next to where the request stands; True when it has all it wants."""
        source, key, open_row, lost = request.source, request.key, request.open_row, request.lost
        seen = request.asked.seen or self._store.look()
        while True:
            request.open_row, request.lost = open_row, [*lost]
            near = _near(request, high) if self._reads_chunks(request) else None
            spans, _, is_remembered = await self._store.known(source.name, key, near=near)
            request.is_remembered = request.is_remembered and is_remembered
            request.stored = within(spans, request.low, FOREVER)
            request.doubts = self.calls.doubts.of((source.name, key))
            self.calls.recent.adopt(request)
            at, to = request.next_known(high)
            rows = await self._rows(request, min(at, to), max(at, to)) if at != to else []
            if seen.has_all(source.name, key):
                break  # else old candles were deleted in between: what was known then is not known now
            seen = self._store.look()
        if request.is_forward:
            request.rows += rows
        else:
            request.rows[:0] = rows
        # Without anything known it stands at the present still, which moves on.
        if request.is_forward or at != to:
            request.pass_to(at, to)
        return request.missing <= 0 or (to >= high if request.is_forward else to <= 0)

    async def _rows(self, request: RangeWalk, start: int, end: int) -> list[Candle]:
        newest = not request.is_forward
        name, key, most = request.source.name, request.key, request.missing
        if self._reads_chunks(request):
            stored = await self._store.chunks(name, key, start, end, most, newest)
            request.is_remembered = request.is_remembered and stored.is_remembered
            rows = decode(joined(stored.chunks))
        else:
            request.is_remembered = False
            rows = await self._store.read(name, key, start, end, most, newest, extended=request.asked.extended)
        return request.with_unstored(rows, start, end)

    def _reads_chunks(self, request: RangeWalk) -> bool:
        """Say whether what is stored is taken from chunks, which memory keeps; not what is beside prices and volume."""
        return self._store.keeps_chunks and request.missing <= FROM_CHUNKS and not request.asked.extended

    async def _all_stored(self, request: RangeWalk, high: int) -> PastCandles:
        request.open_row = None
        request.rows, request.lost = [], []
        request.rows = await self._rows(request, request.low, high)
        return past_of(request, is_complete=False)


def _near_one_another(times: Sequence[int], length: int) -> list[Span]:
    """Return spans that have these open times, which are ascending, and few others."""
    spans: list[Span] = []
    for time in times:
        if spans and time - spans[-1].end <= _NEAR * length:
            spans[-1] = Span(spans[-1].start, time + 1)
        else:
            spans.append(Span(time, time + 1))
    return spans


def _near(request: RangeWalk, end: int) -> int:
    """Return an open time next to which a request for what opened before `end` will read candles."""
    if request.is_forward:
        return request.low + window_s(request.key.interval)
    return min(end - 1, int(request.source.clock.now()))


def _found_in(request: RangeWalk) -> str:
    return "cache" if request.is_remembered else "store"


def _has_all(source: CandleSource, key: StreamKey) -> None:
    """Take it that a provider has each interval that is asked for."""
