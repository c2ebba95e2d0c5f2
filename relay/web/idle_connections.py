"""Connections that have not asked for anything yet: each has some seconds, then it goes.

Limits count who asks. A connection that stays silent, or sends its request one byte a minute, would never be counted
and could be had by the thousand.
"""

import asyncio
import errno
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from aiohttp import web

from relay.web.access.http_connections import HttpConnections
from relay.web.aiohttp_seams import adopt
from relay.web.inlet import Inlet, inlet_of

HANDSHAKE_S = 60.0
LOOPBACK = ("127.0.0.1", "::1")
_LACKING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
LOOKS = 20
"""So often within its time it is checked whether a connection has asked for something."""


class _Patience(NamedTuple):
    """Until when a connection has time, and whether it is given more if it is not there yet."""

    ends_at: float
    may_shake_hands: bool


class IdleConnections:
    """Knows the connections without a request, and ends them when their time is over.

    `http` counts all connections until they are WebSockets.
    """

    def __init__(self, patience_s: float, http: HttpConnections) -> None:
        self.http = http
        self._patience_s = patience_s
        self._waiting: dict[web.RequestHandler, _Patience] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def watch(self, make: Callable[[], web.RequestHandler]) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of a connection and begins to wait for its first request."""
        loop = asyncio.get_running_loop()

        def made() -> asyncio.Protocol:
            protocol = make()
            adopt(protocol)
            self._waiting[protocol] = _Patience(loop.time() + self._patience_s, may_shake_hands=True)
            if self._timer is None:
                self._plan(loop)
            return Inlet(protocol, self.http)

        return made

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        # One timer for all: one for each would cost more than the rest of this watch.
        self._timer = loop.call_later(self._patience_s / LOOKS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for protocol, patience in [*self._waiting.items()]:
            if now < patience.ends_at:
                continue
            del self._waiting[protocol]
            if protocol.transport is not None:
                protocol.transport.abort()
            elif patience.may_shake_hands:
                # It has left, or TLS is still being agreed on; asyncio gives that a minute.
                ends_at = now + HANDSHAKE_S + self._patience_s
                self._waiting[protocol] = _Patience(ends_at, may_shake_hands=False)
        if self._waiting:
            self._plan(loop)

    def greet(self, request: web.Request) -> None:
        """Let a connection stay that has asked for something."""
        self._waiting.pop(request.protocol, None)
        if (inlet := inlet_of(request.transport)) is not None:
            inlet.greet()


class Runner(web.AppRunner):
    """Runs an application behind inlets and watches idle connections. No body of a request is unpacked or awaited."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, access_log=None, handle_signals=False, lingering_time=0, auto_decompress=False, **options)
        self._listening: list[asyncio.Server] = []

    async def listen(
        self,
        idle_connections: IdleConnections,
        host: str,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        backlog: int = 128,
        reuse_port: bool = False,
    ) -> tuple[str, int]:
        """Accept connections from now on, until `cleanup`; return the address and the port. Raises `OSError`.

        With `reuse_port` other processes may have the port, too; where the system cannot do that it is `ENOPROTOOPT`.
        `localhost` is both loopback addresses, as browsers take it, whatever the machine's list of hosts says; one that
        the machine lacks is left out.
        """
        assert self.server is not None, "set up first"
        create = partial(
            asyncio.get_running_loop().create_server,
            idle_connections.watch(self.server),
            ssl=ssl_context,
            backlog=backlog,
            reuse_port=reuse_port or None,
        )
        lacking: OSError | None = None
        for address in LOOPBACK if host.lower() == "localhost" else (host,):
            try:
                server = await create(address, port)
            except OSError as error:
                if error.errno not in _LACKING or address == host:
                    raise
                lacking = error
                continue
            except ValueError as error:
                # As asyncio says that there is no SO_REUSEPORT.
                raise OSError(errno.ENOPROTOOPT, str(error)) from None
            self._listening.append(server)
            # Both have the port that was free for the first.
            port = server.sockets[0].getsockname()[1]
        if not self._listening:
            assert lacking is not None
            raise lacking
        return self._listening[0].sockets[0].getsockname()[0], port

    def stop_listening(self) -> None:
        """Accept no connection any more; those that there are go on."""
        for server in self._listening:
            server.close()

    async def cleanup(self) -> None:
        """Accept no connection any more, then end those that there are and the application."""
        self.stop_listening()
        await super().cleanup()
