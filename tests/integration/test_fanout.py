"""From one update to many sockets: who shares what, and nothing is left behind."""

import asyncio
import gc
import os
import random
import zlib
from typing import Any

import aiohttp
import pytest

from relay.app import RelayLimits
from relay.protocol import frames
from relay.web.ws.route import ClientPings
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.raw_socket import RawClient
from tests.support.running_relay import Running, WsClient
from tests.support.transports import TRANSPORTS

pytestmark = [pytest.mark.usefixtures("way"), pytest.mark.timeout(300)]


async def test_clients_with_the_same_streams_share_one_group_and_others_do_not(relay: Running) -> None:
    same = [await relay.connect() for _ in range(5)]
    for client in same:
        await client.subscribe("BTCUSDT@1s", "ETHUSDT@1s")
    other = await relay.connect()
    await other.subscribe("ETHUSDT@1s")
    for client in (*same, other):
        await client.update(symbol="ETHUSDT")
    # Who has just come is joined to the others in a turn of its own.
    await eventually(lambda: sorted(len(group.members) for group in relay.hub.fanout.groups) == [1, 5])


async def test_updates_that_follow_closely_leave_in_one_write(relay_with: StartRelay) -> None:
    relay = await relay_with(flush_ms=200)
    client = await relay.connect()
    names = [f"{symbol}@1m" for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT")]
    await client.subscribe(*names)
    for _ in range(20):
        await client.update()
    frames, writes = relay.hub.fanout.frames_out, relay.hub.fanout.writes_out
    for _ in range(60):
        await client.update()
    assert relay.hub.fanout.frames_out - frames >= 40
    assert relay.hub.fanout.writes_out - writes <= (relay.hub.fanout.frames_out - frames) / 3


async def test_no_flush_window_sends_each_tick_at_once(relay_with: StartRelay) -> None:
    relay = await relay_with(flush_ms=0)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    for _ in range(5):
        await client.update()


async def test_deflate_is_not_negotiated_unless_switched_on(relay: Running) -> None:
    client = await relay.connect(compress=15)
    assert not client.socket.compress
    await client.subscribe("BTCUSDT@1m")
    await client.update()


async def test_compressed_and_plain_clients_get_the_same_updates(relay_with: StartRelay) -> None:
    relay = await relay_with(compression=True)
    squeezed, plain = await relay.connect(compress=15), await relay.connect()
    assert squeezed.socket.compress
    assert not plain.socket.compress
    seen: list[dict[int, dict[str, Any]]] = []
    for client in (squeezed, plain):
        await client.subscribe("BTCUSDT@1m")
    for client in (squeezed, plain):
        found = {}
        for _ in range(8):
            update = await client.update()
            found[update["seq"]] = update
        seen.append(found)
    common = seen[0].keys() & seen[1].keys()
    assert len(common) >= 4
    assert all(seen[0][seq] == seen[1][seq] for seq in common)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000])
def test_deflated_frame_inflates_to_the_text(size: int) -> None:
    text = bytes(random.Random(size).choices(b'{"candle":1.2345}', k=size))
    frame = frames.deflate(frames.frame(text))
    assert frame[0] == 0xC1
    head = {126: 4, 127: 10}.get(frame[1], 2)
    inflated = zlib.decompressobj(-15).decompress(frame[head:] + b"\x00\x00\xff\xff")
    assert inflated == text


async def test_nothing_is_left_after_a_thousand_connects(relay_with: StartRelay) -> None:
    # It reads meanwhile: what waits for it would be objects too.
    relay = await relay_with()
    keeper = await relay.connect()
    await keeper.subscribe("BTCUSDT@1s")
    keeper.read_on()

    async def visit(count: int) -> None:
        for number in range(count):
            client = await RawClient(relay.url, "BTCUSDT@1s", over=TRANSPORTS[number % 2].name).open()
            client.close()

    def measured() -> tuple[int, int, int]:
        gc.collect()
        # Candles become more, the longer it takes.
        kinds = ("relay.web.", "relay.streams.", "aiohttp.")
        objects = [one for one in gc.get_objects() if str(type(one).__module__).startswith(kinds)]
        return len(asyncio.all_tasks()), len(objects), len(os.listdir("/proc/self/fd"))

    async def all_left() -> None:
        await eventually(lambda: len(relay.hub.subscribers) == relay.access.clients == 1)

    await asyncio.gather(*(visit(50) for _ in range(10)))
    await all_left()
    tasks, objects, files = measured()

    def is_as_before() -> bool:
        tasks_after, objects_after, files_after = measured()
        return tasks_after <= tasks and objects_after - objects < 20 and files_after <= files

    await asyncio.gather(*(visit(100) for _ in range(10)))
    await all_left()
    # Connections to the stand-ins come and go.
    await eventually(is_as_before)
    before = len(keeper.updates)
    await eventually(lambda: len(keeper.updates) > before)


async def test_client_that_vanishes_is_dropped_when_it_does_not_answer_pings(relay_with: StartRelay) -> None:
    relay = await relay_with(limits=RelayLimits(pings=ClientPings(interval_s=0.5, pong_timeout_s=3.5)))
    alive: WsClient = await relay.connect()
    await alive.subscribe("BTCUSDT@1s")
    alive.read_on()
    client = await RawClient(relay.url).open()
    try:
        # The kernel still acknowledges what is sent, as that of a machine behind a dead link does for a while.
        await eventually(lambda: len(relay.hub.subscribers) == 2)
        await eventually(lambda: len(relay.hub.subscribers) == 1)
    finally:
        client.close()
    assert not alive.socket.closed


async def test_plain_asyncio_and_uvloop_clients_both_close_cleanly(relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    await client.close()
    await eventually(lambda: not relay.hub.subscribers)
    assert client.socket.close_code == aiohttp.WSCloseCode.OK
