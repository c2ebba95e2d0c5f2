"""Random requests of several clients to a relay of which few providers behave: each is judged by a model.

Every request is answered exactly once, what is asked of one stream in order; nobody waits for a provider that somebody
else asked for; and nothing is left of clients that are gone.
"""

import asyncio
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from relay import (
    API_VERSION,
    Candle,
    Instrument,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    StreamKey,
    Watchlist,
    hookimpl,
)
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Closed, Message, Running, WsClient

QUIET = ("relay.plugins.failure_judge", "relay.telemetry.loop_monitor")
"""A provider that lies fails, and a busy machine blocks the loop."""
PROMPT_S = 1.0
"""So long what is asked of a provider that answers may take at most, whatever others are asked."""
LATEST_S = 100.0


class Rudeness(NamedTuple):
    """How much of what."""

    clients: int = 3
    steps: int = 10
    names: int = 8
    """So many names a request has at most."""
    pause_s: float = 2.0
    floods: float = 0.05
    """How often a client asks for far more at once than it may."""
    vanishes: float = 0.05


class Fine:
    """Has a list, and answers all at once."""

    name = "fine"
    symbols: tuple[str, ...] = ("F0", "F1", "F2", "SAME")

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.watchlist: Watchlist | None = None

    @property
    def __name__(self) -> str:
        return self.name

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(self.name, API_VERSION, self.name.title(), ("demo",), ("1s", "1m"))

    async def _behave(self, symbol: str) -> None:
        """Wait or fail, as this provider does."""

    def rows(self, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        step = 60 if interval == "1m" else 1
        last = min(int(time.time()), end) // step * step
        times = range(-(-(last - 6000 * step if start is None else start) // step) * step, last + 1, step)
        return [Candle(one, 1.0, 1.0, 1.0, 1.0) for one in (times[-limit:] if start is None else times[:limit])]

    @hookimpl
    async def relay_candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        await self._behave(symbol)
        return self.rows(interval, start, end, limit)

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        self.watchlist = watchlist
        while True:
            await self._behave("")
            for key in watchlist.streams:
                step = 60 if key.interval == "1m" else 1
                yield PriceUpdate(key, Candle(int(time.time()) // step * step, 1.0, 1.0, 1.0, 1.0))
            await asyncio.sleep(0.5)


class Listed(Fine):
    """Has a list."""

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument(symbol, "demo", symbol, "USD") for symbol in self.symbols]


class Asked(Fine):
    """Says of one symbol at a time what it is."""

    @hookimpl
    async def relay_instrument(self, symbol: str) -> Instrument | None:
        await self._behave(symbol)
        return Instrument(symbol, "demo", symbol, "USD") if symbol in self.symbols else None


class Late(Asked):
    name, symbols = "late", ("L0", "L1", "SAME", "BOTH")

    async def _behave(self, symbol: str) -> None:
        await asyncio.sleep(self.rng.uniform(0.1, 6.0))


class Hanging(Asked):
    """Knows some symbols at once, and says nothing more."""

    name, symbols = "hang", ("K0", "K1")

    @hookimpl
    async def relay_instrument(self, symbol: str) -> Instrument | None:
        if symbol not in self.symbols:
            await asyncio.Event().wait()
        return Instrument(symbol, "demo", symbol, "USD")

    async def _behave(self, symbol: str) -> None:
        await asyncio.Event().wait()


class Lying(Asked):
    """Says anything."""

    name, symbols = "liar", ("Z0", "Z1", "BOTH")

    @hookimpl
    async def relay_instrument(self, symbol: str) -> Any:
        await self._behave(symbol)
        right = Instrument(symbol, "demo", symbol, "USD")
        return self.rng.choice((right, right, None, "no instrument", right._replace(symbol="OTHER"), [right]))

    async def _behave(self, symbol: str) -> None:
        await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.1, 3.0)))
        if symbol and self.watchlist is not None and self.rng.random() < 0.3:
            for interval in ("1s", "1m"):
                with suppress(ValueError):
                    self.watchlist.invalidate(StreamKey(symbol, interval))
        limited = RateLimited("no more", self.rng.uniform(0.0, 5.0))
        fault = self.rng.choice((None, None, None, ValueError("not today"), ProviderUnavailable("not today"), limited))
        if fault is not None:
            raise fault

    def rows(self, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        rows = super().rows(interval, start, end, limit)
        kind = self.rng.randrange(6)
        if kind == 0:
            rows.reverse()
        elif kind == 1:
            rows = [Candle(row.time + 7, 1.0, -1.0, 2.0, 1.0) for row in rows]
        elif kind == 2:
            rows = rows[::3]
        elif kind == 3:
            return []
        return rows


class Player:
    """One client over a WebSocket, and the model of what it is to be told."""

    def __init__(self, number: int, relay: Running, client: WsClient, rng: random.Random, rude: Rudeness) -> None:
        self.number = number
        self.relay = relay
        self.client = client
        self.rng = rng
        self.rude = rude
        self.faults: list[str] = []
        self.asked: dict[int, tuple[str, dict[str, Any], float]] = {}
        # What is still to be answered of each request: names, and which are to be answered promptly.
        self.open: dict[int, dict[str, str]] = {}
        self.prompt: dict[int, set[str]] = {}
        # Which requests there were for a name, and which was answered last for a stream.
        self.queues: defaultdict[str, list[int]] = defaultdict(list)
        self.last: Counter[tuple[str, str]] = Counter()
        self.has_flooded = False
        self.streams: set[str] = set()
        self.is_gone = False
        self.closed: Closed | None = None
        self._next = 0

    def _name(self) -> str:
        rng = self.rng
        name = rng.choice(
            (
                *("F0", "F1", "fine:F0", "fine:F2", "SAME", "late:SAME", "fine:SAME"),
                *("L0", "late:L0", "late:L1", "hang:K0", "K0", "hang:K1", "Z0", "liar:Z0", "liar:Z1", "BOTH"),
                *("late:BOTH", "liar:BOTH", "hang:NOBODYS", "NOBODYS", "late:NOBODYS", "no:body", "fine:NOBODYS"),
                f"hang:X{rng.randrange(400)}",
                f"liar:X{rng.randrange(400)}",
                f"late:X{rng.randrange(400)}",
                f"X{rng.randrange(30)}",
            )
        )
        if rng.random() < 0.3:
            name = rng.choice((str.lower, str.upper, str.title))(name)
        return f"{name}@{rng.choice(('1m', '1m', '1s', '3m', '1M', '7m'))}"

    async def ask(self, action: str, names: list[str], **options: Any) -> int:
        """Send a request, and note what is to be answered."""
        self._next += 1
        number = self._next
        self.open[number] = {_plain(name): _text(name) for name in names} or {"": action}
        pending = {plain for one in self.open if one != number for plain in self.open[one]}
        if sum(map(len, self.open.values())) > 150:
            self.has_flooded = True
        self.prompt[number] = {
            plain
            for plain, name in self.open[number].items()
            if plain not in pending and (not plain or name.startswith(("fine:f", "f0", "f1", "fine:same")))
        }
        self.asked[number] = (action, {"streams": names, **options}, now())
        for name in self.open[number].values():
            self.queues[name].append(number)
        fields = {"streams": names, **options} if names else options
        with suppress(ConnectionError):
            await self.client.ask(action, **fields, id=number)
        return number

    async def play(self) -> None:
        reading = asyncio.create_task(self._read())
        try:
            for _ in range(self.rude.steps):
                if self.closed is not None:
                    break
                if self.rng.random() < self.rude.vanishes:
                    self.is_gone = True
                    self.client.vanish()
                    return
                await self._step()
                await asyncio.sleep(self.rng.choice((0.0, 0.0, self.rng.random() * self.rude.pause_s)))
            if not self.is_gone and self.closed is None:
                await self._judge()
            if self.rng.random() < 0.5:
                self.client.vanish()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await self.client.close()

    async def _step(self) -> None:
        rng = self.rng
        if rng.random() < self.rude.floods:
            for _ in range(rng.randrange(3, 10)):
                await self.ask(
                    "subscribe", [f"hang:X{number}@1m" for number in rng.sample(range(5000), rng.randrange(20, 90))]
                )
            return
        kind = rng.random()
        if kind < 0.1:
            await self.ask("ping", [])
        elif kind < 0.2:
            await self.ask("list", [])
        else:
            found = [self._name() for _ in range(rng.randint(1, rng.randint(1, self.rude.names)))]
            names = [*{_plain(name): name for name in found}.values()]
            if kind < 0.5:
                await self.ask("unsubscribe", names)
            else:
                options: dict[str, Any] = {}
                if rng.random() < 0.4:
                    options["bars"] = rng.choice((0, 1, 50, 1000, 5000))
                if rng.random() < 0.2:
                    options["since"] = int(time.time()) - rng.choice((1, 1000, 100_000))
                if rng.random() < 0.2:
                    options["closed_only"] = True
                if rng.random() < 0.2:
                    options["throttle_ms"] = rng.choice((0, 100, 60_000))
                if rng.random() < 0.1:
                    options["extended"] = True
                await self.ask("subscribe", names, **options)

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self.client.next(timeout_s=None))
        except Closed as closed:
            self.closed = closed
            if not self.is_gone:
                self.faults.append(f"closed: {closed}")

    def _take(self, message: Message) -> None:
        self.client.received.clear()
        number, kind = message.get("id"), message["type"]
        if kind == "subscription":
            label = f"{message['symbol']}@{message['interval']}"
            if message["action"] == "subscribe":
                self.streams.add(label)
            elif label in self.streams:
                self.streams.remove(label)
            else:
                self.faults.append(f"left {label}, which it had not: {message}")
        if kind == "error" and message["code"] == "internal":
            self.faults.append(f"{message}")
        if number is None:
            return
        if kind == "subscriptions" and {*message["streams"]} != self.streams:
            self.faults.append(
                f"other streams than confirmed: {sorted(self.streams.symmetric_difference(message['streams']))}"
            )
        if number not in self.open:
            self.faults.append(f"answered once too often: {message} to {self.asked[number]}")
            return
        if kind == "error" and message["code"] == "rate_limited" and "symbol" not in message:
            # The whole request was refused.
            for plain in [*self.open[number]]:
                self._answered(number, plain, message, is_whole=True)
        else:
            plain = _plain(f"{message['symbol']}@{message['interval']}") if "symbol" in message else ""
            if plain in self.open[number]:
                self._answered(number, plain, message)
            else:
                self.faults.append(f"answered what it did not ask: {message} to {self.asked[number]}")

    def _answered(self, number: int, plain: str, message: Message, *, is_whole: bool = False) -> None:
        name = self.open[number].pop(plain)
        if not self.open[number]:
            del self.open[number]
        if self.queues[name][0] != number and plain and not is_whole:
            first = self.queues[name][0]
            self.faults.append(f"{name}: {number} before {first}: {message}")
        self.queues[name].remove(number)
        if plain and (provider := message.get("provider")) is not None:
            last = self.last[provider, plain]
            if last > number:
                self.faults.append(f"{provider} {plain}: {number} after {last}: {message}")
            self.last[provider, plain] = number
        took_s = now() - self.asked[number][2]
        if plain in self.prompt[number] and took_s > PROMPT_S and not self.has_flooded:
            self.faults.append(f"{name} after {took_s:.1f} s: {message} to {self.asked[number]}")

    async def _judge(self) -> None:
        began = now()
        while self.open:
            if self.closed is not None:
                return
            if now() - began > LATEST_S:
                late = [(names, self.asked[one]) for one, names in self.open.items()]
                self.faults.append(f"not answered: {late}"[:2000])
                return
            await asyncio.sleep(0.1)
        await self.ask("list", [])
        await eventually(lambda: not self.open or self.closed)


def _plain(name: str) -> str:
    """Return a name without a provider."""
    symbol, _, interval = name.rpartition("@")
    return f"{symbol.rpartition(':')[2].lower()}@{interval}"


def _text(name: str) -> str:
    """Return a name in its one spelling: `1M` is no minute."""
    symbol, _, interval = name.rpartition("@")
    return f"{symbol.lower()}@{interval}"


def now() -> float:
    return asyncio.get_running_loop().time()


async def bystander(relay: Running, faults: list[str], stop: asyncio.Event) -> None:
    """Ask for what is fine again and again, and judge how long it takes."""
    client = await relay.connect()
    await client.subscribe("fine:F0@1s")
    number = 0
    while not stop.is_set():
        await asyncio.sleep(0.7)
        for action, fields in (
            ("ping", {}),
            ("subscribe", {"streams": ["F1@1m"], "bars": 5}),
            ("unsubscribe", {"streams": ["fine:F1@1m"]}),
            ("subscribe", {"streams": ["fine:SAME@1s"]}),
            ("unsubscribe", {"streams": ["fine:SAME@1s"]}),
        ):
            number += 1
            began = now()
            await client.ask(action, **fields, id=number)
            answer = await client.answer(number)
            if answer["type"] == "error":
                faults.append(f"bystander: {answer}")
            if now() - began > PROMPT_S:
                faults.append(f"bystander: {action} {fields} took {now() - began:.1f} s")
        began = now()
        await client.update(symbol="F0")
        if now() - began > 2.0:
            faults.append(f"bystander: no update for {now() - began:.1f} s")
        client.received.clear()
    await client.close()


async def watcher(relay: Running, rng: random.Random, names: list[str], faults: list[str]) -> None:
    """Have streams over events, and vanish."""
    client = relay.event_client()
    options: dict[str, Any] = {"bars": rng.choice((0, 10, 1000))} if rng.random() < 0.5 else {}
    try:
        await client.ask("subscribe", streams=names, **options)
        async with asyncio.timeout(rng.random() * 20):
            while True:
                message = await client.next(timeout_s=None)
                if message["type"] == "error" and message["code"] == "internal":
                    faults.append(f"watcher: {message}")
    except Closed as closed:
        if closed.code not in (429,):
            faults.append(f"watcher: {closed}")
    except TimeoutError:
        pass
    client.vanish()


async def play(relay: Running, seed: int, rude: Rudeness) -> list[str]:
    """Perform a play; return what was wrong."""
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(f"loop: {context}"))
    before = asyncio.all_tasks()
    stop = asyncio.Event()
    beside = asyncio.create_task(bystander(relay, faults, stop))
    players = []
    for number in range(rude.clients):
        client = await relay.connect()
        players.append(Player(number, relay, client, random.Random(f"{seed}-{number}"), rude))
    watching = []
    for number in range(rude.clients // 2):
        rng = random.Random(f"{seed}-w{number}")
        names = list(dict.fromkeys(players[0]._name() for _ in range(8)))
        watching.append(asyncio.create_task(watcher(relay, rng, names, faults)))
    await asyncio.gather(*(one.play() for one in players), *watching)
    stop.set()
    await beside
    for one in players:
        faults += [f"client {one.number}: {fault}" for fault in one.faults]
    try:
        await eventually(lambda: not relay.clients.connections, timeout_s=5.0)
        await eventually(lambda: not relay.hub.streams, timeout_s=5.0)
    except TimeoutError:
        faults.append(f"left: {[*relay.clients.connections]} {[*relay.hub.streams]}")
    if relay.access.clients or relay.access._per_owner:
        faults.append(f"counted: {relay.access.clients}")
    if relay.hub.subscribers:
        faults.append(f"subscribers: {len(relay.hub.subscribers)}")
    await asyncio.sleep(100.0)
    left = [task for task in asyncio.all_tasks() - before if not task.done()]
    faults += [f"task left: {task.get_name()} {task.get_coro()}" for task in left]
    return faults


# How much there is to do depends on when it begins; a busy machine takes minutes for it.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [4])
async def test_rude_clients(relay_with: StartRelay, way: str, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    builtin = (Hanging(rng), Lying(rng), Late(rng), Listed(rng))
    # Those of hours come within seconds.
    relay = await relay_with(builtin=builtin, with_stand_ins=False, max_requests_per_second=100_000)
    with caplog.at_level(logging.ERROR):
        faults = await play(relay, seed, Rudeness())
    faults += [
        f"log: {record.getMessage()}"
        for record in caplog.records
        if record.levelno >= logging.ERROR and record.name not in QUIET
    ]
    assert not faults, "\n".join(faults[:20])
