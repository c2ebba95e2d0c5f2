"""The WebSocket that clients speak: one connection is one subscriber of the hub."""

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import WebSocketError, WSMsgType, web

from relay import requests, snapshot, wire
from relay.config import Config
from relay.directory import Directory, Target
from relay.errors import CloseCode, Code, RequestError
from relay.events import event
from relay.fields import shown
from relay.history import History
from relay.hub import Hub
from relay.limits import TokenBucket
from relay.model import StreamKey
from relay.outbox import Outbox
from relay.ranges import Past as Answer
from relay.stream import CONNECTED, Stream, Subscriber
from relay.supervisor import Supervisor
from relay.web.access import Access, Caller, check_rows, requests_limit, rows_limit
from relay.web.problems import problem_of

log = logging.getLogger(__name__)

PING_INTERVAL_S = 20.0
PONG_TIMEOUT_S = 10.0
PING_FRAME = b"\x89\x00"
KERNEL_BUFFER = 24 * 1024
CLOSE_TIMEOUT_S = 2.0
SLOW_CLOSE_TIMEOUT_S = 10.0
TOO_BIG_LINGER_S = 1.0
INVALID_RATE, INVALID_BURST = 1.0, 100
OVER_LIMIT_RATE, OVER_LIMIT_BURST = 1.0, 100
MOST_ROUNDS = 3

ACTIONS = (*requests.ACTIONS, "invalid", "over_limit")
"""What requests are counted as."""

Identity = tuple[str, StreamKey]


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
        self.ping_interval_s = PING_INTERVAL_S
        self.pong_timeout_s = PONG_TIMEOUT_S
        self.connections: dict[Connection, None] = {}
        self.opened = 0
        self.requests: Counter[str] = Counter()
        self.closes: Counter[tuple[str, int]] = Counter()
        self._heart: asyncio.Task[None] | None = None
        self._all_gone: asyncio.Event | None = None

    def start(self) -> None:
        """Begin the heartbeat."""
        self._heart = asyncio.create_task(self._beat(), name="heartbeat")

    async def close(self) -> None:
        """Send every client away with 1001 and stop the heartbeat."""
        self.access.is_closing = True
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
        if not self.connections:
            return
        self._all_gone = asyncio.Event()
        for connection in list(self.connections):
            connection.end(CloseCode.GOING_AWAY, "server shutdown")
        await self._all_gone.wait()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.ping_interval_s / 4))
            now = time.monotonic()
            for connection in list(self.connections):
                connection.beat(now)

    def reconfigure(self, config: Config) -> int:
        """Go by another configuration, after `access` did; return how many clients had to go with their token."""
        self.config = config
        for connection in list(self.connections):
            connection.set_limits()
        return sum(self._check_token(connection) for connection in list(self.connections))

    def _check_token(self, connection: "Connection") -> bool:
        """End a connection whose token is gone, also one that was opened while that happened."""
        if self.access.stands(connection.caller):
            return False
        connection.end(CloseCode.TOKEN_REVOKED, "token revoked")
        return True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one client from the handshake to the end."""
        caller = self.access.admit(request)
        try:
            # aiohttp refuses a message as long as the limit it is given; ours is the largest that is taken.
            ws = Socket(
                autoping=False,
                autoclose=False,
                compress=self.config.compression,
                max_msg_size=wire.MESSAGE_BYTES + 1,
            )
            await ws.prepare(request)
            transport = request.transport
            if transport is None:
                return ws
            ws.transport = transport
            connection = Connection(self, ws, transport, caller)
            self.connections[connection] = None
            self.opened += 1
            number = connection.subscriber.id
            token = caller.token.name if caller.token else None
            log.debug(
                "client %d comes from %s%s",
                number,
                caller.address,
                "" if token is None else f" with {token!r}",
                extra=event("client_came", client=number, address=caller.address, token=token),
            )
            try:
                self._check_token(connection)
                await connection.serve()
            finally:
                try:
                    await connection.finish()
                finally:
                    by, code = connection.ending
                    self.closes[by, code] += 1
                    about = event("client_left", client=number, by=by, code=code)
                    log.debug("client %d left: close code %d, by the %s", number, code, by, extra=about)
                    del self.connections[connection]
                    if self._all_gone is not None and not self.connections:
                        self._all_gone.set()
            return ws
        finally:
            self.access.leave(caller)


class Socket(web.WebSocketResponse):
    """Says why when it closes because of a message that is too big."""

    transport: asyncio.WriteTransport | None = None

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Close; after a message that is too big go on reading for a moment.

        Closing at once would reset the connection while the rest of the message is on its way, and the client would
        not see the reason.
        """
        if code == CloseCode.TOO_BIG and self.transport is not None and not self.closed:
            self.transport.write(wire.close_frame(code, "message too big"))
            deadline = time.monotonic() + TOO_BIG_LINGER_S
            while time.monotonic() < deadline and not self.transport.is_closing():  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.02)
            self.transport.close()
            return True
        return await super().close(code=code, message=message, drain=drain)


