"""Takes, renews and gives up the leases of one relay, as `Lease` says; knows when the bucket was written last."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import orjson

from relay.cluster.bus import Bus, BusError
from relay.cluster.lease import Move
from relay.cluster.provider_share import ProviderShare
from relay.cluster.shards import Shard
from relay.cluster.shared_shard import SharedShard
from relay.core.clock import Clock
from relay.telemetry.events import event
from relay.telemetry.histogram import LAG_BOUNDS_S, Histogram

log = logging.getLogger(__name__)

LEASE_EVERY_S = 0.1
TOUCH_EVERY_S = 0.5
ENDS_S = 1.0
"""So long writes under way are waited for at the end: each may still give the lease that it is about."""


class LeaseKeeper:
    """Owns the work on all leases of a relay. `round_trip` is how long writes take, `fault` why the last one failed.

    `written_at` is when the last write that succeeded was asked for. `on_change` is called when what this relay owns is
    other than before, `on_news` when others are to know it, and `ask` to ask the owner of a shard for it.
    """

    def __init__(
        self,
        id_: str,
        node: str,
        bus: Bus,
        clock: Clock,
        shares: Mapping[str, ProviderShare],
        *,
        on_change: Callable[[], None],
        on_news: Callable[[], None],
        ask: Callable[[Shard], None],
    ) -> None:
        self.round_trip = Histogram(LAG_BOUNDS_S)
        self.is_leaving = False
        self.fault = ""
        self.written_at = self._touched_at = clock.monotonic()
        self._id = id_
        self._value = orjson.dumps({"id": id_, "node": node})
        self._bus = bus
        self._clock = clock
        self._shares = shares
        self._on_change = on_change
        self._on_news = on_news
        self._ask = ask
        self._busy: set[SharedShard] = set()
        self._works: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take and renew."""
        self.written_at = self._clock.monotonic()
        self._task = asyncio.create_task(self._lease_forever(), name="leases")

    def hand_over(self, share: ProviderShare, shared: SharedShard) -> None:
        """Give a lease up for another relay. Returns at once."""
        self._start(self._hand_over(share, shared), f"hand over {shared.shard}")

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    async def _lease_forever(self) -> None:
        while True:
            try:
                self._step_all(self._clock.monotonic())
            except Exception:
                # One provider's mistake must not end the leases of all.
                log.exception("a step of leases failed", extra=event("leases_failed"))
            await asyncio.sleep(LEASE_EVERY_S)

    def _step_all(self, now: float) -> None:
        if now - self._touched_at >= TOUCH_EVERY_S:
            self._touched_at = now
            self._start(self._touch(), "touch")
        for share in self._shares.values():
            for shared in share.shards:
                if shared not in self._busy:
                    self._step(share, shared, now)

    def _step(self, share: ProviderShare, shared: SharedShard, now: float) -> None:
        if self.is_leaving or (shared.lease.revision is None and not share.ownership.is_able(shared, now)):
            return
        if shared.lease.is_held(now) and share.ownership.should_yield(shared, now):
            log.warning(
                "this relay gives %s up, because it reaches nothing of it upstream",
                shared.shard,
                extra=event("shard_yielded", shard=str(shared.shard)),
            )
            self._busy.add(shared)
            self._start(self._yield(share, shared), f"yield {shared.shard}")
            return
        match shared.lease.move(now, share.ownership.view(shared, now)):
            case Move.TAKE:
                self._busy.add(shared)
                self._start(self._write(share, shared, None), f"take {shared.shard}")
            case Move.RENEW:
                self._busy.add(shared)
                self._start(self._write(share, shared, shared.lease.revision), f"renew {shared.shard}")
            case Move.ASK:
                self._ask(shared.shard)
            case _:
                pass

    async def _write(self, share: ProviderShare, shared: SharedShard, revision: int | None) -> None:
        asked_at, name = self._clock.monotonic(), f"lease.{shared.shard}"
        try:
            if revision is None:
                written = await self._bus.acquire(name, self._value)
            else:
                written = await self._bus.renew(name, self._value, revision)
        except BusError:
            return
        finally:
            self._busy.discard(shared)
        self.written_at = max(self.written_at, asked_at)
        if written is not None and (self.is_leaving or shared.lease.revision != revision):
            # It was handed over meanwhile.
            await self._give_up(shared, written)
            return
        if written is None:
            if revision is not None and shared.lease.revision == revision:
                shared.lease.lose()
                share.ownership.handovers["lost"] += 1
                self._on_change()
            return
        share.ownership.hold(shared, written, asked_at)
        if revision is None:
            log.info("this relay takes %s", shared.shard, extra=event("shard_taken", shard=str(shared.shard)))
            self._on_change()
            self._on_news()

    async def _touch(self) -> None:
        asked_at = self._clock.monotonic()
        try:
            await self._bus.touch(f"relay.{self._id}", b"")
        except BusError as error:
            self.fault = str(error)
            return
        self.fault = ""
        self.written_at = max(self.written_at, asked_at)
        self.round_trip.observe(self._clock.monotonic() - asked_at)

    async def _hand_over(self, share: ProviderShare, shared: SharedShard) -> None:
        """Give the lease up; the streams are carried until the next owner is live, if the provider lets that be."""
        revision = shared.lease.revision
        if revision is None:
            return
        shared.lease.hand_over(self._clock.monotonic())
        share.ownership.handovers["given"] += 1
        log.info("this relay hands %s over", shared.shard, extra=event("shard_given", shard=str(shared.shard)))
        self._on_change()
        await share.let_go()
        await self._give_up(shared, revision)
        self._on_news()

    async def _yield(self, share: ProviderShare, shared: SharedShard) -> None:
        try:
            await self._hand_over(share, shared)
        finally:
            self._busy.discard(shared)

    async def _give_up(self, shared: SharedShard, revision: int) -> None:
        await self._give_up_named(shared.shard, revision)

    async def _give_up_named(self, shard: Shard, revision: int) -> None:
        # Otherwise it ends by itself.
        with suppress(BusError):
            await self._bus.give_up(f"lease.{shard}", revision)

    def follow_settings(self, share: ProviderShare) -> bool:
        """Give up what a provider's share had under the terms of before, if they are others now; say whether."""
        held = [(shared.shard, shared.lease.revision) for shared in share.shards]
        if not share.follow_settings():
            return False
        for shard, revision in held:
            if revision is not None:
                self._start(self._give_up_named(shard, revision), f"give up {shard}")
        return True

    async def leave(self) -> None:
        """Give all leases up at once. Harmless when that was done."""
        if self.is_leaving or self._task is None:
            return
        self.is_leaving = True
        held = [
            (share, shared, shared.lease.revision)
            for share in self._shares.values()
            for shared in share.shards
            if shared.lease.revision is not None
        ]
        for _, shared, _ in held:
            shared.lease.lose()
        self._on_change()
        for share in {share: None for share, _, _ in held}:
            await share.let_go()
        await asyncio.gather(*(self._give_up(shared, revision) for _, shared, revision in held if revision))
        if self._works:
            await asyncio.wait({*self._works}, timeout=ENDS_S)
        self._on_news()

    async def close(self) -> None:
        """End what is under way."""
        tasks = [*self._works, *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
