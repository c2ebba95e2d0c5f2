"""From one update to many sockets: sharing, slow readers, dead readers, nothing left behind."""

import asyncio
import gc
import os
import random
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiohttp
import orjson
import pytest

from providers.sandbox import Sandbox
from relay import wire
from relay.patience import steps
from tests.running import PREFIX, Running, WsClient, eventually

StartRelay = Callable[..., Awaitable[Running]]

HANDSHAKE = (
    f"GET {PREFIX}/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


def masked(text: bytes) -> bytes:
    """Return a short client frame, masked with zeros."""
    size = len(text)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + text


class RawClient:
    """A client that reads only when told to, with a receive window as small as the kernel allows."""

    def __init__(self, url: str, *streams: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.socket.setblocking(False)
        self.address = (host, int(port))
        self.early = b""
        names = ",".join(f'"{stream}"' for stream in streams)
        self.request = masked(f'{{"action":"subscribe","streams":[{names}]}}'.encode())

    async def open(self) -> "RawClient":
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, self.address)
        await loop.sock_sendall(self.socket, HANDSHAKE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += await loop.sock_recv(self.socket, 64)
        assert b" 101 " in head[:20]
        self.early = head.partition(b"\r\n\r\n")[2]
        await loop.sock_sendall(self.socket, self.request)
        return self

    async def read_for(self, seconds: float) -> bytes:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        got, self.early = [self.early], b""

        def take() -> None:
            # Not awaited: what is cancelled just as something came would lose it.
            got.append(self.socket.recv(1 << 16))
            if not got[-1]:
                ended.set()

        loop.add_reader(self.socket, take)
        for step_s in steps(seconds):
            with suppress(TimeoutError):
                async with asyncio.timeout(step_s):
                    await ended.wait()
                    break
        loop.remove_reader(self.socket)
        return b"".join(got)

    def close(self) -> None:
        self.socket.close()


@contextmanager
def raw_clients(url: str, count: int, *streams: str) -> Iterator[list[RawClient]]:
    clients = [RawClient(url, *streams) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


async def test_clients_with_the_same_streams_share_one_group_and_others_do_not(relay: Running) -> None:
    same = [await relay.connect() for _ in range(5)]
    for client in same:
        await client.subscribe("BTCUSDT@1s", "ETHUSDT@1s")
    other = await relay.connect()
    await other.subscribe("ETHUSDT@1s")
    for client in (*same, other):
        await client.update(symbol="ETHUSDT")
    groups = relay.hub.groups
    assert sorted(len(group.members) for group in groups) == [1, 5]


async def test_updates_that_follow_closely_leave_in_one_write(relay_with: StartRelay) -> None:
    relay = await relay_with(flush_ms=200)
    client = await relay.connect()
    names = [f"{symbol}@1m" for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT")]
    await client.subscribe(*names)
    for _ in range(20):
        await client.update()
    frames, writes = relay.hub.frames_out, relay.hub.writes_out
    for _ in range(60):
        await client.update()
    assert relay.hub.frames_out - frames >= 40
    assert relay.hub.writes_out - writes <= (relay.hub.frames_out - frames) / 3


async def test_no_flush_window_sends_each_tick_at_once(relay_with: StartRelay) -> None:
    relay = await relay_with(flush_ms=0)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    for _ in range(5):
        await client.update()


async def test_fifty_clients_that_never_read_change_nothing_for_the_others(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(flush_ms=0)
    symbols = [pair for pair in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "BNBUSDT")]
    names = [f"{symbol}@{interval}" for symbol in symbols for interval in ("1m", "3m", "5m", "15m", "30m", "1h")]
    reader = await relay.connect()
    await reader.subscribe(*names, "BTCUSDT@1s")
    with raw_clients(relay.url, 50, *names) as dead:
        for client in dead:
            await client.open()
        await eventually(lambda: len(relay.hub.subscribers) == 51)
        await eventually(lambda: relay.hub.lagging >= 50, 60)
        # 51 clients were served; now only the reader is: every closed second still comes, without a hole.
        times: list[int] = []
        while len(times) < 4:
            update = await reader.update(symbol="BTCUSDT", interval="1s", is_closed=True)
            times.append(update["candle"]["time"])
        assert times == list(range(times[0], times[0] + 4))
        waiting = max(subscriber.outbox.waiting_bytes for subscriber in relay.hub.subscribers)
        assert waiting <= 64 * 1024, "a dead reader holds too much memory"
    await eventually(lambda: relay.hub.lagging == 0)
    assert len(relay.hub.subscribers) == 1


async def test_stalled_client_returns_to_newest_open_candles_and_every_closed_one(relay_with: StartRelay) -> None:
    relay = await relay_with(flush_ms=0)
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "BNBUSDT")
    names = [f"{symbol}@{interval}" for symbol in symbols for interval in ("1s", "1m", "3m", "5m", "15m", "30m", "1h")]
    with raw_clients(relay.url, 1, *names) as (client,):
        await client.open()
        await eventually(lambda: relay.hub.lagging == 1, 60)
        (subscriber,) = relay.hub.subscribers
        await eventually(lambda: subscriber.outbox.conflated > 100)
        got = await client.read_for(2)
        await eventually(lambda: relay.hub.lagging == 0)
        got += await client.read_for(1)
    messages = parsed(got)
    seconds = [
        message["candle"]["time"]
        for message in messages
        if message["type"] == "price_update" and message["symbol"] == "BTCUSDT" and message["interval"] == "1s"
        and message["is_closed"]
    ]  # fmt: skip
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    newest = {(m["symbol"], m["interval"]): m["seq"] for m in messages if m["type"] == "price_update"}
    for stream in relay.hub.streams.values():
        assert newest[(stream.name, stream.key.interval)] >= stream.seq - 30


def parsed(data: bytes) -> list[dict[str, Any]]:
    """Split server frames, dropping the half one at the end, and pings."""
    messages = []
    at = 0
    while len(data) - at >= 2:
        size, head = data[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        if len(data) - at < head + size:
            break
        if data[at] == 0x81:
            messages.append(orjson.loads(data[at + head : at + head + size]))
        at += head + size
    return messages


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
    frame = wire.deflate(wire.frame(text))
    assert frame[0] == 0xC1
    head = {126: 4, 127: 10}.get(frame[1], 2)
    inflated = zlib.decompressobj(-15).decompress(frame[head:] + b"\x00\x00\xff\xff")
    assert inflated == text


async def test_nothing_is_left_after_thousands_of_connects(relay: Running) -> None:
    keeper = await relay.connect()
    await keeper.subscribe("BTCUSDT@1s")

    async def visit(count: int) -> None:
        for _ in range(count):
            client = await RawClient(relay.url, "BTCUSDT@1s").open()
            client.close()

    async def measured() -> tuple[int, int, int]:
        await eventually(lambda: len(relay.hub.subscribers) == 1)
        await eventually(lambda: relay.access.clients == 1)
        gc.collect()
        objects = [one for one in gc.get_objects() if str(type(one).__module__).startswith(("relay.", "aiohttp."))]
        return len(asyncio.all_tasks()), len(objects), len(os.listdir("/proc/self/fd"))

    await asyncio.gather(*(visit(50) for _ in range(10)))
    tasks, objects, files = await measured()
    await asyncio.gather(*(visit(1000) for _ in range(10)))
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    _, objects_after, files_after = await measured()
    assert files_after <= files
    assert objects_after - objects < 100, "connections are left behind"
    await keeper.update()


async def test_client_that_vanishes_is_dropped_when_it_does_not_answer_pings(relay: Running) -> None:
    relay.clients.ping_interval_s, relay.clients.pong_timeout_s = 0.5, 3.5
    alive: WsClient = await relay.connect()
    await alive.subscribe("BTCUSDT@1s")
    reading = asyncio.create_task(_keep_reading(alive))
    client = await RawClient(relay.url).open()
    try:
        # The kernel still acknowledges what is sent, as that of a machine behind a dead link does for a while.
        await eventually(lambda: len(relay.hub.subscribers) == 2)
        await eventually(lambda: len(relay.hub.subscribers) == 1)
        reading.cancel()
    finally:
        client.close()
    assert not alive.socket.closed


async def _keep_reading(client: WsClient) -> None:
    while True:
        await client.next()


async def test_plain_asyncio_and_uvloop_clients_both_close_cleanly(relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    await client.close()
    await eventually(lambda: not relay.hub.subscribers)
    assert client.socket.close_code == aiohttp.WSCloseCode.OK


async def test_client_that_reads_nothing_for_too_long_is_closed_with_4000(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.hub.LAGGARD_PATIENCE_S", 1.0)
    relay = await relay_with(flush_ms=0)
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "BNBUSDT")
    names = [f"{symbol}@{interval}" for symbol in symbols for interval in ("1s", "1m", "3m", "5m", "15m", "30m", "1h")]
    with raw_clients(relay.url, 1, *names) as (client,):
        await client.open()
        await eventually(lambda: relay.hub.subscribers)
        await eventually(lambda: not relay.hub.subscribers, 60)
        got = await client.read_for(5)
    assert got.endswith(b"\x88\x0f" + (4000).to_bytes(2, "big") + b"slow consumer")


async def test_client_whose_closed_candles_pile_up_is_closed_with_4000(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.outbox.MOST_KEPT", 4000)
    relay = await relay_with(flush_ms=0)
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "BNBUSDT")
    names = [f"{symbol}@{interval}" for symbol in symbols for interval in ("1s", "1m", "3m", "5m", "15m", "30m", "1h")]
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1s")
    with raw_clients(relay.url, 1, *names) as (client,):
        await client.open()
        await eventually(lambda: len(relay.hub.subscribers) == 2)
        await eventually(lambda: len(relay.hub.subscribers) == 1, 60)
        got = await client.read_for(5)
    assert got.endswith(b"\x88\x0f" + (4000).to_bytes(2, "big") + b"slow consumer")
    await other.update(is_closed=True)
