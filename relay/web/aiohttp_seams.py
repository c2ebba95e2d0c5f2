"""All that leans on names of aiohttp's server that it does not promise, each with its reason and a way without it.

A version of aiohttp that lacks one is noticed when the relay starts, said once in the log, and served with less:
`SEAMS` has the names and what is less then. `tests/integration/test_aiohttp_seams.py` holds each of them, and the ways
without.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from relay.core.errors import Code
from relay.core.version import NAME
from relay.network import aiohttp_client_seams
from relay.network.aiohttp_client_seams import Seam
from relay.network.read_slices import HeldTransport, Slices, slices_of
from relay.telemetry.events import event
from relay.web.problems import problem

log = logging.getLogger(__name__)

PORTION_BYTES = 1024 * 1024
"""So much of an answer is given to a connection at once."""
_UNREADABLE = (
    "this is not a valid HTTP/1.1 request; use GET or HEAD, an address in ASCII with other characters percent-encoded, "
    "and lines of at most 8190 bytes"
)


class Handler(web.RequestHandler):
    """Answers as a problem what no middleware sees, since no request could be made of it; reads by its slices."""

    __slots__ = ()

    async def start(self) -> None:
        """Answer requests until the end. What aiohttp reads and can make no request of ends it, with an answer.

        A host such as `xn--` in the line passes its parser, and fails where nobody catches it.
        """
        try:
            await super().start()
        except Exception as fault:  # noqa: BLE001 - the client would wait without end, and nobody hear of it
            _log_no_http(fault)
            if self.transport is not None:
                self.transport.write(as_sent(problem(400, Code.INVALID_REQUEST, _UNREADABLE)))
                self.transport.close()

    def set_parser(self, parser: Any, *others: Any, **named: Any) -> None:
        """Give the slices what a client sent behind its handshake: they put something before aiohttp's reader."""
        slices = slices_of(self.transport)
        guard: Any = parser if slices is None else slices.guard(parser)
        super().set_parser(guard, *others, **named)

    def _pause_transport_reading(self) -> None:
        if (slices := slices_of(self.transport)) is not None:
            slices.hold()

    def _resume_transport_reading(self) -> None:
        if (slices := slices_of(self.transport)) is not None:
            slices.release()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer, and log, without aiohttp's words: they repeat the line or a header, and with it a token.

        What is no HTTP leaves a line at debug level. At what is the relay's fault aiohttp logs the traceback.
        """
        if status < 500:
            _log_no_http(exc)
            answer = problem(status, Code.INVALID_REQUEST, _UNREADABLE)
        else:
            super().handle_error(request, status, exc, message)
            answer = problem(status, Code.INTERNAL, "the relay could not process this request")
        answer.headers["Server"] = NAME
        answer.force_close()
        return answer


def _log_no_http(fault: BaseException | None) -> None:
    # Its own words may hold a header, and with it a token.
    log.debug("a request was not HTTP: %s", type(fault).__name__, extra=event("no_http"))


def as_sent(answer: web.Response) -> bytes:
    """Return the bytes of an answer that no request can send, the last one of its connection."""
    body = cast(bytes, answer.body)
    head = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {text}" for name, text in answer.headers.items())]
    head += [f"Server: {NAME}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*head, "", ""]).encode() + body


class SentResponse(web.StreamResponse):
    """An answer that has left already: there is nothing more to do for it. The connection stays open."""

    keep_alive = True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head is gone."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all of it is gone."""


SENT = SentResponse()


class HandshakeResponse(web.WebSocketResponse):
    """A WebSocket whose answer to the handshake waits for the first write, and leaves with it in one packet."""

    _send_headers_immediately = False


HANDLER = Seam(
    web.RequestHandler,
    ("start", "set_parser", "handle_error", "transport", "connection_lost"),
    "a WebSocket client takes five times the memory, its frames are not counted and may lack a mask, and aiohttp "
    "itself answers requests that are not HTTP, if at all",
)
"""aiohttp makes the handlers and cannot be told of which class, and keeps a task and more for each WebSocket."""
PAUSING = Seam(
    web.RequestHandler,
    ("_pause_transport_reading", "_resume_transport_reading"),
    "each write calls one more function",
)
"""aiohttp pauses the transport when it has enough; the slices that wait before it have to be held as well."""
WRITING_PAST = Seam(
    web.BaseRequest,
    ("writer", "transport", "keep_alive"),
    "aiohttp builds answers from memory, with several times the CPU",
)
"""Most of what aiohttp does for an answer from memory was done for an equal one: its bytes go to the transport."""
LATE_HEAD = Seam(
    web.StreamResponse,
    ("_send_headers_immediately",),
    "the answer to a handshake and the greeting leave in two packets",
)
"""Thousands of clients come at once after a restart; one write each instead of two."""
SEAMS = (HANDLER, PAUSING, WRITING_PAST, LATE_HEAD)


def tell_missing(seams: Iterable[Seam] = (*SEAMS, *aiohttp_client_seams.SEAMS)) -> None:
    """Say in the log which names this aiohttp does not have, and what is less."""
    for seam in seams:
        if not seam.is_there:
            names = " or ".join(seam.names)
            log.warning(
                "this aiohttp's %s has no %s: %s",
                seam.owner.__name__,
                names,
                seam.without,
                extra=event("aiohttp_differs", missing=names),
            )


def adopt(handler: web.RequestHandler) -> bool:
    """Have a handler that aiohttp made be one of ours; return whether it is."""
    if not HANDLER.is_there:
        return False
    try:
        handler.__class__ = Handler
    except TypeError:
        # Of a compiled or otherwise laid out class.
        return False
    return True


def release(handler: Handler) -> None:
    """Have a handler end as if its connection were lost; the connection stays open, and is another's.

    Its route has to return at once, with `SENT`.
    """
    handler.transport = None
    handler.connection_lost(None)


def connect(handler: web.RequestHandler, transport: asyncio.BaseTransport, slices: Slices) -> None:
    """Give a handler its transport, so that `slices` are told when it has enough."""
    if not isinstance(handler, Handler) or not PAUSING.is_there:
        transport = HeldTransport(cast(asyncio.Transport, transport), slices)
    handler.connection_made(transport)


def _portions(parts: Sequence[bytes]) -> Iterator[Sequence[bytes | memoryview]]:
    """Yield all of it, so much at a time that one who does not read costs little: lists are kept once for all."""
    for part in parts:
        for at in range(0, len(part), PORTION_BYTES):
            yield (memoryview(part)[at : at + PORTION_BYTES],)


async def send_past(request: web.Request, parts: Callable[[], Sequence[bytes]]) -> web.StreamResponse | None:
    """Send an answer as bytes, head and body; return what a route returns then, None where that cannot be done."""
    if not WRITING_PAST.is_there:
        return None
    transport = request.transport
    # Who is gone has no need of it.
    if transport is not None and not transport.is_closing():
        found = parts()
        with suppress(ConnectionError):
            for portion in (found,) if sum(map(len, found)) <= PORTION_BYTES else _portions(found):
                transport.writelines(portion)
                await request.writer.drain()
    return SENT
