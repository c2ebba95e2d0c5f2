"""The WebSocket that clients speak: one connection is one subscriber of the hub."""

import asyncio
import logging
import socket
import time
from typing import Any

from aiohttp import WSMsgType, web

from relay import snapshot, wire
from relay.config import Config
from relay.directory import Directory, Target
from relay.errors import CloseCode, Code, RequestError
from relay.history import History
from relay.history import Past as Answer
from relay.hub import CONNECTED, Hub, Stream, Subscriber
from relay.outbox import Outbox
from relay.supervisor import Supervisor
from relay.web.access import Access, TokenBucket
from relay.web.problems import problem_of

log = logging.getLogger(__name__)

PING_INTERVAL_S = 20.0
PONG_TIMEOUT_S = 10.0
PING_FRAME = b"\x89\x00"
KERNEL_BUFFER = 32 * 1024
CLOSE_TIMEOUT_S = 2.0
INVALID_RATE, INVALID_BURST = 1.0, 100
REQUEST_RATE, REQUEST_BURST = 50.0, 500
REQUESTS_OVER_LIMIT = 100
MOST_ROUNDS = 3


class Clients:
    """All WebSocket connections, with one heartbeat for all of them."""

    def __init__(
        self,
        config: Config,
        access: Access,
        hub: Hub,
        directory: Directory,
        history: History,
        supervisors: dict[str, Supervisor],
        epoch: str,
    ) -> None:
        self.config = config
        self.access = access
        self.hub = hub
        self.directory = directory
        self.history = history
        self.supervisors = supervisors
        self.epoch = epoch
        self.connections: dict[Connection, None] = {}
        self._heart: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the heartbeat."""
        self._heart = asyncio.create_task(self._beat(), name="heartbeat")

    async def close(self) -> None:
        """Send every client away with 1001 and stop the heartbeat."""
        self.access.is_closing = True
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
        closing = [connection.end(CloseCode.GOING_AWAY, "server shutdown") for connection in list(self.connections)]
        await asyncio.gather(*closing)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.beat(now)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from the handshake to the end."""
        self.access.check_origin(request)
        address = self.access.admit(request)
        try:
            ws = web.WebSocketResponse(
                autoping=False, compress=False, max_msg_size=wire.MESSAGE_BYTES, timeout=CLOSE_TIMEOUT_S
            )
            await ws.prepare(request)
            transport = request.transport
            if transport is None:
                return ws
            connection = Connection(self, ws, transport)
            self.connections[connection] = None
            try:
                await connection.serve()
            finally:
                del self.connections[connection]
                await connection.finish()
            return ws
        finally:
            self.access.leave(address)


