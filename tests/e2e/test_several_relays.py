"""Several relays that serve the same, in processes of their own: they are killed in turn, over a bad network.

`--rude-seconds 60 -s` kills some twenty.
"""

import asyncio
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.test_rude_network import SETTLES_S, STREAMS, Audience, nothing, report
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.free_ports import free_port
from tests.support.javascript_client import node_of
from tests.support.relay_process import start_process
from tests.support.rude_proxy import RudeProxy
from tests.support.running_relay import end_process
from tests.support.soak import Faulter, MarketTruth
from tests.support.untidy import UntidySandbox

Start = Callable[[], Awaitable[Process]]

LEAF = """
facades = []
[providers.binance]
enabled = false
[providers.twelve_data]
enabled = false
[providers.binance_usdm]
enabled = false
[providers.upstream]
uses = "relay"
urls = ["{url}"]
"""


class Victim:
    """A relay that is killed and started again."""

    def __init__(self, start: Start, process: Process) -> None:
        self._start = start
        self.process = process

    async def kill(self, away_s: float) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        await asyncio.sleep(away_s)
        self.process = await self._start()


@asynccontextmanager
async def victim(start: Start) -> AsyncIterator[Victim]:
    found = Victim(start, await start())
    try:
        yield found
    finally:
        await end_process(found.process)


async def start_leaf(url: str, port: int, folder: Path) -> Process:
    """Start a relay whose only provider is the one at an address."""
    (folder / "leaf.toml").write_text(LEAF.format(url=url), encoding="utf-8")
    environ = {name: text for name, text in os.environ.items() if not name.startswith("RELAY_")}
    words = ("--config", "leaf.toml", "--port", str(port), "--database", str(folder / "leaf.db"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "serve", *words, "--log-level", "error"), env=environ, cwd=folder, stdout=PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(LONGEST_WAIT_S):
        assert await process.stdout.readline(), "the leaf did not start"
    return process


async def judge(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sandbox: UntidySandbox,
    urls: str | list[str],
    victims: list[Victim],
    proxies: list[RudeProxy],
) -> None:
    """Kill relays while the network is bad; demand of each client every candle once, in order and right."""
    seconds, seed = request.config.getoption("--rude-seconds"), request.config.getoption("--soak-seed")
    exchange, dice, kills = sandbox.binance, random.Random(seed), 0
    truths = {name: MarketTruth(exchange, *name.split("@"), also=exchange.untidy.also) for name in STREAMS}
    faulter = Faulter(exchange, truths, random.Random(seed + 2), nothing)
    audience = Audience(urls, truths, faulter, sandbox)
    try:
        await audience.come(node_of(request.config), tmp_path)
        await eventually(audience.has_come, SETTLES_S)
        exchange.untidy.list_closed_only()
        exchange.faults.delay_rest(0.3, 3, computed="either")
        for proxy in proxies:
            await proxy.set_rude(True)
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            await asyncio.sleep(dice.uniform(1, 3))
            audience.check_alive()
            await victims[kills % len(victims)].kill(dice.uniform(0, 2))
            kills += 1
        exchange.untidy.clear()
        exchange.faults.clear()
        for proxy in proxies:
            await proxy.set_rude(False)
        ended = sandbox.clock.now()
        try:
            await eventually(lambda: not audience.unsettled, SETTLES_S)
        except TimeoutError:
            print(f"unsettled: {audience.unsettled}")
        audience.check_alive()
        found = [*faulter.found]
        for check in audience.checks:
            check.finish(ended - 3)
            found += check.found
    finally:
        for proxy in proxies:
            report(kills, proxy, audience)
        await audience.leave()
    print(*found[:40], sep="\n")
    assert [f"seed {seed}, {one.moment}: {one.text}" for one in found] == []
    assert kills > 0


@asynccontextmanager
async def market(request: pytest.FixtureRequest) -> AsyncIterator[UntidySandbox]:
    seed = request.config.getoption("--soak-seed")
    async with UntidySandbox(seed=seed, pace_s=0.4, extra_symbols=1, forex_always_open=True) as sandbox:
        yield sandbox


@pytest.mark.long
async def test_clients_with_two_addresses_lose_repeat_and_change_no_candle(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    seed = request.config.getoption("--soak-seed")
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(market(request))
        victims, proxies = [], []
        for number in range(2):
            folder, port = tmp_path / str(number), free_port()
            folder.mkdir()

            async def start(folder: Path = folder, port: int = port) -> Process:
                return await start_process(sandbox, port, folder / "relay.db")

            victims.append(await stack.enter_async_context(victim(start)))
            proxies.append(await stack.enter_async_context(RudeProxy(port, random.Random(seed + number), hole_s=4.0)))
        await judge(request, tmp_path, sandbox, [proxy.url for proxy in proxies], victims, proxies)


@pytest.mark.long
async def test_leaf_of_a_root_that_is_killed_loses_repeats_and_changes_no_candle(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    seed, root_port, leaf_port = request.config.getoption("--soak-seed"), free_port(), free_port()
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(market(request))
        root = await stack.enter_async_context(victim(lambda: start_process(sandbox, root_port, tmp_path / "root.db")))
        proxy = await stack.enter_async_context(RudeProxy(root_port, random.Random(seed + 1), hole_s=4.0))
        await stack.enter_async_context(victim(lambda: start_leaf(proxy.url, leaf_port, tmp_path)))
        await judge(request, tmp_path, sandbox, f"http://127.0.0.1:{leaf_port}", [root], [proxy])
