"""Bodies of answers that many clients ask for: made once, kept with their entity tag and compressed form."""

import asyncio
import gzip
import hashlib
import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

LEAST_COMPRESSED = 1400
"""Smaller bodies fit into one packet anyway."""
MOST_ON_LOOP = 128 * 1024
"""Larger bodies are compressed in a thread."""
_LEVEL = 1


class Ready(web.Response):
    """An answer whose head is bytes already: what aiohttp does for every answer anew was done for an equal one.

    For GET by HTTP/1.1 on a connection that stays open.
    """

    def __init__(self, head: bytes, data: bytes) -> None:
        super().__init__()
        self._parts = (head, data)
        self._request: web.BaseRequest | None = None

    @property
    def prepared(self) -> bool:
        """Say whether the head cannot be changed any more, which is so from the beginning."""
        return True

    @property
    def keep_alive(self) -> bool:
        """Leave the connection open."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Take the request that is answered."""
        self._request = request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Send all of it, and wait while the client does not take it."""
        request, self._request = self._request, None
        if request is None:
            return
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        request.transport.writelines(self._parts)
        await request.writer.drain()


class Body:
    """A body that never changes, and how it leaves."""

    __slots__ = ("_content_type", "_head", "_packed", "_plain", "data", "tag")

    def __init__(self, data: bytes, content_type: str) -> None:
        self.data = data
        self.tag = hashlib.sha256(data).hexdigest()[:24]
        self._content_type = content_type
        self._packed: bytes | None = None
        self._head: bytes | None = None
        self._plain = self._headers(f'"{self.tag}"')

    @property
    def size(self) -> int:
        """How many bytes it takes in memory."""
        return len(self.data) + (0 if self._packed is None else len(self._packed))

    async def answer(self, request: web.Request) -> web.Response:
        """Return it as the client wants it: compressed, or not at all if the client has it."""
        asked = request.headers
        known = asked.get("If-None-Match")
        if known is not None and (self.tag in known or known.strip() == "*"):
            return web.Response(status=304, headers={"ETag": f'W/"{self.tag}"', **_SHARED})
        accepted = asked.get("Accept-Encoding")
        if accepted is None or len(self.data) < LEAST_COMPRESSED or not takes_gzip(accepted):
            if (
                "Origin" in asked
                or request.version != HttpVersion11
                or request.method != "GET"
                or not request.keep_alive
            ):
                return web.Response(body=self.data, headers=self._plain)
            head = self._head or await self._make_head(request)
            return Ready(b"%bDate: %b\r\n\r\n" % (head, _date(int(time.time()))), self.data)
        if self._packed is None:
            if len(self.data) > MOST_ON_LOOP:
                self._packed = await asyncio.to_thread(gzip.compress, self.data, _LEVEL, mtime=0)
            else:
                self._packed = gzip.compress(self.data, _LEVEL, mtime=0)
        headers = self._headers(f'"{self.tag}-gzip"')
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=self._packed, headers=headers)

    async def _make_head(self, request: web.Request) -> bytes:
        """Return the head up to the date, with what the application adds to the answers of requests without Origin."""
        answer = web.Response(body=self.data, headers=self._plain)
        await request.app.on_response_prepare.send(request, answer)
        lines = [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
        self._head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.data)}\r\n{''.join(lines)}".encode()
        return self._head

    def _headers(self, tag: str) -> CIMultiDict[str]:
        return CIMultiDict({"Content-Type": self._content_type, "ETag": tag, **_SHARED})


# Kept by browsers, and used again only after asking whether it still holds.
_SHARED = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


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
