"""Several relays on one port of a machine, each a process of its own."""

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from relay.client import RelayClient, Update
from tests.e2e.test_server import refused
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.free_ports import free_port
from tests.support.relay_process import serving

MOST_TRIES = 200
"""The system gives a connection to any of the relays; that it is always one and the same is as good as impossible."""


async def epoch_of(url: str) -> str:
    """Return the run of the relay that a new connection comes to."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/market-data/status") as answer:
        epoch: str = (await answer.json())["epoch"]
        return epoch


async def test_relays_share_a_port_and_their_clients_go_on_at_another_when_one_ends(tmp_path: Path) -> None:
    port = free_port()
    words = ("--port", str(port), "--reuse-port")
    async with serving(tmp_path, *words) as first, serving(tmp_path, *words) as second:
        assert first.url == second.url == f"http://127.0.0.1:{port}"
        epochs: set[str] = set()
        for _ in range(MOST_TRIES):
            epochs.add(await epoch_of(first.url))
            if len(epochs) == 2:
                break
        assert len(epochs) == 2
        async with RelayClient(first.url, backoff_s=(0.05, 0.2)) as client:
            await client.subscribe("BTCUSDT@1s")
            assert await first.stop() == 0
            async with asyncio.timeout(LONGEST_WAIT_S):
                last = await epoch_of(second.url)
                assert last in epochs
                async for message in client:
                    if isinstance(message, Update) and message.is_closed:
                        break
        assert {await epoch_of(second.url) for _ in range(20)} == {last}


async def test_port_of_a_process_that_does_not_share_it_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = await refused(tmp_path, "--sandbox", "--port", port, "--reuse-port")
    assert f"port {port}: Address already in use by a process that does not share it (reuse_port has to be set" in line


async def test_a_system_that_cannot_share_a_port_is_named(tmp_path: Path) -> None:
    lacking = "import socket, asyncio; del socket.SO_REUSEPORT"
    with pytest.raises(TimeoutError, match="reuse_port is set, but this system cannot share port 0 of 127"):
        async with serving(tmp_path, "--reuse-port", prepare=lacking):
            pass
