"""A bus in the memory of a test: it loses, doubles and delays messages on order, and can be cut."""

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple

from relay.cluster.bus import BusError, OnMessage, OnRequest
from relay.cluster.wire.parts import PartedAnswer, parted_answer
from relay.cluster.wire.wire_values import Malformed


class _LeaseHeld(NamedTuple):
    value: bytes
    revision: int
    until: float


class BusFaults(NamedTuple):
    """What becomes of messages: shares of 1, and the longest delay in seconds, which puts them in disorder."""

    lost: float = 0.0
    doubled: float = 0.0
    delay_s: float = 0.0


class FakeBroker:
    """What stands between relays. `faults` concern messages whose subject contains `on`."""

    def __init__(self, seed: int = 1, ttl_s: float = 2.0) -> None:
        self.faults = BusFaults()
        self.on = ".news."
        self.is_down = False
        self.leases: dict[str, _LeaseHeld] = {}
        self.heard: list[tuple[str, bytes]] = []
        self.dice = random.Random(seed)
        self._ttl_s = ttl_s
        self._listeners: dict[tuple[str, FakeListener], None] = {}
        self._answers: dict[str, OnRequest] = {}
        self._revision = 0

    def forget(self) -> None:
        """Lose all leases, as a server does that is started anew."""
        self.leases.clear()
        self._revision = 0

    def listen(self, listener: "FakeListener") -> None:
        self._listeners[listener.subject, listener] = None

    def unlisten(self, listener: "FakeListener") -> None:
        self._listeners.pop((listener.subject, listener), None)

    def answer(self, subject: str, give: OnRequest) -> None:
        self._answers[subject] = give

    def faults_of(self, subject: str) -> BusFaults:
        """Return what becomes of messages of a subject."""
        return self.faults if self.on in subject else BusFaults()

    def publish(self, subject: str, body: bytes, sender: "FakeBus | None" = None) -> None:
        """Deliver a message to all who listen, soon."""
        self.heard.append((subject, body))
        faults = self.faults_of(subject)
        if self.dice.random() < faults.lost:
            return
        copies = 2 if self.dice.random() < faults.doubled else 1
        loop = asyncio.get_running_loop()
        for name, listener in [*self._listeners]:
            if name == subject and listener.bus is not sender:
                for _ in range(copies):
                    if not faults.delay_s:
                        # Timers of the same moment come in no order.
                        loop.call_soon(listener.hear, body)
                        continue
                    loop.call_later(self.dice.uniform(0.0, faults.delay_s), listener.hear, body)

    async def request(self, subject: str, body: bytes) -> bytes:
        give = self._answers.get(subject)
        if give is None:
            raise BusError("no responders")
        return await give(body)

    def write(self, name: str, value: bytes, expected: int | None) -> int | None:
        """Write a lease if its revision is the expected one, 0 for none; None expects nothing."""
        now = asyncio.get_running_loop().time()
        held = self.leases.get(name)
        present = 0 if held is None or held.until <= now else held.revision
        if expected is not None and present != expected:
            return None
        self._revision += 1
        self.leases[name] = _LeaseHeld(value, self._revision, now + self._ttl_s)
        return self._revision


class FakeListener:
    """One subscription of one relay."""

    def __init__(self, bus: "FakeBus", subject: str, take: OnMessage) -> None:
        self.bus = bus
        self.subject = subject
        self._take = take

    def hear(self, body: bytes) -> None:
        """Take a message, unless the relay is cut off by now."""
        if self.bus.is_connected:
            self._take(body)

    def end(self) -> None:
        """Hear nothing more."""
        self.bus.broker.unlisten(self)


class FakeBus:
    """One relay's connection; `is_cut` parts it from the others."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.is_cut = False
        self.lost = 0
        self.most_bytes = 1 << 20

    @property
    def is_connected(self) -> bool:
        return not (self.is_cut or self.broker.is_down)

    async def start(self) -> None:
        """Nothing has to be opened."""

    async def close(self) -> None:
        """Nothing has to be closed."""

    def send(self, subject: str, body: bytes) -> None:
        if len(body) > self.most_bytes:
            self.lost += 1
        elif self.is_connected:
            self.broker.publish(subject, body, self)

    def listen(self, subject: str, take: OnMessage) -> FakeListener:
        listener = FakeListener(self, subject, take)
        self.broker.listen(listener)
        return listener

    def answer(self, subject: str, give: OnRequest) -> FakeListener:
        async def give_if_reached(body: bytes) -> bytes:
            if not self.is_connected:
                await asyncio.sleep(3600)
            answer = await give(body)
            parts = parted_answer(answer, self.most_bytes)
            if len(parts) == 1:
                return answer
            whole, dice, faults = PartedAnswer(), self.broker.dice, self.broker.faults_of(subject)
            try:
                for part in parts:
                    if dice.random() >= faults.lost:
                        whole.take(part)
            except Malformed:
                raise BusError("parts of the answer are missing") from None
            if whole.body is None:
                raise BusError("parts of the answer are missing")
            return whole.body

        self.broker.answer(subject, give_if_reached)
        return FakeListener(self, subject, lambda body: None)

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        await self._pass()
        try:
            async with asyncio.timeout(timeout_s):
                return await self.broker.request(subject, body)
        except TimeoutError:
            raise BusError("no answer") from None

    async def acquire(self, name: str, value: bytes) -> int | None:
        return await self._write(lambda: self.broker.write(name, value, 0))

    async def renew(self, name: str, value: bytes, revision: int) -> int | None:
        return await self._write(lambda: self.broker.write(name, value, revision))

    async def give_up(self, name: str, revision: int) -> None:
        await self._pass()
        held = self.broker.leases.get(name)
        if held is not None and held.revision == revision:
            del self.broker.leases[name]

    async def touch(self, name: str, value: bytes) -> None:
        await self._write(lambda: self.broker.write(name, value, None))

    async def _write(self, write: Callable[[], int | None]) -> int | None:
        await self._pass()
        return write()

    async def _pass(self) -> None:
        await asyncio.sleep(0.002)
        if not self.is_connected:
            await asyncio.sleep(1.0)
            raise BusError("cut")
