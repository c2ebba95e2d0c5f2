"""One relay among several: its heartbeat, its leases, what it hears of the others, and whether it is alone."""

import asyncio
import logging
import os
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, NamedTuple

from relay.cluster.budget_shares import BudgetShares
from relay.cluster.bus import Bus
from relay.cluster.carrier import Carrier, OnItem
from relay.cluster.cluster_report import ClusterReport, Loneliness
from relay.cluster.duty import Duty
from relay.cluster.lease import LEASE_TIMING, LeaseTiming
from relay.cluster.lease_keeper import LeaseKeeper
from relay.cluster.owner_check import CHECK_EVERY_S
from relay.cluster.peers import BEAT_S, Peers
from relay.cluster.provider_share import ProviderShare
from relay.cluster.remote_history import HistoryDesk, RemoteHistory
from relay.cluster.shared_memory import SharedMemory
from relay.cluster.shared_provider import SharedProvider
from relay.cluster.shared_shard import Subjects
from relay.cluster.shared_waits import SharedWaits
from relay.cluster.terms import shaping
from relay.cluster.wire.bus_messages import (
    Heartbeat,
    ask_body,
    heartbeat_body,
    memory_body,
    read_ask,
    read_heartbeat,
    read_memory,
    read_wish,
)
from relay.core.clock import Clock
from relay.core.model import PriceUpdate
from relay.core.saved_value import Memory
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.supervision.supervisor import Listings, Supervisor
from relay.supervision.timing import FeedTiming
from relay.telemetry.events import event
from relay.telemetry.rare_warning import RareWarning

log = logging.getLogger(__name__)

ALONE_S = 2.0
"""A relay that could write nothing to the bucket for so long serves alone."""
LOOK_S = 0.1
PAUSED_S = 0.6
"""A process that did not look for so long did not run, or was kept from it."""
WISHES_EVERY_S = 5.0


class ClusterPlan(NamedTuple):
    """How a relay takes part: by its name `node`, below `namespace`, with so many `shards` of each provider."""

    node: str
    namespace: str
    shards: int = 1
    timing: LeaseTiming = LEASE_TIMING
    check_every_s: float = CHECK_EVERY_S


