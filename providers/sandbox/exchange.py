"""What the simulated exchanges have in common: listening sockets, readers, writers, and the limits of connections."""

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from email.utils import formatdate
from types import TracebackType
from typing import Self

from aiohttp import WSMessage, WSMsgType, web

from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection, Outgoing
from providers.sandbox.market import Market

_HOST = "127.0.0.1"


class SimulatedExchange(ABC):
    """Serve one exchange on two loopback ports, one for its WebSocket and one for its REST address.

    An async context manager; `start` may be called instead and then `close` must be. Time limits are real seconds.
    A subclass that counts what passes, or holds it back, overrides the methods below "what passes".
    """

    name = "exchange"
    pings = True

    def __init__(self, market: Market, clock: SandboxClock) -> None:
        self.market = market
        self.clock = clock
        self.ping_every_s = 20.0
        self.pong_within_s = 60.0
        self.connection_life_s = 24 * 3600.0
        self.messages_per_second: int | None = None
        self.largest_frame: int | None = None
        self._open: dict[int, Connection] = {}
        self._connections_made = 0
        self._ports = [0, 0]
        self._servers: list[asyncio.Server | None] = [None, None]
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen on both addresses, at free ports, and begin to send."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await self._runner.setup()
        await self._listen()
        self._spawn(self._keepalive())
        self._begin()

    async def close(self) -> None:
        """Cut all connections, stop listening and wait for everything that was started."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for connection in list(self._open.values()):
            connection.abort()
        for at, server in enumerate(self._servers):
            if server is not None:
                server.close()
            self._servers[at] = None
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        if self._runner is None:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @abstractmethod
    def _begin(self) -> None:
        """Start what sends data by itself."""

    # ---- listening ----------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        assert self._runner is not None
        handler = self._runner.server
        assert handler is not None
        loop = asyncio.get_running_loop()
        for at, port in enumerate(self._ports):
            if self._servers[at] is None:
                server = await loop.create_server(handler, _HOST, port, reuse_address=True)
                self._servers[at] = server
                self._ports[at] = server.sockets[0].getsockname()[1]

    @property
    def ws_url(self) -> str:
        """Give the base address of the WebSocket."""
        return f"ws://{_HOST}:{self._ports[0]}"

    @property
    def rest_url(self) -> str:
        """Give the base address of REST."""
        return f"http://{_HOST}:{self._ports[1]}"

    def now_ms(self) -> int:
        """Tell the exchange's time in milliseconds."""
        return self.clock.now_ms()

    # ---- what passes --------------------------------------------------------------------------------------------

    async def admit(self, request: web.Request) -> web.Response | None:
        """Refuse a WebSocket connection with a response, or let it in with None."""
        return self._refusal(request)

    @abstractmethod
    def opened(self, connection: Connection) -> None:
        """Prepare a new connection."""

    async def handle(self, connection: Connection, message: WSMessage) -> None:
        """Handle one message of a client, pings and pongs too."""
        now = time.monotonic()
        if message.type is WSMsgType.PING:
            connection.send(bytes(message.data), WSMsgType.PONG)
        elif message.type is WSMsgType.PONG:
            connection.ponged = now
        if self.is_flood(connection, now):
            connection.close(1008, "Too many requests")
        elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            raw = message.data.encode() if isinstance(message.data, str) else message.data
            if self.largest_frame is not None and len(raw) > self.largest_frame:
                connection.close(1008, "Payload too long")
            else:
                self.received(connection, raw.decode("utf-8", "replace"))

    def is_flood(self, connection: Connection, now: float) -> bool:
        """Count a message; tell whether there are too many within a second."""
        if self.messages_per_second is None:
            return False
        connection.recent = [moment for moment in connection.recent if moment > now - 1.0]
        connection.recent.append(now)
        return len(connection.recent) > self.messages_per_second

    @abstractmethod
    def received(self, connection: Connection, text: str) -> None:
        """Handle one text message of a client."""

    def listeners(self, stream: str) -> list[Connection]:
        """Give the connections that an event of a stream is sent to."""
        return [connection for connection in self._open.values() if stream in connection.subscriptions]

    @abstractmethod
    def send_event(self, stream: str, event: dict[str, object]) -> None:
        """Send an event of a stream to its listeners."""

    async def deliver(self, connection: Connection, frame: Outgoing) -> None:
        """Write one frame to the socket, or close it."""
        if frame.kind is WSMsgType.CLOSE:
            await connection.socket.close(code=int.from_bytes(frame.data[:2], "big"), message=frame.data[2:])
        else:
            await connection.socket.send_frame(frame.data, frame.kind)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one REST request."""
        response = self._rest_answer(request)
        self._date(response)
        return response

    # ---- WebSocket ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _is_stream_path(self, request: web.Request) -> bool:
        """Tell whether a request asks for the WebSocket."""

    @abstractmethod
    def _refusal(self, request: web.Request) -> web.Response | None:
        """Tell with what a WebSocket connection is refused by the exchange's rules; None lets it in."""

    @abstractmethod
    def _closed(self, connection: Connection) -> None:
        """Forget a connection."""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._is_stream_path(request):
            return await self._serve_stream(request)
        return await self.answer(request)

    async def _serve_stream(self, request: web.Request) -> web.StreamResponse:
        refused = await self.admit(request)
        if refused is not None:
            self._date(refused)
            return refused
        socket = web.WebSocketResponse(autoping=False, autoclose=True, compress=False, timeout=1.0, max_msg_size=0)
        self._date(socket)
        await socket.prepare(request)
        self._connections_made += 1
        connection = Connection(self._connections_made, request, socket)
        self._open[connection.number] = connection
        self.opened(connection)
        life = asyncio.get_running_loop().call_later(self.connection_life_s, connection.close, 1001)
        writer = asyncio.get_running_loop().create_task(self._write(connection))
        try:
            await self._read(connection)
        finally:
            self._open.pop(connection.number, None)
            life.cancel()
            self._closed(connection)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _read(self, connection: Connection) -> None:
        async for message in connection.socket:
            if message.type is WSMsgType.ERROR:
                break
            await self.handle(connection, message)

    async def _write(self, connection: Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                frame = await connection.outgoing.get()
                await self.deliver(connection, frame)
                if frame.kind is WSMsgType.CLOSE:
                    return

    async def _keepalive(self) -> None:
        """Ping every connection in its rhythm and cut those whose pong is missing."""
        pinged: dict[int, float] = {}
        while True:
            await asyncio.sleep(min(1.0, self.ping_every_s / 4, self.pong_within_s / 4))
            now = time.monotonic()
            pinged = {number: moment for number, moment in pinged.items() if number in self._open}
            for connection in list(self._open.values()):
                last = pinged.get(connection.number, connection.opened)
                if self._gives_up_on(connection, now):
                    connection.close(1008, "Pong timeout")
                elif self.pings and now - last >= self.ping_every_s:
                    pinged[connection.number] = now
                    connection.send(str(self.now_ms()).encode(), WSMsgType.PING)

    def _gives_up_on(self, connection: Connection, now: float) -> bool:
        return now - connection.ponged >= self.ping_every_s + self.pong_within_s

    # ---- REST ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _rest_answer(self, request: web.Request) -> web.Response:
        """Answer one REST request by the exchange's rules."""

    def _date(self, response: web.StreamResponse) -> None:
        """Say what time it is at the exchange, as each answer does."""
        response.headers["Date"] = formatdate(self.clock.now(), usegmt=True)
