"""The relay is killed again and again while its exchange misbehaves: clients that resume lose nothing."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import orjson
import pytest

from relay.storage.inspect import overview, reading
from relay.storage.verify import verify
from tests.support.free_ports import free_port
from tests.support.javascript_client import node_of
from tests.support.relay_process import start_process
from tests.support.soak import (
    Faulter,
)
from tests.support.soak_crowd import (
    Crowd,
    kinds_of,
    sandbox_of,
    say,
    truths_of,
    verdict,
)

__all__ = ["say"]


@pytest.mark.long
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
