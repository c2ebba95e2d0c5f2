"""The whole relay against a misbehaving exchange, over real sockets, with the truth known: the contract holds.

`pytest tests/test_soak.py --soak-seconds 600 --soak-seed 7 -s` runs longer, with other faults.
"""

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from providers.sandbox import Sandbox
from relay.app import SUPERVISORS
from tests.running import Running, eventually, start_relay
from tests.soaking import HABITS, Faulter, ListedTruth, MarketTruth, Message, SoakClient, StreamCheck, Values

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


# -- the soak --------------------------------------------------------------------------------------


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Record a figure in the report, and print it."""

    def record(name: str, value: object) -> None:
        record_property(name, value)
        print(f"{name}: {value}")

    return record


def sandbox_of(seed: int) -> Sandbox:
    return Sandbox(seed=seed, pace_s=0.4, extra_symbols=7, forex_always_open=True)


def truths_of(sandbox: Sandbox) -> dict[str, MarketTruth]:
    return {name: MarketTruth(sandbox.binance, *name.split("@")) for name in STREAMS}


def clients_of(url: str, truths: dict[str, MarketTruth], sandbox: Sandbox, seed: int) -> list[SoakClient]:
    dice = random.Random(seed)
    clients = []
    for number, habit in enumerate(HABITS):
        # One has all streams, the others some.
        names = STREAMS if not number else dice.sample(STREAMS, dice.randint(4, 14))
        chosen = {name: truths[name] for name in names}
        clients.append(
            SoakClient(f"client {number}", url, habit, chosen, sandbox.clock.now, random.Random(seed * 100 + number))
        )
    return clients


async def watch_feeds(relay: Running, most: list[int]) -> None:
    """Keep the largest number of upstream connections at once in `most`."""
    while True:
        most[0] = max(most[0], relay.app[SUPERVISORS]["binance"].open_feeds)
        await asyncio.sleep(0.005)


def is_live(relay: Running) -> bool:
    return all(stream.status == "connected" for stream in relay.hub.streams.values())


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def figures(clients: list[SoakClient], say: Callable[[str, object], None]) -> None:
    checks = [check for client in clients for check in client.checks.values()]
    say("candles delivered", sum(check.delivered for check in checks))
    say("revised", sum(check.revised for check in checks))
    say("gaps told", sum(len(check.gaps) for check in checks))
    say("incomplete snapshots", sum(client.incomplete for client in clients))
    say("client connections", sum(client.connections for client in clients))
    say("messages", sum(client.messages for client in clients))
    say("errors answered", dict(sum((client.errors for client in clients), start=clients[0].errors.__class__())))
    say("violations", sum(len(check.violations) for check in checks))


@pytest.mark.soak
async def test_no_fault_of_the_exchange_breaks_the_contract(
    request: pytest.FixtureRequest, say: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So short that history is given up now and then: gaps and their repair belong to the contract.
    monkeypatch.setattr("relay.supervision.backfill.PATIENCE_S", 1.0)
    monkeypatch.setattr("relay.supervision.backfill.REPAIR_EVERY_S", 3.0)
    seconds, seed = request.config.getoption("--soak-seconds"), request.config.getoption("--soak-seed")
    async with sandbox_of(seed) as sandbox:
        truths = truths_of(sandbox)
        relay = await start_relay(sandbox, linger_seconds=1.0, flush_ms=20)
        clients = clients_of(relay.url, truths, sandbox, seed)
        faulter = Faulter(sandbox.binance, truths, random.Random(seed), lambda: is_live(relay))
        most_feeds = [0]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        tasks.append(asyncio.create_task(watch_feeds(relay, most_feeds)))
        try:
            await eventually(lambda: len(relay.hub.streams) == len(STREAMS))
            await faulter.run(time.monotonic() + seconds)
            for client in clients:
                client.stays = True
            ended = sandbox.clock.now() + 1
            await eventually(lambda: is_settled(clients, ended), 90)
            sandbox.binance.faults.mute()
            await eventually(lambda: agree(clients, relay))
            for client in clients:
                for check in client.checks.values():
                    check.finish(ended)
        finally:
            say("unsettled", unsettled(clients, sandbox.clock.now() - 5)[:10])
            say("faults injected", sum(faulter.injected.values()))
            say("kinds of faults", len(faulter.injected))
            figures(clients, say)
            say("longest recovery, s", round(faulter.longest_recovery_s, 2))
            say("upstream connections", sandbox.binance.connects)
            say("connections at once", most_feeds[0])
            await stop(tasks)
            await relay.close()
    assert [violation for client in clients for violation in client.violations] == []
    assert most_feeds[0] <= 2


def is_settled(clients: list[SoakClient], now: float) -> bool:
    return not unsettled(clients, now)


def unsettled(clients: list[SoakClient], now: float) -> list[str]:
    return [check.name for client in clients for check in client.checks.values() if not check.is_settled(now)]


def agree(clients: list[SoakClient], relay: Running) -> bool:
    """Say whether the last that each client was told is the last that the relay knows."""
    known = {}
    for stream in relay.hub.streams.values():
        last = stream.series.last
        if last is not None:
            known[f"{stream.name}@{stream.key.interval}"] = (last.time, tuple(last[1:]), stream.series.last_is_closed)
    return all(
        check.last == known.get(name)
        for client in clients
        if not client.habit.options.get("closed_only")
        for name, check in client.checks.items()
    )


# -- the relay is killed ---------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def start_process(sandbox: Sandbox, port: int, database: Path) -> asyncio.subprocess.Process:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("RELAY_")}
    environ |= {"RELAY_BINANCE_WS_URL": sandbox.binance.ws_url, "RELAY_BINANCE_REST_URL": sandbox.binance.rest_url}
    arguments = ("-m", "relay", "serve", "--port", str(port), "--database", str(database), "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environ, cwd=database.parent, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        line = await process.stdout.readline()
    assert line, "the relay did not start"
    return process


@pytest.mark.soak
async def test_clients_that_resume_lose_nothing_when_the_relay_is_killed(
    request: pytest.FixtureRequest, tmp_path: Path, say: Callable[[str, object], None]
) -> None:
    seconds, seed = request.config.getoption("--soak-seconds") / 3, request.config.getoption("--soak-seed")
    port, kills = free_port(), 0
    async with sandbox_of(seed) as sandbox:
        truths = truths_of(sandbox)
        clients = clients_of(f"http://127.0.0.1:{port}", truths, sandbox, seed)
        process = await start_process(sandbox, port, tmp_path / "relay.db")
        tasks = [asyncio.create_task(client.run()) for client in clients]
        dice, ends_at = random.Random(seed), time.monotonic() + seconds
        try:
            while time.monotonic() < ends_at:
                await asyncio.sleep(dice.uniform(2, 4))
                process.send_signal(signal.SIGKILL)
                await process.wait()
                kills += 1
                await asyncio.sleep(dice.uniform(0, 1))
                process = await start_process(sandbox, port, tmp_path / "relay.db")
            for client in clients:
                client.stays = True
            ended = sandbox.clock.now() + 1
            await eventually(lambda: is_settled(clients, ended), 90)
            for client in clients:
                for check in client.checks.values():
                    check.finish(ended)
        finally:
            say("kills", kills)
            figures(clients, say)
            await stop(tasks)
            process.terminate()
            await process.wait()
    assert [violation for client in clients for violation in client.violations] == []
    assert kills > 0
