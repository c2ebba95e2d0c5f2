"""A memory of what is costly to make, bounded in bytes; what was not used longest is forgotten first."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

OVERHEAD = 400
"""Bytes that an entry costs beside its value, roughly: keys, objects, places in tables."""


class BytesCache(Generic[K, V]):
    """Holds values of at most `most` bytes together, as their owner counts them; 0 holds nothing."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value, which counts as a use, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def peek(self, key: K) -> V | None:
        """Return the value without counting it as a use, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value of so many bytes in place of the one of the same key; one that is too large is not kept."""
        self.drop(key)
        size += OVERHEAD
        if size > self.most:
            return
        self._entries[key] = (value, size)
        self.used += size
        while self.used > self.most:
            _, (_, freed) = self._entries.popitem(last=False)
            self.used -= freed

    def clear(self) -> None:
        """Forget all values."""
        self._entries.clear()
        self.used = 0

    def drop(self, key: K) -> None:
        """Forget a value, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used -= entry[1]
