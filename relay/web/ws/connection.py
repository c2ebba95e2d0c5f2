"""One client's session: answers its requests in order, and ends when either side wants; others read what it sends."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from relay.core.errors import CloseCode, Code, RequestError
from relay.core.rate_limits import TokenBucket
from relay.history.joining import Joining
from relay.protocol import client_requests, frames
from relay.streams.group_write import descriptor_of
from relay.streams.outbox import Outbox
from relay.streams.subscriptions import Subscriber
from relay.telemetry.events import event
from relay.web.access.access import Caller, requests_limit
from relay.web.inlet import FORGOTTEN_BYTES, LINGER_S
from relay.web.ws.context import ConnectionContext
from relay.web.ws.messages import MessageKind, Received
from relay.web.ws.socket import Socket
from relay.web.ws.subscriptions import ClientSubscriptions

log = logging.getLogger(__name__)

PING_FRAME = b"\x89\x00"
NORMAL = 1000
"""The code that answers the close frame of a client, whatever it holds."""
CLOSE_TIMEOUT_S = 2.0
SLOW_CLOSE_TIMEOUT_S = 10.0
STREAMS_PER_REQUEST = 5
"""For so many streams that it names, a request counts as one more."""
INVALID_RATE, INVALID_BURST = 1.0, 100
OVER_LIMIT_RATE, OVER_LIMIT_BURST = 1.0, 100

ACTIONS = (*client_requests.ACTIONS, "invalid", "over_limit")
"""What requests are counted as."""


SAID_WHY: dict[int, tuple[str, int]] = {
    CloseCode.TOO_BIG: ("message too big", FORGOTTEN_BYTES),
    CloseCode.RATE_LIMITED: ("rate limited", 0),
}
"""Why this end closes while there is more to read, and how many bytes of it are read and forgotten."""


class Connections(Protocol):
    """All connections: `requests` counts what they were asked."""

    requests: Counter[str]

    def left(self, connection: "Connection") -> None: ...


class Connection:
    """One client: a subscriber of the hub, which gets the updates to it, and the session that answers its requests.

    There are thousands of them: what few clients need is made when it is needed. `all_of_them` is told when it is gone.
    """

    __slots__ = (
        "_abort_timer",
        "_all_of_them",
        "_client_code",
        "_context",
        "_end_code",
        "_heard_at",
        "_invalid",
        "_is_ended",
        "_is_lost",
        "_over_limit",
        "_pinged_at",
        "_requests",
        "_subscribing",
        "_tasks",
        "_transport",
        "caller",
        "opened_at",
        "subscriber",
    )

    def __init__(
        self,
        context: ConnectionContext,
        all_of_them: Connections,
        transport: asyncio.Transport,
        caller: Caller,
        ws: Socket,
    ) -> None:
        self.caller = caller
        self._context = context
        self._all_of_them = all_of_them
        self._transport = transport
        outbox = Outbox(transport, context.hub.most_kept)
        self.subscriber = context.hub.join(
            outbox, self._on_slow, is_compressed=ws.takes_compressed, descriptor=descriptor_of(transport)
        )
        self._subscribing = ClientSubscriptions(context, self.subscriber, caller)
        self._tasks: dict[asyncio.Task[None], None] | None = None
        self._requests = TokenBucket(*requests_limit(context.access.config.max_requests_per_second))
        self._invalid: TokenBucket | None = None
        self._over_limit: TokenBucket | None = None
        now = time.monotonic()
        self.opened_at = now
        self._heard_at = now
        self._pinged_at = now
        self._is_ended = False
        self._is_lost = False
        self._end_code: int | None = None
        self._client_code: int | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def ending(self) -> tuple[str, int]:
        """Who ended the connection, `relay` or `client`, and with which close code; 1006 is none."""
        if self._end_code is not None:
            return "relay", self._end_code
        return "client", 1006 if self._client_code is None else self._client_code

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

    async def answer(self, received: Received) -> None:
        """Do what the client wants with one message that was heard."""
        if received.kind is MessageKind.CLOSE:
            self._leave()
        elif received.kind is MessageKind.FAULT:
            self._fail(received.code)
        elif not self._is_ended:
            wait_s = self._wait_s()
            if wait_s:
                self._on_rate(received.text, wait_s)
            elif received.kind is MessageKind.TEXT:
                await self._on_text(received.text)
            elif received.kind is MessageKind.PING:
                self._send(frames.pong_frame(received.body))
            else:
                self._on_invalid(
                    RequestError(Code.INVALID_REQUEST, "binary frames are not accepted; send JSON as text"), None
                )

    def _wait_s(self) -> float:
        """Count one request; return how many seconds to wait if this client, or its address, sent too many."""
        if not self._requests.take():
            return self._requests.wait_s
        return self._context.access.take_request(self.caller.owner)

    async def _on_text(self, text: str) -> None:
        if len(text) * 4 > frames.MESSAGE_BYTES < len(text.encode()):
            self.end(CloseCode.TOO_BIG, "message too big")
            return
        request_id: str | int | None = None
        try:
            message = client_requests.parse_object(text)
            request_id = client_requests.parse_id(message)
            request = client_requests.parse_request(message)
        except RequestError as error:
            self._on_invalid(error, request_id)
            return
        self._all_of_them.requests[request.action] += 1
        self._requests.spend(len(request.names) // STREAMS_PER_REQUEST)
        try:
            await self._on_request(request)
        except Exception:  # noqa: BLE001  a fault of ours ends one request, never the connection
            self._on_failure(request.id)

    async def _on_request(self, request: client_requests.Request) -> None:
        if request.action == "ping":
            self._send(frames.pong(int(time.time()), request.id))
        elif request.action == "list":
            self._send(frames.subscriptions(self._subscribing.labels(), request.id))
        else:
            for name in request.names:
                await self._context.work_budget.take()
                await self._answer_one(request, name)

    async def _answer_one(self, request: client_requests.Request, name: tuple[str, str]) -> None:
        """Do one stream of a request; its error harms no other."""
        try:
            pin, symbol, interval = client_requests.parse_target(name)
            if request.action == "unsubscribe":
                self._subscribing.unsubscribe(request.id, pin, symbol, interval)
                return
            directory = self._context.directory
            await directory.settled(pin, symbol)
            joining = self._subscribing.subscribe(directory.resolve(pin, symbol, interval), request)
        except RequestError as error:
            self._refuse(error, request.id)
            return
        if joining is not None:
            self._spawn(self._run(joining))

    async def _run(self, joining: Joining) -> None:
        try:
            await joining.run()
        except RequestError as error:
            self._refuse(error, *joining.ids)
        except Exception:  # noqa: BLE001  as in `_on_text`
            self._on_failure(*joining.ids)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        if self._tasks is None:
            self._tasks = {}
        self._tasks[task] = None
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        assert self._tasks is not None
        del self._tasks[task]
        if not self._tasks:
            self._tasks = None
            if self._is_lost:
                self._all_of_them.left(self)

    # -- refusing ----------------------------------------------------------------------------------

    def _on_invalid(self, error: RequestError, request_id: str | int | None) -> None:
        self._all_of_them.requests["invalid"] += 1
        self._send(frames.error(error, request_id))
        if self._invalid is None:
            self._invalid = TokenBucket(INVALID_RATE, INVALID_BURST)
        if not self._invalid.take():
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
            if not self._over_limit.take():
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

    # -- sending and ending ------------------------------------------------------------------------

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
            self._transport.write(PING_FRAME)

    def _on_slow(self, subscriber: Subscriber, reason: str) -> None:
        about = event("client_slow", client=subscriber.id, reason=reason)
        log.info("client %d is a slow consumer: %s", subscriber.id, reason, extra=about)
        self.end(CloseCode.SLOW_CONSUMER, "slow consumer", SLOW_CLOSE_TIMEOUT_S)

    def end(self, code: CloseCode, reason: str, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send the close frame and nothing after it; a client that does not answer it in time is cut off."""
        if not self._is_ended:
            self._end_code = int(code)
            self._close_with(code, reason)
            self._set_timer(timeout_s, self._transport.abort)

    def hurry(self) -> None:
        """Have an end that is under way take no longer than that of a client that reads."""
        if not self._is_lost:
            self._set_timer(CLOSE_TIMEOUT_S, self._transport.abort)

    def _leave(self) -> None:
        """Close: the client wants to go, or has answered the close frame."""
        self._close_with(NORMAL, "")
        self._close()

    def _fail(self, code: int) -> None:
        """Close because of what came, after a moment: to close at once while more is on its way resets the connection.

        Then the client would not see the reason.
        """
        if self._end_code is None:
            self._end_code = code
        is_first = not self._is_ended and not self._transport.is_closing()
        reason, most = SAID_WHY.get(code, ("", FORGOTTEN_BYTES))
        self._close_with(code, reason)
        if is_first:
            self._forget(most)
            self._set_timer(LINGER_S, self._close)
        else:
            self._close()

    def _close_with(self, code: int, reason: str) -> None:
        """Send the close frame, if none was sent, and nothing after it."""
        if not self._is_ended:
            self._is_ended = True
            self._context.hub.leave(self.subscriber)
            if not self._transport.is_closing():
                self._transport.write(frames.close_frame(code, reason))

    def _close(self) -> None:
        """Close the connection; what the client does not read must not keep it open for ever."""
        self._set_timer(CLOSE_TIMEOUT_S, self._transport.abort)
        self._transport.close()

    def _forget(self, most: int) -> None:
        """Read and forget at most so many bytes."""

    def _set_timer(self, after_s: float, do: Callable[[], None]) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._abort_timer = asyncio.get_running_loop().call_later(after_s, do)

    def lose(self) -> None:
        """Let go of everything: the client is gone. Harmless when it was lost already."""
        if self._is_lost:
            return
        self._is_lost = self._is_ended = True
        self._context.hub.leave(self.subscriber)
        self._subscribing.close()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._tasks is None:
            self._all_of_them.left(self)
        else:
            for task in self._tasks:
                task.cancel()
