"""All that leans on names of aiohttp's client that it does not promise, each with its reason and a way without it.

`relay.web.aiohttp_seams` has those of the server, and says in the log which are missing.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, cast
from weakref import WeakSet

import aiohttp

from relay.core.intake import Intake
from relay.core.outward_proxies import OutwardProxies
from relay.network.connector import Line, line_of
from relay.network.outward_connector import OutwardConnector
from relay.network.read_slices import HeldTransport

try:
    from aiohttp.client_proto import ResponseHandler
except ImportError:
    ResponseHandler = asyncio.Protocol  # type: ignore[assignment,misc]


class Seam(NamedTuple):
    """Names of one class of aiohttp that the relay uses for one thing, and what is less without one of them."""

    owner: type
    names: tuple[str, ...]
    without: str

    @property
    def is_there(self) -> bool:
        """Whether this aiohttp has all of them: in the class, or set by its `__init__`."""
        code = getattr(vars(self.owner).get("__init__"), "__code__", None)
        begins_with = () if code is None else code.co_names
        return all(hasattr(self.owner, name) or name in begins_with for name in self.names)


_WITHOUT_LINES = "data of providers is not read in slices, and a flood is not cut"
BODY = Seam(
    aiohttp.ClientResponse,
    ("_body",),
    "answers that plugins read with read(), text() or json() are only limited by the connection",
)
"""aiohttp bounds no answer; what `read` leaves in `_body`, `text` and `json` take from there."""
CONNECTIONS = Seam(aiohttp.BaseConnector, ("_acquired",), "the conformance check only sees connections of WebSockets")
"""No public name tells which connections are in use."""
FACTORY = Seam(aiohttp.BaseConnector, ("_factory",), _WITHOUT_LINES)
"""A connector makes its ends of connections and cannot be told of which class."""
END = Seam(
    ResponseHandler,
    ("set_parser", "set_response_params", "set_exception", "connected", "close", "abort"),
    _WITHOUT_LINES,
)
"""aiohttp's end of a connection says when a request begins and what reads a WebSocket, and nothing public does."""
HEAD = Seam(aiohttp.ClientResponse, ("start",), _WITHOUT_LINES)
"""What comes after the head of an answer has other bounds, also what came with it."""
PAUSING = Seam(
    ResponseHandler,
    ("_pause_transport_reading", "_resume_transport_reading"),
    "each write to a provider calls one more function",
)
"""aiohttp pauses the transport when it has enough; the slices that wait before it have to be held as well."""
SEAMS = (BODY, CONNECTIONS, FACTORY, END, HEAD, PAUSING)


def has_lines() -> bool:
    """Say whether this aiohttp lets connections have lines."""
    return FACTORY.is_there and END.is_there and HEAD.is_there


# -- connections with a line -----------------------------------------------------------------------


class LinedEnd(ResponseHandler):
    """aiohttp's end of a connection; it is handed what comes by a `Line`, which with TLS is then among `secure`."""

    line: Line | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, intake: Intake | None, secure: WeakSet[Line]) -> None:
        super().__init__(loop=loop)
        self._intake = intake
        self._secure = secure

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Put a line between the socket and this."""
        real = cast(asyncio.Transport, transport)
        self.line = Line(self, real, self._intake)
        # Once TLS has ended a transport may not say any more that it had it.
        if real.get_extra_info("sslcontext") is not None:
            self._secure.add(self.line)
        super().connection_made(real if PAUSING.is_there else HeldTransport(real, self.line))

    def close(self) -> None:
        """Close the connection; of what is not handed on nothing is wanted any more."""
        super().close()
        if self.line is not None:
            self.line.forget()

    def abort(self) -> None:
        """Cut the connection; of what is not handed on nothing is wanted any more."""
        super().abort()
        if self.line is not None:
            self.line.forget()

    def set_response_params(self, **named: Any) -> None:
        """Expect the answer to a request."""
        if self.line is not None:
            self.line.begin()
        super().set_response_params(**named)

    def set_parser(self, parser: Any, *others: Any, **named: Any) -> None:
        """Have a WebSocket read by its reader from now on, behind a counter of frames."""
        super().set_parser(parser if self.line is None else self.line.guard(parser), *others, **named)

    def _pause_transport_reading(self) -> None:
        if self.line is not None:
            self.line.hold()

    def _resume_transport_reading(self) -> None:
        if self.line is not None:
            self.line.release()


class LinedResponse(aiohttp.ClientResponse):
    """An answer whose line knows when its head has come."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read status and headers."""
        # The connection of an answer that is here as a whole is let go at once.
        line = line_of(connection.transport) or _adopt(connection.protocol)
        await super().start(connection)
        if line is not None:
            line.answer(self.status, self.content)
        return self


def _adopt(given: object) -> Line | None:
    """Put a line before an end that somebody else's connector made, and return it; None where that cannot be."""
    end: Any = given
    if not has_lines() or type(given) is not ResponseHandler or end.transport is None:
        return None
    transport = end.transport
    end.__class__ = LinedEnd
    line = end.line = Line(end, transport)
    line.begin()
    if not PAUSING.is_there:
        end.transport = HeldTransport(transport, line)
    return line


class LinedSocket(aiohttp.ClientWebSocketResponse):
    """A WebSocket that knows its `line`; None where there is none."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # One of them is the answer to the handshake: nothing public leads from here to the connection.
        answers = (one for one in (*given, *named.values()) if isinstance(one, aiohttp.ClientResponse))
        connection = next((one.connection for one in answers), None)
        self.line = None if connection is None else line_of(connection.transport)


class LinedConnector(OutwardConnector):
    """Opens connections with lines."""

    def __init__(self, proxies: OutwardProxies, intake: Intake | None) -> None:
        super().__init__(proxies)
        self._secure: WeakSet[Line] = WeakSet()
        self._factory = partial(LinedEnd, asyncio.get_running_loop(), intake, self._secure)  # type: ignore[assignment]

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections. Cuts those with TLS, of which some would wait half a minute for the other side."""
        await super().close(abort_ssl=abort_ssl)
        for line in [*self._secure]:
            if line.transport is not None:
                line.transport.abort()


def new_connector(proxies: OutwardProxies, intake: Intake | None = None) -> OutwardConnector:
    """Return what opens connections with lines for one session, through proxies where there are some.

    Its WebSockets are taps of `intake`, if one is given.
    """
    return LinedConnector(proxies, intake) if has_lines() else OutwardConnector(proxies)


# -- answers and connections in use ----------------------------------------------------------------


async def fill_body(answer: aiohttp.ClientResponse, read: Callable[[], Awaitable[bytes]]) -> None:
    """Have `read` get the body of an answer that has none yet, before aiohttp does."""
    if BODY.is_there and answer._body is None:
        answer._body = await read()


def connections_in_use(
    session: aiohttp.ClientSession, sockets: Iterable[aiohttp.ClientWebSocketResponse]
) -> tuple[Callable[[], Any], ...]:
    """Return for each connection of a session that is in use what breaks it; `sockets` are its WebSockets."""
    acquired = getattr(session.connector, "_acquired", None)
    if acquired is None or not CONNECTIONS.is_there:
        return tuple(_shutdown_of(one) for one in sockets if not one.closed)
    return tuple(_abort_of(one) for one in acquired)


def _abort_of(connection: Any) -> Callable[[], None]:
    def abort() -> None:
        if connection.transport is not None:
            connection.transport.abort()

    return abort


def _shutdown_of(ws: aiohttp.ClientWebSocketResponse) -> Callable[[], None]:
    def shutdown() -> None:
        sock = ws.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    return shutdown
