"""One client's session: answers its requests, and ends when either side wants; others read what it sends."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import ClassVar, Protocol

from aiohttp import web

from relay.core.errors import CloseCode, Code, RequestError
from relay.core.rate_limits import TokenBucket
from relay.history.joining import Joining
from relay.instruments.directory import Target
from relay.protocol import client_requests, frames
from relay.streams.outbox import Outbox
from relay.streams.subscriptions import Stream, Subscriber, Wire
from relay.telemetry.events import event
from relay.web.access.access import STREAMS_PER_CLIENT, Caller, requests_limit
from relay.web.ws.context import ConnectionContext
from relay.web.ws.ending import EndingConnection
from relay.web.ws.messages import MessageKind, Received
from relay.web.ws.subscriptions import ClientSubscriptions
from relay.web.ws.waiting_names import WaitingName, WaitingNames

log = logging.getLogger(__name__)

SLOW_CLOSE_TIMEOUT_S = 10.0
STREAMS_PER_REQUEST = 5
"""For so many streams that it names, a request counts as one more."""
INVALID_RATE, INVALID_BURST = 1.0, 100
OVER_LIMIT_RATE, OVER_LIMIT_BURST = 1.0, 100

Rest = Callable[[], Awaitable[None]]
"""What is left of a request that has to wait."""
ACTIONS = (*client_requests.ACTIONS, "invalid", "over_limit")
"""What requests are counted as."""


class Connections(Protocol):
    """All connections: `requests` counts what they were asked."""

    requests: Counter[str]

    def left(self, connection: "Connection") -> None: ...


class Connection(EndingConnection):
    """One client: a subscriber of the hub, which gets the updates to it, and the session that answers its requests.

    There are thousands of them: what few clients need is made when it is needed. `all_of_them` is told when it is gone.
    It has the socket's `descriptor` only if it calls `Hub.lose_socket`, or leaves, before that is closed.
    """

    __slots__ = (
        "_all_of_them",
        "_context",
        "_heard_at",
        "_invalid",
        "_over_limit",
        "_pinged_at",
        "_requests",
        "_subscribing",
        "_waiting",
        "caller",
        "opened_at",
        "subscriber",
    )

    over: ClassVar[str] = "websocket"
    """How its client is connected, as the status says it."""
    message_bytes: ClassVar[int] = frames.MESSAGE_BYTES
    """So many bytes a message of a client of this protocol may have."""
    usual_streams: ClassVar[int] = STREAMS_PER_CLIENT
    """So many streams it may have where the configuration does not say."""

    def __init__(
        self,
        context: ConnectionContext,
        all_of_them: Connections,
        transport: asyncio.Transport,
        caller: Caller,
        wire: Wire,
        descriptor: int | None = None,
    ) -> None:
        super().__init__(transport)
        self.caller = caller
        self._context = context
        self._all_of_them = all_of_them
        outbox = Outbox(transport, context.hub.most_kept)
        self.subscriber = context.hub.join(outbox, self._on_slow, wire=wire, descriptor=descriptor)
        self.subscriber.on_renewed = self._on_renewed
        self._subscribing = ClientSubscriptions(context, self.subscriber, caller, self.usual_streams)
        self._requests = TokenBucket(*requests_limit(context.access.config.max_requests_per_second))
        self._waiting: WaitingNames | None = None
        self._invalid: TokenBucket | None = None
        self._over_limit: TokenBucket | None = None
        now = time.monotonic()
        self.opened_at = now
        self._heard_at = now
        self._pinged_at = now

    def begin(self, request: web.Request) -> Rest | None:
        """Return what the client wants with its handshake already; to be done before its first message is answered."""
        return None

    def set_limits(self) -> None:
        """Go by the limits that are in force now."""
        self._requests.set_limit(*requests_limit(self._context.access.config.max_requests_per_second))
        self._subscribing.set_limits()

    # -- requests ----------------------------------------------------------------------------------

    def hear(self, received: Received) -> bool:
        """Note that the client lives; return whether this is to be answered when its turn comes."""
        self._heard_at = time.monotonic()
        if received.kind is MessageKind.CLOSE:
            self._client_code = received.code
            return True
        # After the close frame only the client's own is waited for.
        return received.kind is MessageKind.FAULT or not (self._is_ended or received.kind is MessageKind.PONG)

    def answer(self, received: Received) -> Rest | None:
        """Do what the client wants with one message that was heard; return what is left of it because it has to wait.

        Most need not wait, and so no task.
        """
        try:
            if received.kind is MessageKind.CLOSE:
                self.leave()
            elif received.kind is MessageKind.FAULT:
                self.fail(received.code)
            elif not self._is_ended:
                return self._on_message(received)
        except Exception:  # noqa: BLE001  a fault of ours ends one request, never the connection
            self._on_failure()
        return None

    def _on_message(self, received: Received) -> Rest | None:
        wait_s = self._wait_s()
        if wait_s:
            self._on_rate(received.text, wait_s)
        elif received.kind is MessageKind.TEXT:
            return self._on_text(received.text)
        elif received.kind is MessageKind.PING:
            self._send(frames.pong_frame(received.body))
        else:
            self._on_invalid(
                RequestError(Code.INVALID_REQUEST, "binary frames are not accepted; send JSON as text"), None
            )
        return None

    def _wait_s(self) -> float:
        """Count one request; return how many seconds to wait if this client, or its address, sent too many."""
        if not self._requests.try_acquire():
            return self._requests.wait_s
        return self._context.access.take_request(self.caller.owner)

    def _on_text(self, text: str) -> Rest | None:
        if self._is_too_big(text):
            self.end(CloseCode.TOO_BIG, "message too big")
            return None
        request_id: str | int | None = None
        try:
            message = client_requests.parse_object(text)
            request_id = client_requests.parse_id(message)
            request = client_requests.parse_request(message)
        except RequestError as error:
            self._on_invalid(error, request_id)
            return None
        self._all_of_them.requests[request.action] += 1
        if more := len(request.names) // STREAMS_PER_REQUEST:
            self._requests.spend(more)
        try:
            return self._on_request(request)
        except Exception:  # noqa: BLE001  as in `answer`
            self._on_failure(request.id)
            return None

    def _is_too_big(self, text: str) -> bool:
        most = self.message_bytes
        return len(text) * 4 > most and len(text.encode()) > most

    def _on_request(self, request: client_requests.Request) -> Rest | None:
        if request.action == "ping":
            self._send(frames.pong(int(self._context.server_time()), request.id))
        elif request.action == "list":
            self._send(frames.subscriptions(self._subscribing.labels(), request.id))
        else:
            may_begin = self._context.work_budget.try_acquire
            for at, name in enumerate(request.names):
                # The first is one piece of work with the request itself.
                if (at and not may_begin()) or not self._answer_one(request, name):
                    return partial(self._answer_others, request, request.names[at:])
        return None

    async def _answer_others(self, request: client_requests.Request, names: Sequence[tuple[str, str]]) -> None:
        """Do those streams of a request that have to wait for their turn, or for room to wait."""
        try:
            for name in names:
                await self._context.work_budget.acquire()
                while not self._answer_one(request, name):
                    assert self._waiting is not None
                    await self._waiting.room()
        except Exception:  # noqa: BLE001  as in `answer`
            self._on_failure(request.id)

    def _answer_one(self, request: client_requests.Request, name: tuple[str, str]) -> bool:
        """Do one stream of a request, or have it wait for what providers list; its error harms no other.

        Return False where there is no room for it to wait.
        """
        if self._is_ended:
            return True
        try:
            pin, symbol, interval = client_requests.parse_target(name)
            directory = self._context.directory
            is_settled = request.action == "unsubscribe" or directory.is_settled(pin, symbol)
            if self._waiting is not None or not is_settled:
                one = WaitingName(directory, request, name, (pin, symbol, interval), self.caller.client)
                if self._waiting is None:
                    self._waiting = WaitingNames(self, self._context.work_budget)
                if not is_settled or self._waiting.is_behind(one):
                    return self._waiting.add(one)
            self._do_one(request, pin, symbol, interval)
        except RequestError as error:
            self._refuse(error, request.id)
        return True

    def answer_due(self, waiting: WaitingName) -> None:
        """Do one stream of a request that had to wait."""
        try:
            if waiting.fault is not None:
                raise waiting.fault
            self._do_one(waiting.request, *client_requests.parse_target(waiting.name))
        except RequestError as error:
            self._refuse(error, waiting.request.id)
        except Exception:  # noqa: BLE001  as in `answer`
            self._on_failure(waiting.request.id)

    def none_waits(self) -> None:
        """Do without what few clients need."""
        self._waiting = None

    def _do_one(self, request: client_requests.Request, pin: str | None, symbol: str, interval: str) -> None:
        """Do what a request wants of one stream, unless the client is sent away. Raises `RequestError`."""
        if self._is_ended:
            return
        if request.action == "unsubscribe":
            self._subscribing.unsubscribe(request.id, pin, symbol, interval)
            return
        target = self._context.directory.resolve(pin, symbol, interval)
        joining = self._subscribing.subscribe(target, self._wish(target, request))
        if joining is not None:
            self.spawn(self._run(joining))

    def _wish(self, target: Target, request: client_requests.Request) -> client_requests.Request:
        """Return what a request wants of one of its streams."""
        return request

    async def _run(self, joining: Joining) -> None:
        rest: Joining | None = joining
        while rest is not None:
            try:
                await rest.run()
            except RequestError as error:
                self._refuse(error, *rest.ids)
            except Exception:  # noqa: BLE001  as in `answer`
                # Of what is late no request waits any more.
                self._on_failure(*(rest.ids or (None,)))
            rest = None if rest.past_to_come is None else self._subscribing.rest_of(rest)

    def _on_renewed(self, stream: Stream) -> None:
        self.spawn(self._renew(stream))

    async def _renew(self, stream: Stream) -> None:
        """Send the past of a stream anew, in turn with the requests of all clients."""
        await self._context.work_budget.acquire()
        if (joining := self._subscribing.renew(stream)) is not None:
            await self._run(joining)

    # -- refusing ----------------------------------------------------------------------------------

    def _on_invalid(self, error: RequestError, request_id: str | int | None) -> None:
        self._all_of_them.requests["invalid"] += 1
        self._send(frames.error(error, request_id))
        if self._invalid is None:
            self._invalid = TokenBucket(INVALID_RATE, INVALID_BURST)
        if not self._invalid.try_acquire():
            self.end(CloseCode.TOO_MANY_INVALID, "too many invalid messages")

    def _on_rate(self, text: str, wait_s: float) -> None:
        request_id = None
        with contextlib.suppress(RequestError):
            request_id = client_requests.parse_id(client_requests.parse_object(text))
        fault = RequestError(
            Code.RATE_LIMITED,
            f"more than {self._context.access.most_requests(self.caller.owner)}; wait {wait_s:.2f} s, or name up to "
            f"{client_requests.MOST_STREAMS_PER_REQUEST} streams in one request",
            retry_after=wait_s,
        )
        self._refuse(fault, request_id)

    def _refuse(self, error: RequestError, *request_ids: str | int | None) -> None:
        """Answer requests with an error; a client that goes over a limit again and again has to leave."""
        if error.code is Code.RATE_LIMITED:
            self._all_of_them.requests["over_limit"] += 1
            if self._over_limit is None:
                self._over_limit = TokenBucket(OVER_LIMIT_RATE, OVER_LIMIT_BURST)
            if not self._over_limit.try_acquire():
                self.end(CloseCode.RATE_LIMITED, "rate limited")
        for request_id in request_ids:
            self._send(frames.error(error, request_id))

    def _on_failure(self, *request_ids: str | int | None) -> None:
        """Answer requests at which the relay failed, from within an `except`."""
        number = self.subscriber.id
        log.exception("a request of client %d failed", number, extra=event("client_request_failed", client=number))
        fault = RequestError(
            Code.INTERNAL, "the relay could not process this request; the operator finds the cause in the log"
        )
        self._refuse(fault, *request_ids)

    # -- sending ------------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        self._context.hub.send(self.subscriber, frame)

    def beat(self, now: float, ping_interval_s: float, pong_timeout_s: float) -> None:
        """Ping the client when it was not pinged for an interval; drop it when nothing comes back in time."""
        if self._is_ended or self.subscriber.outbox.is_lagging:
            # A ping would wait behind what the client does not read; the hub's patience with it decides.
            self._pinged_at = self._heard_at = now
        elif self._heard_at < self._pinged_at:
            if now - self._pinged_at > pong_timeout_s:
                number = self.subscriber.id
                log.debug("client %d does not answer pings", number, extra=event("client_mute", client=number))
                self._transport.abort()
        elif now - self._pinged_at > ping_interval_s:
            self._pinged_at = now
            self._send(frames.PING_FRAME)

    def leave_streams(self) -> None:
        """Leave the hub, and let go of what still waits: it would come to a stream that nobody leaves any more."""
        if self._waiting is not None:
            self._waiting.close()
        self._subscribing.close()
        self._context.hub.leave(self.subscriber)

    def gone(self) -> None:
        """Tell all of them that it is over."""
        self._all_of_them.left(self)

    def _on_slow(self, subscriber: Subscriber, reason: str) -> None:
        about = event("client_slow", client=subscriber.id, reason=reason)
        log.info("client %d is a slow consumer: %s", subscriber.id, reason, extra=about)
        self.end(CloseCode.SLOW_CONSUMER, "slow consumer", SLOW_CLOSE_TIMEOUT_S)
