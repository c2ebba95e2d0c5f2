"""Brings into memory what the file holds of a stream, while the stream goes on being written."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from relay.core.model import Candle
from relay.core.spans import Span, cut_spans, gaps_between, merge_spans
from relay.core.threads import in_thread
from relay.storage.chunks import PLAIN, CandleForm, Chunk, encode
from relay.storage.database import Database
from relay.storage.stream_index import StreamIndex, StreamIndexes
from relay.storage.window_rows import WindowRows, put_together
from relay.storage.write_queue import StreamId, Write, WriteQueue, put_over
from relay.storage.writer import LOOSE_ROWS, StoreWriter

# More than so many windows are not put together on the event loop.
_FEW_WINDOWS = 2


class _Loading:
    # An index that is being read: what is written meanwhile, and whether it was changed in another way.
    __slots__ = ("done", "is_spoilt", "writes")

    def __init__(self, writes: Iterable[Write]) -> None:
        self.writes = list(writes)
        self.is_spoilt = False
        self.done = asyncio.Event()


def _encoded(
    found: Mapping[int, Sequence[Candle]], queued: Mapping[int, Mapping[int, Candle]], form: CandleForm
) -> dict[int, Chunk]:
    """Encode the rows of windows and what waits to be written."""
    return {number: encode(put_over(rows, queued[number]), form) for number, rows in found.items()}


class Loader:
    """Fills `indexes`. It has to be told of every write that is queued, and of every other change of a stream."""

    def __init__(self, indexes: StreamIndexes, database: Database, queue: WriteQueue, writer: StoreWriter) -> None:
        self._indexes = indexes
        self._database = database
        self._tables = database.tables
        self._queue = queue
        self._writer = writer
        self._loading: dict[StreamId, _Loading] = {}

    async def index(self, stream: StreamId, number: int | None = None) -> StreamIndex:
        """Return the index of a stream that memory has none of; a window and the one before are read with it.

        Raises `StoreError`.
        """
        while (loading := self._loading.get(stream)) is not None:
            await loading.done.wait()
        if (index := self._indexes.get(stream)) is not None:
            return index
        while True:
            loading = self._loading[stream] = _Loading(self._queue.of(stream))
            try:
                stored = await self._database.read(self._tables.index, stream, number)
            finally:
                del self._loading[stream]
                loading.done.set()
            if not loading.is_spoilt:
                break
        first, last = (0, -1) if number is None else (number - 1, number)
        index = self._indexes.put(stream, stored.spans, sorted(stored.windows), first, last)
        if not loading.writes:
            self._keep(stream, stored.windows, put_together(stored.windows, {}))
        for write in loading.writes:
            if write.is_void and write.span is not None:
                index.spans = cut_spans(index.spans, write.span)
            else:
                self._indexes.note(stream, write.candles, write.span)
        return index

    async def windows(
        self, stream: StreamId, index: StreamIndex, numbers: Sequence[int], form: CandleForm = PLAIN
    ) -> dict[int, Chunk]:
        """Return the chunks of windows, read from the file. Raises `StoreError`."""
        version, length = index.version, index.window_s
        if voids := self._queue.voids_of(stream):
            return {number: await self._valid(stream, length, number, voids, form) for number in numbers}
        queued = {number: self._queue.candles_of(stream, number * length, (number + 1) * length) for number in numbers}
        if form is not PLAIN:
            rows = await self._database.read(self._tables.extended_windows, stream, numbers)
            is_few = len(rows) <= _FEW_WINDOWS
            chunks = _encoded(rows, queued, form) if is_few else await in_thread(_encoded, rows, queued, form)
            if self._indexes.get(stream) is index and index.version == version:
                for number, chunk in chunks.items():
                    self._indexes.keep(stream, number, chunk)
            return chunks
        found = await self._database.read(self._tables.windows, stream, numbers)
        if len(found) <= _FEW_WINDOWS:
            chunks = put_together(found, queued)
        else:
            chunks = await in_thread(put_together, found, queued)
        for number in found.keys() - chunks.keys():
            # Its stored chunk is damaged; the rows need not be.
            start, end = number * length, (number + 1) * length
            newer = self._queue.candles_of(stream, start, end)
            read = await self._database.read(self._tables.candles, stream, start, end, None, False)
            chunks[number] = encode(put_over(read, newer))
            self._writer.pack_later(stream, number)
        if self._indexes.get(stream) is index and index.version == version:
            self._keep(stream, found, chunks)
        return chunks

    async def _valid(
        self, stream: StreamId, length: int, number: int, voids: Sequence[Span], form: CandleForm
    ) -> Chunk:
        """Return the chunk of a window while it waits to be written that what is stored of some spans is not valid."""
        start, end = number * length, (number + 1) * length
        queued = self._queue.candles_of(stream, start, end)
        rows: list[Candle] = []
        for part in gaps_between(merge_spans(voids), start, end):
            rows += await self._database.read(self._tables.candles, stream, *part, None, False, form is not PLAIN)
        return encode(put_over(rows, queued), form)

    async def learn_numbers(self, stream: StreamId, index: StreamIndex) -> None:
        """Read which windows of a stream hold candles. Raises `StoreError`."""
        index.learn(await self._database.read(self._tables.numbers, stream))

    def note(self, write: Write) -> None:
        """Let memory know what was queued."""
        if write.is_void:
            self.forget(write.stream)
        else:
            self._indexes.note(write.stream, write.candles, write.span)
        if (loading := self._loading.get(write.stream)) is not None:
            loading.writes.append(write)

    def forget(self, stream: StreamId) -> None:
        """Read the stream anew: what is stored of it changed other than by a write."""
        self._indexes.forget(stream)
        if (loading := self._loading.get(stream)) is not None:
            loading.is_spoilt = True

    def forget_all(self) -> None:
        """Read every stream anew: the file is another one, or another program wrote to it."""
        self._indexes.clear()
        for loading in self._loading.values():
            loading.is_spoilt = True

    def _keep(self, stream: StreamId, found: Mapping[int, WindowRows], chunks: Mapping[int, Chunk]) -> None:
        """Keep chunks in memory, and have those stored that had to be made of many rows."""
        for number, chunk in chunks.items():
            self._indexes.keep(stream, number, chunk)
            if len(found[number].rows) > LOOSE_ROWS:
                self._writer.pack_later(stream, number)