class Cluster:
    """Shares providers with the other relays on a bus. `start` it before feeds are wanted, `leave`, then `close` it."""

    def __init__(self, plan: ClusterPlan, bus: Bus, clock: Clock, id_: str | None = None) -> None:
        self.plan = plan
        self.id = id_ or os.urandom(6).hex()
        self.shares: dict[str, ProviderShare] = {}
        self.remote = RemoteHistory(bus, lambda id_: self._subjects.calls(id_))
        self.nonsense = 0
        self._bus = bus
        self._clock = clock
        self._subjects = Subjects(f"mr.{plan.namespace}")
        self._peers = Peers()
        self._memories: dict[str, SharedMemory] = {}
        self._waits = (
            SharedWaits(
                self.id,
                bus,
                self._subjects.waits,
                self._peers,
                clock,
                self.shares,
                lambda provider: provider.request_waits,
            ),
            SharedWaits(
                self.id,
                bus,
                self._subjects.feed_waits,
                self._peers,
                clock,
                self.shares,
                lambda provider: provider.feed_waits,
            ),
        )
        self._desk: HistoryDesk | None = None
        self._beat_at = self._wished_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._works: set[asyncio.Task[None]] = set()
        self._alone_since: float | None = None
        self._same_node = RareWarning(log, "cluster_same_node")
        self._other_shards = RareWarning(log, "cluster_other_shards")
        self._other_terms = RareWarning(log, "cluster_other_terms")
        self._keeper = LeaseKeeper(
            self.id,
            plan.node,
            bus,
            clock,
            self.shares,
            on_change=self._look,
            on_news=self._beat,
            ask=lambda shard: bus.send(self._subjects.asks, ask_body(self.id, shard)),
        )
        self._budgets = BudgetShares(self.shares, self._peers, self._start)
        self._report = ClusterReport(
            self.id,
            plan.node,
            plan.namespace,
            bus=bus,
            peers=self._peers,
            shares=self.shares,
            remote=self.remote,
            keeper=self._keeper,
        )
        self._looked_at = clock.monotonic()
        self._alone_count = 0

    # -- putting it together -------------------------------------------------------------------------

    def shared(self, own: Provider) -> SharedProvider:
        """Return a provider as it is to be used by all but what carries its streams upstream."""
        share = self.shares[own.name] = ProviderShare(
            own,
            self.id,
            self._bus,
            self._peers,
            self.remote,
            self._subjects,
            self._clock,
            count=self.plan.shards,
            timing=self.plan.timing,
            check_every_s=self.plan.check_every_s,
        )
        for waits in self._waits:
            waits.follow(share)
        return SharedProvider(own, share)

    def memory(self, provider: str, memory: Memory) -> Memory:
        """Return the place of a provider for what it wants to know later: other relays know it, too."""
        share = self.shares[provider]
        if not share.provider.remembers:
            return memory

        def tell(value: Any) -> None:
            self._bus.send(self._subjects.memories, memory_body(self.id, provider, value))

        shared = self._memories[provider] = SharedMemory(memory, tell)
        return shared

    async def start(
        self, history: HistoryService, listings: Listings | None, timing: FeedTiming, memory: Memory
    ) -> None:
        """Begin to look for the others, and to carry what falls to this relay; `memory` is for how many they were."""
        self._budgets.recall(memory)
        for share in self.shares.values():

            def carrier(on_item: OnItem, share: ProviderShare = share) -> Carrier:
                return Carrier(
                    share.provider,
                    history,
                    self._clock,
                    on_item,
                    listings=listings,
                    timing=timing,
                    lingers=share.ownership.may_overlap,
                )

            share.start(carrier)
        own = {name: share.provider for name, share in self.shares.items()}
        self._desk = HistoryDesk(own, history)
        await self._bus.start()
        self._bus.listen(self._subjects.beats, self._hear_beat)
        self._bus.listen(self._subjects.wishes, self._hear_wish)
        self._bus.listen(self._subjects.asks, self._hear_ask)
        self._bus.listen(self._subjects.memories, self._hear_memory)
        for waits in self._waits:
            self._bus.listen(waits.subject, partial(self._hear_wait, waits))
        self._bus.answer(self._subjects.calls(self.id), self._desk.answer)
        self._looked_at = self._clock.monotonic()
        self._keeper.start()
        self._tasks = [asyncio.create_task(self._look_forever(), name="look at relays")]

    @property
    def is_alone(self) -> bool:
        """Whether this relay serves without the others, because leases cannot be written."""
        return self._alone_since is not None

    def carrier_of(self, provider: str) -> Carrier | None:
        """Return what carries a provider's streams upstream here."""
        return self.shares[provider].upstream.carrier

    def upstream(self) -> dict[str, Supervisor]:
        """Return by provider who has the connections to it here."""
        carriers = {name: self.carrier_of(name) for name in self.shares}
        return {name: carrier.supervisor for name, carrier in carriers.items() if carrier is not None}

    def renew(self, provider: str) -> None:
        """Let feeds with the provider's present settings take the place of those that run."""
        if (carrier := self.carrier_of(provider)) is not None:
            carrier.supervisor.renew()
        if self._keeper.follow_settings(self.shares[provider]):
            self._look()
            self._beat()
            for beat in self._peers.alive(self._clock.monotonic()):
                self._judge_settings(beat)

    def begin_anew(self, provider: str, symbol: str, before: int | None) -> None:
        """Take it that a symbol names another instrument."""
        if (carrier := self.carrier_of(provider)) is not None:
            carrier.begin_anew(symbol, before)

    def share_news(self, provider: str, updates: Iterable[PriceUpdate]) -> None:
        """Tell the others candles that turned out to be other ones, or to exist, after they were over."""
        self.shares[provider].share_news(updates)

    # -- what is heard -------------------------------------------------------------------------------

    def _hear_beat(self, body: bytes) -> None:
        beat = read_heartbeat(body)
        if beat is None:
            self.nonsense += 1
            return
        if beat.id == self.id:
            return
        if self._peers.hear(beat, self._clock.monotonic()):
            self._judge_newcomer(beat)
            # It has to know what is wanted before it owns anything, and that this relay is here.
            self._beat()
            for share in self.shares.values():
                share.say_all_wishes()
            self._tell_waits()
        if beat.is_leaving:
            for share in self.shares.values():
                share.wishes.forget(beat.id)
            self._look()

    def _judge_newcomer(self, beat: Heartbeat) -> None:
        """Say what makes less of the cluster than it could be, and cannot be seen from one relay's settings."""
        node = beat.node
        if node == self.plan.node:
            self._same_node.say("another relay is called %s too; give each its own [cluster] node", node, node=node)
        self._judge_settings(beat)

    def _judge_settings(self, beat: Heartbeat) -> None:
        node = beat.node
        for shard in beat.able:
            share = self.shares.get(shard.provider)
            if share is None:
                continue
            if shard.parts != len(share.shards):
                text = "relay %s has %d shards of %s and this one %d: they share none; set the same [cluster] shards"
                self._other_shards.say(text, node, shard.parts, shard.provider, len(share.shards), node=node)
            elif (shard.parts, shard.terms) != share.shards.kind:
                self._other_terms.say(
                    "relay %s has another %s or other settings of it, so that its candles may be others: they share "
                    "none of it; give both the same plugin and the same %s",
                    node,
                    shard.provider,
                    ", ".join(shaping(share.provider)) or "relay version",
                    node=node,
                    provider=shard.provider,
                )

    def _hear_wish(self, body: bytes) -> None:
        wish = read_wish(body)
        share = None if wish is None else self.shares.get(wish.shard.provider)
        if wish is None or wish.id == self.id:
            self.nonsense += wish is None
        elif share is not None:
            share.hear_wish(wish, self._clock.monotonic())

    def _hear_ask(self, body: bytes) -> None:
        asked = read_ask(body)
        if asked is None:
            self.nonsense += 1
            return
        id_, shard = asked
        share = self.shares.get(shard.provider)
        shared = None if share is None else share.shards.get(shard)
        if share is None or shared is None:
            return
        now = self._clock.monotonic()
        is_owner = shared.lease.is_held(now)
        # Only who is seen to be the favourite: anybody may ask.
        if is_owner and id_ != self.id and share.ownership.view(shared, now).favourite == id_:
            self._keeper.hand_over(share, shared)

    def _hear_memory(self, body: bytes) -> None:
        heard = read_memory(body)
        if heard is None:
            self.nonsense += 1
            return
        id_, provider, value = heard
        memory = self._memories.get(provider)
        beat = self._peers.said(id_, self._clock.monotonic())
        # Who is set to something else spends by itself.
        if memory is None or beat is None or self.shares[provider].shards.first.shard not in beat.able:
            return
        if any(shared.duty is not Duty.NONE for shared in self.shares[provider].shards):
            return  # it is this relay that spends now
        if value != memory.value:
            self._start(self._learn(self.shares[provider].provider, memory, value), "memory of another relay")

    def _hear_wait(self, waits: SharedWaits, body: bytes) -> None:
        self.nonsense += not waits.hear(body)

    def _tell_waits(self) -> None:
        for waits in self._waits:
            waits.tell_again()

    async def _learn(self, provider: Provider, memory: SharedMemory, value: Any) -> None:
        saved = asyncio.create_task(memory.learn(value))
        # Before it is in the database: this relay may be the next to spend.
        await asyncio.sleep(0)
        provider.remember(memory)
        await saved

    # -- what is done --------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    async def _look_forever(self) -> None:
        while True:
            try:
                self._look()
            except Exception:
                # A mistake that concerns one provider must not end the part in the cluster of all.
                log.exception("looking at the other relays failed", extra=event("cluster_failed"))
            await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        now = self._clock.monotonic()
        paused_s, self._looked_at = now - self._looked_at, now
        if paused_s > PAUSED_S:
            # Nothing could be written meanwhile, whatever the bus is like.
            self._keeper.written_at += paused_s
        self._note_alone(now)
        # Before anything is asked of a provider alone.
        self._budgets.look(now, is_alone=self.is_alone)
        for share in self.shares.values():
            share.look(now, is_alone=self.is_alone)
        if now - self._beat_at >= BEAT_S:
            self._beat()
        if now - self._wished_at >= WISHES_EVERY_S:
            self._wished_at = now
            for share in self.shares.values():
                share.wishes.expire(now)
                share.say_all_wishes()
            self._tell_waits()
            for name, memory in self._memories.items():
                if self.shares[name].ownership.claims(now) and memory.value is not None:
                    memory.tell()

    def _note_alone(self, now: float) -> None:
        is_alone = now - self._keeper.written_at >= ALONE_S
        if is_alone and self._alone_since is None:
            self._alone_since = now
            self._alone_count += 1
            why = self._keeper.fault or "it does not answer"
            log.warning("NATS cannot be used, %s: this relay serves alone", why, extra=event("cluster_alone"))
        elif not is_alone and self._alone_since is not None:
            self._alone_since = None
            log.info("this relay serves with the others again", extra=event("cluster_joined"))
            for share in self.shares.values():
                share.say_all_wishes(is_new=True)
            self._beat()

    def _beat(self) -> None:
        now = self._clock.monotonic()
        self._beat_at = now
        able = frozenset(shard for share in self.shares.values() for shard in share.ownership.able(now))
        claims = {
            shard: claim for share in self.shares.values() for shard, claim in share.ownership.claims(now).items()
        }
        beat = Heartbeat(
            self.id,
            self.plan.node,
            now,
            frozenset() if self._keeper.is_leaving else able,
            {} if self._keeper.is_leaving else claims,
            self._keeper.is_leaving,
        )
        self._bus.send(self._subjects.beats, heartbeat_body(beat))

    # -- the end -------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Give all leases up at once, so that others take what this relay carried while its clients move to them."""
        await self._keeper.leave()

    async def close(self) -> None:
        """End everything."""
        await self.leave()
        tasks = [*self._tasks, *self._works]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._keeper.close(), return_exceptions=True)
        await asyncio.gather(*(share.close() for share in self.shares.values()))
        await self._bus.close()

    # -- what is said of it --------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Return the state as JSON values, for `status`."""
        state = Loneliness(self.is_alone, self._alone_count, self.nonsense, self._budgets.parts)
        return self._report.document(self._clock.monotonic(), state, self._desk)
