"""An upstream that means no good, in a process of its own: it answers a request for `/KIND` with an endless flood."""

import base64
import hashlib
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

AT_ONCE = 256 * 1024
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1000000000000\r\n\r\n\x1f\x8b\x08" + bytes(7)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"


def frame(first: int, body: bytes = b"") -> bytes:
    """Return a server's frame."""
    size = len(body)
    if size < 126:
        return bytes((first, size)) + body
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + body
    return bytes((first, 127)) + size.to_bytes(8, "big") + body


def member() -> bytes:
    """Return a whole gzip file that is empty."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(b"") + packer.flush()


class Flood(NamedTuple):
    """What is sent: `first` once, then `more` again and again; after an upgrade where `is_websocket`."""

    first: bytes
    more: bytes
    is_websocket: bool = False


UPDATE = b'{"stream":"A@1m","price":7}'
FRAMES = {
    "continuations": Flood(frame(0x01, b"{"), frame(0x00), True),
    "fragments": Flood(b"", frame(0x01, b"{") + frame(0x00, b" ") * 100 + frame(0x80, b"}"), True),
    "texts": Flood(b"", frame(0x81), True),
    "objects": Flood(b"", frame(0x81, b"{}"), True),
    "binaries": Flood(b"", frame(0x82), True),
    "pings": Flood(b"", frame(0x89), True),
    "pongs": Flood(b"", frame(0x8A), True),
    "large": Flood(b"", frame(0x81, b'{"is":"%b"}' % (b" " * 500_000)), True),
    "tiny among news": Flood(b"", frame(0x81, UPDATE) + frame(0x8A) * 500, True),
}
UPGRADES = {
    "interim": Flood(b"", b"HTTP/1.1 103 \r\n\r\n"),
    "switching": Flood(b"", b"HTTP/1.1 100 Continue\r\nLink: <x>\r\n\r\n"),
}
HEADS = {
    **UPGRADES,
    "lines": Flood(b"", b"\r\n"),
    "headers": Flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "header": Flood(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "reason": Flood(b"HTTP/1.1 200 ", b"y"),
    "interim heads": Flood(b"", b"HTTP/1.1 103 \r\n" + b"X: y\r\n" * 100 + b"\r\n"),
}
BODIES = {
    "chunks": Flood(CHUNKED, b"1\r\n \r\n"),
    "extension": Flood(CHUNKED + b"1;", b"x"),
    "trailers": Flood(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "blocks": Flood(GZIP, EMPTY_BLOCK),
    "members": Flood(GZIP[: -len(b"\x1f\x8b\x08" + bytes(7))], member()),
    "body": Flood(PLAIN, b" "),
    "arrays": Flood(PLAIN + b"[", b"[],"),
}
NEWS = {
    "news": Flood(b"", frame(0x81, UPDATE + b" " * 250), True),
    "news in ten": Flood(b"", frame(0x81, UPDATE) + frame(0x81, b'{"price":7}') * 9, True),
}
"""Not floods: a market that is very busy, and one of whose messages few mean something."""
FLOODS = {**NEWS, **FRAMES, **HEADS, **BODIES}


def upgraded(request: bytes) -> bytes:
    """Return the answer that takes a handshake."""
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    return UPGRADE % base64.b64encode(hashlib.sha1(key.partition(b":")[2].strip() + GUID).digest())


def serve(connection: socket.socket) -> None:
    """Answer one request, until the client goes."""
    with connection, suppress(OSError):
        request = b""
        while b"\r\n\r\n" not in request:
            if not (data := connection.recv(65536)):
                return
            request += data
        name = unquote(request.split(b"/", 2)[1].split()[0].decode())
        flood = FLOODS[name]
        if flood.is_websocket:
            connection.sendall(upgraded(request))
        connection.sendall(flood.first)
        more = flood.more * (AT_ONCE // len(flood.more) + 1)
        while True:
            connection.sendall(more)


def main() -> None:
    """Listen until the parent goes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


@contextmanager
def hostile() -> Iterator[str]:
    """Run it; give its address without a scheme."""
    command = (sys.executable, "-m", "tests.support.hostile_upstream")
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    main()
