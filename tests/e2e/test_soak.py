"""The whole relay against a misbehaving exchange, over real sockets, with the truth known: the contract holds.

`pytest tests/e2e/test_soak.py --soak-seconds 600 --soak-seed 7 -s` runs longer, with other faults.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from relay.app import SUPERVISORS, RelayLimits
from relay.storage.inspect import overview, reading
from relay.storage.verify import verify
from relay.streams.subscriptions import Stream
from relay.supervision.timing import FeedTiming
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.free_ports import free_port
from tests.support.javascript_client import SUPPORT, find_node, node_of
from tests.support.own_time import OwnTimeLoop
from tests.support.relay_process import WITHOUT_FUTURES
from tests.support.running_relay import Running, end_process, start_relay
from tests.support.served_files import client_file
from tests.support.soak import (
    HABITS,
    USUAL,
    Client,
    Faulter,
    Found,
    HistoryCheck,
    JavaScriptClient,
    ListedTruth,
    MarketTruth,
    Message,
    PythonClient,
    SoakClient,
    StreamCheck,
    parts_of,
)
from tests.support.untidy import UntidySandbox, UntidyUsdm, Values

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

# -- the checker finds what it is there to find ----------------------------------------------------

NOON = 1_764_028_800


def values(minute: int) -> Values:
    return 10.0 + minute, 12.0 + minute, 9.0 + minute, 11.0 + minute, 5.0


TRUTH = {NOON + 60 * minute: values(minute) for minute in range(12) if minute != 7}


def update(minute: int, *, closed: bool = True, shape: Values | None = None, **marks: bool) -> Message:
    names = ("open", "high", "low", "close", "volume")
    candle = {"time": NOON + 60 * minute, **dict(zip(names, shape or values(minute), strict=True))}
    return {"type": "price_update", "candle": candle, "is_closed": closed, **marks}


def snapshot(minutes: Iterable[int], *, last_is_closed: bool = True, complete: bool = True) -> Message:
    candles = [update(minute)["candle"] for minute in minutes]
    return {"type": "snapshot", "candles": candles, "last_is_closed": last_is_closed, "complete": complete}


def gap(start: int, end: int) -> Message:
    return {"type": "gap", "from": NOON + 60 * start, "to": NOON + 60 * end}


def judge(*messages: Message, since: int | None = None, finish: int | None = None) -> list[str]:
    check = StreamCheck("X@1m", ListedTruth(TRUTH))
    check.subscribed(NOON + 30, None if since is None else NOON + 60 * since)
    for message in messages:
        check.take(message)
    if finish is not None:
        check.finish(NOON + 60 * finish)
    return check.violations


@pytest.mark.parametrize(
    "messages",
    [
        [update(0), update(1), update(2)],
        [update(0, closed=False), update(0), update(1, closed=False), update(1)],
        [snapshot(range(5)), update(5), update(6), update(8)],
        [snapshot(range(3), last_is_closed=False), update(2), update(3)],
        [update(0), gap(1, 4), update(4)],
        [update(0), gap(1, 3), update(3), update(1, revised=True), update(2, revised=True), update(4)],
        [update(0), snapshot([4, 5], complete=False), update(6)],
    ],
)
def test_the_checker_lets_a_sound_sequence_pass(messages: list[Message]) -> None:
    assert judge(*messages) == []


OTHER = (10.0, 99.0, 1.0, 11.0, 5.0)


@pytest.mark.parametrize(
    ("planted", "messages"),
    [
        ("a hole", [update(0), update(2)]),
        ("a hole before an open candle", [update(0), update(2, closed=False)]),
        ("a candle never closed", [update(0, closed=False), update(1, closed=False)]),
        ("a first candle that was owed", [update(1)]),
        ("a duplicate", [update(0), update(0)]),
        ("an open state after the closing", [update(0), update(0, closed=False)]),
        ("time that goes back", [update(0), update(1), update(0)]),
        ("open time that goes back", [update(0), update(2, closed=False), update(1, closed=False)]),
        ("wrong values", [update(0, shape=OTHER)]),
        ("wrong values in a revision", [update(0), update(0, shape=OTHER, revised=True)]),
        ("an impossible open state", [update(0, closed=False, shape=OTHER), update(0)]),
        ("a revision that changes nothing", [update(0), update(0, revised=True)]),
        ("an open revision", [update(0), update(0, closed=False, revised=True)]),
        ("a candle that never was", [*(update(minute) for minute in range(7)), update(7)]),
        ("a hole in a snapshot", [snapshot([0, 1, 3])]),
        ("a snapshot out of order", [snapshot([0, 2, 1])]),
        ("a hole behind a snapshot", [snapshot([0, 1]), update(3)]),
        ("a snapshot repeated live", [snapshot([0, 1]), update(1)]),
        ("an empty gap", [update(0), gap(2, 2)]),
        ("a hole beside a gap", [update(0), gap(1, 2), update(3)]),
        ("a gap told too late", [update(0), update(2), gap(1, 2)]),
        ("an update that the snapshot held", [{**snapshot([0, 1]), "seq": 5}, {**update(2), "seq": 5}]),
    ],
)
def test_the_checker_finds(planted: str, messages: list[Message]) -> None:
    assert judge(*messages) != [], planted


def test_the_checker_finds_a_hole_after_a_resume() -> None:
    assert judge(update(4), since=2) != []
    assert judge(snapshot([4]), since=2) != []
    assert judge(snapshot([3]), since=2) == []


def test_the_checker_finds_a_resume_that_repeats() -> None:
    assert judge(snapshot([2, 3]), since=2) != []


def test_the_checker_lets_a_resume_bring_what_was_a_gap() -> None:
    check = StreamCheck("X@1m", ListedTruth(TRUTH))
    check.subscribed(NOON + 30)
    for message in (update(0), gap(1, 2), update(2, closed=False)):
        check.take(message)
    check.subscribed(NOON + 130, since=NOON)
    for message in (snapshot((1, 2), last_is_closed=False), update(2), update(3)):
        check.take(message)
    assert check.violations == []


def test_the_checker_finds_an_end_that_never_came() -> None:
    assert judge(update(0), update(1), finish=5) != []
    assert judge(update(0), update(1), finish=2) == []
    assert judge(finish=2) != []


def test_the_checker_finds_a_gap_that_is_never_repaired() -> None:
    broken = [update(0), gap(1, 3), update(3), update(1, revised=True)]
    assert judge(*broken, finish=4) != []
    assert judge(*broken, update(2, revised=True), finish=4) == []
    assert judge(update(6), gap(7, 8), update(8), finish=9) == judge(update(6), update(8), finish=9)


def test_the_checker_finds_a_complete_snapshot_that_is_old() -> None:
    check = StreamCheck("X@1m", ListedTruth(TRUTH))
    check.subscribed(NOON + 30)
    check.take(snapshot(range(3)), NOON + 60 * 4 + 10)
    assert check.violations == []
    check.subscribed(NOON + 30)
    check.take(snapshot(range(3)), NOON + 60 * 4 + 20)
    assert check.violations != []


def test_a_violation_names_the_moment_and_the_messages_around_it() -> None:
    check = StreamCheck("X@1m", ListedTruth(TRUTH), lambda: "second 3.0, rest_slow")
    check.subscribed(NOON + 30)
    for message in (update(0), update(2), update(3)):
        check.take(message, NOON + 200)
    (found,) = check.found
    lines = str(found).splitlines()
    assert lines[0] == f"X@1m: {NOON + 60} missing before {NOON + 120} (second 3.0, rest_slow)"
    assert [line.count('"time"') for line in lines[1:]] == [0, 1, 1, 1]


# -- the soak --------------------------------------------------------------------------------------


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


@pytest.mark.soak
async def test_no_fault_of_the_exchange_breaks_the_contract(
    request: pytest.FixtureRequest, say: Callable[[str, object], None]
) -> None:
    # So short that history is given up now and then: gaps and their repair belong to the contract.
    limits = RelayLimits(feeds=FeedTiming(history_patience_s=1.0, repair_every_s=3.0))
    node_of(request.config)
    seconds, seed = request.config.getoption("--soak-seconds"), request.config.getoption("--soak-seed")
    async with sandbox_of(seed) as sandbox:
        truths = truths_of(sandbox)
        relay = await start_relay(sandbox, linger_seconds=0.3, flush_ms=20, limits=limits)

        async def not_live() -> list[str]:
            streams = relay.hub.streams.values()
            return [f"{stream.name}@{stream.key.interval} {stream.status}" for stream in streams if not is_live(stream)]

        faulter = Faulter(sandbox.binance, truths, random.Random(seed), not_live, kinds_of(request.config))
        crowd = Crowd(relay.url, truths, sandbox, seed, faulter)
        most_feeds = [0]
        watching = asyncio.create_task(watch_feeds(relay, most_feeds))
        crowd.start()
        try:
            await eventually(lambda: len(relay.hub.streams) >= len(STREAMS))
            await faulter.run(time.monotonic() + seconds)
            await crowd.settle()
            sandbox.binance.faults.mute()
            await eventually(lambda: agree(crowd.clients, relay))
        finally:
            crowd.report(say)
            say("upstream connections", sandbox.binance.connects)
            say("connections at once", most_feeds[0])
            await crowd.stop()
            await stop([watching])
            await relay.close()
    assert verdict(crowd, seed) == []
    assert most_feeds[0] <= 2


FUTURES = (
    *(
        f"binance_usdm:{symbol}USDT@1m"
        for symbol in ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "1000PEPE", "TSLA")
    ),
    *(f"binance_usdm:T{number:03d}USDT@1m" for number in range(1, 8)),
)
FUTURES_LONE = tuple(f"binance_usdm:T{number:03d}USDT@1m" for number in range(8, 12))
FUTURES_LONGER = 5
"""Of futures there are no seconds: so many times longer than that of spot their soak lasts, in time that jumps."""


@pytest.mark.soak
def test_no_fault_of_futures_breaks_the_contract(
    request: pytest.FixtureRequest, say: Callable[[str, object], None]
) -> None:
    seconds = request.config.getoption("--soak-seconds") * FUTURES_LONGER
    with asyncio.Runner(loop_factory=OwnTimeLoop) as runner:
        runner.run(futures_soak(seconds, request.config.getoption("--soak-seed"), kinds_of(request.config), say))


async def futures_soak(
    seconds: float, seed: int, kinds: Sequence[str] | None, say: Callable[[str, object], None]
) -> None:
    """Let a relay that has futures only go through faults of them."""
    limits = RelayLimits(feeds=FeedTiming(history_patience_s=1.0, repair_every_s=3.0))
    off = {name: {"enabled": False} for name in ("binance", "twelve_data")}
    async with UntidySandbox(seed=seed, pace_s=2.0, extra_symbols=11, futures=True) as sandbox:
        exchange = sandbox.futures
        assert isinstance(exchange, UntidyUsdm)
        names = (*FUTURES, *FUTURES_LONE)
        truths = {name: MarketTruth(exchange, *parts_of(name), also=exchange.untidy.also) for name in names}
        relay = await start_relay(sandbox, linger_seconds=0.3, flush_ms=20, limits=limits, instances=off)

        async def not_live() -> list[str]:
            streams = relay.hub.streams.values()
            return [f"{stream.name}@{stream.key.interval} {stream.status}" for stream in streams if not is_live(stream)]

        faulter = Faulter(exchange, truths, random.Random(seed), not_live, kinds)
        crowd = Crowd(
            relay.url, truths, sandbox, seed, faulter, streams=FUTURES, lone_streams=FUTURES_LONE, has_processes=False
        )
        most_feeds = [0]
        watching = asyncio.create_task(watch_feeds(relay, most_feeds, "binance_usdm", 0.05))
        crowd.start()
        try:
            await eventually(lambda: len(relay.hub.streams) >= len(FUTURES))
            await faulter.run(time.monotonic() + seconds)
            await crowd.settle()
        finally:
            crowd.report(say)
            say("upstream connections", exchange.connects)
            await crowd.stop()
            await stop([watching])
            await relay.close()
    assert verdict(crowd, seed) == []
    assert most_feeds[0] <= 2
    assert sum(check.delivered for check in crowd.checks) > seconds / 60 * len(FUTURES)


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


# -- the relay is killed ---------------------------------------------------------------------------


async def start_process(sandbox: UntidySandbox, port: int, database: Path) -> asyncio.subprocess.Process:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("RELAY_")}
    environ |= {"RELAY_BINANCE_WS_URL": sandbox.binance.ws_url, "RELAY_BINANCE_REST_URL": sandbox.binance.rest_url}
    environ |= WITHOUT_FUTURES
    arguments = ("-m", "relay", "serve", "--port", str(port), "--database", str(database), "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environ, cwd=database.parent, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(LONGEST_WAIT_S):
        line = await process.stdout.readline()
    assert line, "the relay did not start"
    return process


@pytest.mark.soak
async def test_clients_that_resume_lose_nothing_when_the_relay_is_killed(
    request: pytest.FixtureRequest, tmp_path: Path, say: Callable[[str, object], None]
) -> None:
    node_of(request.config)
    seconds, seed = request.config.getoption("--soak-seconds") / 3, request.config.getoption("--soak-seed")
    port, kills, database = free_port(), 0, tmp_path / "relay.db"
    url = f"http://127.0.0.1:{port}"
    async with sandbox_of(seed) as sandbox, aiohttp.ClientSession() as session:
        truths = truths_of(sandbox)
        dice, is_over = random.Random(seed), False
        process = await start_process(sandbox, port, database)

        async def not_live() -> list[str]:
            if not is_over:
                return []  # it is killed too often to wait for that
            try:
                async with session.get(f"{url}/api/v1/market-data/status") as answer:
                    streams = orjson.loads(await answer.read())["streams"]
            except (aiohttp.ClientError, OSError):
                return ["no answer"]
            return [f"{s['symbol']}@{s['interval']} {s['status']}" for s in streams if s["status"] != "connected"]

        ending = asyncio.Event()

        async def keep_killing() -> None:
            nonlocal process, kills
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(dice.uniform(2, 6)):
                        await ending.wait()
                        return
                process.send_signal(signal.SIGKILL)
                await process.wait()
                kills += 1
                await asyncio.sleep(dice.uniform(0, 1))
                process = await start_process(sandbox, port, database)

        faulter = Faulter(sandbox.binance, truths, random.Random(seed + 1), not_live, kinds_of(request.config))
        crowd = Crowd(url, truths, sandbox, seed, faulter)
        crowd.start()
        killing = asyncio.create_task(keep_killing())
        try:
            await faulter.run(time.monotonic() + seconds)
            # Not cancelled: it may be about to start a process.
            ending.set()
            await killing
            is_over = True
            await faulter.run(time.monotonic())
            await crowd.settle()
        finally:
            say("kills", kills)
            crowd.report(say)
            await crowd.stop()
            ending.set()
            await asyncio.gather(killing, return_exceptions=True)
            if process.returncode is None:
                process.terminate()
                await process.wait()
    with reading(str(database)) as connection:
        verified = verify(connection, overview(connection, str(database)).streams, sandbox.clock.now())
    assert verdict(crowd, seed) == []
    assert list(verified.faults) == []
    assert kills > 0
