"""The clients of a soak, and what the soaks have in common: a misbehaving exchange, and a judgement at the end."""

import asyncio
import random
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import orjson
import pytest

from relay.app import SUPERVISORS
from relay.streams.subscriptions import Stream
from tests.support.conditions import eventually
from tests.support.javascript_client import SUPPORT, find_node
from tests.support.running_relay import Running, end_process
from tests.support.served_files import client_file
from tests.support.soak import (
    HABITS,
    USUAL,
    Client,
    Faulter,
    Found,
    HistoryCheck,
    JavaScriptClient,
    MarketTruth,
    Message,
    PythonClient,
    SoakClient,
    StreamCheck,
)
from tests.support.untidy import UntidySandbox

STREAMS = (
    *(f"{symbol}USDT@1s" for symbol in ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE")),
    *(f"T{number:03d}USDT@1s" for number in range(1, 8)),
    "ETHBTC@1s",
    "BTCEUR@1s",
    "BTCUSDT@1m",
    "ETHUSDT@1m",
    "T001USDT@1m",
    "LRCBTC@1m",
)

LONE = tuple(f"T{number:03d}USDT@1s" for number in range(8, 14))
"""Streams of one client each: when it comes, they are opened for it."""


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Record a figure in the report, and print it."""

    def record(name: str, value: object) -> None:
        record_property(name, value)
        print(f"{name}: {value}")

    return record


def sandbox_of(seed: int) -> UntidySandbox:
    return UntidySandbox(seed=seed, pace_s=0.4, extra_symbols=13, forex_always_open=True)


def truths_of(sandbox: UntidySandbox) -> dict[str, MarketTruth]:
    return {
        name: MarketTruth(sandbox.binance, *name.split("@"), also=sandbox.binance.untidy.also)
        for name in (*STREAMS, *LONE)
    }


class Crowd:
    """All clients of one relay, raw and with both libraries, and somebody who asks for history."""

    def __init__(
        self,
        url: str,
        truths: dict[str, MarketTruth],
        sandbox: UntidySandbox,
        seed: int,
        faulter: Faulter,
        *,
        streams: Sequence[str] = STREAMS,
        lone_streams: Sequence[str] = LONE,
        has_processes: bool = True,
    ) -> None:
        self.url = url
        self.began = sandbox.clock.now()
        self._sandbox = sandbox
        self._faulter = faulter
        self._tasks: list[asyncio.Task[Any]] = []
        self._processes: list[asyncio.subprocess.Process] = []
        dice, now, moment = random.Random(seed), sandbox.clock.now, faulter.moment
        self.clients: list[Client] = []
        self._running: list[Coroutine[Any, Any, None]] = []
        for number, habit in enumerate(HABITS):
            # One has all streams, the others some.
            names = streams if not number else dice.sample(streams, dice.randint(4, 14))
            lone = lone_streams[number - 1 : number] if number else ()
            chosen = {name: truths[name] for name in (*names, *lone)}
            own = random.Random(seed * 100 + number)
            client = SoakClient(f"client {number}", url, habit, chosen, now, own, moment)
            self.clients.append(client)
            self._running.append(client.run())
        some = {name: truths[name] for name in dice.sample(streams, 8)}
        for name, options in (("python", {}), ("python with bars", {"bars": 100}), ("python closed", CLOSED_ONLY)):
            library = PythonClient(name, some, now, moment)
            self.clients.append(library)
            self._running.append(library.run(url, **options))
        if has_processes and find_node() is not None:
            self._add_js("javascript", {}, some)
            self._add_js("javascript with bars", {"bars": 100}, some)
        self.history = HistoryCheck(truths, now, random.Random(seed), moment)
        self._running.append(self.history.run(url))

    def _add_js(self, name: str, options: dict[str, Any], streams: dict[str, MarketTruth]) -> None:
        client = JavaScriptClient(name, streams, self._sandbox.clock.now, self._faulter.moment)
        self.clients.append(client)
        self._running.append(self._run_js(client, options))

    async def _run_js(self, client: JavaScriptClient, options: dict[str, Any]) -> None:
        node = find_node()
        assert node is not None
        settings = orjson.dumps({"backoffMs": [100, 1000], "waitsForRelay": True}).decode()
        process = await asyncio.create_subprocess_exec(
            node, str(SUPPORT / "js_client.mjs"), str(client_file()), self.url, settings,
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=2**24,
        )  # fmt: skip
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        async def say(words: list[Any]) -> None:
            stdin.write(orjson.dumps(words) + b"\n")
            await stdin.drain()

        async def hear() -> Message:
            line = await stdout.readline()
            assert line, "the client's process ended"
            said: Message = orjson.loads(line)
            return said

        await client.run(say, hear, **options)

    def start(self) -> None:
        """Let them all connect."""
        self._tasks = [asyncio.create_task(client) for client in self._running]

    def check_alive(self) -> None:
        """Raise what ended one of them."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def settle(self) -> None:
        """With the exchange well again: wait for what is due and judge that all of it came."""
        self.check_alive()
        for client in self.clients:
            client.stays = True
        ended = self._sandbox.clock.now() + 1
        try:
            await eventually(lambda: not self.unsettled(ended), SETTLES_S)
        except TimeoutError:
            print(f"unsettled: {self.unsettled(ended)[:10]}")
        await self.history.finish(self.url, self.began, ended)
        for check in self.checks:
            check.finish(ended)
        self.check_alive()

    def unsettled(self, now: float) -> list[str]:
        return [check.name for check in self.checks if not check.is_settled(now)]

    @property
    def checks(self) -> list[StreamCheck]:
        return [check for client in self.clients for check in client.checks.values()]

    @property
    def found(self) -> list[Found]:
        return [*(found for check in self.checks for found in check.found), *self.history.found, *self._faulter.found]

    async def stop(self) -> None:
        """Let them all go."""
        await stop(self._tasks)
        for process in self._processes:
            await end_process(process)

    def report(self, say: Callable[[str, object], None]) -> None:
        """Tell what happened, and each violation with what led to it."""
        checks = self.checks
        say("kinds of faults", len(self._faulter.injected))
        say("faults injected", sum(self._faulter.injected.values()))
        say("longest recovery, s", round(self._faulter.longest_recovery_s, 2))
        say("candles delivered", sum(check.delivered for check in checks))
        say("revised", sum(check.revised for check in checks))
        say("gaps told", sum(len(check.gaps) for check in checks))
        say("incomplete snapshots", sum(client.incomplete for client in self.clients))
        say("client connections", sum(client.connections for client in self.clients))
        say("messages", sum(client.messages for client in self.clients))
        say("history answers by status", dict(self.history.answers))
        say("errors answered", dict(sum((client.errors for client in self.clients), start=Counter())))
        say("violations", len(self.found))
        seen: Counter[tuple[str, str]] = Counter()
        for found in self.found:
            # Of one moment and kind a few suffice: most faults break many streams alike.
            kind = (found.moment, re.sub(r"[0-9.]+", "", found.text.partition(": ")[2]))
            seen[kind] += 1
            if seen[kind] <= REPORTED:
                print(found)


CLOSED_ONLY = {"closed_only": True}
SETTLES_S = 400.0
"""The relay repairs a few gaps at a time, and an exchange that refused may have to be left alone for two minutes."""
REPORTED = 2


def verdict(crowd: Crowd, seed: int) -> list[str]:
    """Return the violations, each with the seed that leads to it."""
    return [f"seed {seed}, {found.moment}: {found.text}" for found in crowd.found]


async def watch_feeds(relay: Running, most: list[int], provider: str = "binance", every_s: float = 0.005) -> None:
    """Keep the largest number of upstream connections at once in `most`."""
    while True:
        most[0] = max(most[0], relay.app[SUPERVISORS][provider].open_feeds)
        await asyncio.sleep(every_s)


def kinds_of(config: pytest.Config) -> Sequence[str] | None:
    return None if config.getoption("--soak-all") else USUAL


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def is_live(stream: Stream) -> bool:
    return stream.status == "connected"


def agree(clients: Sequence[Client], relay: Running) -> bool:
    """Say whether the last that each client was told is the last that the relay knows."""
    known = {}
    for stream in relay.hub.streams.values():
        last = stream.series.last
        if last is not None:
            known[f"{stream.name}@{stream.key.interval}"] = (last.time, tuple(last[1:]), stream.series.last_is_closed)
    return all(
        check.last == known.get(name)
        for client in clients
        if not client.options.get("closed_only")
        for name, check in client.checks.items()
    )
