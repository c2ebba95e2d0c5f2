"""Keeps what facades need of instruments in little memory: JSON texts, compressed many together."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson

MOST_EACH = 16 * 1024
"""Bytes of JSON that the extras of one instrument may have. Those of a pair of Binance have 1.6 KB to 2 KB."""
MOST_TOGETHER = 64 * 1024 * 1024
"""Bytes of JSON that the extras of one list may have."""
_BLOCK_BYTES = 96 * 1024
"""So much is compressed together: neighbours are much alike. To read one of them takes 0.15 ms."""
_LEVEL = 6


class ExtrasTooLarge(ValueError):
    """The extras of a list have more bytes than are kept; the message says how many."""


class PackedExtras(Mapping[str, Any]):
    """The extras of one instrument. What is read is made anew each time: keep it if you need it often.

    Two are equal if their JSON texts are.
    """

    __slots__ = ("_block", "_digest", "_place")

    def __init__(self, block: bytes, place: int, digest: int) -> None:
        self._block = block
        self._place = place
        self._digest = digest

    @property
    def json(self) -> bytes:
        """The JSON text of all."""
        return next(each_json((self,)))

    def __getitem__(self, name: str) -> Any:
        return orjson.loads(self.json)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(orjson.loads(self.json))

    def __len__(self) -> int:
        return len(orjson.loads(self.json))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedExtras):
            return self._digest == other._digest
        return bool(orjson.loads(self.json) == other)

    def __hash__(self) -> int:
        return self._digest

    def __repr__(self) -> str:
        return f"<extras: {self.json.decode():.200}>"


def each_json(packed: Iterable[PackedExtras]) -> Iterator[bytes]:
    """Yield the JSON texts of several: in the order in which they were packed, much faster than one by one."""
    block, texts = b"", list[bytes]()
    for one in packed:
        if one._block is not block:
            block = one._block
            texts = zlib.decompress(block).split(b"\n")
        yield texts[one._place]


def pack(extras: Iterable[Mapping[str, Any] | None]) -> list[PackedExtras]:
    """Return extras as they are kept, in order. Raises `ExtrasTooLarge`, and `TypeError` for what is not JSON."""
    found: list[PackedExtras] = []
    waiting: list[bytes] = []
    size = total = 0
    for one in extras:
        # A text of orjson has no line ends.
        waiting.append(orjson.dumps(one))
        size += len(waiting[-1])
        total += len(waiting[-1])
        if total > MOST_TOGETHER:
            raise ExtrasTooLarge(f"the extras of the list have more than {MOST_TOGETHER:,} bytes as JSON")
        if size >= _BLOCK_BYTES:
            found += _packed(waiting)
            waiting, size = [], 0
    return found + _packed(waiting)


def _packed(texts: Sequence[bytes]) -> list[PackedExtras]:
    block = zlib.compress(b"\n".join(texts), _LEVEL)
    return [
        PackedExtras(block, place, int.from_bytes(blake2b(text, digest_size=7).digest()))
        for place, text in enumerate(texts)
    ]
