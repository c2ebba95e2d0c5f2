"""One provider with a hub and a history of its own, without a relay around; for the tests of `relay.supervision`."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, Secret, Setting, StreamKey, Watchlist, hookimpl
from relay.core.clock import Clock, ProviderClock
from relay.history.service import HistoryService
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.plugins.provider_session import new_session
from relay.storage.store import Store
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream
from relay.supervision.attempts import Attempts
from relay.supervision.backfill import Backfill
from relay.supervision.feed import Feed, FeedCounters
from relay.supervision.feed_slot import FeedSlot, OnLose
from relay.supervision.past_changes import PastChanges
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.supervisor import Listings, Supervisor
from relay.supervision.timing import FEED_TIMING, FeedTiming
from tests.support.conditions import eventually

MINUTE = 1_764_000_000
A, B = StreamKey("A", "1m"), StreamKey("B", "1m")


def candle(minute: int, volume: float = 1.0) -> Candle:
    return Candle(MINUTE + 60 * minute, 1.0, 1.0, 1.0, 1.0, volume)


def update(key: StreamKey, minute: int = 0, *, is_closed: bool = False) -> PriceUpdate:
    return PriceUpdate(key, candle(minute), is_closed)


class Hands:
    """A clock that stands still until it is set: half a minute past `MINUTE`, by the wall and otherwise."""

    def __init__(self) -> None:
        self.now = MINUTE + 30.0
        self.clock = Clock(lambda: self.now, lambda: self.now)


class Script:
    """One feed of `Scripted`: what the test lets it say, and its watchlist."""

    def __init__(self, watchlist: Watchlist) -> None:
        self.watchlist = watchlist
        self.has_ended = False
        self.lines: asyncio.Queue[PriceUpdate | Exception | None] = asyncio.Queue()

    def say(self, *updates: PriceUpdate) -> None:
        for one in updates:
            self.lines.put_nowait(one)

    def end(self, error: Exception | None = None) -> None:
        self.lines.put_nowait(error)


class Scripted:
    """A provider whose feeds do what the test tells them; it has no history."""

    def __init__(self, **info: Any) -> None:
        self.feeds: list[Script] = []
        self._info = ProviderInfo("scripted", API_VERSION, "Scripted", ("demo",), ("1m", "5m"), close_grace_s=1.0)
        self._info = self._info._replace(**info)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return self._info

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        script = Script(watchlist)
        self.feeds.append(script)
        try:
            while (line := await script.lines.get()) is not None:
                if isinstance(line, Exception):
                    raise line
                yield line
        finally:
            script.has_ended = True


class Remembering(Scripted):
    """A provider with history: `known`, unless it fails with `failure`, answered while `may_answer` is set."""

    def __init__(self, **info: Any) -> None:
        super().__init__(**info)
        self.known: list[Candle] = []
        self.failure: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = 0

    @hookimpl
    async def relay_candles(self, start: int | None, end: int) -> list[Candle]:
        self.asked += 1
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return [one for one in self.known if (start or 0) <= one.time < end]


async def fed_stream(rig: "Rig", plugin: Scripted) -> tuple[SupervisedStream, Feed]:
    """Carry `A` on a feed that is open."""
    supervised = rig.carry(A)
    feed = rig.feed({A: supervised})
    await eventually(lambda: plugin.feeds)
    return supervised, feed


async def make_live(plugin: Scripted, stream: Stream) -> None:
    """Have the first feed say a price of `A`, and wait until its stream is live."""
    await eventually(lambda: plugin.feeds and A in plugin.feeds[0].watchlist)
    plugin.feeds[0].say(update(A))
    await eventually(lambda: stream.status == "connected")


KEY: Mapping[str, Any] = {"needs_key": "key", "settings": (Setting("key", is_secret=True),)}
"""What makes `Scripted` a provider with a key, which it has; without one no key can be refused."""


class Rig:
    """The parts that a supervisor puts together, each to be had alone."""

    def __init__(self, provider: Provider, history: HistoryService, hands: Hands, timing: FeedTiming) -> None:
        self.hands = hands
        self.timing = timing
        self.provider = provider
        self.history = history
        self.supervisors: list[Supervisor] = []
        self.slots: list[FeedSlot] = []
        self.closed: list[PriceUpdate] = []
        self.refused: list[tuple[str, str]] = []
        self.hub = Hub(hands.clock, on_closed=lambda stream, one, after: self.closed.append(one))
        self.attempts = Attempts()
        self.counters = FeedCounters(provider.name)
        self.backfill = Backfill(provider, self.hub, history, hands.clock, random.Random(1), timing=timing)
        self.past_changes = PastChanges(provider, self.hub, history, hands.clock)
        self.clock = provider.clock
        self.has_history = provider.has_history
        self.close_grace_s = provider.info.close_grace_s
        self.tasks: list[asyncio.Task[None]] = []

    def wanted(self, stream: Stream) -> None:
        """Take no notice: the test says what is carried."""

    def unwanted(self, stream: Stream) -> None:
        """Take no notice."""

    def carry(self, key: StreamKey) -> SupervisedStream:
        stream = self.hub.stream(self.provider.name, key, key.symbol, self)
        return SupervisedStream(stream, self.hub, self.hands.clock, timing=self.timing)

    def feed(
        self,
        supervised: Mapping[StreamKey, SupervisedStream],
        on_closing: Callable[[str], None] = print,
        on_lose: OnLose = print,
    ) -> Feed:
        feed = Feed(
            1,
            supervised,
            self.provider,
            self.hub,
            self.backfill,
            self.counters,
            on_refuse=self._refuse,
            on_closing=on_closing,
            on_lose=on_lose,
            on_past_change=self.past_changes.take,
        )
        self.tasks.append(feed.task)
        return feed

    def slot(self, *supervised: SupervisedStream) -> FeedSlot:
        parts = (self.provider, self.backfill, self.attempts, self.hands.clock, random.Random(1))
        slot = FeedSlot(*parts, self.feed, self._refuse, timing=self.timing)
        for one in supervised:
            slot.add(one)
        self.tasks.insert(0, slot.task)
        self.slots.append(slot)
        return slot

    def supervisor(self, listings: Listings | None = None) -> Supervisor:
        """Return a supervisor of the provider; the test calls `check`. It is closed with the rig."""
        supervisor = Supervisor(
            self.provider,
            self.hub,
            self.history,
            self.hands.clock,
            linger_s=0.0,
            listings=listings,
            rng=random.Random(1),
            timing=self.timing,
        )
        self.supervisors.append(supervisor)
        return supervisor

    def _refuse(self, supervised: SupervisedStream, reason: str, logged: str) -> None:
        self.refused.append((supervised.stream.key.symbol, reason))


@asynccontextmanager
async def rig_of(plugin: Scripted, folder: Path, timing: FeedTiming = FEED_TIMING) -> AsyncIterator[Rig]:
    """Bind the plugin; all that runs ends with the context."""
    host = PluginHost()
    host.load([plugin], installed=False)
    (loaded,) = host.loaded.values()
    hands = Hands()
    settings = {"key": Secret("hush-hush")} if loaded.info.needs_key else {}
    provider = host.bind(loaded, settings, ProviderClock(hands.clock))
    async with new_session(provider.clock) as session:
        provider.open(session)
        store = await Store.open(folder / "relay.db", hands.clock, latest={provider.name: provider.clock.latest})
        history = HistoryService(store, hands.clock)
        rig = Rig(provider, history, hands, timing)
        try:
            yield rig
        finally:
            for task in rig.tasks:
                task.cancel()
            for supervisor in rig.supervisors:
                await supervisor.close()
            await asyncio.gather(rig.backfill.close(), rig.past_changes.close(), *rig.tasks, return_exceptions=True)
            await history.close()
            await store.close()
            rig.hub.close()
