"""A simulated exchange as tests need it: it misbehaves on order, and keeps what it was asked."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiohttp import WSMessage, WSMsgType, web

from providers.sandbox.connection import Connection, Outgoing
from providers.sandbox.exchange import SimulatedExchange
from providers.sandbox.listings import Pair
from tests.support.free_ports import free_port
from tests.support.sandbox.clock import StagedClock
from tests.support.sandbox.faults import Faults, RestAnswer
from tests.support.sandbox.market import StagedMarket

_MOST_KEPT = 50_000
_KEY_NAMES = frozenset({"apikey", "signature", "token"})
_KINDS = {WSMsgType.PING: "ping", WSMsgType.PONG: "pong", WSMsgType.TEXT: "text", WSMsgType.BINARY: "text"}


class ControlMessage(NamedTuple):
    """One message that a client sent on a WebSocket connection; times are of the monotonic clock."""

    time: float
    connection: int
    kind: str
    text: str


class Connect(NamedTuple):
    """One attempt to open a WebSocket connection."""

    time: float
    path: str
    status: int


class RestCall(NamedTuple):
    """One REST request as answered; `query` never holds the key."""

    time: float
    path: str
    query: dict[str, str]
    status: int


def most_in_any_second(times: Iterable[float], window_s: float = 1.0) -> int:
    """Count the most moments that lie within one window, wherever it begins."""
    ordered = sorted(times)
    most = first = 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


class StandIn(SimulatedExchange):
    """What every stand-in can do beside what its exchange does; goes before the exchange among the bases."""

    market: StagedMarket
    clock: StagedClock

    def __init__(self, market: StagedMarket | None = None, clock: StagedClock | None = None, **settings: Any) -> None:
        super().__init__(market or StagedMarket(), clock or StagedClock(), **settings)
        # It comes back to them after it was away.
        self._ports = [free_port(), free_port()]
        self.faults = Faults(self)
        self.connect_log: list[Connect] = []
        self.control_messages: list[ControlMessage] = []
        self.requests: list[RestCall] = []
        self.rate_violations = 0
        self.most_connections = 0
        self._recording: tuple[tuple[str, ...], float] = ((), 0.0)
        self._have_subscribed: set[int] = set()

    async def close(self) -> None:
        """Cut all connections, frozen ones too, stop listening and wait for everything that was started."""
        self.faults.thaw()
        await super().close()

    # ---- listening ----------------------------------------------------------------------------------------------

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

    # ---- what was asked -----------------------------------------------------------------------------------------

    @property
    def open(self) -> dict[int, Connection]:
        """Give the open connections by their numbers."""
        return self._open

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

    # ---- what it is told ----------------------------------------------------------------------------------------

    def add_symbols(self, symbols: Iterable[Pair | str]) -> None:
        """List more pairs, as `Pair` or as bare names with invented properties."""
        self.market.add_symbols(symbols)

    def hide(self, symbol: str, start: float, end: float) -> None:
        """Make the market of a span (Unix seconds) not exist, as in an outage: no candles, no events, no volume."""
        self.market.hide(symbol, round(start * 1000), round(end * 1000))

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

    async def _play(self, frames: Sequence[str], connection: int | None, every_s: float) -> None:
        for number, frame in enumerate(frames):
            for one in list(self._open.values()):
                if connection is None or one.number == connection:
                    one.send(frame)
            if every_s > 0 or number % 100 == 99:
                await asyncio.sleep(every_s)

    # ---- what passes --------------------------------------------------------------------------------------------

    async def admit(self, request: web.Request) -> web.Response | None:
        """Refuse new connections, or let them wait, as ordered."""
        await self.faults.admitted()
        status = self.faults.refusal()
        if status is not None:
            refused: web.Response | None = web.Response(status=status, headers=self.faults.refusal_headers)
        else:
            refused = await super().admit(request)
        self.connect_log.append(Connect(time.monotonic(), request.path, 101 if refused is None else refused.status))
        return refused

    def opened(self, connection: Connection) -> None:
        """Prepare a new connection, which may not live for long."""
        self.most_connections = max(self.most_connections, len(self._open))
        super().opened(connection)  # type: ignore[safe-super]  # an exchange comes after this class
        self.faults.opened(connection)
        self._note_subscriptions(connection, set())

    async def handle(self, connection: Connection, message: WSMessage) -> None:
        """Handle a message once the connection is not frozen."""
        await self.faults.thawed(connection)
        data = message.data if isinstance(message.data, str) else message.data.decode("utf-8", "replace")
        if len(self.control_messages) < _MOST_KEPT:
            kept = ControlMessage(time.monotonic(), connection.number, _KINDS[message.type], data)
            self.control_messages.append(kept)
        await super().handle(connection, message)

    def is_flood(self, connection: Connection, now: float) -> bool:
        """Count a message, and the floods."""
        found = super().is_flood(connection, now)
        self.rate_violations += found
        return found

    def received(self, connection: Connection, text: str) -> None:
        """Handle one text message; a first subscription starts the recording, if there is one."""
        before = set(connection.subscriptions)
        super().received(connection, text)  # type: ignore[safe-super]  # as above
        self._note_subscriptions(connection, before)

    def _note_subscriptions(self, connection: Connection, before: set[str]) -> None:
        self.faults.subscribed(connection, connection.subscriptions.keys() - before)
        if connection.subscriptions and connection.number not in self._have_subscribed:
            self._have_subscribed.add(connection.number)
            frames, every_s = self._recording
            if frames:
                self.play(frames, connection=connection.number, every_s=every_s)

    def listeners(self, stream: str) -> list[Connection]:
        """Leave out those from which the stream is held back."""
        return [one for one in super().listeners(stream) if not self.faults.is_muted(stream, one)]

    async def deliver(self, connection: Connection, frame: Outgoing) -> None:
        """Write a frame later, as ordered."""
        if self.faults.frame_delay_s > 0:
            await asyncio.sleep(max(0.0, frame.queued + self.faults.frame_delay_s - time.monotonic()))
        await self.faults.thawed(connection)
        await super().deliver(connection, frame)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a REST request late or in another way, as ordered."""
        ordered = self.faults.rest_answer(request.path)
        before_s, after_s = self.faults.rest_delay()
        if before_s > 0:
            await asyncio.sleep(before_s)
        if ordered is None:
            response = await super().answer(request)
        else:
            response = await self._other_answer(request, ordered)
        if after_s > 0:
            await asyncio.sleep(after_s)
        query = {name: value for name, value in request.query.items() if name.lower() not in _KEY_NAMES}
        if len(self.requests) < _MOST_KEPT:
            self.requests.append(RestCall(time.monotonic(), request.path, query, response.status))
        if ordered is not None and ordered.truncated:
            assert isinstance(response, web.Response)
            return await self._send_half(request, response)
        return response

    async def _other_answer(self, request: web.Request, ordered: RestAnswer) -> web.Response:
        status, body = ordered.status, ordered.body
        if ordered.truncated and not body:
            truth = await super().answer(request)
            assert isinstance(truth, web.Response)
            assert isinstance(truth.body, bytes)
            status, body = truth.status, truth.body
        response = web.Response(status=status, body=body, headers={"Content-Type": ordered.content_type})
        response.headers.update(ordered.headers)
        self._date(response)
        return response

    async def _send_half(self, request: web.Request, whole: web.Response) -> web.StreamResponse:
        body = whole.body if isinstance(whole.body, bytes) else b""
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
