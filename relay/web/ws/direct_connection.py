"""A client whose session is itself the protocol of the connection: nothing of aiohttp is left after the handshake."""

import asyncio
from collections.abc import Sequence

from relay.core.rate_limits import TokenBucket
from relay.streams.group_write import descriptor_of
from relay.web.access.access import Caller, frames_limit
from relay.web.ws.connection import Connections
from relay.web.ws.context import ConnectionContext
from relay.web.ws.frame_reader import FrameReader, MessageProtocol
from relay.web.ws.inbox_connection import InboxConnection
from relay.web.ws.messages import Received
from relay.web.ws.protocol_connection import ProtocolConnection
from relay.web.ws.socket import Socket


class DirectConnection(InboxConnection, ProtocolConnection, MessageProtocol):
    """Takes a connection over from aiohttp."""

    __slots__ = ("_frames", "_may_compress", "_reader")

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
        super().take(received)
        if self._reader is not None and self.is_full:
            self._reader.hold()

    def emptied(self) -> None:
        """Read on."""
        if self._reader is not None and self._reader.is_held:
            self._reader.release()

    def drop_reader(self) -> bool:
        """Do without a reader until more comes; return False if there is something in it."""
        if self._reader is not None:
            if not self._reader.is_at_rest:
                return False
            self._reader.close()
            self._reader = None
        return True

    def forget(self, most: int) -> None:
        """Read and forget at most so many bytes, and hand on nothing more."""
        if self._reader is not None:
            self._reader.stop(most)
