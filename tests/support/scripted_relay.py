"""A relay that says what a scenario tells it to say, and nothing else; no providers, no streams of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.loopback_server import loopback_server

Json = dict[str, Any]


class ScriptedRelay:
    """One WebSocket at a time is played with; what a client asks is in `requests`, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.handshake: int | None = 101
        """The status of the next upgrades; None: they are not answered."""
        self.symbols: tuple[int, Any] | None = (200, [])
        """The answer to requests for symbols, a status and a body; None: they are not answered."""
        self.history: tuple[int, Any] = (503, None)
        """The answer to requests for history, a status and a body."""
        self.uses_wait = False
        """Whether that comes only once the time is over in which a request lets it wait."""
        self.queries: asyncio.Queue[Json] = asyncio.Queue()
        """What history was asked for, in order."""
        self.requests: asyncio.Queue[Json] = asyncio.Queue()
        self._arrived: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self._socket: web.WebSocketResponse | None = None
        self._transports: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self._ended = asyncio.Event()
        self._closed = asyncio.Event()
        self._served = asyncio.Event()
        self._readings: dict[web.WebSocketResponse, asyncio.Task[None]] = {}

    async def take_connection(self) -> None:
        """Play with the next connection from now on."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            self._socket = await self._arrived.get()
        self._ended.clear()
        self._closed.clear()

    async def say(self, text: str) -> None:
        assert self._socket is not None
        # Who has left hears nothing.
        with contextlib.suppress(ConnectionError, aiohttp.ClientConnectionResetError):
            await self._socket.send_str(text)

    async def close(self, code: int, reason: str) -> None:
        assert self._socket is not None
        # While somebody reads, aiohttp does not wait for the client's close, and what was sent just before may be lost.
        self._readings[self._socket].cancel()
        await self._socket.close(code=code, message=reason.encode())
        self._closed.set()

    async def cut(self) -> None:
        """Lose the connection without a closing handshake."""
        assert self._socket is not None
        self._transports[self._socket].abort()

    async def until_ended(self) -> None:
        """Wait until the client has given the connection up."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            await self._ended.wait()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.handshake is None:
            await self._served.wait()
        if self.handshake != 101:
            return web.Response(status=self.handshake or 503)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400)
        socket = web.WebSocketResponse(timeout=5.0)
        await socket.prepare(request)
        assert request.transport is not None
        self._transports[socket] = request.transport
        self._arrived.put_nowait(socket)
        self._readings[socket] = asyncio.create_task(self._read(socket))
        await asyncio.wait([self._readings[socket]])
        if self._readings[socket].cancelled():
            await self._closed.wait()
        if socket is self._socket:
            self._ended.set()
        return socket

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if self.symbols is None:
            await self._served.wait()
        status, body = self.symbols or (503, None)
        return web.json_response(body, status=status)

    async def _history(self, request: web.Request) -> web.StreamResponse:
        self.queries.put_nowait(dict(request.query))
        if self.uses_wait:
            await asyncio.sleep(int(request.query["wait_s"]))
        status, body = self.history
        return web.json_response(body, status=status)

    async def _read(self, socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self.requests.put_nowait(frame.json())


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[ScriptedRelay]:
    """Serve on a port of its own."""
    relay = ScriptedRelay()
    app = web.Application()
    app.router.add_get("/api/v1/market-data/ws", relay._serve)
    app.router.add_get("/api/v1/market-data/symbols", relay._list)
    app.router.add_get("/api/v1/market-data/history", relay._history)
    async with loopback_server(app) as host:
        relay.url = f"http://{host}"
        yield relay
        relay._served.set()
