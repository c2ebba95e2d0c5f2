"""A client down to its socket: it reads only when told to, and what it reads is taken apart here."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from tests.running import PREFIX

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
        loop = asyncio.get_running_loop()
        got, self.early = bytearray(self.early), b""
        try:
            async with asyncio.timeout(seconds):
                while chunk := await loop.sock_recv(self.socket, 1 << 16):
                    got += chunk
        except TimeoutError:
            pass
        return bytes(got)

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
