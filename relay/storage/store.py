"""Closed candles in SQLite, and what is known to be complete; no provider, no network, no open candle.

Reads come from memory, else from the file; writes go through a queue, which one task empties. A stream's coverage is a
set of spans of open times: every candle in them that exists is in the table, and where there is none, there is nothing.
What waits to be written is seen by every read.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import Candle, StreamKey, newer_of
from relay.core.spans import Span, gaps_between, merge_spans, within
from relay.storage.chunks import EMPTY, PLAIN, WINDOW, CandleForm, Chunk, window_s
from relay.storage.database import Database, FileChecks
from relay.storage.documents import Documents
from relay.storage.health import Problems
from relay.storage.limits import STORE_LIMITS, StoreLimits
from relay.storage.loader import Loader
from relay.storage.past_seen import PastSeen
from relay.storage.removals import Removals
from relay.storage.revisions import FORGOTTEN, RevisionNumbers, Revisions
from relay.storage.storable import storable, storable_parts
from relay.storage.store_id import next_store_id, read_store_id
from relay.storage.stream_index import StreamIndexes
from relay.storage.write_queue import StreamId, WriteQueue, put_over, without
from relay.storage.writer import StoreWriter

CACHE_BYTES = 32 << 20
SPAN_SLACK_S = 60
"""So far beyond the present a span may reach without being held for wrong."""

_MOST_WINDOWS = 16
_MOST_VOIDED = 256
# SQLite's word for no limit.
_ALL = -1
_NOBODY_SAYS: Mapping[str, Callable[[], float | None]] = MappingProxyType({})


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


class Store:
    """Owns the database file. `documents` are kept in the same one.

    While the disk fails, candles wait in memory (at most `limits.max_queued`; then the oldest are dropped and counted)
    and are written once it works again. Errors of `open` name the file, for the operator; those of the other methods do
    not, for clients. `rejected` counts candles that no table takes, such as one with a price that is not a number.
    Encoded candles used lately are kept in `cache_bytes`, if it `keeps_chunks`. `latest` gives by provider the latest
    time that it may be there, None if nobody can say: what a stream is said to hold beyond it is taken out when the
    stream is read. `numbers` are those of revisions, and `removals` take away what is stored.
    """

    def __init__(
        self,
        database: Database,
        queue: WriteQueue,
        clock: Clock,
        cache_bytes: int,
        latest: Mapping[str, Callable[[], float | None]] = _NOBODY_SAYS,
        limits: StoreLimits = STORE_LIMITS,
    ) -> None:
        self._latest = latest
        self._database = database
        self._tables = database.tables
        self._queue = queue
        self._writer = StoreWriter(database, queue, limits)
        self._indexes = StreamIndexes(cache_bytes, limits.most_streams)
        self._loader = Loader(self._indexes, database, queue, self._writer)
        self.numbers = RevisionNumbers()
        self.removals = Removals(database, queue, self._writer, self._loader, self.numbers)
        self.documents = Documents(database, clock)
        self.rejected = 0
        self.keeps_chunks = cache_bytes > 0
        self._id = ""
        database.on_change = self.removals.begin_again
        database.on_stall = self._writer.give_up_waiting

    @classmethod
    async def open(
        cls,
        path: str | Path,
        clock: Clock,
        *,
        cache_bytes: int = CACHE_BYTES,
        latest: Mapping[str, Callable[[], float | None]] = _NOBODY_SAYS,
        pace: FileChecks | None = None,
        limits: StoreLimits = STORE_LIMITS,
    ) -> "Store":
        """Open or create the file, bring its schema up to date and start the writer; `:memory:` keeps nothing.

        Raises `StoreError` with one sentence that names the file and says what to do.
        """
        queue = WriteQueue(limits.max_queued)
        database = await Database.open(path, Problems(queue), pace)
        store = cls(database, queue, clock, cache_bytes, latest, limits)
        await store._begin_revisions(clock.wall())
        store._id = await read_store_id(store.documents, database.file_number)
        store._database.watch()
        store._writer.start()
        return store

    async def _begin_revisions(self, now_s: float) -> None:
        try:
            self.numbers.newest = await self._database.read(self._tables.first_revision, now_s)
        except StoreError:
            self.numbers.newest = self.numbers.lost = int(now_s * 1e6)

    async def close(self) -> None:
        """Write what waits, as far as the disk allows, and close the file."""
        await self._writer.close()
        await self._database.close()

    @property
    def id(self) -> str:
        """What names this store: numbers of revisions are those of the store that gave them."""
        return next_store_id(self._id, self.replacements)

    @property
    def problem(self) -> str | None:
        """What is wrong with the store now, in words without a path, or None."""
        return self._database.problems.first

    @property
    def replacements(self) -> int:
        """How often the store went on with another file since it was opened."""
        return self._database.replacements

    def on_new_file(self, call: Callable[[], Awaitable[None]]) -> None:
        """Have `call` awaited whenever the store has gone on with another file, which may hold anything or nothing."""
        self._database.on_new_file = call

    # Reading

    async def read(
        self,
        provider: str,
        key: StreamKey,
        start: int,
        end: int,
        limit: int | None = None,
        newest: bool = False,
        *,
        extended: bool = False,
    ) -> list[Candle]:
        """Return candles with `start` ≤ open time < `end`, oldest first; the first `limit`, or with `newest` the last.

        With `extended` they carry what is known beside prices and volume; it takes longer. Raises `StoreError`.
        """
        stream = (provider, key)
        # Taken before the query: a write that ends meanwhile is then seen twice instead of not at all.
        queued = self._queue.candles_of(stream, start, end)
        voids = self._queue.voids_of(stream)
        parts = gaps_between(merge_spans(voids), start, end) if voids else [Span(start, end)]
        candles: list[Candle] = []
        for part in reversed(parts) if newest else parts:
            left = None if limit is None else limit - len(candles)
            rows = await self._database.read(self._tables.candles, stream, *part, left, newest, extended)
            candles = [*rows, *candles] if newest else [*candles, *rows]
        if queued:
            candles = put_over(candles, queued)
        if limit is not None and len(candles) > limit:
            candles = candles[len(candles) - limit :] if newest else candles[:limit]
        return candles

    async def chunks(
        self,
        provider: str,
        key: StreamKey,
        start: int,
        end: int,
        limit: int,
        newest: bool,
        form: CandleForm = PLAIN,
    ) -> Stored:
        """Return what `read` does, encoded; nothing is awaited when all of it is in memory.

        Raises `StoreError`.
        """
        stream = (provider, key)
        index = self._indexes.get(stream)
        is_remembered = index is not None
        if index is None:
            index = await self._loader.index(stream)
        if start < end and not index.knows(end - 1 if newest else start):
            is_remembered = False
            await self._loader.learn_numbers(stream, index)
        while True:
            numbers, is_all = index.between(start, end)
            left, found, at, ahead = limit, [], 0, limit // WINDOW + 2
            if newest:
                numbers.reverse()
            while left > 0 and at < len(numbers):
                wanted = numbers[at : at + min(ahead, _MOST_WINDOWS)]
                at += len(wanted)
                chunks = {number: self._indexes.chunk(stream, number, form) for number in wanted}
                missing = [number for number, chunk in chunks.items() if chunk is None]
                if missing:
                    is_remembered = False
                    chunks |= await self._loader.windows(stream, index, missing, form)
                for number in wanted:
                    part = (chunks[number] or EMPTY).within(start, end, left, newest=newest)
                    if part.times:
                        found.append(part)
                        left -= len(part.times)
            if left <= 0 or is_all:
                break
            # The windows that are known were not enough.
            is_remembered = False
            await self._loader.learn_numbers(stream, index)
        if newest:
            found.reverse()
        return Stored(found, is_remembered)

    async def known(self, provider: str, key: StreamKey, *, near: int | None = None) -> tuple[list[Span], int, bool]:
        """Return what of a stream is known completely, merged, with its `version`, and whether that was in memory.

        `near` is where candles will be asked for next: if the stream has to be read anyway, they are as well.
        Raises `StoreError`.
        """
        stream = (provider, key)
        index = self._indexes.get(stream)
        is_remembered = index is not None
        if index is None:
            number = None if near is None else near // window_s(key.interval)
            index = await self._loader.index(stream, number)
        if index.spans and (latest := self._latest_of(provider)) is not None:
            end = int(latest) + SPAN_SLACK_S
            if index.spans[-1].end > end + 1:
                await self.removals.cut_future(stream, end)
                index = await self._loader.index(stream)
                # Also when the file cannot be written.
                return within(index.spans, 0, end + 1), index.version, False
        return list(index.spans), index.version, is_remembered

    async def cut_future(self, provider: str) -> None:
        """Forget what lies in the future of a provider's streams, which is done else when one is read.

        Once its time has come it would be a hole that is taken for known. Raises `StoreError`.
        """
        latest = self._latest_of(provider)
        for key, span in await self.newest(provider, _ALL):
            if latest is None or span.end <= latest:
                break
            await self.known(provider, key)

    def _latest_of(self, provider: str) -> float | None:
        latest = self._latest.get(provider)
        return None if latest is None else latest()

    async def spans(self, provider: str, key: StreamKey, start: int, end: int) -> list[Span]:
        """Return what of the open times from `start` up to `end` is known completely; ascending, cut to the range.

        Raises `StoreError`.
        """
        spans, _, _ = await self.known(provider, key)
        return within(spans, start, end)

    def version(self, provider: str, key: StreamKey) -> int:
        """Return a number that is another one after every write to the stream; -1 while nobody has read it."""
        index = self._indexes.get((provider, key))
        return -1 if index is None else index.version

    async def revisions(self, provider: str, key: StreamKey, after: int, *, extended: bool = False) -> Revisions:
        """Return the candles of a stream whose last revision has a larger number than `after`.

        Revisions of nothing but extras count for `extended` candles only. Raises `StoreError`.
        """
        stream = (provider, key)
        # Taken before the query, as in `read`: a write may end meanwhile.
        queued = [
            write
            for write in self._queue.of(stream)
            if write.revision is not None and write.revision > after and (extended or not write.is_of_extras)
        ]
        known_from, rows = await self._database.read(self._tables.revisions, stream, after, extended)
        # A file that was made later than this run began.
        newest, self.numbers.newest = self.numbers.newest, max(self.numbers.newest, known_from)
        found = {time: candle for _, time, candle in rows}
        for write in queued:
            if write.is_void and write.span is not None:
                found = {**without(found, (write.span,)), FORGOTTEN: None}
            found |= {candle.time: candle for candle in write.candles}
        for time in found.keys() - {FORGOTTEN}:
            for candle in self._queue.candles_of(stream, time, time + 1).values():
                found[time] = newer_of(found[time], candle)
        is_forgotten = FORGOTTEN in found
        is_complete = max(known_from, self.numbers.lost) <= after <= newest and not is_forgotten
        candles = [candle for _, candle in sorted(found.items()) if candle is not None]
        return Revisions(candles, is_complete, is_forgotten)

    async def streams(self) -> list[StreamId]:
        """Return the streams that were ever stored. Raises `StoreError`."""
        return await self._database.read(self._tables.streams)

    async def newest(self, provider: str, most: int) -> list[tuple[StreamKey, Span]]:
        """Return from where to where the file knows something of each stream of a provider, the newest first, `most`.

        Raises `StoreError`.
        """
        return await self._database.read(self._tables.newest, provider, most)

    def look(self) -> PastSeen:
        """Return the past as it is now: that says later whether it still holds."""
        return PastSeen(self.removals.noted)

    async def streams_summary(self) -> StoreSummary:
        """Return how much is stored, without reading the candles. Raises `StoreError`."""
        rows = await self._database.read(
            self._tables.fetch,
            "SELECT (SELECT count(*) FROM streams), (SELECT candles FROM totals), (SELECT count(*) FROM spans),"
            " (SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)",
        )
        streams, candles, spans, file_bytes = next(iter(rows))
        return StoreSummary(streams, candles, spans, file_bytes, self._queue.candles, self._queue.dropped)

    # Writing

    async def add(
        self,
        provider: str,
        key: StreamKey,
        candles: Sequence[Candle],
        span: Span | None,
        *,
        seen: PastSeen | None = None,
    ) -> None:
        """Store closed candles and the span that they fill; a kill after the return loses nothing.

        `candles` must hold every candle of `span`. Those that had to be widened stand in for what is not known: they
        are read, and their open times are left out of the span, so that they are asked for again, in later runs too.
        With `seen`, the past when they were asked for, nothing is stored once the symbol has another one.
        Raises `StoreError` when they cannot be written now: then they wait in memory, where reads see them, and are
        written later. Being cancelled does not undo the write.
        """
        if self._writer.is_closing:
            raise StoreError("the store is closed")
        if seen is not None and not seen.is_same(provider, key.symbol):
            return
        number = self._enqueue(provider, key, candles, span)
        if (refusal := self._database.refusal) is not None:
            raise refusal
        await self._writer.written(number)

    def put_closed(
        self,
        provider: str,
        key: StreamKey,
        candle: Candle,
        after: int | None,
        *,
        is_revised: bool = False,
        is_of_extras: bool = False,
    ) -> int | None:
        """Queue a closed candle of the live stream, or its revision; never blocks, written within about 0.25 s.

        `after` is the open time of the closed candle delivered before it when nothing is missing between the two:
        then the time between them counts as known, too. `is_of_extras` says that only extras were revised. One that had
        to be widened stands in, as for `add`. Returns the number of the revision, if it is one.
        """
        if self._writer.is_closing:
            self._queue.dropped += 1
            return None
        if storable(candle) is None:
            self.rejected += 1
            return None
        start = candle.time if after is None or after >= candle.time else after + 1
        revision = self.numbers.next() if is_revised else None
        self._enqueue(provider, key, (candle,), Span(start, candle.time + 1), revision, is_of_extras)
        return revision

    def put_extras(self, provider: str, key: StreamKey, candles: Sequence[Candle]) -> None:
        """Queue candles that are stored already, for what they carry beside prices and volume; never blocks."""
        if self._writer.is_closing:
            self._queue.dropped += len(candles)
        elif candles:
            self._enqueue(provider, key, candles, None)

    async def flush(self) -> None:
        """Return when everything queued so far is written. Raises `StoreError` when it cannot be."""
        await self._writer.written(self._queue.number)

    def _enqueue(
        self,
        provider: str,
        key: StreamKey,
        candles: Sequence[Candle],
        span: Span | None,
        revision: int | None = None,
        is_of_extras: bool = False,
    ) -> int:
        good = tuple(fit for fit in map(storable, candles) if fit is not None)
        self.rejected += len(candles) - len(good)
        for part, of_part in storable_parts(candles, good, span):
            self._push(provider, key, part, of_part, revision, is_of_extras)
        return self._queue.number

    def _push(
        self,
        provider: str,
        key: StreamKey,
        good: tuple[Candle, ...],
        span: Span | None,
        revision: int | None,
        is_of_extras: bool,
    ) -> None:
        write = self._queue.push((provider, key), good, span, revision, is_of_extras=is_of_extras)
        self._loader.note(write)
        for lost in self._queue.drop_excess():
            self._loader.forget(lost.stream)
            if lost.revision is not None:
                self.numbers.lose(lost.revision)
        self._writer.wake()
