"""Which streams of one provider are wanted, and which slot carries each; they linger after the last subscriber."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from itertools import count
from typing import Protocol

from relay.core.clock import Clock
from relay.core.derived_intervals import Derivation
from relay.core.model import StreamKey
from relay.core.saved_value import Memory
from relay.history.service import HistoryService
from relay.instruments.listing import Standing
from relay.plugins.provider import Provider
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream
from relay.supervision.announced_changes import AnnouncedChanges
from relay.supervision.attempts import Attempts
from relay.supervision.backfill import Backfill
from relay.supervision.candles_again import CandlesAgain
from relay.supervision.derived_feed import DerivedFeed, DerivedStream
from relay.supervision.feed import Feed, FeedCounters
from relay.supervision.feed_slot import FeedSlot, OnLose
from relay.supervision.native_feed import NativeFeed
from relay.supervision.past_changes import PastChanges
from relay.supervision.recheck import Recheck
from relay.supervision.refused_streams import RefusedStreams
from relay.supervision.silence_watch import Planned
from relay.supervision.stream_facts import THROTTLED
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.timing import FEED_TIMING, FeedTiming
from relay.telemetry.events import event

log = logging.getLogger(__name__)

TICK_S = 1.0
DELAY_OVER_S = 60.0
"""A stream that waits again within so long is the same delay to the log: small plans run out again and again."""
GONE_SILENCE_S = 60.0
"""A stream whose symbol left its provider's list ends once it is silent for so long: prices prove the list wrong."""


class Listings(Protocol):
    """What the lists of providers say of their symbols; `version` grows with each answer."""

    version: int

    def standing(self, provider: str, symbol: str) -> Standing:
        """Return what a provider's list says of a symbol in upper case."""


