"""Bodies of answers that many clients ask for: made once, kept with their entity tag and compressed form."""

import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache, partial
from typing import NamedTuple

from aiohttp import HttpVersion11, web

from relay.core.bytes_cache import BytesCache
from relay.core.compression import crc32, gzipped
from relay.core.threads import in_thread
from relay.web.aiohttp_seams import send_past

LEAST_COMPRESSED = 1400
"""Smaller bodies fit into one packet anyway."""
MOST_ON_LOOP = 128 * 1024
"""Larger bodies are compressed in a thread."""
MOST_REMEMBERED = 4096
"""Paths that were asked for once: the body is kept the second time, so that a walk through history keeps none."""
_NO_MORE: Mapping[str, str] = {}


class _EncodedBody:
    """A body in one encoding, in one or more parts; its `head` up to the date, and of one second whole, once made."""

    __slots__ = ("_dated", "_second", "content_type", "encoding", "head", "length", "parts", "tag")

    def __init__(self, parts: Sequence[bytes], content_type: str, tag: str, encoding: str | None) -> None:
        self.parts = parts
        self.length = sum(map(len, parts))
        self.content_type = content_type
        self.tag = tag
        self.encoding = encoding
        self.head: bytes | None = None
        self._second = 0
        self._dated = b""

    def message(self, head: bytes, more: bytes) -> tuple[bytes, ...]:
        """Return all that is sent now, with the lines of `more` headers."""
        second = int(time.time())
        if second != self._second:
            self._dated = b"%bDate: %b\r\n" % (head, _date(second))
            self._second = second
        return self._dated, more, b"\r\n", *self.parts

    def pack(self) -> bytes:
        """Return all parts together, compressed."""
        return gzipped(b"".join(self.parts))

    def common(self) -> dict[str, str]:
        """Return the headers that any content has."""
        headers = {"Content-Type": self.content_type, **_SHARED}
        return headers if self.encoding is None else {**headers, "Content-Encoding": self.encoding}

    def response(self, more: Mapping[str, str]) -> web.Response:
        """Return it as an answer of aiohttp's, with more headers."""
        return web.Response(body=b"".join(self.parts), headers={**self.common(), "ETag": f'"{self.tag}"', **more})


class ResponseHeads:
    """The heads of answers, as bytes: what those of one content type and encoding have in common is made once."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str | None], bytes] = {}

    async def make(self, request: web.Request, form: _EncodedBody) -> bytes:
        """Return the head of a body up to the date; for requests without Origin only, whose answers name none."""
        kind = (form.content_type, form.encoding)
        end = self._ends.get(kind)
        if end is None:
            answer = web.Response(headers=form.common())
            # What the application adds to every answer.
            await request.app.on_response_prepare.send(request, answer)
            lines = [f"{name}: {value}\r\n" for name, value in answer.headers.items() if name != "Content-Length"]
            end = self._ends[kind] = "".join(lines).encode()
        return b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "%b"\r\n%b' % (form.length, form.tag.encode(), end)


class Body:
    """A body that never changes, in one or more parts, and how it leaves."""

    __slots__ = ("_packed", "_plain")

    def __init__(self, parts: Sequence[bytes], content_type: str) -> None:
        check = 0
        for part in parts:
            check = crc32(part, check)
        # Tells one content of an address from another; nobody gains by forging it.
        self._plain = _EncodedBody(parts, content_type, f"{check:08x}-{sum(map(len, parts)):x}", None)
        self._packed: _EncodedBody | None = None

    @property
    def size(self) -> int:
        """How many bytes it takes in memory."""
        return self._plain.length + (0 if self._packed is None else self._packed.length)

    async def answer(
        self, request: web.Request, heads: ResponseHeads, more: Mapping[str, str] = _NO_MORE
    ) -> web.StreamResponse:
        """Answer with it as the client wants it: compressed, or not at all if the client has it; with `more` headers.

        To a GET by HTTP/1.1 on a connection that stays open it is sent here: the head is bytes already, and what
        aiohttp does for every answer anew was done for an equal one.
        """
        asked, form = request.headers, self._plain
        known = asked.get("If-None-Match")
        if known is not None and (form.tag in known or known.strip() == "*"):
            return web.Response(status=304, headers={"ETag": f'W/"{form.tag}"', **_SHARED, **more})
        accepted = asked.get("Accept-Encoding")
        if accepted is not None and form.length >= LEAST_COMPRESSED and takes_gzip(accepted):
            form = self._packed or await self.pack()
        if "Origin" in asked or request.version != HttpVersion11 or request.method != "GET" or not request.keep_alive:
            return form.response(more)
        if form.head is None:
            form.head = await heads.make(request, form)
        lines = b"".join([b"%b: %b\r\n" % (name.encode(), text.encode()) for name, text in more.items()])
        return await send_past(request, partial(form.message, form.head, lines)) or form.response(more)

    async def pack(self) -> _EncodedBody:
        """Make the compressed form now, not when a client wants it."""
        plain = self._plain
        packed = await in_thread(plain.pack) if plain.length > MOST_ON_LOOP else plain.pack()
        self._packed = _EncodedBody((packed,), plain.content_type, f"{plain.tag}-gzip", "gzip")
        return self._packed


def _nothing_to_do() -> None:
    pass


class KeptBody(NamedTuple):
    """A body with so many candles; `is_current` says whether it is what would be made now.

    `on_use` is to be called when it is given to somebody.
    """

    body: Body
    rows: int
    is_current: Callable[[], bool]
    on_use: Callable[[], None] = _nothing_to_do


class KeptBodies:
    """Bodies of at most `most_bytes` together, those used last."""

    def __init__(self, most_bytes: int) -> None:
        self._kept: BytesCache[str, KeptBody] = BytesCache(most_bytes)
        self._seen: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, path: str) -> KeptBody | None:
        """Return what is kept of a path, if it still holds."""
        made = self._kept.get(path)
        return made if made is not None and made.is_current() else None

    def is_wanted(self, path: str) -> bool:
        """Note that a body is made for a path; say whether one was before, lately, so that this one is to be kept."""
        if self._kept.peek(path) is not None:
            return True
        if path in self._seen:
            del self._seen[path]
            return True
        self._seen[path] = None
        if len(self._seen) > MOST_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return False

    def keep(self, path: str, made: KeptBody) -> None:
        """Keep a body, if it holds for longer than this moment."""
        if made.is_current():
            self._kept.put(path, made, 2 * len(path) + made.body.size)


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
