"""What memory holds of the stored streams: what is known of each, and the newest used of their chunks; no I/O."""

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from relay.core.bytes_cache import BytesCache
from relay.core.model import Candle
from relay.core.spans import FOREVER, Span, merge_spans
from relay.storage.chunks import PLAIN, CandleForm, Chunk, encode, joined, window_s
from relay.storage.limits import STORE_LIMITS
from relay.storage.write_queue import StreamId

_ONLY_PLAIN = (PLAIN,)


class StreamIndex:
    """What is known of one stream: complete spans, merged, and which windows hold candles.

    The windows are known from number `first` to `last`, of which those in `numbers`, ascending, hold candles; others
    that do may be in it as well. `version` is another one after every write to the stream.
    """

    __slots__ = ("first", "last", "numbers", "spans", "version", "window_s")

    def __init__(
        self, interval: str, spans: Iterable[Span], numbers: Iterable[int], version: int, first: int, last: int
    ) -> None:
        self.spans = merge_spans(spans)
        self.numbers = list(numbers)
        self.version = version
        self.window_s = window_s(interval)
        self.first = first
        self.last = last

    def knows(self, time: int) -> bool:
        """Say whether the window that a time is in is known."""
        return self.first <= time // self.window_s <= self.last

    def between(self, start: int, end: int) -> tuple[list[int], bool]:
        """Return the numbers of the windows with candles that `start` up to `end` touches, and whether that is all."""
        first, last = start // self.window_s, (end - 1) // self.window_s
        is_all = self.first <= first and last <= self.last
        if not is_all:
            first, last = max(first, self.first), min(last, self.last)
        return self.numbers[bisect_left(self.numbers, first) : bisect_right(self.numbers, last)], is_all

    def learn(self, numbers: Iterable[int]) -> None:
        """Take the numbers of all windows that hold candles, beside those noted meanwhile."""
        self.numbers = sorted({*self.numbers, *numbers})
        self.first, self.last = 0, FOREVER


class _Window:
    # The chunk of one window, and the candles that closed since it was made.
    __slots__ = ("chunk", "newer")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.newer: list[Candle] = []

    @property
    def last_time(self) -> int:
        times = self.chunk.times
        return self.newer[-1].time if self.newer else times[-1] if times else -1


class StreamIndexes:
    """What is known of the `most_streams` used last, and chunks of at most `most_bytes` together.

    A stream's writes are noted here whether its index is there or not.
    """

    def __init__(self, most_bytes: int, most_streams: int = STORE_LIMITS.most_streams) -> None:
        self._most_streams = most_streams
        self._indexes: OrderedDict[StreamId, StreamIndex] = OrderedDict()
        # Beside plain ones, the forms that somebody wanted of an interval so far.
        self._forms: dict[str, list[CandleForm]] = {}
        self._windows: BytesCache[tuple[StreamId, int, CandleForm], _Window] = BytesCache(most_bytes)
        self._writes = 0

    def get(self, stream: StreamId) -> StreamIndex | None:
        """Return a stream's index, if it is there."""
        index = self._indexes.get(stream)
        if index is not None:
            self._indexes.move_to_end(stream)
        return index

    def put(
        self, stream: StreamId, spans: Iterable[Span], numbers: Iterable[int], first: int, last: int
    ) -> StreamIndex:
        """Keep what was read about a stream; `note` has to be called for what was written since."""
        self._writes += 1
        index = self._indexes[stream] = StreamIndex(stream[1].interval, spans, numbers, self._writes, first, last)
        if len(self._indexes) > self._most_streams:
            self.forget(next(iter(self._indexes)))
        return index

    def forget(self, stream: StreamId) -> None:
        """Read the stream anew the next time: what is stored changed in another way than by `note`."""
        index = self._indexes.pop(stream, None)
        if index is not None:
            for number in index.numbers:
                for form in self._forms_of(stream):
                    self._windows.drop((stream, number, form))

    def clear(self) -> None:
        """Read every stream anew the next time."""
        self._indexes.clear()
        self._windows.clear()

    def note(self, stream: StreamId, candles: Sequence[Candle], span: Span | None) -> None:
        """Take candles and a span that are being written; costs little for one candle of a live stream."""
        index = self._indexes.get(stream)
        if index is None:
            return
        self._writes += 1
        index.version = self._writes
        if span is not None and span not in index.spans:
            last = index.spans[-1] if index.spans else None
            if last is not None and last.start <= span.start <= last.end <= span.end:
                index.spans[-1] = Span(last.start, span.end)
            else:
                index.spans = merge_spans([*index.spans, span])
        forms = self._forms_of(stream)
        for candle in candles:
            number = candle.time // index.window_s
            if not index.numbers or index.numbers[-1] < number:
                index.numbers.append(number)
            elif index.numbers[bisect_left(index.numbers, number)] != number:
                insort(index.numbers, number)
            for form in forms:
                place = (stream, number, form)
                window = self._windows.peek(place)
                if window is None:
                    continue
                if candle.time > window.last_time:
                    window.newer.append(candle)
                else:
                    self._windows.drop(place)

    def _forms_of(self, stream: StreamId) -> Sequence[CandleForm]:
        return self._forms.get(stream[1].interval, _ONLY_PLAIN)

    def chunk(self, stream: StreamId, number: int, form: CandleForm = PLAIN) -> Chunk | None:
        """Return the chunk of a window, with everything noted, if it is in memory."""
        window = self._windows.get((stream, number, form))
        if window is None:
            return None
        if window.newer:
            newer, window.newer = window.newer, []
            chunk = joined((window.chunk, encode(newer, form)))
            self.keep(stream, number, chunk)
            return chunk
        return window.chunk

    def keep(self, stream: StreamId, number: int, chunk: Chunk) -> None:
        """Keep the chunk of a window, which has to hold everything noted so far."""
        if chunk.form not in self._forms_of(stream):
            self._forms[stream[1].interval] = [*self._forms_of(stream), chunk.form]
        self._windows.put((stream, number, chunk.form), _Window(chunk), len(chunk.text) + 8 * len(chunk.times))
