"""The WebSocket route, and all clients that came by it: who is let in, who is still there, and how all leave."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from aiohttp import web

from relay.core.errors import CloseCode, Code, RequestError
from relay.protocol import frames
from relay.streams.subscriptions import Wire
from relay.telemetry.events import event
from relay.telemetry.rare_warning import RareWarning
from relay.web.access.access import STREAMS_PER_CLIENT, WEBSOCKET, is_websocket
from relay.web.access.forwarded import lacks_of_handshake
from relay.web.aiohttp_seams import SENT
from relay.web.inlet import inlet_of
from relay.web.ws.aiohttp_connection import AiohttpConnection
from relay.web.ws.connection import Connection
from relay.web.ws.context import ConnectionContext
from relay.web.ws.direct_connection import DirectConnection
from relay.web.ws.socket import Socket

log = logging.getLogger(__name__)

VERSION = "13"
ALL_GONE_S = 3.0
"""How long the end of the relay waits for all clients to go."""


class ClientPings(NamedTuple):
    """When a client is pinged, and how long its answer may take before it is taken for gone."""

    interval_s: float = 20.0
    pong_timeout_s: float = 10.0
    beats_a_turn: int = 250
    """So many clients are looked at, and perhaps pinged, in one turn of the event loop."""


CLIENT_PINGS = ClientPings()


class Clients:
    """All connections that get updates, WebSockets and event streams, with one heartbeat for all of them."""

    def __init__(self, context: ConnectionContext, epoch: str, pings: ClientPings = CLIENT_PINGS) -> None:
        self.context = context
        self.epoch = epoch
        self._pings = pings
        self.connections: dict[Connection, None] = {}
        self.opened = 0
        self.event_streams = 0
        self.requests: Counter[str] = Counter()
        self.closes: Counter[tuple[str, int]] = Counter()
        self.broken_handshake = RareWarning(log, "handshake_broken")
        self._heart: asyncio.Task[None] | None = None
        self._all_gone: asyncio.Event | None = None
        self._gone_at = math.inf

    def start(self) -> None:
        """Begin the heartbeat."""
        self._heart = asyncio.create_task(self._beat(), name="heartbeat")

    async def close(self) -> None:
        """Send every client away with 1001 and stop the heartbeat; who is not gone soon is left to the server."""
        self._gone_at = min(self._gone_at, asyncio.get_running_loop().time() + ALL_GONE_S)
        self.context.access.is_closing = True
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
        if not self.connections:
            return
        self._all_gone = asyncio.Event()
        for connection in list(self.connections):
            self._send_away(connection)
        # A client that is cut may have a request that waits for a provider.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._gone_at):
                await self._all_gone.wait()

    def _send_away(self, connection: Connection) -> None:
        connection.end(CloseCode.GOING_AWAY, "server shutdown")
        connection.hurry()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._pings.interval_s / 4))
            interval_s, pong_timeout_s, beats_a_turn = self._pings
            for number, connection in enumerate(list(self.connections), 1):
                if connection in self.connections:
                    connection.beat(time.monotonic(), interval_s, pong_timeout_s)
                if not number % beats_a_turn:
                    await asyncio.sleep(0)

    def reconfigure(self) -> int:
        """Go by another configuration, after `access` did; return how many clients had to go with their token."""
        for connection in list(self.connections):
            connection.set_limits()
        return sum(self._check_token(connection) for connection in list(self.connections))

    def _check_token(self, connection: Connection) -> bool:
        """End a connection whose token is gone, also one that was opened while that happened."""
        if self.context.access.stands(connection.caller):
            return False
        connection.end(CloseCode.TOKEN_REVOKED, "token revoked")
        return True

    def greet(self) -> bytes:
        """Return the first frame on a connection, counted as sent."""
        most_streams = self.context.access.most_streams(STREAMS_PER_CLIENT)
        frame = frames.greeting(
            self.epoch, self.context.history.store_id, most_streams, int(self.context.server_time())
        )
        self.context.hub.fanout.count_sent(frame)
        return frame

    def came(self, connection: Connection) -> None:
        """Watch over a client that was let in and greeted."""
        self.connections[connection] = None
        self.opened += 1
        self.event_streams += connection.subscriber.wire is Wire.EVENTS
        if log.isEnabledFor(logging.DEBUG):
            number, caller = connection.subscriber.id, connection.caller
            token = caller.token.name if caller.token else None
            log.debug(
                "client %d comes from %s%s",
                number,
                caller.address,
                "" if token is None else f" with {token!r}",
                extra=event("client_came", client=number, address=caller.address, token=token),
            )
        self._check_token(connection)
        if self.context.access.is_closing:
            self._send_away(connection)

    def left(self, connection: Connection) -> None:
        """Forget a client that is gone."""
        number, (by, code) = connection.subscriber.id, connection.ending
        self.closes[by, code] += 1
        about = event("client_left", client=number, by=by, code=code)
        log.debug("client %d left: close code %d, by the %s", number, code, by, extra=about)
        del self.connections[connection]
        self.event_streams -= connection.subscriber.wire is Wire.EVENTS
        self.context.access.leave(connection.caller)
        if self._all_gone is not None and not self.connections:
            self._all_gone.set()


CLIENTS = web.AppKey("clients", Clients)


async def websocket(request: web.Request) -> web.StreamResponse:
    """Let one client in and leave it to its connection; without a handshake say what it would meet."""
    return await serve(request, request.app[CLIENTS].greet, DirectConnection, AiohttpConnection)


async def serve(
    request: web.Request,
    greet: Callable[[], bytes],
    direct_type: type[DirectConnection],
    other_type: type[AiohttpConnection],
) -> web.StreamResponse:
    """Let one client in, greet it, and leave it to a connection of one of these types."""
    lacking = lacks_of_handshake(request)
    if lacking is not None:
        request.app[CLIENTS].broken_handshake.say(
            "a WebSocket handshake from %s has no %s: a proxy between must pass the headers Upgrade and Connection",
            request.remote,
            lacking,
        )
        raise RequestError(
            Code.INVALID_REQUEST,
            f"the handshake has no {lacking}: a proxy between must pass the headers Upgrade and Connection",
        )
    if not is_websocket(request):
        request.app[CLIENTS].context.access.check_opening(request)
        raise RequestError(
            Code.INVALID_REQUEST, "this address is for WebSocket connections; connect with ws:// or wss://"
        )
    if request.can_read_body:
        raise RequestError(Code.INVALID_REQUEST, "the handshake of a WebSocket has no body")
    clients = request.app[CLIENTS]
    access = clients.context.access
    caller = access.admit(request)
    try:
        ws = Socket(compress=access.config.compression, message_bytes=direct_type.message_bytes)
        try:
            transport = await ws.open(request, greet())
        except web.HTTPBadRequest as error:
            # RFC 6455 section 4.4: who cannot speak this version has to be told which one is spoken.
            text = f"{error.text}; the relay supports WebSocket version {VERSION} (RFC 6455)"
            raise web.HTTPBadRequest(text=text, headers={"Sec-WebSocket-Version": VERSION}) from None
    except BaseException:
        access.leave(caller)
        raise
    if transport is None:
        access.leave(caller)
        return ws
    inlet = inlet_of(transport)
    if inlet is not None and inlet.may_hand_over:
        direct = direct_type(clients.context, clients, transport, caller, ws)
        clients.came(direct)
        # Behind the handshake there may be messages already.
        direct.do_first(direct.begin(request))
        inlet.hand_over(direct)
        return SENT
    connection = other_type(clients.context, clients, transport, caller, ws.wire)
    clients.came(connection)
    await connection.serve(request, ws, connection.begin(request))
    return ws


ROUTES = [web.get(WEBSOCKET, websocket)]