class Joining:
    """A subscription that waits for its past: the requests it answers, and what the newest of them wants."""

    __slots__ = ("ids", "options", "past", "target")

    def __init__(self, target: Target, request: requests.Request) -> None:
        self.target = target
        self.ids = [request.id]
        self.options = request.options
        self.past = request.past

    def replace(self, request: requests.Request) -> None:
        """Take what a later request for the same stream wants instead."""
        self.ids.append(request.id)
        self.options = request.options
        if request.past != requests.Past():
            self.past = request.past


class Connection:
    """One client: reads its requests, answers them in order, and leaves the updates to the hub.

    There are thousands of them: what few clients need is made when it is needed.
    """

    __slots__ = (
        "_abort_timer",
        "_clients",
        "_end_code",
        "_heard_at",
        "_hub",
        "_invalid",
        "_is_ended",
        "_joining",
        "_over_limit",
        "_past_turns",
        "_pinged_at",
        "_requests",
        "_rows",
        "_since",
        "_tasks",
        "_transport",
        "_ws",
        "caller",
        "opened_at",
        "subscriber",
    )

    def __init__(
        self, clients: Clients, ws: web.WebSocketResponse, transport: asyncio.WriteTransport, caller: Caller
    ) -> None:
        self.caller = caller
        self._clients = clients
        self._hub = clients.hub
        self._ws = ws
        self._transport = transport
        _bound_kernel_buffer(transport)
        is_compressed = ws.compress == wire.DEFLATE_WINDOW_BITS
        self.subscriber = clients.hub.join(Outbox(transport), self._on_slow, is_compressed=is_compressed)
        self._since: dict[Stream, int] = {}
        self._joining: dict[Identity, Joining] = {}
        # One snapshot at a time of each provider: they are large, and a provider that hangs holds up no other.
        self._past_turns: dict[str, asyncio.Lock] | None = None
        self._tasks: dict[asyncio.Task[None], None] | None = None
        self._requests = TokenBucket(*requests_limit(clients.config.max_requests_per_second))
        self._rows: TokenBucket | None = None
        self._invalid: TokenBucket | None = None
        self._over_limit: TokenBucket | None = None
        now = time.monotonic()
        self.opened_at = now
        self._heard_at = now
        self._pinged_at = now
        self._is_ended = False
        self._end_code: int | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def ending(self) -> tuple[str, int]:
        """Who ended the connection, `relay` or `client`, and with which close code; 1006 is none."""
        if self._end_code is not None:
            return "relay", self._end_code
        return "client", self._ws.close_code or 1006

    # -- reading -----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Greet, then answer requests until the client goes."""
        clients = self._clients
        self._send(wire.greeting(clients.epoch, clients.config.max_streams_per_client, int(time.time())))
        while True:
            message = await self._ws.receive()
            self._heard_at = time.monotonic()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                if isinstance(message.data, WebSocketError) and self._end_code is None:
                    # aiohttp has closed already: what came was no WebSocket, or too much.
                    self._end_code = int(message.data.code)
                break
            if self._is_ended or message.type is WSMsgType.PONG:
                # After the close frame only the client's own is waited for.
                continue
            wait_s = self._wait_s()
            if wait_s:
                self._on_rate(message.data if message.type is WSMsgType.TEXT else "", wait_s)
            elif message.type is WSMsgType.TEXT:
                await self._on_text(message.data)
            elif message.type is WSMsgType.PING:
                await self._ws.pong(message.data)
            else:
                self._on_invalid(RequestError(Code.INVALID_REQUEST, "binary frame; send JSON as text"), None)

    async def _on_text(self, text: str) -> None:
        if len(text) * 4 > wire.MESSAGE_BYTES < len(text.encode()):
            self.end(CloseCode.TOO_BIG, "message too big")
            return
        request_id: str | int | None = None
        try:
            message = requests.parse_object(text)
            request_id = requests.parse_id(message)
            request = requests.parse_request(message)
        except RequestError as error:
            self._on_invalid(error, request_id)
            return
        self._clients.requests[request.action] += 1
        try:
            await self._on_request(request)
        except Exception:  # noqa: BLE001  a fault of ours ends one request, never the connection
            self._on_failure(request.id)

    def _on_invalid(self, error: RequestError, request_id: str | int | None) -> None:
        self._clients.requests["invalid"] += 1
        self._send(wire.error(error, request_id))
        if self._invalid is None:
            self._invalid = TokenBucket(INVALID_RATE, INVALID_BURST)
        if not self._invalid.take():
            self.end(CloseCode.TOO_MANY_INVALID, "too many invalid messages")

    def _on_failure(self, *request_ids: str | int | None) -> None:
        """Answer requests at which the relay failed, from within an `except`."""
        number = self.subscriber.id
        log.exception("a request of client %d failed", number, extra=event("client_request_failed", client=number))
        fault = RequestError(Code.INTERNAL, "the relay failed at this request; the operator finds the cause in the log")
        for request_id in request_ids:
            self._send(wire.error(fault, request_id))

    def _wait_s(self) -> float:
        """Count one request; return how many seconds to wait if this client, or its address, sent too many."""
        return self._clients.access.take_request(self.caller.owner) if self._requests.take() else self._requests.wait_s

    def _on_abuse(self) -> bool:
        """Count a request over a limit; end the connection after many, and return whether it goes on."""
        self._clients.requests["over_limit"] += 1
        if self._over_limit is None:
            self._over_limit = TokenBucket(OVER_LIMIT_RATE, OVER_LIMIT_BURST)
        if not self._over_limit.take():
            self.end(CloseCode.RATE_LIMITED, "rate limited")
        return not self._is_ended

    def _on_rate(self, text: str, wait_s: float) -> None:
        if not self._on_abuse():
            return
        config = self._clients.config
        fault = RequestError(
            Code.RATE_LIMITED,
            f"more than {config.max_requests_per_second:g} requests a second, or "
            f"{config.max_requests_per_second_per_address:g} from one address; wait {wait_s:.2f} s, or name up to "
            f"{requests.MOST_STREAMS_PER_REQUEST} streams in one request",
            retry_after=wait_s,
        )
        request_id = None
        with contextlib.suppress(RequestError):
            request_id = requests.parse_id(requests.parse_object(text))
        self._send(wire.error(fault, request_id))

    async def _on_request(self, request: requests.Request) -> None:
        if request.action == "ping":
            self._send(wire.pong(int(time.time()), request.id))
        elif request.action == "list":
            names = sorted(stream.label for stream in self.subscriber.subscriptions)
            self._send(wire.subscriptions(names, request.id))
        else:
            for name in request.names:
                await self._answer_one(request, name)

    async def _answer_one(self, request: requests.Request, name: tuple[str, str]) -> None:
        """Do one stream of a request; its error harms no other."""
        try:
            pin, symbol, interval = requests.parse_target(name)
            if request.action == "unsubscribe":
                self._unsubscribe(request, pin, symbol, interval)
            else:
                await self._clients.directory.settled(pin, symbol)
                self._subscribe(request, pin, symbol, interval)
        except RequestError as error:
            self._send(wire.error(error, request.id))

    # -- subscribing -------------------------------------------------------------------------------

    def _subscribe(self, request: requests.Request, pin: str | None, symbol: str, interval: str) -> None:
        target = self._clients.directory.resolve(pin, symbol, interval)
        identity = (target.provider.name, target.key)
        joining = self._joining.get(identity)
        if joining is not None:
            joining.replace(request)
            return
        self._check_room(target)
        joining = Joining(target, request)
        if request.past == requests.Past():
            self._join(joining, None)
            return
        self._joining[identity] = joining
        self._spawn(self._join_with_past(joining))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        if self._tasks is None:
            self._tasks = {}
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    def _check_room(self, target: Target) -> None:
        config = self._clients.config
        stream = self._find(target)
        if stream is not None and stream in self.subscriber.subscriptions:
            return
        held: set[Identity] = {(one.provider, one.key) for one in self.subscriber.subscriptions}
        held.update(self._joining)
        fault = None
        if len(held) >= config.max_streams_per_client:
            fault = f"this connection has {config.max_streams_per_client} streams, which is the most; unsubscribe some"
        elif stream is None and len(self._hub.streams) >= config.max_streams:
            fault = f"the relay carries {config.max_streams} streams, which is the most"
        elif stream is None and not self._clients.access.shares.may_open(
            self.caller.owner, self._hub.streams, config.max_streams
        ):
            left = config.max_streams - len(self._hub.streams)
            fault = (
                f"of {config.max_streams} streams {left} are left, and clients of this address opened more than that; "
                "streams that the relay carries already can be had"
            )
        if fault is not None:
            raise RequestError(Code.TOO_MANY_SUBSCRIPTIONS, fault, symbol=target.name, interval=target.key.interval)

    def _find(self, target: Target) -> Stream | None:
        return self._hub.streams.get((target.provider.name, target.key))

    async def _join_with_past(self, joining: Joining) -> None:
        """Fetch the past, then join: the snapshot ends exactly where the live updates begin."""
        target = joining.target
        identity = (target.provider.name, target.key)
        try:
            if self._past_turns is None:
                self._past_turns = {}
            async with self._past_turns.setdefault(target.provider.name, asyncio.Lock()):
                past, answer = None, None
                while past != joining.past:
                    await self._caught_up()
                    past = joining.past
                    answer = await self._fetch(target, _with_open(past, joining.options))
                if self._joining.get(identity) is joining:
                    del self._joining[identity]
                    self._check_room(target)
                    self._join(joining, answer)
        except RequestError as error:
            for request_id in joining.ids:
                self._send(wire.error(error, request_id))
        except Exception:  # noqa: BLE001  as in `_on_text`
            self._on_failure(*joining.ids)
        finally:
            if self._joining.get(identity) is joining:
                del self._joining[identity]

    async def _fetch(self, target: Target, past: requests.Past) -> Answer:
        """Fetch the past, again where the stream went on too far meanwhile."""
        for _ in range(MOST_ROUNDS):
            self._check_rows(target)
            answer = await snapshot.fetch(
                self._clients.history, target.provider, target.key, lambda: self._find(target), past
            )
            self._spend_rows(len(answer.candles))
            stream = self._find(target)
            if stream is None or snapshot.covers(answer, stream.series, past):
                return answer
        return answer._replace(is_complete=False)

    def _check_rows(self, target: Target) -> None:
        access, most = self._clients.access, self._clients.config.max_history_rows_per_minute
        try:
            if self._rows is not None:
                check_rows(self._rows, most, "one client")
            access.check_rows(self.caller.owner)
        except RequestError as error:
            self._on_abuse()
            error.symbol, error.interval = target.name, target.key.interval
            raise

    def _spend_rows(self, rows: int) -> None:
        if self._rows is None:
            self._rows = TokenBucket(*rows_limit(self._clients.config.max_history_rows_per_minute))
        self._rows.spend(rows)
        self._clients.access.spend_rows(self.caller.owner, rows)

    def set_limits(self) -> None:
        """Go by the limits that are in force now."""
        config = self._clients.config
        self._requests.set_limit(*requests_limit(config.max_requests_per_second))
        if self._rows is not None:
            self._rows.set_limit(*rows_limit(config.max_history_rows_per_minute))

    async def _caught_up(self) -> None:
        """Wait until a slow reader has taken what it was sent: snapshots are large and must not pile up."""
        while self.subscriber.outbox.is_lagging and not self._is_ended:  # noqa: ASYNC110  the hub's timers drain it
            await asyncio.sleep(0.05)

    def _join(self, joining: Joining, answer: Answer | None) -> None:
        """Confirm, tell the state, send the past or the last known candle, and let the updates follow."""
        hub, subscriber, target, options = self._hub, self.subscriber, joining.target, joining.options
        if self._is_ended or subscriber not in hub.subscribers:
            return
        supervisor = self._clients.supervisors[target.provider.name]
        if self._find(target) is None:
            self._clients.access.shares.opened((target.provider.name, target.key), self.caller.owner, hub.streams)
        stream = hub.stream(target.provider.name, target.key, target.name, supervisor)
        is_new = stream not in subscriber.subscriptions
        before = None if is_new else self._since.get(stream)
        # The cut comes before the subscription: what a new stream tells of the past is in the snapshot already.
        past = None if answer is None else self._cut(stream, answer, joining, before)
        hub.subscribe(subscriber, stream, options)
        self._note("subscribes to", stream)
        frames = [wire.subscription("subscribe", target.name, target.key.interval, id_) for id_ in joining.ids]
        if stream.status != CONNECTED:
            frames.append(stream.state_frame())
        last = stream.series.last
        if past is not None:
            frames += [
                wire.gap(
                    target.name, target.key.interval, gap.start, gap.end, "the provider's history could not give it"
                )
                for gap in past.gaps
            ]
            frames.append(
                wire.snapshot(
                    target.name,
                    target.key.interval,
                    past.candles,
                    last_is_closed=past.last_is_closed,
                    complete=past.is_complete,
                    seq=stream.seq,
                )
            )
            if past.candles:
                self._since[stream] = past.candles[0].time
        elif is_new and (frame := stream.last_frame_for(options)) is not None:
            frames.append(frame)
        if is_new and (past is None or not past.candles):
            self._since[stream] = last.time if last is not None else int(supervisor.clock.now())
        self._send(wire.join(frames), len(frames))

    def _cut(self, stream: Stream, answer: Answer, joining: Joining, before: int | None) -> snapshot.Snapshot:
        """Return what is sent first; who wants closed candles only gets no open one here either."""
        cut = snapshot.cut(self._hub, stream, answer, _with_open(joining.past, joining.options), before)
        if not joining.options.closed_only:
            return cut
        candles = list(cut.candles) if cut.last_is_closed else list(cut.candles[:-1])
        bars = joining.past.bars
        if bars is not None:
            candles = candles[-bars:] if bars else []
        return cut._replace(candles=candles, last_is_closed=True)

    def _note(self, verb: str, stream: Stream) -> None:
        name = stream.label
        about = event("client_stream", client=self.subscriber.id, stream=name, action=verb)
        log.debug("client %d %s %s", self.subscriber.id, verb, name, extra=about)

    def _unsubscribe(self, request: requests.Request, pin: str | None, symbol: str, interval: str) -> None:
        stream = self._subscribed(pin, symbol, interval)
        pending = self._pending(pin, symbol, interval)
        if stream is None and pending is None:
            name = symbol if pin is None else f"{pin}:{symbol}"
            raise RequestError(
                Code.NOT_SUBSCRIBED,
                f"not subscribed to {shown(f'{name}@{interval}')}; list shows what is",
                symbol=name,
                interval=interval,
            )
        if pending is not None:
            # Its requests are answered too: the stream was accepted, and is left before it began.
            joining = self._joining.pop(pending)
            name = joining.target.name
            for request_id in joining.ids:
                self._send(wire.subscription("subscribe", name, interval, request_id))
        if stream is not None:
            name = stream.name
            self._hub.unsubscribe(self.subscriber, stream)
            self._note("leaves", stream)
            self._since.pop(stream, None)
        self._send(wire.subscription("unsubscribe", name, interval, request.id))

    def _subscribed(self, pin: str | None, symbol: str, interval: str) -> Stream | None:
        """Find one of the client's streams by any of its names; the provider's list may have changed since."""
        fits = _names(pin, symbol, interval)
        return next((one for one in self.subscriber.subscriptions if fits(one.name, one.provider, one.key)), None)

    def _pending(self, pin: str | None, symbol: str, interval: str) -> Identity | None:
        fits = _names(pin, symbol, interval)
        return next((one for one, joining in self._joining.items() if fits(joining.target.name, *one)), None)

    # -- sending and ending ------------------------------------------------------------------------

    def _send(self, frames: bytes, count: int = 1) -> None:
        if not self._is_ended:
            self._hub.send(self.subscriber, frames, frames=count)

    def beat(self, now: float) -> None:
        """Ping the client every 20 s; drop it when nothing comes back within 10 s."""
        if self._is_ended or self.subscriber.outbox.is_lagging:
            # A ping would wait behind what the client does not read; the hub's patience with it decides.
            self._pinged_at = self._heard_at = now
        elif self._heard_at < self._pinged_at:
            if now - self._pinged_at > self._clients.pong_timeout_s:
                number = self.subscriber.id
                log.debug("client %d does not answer pings", number, extra=event("client_mute", client=number))
                self._transport.abort()
        elif now - self._pinged_at > self._clients.ping_interval_s:
            self._pinged_at = now
            self._transport.write(PING_FRAME)

    def _on_slow(self, subscriber: Subscriber, reason: str) -> None:
        about = event("client_slow", client=subscriber.id, reason=reason)
        log.info("client %d is a slow consumer: %s", subscriber.id, reason, extra=about)
        self.end(CloseCode.SLOW_CONSUMER, "slow consumer", SLOW_CLOSE_TIMEOUT_S)

    def end(self, code: CloseCode, reason: str, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send the close frame and nothing after it; a client that does not answer it in time is cut off."""
        if self._is_ended:
            return
        self._is_ended = True
        self._end_code = int(code)
        self._hub.leave(self.subscriber)
        if not self._transport.is_closing():
            self._transport.write(wire.close_frame(code, reason))
        self._abort_timer = asyncio.get_running_loop().call_later(timeout_s, self._transport.abort)

    async def finish(self) -> None:
        """Let go of everything when the client is gone."""
        self._hub.leave(self.subscriber)
        self._joining.clear()
        if self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._abort_timer is None:
            # The client left first; what it was still to be sent must not keep the connection open for ever.
            self._abort_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abort)
            await self._ws.close()
        self._is_ended = True
        self._abort_timer.cancel()
        self._transport.close()


def _with_open(past: requests.Past, options: requests.Options) -> requests.Past:
    """Ask for one candle more where the open one is left out."""
    return past._replace(bars=past.bars + 1) if past.bars and options.closed_only else past


def _names(pin: str | None, symbol: str, interval: str) -> Callable[[str, str, StreamKey], bool]:
    """Return whether a client's name means a stream, given what the stream is called, its provider and its key."""
    whole = (symbol if pin is None else f"{pin}:{symbol}").upper()

    def fits(name: str, provider: str, key: StreamKey) -> bool:
        return key.interval == interval and (
            name.upper() == whole or (provider == pin and key.symbol.upper() == symbol)
        )

    return fits


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
