"""What a client sends on a WebSocket, whoever reads it; and how it is read from bytes, by `websockets`.

That library's protocol without I/O checks masks, reserved bits, lengths, fragments and close frames as RFC 6455 wants,
and compressed frames as RFC 7692 does. It leaves UTF-8 and the joining of fragments to its user.
"""

import codecs
import logging
from enum import Enum, auto
from typing import NamedTuple

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CloseCode as WireCode
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from relay.core.compression import DEFLATE_WINDOW_BITS
from relay.protocol import frames

# It logs what frames hold at the level debug, and with it tokens.
log = logging.getLogger(__name__)
log.setLevel(logging.WARNING)

NO_CODE = int(WireCode.NO_STATUS_RCVD)
"""Stands for the code of a close frame that has none."""


class MessageKind(Enum):
    """What a message is."""

    TEXT = auto()
    BINARY = auto()
    PING = auto()
    PONG = auto()
    CLOSE = auto()
    """The client ends the connection, with `code`."""
    FAULT = auto()
    """Nothing after it can be read: the relay has to close with `code`."""


class Received(NamedTuple):
    """One message of a client, or the end of all; of `text`, `body` and `code` it has what its kind has."""

    kind: MessageKind
    text: str = ""
    body: bytes = b""
    code: int = 0


_TEXT, _PING_FRAME, _PONG_FRAME, _CLOSE_FRAME = Opcode.TEXT, Opcode.PING, Opcode.PONG, Opcode.CLOSE
_MESSAGE, _OPEN = MessageKind.TEXT, State.OPEN
_BINARY = Received(MessageKind.BINARY)
_PONG = Received(MessageKind.PONG)


class _LateDeflate(Extension):
    """permessage-deflate that takes no memory before the first compressed message: few clients send one."""

    name = PerMessageDeflate.name

    def __init__(self) -> None:
        self.made: PerMessageDeflate | None = None

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Return a frame unpacked. Raises `PayloadTooBig` when that is more than `max_size` bytes."""
        if self.made is None:
            if not frame.rsv1:
                return frame
            # Nothing is packed with it: it would keep what it packed before.
            self.made = PerMessageDeflate(False, True, DEFLATE_WINDOW_BITS, DEFLATE_WINDOW_BITS)
        return self.made.decode(frame, max_size=max_size)

    def encode(self, frame: Frame) -> Frame:
        """Return a control frame, the only kind that is made here, as it is."""
        return frame


def _end_of(protocol: Protocol) -> tuple[MessageKind, int]:
    """Return how a connection ends that is not open any more: by a close frame, or a fault in what came."""
    # What it was is told when nothing more can come.
    protocol.receive_eof()
    closed = protocol.close_exc
    # A close frame within a message is one, too.
    if closed.rcvd is not None:
        return MessageKind.CLOSE, closed.rcvd.code
    assert closed.sent is not None
    return MessageKind.FAULT, closed.sent.code


class MessageParser:
    """Makes messages of the bytes of one client, as they come, until it is closed or what came was the end."""

    __slots__ = ("_decoder", "_deflate", "_is_open", "_protocol", "_received", "_text")

    def __init__(self, *, is_compressed: bool, message_bytes: int = frames.MESSAGE_BYTES) -> None:
        self._protocol: Protocol | None = Protocol(Side.SERVER, max_size=message_bytes, logger=log)
        self._deflate = _LateDeflate() if is_compressed else None
        if self._deflate is not None:
            self._protocol.extensions = [self._deflate]
        self._received: list[Received] = []
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = ""
        self._is_open = False

    @property
    def is_at_rest(self) -> bool:
        """Whether between two frames nothing is kept, so that another parser would do as well."""
        return not self._is_open and (self._deflate is None or self._deflate.made is None)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what came; return whether it was the end, and nothing that is left, as readers of aiohttp do."""
        protocol = self._protocol
        if protocol is None:
            return True, b""
        protocol.receive_data(data)
        try:
            for frame in protocol.events_received():
                assert isinstance(frame, Frame)
                self._take(frame)
        except UnicodeDecodeError:
            self._end(MessageKind.FAULT, WireCode.INVALID_DATA)
            return True, b""
        # Its own answers are not sent: each answer has its turn.
        protocol.data_to_send()
        if protocol.state is not _OPEN:
            self._end(*_end_of(protocol))
        return self._protocol is None, b""

    def close(self) -> None:
        """Let go of all that it keeps; what comes is not read any more. Harmless when that was done already."""
        if self._protocol is not None:
            # It and its generator keep each other, and with them what they read, until the garbage collector comes.
            vars(self._protocol).clear()
            self._protocol = self._deflate = self._decoder = None
            self._text = ""

    def _end(self, kind: MessageKind, code: int) -> None:
        self._received.append(Received(kind, code=int(code)))
        self.close()

    def _take(self, frame: Frame) -> None:
        """Make a message of a frame, or keep what is the beginning of one. Raises `UnicodeDecodeError`."""
        opcode = frame.opcode
        if opcode is _TEXT and frame.fin:
            self._received.append(Received(_MESSAGE, str(frame.data, "utf-8")))
        elif opcode is _PONG_FRAME:
            self._received.append(_PONG)
        elif opcode is _PING_FRAME:
            self._received.append(Received(MessageKind.PING, body=bytes(frame.data)))
        elif opcode is not _CLOSE_FRAME:
            if opcode is _TEXT:
                self._decoder = codecs.getincrementaldecoder("utf-8")()
            self._is_open = not frame.fin
            if self._decoder is not None:
                self._text += self._decoder.decode(bytes(frame.data), frame.fin)
            if frame.fin:
                whole = _BINARY if self._decoder is None else Received(_MESSAGE, self._text)
                self._received.append(whole)
                self._decoder, self._text = None, ""

    def drain(self) -> list[Received]:
        """Return what is complete since the last time."""
        received, self._received = self._received, []
        return received
