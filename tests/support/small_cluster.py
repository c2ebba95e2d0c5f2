"""Several relays without clients and sockets, in the time of a virtual loop: one venue, and a bus in memory."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from relay import (
    API_VERSION,
    Candle,
    Memory,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    Secret,
    Setting,
    StreamKey,
    Watchlist,
    hookimpl,
)
from relay.cluster.cluster import Cluster, ClusterPlan
from relay.core.clock import Clock, ProviderClock
from relay.core.saved_value import Memory as SavedValue
from relay.history.service import HistoryService
from relay.plugins.loader import PluginHost
from relay.plugins.provider_session import new_session
from relay.storage.store import Store
from relay.streams.gaps import SeriesGap
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream
from relay.supervision.supervisor import Supervisor
from relay.supervision.timing import FEED_TIMING
from tests.support.fake_bus import FakeBroker, FakeBus

BEGAN = 1_764_000_000
A, B = StreamKey("A", "1s"), StreamKey("B", "1s")


def price(time: int, part: int = 9) -> Candle:
    """Return the candle of a second, so far as `part` tenths of it are over."""
    top = 10.0 + time % 7
    return Candle(time, 10.0, top, 9.0, 9.0 + (top - 9.0) * part / 9, float(part))


class Venue:
    """What all relays connect to; `open` are the streams of each feed now, `most` how many feeds there were at once."""

    def __init__(self) -> None:
        self.open: dict[object, set[StreamKey]] = {}
        self.most = 0
        self.opened = 0
        self.tried: list[float] = []
        """When feeds were opened, or refused, by the loop's time."""
        self.connects_s = 0.05
        """How long it takes until it accepts a feed, or refuses it."""
        self.refuses_until = 0.0
        """Until then it takes no new feed, and says for how long, by the loop's time."""
        self.calls: list[tuple[int | None, int]] = []
        self.cut: set[object] = set()
        self.again: list[Candle] = []
        """Closed candles that its feeds send once more, to each stream."""

    def refuse(self, seconds: float) -> None:
        """Take no new feed for so long."""
        self.refuses_until = asyncio.get_running_loop().time() + seconds

    def drop(self) -> None:
        """End the feeds that are open."""
        self.cut |= {*self.open}

    @property
    def subscribed(self) -> list[StreamKey]:
        """All streams of all feeds, sorted: one that comes twice is carried twice."""
        return sorted(key for keys in self.open.values() for key in keys)


class VenuePlugin:
    """The venue as a provider: ten updates a second of each stream, the last one closes it. One for each relay."""

    def __init__(
        self,
        venue: Venue,
        now: Any,
        *,
        has_key: bool,
        compare_after_s: tuple[float, ...] = (),
        streams_per_feed: int = 1000,
    ) -> None:
        self.memory: Memory | None = None
        self.reaches_nothing = False
        self.parts: list[int] = []
        self.lies = False
        self.banned_s: float | None = None
        self._venue = venue
        self._now = now
        free = Setting("pace", "int", 1, may_differ=True)
        declared = (Setting("hours"), free, *([Setting("key", is_secret=True)] if has_key else []))
        key: Any = {"settings": declared, **({"needs_key": "key"} if has_key else {})}
        self._info = ProviderInfo(
            "venue", API_VERSION, "Venue", ("crypto",), ("1s",), close_grace_s=1.0, has_every_candle=True,
            history_has_open=True, compare_after_s=compare_after_s,
            streams_per_feed=streams_per_feed, **key,
        )  # fmt: skip

    def _reach(self) -> None:
        if self.reaches_nothing:
            raise ProviderUnavailable("no route to the venue")

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return self._info

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        venue, feed = self._venue, object()
        await asyncio.sleep(venue.connects_s)
        self._reach()
        now = asyncio.get_running_loop().time()
        venue.tried.append(now)
        if (left_s := venue.refuses_until - now) > 0:
            raise RateLimited("the connection was refused with HTTP 429", left_s, by_provider=True)
        venue.opened += 1
        venue.open[feed] = set()
        venue.most = max(venue.most, len(venue.open))
        try:
            while True:
                venue.open[feed] = set(watchlist.streams)
                watchlist.accept(watchlist.streams)
                at = int(self._now() * 10 + 1e-6)
                time, part = divmod(at, 10)
                again, venue.again = venue.again, []
                for key in watchlist.streams:
                    for candle in again:
                        yield PriceUpdate(key, candle, is_closed=True, ts_event_ms=at * 100)
                    if part == 0:
                        yield PriceUpdate(key, price(time - 1), is_closed=True, ts_event_ms=at * 100)
                    else:
                        yield PriceUpdate(key, price(time, part - 1), ts_event_ms=at * 100)
                await asyncio.sleep((at + 1) / 10 - self._now())
                self._reach()
                if feed in venue.cut:
                    raise ProviderUnavailable("the connection was lost")
        finally:
            del venue.open[feed]
            venue.cut.discard(feed)

    @hookimpl
    async def relay_candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        self._venue.calls.append((start, end))
        self._reach()
        if self.banned_s is not None:
            raise RateLimited("HTTP 418", self.banned_s, by_provider=True)
        await asyncio.sleep(0.03)
        at = int(self._now() * 10 + 1e-6)
        now, part = divmod(at, 10)
        first = end - limit if start is None else start
        times = range(max(BEGAN - 1000, first), min(end, now + 1))
        times = times[:limit] if start is not None else times[-limit:]
        lift = 1.0 if self.lies else 0.0
        found = [price(time) if time < now else price(time, max(0, part - 1)) for time in times]
        return [one._replace(high=one.high + lift) for one in found]


