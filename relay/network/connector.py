"""Connections of our own: what the other side sends is handed on in slices, and is not without end.

Whoever answers, an exchange, a proxy or somebody in between, may answer with a flood. How much one turn of the event
loop takes of it is bounded in `read_slices`, how much there may be of what is no content is bounded here.

`aiohttp_client_seams` puts a line before each of aiohttp's ends of connections, where this aiohttp lets it.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import Any

import aiohttp

from relay.core.intake import Intake
from relay.core.rate_limits import TokenBucket
from relay.network.read_slices import SLICE_BYTES, Slices, slices_of
from relay.network.websocket_frames import FrameCounter

SMALL_SLICE_BYTES = 4096
"""A slice of what costs more than content: heads of answers, and frames."""
HEAD_BYTES = 128 * 1024
"""So much may come before the answer has begun: interim answers, and its headers, of which servers send a few KB."""
SPARE_BYTES = 256 * 1024
"""Of an answer, content has to be one half at least of what comes beyond this. The other half, at most, are the heads
of chunks and their extensions, trailers and empty blocks of a compressed text."""
ANSWER_BYTES = 32 * 1024 * 1024
"""So much content an answer may have after decompression, however it is read, unless its reader allows more."""
USELESS_RATE, USELESS_BURST = 1000.0, 20_000.0
"""So many frames of a WebSocket may mean nothing, in a second and at once. Each costs about 10 µs of the loop."""
NEWS_UNITS, NEWS_UNIT_BYTES = 10.0, 512.0
"""So many other frames may come with one that means something, and one more for so many bytes of it."""
NEWS_RATE, NEWS_BURST = 20_000.0, 200_000.0
"""What comes more often is no news, whatever it says: the loop can hardly do more. Binance sends a thousand messages a
second for 1024 streams."""
HELD_BYTES = 32 * 1024
"""So much may wait in the kernel until a WebSocket that is held back is read all the same."""
CLOSING_UNITS = 5000.0
"""So many frames are read while the other side is waited for to close a WebSocket."""


_INT = struct.Struct("i")
_NOTHING = bytes(_INT.size)


class TooLarge(aiohttp.ClientError):
    """An answer that goes beyond a bound, which the text names; what is left of it is not read."""


class Line(Slices):
    """The protocol of one connection of ours. `inner` is aiohttp's end, which hears of a bound that was passed.

    After an answer nothing may come before the next request. A WebSocket is a tap of the `intake`, if there is one.
    """

    __slots__ = (
        "__weakref__",
        "_came",
        "_content",
        "_intake",
        "_is_idle",
        "_news",
        "frames",
        "most_bytes",
        "news",
        "news_bytes",
    )
    inner: Any

    def __init__(self, inner: Any, transport: asyncio.Transport, intake: Intake | None = None) -> None:
        super().__init__(inner)
        self._intake = intake or Intake()
        self.transport = transport
        self.frames: FrameCounter | None = None
        self.news = self.news_bytes = 0
        """Messages that meant something, and what they held, since it was last asked for."""
        self._news = TokenBucket(NEWS_RATE, NEWS_BURST)
        self._came = 0
        self.most_bytes = ANSWER_BYTES
        self._content: aiohttp.StreamReader | None = None
        self._is_idle = False
        transport.set_protocol(self)

    def pass_on(self, data: bytes) -> None:
        """Hand on a slice, unless there is too much that is no content."""
        if not self.inner.connected:
            self.forget()
            return
        if self.frames is None:
            self._came += len(data)
            if self._is_idle:
                self._refuse("the server sent data that was not requested")
                return
            if self._content is None and self._came > HEAD_BYTES:
                self._refuse(f"the server sent more than {HEAD_BYTES // 1024} KiB before the answer")
                return
        super().pass_on(data)
        if self._content is not None and self._content.total_bytes > self.most_bytes:
            self._refuse(f"the answer is larger than {self.most_bytes / (1 << 20):g} MiB after decompression")
        elif self._content is not None and self._came > SPARE_BYTES + 2 * self._content.total_bytes:
            self._refuse("more than half of the received data is not content")

    def _refuse(self, why: str) -> None:
        error = TooLarge(why)
        if self._content is not None:
            self._content.set_exception(error)
        self.inner.set_exception(error)
        self.abort()

    def abort(self) -> None:
        """Read nothing more."""
        self.forget()
        if self.transport is not None:
            self.transport.abort()

    # -- from aiohttp and from answers -------------------------------------------------------------

    def begin(self) -> None:
        """Expect an answer."""
        self._came, self._content, self._is_idle, self.most_bytes = 0, None, False, ANSWER_BYTES
        self.slice_bytes = SMALL_SLICE_BYTES

    def answer(self, status: int, content: aiohttp.StreamReader) -> None:
        """Take note of an answer whose head has come."""
        if status != 101:
            self._content = content
            self.slice_bytes = SLICE_BYTES
            content.on_eof(self._rest_idle)

    def _rest_idle(self) -> None:
        self._content, self._is_idle = None, True

    def guard(self, reader: Any) -> FrameCounter:
        """Put a counter before the reader of a WebSocket, and leave it to that to bound what comes."""
        self.frames = FrameCounter(reader, TokenBucket(USELESS_RATE, USELESS_BURST), self.abort, self._earned)
        self._intake.add(self)
        return self.frames

    def hold_back(self, is_held: bool, /) -> None:
        """Have the kernel wake nobody before much has come, or the connection ends; where it cannot, read as always."""
        if (sock := self._socket()) is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, HELD_BYTES if is_held else 1)

    def unread_bytes(self) -> int:
        """Return how much waits in the kernel; 0 where it does not say."""
        count = 0
        if (sock := self._socket()) is not None:
            # A closed one has no descriptor.
            with suppress(OSError, ValueError):
                (count,) = _INT.unpack(fcntl.ioctl(sock.fileno(), termios.FIONREAD, _NOTHING))
        return count

    def _socket(self) -> socket.socket | None:
        # Once TLS has ended a transport may know of none any more.
        if self.transport is None or self.transport.is_closing():
            return None
        found: socket.socket | None = self.transport.get_extra_info("socket")
        return found

    def connection_lost(self, exc: Exception | None) -> None:
        """End; before the socket is closed, since its number may then be another's."""
        self._intake.remove(self)
        super().connection_lost(exc)

    def _earned(self) -> float:
        """Return how many more frames may come, since some meant something."""
        count, size = self.news, self.news_bytes
        self.news = self.news_bytes = 0
        return count * NEWS_UNITS + size / NEWS_UNIT_BYTES if self._news.try_acquire(count) else 0.0

    def part(self) -> None:
        """Read little more of a WebSocket that is being closed."""
        if self.frames is not None:
            self.frames.allowed = TokenBucket(USELESS_RATE, CLOSING_UNITS)


def line_of(transport: asyncio.BaseTransport | None) -> Line | None:
    """Return the line of a connection, None where there is none: it is gone, or others made it."""
    slices = slices_of(transport)
    return slices if isinstance(slices, Line) else None
