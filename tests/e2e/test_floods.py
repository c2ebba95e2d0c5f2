"""Floods against a real `relay serve`: each connection is cut, a client beside them hears prices, SIGTERM is obeyed.

`--flood-seconds 12` gives every kind of flood 30 connections and its own relay, and prints how long the silence was.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.floods import ALLOWED, FLOODS, SERVED, flooding
from tests.support.relay_process import Serving, serving
from tests.support.running_relay import PREFIX
from tests.support.sandbox import Sandbox

PATIENCE_S = 60.0
SERVED_S = 2.0
COUNT = 30
LONGEST_SILENCE_S = 2.0
LONGEST_STOP_S = 10.0
FRAMES = [name for name, one in FLOODS.items() if one.is_websocket]
GROUPS = {
    "frames": [name for name in FRAMES if not FLOODS[name].is_dripping],
    "bytes": [name for name in FRAMES if FLOODS[name].is_dripping],
    "http": [name for name in FLOODS if name not in {*FRAMES, *SERVED}],
    "served": [*SERVED],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run all kinds of a group together, or each by itself when there is time."""
    if "kinds" in metafunc.fixturenames:
        groups = {name: [name] for name in FLOODS} if metafunc.config.getoption("--flood-seconds") else GROUPS
        metafunc.parametrize("kinds", groups.values(), ids=groups)


class Listener:
    """A client that notes when it hears a price."""

    def __init__(self) -> None:
        self.heard = asyncio.Condition()
        self.times: list[float] = []

    async def listen(self, url: str) -> None:
        """Follow two streams until the relay ends the connection."""
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}{PREFIX}/ws") as socket:
            await socket.send_json({"action": "subscribe", "streams": ["BTCUSDT@1s", "ETHUSDT@1m"]})
            async for message in socket:
                if '"price_update"' in message.data:
                    async with self.heard:
                        self.times.append(time.monotonic())
                        self.heard.notify_all()

    async def hear(self, count: int) -> None:
        """Wait for so many more prices."""
        until = len(self.times) + count
        async with asyncio.timeout(LONGEST_WAIT_S), self.heard:
            await self.heard.wait_for(lambda: len(self.times) >= until)

    def longest_silence_s(self, start: float, end: float) -> float:
        """Return the longest time without a price."""
        times = [start, *(at for at in self.times if start < at < end), end]
        return max(after - before for before, after in itertools.pairwise(times))


@asynccontextmanager
async def relay_and_listener(folder: Path) -> AsyncIterator[tuple[Serving, Listener]]:
    """Run a relay in a process of its own, with a stand-in here, so that a flood keeps only the relay busy."""
    listener = Listener()
    async with Sandbox(pace_s=0.1, forex_always_open=True) as sandbox:
        env = {"RELAY_BINANCE_WS_URL": sandbox.binance.ws_url, "RELAY_BINANCE_REST_URL": sandbox.binance.rest_url}
        async with serving(folder, "--database", ":memory:", env=env, is_sandbox=False) as relay:
            listening = asyncio.create_task(listener.listen(relay.url))
            await listener.hear(3)
            yield relay, listener
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.timeout(180)
async def test_flood_is_cut_while_others_hear_prices_and_sigterm_is_obeyed(
    tmp_path: Path, kinds: list[str], pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("--flood-seconds")
    count = COUNT if seconds else max(1, COUNT // len(kinds))
    floods = [FLOODS[kind] for kind in kinds]
    async with relay_and_listener(tmp_path) as (relay, listener):
        start = time.monotonic()
        lasts_s = PATIENCE_S if ALLOWED.issuperset(kinds) or not seconds else seconds
        if SERVED.issuperset(kinds):
            lasts_s = seconds or SERVED_S
        async with flooding(relay.url, floods, count, lasts_s) as ended:
            await listener.hear(5)
            outcome = await ended()
        silence_s = listener.longest_silence_s(start, time.monotonic())
        async with flooding(relay.url, floods, count, PATIENCE_S) as ended:
            await listener.hear(2)
            start = time.monotonic()
            assert await relay.stop() == 0
            stop_s = time.monotonic() - start
            assert sum((await ended()).left) == 0
    about = f"{'+'.join(kinds)}: silence {silence_s:.2f} s, SIGTERM {stop_s:.1f} s, {outcome}"
    assert not [kind for kind, left in zip(kinds, outcome.left, strict=True) if left and kind not in SERVED], about
    assert not [line for line in relay.err if "Traceback" in line]
    if seconds:
        print(f"\n{about}")
        assert silence_s < LONGEST_SILENCE_S, about
        assert stop_s < LONGEST_STOP_S, about