class MemoryVenuePlugin(VenuePlugin):
    """The same with a place for what it spent."""

    @hookimpl
    def relay_memory(self, memory: Memory) -> None:
        self.memory = memory

    @hookimpl
    def relay_share(self, parts: int) -> None:
        self.parts.append(parts)


class Hearer:
    """Follows a stream as clients do; keeps what was told of it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.told: list[PriceUpdate] = []
        self.gaps: list[SeriesGap] = []
        self.states: list[str] = []

    def take(self, update: PriceUpdate) -> None:
        self.told.append(update)

    def lose(self, gap: SeriesGap) -> None:
        self.gaps.append(gap)

    def note_state(self) -> None:
        self.states.append(self.stream.status)

    def begin_anew(self) -> None:
        raise AssertionError("the symbol names what it did")

    @property
    def closed(self) -> list[Candle]:
        """The closed candles that were told, in order."""
        return [one.candle for one in self.told if one.is_closed and not one.is_revised]

    def check(self, until: float) -> None:
        """Assert that all that closed since the first was told once, in order and as it was, up to about `until`."""
        times = [candle.time for candle in self.closed]
        assert times == [*range(times[0], times[-1] + 1)], "candles are missing, repeated or in disorder"
        assert times[-1] >= until - 3
        assert self.closed == [price(time) for time in times]
        assert [one for one in self.told if one.is_revised] == []
        assert self.gaps == []


class SmallRelay:
    """One relay: the side of the clients, with its part in the cluster."""

    def __init__(
        self, name: str, clock: Clock, bus: FakeBus, plugin: VenuePlugin, provider: Any, cluster: Cluster
    ) -> None:
        self.name = name
        self.bus = bus
        self.plugin = plugin
        self.cluster = cluster
        self.provider = provider
        self.clock = clock
        self.hub = Hub(clock)
        self.store: Any = None
        self.supervisor: Any = None
        self.is_over = False

    def follow(self, key: StreamKey) -> Hearer:
        """Want a stream."""
        stream = self.hub.stream("venue", key, key.symbol, self.supervisor)
        hearer = Hearer(stream)
        self.hub.follow(stream, hearer)
        return hearer

    @property
    def duty(self) -> str:
        """What it carries of the first shard."""
        return self.cluster.shares["venue"].shards.first.duty.value

    async def crash(self) -> None:
        """End without a word to the others."""
        self.bus.is_cut = True
        await self.end()

    async def end(self) -> None:
        """End, with a word to the others if they can be reached."""
        if not self.is_over:
            self.is_over = True
            await self.cluster.leave()
            await self.supervisor.close()
            await self.cluster.close()


class SmallCluster:
    """Makes relays, all of which end with the context."""

    def __init__(
        self,
        stack: AsyncExitStack,
        folder: Path,
        *,
        is_budgeted: bool = False,
        shards: int = 1,
        check_every_s: float = 300.0,
        compare_after_s: tuple[float, ...] = (),
        streams_per_feed: int = 1000,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.broker = FakeBroker()
        self.venue = Venue()
        self.relays: list[SmallRelay] = []
        self.memories: dict[str, SavedValue] = {}
        """What each relay kept of the number of relays, by name: also for the next one of that name."""
        self._is_budgeted = is_budgeted
        self._shards = shards
        self._check_every_s = check_every_s
        self._compare_after_s = compare_after_s
        self._streams_per_feed = streams_per_feed
        self._stack = stack
        self._folder = folder
        self._began = loop.time()
        self.clock = Clock(lambda: BEGAN + loop.time() - self._began, loop.time)

    def now(self) -> float:
        """Return the time of the venue and of all relays."""
        return self.clock.wall()

    async def add(self, name: str, **settings: Any) -> SmallRelay:
        """Start one more relay; of the provider it may have other settings than the others."""
        kind = MemoryVenuePlugin if self._is_budgeted else VenuePlugin
        plugin = kind(
            self.venue,
            self.now,
            has_key=self._is_budgeted,
            compare_after_s=self._compare_after_s,
            streams_per_feed=self._streams_per_feed,
        )
        host = PluginHost()
        host.load([plugin], installed=False)
        (loaded,) = host.loaded.values()
        settings = {**({"key": Secret("hush-hush")} if loaded.info.needs_key else {}), **settings}
        own = host.bind(loaded, settings, ProviderClock(self.clock))
        own.open(await self._stack.enter_async_context(new_session(own.clock)))
        store = await Store.open(self._folder / f"{name}.db", self.clock, latest={own.name: own.clock.latest})
        self._stack.push_async_callback(store.close)
        history = HistoryService(store, self.clock)
        self._stack.push_async_callback(history.close)
        bus = FakeBus(self.broker)
        cluster = Cluster(
            ClusterPlan(name, "test", self._shards, check_every_s=self._check_every_s), bus, self.clock, name
        )
        shared = cluster.shared(own)
        own.remember(cluster.memory("venue", SavedValue()))
        relay = SmallRelay(name, self.clock, bus, plugin, shared, cluster)

        def keep(stream: Stream, update: PriceUpdate, after: int | None) -> int | None:
            return history.keep("venue", stream.key, update.candle, after, is_revised=update.is_revised)

        relay.hub = Hub(self.clock, on_closed=keep)
        relay.store = store
        relay.supervisor = Supervisor(
            shared, relay.hub, history, self.clock, linger_s=0.1, rng=random.Random(1), timing=FEED_TIMING
        )
        await cluster.start(history, None, FEED_TIMING, self.memories.setdefault(name, SavedValue()))
        self._stack.push_async_callback(relay.end)
        self.relays.append(relay)
        return relay

    async def settle(self, seconds: float = 8.0) -> None:
        """Let time pass until hand-overs are over."""
        await asyncio.sleep(seconds)

    @property
    def owners(self) -> list[str]:
        """The relays that carry the first shard for all."""
        return [relay.name for relay in self.relays if not relay.is_over and relay.duty == "all"]

    def owner(self, among: str = "") -> SmallRelay:
        """The one that does, of all or of relays of these names."""
        (name,) = [name for name in self.owners if name in (among or name)]
        return next(relay for relay in self.relays if relay.name == name)


@asynccontextmanager
async def small_cluster(folder: Path, names: Iterable[str] = "abc", **settings: Any) -> AsyncIterator[SmallCluster]:
    """Run relays of these names."""
    async with AsyncExitStack() as stack:
        cluster = SmallCluster(stack, folder, **settings)
        for name in names:
            await cluster.add(name)
        await cluster.settle()
        yield cluster
