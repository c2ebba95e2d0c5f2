"""Closed candles in SQLite, what is known to be complete, and small documents; no provider, no network, no open candle.

One connection, one task that writes. A stream's coverage is a set of spans of open times: every candle in them that
exists is in the table, and where there is none, there is nothing. What waits to be written is seen by every read.
"""

import asyncio
import logging
import sqlite3
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import aiosqlite

from relay.clock import Clock
from relay.errors import StoreError
from relay.events import event
from relay.model import Candle, StreamKey
from relay.storage.chunks import EMPTY, WINDOW, Chunk, encode, window_s
from relay.storage.coverage import Span, cut_spans
from relay.storage.schema import open_database, reason_of
from relay.storage.shelf import Shelf, Shelves
from relay.storage.tables import Tables, WindowRows, put_together
from relay.storage.writes import LATEST_TIME, StreamId, Write, WriteQueue, storable

log = logging.getLogger(__name__)

CACHE_BYTES = 32 << 20

_BATCH_S = 0.25
_RETRY_S = (0.5, 10.0)
_CLOSE_ATTEMPTS = 5
_MOST_WINDOWS = 16
# A window with more rows than this outside of its chunk is worth a new one.
_LOOSE_ROWS = 64
_MOST_UNPACKED = 16_384
# Chunks that are still stored when the store is closed; the others are made when their candles are read.
_PACKED_AT_CLOSE = 64
# More than so many windows are not put together on the event loop.
_FEW_WINDOWS = 2

P = ParamSpec("P")
T = TypeVar("T")


class Document(NamedTuple):
    """A small JSON document and when it was stored, in Unix seconds."""

    body: bytes
    stored_at: float


class StoreSummary(NamedTuple):
    """How much the store holds; `queued` candles are not written yet, `dropped` ones were lost to a failing disk."""

    streams: int
    candles: int
    spans: int
    file_bytes: int
    queued: int
    dropped: int


class Stored(NamedTuple):
    """Encoded candles, in order; `is_remembered` says that the database was not read for them."""

    chunks: Sequence[Chunk]
    is_remembered: bool


class _Loading:
    # A shelf that is being read: what is written meanwhile, and whether it was changed in another way.
    __slots__ = ("done", "is_spoilt", "writes")

    def __init__(self, writes: Iterable[Write]) -> None:
        self.writes = list(writes)
        self.is_spoilt = False
        self.done = asyncio.Event()


