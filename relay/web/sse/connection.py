"""A client that is sent events and asks nothing more: its streams, where it resumes them, and how it ends."""

import asyncio
from collections.abc import Awaitable
from typing import ClassVar

from relay.core.errors import CloseCode
from relay.instruments.directory import Target
from relay.protocol import event_stream
from relay.protocol.client_requests import PastWanted, Request
from relay.protocol.positions import Position, tag_of
from relay.streams.subscriptions import Wire
from relay.web.access.access import Caller
from relay.web.ws.connection import Connections
from relay.web.ws.context import ConnectionContext
from relay.web.ws.ending import CLOSE_TIMEOUT_S
from relay.web.ws.protocol_connection import ProtocolConnection


class EventConnection(ProtocolConnection):
    """One client: a subscriber as over a WebSocket, with the same limits. What it sends is forgotten, and ends it soon.

    `position` is where it was when its last connection ended, None if this is the first.
    """

    __slots__ = ("_forgotten", "_position")

    over: ClassVar[str] = "sse"

    def __init__(
        self,
        context: ConnectionContext,
        all_of_them: Connections,
        transport: asyncio.Transport,
        caller: Caller,
        position: Position | None,
        descriptor: int | None,
    ) -> None:
        super().__init__(context, all_of_them, transport, caller, Wire.EVENTS, descriptor)
        self._position = self.subscriber.resumed = position
        self._forgotten = 0

    def subscribe(self, request: Request) -> None:
        """Join the streams of the one request that there is; each has its own answer, and is resumed if it was had."""
        self._all_of_them.requests[request.action] += 1
        self.spawn(self._answer_others(request, request.names))

    def _wish(self, target: Target, request: Request) -> Request:
        if self._position is None:
            return request
        since = self._position.told_to.get(tag_of(target.provider.name, target.key))
        if since is None:
            # It had less than it asked for, or none; what it has counts for nothing.
            return request._replace(past=request.past._replace(replaces=request.past.bars is not None))
        told = self._position.revision
        if told is None:
            return request._replace(past=PastWanted(since=since))
        return request._replace(past=PastWanted(since=since, revision=told.number, store=told.store))

    # -- from the socket ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Forget it: there is nothing that a client could ask. One that goes on is sent away."""
        self._forgotten += len(data)
        if self._forgotten > self.message_bytes:
            self.end(CloseCode.TOO_BIG, "message too big")

    async def until_lost(self, end: Awaitable[None]) -> None:
        """Wait for the end of the connection, where aiohttp keeps it, and let go of everything."""
        try:
            await end
        finally:
            self._context.hub.lose_socket(self.subscriber)
            self.lose()
            self._transport.close()

    # -- sending -----------------------------------------------------------------------------------

    def beat(self, now: float, ping_interval_s: float, pong_timeout_s: float) -> None:
        """Send a comment when nothing was for an interval: a proxy would take the connection for unused.

        Nobody answers it. Of a client that is gone the kernel learns, or it lags.
        """
        self._heard_at = now
        super().beat(now, ping_interval_s, pong_timeout_s)

    # -- the end -----------------------------------------------------------------------------------

    def goodbye(self, code: int, reason: str) -> bytes:
        """Return the event that says why: there is no close frame."""
        return event_stream.ending(code, reason)

    def end(self, code: CloseCode, reason: str, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send why, nothing after it, and close; a client that does not read all of it in time is cut off."""
        super().end(code, reason, timeout_s)
        self._transport.close()

    def forget(self, most: int) -> None:
        """Do nothing: nothing is read."""
