"""The upstream side of one provider in a relay that shares it: what it carries goes to relays, not to clients."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Collection, Iterable

from relay.cluster.wire.bus_messages import Item, PlanTold, StateTold
from relay.core.clock import Clock
from relay.core.model import PriceUpdate, StreamKey
from relay.core.past_change import PastChange
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.streams.gaps import SeriesGap
from relay.streams.hub import Hub
from relay.streams.other_instrument import begin_anew
from relay.streams.subscriptions import Stream
from relay.supervision.candles_again import CandlesAgain
from relay.supervision.past_changes import PastChanges
from relay.supervision.supervisor import Listings, Supervisor
from relay.supervision.timing import FeedTiming

LINGER_S = 0.5
"""The relays that want a stream let it linger themselves."""
ENDS_S = 1.0
"""So long another relay waits for the end of feeds that it is not to overlap: it would wait for the lease as well."""
UNFED = ("connecting", "reconnecting", "throttled", "error")
_PLANS_DIFFER_S = 0.5

OnItem = Callable[[StreamKey, Item], None]


class _CarriedStream:
    """Hears what a stream tells on the upstream side; see `Follower`."""

    def __init__(self, stream: Stream, tell: OnItem) -> None:
        self.stream = stream
        self.planned_at: float | None = None
        self._tell = tell

    def take(self, update: PriceUpdate) -> None:
        """Hand on what came live. What was fetched is left out: who lacks it fetches it too, and says so."""
        if not update.is_backfilled:
            self._tell(self.stream.key, update._replace(is_revised=False, is_of_extras=False))

    def lose(self, gap: SeriesGap) -> None:
        """Leave a gap to those who find it."""

    def note_state(self) -> None:
        """Hand on the state."""
        self._tell(self.stream.key, StateTold(self.stream.status, self.stream.message))

    def begin_anew(self) -> None:
        """Leave it to those who find out what the symbol names."""


class _ToldPastChanges(PastChanges):
    """Takes what a feed says to have changed, and hands it on."""

    def __init__(self, provider: Provider, hub: Hub, history: HistoryService, clock: Clock, tell: OnItem) -> None:
        super().__init__(provider, hub, history, clock)
        self._on_change = tell

    def take(self, change: PastChange) -> Awaitable[None]:
        """Do as all do, and hand it on."""
        written = super().take(change)
        self._on_change(change.key, change)
        return written


class Carrier:
    """Carries streams of one provider upstream, with all that a relay alone has for that, and tells `on_item`.

    Its streams have series of their own, so that what is told is in order and each closing comes once.
    """

    def __init__(
        self,
        provider: Provider,
        history: HistoryService,
        clock: Clock,
        on_item: OnItem,
        *,
        listings: Listings | None,
        timing: FeedTiming,
        lingers: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        self.hub = Hub(clock)
        # The side of the clients compares what closed with the provider's history.
        timing = timing._replace(recheck_every_s=math.inf)
        linger_s = LINGER_S if lingers else 0.0
        self.supervisor = Supervisor(
            provider, self.hub, history, clock, linger_s=linger_s, listings=listings, rng=rng, timing=timing
        )
        self.supervisor.past_changes = _ToldPastChanges(provider, self.hub, history, clock, on_item)
        # Other relays may know what this one does not.
        self.supervisor.candles_again = CandlesAgain(provider, self.hub, history, tells_unknown=True)
        self._clock = clock
        self._on_item = on_item
        self._carried: dict[StreamKey, _CarriedStream] = {}

    @property
    def keys(self) -> Collection[StreamKey]:
        """What is carried now."""
        return self._carried.keys()

    def carry(self, wanted: Collection[StreamKey]) -> None:
        """Carry these streams and no others."""
        for key in [key for key in self._carried if key not in wanted]:
            carried = self._carried.pop(key)
            self.hub.unfollow(carried.stream, carried)
        for key in wanted:
            if key not in self._carried:
                stream = self.hub.stream(self.supervisor.provider.name, key, key.symbol, self.supervisor)
                carried = self._carried[key] = _CarriedStream(stream, self._on_item)
                self.hub.follow(stream, carried)

    def is_live(self, keys: Iterable[StreamKey]) -> bool:
        """Say whether all these streams are carried, and none waits for its first feed or lost it."""
        carried = self._carried
        return all(key in carried and carried[key].stream.status not in UNFED for key in keys)

    def has_live(self, keys: Iterable[StreamKey]) -> bool:
        """Say whether a feed delivers any of these streams."""
        return any(self.is_live([key]) for key in keys)

    def is_dead(self, keys: Collection[StreamKey]) -> bool:
        """Say whether there are such streams, and all of them wait for a feed that delivers."""
        carried = self._carried
        return bool(keys) and all(
            key in carried and carried[key].stream.status in ("connecting", "reconnecting") for key in keys
        )

    def tell_again(self, keys: Iterable[StreamKey], *, with_candle: bool) -> None:
        """Tell the state of streams once more, and their newest candle for who has none yet.

        Not the candle of a stream that no feed delivers: who has it would take it for the first one after the loss.
        """
        for key in keys:
            carried = self._carried.get(key)
            if carried is None:
                continue
            series = carried.stream.series
            is_fed = carried.stream.status not in UNFED
            if with_candle and is_fed and series.last is not None and series.last.time not in series.void:
                self._on_item(key, PriceUpdate(key, series.last, series.last_is_closed))
            carried.note_state()
            carried.planned_at = None

    def tell_plans(self) -> None:
        """Tell when polled streams are asked for next, where that is news. Call it a few times a second."""
        now = self._clock.monotonic()
        for key, carried in self._carried.items():
            planned = self.supervisor.planned(key)
            if planned is None:
                continue
            if carried.planned_at is None or abs(planned.at - carried.planned_at) > _PLANS_DIFFER_S:
                carried.planned_at = planned.at
                self._on_item(key, PlanTold(max(0.0, planned.at - now), planned.every_s))

    def begin_anew(self, symbol: str, before: int | None) -> None:
        """Take it that a symbol names another instrument."""
        begin_anew(self.hub, self.supervisor.provider.name, symbol, before)

    async def be_idle(self) -> None:
        """Wait until all feeds have ended, but not for one that does not."""
        until = self._clock.monotonic() + ENDS_S
        while True:
            if self.supervisor.is_idle or self._clock.monotonic() >= until:
                return
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End all feeds."""
        await self.supervisor.close()
        self.hub.close()
