"""The mask that each frame of a client has to have (RFC 6455 section 5.1); aiohttp's reader does not look for it."""

from typing import Any

# Nobody can have agreed to these reserved bits: a reader closes with 1002, as it has to without a mask.
_REFUSED = b"\xf0\x80"
_REST = 1 << 63


class MaskGuard:
    """Stands before the reader of one WebSocket and has it refuse the first frame without a mask.

    It only follows where frames begin; what they hold, and whether it is right, is the reader's concern.
    """

    __slots__ = ("_head", "_left", "_reader")

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._head = b""  # of a frame whose length is not known yet
        self._left = 0  # bytes until the next frame begins

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what was read from the socket; return what the reader does: whether it is done for, and what is left."""
        if self._head:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)
        while size - at >= 2:
            length = data[at + 1] - 0x80
            if length < 0:
                data, at = data[:at] + _REFUSED, _REST
                break
            begin = at + (6 if length < 126 else 8 if length == 126 else 14)
            if length >= 126:
                if size < begin - 4:
                    break
                length = int.from_bytes(data[at + 2 : begin - 4], "big")
            at = begin + length
        if at < size:
            data, self._head = data[:at], data[at:]
        self._left = max(0, at - size)
        result: tuple[bool, bytes] = self._reader.feed_data(data)
        return result

    def __getattr__(self, name: str) -> Any:
        """Leave all else that aiohttp wants of its reader, now or in a later version, to the reader."""
        return getattr(self._reader, name)
