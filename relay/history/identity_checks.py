"""Symbols that may name another instrument than before: who is doubted, how that is found out, what follows.

A sign alone never takes candles away for good: a few stored candles are compared with the provider's, twice, some time
apart. `relay.identity` judges what a comparison shows.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from relay.core.clock import Clock
from relay.core.errors import ProviderError, StoreError
from relay.core.intervals import length_s
from relay.core.model import Candle, StreamKey
from relay.core.spans import FOREVER
from relay.history.absences import Absences
from relay.history.identity import SAMPLE, UNKNOWN, Verdict, follows, is_disagreement, longer_interval
from relay.history.range_walk import CandleSource
from relay.history.samples import compare
from relay.protocol import frames
from relay.storage.set_aside import CHECKING, aside_name, is_aside, mark_of, original
from relay.storage.store import Store
from relay.streams.hub import Hub
from relay.telemetry.events import event

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""Time between the two comparisons that have to show the same."""
PATIENCE_S = 5.0
"""So long requests wait for the comparison of what nobody watched before they are answered from what is stored."""
RETRY_S = (30.0, 1800.0)
"""Time until a comparison that showed nothing is made again: it doubles."""
_PLACES = 2
_MOST_SETTLED = 4096
_LONGEST_PAUSE_S = 3600.0

Identity = tuple[str, str]
"""The names of a provider and of one of its symbols."""


class _Check:
    # One symbol that is being checked: what opened earlier than `before`, of one interval or of all.
    __slots__ = (
        "absent_at",
        "before",
        "differs_at",
        "interval",
        "is_aside",
        "is_compared",
        "patience_ends",
        "retry_at",
        "source",
        "symbol",
        "task",
        "verdict",
    )

    def __init__(self, source: CandleSource, symbol: str) -> None:
        self.source = source
        self.symbol = symbol
        self.interval: str | None = None
        self.differs_at = ""
        self.before = FOREVER
        self.absent_at: int | None = None
        self.is_aside = False
        self.verdict: Verdict | None = None
        self.is_compared = asyncio.Event()
        self.patience_ends = self.retry_at = 0.0
        self.task: asyncio.Task[None] | None = None

    @property
    def identity(self) -> Identity:
        return self.source.name, self.symbol

    @property
    def changed_at(self) -> int | None:
        """The open time before which all is of the earlier instrument, by the sign that was given; None if unknown."""
        if self.absent_at is not None:
            return self.absent_at
        return self.before if self.interval is not None and self.before < FOREVER else None

    @property
    def is_faint(self) -> bool:
        """Say whether there is no sign but that nobody watched."""
        return self.interval is None and self.absent_at is None and not self.is_aside


