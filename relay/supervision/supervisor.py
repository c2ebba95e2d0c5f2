"""Which streams of one provider are wanted, and which slot carries each; they linger after the last subscriber."""

import asyncio
import random
from collections.abc import Callable, Mapping
from itertools import count

from relay.clock import Clock
from relay.history import History
from relay.hub import Hub
from relay.model import StreamKey
from relay.plugins.provider import Provider
from relay.stream import Stream
from relay.supervision.attempts import Attempts
from relay.supervision.backfill import Backfill
from relay.supervision.carried import Carried, Planned
from relay.supervision.feeds import Feed, Intake
from relay.supervision.recheck import Recheck
from relay.supervision.slots import Slot

TICK_S = 1.0


class Supervisor:
    """Keeps the streams of one provider fed. A failure here never reaches another provider.

    `intake`, `attempts` and `backfill` count what happens, over all feeds and streams.
    """

    def __init__(
        self,
        provider: Provider,
        hub: Hub,
        history: History,
        clock: Clock,
        *,
        linger_s: float,
        rng: random.Random | None = None,
    ) -> None:
        self.provider = provider
        self.clock = provider.clock
        self.has_history = provider.has_history
        self._rng = rng or random.Random()
        self.intake = Intake(provider.name)
        self.attempts = Attempts()
        self.backfill = Backfill(provider, hub, history, clock, self._rng)
        self.recheck = Recheck(provider, history, clock)
        self._hub = hub
        self._machine_clock = clock
        self._linger_s = linger_s
        self._carried: dict[StreamKey, Carried] = {}
        self._slots: dict[Slot, None] = {}
        self._slot_of: dict[StreamKey, Slot] = {}
        self._lingering: dict[StreamKey, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._is_closing = False

    @property
    def open_feeds(self) -> int:
        """How many upstream connections or polling loops run now."""
        return sum(slot.open_feeds for slot in self._slots)

    def planned(self, key: StreamKey) -> Planned | None:
        """Return when a polled stream is asked for next, if its feed said so."""
        carried = self._carried.get(key)
        return None if carried is None else carried.planned

    # -- what is wanted ----------------------------------------------------------------------------

    def wanted(self, stream: Stream) -> None:
        """Carry a stream upstream, or go on carrying it if it was lingering."""
        key = stream.key
        handle = self._lingering.pop(key, None)
        if handle is not None:
            handle.cancel()
        if key in self._carried or self._is_closing:
            return
        stream.series.market = self.provider.market(key.symbol)
        carried = self._carried[key] = Carried(stream, self._hub, self._machine_clock)
        slot = next((slot for slot in self._slots if slot.has_room(key)), None)
        if slot is None:
            slot = self._open_slot()
        slot.add(carried)
        self._slot_of[key] = slot
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick_forever(), name=f"watch {self.provider.name}")

    def unwanted(self, stream: Stream) -> None:
        """Stop carrying a stream when it has been without subscribers for the linger time."""
        carried = self._carried.get(stream.key)
        if self._is_closing or carried is None or carried.stream is not stream:
            self._hub.remove(stream)
            return
        loop = asyncio.get_running_loop()
        self._lingering[stream.key] = loop.call_later(self._linger_s, self._drop, carried)

    def delist(self, symbols: set[str]) -> None:
        """End the streams of symbols that the provider no longer lists."""
        for key, carried in list(self._carried.items()):
            if key.symbol.upper() in symbols:
                self._refuse(carried, f"{self.provider.info.title} no longer lists {key.symbol}")

    def _refuse(self, carried: Carried, reason: str) -> None:
        """Give a stream up for good: its subscribers see the state `error`; subscribing again later tries again."""
        self._forget(carried)
        carried.refuse(reason)

    def _drop(self, carried: Carried) -> None:
        del self._lingering[carried.stream.key]
        self._forget(carried)
        self._hub.remove(carried.stream)

    def _forget(self, carried: Carried) -> None:
        """Take a stream out of its slot; end the slot when it was the last one. Harmless when it was refused before."""
        key = carried.stream.key
        if self._carried.get(key) is not carried:
            return
        del self._carried[key]
        self.backfill.cancel(carried)
        slot = self._slot_of.pop(key)
        slot.remove(key)
        if slot.is_empty:
            del self._slots[slot]
            slot.task.cancel()
            self._ending.add(slot.task)
            slot.task.add_done_callback(self._ending.discard)

    # -- slots -------------------------------------------------------------------------------------

    def _open_slot(self) -> Slot:
        slot = Slot(
            self.provider,
            self.backfill,
            self.attempts,
            self._machine_clock,
            self._rng,
            self._new_feed,
            self._refuse,
        )
        self._slots[slot] = None
        return slot

    def _new_feed(self, carried: Mapping[StreamKey, Carried], on_closing: Callable[[str], None]) -> Feed:
        return Feed(
            next(self._numbers),
            carried,
            self.provider,
            self._hub,
            self.backfill,
            self.intake,
            on_refuse=self._refuse,
            on_closing=on_closing,
        )

    def renew(self) -> None:
        """Let feeds with the provider's present settings take the place of those that run; no stream is lost."""
        for slot in self._slots:
            slot.renew()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.check(self._machine_clock.monotonic())

    def check(self, now: float) -> None:
        """Do something about silent streams, candles that nobody closed, gaps and doubts; called every second."""
        for slot in self._slots:
            slot.check_silence(now)
        for carried in self._carried.values():
            self.backfill.check_close(carried, now)
        self.backfill.repair(self._carried, now)
        self.recheck.check(self._carried, now)

    async def close(self) -> None:
        """End all feeds and everything that was started for them."""
        self._is_closing = True
        for handle in self._lingering.values():
            handle.cancel()
        tasks = [*(slot.task for slot in self._slots), *self._ending]
        if self._ticker is not None:
            tasks.append(self._ticker)
        for task in tasks:
            task.cancel()
        await asyncio.gather(self.backfill.close(), self.recheck.close(), *tasks, return_exceptions=True)
