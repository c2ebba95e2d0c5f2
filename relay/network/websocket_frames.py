"""The frames of a WebSocket, before aiohttp's reader sees them: each is counted, whatever it holds.

All frames pass here and nowhere else: the reader hands on whole messages only, so that empty continuations would be
seen by nobody.
"""

from collections.abc import Callable
from typing import Any

from relay.core.rate_limits import TokenBucket

UNIT_BYTES = 4096
"""So many bytes count as much as a frame."""
SMALL_BYTES, SMALL_UNITS = 1024, 2
"""A read of less that begins no frame counts as two: whoever sends byte by byte costs most."""
LONGEST_BYTES = 1 << 20

# Nobody can have agreed to these reserved bits, and a server asks for a mask: a reader closes with 1002 at once.
_REFUSED = b"\xf0\x00"
_REST = 1 << 63
_OPCODE, _RESERVED = 0x0F, 0x70


class FrameCounter:
    """Stands before the reader of one WebSocket and has it refuse what is too much.

    It follows where frames begin; what they hold, and whether it is right, is the reader's concern. But it refuses
    reserved bits in a continuation, since not every reader does: RFC 7692 section 6.1 has RSV1 in the first frame only.
    `allowed` loses one for each frame and for every `UNIT_BYTES`, and for small reads that begin no frame. When it is
    used up, and `earn` gives no more, it `is_flooded`, and `stop` is called: there is nothing more to read.
    """

    __slots__ = ("_earn", "_head", "_left", "_reader", "_stop", "allowed", "is_flooded")

    def __init__(
        self, reader: Any, allowed: TokenBucket, stop: Callable[[], None], earn: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._earn = earn
        self.allowed = allowed
        self.is_flooded = False
        self._reader = reader
        self._stop = stop
        self._head = b""  # of a frame whose length is not known yet
        self._left = 0  # bytes until the next frame begins

    @property
    def is_between_frames(self) -> bool:
        """Whether all that came are whole frames."""
        return not self._left and not self._head

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what was read from the socket; return what the reader does: whether it is done for, and what is left."""
        came = len(data)
        if self._head:
            data, self._head = self._head + data, b""
        before = self._left  # belongs to a frame that the reader is in the middle of
        at, size = before, len(data)
        frames = 0
        while size - at >= 2:
            if not data[at] & _OPCODE and data[at] & _RESERVED:
                data = data[:at] + _REFUSED
                at, size = _REST, 0
                break
            length = data[at + 1] & 0x7F
            mask = 4 if data[at + 1] & 0x80 else 0
            begin = at + 2
            if length >= 126:
                begin += 2 if length == 126 else 8
                if size < begin:
                    break
                length = int.from_bytes(data[at + 2 : begin], "big")
            at = begin + mask + length
            frames += 1
        if at < size:
            data, self._head = data[:at], data[at:]
        self._left = max(0, at - size)
        units = frames + came / UNIT_BYTES
        if not frames and came < SMALL_BYTES:
            units += SMALL_UNITS
        if self.is_flooded or not (self.allowed.try_acquire(units) or self._take_earned(units)):
            # The reader finds no fault in the middle of a frame; one that is too long it refused before.
            data = b"\0" * before + _REFUSED if before < LONGEST_BYTES else b""
            self.is_flooded, self._left, self._head = True, _REST, b""
            self._stop()
        result: tuple[bool, bytes] = self._reader.feed_data(data)
        return result

    def _take_earned(self, units: float) -> bool:
        self.allowed.give(self._earn())
        return self.allowed.try_acquire(units)

    def __getattr__(self, name: str) -> Any:
        """Leave all else that aiohttp wants of its reader, now or in a later version, to the reader."""
        return getattr(self._reader, name)