class Supervisor:
    """Keeps the streams of one provider fed. A failure here never reaches another provider.

    `counters`, `attempts`, `backfill` and `past_changes` count what happens, over all feeds and streams.
    """

    def __init__(
        self,
        provider: Provider,
        hub: Hub,
        history: HistoryService,
        clock: Clock,
        *,
        linger_s: float,
        listings: Listings | None = None,
        rng: random.Random | None = None,
        timing: FeedTiming = FEED_TIMING,
        past_memory: Memory | None = None,
    ) -> None:
        self.provider = provider
        self.clock = provider.clock
        self.has_history = provider.has_history
        self.close_grace_s = provider.info.close_grace_s
        self._rng = rng or random.Random()
        self.counters = FeedCounters(provider.name)
        self.attempts = Attempts()
        self.backfill = Backfill(provider, hub, history, clock, self._rng, timing=timing)
        self.past_changes = PastChanges(provider, hub, history, clock)
        self._announced = AnnouncedChanges(provider, self.past_changes, history, clock, past_memory or Memory())
        self.candles_again = CandlesAgain(provider, hub, history)
        self.recheck = Recheck(provider, history, clock, every_s=timing.recheck_every_s)
        self.native = NativeFeed(provider, self.attempts, self.counters, clock, self._rng)
        self._hub = hub
        self._history = history
        self._machine_clock = clock
        self._linger_s = linger_s
        self._timing = timing
        self._supervised: dict[StreamKey, SupervisedStream] = {}
        self._slots: dict[FeedSlot, None] = {}
        self._slot_of: dict[StreamKey, FeedSlot] = {}
        self._lingering: dict[StreamKey, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._derived: dict[StreamKey, DerivedFeed] = {}
        self._refused = RefusedStreams(provider, clock, self._rng, self._standing, self._enter_slot)
        self._listings = listings
        self._list_version = 0
        self._ticker: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._is_closing = False
        self._delayed_at: float | None = None
        provider.outage.on_end.append(self._hurry)

    async def start(self) -> None:
        """Take up what the last run left to be compared; call it before anything is wanted."""
        await self.recheck.recall()
        self._announced.start()
        self._watch()

    @property
    def open_feeds(self) -> int:
        """How many upstream connections or polling loops run now."""
        return sum(slot.open_feeds for slot in self._slots) + self.native.is_open

    @property
    def is_idle(self) -> bool:
        """Whether no feed runs, nor one that is ending."""
        return not self._slots and not self._ending and self.native.is_idle

    def planned(self, key: StreamKey) -> Planned | None:
        """Return when a polled stream is asked for next, if its feed said so."""
        supervised = self._supervised.get(key)
        return None if supervised is None else supervised.planned

    # -- what is wanted ----------------------------------------------------------------------------

    def wanted(self, stream: Stream) -> None:
        """Carry a stream upstream, or go on carrying it; one that is refused is tried again soon."""
        key = stream.key
        handle = self._lingering.pop(key, None)
        if handle is not None:
            handle.cancel()
        if self._is_closing:
            return
        if key in self._supervised:
            carrier = key if (feed := self._derived.get(key)) is None else feed.base_key
            if carrier in self._refused.streams:
                self._refused.hurry(carrier)
                # Later, since who subscribes is told the state with the confirmation first.
                asyncio.get_running_loop().call_soon(self._retry_due)
            return
        stream.series.market = self.provider.market(key.symbol)
        stream.series.is_recorded = self.provider.info.is_recorded
        derivation = self._history.derivation_of(self.provider, key)
        if derivation is not None:
            self._derive(stream, derivation)
            return
        halt = self._halt_of(key) if self._standing(key) == "paused" else ""
        supervised = SupervisedStream(stream, self._hub, self._machine_clock, halt, timing=self._timing)
        self._supervised[key] = supervised
        self._enter_slot(supervised)
        self._watch()

    def _derive(self, stream: Stream, derivation: Derivation) -> None:
        """Carry a stream of an interval that the provider lacks, by that of the shorter candles which make it."""
        key, hub = stream.key, self._hub
        base = hub.stream(self.provider.name, key._replace(interval=derivation.base), stream.name, self)
        supervised = DerivedStream(
            stream, base, lambda: self.planned(base.key), hub, self._machine_clock, timing=self._timing
        )
        self._supervised[key] = supervised
        self._derived[key] = DerivedFeed(supervised, base, derivation, self.provider, hub, self.backfill, self._history)
        self._watch()

    def _watch(self) -> None:
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick_forever(), name=f"watch {self.provider.name}")

    def _enter_slot(self, supervised: SupervisedStream) -> None:
        key = supervised.stream.key
        slot = next((slot for slot in self._slots if slot.has_room(key)), None)
        if slot is None:
            slot = self._open_slot()
        slot.add(supervised)
        self._slot_of[key] = slot

    def unwanted(self, stream: Stream) -> None:
        """Stop carrying a stream when it has been without subscribers for the linger time."""
        supervised = self._supervised.get(stream.key)
        if self._is_closing or supervised is None or supervised.stream is not stream:
            self._hub.remove(stream)
            return
        loop = asyncio.get_running_loop()
        self._lingering[stream.key] = loop.call_later(self._linger_s, self._drop, supervised)

    def _drop(self, supervised: SupervisedStream) -> None:
        del self._lingering[supervised.stream.key]
        self._forget(supervised)
        # Whoever has the candle may come back.
        self.candles_again.check({supervised.stream.key: supervised})
        self._hub.remove(supervised.stream)

    def _forget(self, supervised: SupervisedStream) -> None:
        key = supervised.stream.key
        del self._supervised[key]
        self._refused.forget(key)
        self._leave_slot(supervised)

    def _leave_slot(self, supervised: SupervisedStream) -> None:
        """Take a stream out of its slot; end the slot when it was the last one. Harmless when it is in none."""
        key = supervised.stream.key
        self.backfill.cancel(supervised)
        if (feed := self._derived.pop(key, None)) is not None:
            self._end(*feed.close())
        slot = self._slot_of.pop(key, None)
        if slot is None:
            return
        slot.remove(key)
        if slot.is_empty:
            del self._slots[slot]
            slot.task.cancel()
            self._end(slot.task)

    def _end(self, *tasks: asyncio.Task[None]) -> None:
        """Keep tasks that were cancelled until they have ended."""
        for task in tasks:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    # -- what the provider refuses -----------------------------------------------------------------

    def _refuse(self, supervised: SupervisedStream, reason: str, logged: str = "") -> None:
        """Let a stream rest in the state `error` until it is tried again. Harmless when it is refused already.

        Clients read `reason`; the log says `logged` if that tells more.
        """
        if self._supervised.get(supervised.stream.key) is supervised and not supervised.is_refused:
            self._leave_slot(supervised)
            self._refused.refuse(supervised, reason, logged)

    def _retry_due(self) -> None:
        if not self._is_closing:
            self._refused.retry_due()

    # -- what the provider lists -------------------------------------------------------------------

    def _standing(self, key: StreamKey) -> Standing:
        listings = self._listings
        return "unknown" if listings is None else listings.standing(self.provider.name, key.symbol.upper())

    def _halt_of(self, key: StreamKey) -> str:
        return f"{self.provider.info.title} has paused trading in {key.symbol} until the next price"

    def _check_list(self, now: float) -> None:
        """Let streams rest that the provider's newest list calls paused, and end those that left it, if silent."""
        listings = self._listings
        is_news = listings is not None and listings.version != self._list_version
        if listings is not None:
            self._list_version = listings.version
        if is_news:
            self._derive_anew()
        for key, supervised in list(self._supervised.items()):
            if key in self._derived:
                # It is in the state of the stream that it follows.
                continue
            standing = self._standing(key)
            if is_news:
                supervised.halt(self._halt_of(key) if standing == "paused" else "")
            supervised.check_halt(now)
            if standing == "gone" and now - (supervised.stream.updated_at or 0.0) >= GONE_SILENCE_S:
                self._refuse(supervised, f"{self.provider.info.title} no longer lists {key.symbol}")

    def _derive_anew(self) -> None:
        """Build streams as it follows from the provider's present list and hours.

        Those whose interval the provider has now and had not, or the other way round, are fed from elsewhere, and so
        are those that are built of another interval.
        """
        for key, supervised in list(self._supervised.items()):
            derivation, feed = self._history.derivation_of(self.provider, key), self._derived.get(key)
            if (None if feed is None else feed.derivation.base) == (None if derivation is None else derivation.base):
                if feed is not None and derivation is not None and derivation != feed.derivation:
                    feed.renew(derivation)
                continue
            if (handle := self._lingering.get(key)) is not None:
                handle.cancel()
                self._drop(supervised)
                continue
            stream = supervised.stream
            state = stream.status, stream.message
            self._forget(supervised)
            # What it told is of another source: nobody may take it for the past of this one.
            stream.series.begin_anew(None)
            stream.message = "its candles come from elsewhere now"
            self.wanted(stream)
            if state != (stream.status, stream.message):
                self._hub.announce(stream, stream.state_frame())

    # -- slots -------------------------------------------------------------------------------------

    def _open_slot(self) -> FeedSlot:
        slot = FeedSlot(
            self.provider,
            self.backfill,
            self.attempts,
            self._machine_clock,
            self._rng,
            self._new_feed,
            self._refuse,
            timing=self._timing,
        )
        self._slots[slot] = None
        return slot

    def _new_feed(
        self, supervised: Mapping[StreamKey, SupervisedStream], on_closing: Callable[[str], None], on_lose: OnLose
    ) -> Feed:
        return Feed(
            next(self._numbers),
            supervised,
            self.provider,
            self._hub,
            self.backfill,
            self.counters,
            on_refuse=self._refuse,
            on_past_change=self.past_changes.take,
            on_closing=on_closing,
            on_lose=on_lose,
        )

    def renew(self) -> None:
        """Let feeds with the provider's present settings take the place of those that run; no stream is lost."""
        for key, supervised in self._supervised.items():
            supervised.stream.series.market = self.provider.market(key.symbol)
        self._derive_anew()
        for slot in self._slots:
            slot.renew()
        self.native.renew()

    def _hurry(self) -> None:
        """End the pauses before feeds are opened: the provider answers again."""
        for slot in self._slots:
            slot.hurry()
        self.native.hurry()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.check(self._machine_clock.monotonic())

    def check(self, now: float) -> None:
        """See to silent or refused streams, candles that nobody closed, gaps and doubts; call it each second."""
        self._refused.check_provider(now)
        self._retry_due()
        self._check_list(now)
        is_back = False
        for slot in self._slots:
            slot.check_silence(now)
            is_back |= slot.takes_comeback()
        if is_back:
            self._hurry()
        for supervised in self._supervised.values():
            self.backfill.check_close(supervised, now)
        self.backfill.repair(self._supervised, now)
        derived = self._derived
        own = {key: one for key, one in self._supervised.items() if key not in derived} if derived else self._supervised
        self.candles_again.check(own)
        self.recheck.check(own, now)
        self._tell_delays(now)

    def _tell_delays(self, now: float) -> None:
        """Say once in the log that streams wait for the provider's limits, and once that none has for a while."""
        waiting = [one.stream for one in self._supervised.values() if one.stream.status == THROTTLED]
        name, of_all = self.provider.name, len(self._supervised)
        if waiting:
            if self._delayed_at is None:
                about = event("streams_delayed", provider=name, count=len(waiting))
                log.warning(
                    "%d of %d streams of %s wait: %s", len(waiting), of_all, name, waiting[0].message, extra=about
                )
            self._delayed_at = now
        elif self._delayed_at is not None and now - self._delayed_at >= DELAY_OVER_S:
            self._delayed_at = None
            log.info("no stream of %s waits any more", name, extra=event("streams_in_time", provider=name))

    async def close(self) -> None:
        """End all feeds and everything that was started for them."""
        self._is_closing = True
        if self._hurry in self.provider.outage.on_end:
            self.provider.outage.on_end.remove(self._hurry)
        for handle in self._lingering.values():
            handle.cancel()
        running = [slot.task for slot in self._slots]
        if self._ticker is not None:
            running.append(self._ticker)
        for task in running:
            task.cancel()
        # Those that were cancelled before must not be again: it would cut short how they end their feeds.
        tasks = [*running, *self._ending]
        for feed in self._derived.values():
            tasks += feed.close()
        parts = (
            self.backfill.close(),
            self.candles_again.close(),
            self.recheck.close(),
            self._announced.close(),
            self.past_changes.close(),
            self.native.close(),
        )
        await asyncio.gather(*parts, *tasks, return_exceptions=True)
