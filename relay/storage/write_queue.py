"""What waits to be written to the store, in order; no I/O."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from relay.core.model import Candle, StreamKey, newer_of
from relay.core.spans import Span

T = TypeVar("T")

StreamId = tuple[str, StreamKey]
"""A stream with the name of its provider."""

_BATCH_CANDLES = 10_000
_MOST_VOIDS = 8


class Write(NamedTuple):
    """Candles, and the span that they fill; numbered in the order of writing.

    It claims coverage only for its own rows, so that losing any one write never leaves a false claim. With a `revision`
    its candles were told as closed before, with other values or not at all; `is_of_extras`: with other extras only.
    With `is_void` nothing that was stored or queued before of its span is valid.
    """

    number: int
    stream: StreamId
    candles: tuple[Candle, ...]
    span: Span | None
    revision: int | None = None
    is_of_extras: bool = False
    is_void: bool = False


class WriteQueue:
    """Writes, oldest first, and those of each stream, with `most` candles at most.

    `candles` counts those that wait, `dropped` those that were given up; `number` is that of the newest write.
    """

    def __init__(self, most: int) -> None:
        self._writes: deque[Write] = deque()
        self._of_stream: dict[StreamId, deque[Write]] = {}
        self._most = most
        self._voids = 0
        self.candles = 0
        self.number = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._writes)

    @property
    def oldest(self) -> Write:
        """The write that is next; there has to be one."""
        return self._writes[0]

    def push(
        self,
        stream: StreamId,
        candles: tuple[Candle, ...],
        span: Span | None,
        revision: int | None = None,
        *,
        is_of_extras: bool = False,
    ) -> Write:
        """Put a write at the end."""
        self.number += 1
        write = Write(self.number, stream, candles, span, revision, is_of_extras)
        self._writes.append(write)
        self._of_stream.setdefault(stream, deque()).append(write)
        self.candles += len(candles)
        return write

    def push_void(self, stream: StreamId, span: Span, revision: int) -> Write:
        """Put at the end that nothing before is valid in a span.

        Where much of that kind waits for a stream it becomes one, of all that lies between: what was valid is unknown
        then, and wrong is nothing.
        """
        waiting = [write for write in self.of(stream) if write.is_void]
        spans = [write.span for write in waiting if write.span is not None]
        covered = [one for one in spans if span.start <= one.start and one.end <= span.end]
        if len(spans) - len(covered) >= _MOST_VOIDS:
            covered = spans
            span = Span(min(span.start, *(one.start for one in spans)), max(span.end, *(one.end for one in spans)))
        for write in waiting:
            if write.span in covered:
                self._take_out(write)
        self.number += 1
        write = Write(self.number, stream, (), span, revision, is_void=True)
        self._writes.append(write)
        self._of_stream.setdefault(stream, deque()).append(write)
        self._voids += 1
        return write

    def pop(self) -> Write:
        """Take the oldest write out."""
        write = self._writes.popleft()
        self._forget(write)
        return write

    def _take_out(self, write: Write) -> None:
        self._writes.remove(write)
        self._forget(write)

    def _forget(self, write: Write) -> None:
        self.candles -= len(write.candles)
        self._voids -= write.is_void
        writes = self._of_stream[write.stream]
        writes.remove(write)
        if not writes:
            del self._of_stream[write.stream]

    def drop_excess(self) -> list[Write]:
        """Give up the oldest writes while too many candles wait, but not the newest one; return them.

        That something is not valid is never given up.
        """
        lost: list[Write] = []
        while self.candles > self._most and len(self._writes) > 1 + self._voids:
            write = next(write for write in self._writes if not write.is_void)
            self._take_out(write)
            lost.append(write)
            self.dropped += len(write.candles)
        return lost

    def batch(self) -> list[Write]:
        """Return the oldest writes, as many as are written together, all void or none; they stay in the queue."""
        batch: list[Write] = []
        candles = 0
        for write in self._writes:
            if batch and (candles + len(write.candles) > _BATCH_CANDLES or write.is_void is not batch[0].is_void):
                break
            batch.append(write)
            candles += len(write.candles)
        return batch

    def of(self, stream: StreamId) -> Sequence[Write]:
        """Return the writes of one stream, oldest first."""
        return self._of_stream.get(stream, ())

    def candles_of(self, stream: StreamId, start: int, end: int) -> dict[int, Candle]:
        """Return the newest of each candle that waits, from `start` up to, not including, `end`."""
        found: dict[int, Candle] = {}
        for write in self._of_stream.get(stream, ()):
            if write.is_void and write.span is not None:
                found = without(found, (write.span,))
            for candle in write.candles:
                if start <= candle.time < end:
                    found[candle.time] = newer_of(found.get(candle.time), candle)
        return found

    def voids_of(self, stream: StreamId) -> list[Span]:
        """Return in which spans nothing that is written already is valid any more."""
        if not self._voids:
            return []
        return [write.span for write in self.of(stream) if write.is_void and write.span is not None]


def without(candles: Mapping[int, T], voids: Sequence[Span]) -> dict[int, T]:
    """Return what stands at open times that lie in none of some spans."""
    return {
        time: candle for time, candle in candles.items() if not any(span.start <= time < span.end for span in voids)
    }


def put_over(known: Iterable[Candle], newer: Mapping[int, Candle]) -> list[Candle]:
    """Return candles in order, those that are `newer` in the place of the known ones of their open times."""
    merged = {candle.time: candle for candle in known}
    for time, candle in newer.items():
        merged[time] = newer_of(merged.get(time), candle)
    return [merged[time] for time in sorted(merged)]
