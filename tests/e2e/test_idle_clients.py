"""What clients that are only subscribed cost a real `relay serve`."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.raw_socket import RawClient, raw_clients
from tests.support.relay_process import serving

WARM, COUNT, TIMES = 200, 250, 3
MOST_BYTES = 8 * 1024
"""With the connections of aiohttp it was twice as much; without them it is 3 KB, the rest is room for chance."""


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def subscribe(clients: Sequence[RawClient]) -> None:
    """Open them, and wait until each has its stream."""
    loop = asyncio.get_running_loop()
    for client in clients:
        got = (await client.open()).early
        while b'"price_update"' not in got:
            got += await loop.sock_recv(client.socket, 1 << 16)


async def test_silent_client_costs_few_kilobytes(tmp_path: Path) -> None:
    env = {"RELAY_MAX_CLIENTS_PER_ADDRESS": "1000", "RELAY_MAX_CLIENTS": "1000"}
    grown = []
    async with serving(tmp_path, "--database", ":memory:", env=env) as relay:
        with raw_clients(relay.url, WARM + TIMES * COUNT, "BTCUSDT@1m") as clients:
            await subscribe(clients[:WARM])
            for begin in range(WARM, len(clients), COUNT):
                before = resident_bytes(relay.process.pid)
                await subscribe(clients[begin : begin + COUNT])
                grown.append((resident_bytes(relay.process.pid) - before) / COUNT)
    # The relay also does other things meanwhile, but not each time.
    assert min(grown) < MOST_BYTES, f"{grown} bytes a client"
