"""A client down to its socket: it reads only when told to, and what it reads is taken apart here."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson

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