class IdentityChecks:
    """Owns the checks under way; `start` says whose. `set_aside` are the names of what was set aside, by provider.

    A symbol that was away and is back has its candles set aside at once and gets them back when they prove to be its
    own. On other signs they are compared before they are used again, and set aside for as long as that shows nothing;
    where nobody watched for long, which is hardly a sign, they are used then. When a comparison showed another
    instrument, `on_changed` is called with the provider, the symbol, and the open time before which nothing is its own
    (None: nothing that closed).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        on_changed: Callable[[str, str, int | None], None] = lambda provider, symbol, before: None,
        again_s: float = AGAIN_S,
        retry_s: tuple[float, float] = RETRY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.again_s = again_s
        self._retry_s = retry_s
        self._patience_s = patience_s
        self.set_aside: dict[Identity, None] = {}
        self._store = store
        self._clock = clock
        self._on_changed = on_changed
        self._sources: dict[str, CandleSource] = {}
        self._doubts: dict[Identity, _Check] = {}
        # Up to which open time a symbol was found to be the same.
        self._settled: dict[Identity, int] = {}
        self._absences = Absences(store.documents, clock)
        # Symbols with stored candles of providers whose list this run has not seen yet; nearly always none.
        self._unseen: dict[Identity, asyncio.Event] = {}
        self._unseen_until = 0.0
        self._listing: tuple[str, ...] = ()
        self._places = asyncio.Semaphore(_PLACES)
        self._is_closing = False

    async def start(self, sources: Iterable[CandleSource], listing: Collection[str] = ()) -> None:
        """Go on with the checks that an earlier run began.

        `listing` are the providers whose list follows: it says who was away meanwhile, so for a moment nobody is
        answered from what is stored of them.
        """
        self._sources = {source.name: source for source in sources}
        self._listing = tuple(listing)
        await self._begin_checks()

    async def begin_again(self) -> None:
        """Go on as after a restart: the store has another file now, and nothing is known of what that holds."""
        await self._end_checks()
        for known in (self._doubts, self._settled, self.set_aside):
            known.clear()
        self._absences.forget()
        self._listing = ()
        await self._begin_checks()

    async def close(self) -> None:
        """End the checks under way; what waits for a comparison goes on waiting in the next run."""
        self._is_closing = True
        await self._end_checks()

    async def _begin_checks(self) -> None:
        self._unseen_until = self._clock.monotonic() + self._patience_s
        seen = {name: asyncio.Event() for name in self._listing}
        with suppress(StoreError):
            for name, key in await self._store.streams():
                if not is_aside(key.symbol):
                    if name in seen:
                        self._unseen[name, key.symbol] = seen[name]
                    continue
                symbol = original(key.symbol)
                if key.symbol != aside_name(symbol, CHECKING):
                    self.set_aside[name, key.symbol] = None
                elif name in self._sources and (name, symbol) not in self._doubts:
                    self._begin(self._sources[name], symbol).is_aside = True
        for doubt in self._doubts.values():
            self._check(doubt)

    async def _end_checks(self) -> None:
        tasks = [doubt.task for doubt in self._doubts.values() if doubt.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def told(self) -> list[dict[str, str]]:
        """Return what is set aside and what waits for a comparison, for the status."""
        rows = [(name, symbol, "set_aside") for name, symbol in self.set_aside]
        rows += [
            (name, aside_name(symbol, CHECKING), "checking")
            for (name, symbol), doubt in self._doubts.items()
            if doubt.is_aside
        ]
        return [
            {"provider": name, "symbol": original(symbol), "kept_as": symbol, "state": state}
            for name, symbol, state in rows
        ]

    # -- signs -------------------------------------------------------------------------------------

    async def note_list(self, source: CandleSource, symbols: Collection[str]) -> None:
        """Take a list of what the provider has now, before anybody can ask for what is new in it."""
        if symbols and source.has_history:
            await self._note_list(source, symbols)
        for identity in [identity for identity in self._unseen if identity[0] == source.name]:
            self._unseen.pop(identity).set()

    async def _note_list(self, source: CandleSource, symbols: Collection[str]) -> None:
        try:
            stored = {key.symbol for name, key in await self._store.streams() if name == source.name}
            seen = await self._absences.take(source.name, symbols, {one for one in stored if not is_aside(one)})
            for symbol in seen.unwatched:
                self._begin(source, symbol).before = int(source.clock.now())
            doubts = [self._begin(source, symbol) for symbol in seen.back]
            for doubt in doubts:
                # What opened in the second in which it was seen to be away is the old one's.
                doubt.absent_at = math.ceil(seen.back[doubt.symbol])
            for doubt in doubts if seen.is_believed else ():
                await self._take_away(doubt)
                self._check(doubt)
            await self._absences.keep(source.name)
        except StoreError as error:
            about = event("absence_not_noted", provider=source.name)
            log.debug("who is missing from the list of %s was not stored: %s", source.name, error, extra=about)

    async def note_answer(self, source: CandleSource, key: StreamKey, first: Candle) -> None:
        """Take the first candle of a provider's answer.

        Returns when what is stored before it was compared, if the two do not look like neighbours.
        """
        identity = (source.name, key.symbol)
        if first.time <= self._settled.get(identity, -1) or not source.has_history:
            return
        doubt = self._doubts.get(identity)
        if doubt is None or doubt.is_faint:
            try:
                last = await self._store.read(source.name, key, 0, first.time, 1, newest=True)
            except StoreError:
                return
            if last and not follows(key.interval, last[0], first):
                self._sign(source, key, first.time)
        await self.settle(source, key)

    def note_differences(self, provider: str, key: StreamKey, compared: int, differing: int) -> None:
        """Take it that of so many stored candles that were compared with the provider's so many differ."""
        source = self._sources.get(provider)
        if source is not None and is_disagreement(compared, differing):
            self._sign(source, key, FOREVER)

    def _sign(self, source: CandleSource, key: StreamKey, before: int) -> None:
        if source.has_history:
            doubt = self._begin(source, key.symbol)
            if doubt.is_faint:
                doubt.interval, doubt.before, doubt.retry_at = key.interval, before, 0.0
            self._check(doubt)

    # -- what follows ------------------------------------------------------------------------------

    def is_settled(self, source: CandleSource, key: StreamKey) -> bool:
        """Say whether there is nothing to wait for, which is nearly always so."""
        identity = (source.name, key.symbol)
        return not (self._doubts or self._unseen) or not (identity in self._doubts or identity in self._unseen)

    async def settle(self, source: CandleSource, key: StreamKey, *, is_spliced: bool = False) -> None:
        """Return when what is stored of a symbol may be used; soon, if nothing but time speaks for a doubt.

        What is `is_spliced` with what a stream remembers waits for the first comparison also where nothing is stored
        under the symbol meanwhile: the stream may remember another instrument until then.
        """
        identity = (source.name, key.symbol)
        if (seen := self._unseen.get(identity)) is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(seen.wait(), max(0.0, self._unseen_until - self._clock.monotonic()))
        doubt = self._doubts.get(identity)
        if doubt is None:
            return
        if doubt.is_aside:
            if is_spliced:
                with suppress(TimeoutError):
                    await asyncio.wait_for(doubt.is_compared.wait(), self._patience_s)
            return
        self._check(doubt)
        if doubt.task is None or doubt.task.done():
            return
        left_s = doubt.patience_ends - self._clock.monotonic() if doubt.is_faint else None
        with suppress(TimeoutError):
            await asyncio.wait_for(doubt.is_compared.wait(), left_s)

    def _begin(self, source: CandleSource, symbol: str) -> _Check:
        identity = (source.name, symbol)
        doubt = self._doubts.get(identity)
        if doubt is None:
            doubt = self._doubts[identity] = _Check(source, symbol)
        return doubt

    def _check(self, doubt: _Check) -> None:
        is_under_way = doubt.task is not None and not doubt.task.done()
        if not is_under_way and not self._is_closing and self._clock.monotonic() >= doubt.retry_at:
            doubt.is_compared.clear()
            doubt.patience_ends = self._clock.monotonic() + self._patience_s
            name = f"identity of {doubt.source.name} {doubt.symbol}"
            doubt.task = asyncio.create_task(self._run(doubt), name=name)

    async def _run(self, doubt: _Check) -> None:
        least_s, most_s = self._retry_s
        wait_s = least_s
        try:
            while True:
                verdict = await self._compare(doubt)
                try:
                    if verdict.is_same is not None:
                        if await self._follow(doubt, verdict):
                            self._doubts.pop(doubt.identity, None)
                            return
                    elif not doubt.is_faint:
                        await self._take_away(doubt)
                except StoreError:
                    verdict = UNKNOWN
                if verdict.is_same is not None:
                    wait_s = least_s
                    pause_s = self._pause_s(doubt)
                else:
                    pause_s = wait_s
                    wait_s = min(2 * wait_s, most_s)
                    if not doubt.is_aside:
                        doubt.retry_at = self._clock.monotonic() + pause_s
                        return
                doubt.is_compared.set()
                await asyncio.sleep(pause_s)
        finally:
            doubt.is_compared.set()

    def _pause_s(self, doubt: _Check) -> float:
        """Return how long to wait before the second comparison: so long that a sliding history has moved on."""
        verdict, interval = doubt.verdict, doubt.differs_at
        if verdict is None or verdict.begins is None:
            return self.again_s
        is_confirmed = longer_interval(interval, doubt.source.info.intervals) is not None
        if is_confirmed or length_s(interval) > _LONGEST_PAUSE_S:
            return self.again_s
        return max(self.again_s, length_s(interval) + 1.0)

    async def _compare(self, doubt: _Check) -> Verdict:
        """Ask the provider for a few stored candles, with one call a sample, two where they are gone."""
        found = Verdict(True)
        if doubt.is_faint and _is_tight(doubt.source):
            return UNKNOWN
        try:
            async with self._places:
                for interval, stored in await self._samples(doubt):
                    verdict = await compare(doubt.source, StreamKey(doubt.symbol, interval), stored)
                    if verdict.is_same is False:
                        doubt.differs_at = interval
                        return verdict
                    if verdict.is_same is None:
                        found = verdict
        except (ProviderError, StoreError):
            return UNKNOWN
        return found

    async def _samples(self, doubt: _Check) -> list[tuple[str, list[Candle]]]:
        """Return the stored candles to compare: the newest before what gave the sign, else both ends of all intervals.

        Raises `StoreError`.
        """
        name = doubt.source.name
        stored_as = aside_name(doubt.symbol, CHECKING) if doubt.is_aside else doubt.symbol
        intervals = [
            key.interval
            for provider, key in await self._store.streams()
            if (provider, key.symbol) == (name, stored_as) and key.interval in doubt.source.info.intervals
        ]
        samples = []
        for interval in sorted(intervals, key=length_s):
            if doubt.interval not in (None, interval):
                continue
            key = StreamKey(stored_as, interval)
            newest = await self._store.read(name, key, 0, doubt.before, SAMPLE, newest=True)
            samples.append((interval, newest))
            if doubt.interval is None:
                oldest = await self._store.read(name, key, 0, doubt.before, SAMPLE)
                if oldest != newest:
                    samples.append((interval, oldest))
        return [sample for sample in samples if sample[1]]

    async def _follow(self, doubt: _Check, verdict: Verdict) -> bool:
        """Do what a comparison asks for; return whether the doubt is over. Raises `StoreError`."""
        before = doubt.verdict
        # Where a provider's history begins later each time it only does not reach back so far.
        is_sliding = before is not None and (before.begins or FOREVER) < (verdict.begins or 0)
        if verdict.is_same or is_sliding:
            await self._give_back(doubt)
            return True
        await self._take_away(doubt)
        if before != verdict:
            doubt.verdict = verdict
            self._on_changed(*doubt.identity, doubt.changed_at if verdict.begins is None else verdict.begins)
            return False
        await self._set_aside(doubt, verdict)
        return True

    async def _take_away(self, doubt: _Check) -> None:
        if not doubt.is_aside:
            name, symbol = doubt.identity
            await self._store.set_aside(name, symbol, aside_name(symbol, CHECKING))
            doubt.is_aside = True
            about = event("instrument_doubted", provider=name, symbol=symbol)
            log.info("%s of %s may name another instrument now: what is stored is checked", symbol, name, extra=about)

    async def _give_back(self, doubt: _Check) -> None:
        name, symbol = doubt.identity
        if doubt.is_aside:
            await self._store.take_back(name, aside_name(symbol, CHECKING), symbol)
            doubt.is_aside = False
            about = event("instrument_same", provider=name, symbol=symbol)
            log.info("%s of %s names the same instrument as before", symbol, name, extra=about)
        self._settle(doubt)

    async def _set_aside(self, doubt: _Check, verdict: Verdict) -> None:
        name, symbol = doubt.identity
        kept_as = aside_name(symbol, mark_of(self._clock.wall()))
        count = await self._store.set_aside(name, aside_name(symbol, CHECKING), kept_as, verdict.begins)
        self.set_aside[name, kept_as] = None
        self._settle(doubt)
        log.warning(
            "%s of %s names another instrument than before: its %d stored candles are set aside as %s; "
            "relay store shows them, relay store --forget deletes them",
            symbol,
            name,
            count,
            kept_as,
            extra=event("instrument_changed", provider=name, symbol=symbol, kept_as=kept_as, candles=count),
        )

    def _settle(self, doubt: _Check) -> None:
        self._settled.pop(doubt.identity, None)
        self._settled[doubt.identity] = min(doubt.before, int(doubt.source.clock.now()))
        if len(self._settled) > _MOST_SETTLED:
            del self._settled[next(iter(self._settled))]


def _is_tight(source: CandleSource) -> bool:
    """Say whether a provider's budget is so far used that a comparison would be felt."""
    return any(budget.limit - budget.used < max(4, budget.limit // 5) for budget in source.budgets())


def begin_anew(hub: Hub, provider: str, symbol: str, before: int | None) -> None:
    """Let the streams of a symbol forget what they told of the instrument that it named before.

    `before` is the open time from which on candles are of the new one; None: of all that is known only the newest is.
    A candle that was told as open and that nobody will close is told as a gap.
    """
    for stream in hub.of_provider(provider):
        if stream.key.symbol != symbol:
            continue
        gap = stream.series.begin_anew(before)
        if stream.series.last is None:
            stream.last_frame = None
        for attachment in stream.attachments:
            kept = {} if before is None else {time: one for time, one in attachment.closed.items() if time >= before}
            attachment.closed = kept
        if gap is not None:
            reason = f"{stream.name} names another instrument now"
            stream.gap_count += 1
            hub.announce(stream, frames.gap(stream.name, stream.key.interval, gap.start, gap.end, reason))
