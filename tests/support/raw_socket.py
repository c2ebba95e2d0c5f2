"""A client down to its socket: it reads only when told to, and what it reads is taken apart here."""

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from relay.core.intervals import next_open
from relay.core.model import StreamKey
from relay.protocol.positions import parse_position, tag_of
from tests.support.process_pauses import steps
from tests.support.running_relay import PREFIX

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
    """A client that reads only when told to, with a receive window as small as the kernel allows.

    It speaks WebSocket, or is sent events where updates come `over` "sse".
    """

    def __init__(self, url: str, *streams: str, over: str = "websocket") -> None:
        self.over = over
        self.streams = streams
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
        is_websocket = self.over == "websocket"
        await loop.sock_sendall(self.socket, HANDSHAKE if is_websocket else events_asked(*self.streams))
        head = b""
        while b"\r\n\r\n" not in head:
            head += await loop.sock_recv(self.socket, 64)
        assert (b" 101 " if is_websocket else b" 200 ") in head[:20]
        self.early = head.partition(b"\r\n\r\n")[2]
        if is_websocket:
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
def raw_clients(url: str, count: int, *streams: str, over: str = "websocket") -> Iterator[list[RawClient]]:
    clients = [RawClient(url, *streams, over=over) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def events_asked(*streams: str) -> bytes:
    return f"GET {PREFIX}/sse?streams={','.join(streams)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def parsed_events(data: bytes) -> list[dict[str, Any]]:
    """Return what events hold, dropping the half one at the end, and the one that says goodbye."""
    events = [event for event in data.split(b"\n\n")[:-1] if not event.startswith(b"event: close")]
    lines = [line for event in events for line in event.split(b"\n") if line.startswith(b"data: ")]
    return [orjson.loads(line.removeprefix(b"data: ")) for line in lines]


def check_positions(data: bytes) -> int:
    """Check that no id says more than was sent before it; return how many there were.

    A position is a moment: there every candle was told that opened until then.
    """
    first: dict[str, int] = {}
    next_owed: dict[str, int] = {}
    count = 0
    for event in data.split(b"\n\n")[:-1]:
        for line in event.split(b"\n"):
            field, _, value = line.partition(b": ")
            if field == b"data" and b'"price_update"' in value:
                message = orjson.loads(value)
                tag = tag_of("binance", StreamKey(message["symbol"], message["interval"]))
                time = message["candle"]["time"]
                first.setdefault(tag, time)
                if message["is_closed"]:
                    next_owed[tag] = next_open(message["interval"], time)
            elif field == b"id":
                count += 1
                for tag, time in parse_position(value.decode()).told_to.items():
                    # What closed before the stream began is not owed.
                    assert time < next_owed.get(tag, first.get(tag, math.inf)), (tag, time)
    return count


def parsed(data: bytes | bytearray) -> list[dict[str, Any]]:
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
