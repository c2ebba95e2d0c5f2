"""A client whose session is itself the protocol of the connection: nothing of aiohttp is left after the handshake."""

import asyncio
from collections import deque
from collections.abc import Sequence

from relay.core.rate_limits import TokenBucket
from relay.streams.group_write import descriptor_of
from relay.web.access.access import Caller, frames_limit
from relay.web.ws.connection import Connections, Rest
from relay.web.ws.context import ConnectionContext
from relay.web.ws.frame_reader import FrameReader, MessageProtocol
from relay.web.ws.messages import MessageKind, Received
from relay.web.ws.protocol_connection import ProtocolConnection
from relay.web.ws.socket import Socket

MOST_WAITING = 64
WAITING_BYTES = 256 * 1024
"""So many messages of a client, and about so much text, wait to be answered before no more are read."""


class DirectConnection(ProtocolConnection, MessageProtocol):
    """Takes a connection over from aiohttp. A client has a task only while something waits for its turn."""

    __slots__ = ("_frames", "_inbox", "_is_resting", "_may_compress", "_reader")

    def __init__(
        self,
        context: ConnectionContext,
        all_of_them: Connections,
        transport: asyncio.Transport,
        caller: Caller,
        ws: Socket,
    ) -> None:
        super().__init__(context, all_of_them, transport, caller, ws.wire, descriptor_of(transport))
        self._may_compress = ws.may_compress
        self._frames: TokenBucket | None = None
        self._reader: FrameReader | None = None
        self._inbox: deque[Received] | None = None
        self._is_resting = False

    def set_limits(self) -> None:
        """Go by the limits that are in force now."""
        super().set_limits()
        if self._frames is not None:
            self._frames.set_limit(*frames_limit(self._context.access.config.max_requests_per_second))

    # -- from the socket ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        reader = self._reader
        if reader is None:
            if self._frames is None:
                self._frames = self._context.access.new_frames()
            reader = FrameReader(
                self,
                self._transport,
                self._frames,
                is_compressed=self._may_compress,
                message_bytes=self.message_bytes,
            )
            self._reader = reader
            self._context.recent_readers.made(self)
        reader.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything in its turn, of the reader at once."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._context.recent_readers.forget(self)
        super().connection_lost(exc)

    # -- from the reader ---------------------------------------------------------------------------

    def take(self, received: Sequence[Received]) -> None:
        """Answer messages, at once if they need not wait; while too many wait for their turn nothing more is read."""
        for one in received:
            if not self.hear(one):
                continue
            if self._inbox is not None and not self._goes_first(one):
                self._inbox.append(one)
            elif self._inbox is not None:
                self.answer(one)
            elif not self._context.work_budget.take_now():
                self._begin_inbox(None, one)
            elif (rest := self.answer(one)) is not None:
                self._begin_inbox(rest)
        if self._inbox is not None and self._reader is not None and _is_full(self._inbox):
            self._reader.hold()

    def _goes_first(self, received: Received) -> bool:
        """Whether this is answered before what waits: a ping, and the end while a request may wait for long."""
        if received.kind is MessageKind.PING:
            return True
        return self._is_resting and received.kind in (MessageKind.CLOSE, MessageKind.FAULT)

    def drop_reader(self) -> bool:
        """Do without a reader until more comes; return False if there is something in it."""
        if self._reader is not None:
            if not self._reader.is_at_rest:
                return False
            self._reader.close()
            self._reader = None
        return True

    def do_first(self, rest: Rest | None) -> None:
        """Do this before any message is answered."""
        if rest is not None:
            self._begin_inbox(rest)

    def _begin_inbox(self, rest: Rest | None, *waiting: Received) -> None:
        self._inbox = deque(waiting)
        self.spawn(self._work_off(rest, self._inbox))

    async def _work_off(self, rest: Rest | None, inbox: deque[Received]) -> None:
        """Do the rest of a request and answer all that waits, in order, and end."""
        if rest is not None:
            await self._do(rest)
        while inbox:
            await self._context.work_budget.take()
            rest = self.answer(inbox.popleft())
            if rest is not None:
                await self._do(rest)
            if not inbox and self._reader is not None and self._reader.is_held:
                self._reader.release()
        self._inbox = None

    async def _do(self, rest: Rest) -> None:
        self._is_resting = True
        await rest()
        self._is_resting = False

    def forget(self, most: int) -> None:
        """Read and forget at most so many bytes, and hand on nothing more."""
        if self._reader is not None:
            self._reader.stop(most)


def _is_full(inbox: deque[Received]) -> bool:
    return len(inbox) > MOST_WAITING or sum(len(one.text) for one in inbox) > WAITING_BYTES
