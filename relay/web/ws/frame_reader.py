"""Between the socket of a WebSocket and its session: bytes come in slices, frames are counted, messages go on.

A client has a reader while there is something in it, and a little longer: of thousands who are silent few have one.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice

from relay.core.errors import CloseCode
from relay.core.rate_limits import TokenBucket
from relay.network.read_slices import Slices
from relay.network.websocket_frames import FrameCounter
from relay.protocol.frames import MESSAGE_BYTES
from relay.web.ws.messages import MessageKind, MessageParser, Received

MOST_RECENT = 64
"""So many clients keep a reader that is at rest, about 3 KB each."""
COMPRESSED_SLICE_BYTES, LEAST_SLICE_BYTES = 2048, 512
"""So much at once of a client that may compress: 20 bytes can be a message of 4 KiB, 80 one of 64 KiB."""


class MessageProtocol(ABC, asyncio.Protocol):
    """The protocol of one client's connection, which is handed messages."""

    __slots__ = ()

    @abstractmethod
    def take(self, received: Sequence[Received]) -> None:
        """Take messages, in the order in which they came."""

    @abstractmethod
    def drop_reader(self) -> bool:
        """Do without a reader until more comes; return False if there is something in it."""


def _none_to_tell() -> None:
    pass


class FrameReader(Slices):
    """Reads the frames of one client. `allowed` loses some for each of them; a flood is a fault, and so its end.

    A message has at most `message_bytes`. After a fault or a close frame nothing is read, until it is to `stop` reading
    and forget.
    """

    __slots__ = ("_counter", "_parser")
    inner: MessageProtocol

    def __init__(
        self,
        inner: MessageProtocol,
        transport: asyncio.Transport,
        allowed: TokenBucket,
        *,
        is_compressed: bool,
        message_bytes: int = MESSAGE_BYTES,
    ) -> None:
        super().__init__(inner)
        self.transport = transport
        if is_compressed:
            self.slice_bytes = COMPRESSED_SLICE_BYTES if message_bytes <= MESSAGE_BYTES else LEAST_SLICE_BYTES
        self._parser = MessageParser(is_compressed=is_compressed, message_bytes=message_bytes)
        self._counter = FrameCounter(self._parser, allowed, _none_to_tell)

    @property
    def is_at_rest(self) -> bool:
        """Whether it keeps nothing, so that it may be dropped and another be made for what comes next."""
        return (
            not self._has_more()
            and not self._is_stopped
            and self._counter.is_between_frames
            and self._parser.is_at_rest
        )

    def close(self) -> None:
        """Let go of everything: nothing more is handed on, to nobody."""
        self.transport = None
        self.forget()
        self._parser.close()

    def pass_on(self, data: bytes) -> None:
        """Hand on the messages that are complete with this slice."""
        self._counter.feed_data(data)
        received = self._parser.drain()
        if self._counter.is_flooded:
            received = [Received(MessageKind.FAULT, code=int(CloseCode.RATE_LIMITED))]
        if received:
            if received[-1].kind in (MessageKind.FAULT, MessageKind.CLOSE):
                # What follows is not read before it is clear what is to become of it.
                self.stop()
            self.inner.take(received)


class RecentReaders:
    """Has all but those whose readers were made last do without one: to make it takes longer than to use it."""

    def __init__(self, most: int = MOST_RECENT) -> None:
        self._most = most
        self._have: dict[MessageProtocol, None] = {}

    def made(self, protocol: MessageProtocol) -> None:
        """Note that one more has a reader; those who have had theirs for longest drop it, or are asked later."""
        self._have[protocol] = None
        # Two at most: thousands may have readers with something in it.
        for first in [*islice(self._have, min(2, max(0, len(self._have) - self._most)))]:
            del self._have[first]
            if not first.drop_reader():
                self._have[first] = None

    def forget(self, protocol: MessageProtocol) -> None:
        """Note that one is gone. Harmless when it had none."""
        self._have.pop(protocol, None)
