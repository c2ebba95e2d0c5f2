"""Between the socket and aiohttp: what a client sends is handed on in slices, and not without end."""

import asyncio
from contextlib import suppress
from typing import Any, cast

from aiohttp import web

from relay.core.rate_limits import TokenBucket
from relay.network.read_slices import Slices, slices_of
from relay.web.access.http_connections import HttpConnections
from relay.web.aiohttp_seams import Handler, as_sent, connect, release
from relay.web.problems import problem_of

REQUEST_BYTES = 1024 * 1024
"""What a client may send over HTTP until the next request of it is complete, or else its connection ends."""
UNREAD_S = 60.0
LEAST_READ_BYTES = 64 * 1024
"""A client that takes less of its answer over HTTP in `UNREAD_S` has gone, or means no good."""
GOODBYE_S = 2.0
LINGER_S = 1.0
FORGOTTEN_BYTES = 4 * 1024 * 1024
"""A client that sent too much has a second to see the answer, while so much of the rest is read and forgotten."""
OVER_LIMIT_RATE, OVER_LIMIT_BURST = 1.0, 100


class Behind:
    """Keeps what came behind the handshake of a WebSocket; stands where aiohttp's reader would."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep it; return that more may come."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Do nothing: whoever takes the connection over sees its end."""


class Inlet(Slices):
    """The protocol of one connection: of `connections` until it is a WebSocket, which others take over.

    Over HTTP a client that takes next to nothing for `unread_s` is cut.
    """

    __slots__ = ("_behind", "_connections", "_is_websocket", "_lost", "_over_limit", "_timer", "_unread_s")
    inner: web.RequestHandler

    def __init__(self, inner: web.RequestHandler, connections: HttpConnections, *, unread_s: float = UNREAD_S) -> None:
        super().__init__(inner)
        self._connections = connections
        self._is_websocket = False
        self._behind: Behind | None = None
        self._unread_s = unread_s
        self._over_limit: TokenBucket | None = None
        self._left = REQUEST_BYTES
        self._timer: asyncio.TimerHandle | None = None
        self._lost: asyncio.Event | None = None

    # -- from the socket ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse the connection where there are too many."""
        self.transport = cast(asyncio.Transport, transport)
        connect(self.inner, transport, self)
        peer = transport.get_extra_info("peername")
        refusal = self._connections.came(self, peer[0] if peer else None)
        if refusal is not None:
            self.transport.write(as_sent(problem_of(refusal)))
            self.stop()
            self._close(GOODBYE_S)

    def pass_on(self, data: bytes) -> None:
        """Hand on a slice, or end the connection after too much of a request."""
        if not self._is_websocket:
            self._left -= len(data)
            if self._left < 0:
                self.stop()
                self._close(GOODBYE_S)
                return
        super().pass_on(data)

    def _close(self, after_s: float) -> None:
        """Close, and cut what is not over after so long."""
        if self.transport is not None:
            self.transport.close()
            self._watch(after_s)

    def _watch(self, after_s: float) -> None:
        self._stop_watch()
        self._timer = asyncio.get_running_loop().call_later(after_s, self.cut)

    def _watch_reading(self) -> None:
        """Cut the connection unless some of what waits is taken in time; then look again."""
        if self.transport is not None:
            unread = self.transport.get_write_buffer_size()
            self._connections.waits(self, unread)
            self._stop_watch()
            self._timer = asyncio.get_running_loop().call_later(self._unread_s, self._look_at_reading, unread)

    def _look_at_reading(self, unread: int) -> None:
        if self.transport is not None and self.transport.get_write_buffer_size() > unread - LEAST_READ_BYTES:
            self.cut()
        else:
            self._watch_reading()

    def cut(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def _stop_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody is there to be answered."""
        self.forget()
        self._stop_watch()
        self._connections.left(self)
        super().connection_lost(exc)
        if self._lost is not None:
            self._lost.set()

    def pause_writing(self) -> None:
        """Have aiohttp wait; what is not read over HTTP is not waited for without end."""
        super().pause_writing()
        if not self._is_websocket and not self._is_stopped:
            self._watch_reading()

    def resume_writing(self) -> None:
        """Have aiohttp go on."""
        super().resume_writing()
        self._connections.reads(self)
        if not self._is_stopped:
            self._stop_watch()

    # -- from the routes ---------------------------------------------------------------------------

    def guard(self, reader: Any) -> Behind:
        """Keep what comes from now on: it is for who takes the connection over, not for aiohttp's reader."""
        self._behind = Behind()
        return self._behind

    def begin_websocket(self) -> None:
        """Count the connection no longer, and leave it to others how much may come and has to be read."""
        self._is_websocket = True
        self._stop_watch()
        self._connections.left(self)

    @property
    def may_hand_over(self) -> bool:
        """Whether aiohttp lets go of the connection."""
        return self._behind is not None and isinstance(self.inner, Handler) and not self._is_stopped

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Have another protocol go on with the connection, from the first byte behind the handshake."""
        assert self.transport is not None
        assert isinstance(self.inner, Handler)
        assert self._behind is not None
        transport, rest = self.transport, self._behind.data + self.take_rest()
        self.transport = None
        release(self.inner)
        transport.set_protocol(protocol)
        # Here it may have been paused.
        with suppress(RuntimeError):
            transport.resume_reading()
        if rest:
            protocol.data_received(rest)

    async def until_lost(self) -> None:
        """Wait for the end of a connection that no other protocol took over."""
        if self.transport is not None:
            self._lost = asyncio.Event()
            await self._lost.wait()

    def greet(self) -> None:
        """Note that a request is complete."""
        if not self._is_stopped:
            self._left = REQUEST_BYTES

    def may_go_on(self) -> bool:
        """Count an answer that a limit refused; return False when there were too many of them."""
        if self._over_limit is None:
            self._over_limit = TokenBucket(OVER_LIMIT_RATE, OVER_LIMIT_BURST)
        return self._over_limit.try_acquire()


def inlet_of(transport: asyncio.BaseTransport | None) -> Inlet | None:
    """Return the inlet of a connection, None where there is none: it is gone, or another server listens."""
    slices = slices_of(transport)
    return slices if isinstance(slices, Inlet) else None