class Connection:
    """One client: reads its requests, answers them in order, and leaves the updates to the hub."""

    def __init__(self, clients: Clients, ws: web.WebSocketResponse, transport: asyncio.WriteTransport) -> None:
        self._clients = clients
        self._hub = clients.hub
        self._ws = ws
        self._transport = transport
        _bound_kernel_buffer(transport)
        self._subscriber = clients.hub.join(Outbox(transport), self._on_slow)
        self._since: dict[Stream, int] = {}
        self._joining: dict[tuple[str, str], object] = {}
        self._past_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._invalid = TokenBucket(INVALID_RATE, INVALID_BURST)
        self._requests = TokenBucket(REQUEST_RATE, REQUEST_BURST)
        self._over_limit = 0
        self._heard_at = time.monotonic()
        self._pinged_at: float | None = None
        self._is_ended = False

    # -- reading -----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Greet, then answer requests until the client goes."""
        self._send(
            wire.encode(
                {
                    "type": "status",
                    "status": "connected",
                    "message": "market-relay",
                    "server_time": int(time.time()),
                    "epoch": self._clients.epoch,
                    "limits": {
                        "streams": self._clients.config.max_streams_per_client,
                        "message_bytes": wire.MESSAGE_BYTES,
                    },
                }
            )
        )
        while not self._is_ended:
            message = await self._ws.receive()
            self._heard_at = time.monotonic()
            self._pinged_at = None
            if message.type is WSMsgType.TEXT:
                await self._on_text(message.data)
            elif message.type is WSMsgType.BINARY:
                await self._on_invalid(RequestError(Code.INVALID_REQUEST, "binary frame; send JSON as text"), None)
            elif message.type is WSMsgType.PING:
                await self._ws.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                break

    async def _on_text(self, text: str) -> None:
        if not self._requests.take():
            await self._on_rate()
            return
        request_id: str | int | None = None
        try:
            message = wire.parse_object(text)
            request_id = wire.parse_id(message)
            request = wire.parse_request(message)
        except RequestError as error:
            await self._on_invalid(error, request_id)
            return
        try:
            await self._on_request(request)
        except Exception:
            log.exception("a client's request failed")
            fault = RequestError(
                Code.INTERNAL, "the relay failed at this request; the operator finds the cause in the log"
            )
            self._send(wire.error(fault, request.id))

    async def _on_invalid(self, error: RequestError, request_id: str | int | None) -> None:
        self._send(wire.error(error, request_id))
        if not self._invalid.take():
            await self.end(CloseCode.TOO_MANY_INVALID, "too many invalid messages")

    async def _on_rate(self) -> None:
        self._over_limit += 1
        if self._over_limit > REQUESTS_OVER_LIMIT:
            await self.end(CloseCode.RATE_LIMITED, "rate limited")
            return
        wait_s = self._requests.wait_s
        fault = RequestError(
            Code.RATE_LIMITED,
            f"more than {REQUEST_RATE:g} requests a second; wait {wait_s:.2f} s, or name up to "
            f"{wire.MOST_STREAMS_PER_REQUEST} streams in one request",
            retry_after=wait_s,
        )
        self._send(wire.error(fault, None))

    async def _on_request(self, request: wire.Request) -> None:
        if request.action == "ping":
            self._send(wire.answer({"type": "pong", "server_time": int(time.time())}, request.id))
        elif request.action == "list":
            names = self._hub.by_name(list(self._subscriber.subscriptions))
            self._send(wire.answer({"type": "subscriptions", "streams": names}, request.id))
        elif request.action == "unsubscribe":
            for name in request.names:
                self._answer_each(request, name, self._unsubscribe)
        else:
            await self._clients.directory.settled()
            for name in request.names:
                self._answer_each(request, name, self._subscribe)

    def _answer_each(self, request: wire.Request, name: tuple[str, str], act: Any) -> None:
        """Do one stream of a request; its error harms no other."""
        try:
            act(request, *wire.parse_target(name))
        except RequestError as error:
            self._send(wire.error(error, request.id))
            if error.code in (Code.INVALID_REQUEST, Code.UNKNOWN_SYMBOL, Code.UNKNOWN_INTERVAL):
                self._invalid.take()

    # -- subscribing -------------------------------------------------------------------------------

    def _subscribe(self, request: wire.Request, pin: str | None, symbol: str, interval: str) -> None:
        target = self._clients.directory.resolve(pin, symbol, interval)
        self._check_room(target)
        if request.past == (None, None):
            self._join(request, target, None)
            return
        identity = (target.provider.name, str(target.key))
        token = self._joining[identity] = object()
        task = asyncio.create_task(self._join_with_past(request, target, identity, token))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check_room(self, target: Target) -> None:
        config = self._clients.config
        stream = self._find(target)
        if stream is not None and stream in self._subscriber.subscriptions:
            return
        fault = None
        if len(self._subscriber.subscriptions) + len(self._joining) >= config.max_streams_per_client:
            fault = f"this connection has {config.max_streams_per_client} streams, which is the most; unsubscribe some"
        elif stream is None and len(self._hub.streams) >= config.max_streams:
            fault = f"the relay carries {config.max_streams} streams, which is the most"
        if fault is not None:
            raise RequestError(Code.TOO_MANY_SUBSCRIPTIONS, fault, symbol=target.name, interval=target.key.interval)

    def _find(self, target: Target) -> Stream | None:
        return self._hub.streams.get((target.provider.name, target.key))

    async def _join_with_past(
        self, request: wire.Request, target: Target, identity: tuple[str, str], token: object
    ) -> None:
        """Fetch the past, then join: the snapshot ends exactly where the live updates begin."""
        async with self._past_lock:
            for _ in range(MOST_ROUNDS):
                answer = await snapshot.fetch(
                    self._clients.history, target.provider, target.key, lambda: self._find(target), request.past
                )
                stream = self._find(target)
                if stream is None or snapshot.covers(answer, stream.series):
                    break
            await self._caught_up()
            if self._joining.get(identity) is token:
                del self._joining[identity]
                self._join(request, target, answer)

    async def _caught_up(self) -> None:
        """Wait until a slow reader has taken what it was sent: snapshots are large and must not pile up."""
        while self._subscriber.outbox.is_lagging and not self._is_ended:
            await asyncio.sleep(0.05)

    def _join(self, request: wire.Request, target: Target, answer: Answer | None) -> None:
        """Confirm, tell the state, send the past or the last known candle, and let the updates follow."""
        hub, subscriber = self._hub, self._subscriber
        if self._is_ended or subscriber not in hub.subscribers:
            return
        supervisor = self._clients.supervisors[target.provider.name]
        stream = hub.stream(target.provider.name, target.key, target.name, supervisor)
        before = self._since.get(stream) if stream in subscriber.subscriptions else None
        is_new = stream not in subscriber.subscriptions
        frames = []
        # The cut comes before the subscription: what a new stream tells of the past is in the snapshot already.
        past = None if answer is None else snapshot.cut(hub, stream, answer, request.past, before)
        hub.subscribe(subscriber, stream, request.options)
        interval = target.key.interval
        frames.append(
            wire.answer(
                {
                    "type": "subscription",
                    "action": "subscribe",
                    "symbol": target.name,
                    "interval": interval,
                    "status": "ok",
                },
                request.id,
            )
        )
        if stream.status != CONNECTED:
            frames.append(stream.state_frame())
        last = stream.series.last
        if past is not None:
            frames.append(
                wire.snapshot(
                    target.name,
                    interval,
                    past.candles,
                    last_is_closed=past.last_is_closed,
                    complete=past.is_complete,
                    seq=stream.seq,
                )
            )
            if past.candles:
                self._since[stream] = past.candles[0].time
        elif is_new and (frame := stream.last_frame_for(request.options)) is not None:
            frames.append(frame)
        if stream not in self._since:
            self._since[stream] = last.time if last is not None else int(supervisor.clock.now())
        self._send(wire.join(frames))

    def _unsubscribe(self, request: wire.Request, pin: str | None, symbol: str, interval: str) -> None:
        stream = self._subscribed(pin, symbol, interval)
        pending = self._pending(pin, symbol, interval)
        if stream is None and pending is None:
            raise RequestError(
                Code.NOT_SUBSCRIBED,
                f"not subscribed to {symbol}@{interval}; list shows what is",
                symbol=symbol,
                interval=interval,
            )
        name = symbol if stream is None else stream.name
        if pending is not None:
            del self._joining[pending]
        if stream is not None:
            self._hub.unsubscribe(self._subscriber, stream)
            self._since.pop(stream, None)
        self._send(
            wire.answer(
                {
                    "type": "subscription",
                    "action": "unsubscribe",
                    "symbol": name,
                    "interval": interval,
                    "status": "ok",
                },
                request.id,
            )
        )

    def _subscribed(self, pin: str | None, symbol: str, interval: str) -> Stream | None:
        """Find one of the client's streams by any of its names; the provider's list may have changed since."""
        name = symbol if pin is None else f"{pin}:{symbol}"
        for stream in self._subscriber.subscriptions:
            if stream.key.interval == interval and (
                stream.name == name or (stream.provider == pin and stream.key.symbol.upper() == symbol)
            ):
                return stream
        return None

    def _pending(self, pin: str | None, symbol: str, interval: str) -> tuple[str, str] | None:
        for identity in self._joining:
            if identity[1].upper() == f"{symbol}@{interval}".upper() and pin in (None, identity[0]):
                return identity
        return None

    # -- sending and ending ------------------------------------------------------------------------

    def _send(self, frames: bytes) -> None:
        if not self._is_ended:
            self._hub.send(self._subscriber, frames)

    def beat(self, now: float) -> None:
        """Ping a client that was silent for 20 s; drop it when it does not answer within 10 s."""
        if self._is_ended or self._subscriber.outbox.is_lagging:
            # A ping would wait behind what the client does not read; the hub's patience with it decides.
            return
        if self._pinged_at is not None:
            if now - self._pinged_at > PONG_TIMEOUT_S:
                log.debug("client %d does not answer pings", self._subscriber.id)
                self._transport.abort()
        elif now - self._heard_at > PING_INTERVAL_S:
            self._pinged_at = now
            self._transport.write(PING_FRAME)

    def _on_slow(self, subscriber: Subscriber, reason: str) -> None:
        log.info("client %d is a slow consumer: %s", subscriber.id, reason)
        task = asyncio.create_task(self.end(CloseCode.SLOW_CONSUMER, "slow consumer"))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self, code: CloseCode, reason: str) -> None:
        """Close the connection; a client that does not read is cut off after a moment."""
        if self._is_ended:
            return
        self._is_ended = True
        self._hub.leave(self._subscriber)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._ws.close(code=code, message=reason.encode())
        except (TimeoutError, ConnectionError):
            pass
        if not self._transport.is_closing() or self._transport.get_write_buffer_size():
            self._transport.abort()

    async def finish(self) -> None:
        """Let go of everything when the client is gone."""
        self._is_ended = True
        self._hub.leave(self._subscriber)
        self._joining.clear()
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _bound_kernel_buffer(transport: asyncio.WriteTransport) -> None:
    """Keep the kernel from hiding minutes of old prices for a client that does not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)


CLIENTS = web.AppKey("clients", Clients)


async def websocket(request: web.Request) -> web.StreamResponse:
    """Serve a client, or say that this address speaks WebSocket."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return problem_of(
            RequestError(Code.INVALID_REQUEST, "this address speaks WebSocket; connect with ws:// or wss://")
        )
    return await request.app[CLIENTS].handle(request)


ROUTES = [web.get("/api/v1/market-data/ws", websocket)]
