"""What the stand-ins have in common: listening sockets, readers, writers, bookkeeping, faults obeyed."""

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from email.utils import formatdate
from types import TracebackType
from typing import Self

from aiohttp import WSMsgType, web

from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection
from providers.sandbox.faults import Connect, ControlMessage, Faults, RestCall, most_in_any_second
from providers.sandbox.market import Market

_MOST_KEPT = 50_000
_KEY_NAMES = frozenset({"apikey", "signature", "token"})


class StandIn(ABC):
    """Serve one exchange on two loopback ports, one for its WebSocket and one for its REST address.

    An async context manager; `start` may be called instead and then `close` must be. Time limits are real seconds.
    """

    name = "exchange"

    def __init__(self, market: Market | None = None, clock: SandboxClock | None = None) -> None:
        self.market = market if market is not None else Market()
        self.clock = clock if clock is not None else SandboxClock()
        self.faults = Faults(self)
        self.ping_every_s = 20.0
        self.pong_within_s = 60.0
        self.connection_life_s = 24 * 3600.0
        self.messages_per_second: int | None = None
        self.largest_frame: int | None = None
        self.connect_log: list[Connect] = []
        self.control_messages: list[ControlMessage] = []
        self.requests: list[RestCall] = []
        self.rate_violations = 0
        self.most_connections = 0
        self._recording: tuple[tuple[str, ...], float] = ((), 0.0)
        self._open: dict[int, Connection] = {}
        self._connections_made = 0
        self._host = "127.0.0.1"
        self._ports = [0, 0]
        self._servers: list[asyncio.Server | None] = [None, None]
        self._runner: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- life ---------------------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0, rest_port: int = 0) -> None:
        """Listen on both addresses and begin to send; port 0 picks a free one."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await self._runner.setup()
        self._host, self._ports = host, [port, rest_port]
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
        self.faults.thaw()
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
                server = await loop.create_server(handler, self._host, port, reuse_address=True)
                self._servers[at] = server
                self._ports[at] = server.sockets[0].getsockname()[1]

    async def listening(self) -> None:
        """Wait until both addresses take connections."""
        if self._runner is not None:
            await self._listen()

    def stop_listening(self, *, seconds: float | None = None, rest: bool = False) -> None:
        """Refuse new TCP connections; what is open stays open."""
        for at, server in enumerate(self._servers):
            if server is not None and (at == 0 or rest):
                server.close()
                self._servers[at] = None
        if seconds is not None:
            self._spawn(self._listen_later(seconds))

    async def _listen_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.listening()

    def listen_again(self) -> None:
        """Open the listening sockets again, soon; await `listening` to be sure."""
        if self._runner is not None and None in self._servers:
            self._spawn(self.listening())

    @property
    def ws_url(self) -> str:
        """Give the base address of the WebSocket."""
        return f"ws://{self._host}:{self._ports[0]}"

    @property
    def rest_url(self) -> str:
        """Give the base address of REST."""
        return f"http://{self._host}:{self._ports[1]}"

    # ---- bookkeeping --------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Tell how many WebSocket connections are open."""
        return len(self._open)

    @property
    def connects(self) -> int:
        """Tell how many WebSocket connections were accepted so far."""
        return sum(1 for connect in self.connect_log if connect.status == 101)

    @property
    def subscriptions(self) -> dict[int, list[str]]:
        """Give the streams of each open connection by its number, in the order they were subscribed."""
        return {number: list(connection.subscriptions) for number, connection in self._open.items()}

    @property
    def subscribed(self) -> list[str]:
        """Give all subscribed streams of all open connections, sorted; a stream on two connections appears twice."""
        return sorted(name for names in self.subscriptions.values() for name in names)

    def max_messages_in_any_second(self) -> int:
        """Tell the most messages (pings and pongs too) that one connection sent within any second so far."""
        by_connection: dict[int, list[float]] = {}
        for message in self.control_messages:
            by_connection.setdefault(message.connection, []).append(message.time)
        return max((most_in_any_second(times) for times in by_connection.values()), default=0)

    def max_connects_within(self, seconds: float = 300.0) -> int:
        """Tell the most connection attempts within any stretch of so many seconds."""
        return most_in_any_second((connect.time for connect in self.connect_log), seconds)

    def now_ms(self) -> int:
        """Tell the exchange's time in milliseconds."""
        return self.clock.now_ms()

    # ---- faults -------------------------------------------------------------------------------------------------

    def drop_connections(self, code: int | None = None, *, connection: int | None = None, reason: str = "") -> int:
        """End connections; see `Faults.drop`."""
        chosen = [one for one in self._open.values() if connection is None or one.number == connection]
        for one in chosen:
            if code is None:
                one.abort()
            else:
                one.close(code, reason)
        return len(chosen)

    def broadcast(self, frames: Iterable[str | bytes]) -> None:
        """Queue frames on every connection; bytes go out as binary frames."""
        for frame in frames:
            for connection in self._open.values():
                connection.send(frame, WSMsgType.BINARY if isinstance(frame, bytes) else WSMsgType.TEXT)

    def play(
        self, frames: Sequence[str], *, connection: int | None = None, every_s: float = 0.0
    ) -> "asyncio.Task[None]":
        """Send recorded text frames to all open connections (or one), whatever is subscribed; await the task."""
        task = asyncio.get_running_loop().create_task(self._play(frames, connection, every_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def play_after_subscribe(self, frames: Sequence[str], *, every_s: float = 0.0) -> None:
        """Send recorded text frames to each connection after its first subscription from now on; () ends that.

        The market's own events go on; `faults.mute()` silences them.
        """
        self._recording = (tuple(frames), every_s)

    def subscribed_first(self, connection: Connection) -> None:
        """Start the recording, if one is set, on a connection that has just subscribed for the first time."""
        frames, every_s = self._recording
        if frames and not connection.has_subscribed:
            self.play(frames, connection=connection.number, every_s=every_s)
        connection.has_subscribed = True

    async def _play(self, frames: Sequence[str], connection: int | None, every_s: float) -> None:
        for number, frame in enumerate(frames):
            for one in list(self._open.values()):
                if connection is None or one.number == connection:
                    one.send(frame)
            if every_s > 0 or number % 100 == 99:
                await asyncio.sleep(every_s)

    def recheck_lives(self) -> None:
        """Apply a changed connection life to open connections."""
        for connection in self._open.values():
            self._limit_life(connection)

    def mute_connections(self, streams: Sequence[str], *, resubscribe_helps: bool) -> None:
        """Hold data back on the connections open now; see `Faults.mute`."""
        for connection in self._open.values():
            connection.mute(streams, resubscribe_helps=resubscribe_helps)

    def unmute_connections(self, streams: Sequence[str]) -> None:
        """Send data again on all connections."""
        for connection in self._open.values():
            connection.unmute(streams)

    def freeze_connections(self) -> None:
        """Stop reading and writing the connections open now."""
        for connection in self._open.values():
            connection.thawed.clear()

    def thaw_connections(self) -> None:
        """Read and write all connections again."""
        for connection in self._open.values():
            connection.thawed.set()

    def _limit_life(self, connection: Connection) -> None:
        if connection.life is not None:
            connection.life.cancel()
        loop = asyncio.get_running_loop()
        cut = self.faults.connection_life_s
        age = time.monotonic() - connection.opened
        if cut is not None:
            connection.life = loop.call_later(max(0.0, cut - age), connection.abort)
        else:
            connection.life = loop.call_later(max(0.0, self.connection_life_s - age), self._end_of_life, connection)

    def _end_of_life(self, connection: Connection) -> None:
        connection.close(1001)

    # ---- WebSocket ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _is_stream_path(self, request: web.Request) -> bool:
        """Tell whether a request asks for the WebSocket."""

    @abstractmethod
    def _admit(self, request: web.Request) -> web.Response | None:
        """Refuse a WebSocket connection with a response, or let it in with None."""

    @abstractmethod
    def _opened(self, connection: Connection) -> None:
        """Prepare a new connection."""

    @abstractmethod
    def _received(self, connection: Connection, text: str) -> None:
        """Handle one text message of a client."""

    @abstractmethod
    def _closed(self, connection: Connection) -> None:
        """Forget a connection."""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._is_stream_path(request):
            await self.faults.admitted()
            return await self._serve_stream(request)
        return await self._serve_rest(request)

    async def _serve_stream(self, request: web.Request) -> web.StreamResponse:
        status = self.faults.refusal()
        refused = web.Response(status=status) if status is not None else self._admit(request)
        self.connect_log.append(Connect(time.monotonic(), request.path, 101 if refused is None else refused.status))
        if refused is not None:
            self._date(refused)
            return refused
        socket = web.WebSocketResponse(autoping=False, autoclose=True, compress=False, timeout=1.0, max_msg_size=0)
        self._date(socket)
        await socket.prepare(request)
        self._connections_made += 1
        connection = Connection(self._connections_made, request, socket)
        self._open[connection.number] = connection
        self.most_connections = max(self.most_connections, len(self._open))
        self._opened(connection)
        self._limit_life(connection)
        writer = asyncio.get_running_loop().create_task(self._write(connection))
        try:
            await self._read(connection)
        finally:
            self._open.pop(connection.number, None)
            if connection.life is not None:
                connection.life.cancel()
            self._closed(connection)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _read(self, connection: Connection) -> None:
        async for message in connection.socket:
            if not connection.thawed.is_set():
                await connection.thawed.wait()
            now = time.monotonic()
            if message.type is WSMsgType.PING:
                kind, text = "ping", message.data.decode("latin-1")
                connection.send(bytes(message.data), WSMsgType.PONG)
            elif message.type is WSMsgType.PONG:
                kind, text = "pong", message.data.decode("latin-1")
                connection.ponged = now
            elif message.type is WSMsgType.TEXT:
                kind, text = "text", message.data
            elif message.type is WSMsgType.BINARY:
                kind, text = "text", message.data.decode("utf-8", "replace")
            else:
                break
            if len(self.control_messages) < _MOST_KEPT:
                self.control_messages.append(ControlMessage(now, connection.number, kind, text))
            if self._is_flood(connection, now):
                self.rate_violations += 1
                connection.close(1008, "Too many requests")
                continue
            if kind == "text":
                if self.largest_frame is not None and len(text.encode()) > self.largest_frame:
                    connection.close(1008, "Payload too long")
                    continue
                self._received(connection, text)

    def _is_flood(self, connection: Connection, now: float) -> bool:
        if self.messages_per_second is None:
            return False
        connection.recent = [moment for moment in connection.recent if moment > now - 1.0]
        connection.recent.append(now)
        return len(connection.recent) > self.messages_per_second

    async def _write(self, connection: Connection) -> None:
        socket = connection.socket
        with contextlib.suppress(ConnectionError):
            while True:
                kind, data, queued = await connection.outgoing.get()
                if self.faults.frame_delay_s > 0:
                    await asyncio.sleep(max(0.0, queued + self.faults.frame_delay_s - time.monotonic()))
                if not connection.thawed.is_set():
                    await connection.thawed.wait()
                if kind is WSMsgType.CLOSE:
                    await socket.close(code=int.from_bytes(data[:2], "big"), message=data[2:])
                    return
                await socket.send_frame(data, kind)
                connection.frames_sent += 1

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

    pings = True

    def _gives_up_on(self, connection: Connection, now: float) -> bool:
        return now - connection.ponged >= self.ping_every_s + self.pong_within_s

    # ---- REST ---------------------------------------------------------------------------------------------------

    @abstractmethod
    async def _answer(self, request: web.Request) -> tuple[web.Response, int]:
        """Answer one REST request; also tell what it cost of the limits."""

    async def _serve_rest(self, request: web.Request) -> web.StreamResponse:
        ordered = self.faults.rest_answer(request.path)
        before_s, after_s = self.faults.rest_delay()
        if before_s > 0:
            await asyncio.sleep(before_s)
        cost = 0
        if ordered is None or (ordered.truncated and not ordered.body):
            response, cost = await self._answer(request)
            if ordered is not None:
                assert isinstance(response.body, bytes)
                response = web.Response(status=response.status, body=response.body, content_type=ordered.content_type)
        else:
            response = web.Response(
                status=ordered.status, body=ordered.body, headers={"Content-Type": ordered.content_type}
            )
        if ordered is not None:
            response.headers.update(ordered.headers)
        self._date(response)
        if after_s > 0:
            await asyncio.sleep(after_s)
        query = {name: value for name, value in request.query.items() if name.lower() not in _KEY_NAMES}
        if len(self.requests) < _MOST_KEPT:
            self.requests.append(RestCall(time.monotonic(), request.path, query, response.status, cost))
        if ordered is not None and ordered.truncated:
            return await self._send_half(request, response)
        return response

    def _date(self, response: web.StreamResponse) -> None:
        """Say what time it is at the exchange, as each answer does."""
        response.headers["Date"] = formatdate(self.clock.now(), usegmt=True)

    async def _send_half(self, request: web.Request, whole: web.Response) -> web.StreamResponse:
        body = whole.body if isinstance(whole.body, bytes) else b""
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
