"""Answers that are larger than a message of the bus: how they are parted, and put together and checked again; pure."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from relay.cluster.wire.wire_values import MOST_BYTES, need

PART = b"P"
"""How a part begins; no answer that fits one message begins like this."""
MOST_PARTS = 4_096
_HEAD = struct.Struct(">sHHII")
"""The mark, the number of this part, how many there are, and the length and the checksum of the whole."""

T = TypeVar("T")


def parted_answer(body: bytes, most: int) -> list[bytes]:
    """Return an answer as messages of at most `most` bytes: as it is if it fits one, else in parts.

    Raises `ValueError` if it would be more parts than are taken.
    """
    if len(body) <= most and not body.startswith(PART):
        return [body]
    size = most - _HEAD.size
    count = -(-len(body) // size) if size > 0 else MOST_PARTS + 1
    if count > MOST_PARTS or len(body) > MOST_BYTES:
        raise ValueError(f"an answer of {len(body)} bytes is too large for messages of {most}")
    sum_ = zlib.crc32(body)
    return [
        _HEAD.pack(PART, number, count, len(body), sum_) + body[number * size : (number + 1) * size]
        for number in range(count)
    ]


class PartedAnswer:
    """Takes the messages of one answer in the order in which they come; `body` is None until all of it is there."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self._found: list[bytes] = []
        self._of: tuple[int, int, int] | None = None

    def take(self, message: bytes) -> None:
        """Take the next message. Raises `Malformed` for one that is not it: another is missing, or it is no part."""
        if not message.startswith(PART):
            need(self._of is None)
            self.body = message
            return
        need(len(message) > _HEAD.size)
        _, number, count, length, sum_ = _HEAD.unpack_from(message)
        if self._of is None:
            need(0 < count <= MOST_PARTS and 0 < length <= MOST_BYTES)
            self._of = count, length, sum_
        need(number == len(self._found) and self._of == (count, length, sum_))
        self._found.append(message[_HEAD.size :])
        if len(self._found) == count:
            body = b"".join(self._found)
            need(len(body) == length and zlib.crc32(body) == sum_)
            self.body = body


def bodies_within(items: Sequence[T], write: Callable[[Sequence[T]], bytes], most: int) -> Iterator[bytes]:
    """Yield messages that together say all items, each of at most `most` bytes; one item goes alone, however large."""
    body = write(items)
    if len(body) <= most or len(items) <= 1:
        yield body
        return
    half = len(items) // 2
    yield from bodies_within(items[:half], write, most)
    yield from bodies_within(items[half:], write, most)
