"""A hostile client changes nothing for the others: no crash, no exception, nothing kept, no candle lost elsewhere."""

import asyncio
import ctypes
import gc
import logging
import os
from collections import Counter
from contextlib import suppress
from operator import sub
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartRelay
from tests.support import slow_machine
from tests.support.conditions import eventually
from tests.support.fuzzer import Fuzzer
from tests.support.running_relay import Running, WsClient
from tests.support.sandbox import Sandbox

WORKERS = 6
ROUNDS = 4
"""What each of so many attacks leaves behind is a leak."""


def resident_bytes() -> int:
    """Return how much memory the process has, without what is free and only waits to be used again."""
    gc.collect()
    # glibc's; other allocators have none.
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def follow(witness: WsClient, stop: asyncio.Event) -> list[dict[str, Any]]:
    """Collect the closed candles of a well-behaved client until the end of the last one after `stop`."""
    closed: list[dict[str, Any]] = []
    last = 0
    while True:
        update = await witness.update()
        witness.received.clear()
        assert update["candle"]["time"] >= last, "an update went back in time"
        last = update["candle"]["time"]
        if update["is_closed"]:
            closed.append(update["candle"])
            if stop.is_set():
                return closed


async def attack(relay: Running, seed: object, frames: int) -> list[Fuzzer]:
    host, port = relay.url.removeprefix("http://").split(":")
    fuzzers = [Fuzzer(host, int(port), f"{seed}.{number}") for number in range(WORKERS)]
    await asyncio.gather(*(fuzzer.run(frames // WORKERS) for fuzzer in fuzzers))
    # Only the witness is left, and only what it follows.
    await eventually(lambda: relay.access.clients == len(relay.clients.connections) == len(relay.hub.streams) == 1)
    return fuzzers


def held() -> tuple[int, int]:
    """Count tasks and open files."""
    return len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir()))


def objects() -> int:
    """Count objects, but for those of the stand-in, which remembers its market and who asked."""
    gc.collect()
    return sum(
        not str(type(one).__module__).startswith(("providers.sandbox", "tests.support.sandbox"))
        for one in gc.get_objects()
    )


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.timeout(3600)
async def test_a_hostile_client_harms_nobody(
    relay_with: StartRelay,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    compression: bool,
) -> None:
    frames = request.config.getoption("--fuzz-frames") // 2
    seed = request.config.getoption("--fuzz-seed")
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    caplog.set_level(logging.WARNING)
    async with Sandbox(speed=4, pace_s=0.05, forex_always_open=True) as sandbox:
        relay = await relay_with(
            sandbox=sandbox,
            compression=compression,
            max_requests_per_second=100_000.0,
            max_requests_per_second_per_address=1_000_000.0,
            max_connects_per_minute=100_000_000,
        )
        witness = await relay.connect()
        await witness.subscribe("BTCUSDT@1s")
        stop = asyncio.Event()
        following = asyncio.create_task(follow(witness, stop))
        before = held()
        warm = await attack(relay, f"{seed} warm {compression}", frames // 5)
        fuzzers = warm
        # What is kept once, as a module that is loaded when it is first needed, is kept in one of the rounds. What is
        # let go is scattered over what stays, here that of the fuzzer as well, and is not all given back.
        for number in range(ROUNDS):
            known, resident = objects(), resident_bytes()
            fuzzers += await attack(relay, f"{seed} {compression} {number}", frames - frames // 5)
            more, grown = objects() - known, resident_bytes() - resident
            if has_kept_little := more < 5_000 and grown < 12_000_000 + frames * 200:
                break
        # Idle connections to the stand-ins come and go; what hundreds of clients leave behind would be more.
        await eventually(lambda: max(map(sub, held(), before)) <= 20)
        stop.set()
        closed = await following
        first, last = closed[0]["time"], closed[-1]["time"]
        truth = await relay.get("history", symbol="BTCUSDT", interval="1s", start_time=first, end_time=last, limit=5000)
        assert closed == truth.body["candles"], "the witness lost a candle"
        assert (await relay.get("/healthz")).status == 200
    sent, outcomes, answers = sum(one.frames for one in fuzzers), Counter[tuple[str, str]](), Counter[str]()
    for one in fuzzers:
        outcomes += one.outcomes
        answers += one.answers
    with capsys.disabled():
        if request.config.getoption("--fuzz-report"):
            print(f"\n{sent} frames, {sum(one.connections for one in fuzzers)} connections, compression {compression}")
            print(f"memory {grown / 1e6:+.1f} MB, objects {more:+d}, {len(closed)} candles")
            for (name, outcome), count in sorted(outcomes.items()):
                print(f"  {name:40} {outcome:24} {count}")
            print(f"  answers: {dict(answers)}")
    assert unhandled == []
    # Warnings are for operators, and a hostile client is no reason to wake one.
    told = [one for one in caplog.records if one.name not in slow_machine.SAID_BY]
    # But what an operator may have set up wrong at a proxy is said, once a minute.
    proxies = {"origin_refused", "handshake_broken"}
    assert [one.getMessage() for one in told if getattr(one, "fields", {}).get("event") not in proxies] == []
    assert has_kept_little, f"each round left much, the last one {more} objects and {grown} bytes"
    assert sent >= frames - WORKERS * 2
    assert {name for name, outcome in outcomes if outcome == "goes on"} == set()
    assert answers["pong"]
    assert answers["invalid_json"]
    assert answers["invalid_request"]
    # Not as many as candles were told: where the machine is busy, some are of history.
    assert relay.hub.updates_in
