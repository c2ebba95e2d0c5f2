"""An HTTP proxy on loopback, for connections that go out: it leads every name to this machine, or is rude."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tests.support.cut_server import CutServer, opened, pass_bytes, until_one_ends

RUDE: Final = ("refused", "login", "unauthorized", "mute", "hung", "garbage", "endless", "closed", "reset", "flood")
"""What it may do instead: answer 403, 407 or 401, say nothing, say nothing once a tunnel is open, answer with what is
no HTTP or with headers without end, close or reset the connection, fill an open tunnel with garbage."""
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Asked(NamedTuple):
    """One request that came: its line, and its headers with names in lower case."""

    line: str
    headers: dict[str, str]


class _Front(CutServer):
    """Passes what comes to a port of loopback."""

    def __init__(self, target: int, tls: ssl.SSLContext) -> None:
        super().__init__(tls)
        self._target = target

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with opened(self._target) as (there, back):
            await until_one_ends(pass_bytes(reader, back), pass_bytes(there, writer))
        await _say_the_rest(writer)


class ConnectProxy(CutServer):
    """Opens tunnels for CONNECT, and passes on requests with a whole address; one request for each connection of those.

    `manner` is how it treats what comes from now on, one of `RUDE` or "kind". `cut` ends all that is open.
    """

    def __init__(self, authorization: str = "") -> None:
        super().__init__()
        self.manner = "kind"
        self.asked: list[Asked] = []
        self._authorization = authorization

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        self.asked.append(Asked(line, headers))
        manner = self.manner
        if manner == "kind" and headers.get("proxy-authorization", "") != self._authorization:
            manner = "login"
        if manner != "kind":
            await self._be_rude(manner, reader, writer)
            return
        method, target, _ = line.split(" ")
        port = int(target.rpartition(":")[2]) if method == "CONNECT" else urlsplit(target).port or 80
        async with opened(port) as (there, back):
            (writer if method == "CONNECT" else back).write(OPENED if method == "CONNECT" else _passed_on(line, lines))
            await until_one_ends(pass_bytes(reader, back), pass_bytes(there, writer))
        await _say_the_rest(writer)

    async def _be_rude(self, manner: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if manner == "closed":
            await _say_the_rest(writer)
            return
        if manner == "reset":
            return
        writer.write(
            {
                "refused": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "login": b"HTTP/1.1 407 Login\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "unauthorized": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "mute": b"",
                "hung": OPENED,
                "garbage": b"\x16\x03\x01 this is no HTTP\r\n\r\n",
                "endless": b"HTTP/1.1 200 OK\r\n",
                "flood": OPENED,
            }[manner]
        )
        while manner in ("endless", "flood"):
            writer.write(b"X: y\r\n" * 1000)
            await writer.drain()
        # What the client says goes nowhere, and its end is seen.
        while await reader.read(65536):
            pass


def _passed_on(line: str, lines: list[str]) -> bytes:
    """Return a request as the server itself is asked."""
    method, target, version = line.split(" ")
    parts = urlsplit(target)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    kept = [one for one in lines if not one.lower().startswith("proxy-")]
    if not any(one.lower().startswith("upgrade:") for one in kept):
        kept = [*(one for one in kept if not one.lower().startswith("connection:")), "Connection: close"]
    return "\r\n".join([f"{method} {path} {version}", *kept, "", ""]).encode("latin-1")


async def _say_the_rest(writer: asyncio.StreamWriter) -> None:
    """Close a connection when what was written last has left."""
    writer.close()
    await writer.wait_closed()


@contextlib.asynccontextmanager
async def tls_front(port: int, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve with TLS what listens on a port of loopback; give the port of that."""
    async with _Front(port, tls) as front:
        yield front.port
