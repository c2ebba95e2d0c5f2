"""Bodies of answers that many clients ask for: made once, kept with their entity tag and compressed form."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from relay.compression import crc32, gzipped

LEAST_COMPRESSED = 1400
"""Smaller bodies fit into one packet anyway."""
MOST_ON_LOOP = 128 * 1024
"""Larger bodies are compressed in a thread."""


class Sent(web.StreamResponse):
    """An answer that has left already: there is nothing more to do for it. The connection stays open."""

    keep_alive = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head is gone."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all of it is gone."""


_SENT = Sent()


class Heads:
    """The heads of plain answers, as bytes: what those of one content type have in common is made once."""

    def __init__(self) -> None:
        self._ends: dict[str, bytes] = {}

    async def make(self, request: web.Request, body: "Body") -> bytes:
        """Return the head of a body up to the date; for requests without Origin only, whose answers name none."""
        end = self._ends.get(body.content_type)
        if end is None:
            answer = web.Response(headers={"Content-Type": body.content_type, **_SHARED})
            # What the application adds to every answer.
            await request.app.on_response_prepare.send(request, answer)
            lines = [f"{name}: {value}\r\n" for name, value in answer.headers.items() if name != "Content-Length"]
            end = self._ends[body.content_type] = "".join(lines).encode()
        return b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "%b"\r\n%b' % (body.length, body.tag.encode(), end)


class Body:
    """A body that never changes, in one or more parts, and how it leaves."""

    __slots__ = ("_head", "_packed", "_parts", "content_type", "length", "tag")

    def __init__(self, parts: Sequence[bytes], content_type: str) -> None:
        check = 0
        for part in parts:
            check = crc32(part, check)
        self.length = sum(map(len, parts))
        # Tells one content of an address from another; nobody gains by forging it.
        self.tag = f"{check:08x}-{self.length:x}"
        self.content_type = content_type
        self._parts = parts
        self._packed: bytes | None = None
        self._head: bytes | None = None

    @property
    def size(self) -> int:
        """How many bytes it takes in memory."""
        return self.length + (0 if self._packed is None else len(self._packed))

    async def answer(self, request: web.Request, heads: Heads) -> web.StreamResponse:
        """Answer with it as the client wants it: compressed, or not at all if the client has it.

        Plain, to a GET by HTTP/1.1 on a connection that stays open, it is sent here: the head is bytes already, and
        what aiohttp does for every answer anew was done for an equal one.
        """
        asked = request.headers
        known = asked.get("If-None-Match")
        if known is not None and (self.tag in known or known.strip() == "*"):
            return web.Response(status=304, headers={"ETag": f'W/"{self.tag}"', **_SHARED})
        accepted = asked.get("Accept-Encoding")
        if accepted is None or self.length < LEAST_COMPRESSED or not takes_gzip(accepted):
            if (
                "Origin" in asked
                or request.version != HttpVersion11
                or request.method != "GET"
                or not request.keep_alive
            ):
                return web.Response(body=self._data(), headers=self._headers(f'"{self.tag}"'))
            head = self._head
            if head is None:
                head = self._head = await heads.make(request, self)
            await _send(request, (b"%bDate: %b\r\n\r\n" % (head, _date(int(time.time()))), *self._parts))
            return _SENT
        if self._packed is None:
            data = self._data()
            if self.length > MOST_ON_LOOP:
                self._packed = await asyncio.to_thread(gzipped, data)
            else:
                self._packed = gzipped(data)
        headers = self._headers(f'"{self.tag}-gzip"')
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=self._packed, headers=headers)

    def _data(self) -> bytes:
        return b"".join(self._parts)

    def _headers(self, tag: str) -> CIMultiDict[str]:
        return CIMultiDict({"Content-Type": self.content_type, "ETag": tag, **_SHARED})


# Kept by browsers, and used again only after asking whether it still holds.
_SHARED = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


async def _send(request: web.Request, parts: Sequence[bytes]) -> None:
    """Send all of it, and wait while the client does not take it; one that is gone has no need of it."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    transport.writelines(parts)
    with suppress(ConnectionError):
        await request.writer.drain()


@lru_cache(1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


@lru_cache(256)
def takes_gzip(accepted: str) -> bool:
    """Say whether an `Accept-Encoding` takes gzip."""
    taken = False
    for part in accepted.lower().split(","):
        name, _, rest = part.partition(";")
        weight = rest.replace(" ", "").removeprefix("q=")
        is_taken = not rest or weight.strip("0.") != ""
        if name.strip() in ("gzip", "x-gzip"):
            return is_taken
        if name.strip() == "*":
            taken = is_taken
    return taken
