"""Connections that send the same bytes without pause, from a process of their own: `python -m tests.support.floods`."""

import asyncio
import json
import selectors
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

HOST = b"Host: localhost\r\n"
WEBSOCKET = (
    b"GET /api/v1/market-data/ws HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\0\0\0\0"
AT_ONCE = 256 * 1024
MOST_KEPT = 2_000_000
EMPTY = {"texts": 0x81, "binaries": 0x82, "closes": 0x88, "pings": 0x89, "pongs": 0x8A}
NAMES = b",".join(b'"T%03dUSDT@1m"' % number for number in range(100))
UNSUBSCRIBE = b'{"action":"unsubscribe","streams":[%b]}' % NAMES


def frame(first: int, body: bytes = b"") -> bytes:
    """Return a client's frame, masked with zeros."""
    size = len(body)
    return bytes((first, 0x80 | min(size, 126))) + (size.to_bytes(2, "big") if size > 125 else b"") + MASK + body


class Flood(NamedTuple):
    """What a connection sends: `first` once, then `more` again and again, byte by byte where `is_dripping`."""

    first: bytes
    more: bytes
    is_dripping: bool = False

    @property
    def is_websocket(self) -> bool:
        """Whether these are frames."""
        return self.first.startswith(WEBSOCKET)


FLOODS = {
    **{name: Flood(WEBSOCKET, frame(first)) for name, first in EMPTY.items()},
    "continuations": Flood(WEBSOCKET + frame(0x01, b"{"), frame(0x00)),
    "fragments": Flood(WEBSOCKET, frame(0x01, b"{") + frame(0x00, b"}") * 100 + frame(0x80)),
    "bytes": Flood(WEBSOCKET, frame(0x81, b'{"action":"ping"%b}' % (b" " * 4000)), is_dripping=True),
    "half": Flood(WEBSOCKET + b"\x81\xfe\x0f\xff" + MASK, b" ", is_dripping=True),
    "huge": Flood(WEBSOCKET + b"\x82\xff\x3f" + b"\xff" * 7 + MASK, b" "),
    "large": Flood(WEBSOCKET, frame(0x82, b" " * 4000)),
    "requests": Flood(WEBSOCKET, frame(0x81, UNSUBSCRIBE)),
    "pipelined": Flood(b"", b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "pages": Flood(b"", b"GET /api/v1/market-data/symbols HTTP/1.1\r\n" + HOST + b"\r\n"),
    "lines": Flood(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n", b"\r\n"),
    "headers": Flood(b"GET /healthz HTTP/1.1\r\n" + HOST, b"X: y\r\n"),
    "header": Flood(b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: ", b"y"),
    "chunks": Flood(b"GET /healthz HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailers": Flood(b"GET /healthz HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "body": Flood(b"POST /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000000000\r\n\r\n", b" "),
    "no upgrade": Flood(WEBSOCKET.replace(b": 13", b": 12"), frame(0x8A)),
}

ALLOWED = {"requests"}
"""Such as the limits allow at once: cut once they are worked off."""
SERVED = {"pipelined", "pages"}
"""Requests that this machine may send as fast as they are answered, unless the configuration says otherwise."""


class Connection:
    """One connection that floods. Every second one reads what it is sent."""

    def __init__(self, flood: Flood, address: tuple[str, int], *, reads: bool) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.reads = reads
        self.got = bytearray()
        self._left = memoryview(flood.first)
        self._more = memoryview(flood.more * (1 if flood.is_dripping else AT_ONCE // len(flood.more) + 1))
        self._most = 1 if flood.is_dripping else AT_ONCE
        self._is_first = True

    def send(self) -> bool:
        """Send some more; return False when the other side has ended the connection."""
        try:
            sent = self.socket.send(self._left if self._is_first else self._left[: self._most])
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._left = self._left[sent:]
        if not self._left:
            self._left, self._is_first = self._more, False
        return True

    def receive(self) -> bool:
        """Take what came; return False at the end."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.got += data
        del self.got[MOST_KEPT:]
        return bool(data)

    def receive_rest(self) -> None:
        """Take what came before the end."""
        while (before := len(self.got)) < MOST_KEPT and self.receive() and len(self.got) > before:
            pass

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that came, as far as was read."""
        at = self.got.find(b"\r\n\r\n") + 4
        while at >= 4 and len(self.got) - at >= 4:
            size, head = self.got[at + 1], 2
            if size > 125:
                width = 2 if size == 126 else 8
                size, head = int.from_bytes(self.got[at + 2 : at + 2 + width], "big"), 2 + width
            if self.got[at] == 0x88:
                return int.from_bytes(self.got[at + head : at + head + 2], "big")
            at += head + size
        return None


class Outcome(NamedTuple):
    """How a flood ended: for each kind the connections that were not ended, and all close codes that were read."""

    left: list[int]
    codes: list[int]


def flood(kinds: Sequence[Flood], address: tuple[str, int], count: int, seconds: float) -> Outcome:
    """Flood on `count` connections of each kind until all were ended or the time is over."""
    chosen = selectors.DefaultSelector()
    made = [Connection(kind, address, reads=bool(number % 2)) for kind in kinds for number in range(count)]
    print("floods", flush=True)
    for one in made:
        chosen.register(one.socket, selectors.EVENT_WRITE | (selectors.EVENT_READ if one.reads else 0), one)
    until = time.monotonic() + seconds
    while chosen.get_map() and time.monotonic() < until:
        for key, events in chosen.select(0.1):
            one = key.data
            lives = not events & selectors.EVENT_READ or one.receive()
            if not lives or (events & selectors.EVENT_WRITE and not one.send()):
                chosen.unregister(one.socket)
                one.receive_rest()
    left = [0] * len(kinds)
    for key in (chosen.get_map() or {}).values():
        left[made.index(key.data) // count] += 1
    for one in made:
        one.socket.close()
    return Outcome(left, sorted({code for one in made if (code := one.close_code) is not None}))


@asynccontextmanager
async def flooding(
    url: str, kinds: Sequence[Flood], count: int, seconds: float
) -> AsyncIterator[Callable[[], Awaitable[Outcome]]]:
    """Flood from another process, `count` connections of each kind, which are open; give what waits for the end."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    about = [[kind.first.hex(), kind.more.hex(), kind.is_dripping] for kind in kinds]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    out = process.stdout
    process.stdin.write(json.dumps([about, host, int(port), count, seconds]).encode())
    process.stdin.close()

    async def outcome() -> Outcome:
        return Outcome(*json.loads(await out.read()))

    try:
        assert await out.readline() == b"floods\n"
        yield outcome
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def main() -> None:
    about, host, port, count, seconds = json.load(sys.stdin)
    kinds = [Flood(bytes.fromhex(first), bytes.fromhex(more), drips) for first, more, drips in about]
    print(json.dumps(flood(kinds, (host, port), count, seconds)))


if __name__ == "__main__":
    main()