class Store:
    """Owns the database file.

    `problem` says what is wrong, without naming the file, or is None. While the disk fails, candles wait in memory (at
    most `max_queued`; then the oldest are dropped and counted) and are written once it works again. Errors of `open`
    name the file, for the operator; those of the other methods do not, for clients. `rejected` counts candles that no
    table takes, such as one with a price that is not a number. Encoded candles used lately are kept in `cache_bytes`.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        clock: Clock,
        *,
        max_queued: int = 200_000,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._connection = connection
        self._tables = Tables(connection)
        self._clock = clock
        self._max_queued = max_queued
        # aiosqlite runs one statement at a time, not one transaction: without the lock reads would see half of one.
        self._lock = asyncio.Lock()
        self._shelves = Shelves(cache_bytes)
        self._loading: dict[StreamId, _Loading] = {}
        self._unpacked: dict[tuple[StreamId, int], None] = {}
        self._cuts: dict[StreamId, int] = {}
        self._queue = WriteQueue()
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_closing = False
        self._problems: dict[str, str] = {}
        self._writer: asyncio.Task[None] | None = None
        self.dropped = 0
        self.rejected = 0

    @classmethod
    async def open(
        cls, path: str | Path, clock: Clock, *, max_queued: int = 200_000, cache_bytes: int = CACHE_BYTES
    ) -> "Store":
        """Open or create the file, bring its schema up to date and start the writer; `:memory:` keeps nothing.

        Raises `StoreError` with one sentence that names the file and says what to do.
        """
        name = str(path)
        failure: list[StoreError] = []

        def connect() -> sqlite3.Connection:
            try:
                return open_database(name)
            except StoreError as error:
                # aiosqlite leaves its thread unawaited when this function raises, so it gets a connection to close.
                failure.append(error)
                return sqlite3.connect(":memory:")

        connection = await aiosqlite.Connection(connect, 64)
        if failure:
            await connection.close()
            raise failure[0]
        store = cls(connection, clock, max_queued=max_queued, cache_bytes=cache_bytes)
        store._writer = asyncio.create_task(store._write_forever(), name="store writer")
        return store

    async def close(self) -> None:
        """Write what waits, as far as the disk allows, and close the file."""
        self._is_closing = True
        self._work.set()
        self._hurry.set()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await asyncio.gather(writer, return_exceptions=True)
        self._answer_waiters(self._queue.number, StoreError("the store is closed"))
        if self._queue.candles:
            about = event("store_unwritten", candles=self._queue.candles)
            log.error(
                "store closed with %d candles unwritten: %s",
                self._queue.candles,
                self.problem or "stopped",
                extra=about,
            )
        with suppress(sqlite3.Error):
            await self._connection.close()

    @property
    def problem(self) -> str | None:
        """What is wrong with the store now, in words without a path, or None."""
        return next(iter(self._problems.values()), None)

    # Reading

    async def read(
        self, provider: str, key: StreamKey, start: int, end: int, limit: int | None = None, newest: bool = False
    ) -> list[Candle]:
        """Return candles with `start` ≤ open time < `end`, oldest first; the first `limit`, or with `newest` the last.

        Raises `StoreError`.
        """
        stream = (provider, key)
        # Taken before the query: a write that ends meanwhile is then seen twice instead of not at all.
        queued = self._queue.candles_of(stream, start, end)
        candles = await self._reading(self._tables.candles, stream, start, end, limit, newest)
        if queued:
            merged = {candle.time: candle for candle in candles} | queued
            candles = [merged[time] for time in sorted(merged)]
        if limit is not None and len(candles) > limit:
            candles = candles[len(candles) - limit :] if newest else candles[:limit]
        return candles

    async def chunks(self, provider: str, key: StreamKey, start: int, end: int, limit: int, newest: bool) -> Stored:
        """Return what `read` does, encoded; nothing is awaited when all of it is in memory.

        Raises `StoreError`.
        """
        stream = (provider, key)
        shelf, is_remembered = await self._shelf(stream)
        if start < end and not shelf.knows(end - 1 if newest else start):
            is_remembered = False
            await self._learn_numbers(stream, shelf)
        while True:
            numbers, is_all = shelf.between(start, end)
            left, found, at, ahead = limit, [], 0, limit // WINDOW + 2
            if newest:
                numbers.reverse()
            while left > 0 and at < len(numbers):
                wanted = numbers[at : at + min(ahead, _MOST_WINDOWS)]
                at += len(wanted)
                chunks = {number: self._shelves.chunk(stream, number) for number in wanted}
                missing = [number for number, chunk in chunks.items() if chunk is None]
                if missing:
                    is_remembered = False
                    chunks |= await self._load_windows(stream, shelf, missing)
                for number in wanted:
                    part = (chunks[number] or EMPTY).within(start, end, left, newest=newest)
                    if part.times:
                        found.append(part)
                        left -= len(part.times)
            if left <= 0 or is_all:
                break
            # The windows that are known were not enough.
            is_remembered = False
            await self._learn_numbers(stream, shelf)
        if newest:
            found.reverse()
        return Stored(found, is_remembered)

    async def _learn_numbers(self, stream: StreamId, shelf: Shelf) -> None:
        shelf.learn(await self._reading(self._tables.numbers, stream))

    async def known(self, provider: str, key: StreamKey, *, near: int | None = None) -> tuple[list[Span], int, bool]:
        """Return what of a stream is known completely, merged, with its `version`, and whether that was in memory.

        `near` is where candles will be asked for next: if the stream has to be read anyway, they are as well.
        Raises `StoreError`.
        """
        stream = (provider, key)
        shelf = self._shelves.get(stream)
        is_remembered = shelf is not None
        if shelf is None:
            shelf, is_remembered = await self._shelf(stream, None if near is None else near // window_s(key.interval))
        return list(shelf.spans), shelf.version, is_remembered

    async def spans(self, provider: str, key: StreamKey, start: int, end: int) -> list[Span]:
        """Return what of the open times from `start` up to `end` is known completely; ascending, cut to the range.

        Raises `StoreError`.
        """
        spans, _, _ = await self.known(provider, key)
        return cut_spans(spans, start, end)

    def version(self, provider: str, key: StreamKey) -> int:
        """Return a number that is another one after every write to the stream; -1 while nobody has read it."""
        shelf = self._shelves.get((provider, key))
        return -1 if shelf is None else shelf.version

    def forget(self, provider: str, key: StreamKey) -> None:
        """Drop what memory holds of a stream, after its rows or spans were changed other than by `add`."""
        self._forget((provider, key))

    async def streams(self) -> list[StreamId]:
        """Return the streams that were ever stored. Raises `StoreError`."""
        return await self._reading(self._tables.streams)

    def cut(self, provider: str, key: StreamKey) -> int:
        """Return before which open time candles were deleted by this process; else 0.

        When it is another one after a read than before it, what coverage said in between no longer holds.
        """
        return self._cuts.get((provider, key), 0)

    async def trim(self, provider: str, key: StreamKey, before: int, most: int) -> int:
        """Delete the oldest candles, about `most` and all older than `before`, and make them unknown; return how many.

        `before` is where a window begins. Raises `StoreError`.
        """
        stream = (provider, key)
        try:
            async with self._lock:
                end, count = await self._tables.trim(stream, before, most)
                if count:
                    self._cuts[stream] = end
                    self._forget(stream)
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"the store cannot be written: {reason_of(error)}") from error
        return count

    async def get_document(self, name: str) -> Document | None:
        """Return the document of this name, or None. Raises `StoreError`."""
        rows = await self._fetch("SELECT body, stored_at FROM documents WHERE name = ?", (name,))
        return next((Document._make(row) for row in rows), None)

    async def streams_summary(self) -> StoreSummary:
        """Return how much is stored, without reading the candles. Raises `StoreError`."""
        rows = await self._fetch(
            "SELECT (SELECT count(*) FROM streams), (SELECT candles FROM totals), (SELECT count(*) FROM spans),"
            " (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)",
            (),
        )
        streams, candles, spans, file_bytes = rows[0]
        return StoreSummary(streams, candles, spans, file_bytes, self._queue.candles, self.dropped)

    async def _reading(self, read: Callable[P, Awaitable[T]], *asked: P.args, **_: P.kwargs) -> T:
        try:
            async with self._lock:
                found = await read(*asked, **_)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            reason = reason_of(error)
            if isinstance(error, sqlite3.Error):
                self._note("read", reason)
            raise StoreError(f"the store cannot be read: {reason}") from error
        self._note("read", None)
        return found

    async def _fetch(self, sql: str, parameters: Sequence[object]) -> list[sqlite3.Row]:
        return list(await self._reading(self._connection.execute_fetchall, sql, parameters))

    async def _shelf(self, stream: StreamId, number: int | None = None) -> tuple[Shelf, bool]:
        """Return the stream's shelf and whether it was there; if not, a window and the one before are read with it."""
        shelf = self._shelves.get(stream)
        if shelf is not None:
            return shelf, True
        while (loading := self._loading.get(stream)) is not None:
            await loading.done.wait()
        if (shelf := self._shelves.get(stream)) is not None:
            return shelf, False
        while True:
            loading = self._loading[stream] = _Loading(self._queue.of(stream))
            try:
                stored = await self._reading(self._tables.shelf, stream, number)
            finally:
                del self._loading[stream]
                loading.done.set()
            if not loading.is_spoilt:
                break
        first, last = (0, -1) if number is None else (number - 1, number)
        shelf = self._shelves.put(stream, stored.spans, sorted(stored.windows), first, last)
        if not loading.writes:
            self._keep(stream, stored.windows, put_together(stored.windows, {}))
        for write in loading.writes:
            self._shelves.note(stream, write.candles, write.span)
        return shelf, False

    async def _load_windows(self, stream: StreamId, shelf: Shelf, numbers: Sequence[int]) -> dict[int, Chunk]:
        version, length = shelf.version, shelf.window_s
        queued = {number: self._queue.candles_of(stream, number * length, (number + 1) * length) for number in numbers}
        found = await self._reading(self._tables.windows, stream, numbers)
        if len(found) <= _FEW_WINDOWS:
            chunks = put_together(found, queued)
        else:
            chunks = await asyncio.to_thread(put_together, found, queued)
        for number in found.keys() - chunks.keys():
            # Its stored chunk is damaged; the rows need not be.
            start, end = number * length, (number + 1) * length
            rows = await self.read(*stream, start, end)
            chunks[number] = encode(rows)
            self._pack_later(stream, number)
        if self._shelves.get(stream) is shelf and shelf.version == version:
            self._keep(stream, found, chunks)
        return chunks

    def _keep(self, stream: StreamId, found: Mapping[int, WindowRows], chunks: Mapping[int, Chunk]) -> None:
        """Keep chunks in memory, and have those stored that had to be made of many rows."""
        for number, chunk in chunks.items():
            self._shelves.keep(stream, number, chunk)
            if len(found[number].rows) > _LOOSE_ROWS:
                self._pack_later(stream, number)

    def _forget(self, stream: StreamId) -> None:
        self._shelves.forget(stream)
        if (loading := self._loading.get(stream)) is not None:
            loading.is_spoilt = True

    # Writing

    async def add(self, provider: str, key: StreamKey, candles: Sequence[Candle], span: Span | None) -> None:
        """Store closed candles and the span that they fill, in one transaction; a kill after the return loses nothing.

        `candles` must hold every candle of `span`. Raises `StoreError` when they cannot be written now: then they
        wait in memory, where reads see them, and are written later. Being cancelled does not undo the write.
        """
        if self._is_closing:
            raise StoreError("the store is closed")
        number = self._enqueue(provider, key, candles, span)
        if "write" in self._problems:
            raise StoreError(f"the store cannot be written: {self._problems['write']}")
        await self._written(number)

    def put_closed(self, provider: str, key: StreamKey, candle: Candle, after: int | None) -> None:
        """Queue a closed candle of the live stream, or its revision; never blocks, written within about 0.25 s.

        `after` is the open time of the closed candle delivered before it when nothing is missing between the two:
        then the time between them counts as known, too.
        """
        if self._is_closing:
            self.dropped += 1
            return
        if storable(candle) is None:
            self.rejected += 1
            return
        start = candle.time if after is None or after >= candle.time else after + 1
        self._enqueue(provider, key, (candle,), Span(start, candle.time + 1))

    async def put_document(self, name: str, body: bytes) -> None:
        """Store a small document in place of the one of the same name. Raises `StoreError`, and then it is not kept."""
        try:
            async with self._lock:
                await self._connection.execute(
                    "INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (name, body, self._clock.wall())
                )
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"the store cannot be written: {reason_of(error)}") from error

    async def flush(self) -> None:
        """Return when everything queued so far is written. Raises `StoreError` when it cannot be."""
        if self._queue:
            await self._written(self._queue.number)

    def _enqueue(self, provider: str, key: StreamKey, candles: Sequence[Candle], span: Span | None) -> int:
        good = tuple(fit for fit in map(storable, candles) if fit is not None)
        self.rejected += len(candles) - len(good)
        if span is not None:
            span = Span(max(span.start, 0), min(span.end, LATEST_TIME))
            if span.end <= span.start:
                span = None
        if not good and span is None:
            return self._queue.number
        write = self._queue.push((provider, key), good, span)
        self._shelves.note(write.stream, good, span)
        if (loading := self._loading.get(write.stream)) is not None:
            loading.writes.append(write)
        while self._queue.candles > self._max_queued and len(self._queue) > 1:
            lost = self._queue.pop()
            self.dropped += len(lost.candles)
            self._forget(lost.stream)
        self._work.set()
        return self._queue.number

    async def _written(self, number: int) -> None:
        if not self._queue or self._queue.oldest.number > number:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((number, waiter))
        self._hurry.set()
        await waiter

    def _answer_waiters(self, number: int, error: StoreError | None = None) -> None:
        while self._waiters and self._waiters[0][0] <= number:
            _, waiter = self._waiters.popleft()
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    async def _write_forever(self) -> None:
        retry_s, attempts, packs_left = _RETRY_S[0], 0, _PACKED_AT_CLOSE
        while True:
            if not self._queue:
                if self._unpacked and packs_left:
                    packs_left -= self._is_closing
                    await self._pack_next()
                    continue
                if self._is_closing:
                    return
                self._work.clear()
                await self._work.wait()
                continue
            if self._is_closing:
                if attempts:
                    await asyncio.sleep(_BATCH_S)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), retry_s if attempts else _BATCH_S)
            self._hurry.clear()
            batch = self._queue.batch()
            try:
                async with self._lock:
                    await self._tables.write(batch)
            except (sqlite3.Error, ValueError) as error:
                attempts += 1
                retry_s = min(retry_s * 2, _RETRY_S[1]) if attempts > 1 else _RETRY_S[0]
                reason = reason_of(error)
                self._note("write", reason)
                self._answer_waiters(self._queue.number, StoreError(f"the store cannot be written: {reason}"))
                if self._is_closing and attempts >= _CLOSE_ATTEMPTS:
                    return
                continue
            attempts = 0
            for write in batch:
                self._pack_pages(write)
            last = batch[-1].number
            while self._queue and self._queue.oldest.number <= last:
                self._queue.pop()
            self._note("write", None)
            self._answer_waiters(last)
            if self._waiters:
                self._hurry.set()

    def _pack_pages(self, write: Write) -> None:
        """Have the windows packed that a page of a provider filled; a live candle is not worth it."""
        if len(write.candles) > _LOOSE_ROWS:
            length = window_s(write.stream[1].interval)
            counts = Counter(candle.time // length for candle in write.candles)
            for number, count in counts.items():
                if count > _LOOSE_ROWS:
                    self._pack_later(write.stream, number)

    def _pack_later(self, stream: StreamId, number: int) -> None:
        # Not to be packed is no loss: the rows are there, and whoever reads them will ask again.
        if len(self._unpacked) < _MOST_UNPACKED:
            self._unpacked[stream, number] = None
            self._work.set()

    async def _pack_next(self) -> None:
        window = next(iter(self._unpacked))
        del self._unpacked[window]
        try:
            async with self._lock:
                await self._tables.pack(*window)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            self._unpacked.clear()
            log.debug("chunks are not stored: %s", reason_of(error), extra=event("chunks_not_stored"))

    def _note(self, doing: str, reason: str | None) -> None:
        before = self.problem
        if reason is None:
            self._problems.pop(doing, None)
        else:
            self._problems[doing] = reason
        if before is None and reason is not None:
            about = event("store_failed", doing=doing, reason=reason, waiting=self._queue.candles)
            log.error("store cannot %s: %s; %d candles wait", doing, reason, self._queue.candles, extra=about)
        elif before is not None and self.problem is None:
            about = event("store_recovered", waiting=self._queue.candles, dropped=self.dropped)
            log.warning(
                "store works again; %d candles wait, %d were dropped", self._queue.candles, self.dropped, extra=about
            )
