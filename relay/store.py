"""Closed candles in SQLite, what is known to be complete, and small documents; no provider, no network, no open candle.

One connection, one task that writes. A stream's coverage is a set of spans of open times: every candle in them that
exists is in the table, and where there is none, there is nothing. What waits to be written is seen by every read.
"""

import asyncio
import json
import logging
import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import aiosqlite

from relay.clock import Clock
from relay.errors import StoreError
from relay.model import Candle, StreamKey

log = logging.getLogger(__name__)

APPLICATION_ID = 0x52_4C_41_59  # "RLAY": tells our files from those of other programs

# Each entry brings the file from the version of its index to the next; never change one that was released.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE streams (id INTEGER PRIMARY KEY, provider TEXT NOT NULL, symbol TEXT NOT NULL,"
        " interval TEXT NOT NULL, UNIQUE (provider, symbol, interval))",
        "CREATE TABLE candles (stream_id INTEGER NOT NULL REFERENCES streams (id), time INTEGER NOT NULL,"
        " open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL, volume REAL NOT NULL,"
        " PRIMARY KEY (stream_id, time)) WITHOUT ROWID",
        "CREATE TABLE spans (stream_id INTEGER NOT NULL REFERENCES streams (id), start INTEGER NOT NULL,"
        ' "end" INTEGER NOT NULL, PRIMARY KEY (stream_id, start)) WITHOUT ROWID',
        "CREATE TABLE documents (name TEXT PRIMARY KEY, body BLOB NOT NULL, stored_at REAL NOT NULL) WITHOUT ROWID",
        # Counting the rows of a large table reads all of it, so the number is kept.
        "CREATE TABLE totals (id INTEGER PRIMARY KEY CHECK (id = 1), candles INTEGER NOT NULL)",
        "INSERT INTO totals VALUES (1, 0)",
    ),
)

_OPEN_TIMEOUT_S = 2.0
# Reads wait behind a blocked write, and a failed one is tried again anyway: give up early.
_BUSY_MS = 250
_BATCH_S = 0.25
_BATCH_CANDLES = 10_000
_RETRY_S = (0.5, 10.0)
_CLOSE_ATTEMPTS = 5
_LATEST_TIME = 1 << 60

_ADD = "INSERT INTO candles VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream_id, time) DO NOTHING"
_REPLACE = "INSERT OR REPLACE INTO candles VALUES (?, ?, ?, ?, ?, ?, ?)"


class Span(NamedTuple):
    """Open times from `start` up to, not including, `end`."""

    start: int
    end: int


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


class _Write(NamedTuple):
    # A write claims coverage only for its own rows, so that losing any one of them never leaves a false claim.
    number: int
    stream: tuple[str, StreamKey]
    candles: tuple[Candle, ...]
    span: Span | None


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the same open times as the fewest spans, ascending; spans that touch become one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if span.end <= span.start:
            continue
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(Span(*span))
    return merged


class Store:
    """Owns the database file.

    `problem` says what is wrong, without naming the file, or is None. While the disk fails, candles wait in memory (at
    most `max_queued`; then the oldest are dropped and counted) and are written once it works again. Errors of `open`
    name the file, for the operator; those of the other methods do not, for clients. `rejected` counts candles that no
    table takes, such as one with a price that is not a number.
    """

    def __init__(self, connection: aiosqlite.Connection, clock: Clock, *, max_queued: int = 200_000) -> None:
        self._connection = connection
        self._clock = clock
        self._max_queued = max_queued
        # aiosqlite runs one statement at a time, not one transaction: without the lock reads would see half of one.
        self._lock = asyncio.Lock()
        self._ids: dict[tuple[str, StreamKey], int] = {}
        self._queue: deque[_Write] = deque()
        self._queue_of: dict[tuple[str, StreamKey], deque[_Write]] = {}
        self._queued = 0
        self._number = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._is_closing = False
        self._problems: dict[str, str] = {}
        self._writer: asyncio.Task[None] | None = None
        self.dropped = 0
        self.rejected = 0

    @classmethod
    async def open(cls, path: str | Path, clock: Clock, *, max_queued: int = 200_000) -> "Store":
        """Open or create the file, bring its schema up to date and start the writer; `:memory:` keeps nothing.

        Raises `StoreError` with one sentence that names the file and says what to do.
        """
        name = str(path)
        failure: list[StoreError] = []

        def connect() -> sqlite3.Connection:
            try:
                return _open_database(name)
            except StoreError as error:
                # aiosqlite leaves its thread unawaited when this function raises, so it gets a connection to close.
                failure.append(error)
                return sqlite3.connect(":memory:")

        connection = await aiosqlite.Connection(connect, 64)
        if failure:
            await connection.close()
            raise failure[0]
        store = cls(connection, clock, max_queued=max_queued)
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
        self._answer_waiters(self._number, StoreError("the store is closed"))
        if self._queued:
            log.error("store closed with %d candles unwritten: %s", self._queued, self.problem or "stopped")
        with suppress(sqlite3.Error):
            await self._connection.close()

    @property
    def problem(self) -> str | None:
        """What is wrong with the store now, in words without a path, or None."""
        return next(iter(self._problems.values()), None)

    # Reading

    async def read(
        self,
        provider: str,
        key: StreamKey,
        start: int,
        end: int,
        limit: int | None = None,
        newest: bool = False,
    ) -> list[Candle]:
        """Return candles with `start` ≤ open time < `end`, oldest first; the first `limit`, or with `newest` the last.

        Raises `StoreError`.
        """
        # Taken before the query: a write that ends meanwhile is then seen twice instead of not at all.
        queued = {
            candle.time: candle
            for write in self._queue_of.get((provider, key), ())
            for candle in write.candles
            if start <= candle.time < end
        }
        direction = "DESC" if newest else "ASC"
        rows = await self._fetch(
            "SELECT time, open, high, low, close, volume FROM candles WHERE time >= ? AND time < ? AND stream_id ="
            " (SELECT id FROM streams WHERE provider = ? AND symbol = ? AND interval = ?)"
            f" ORDER BY time {direction} LIMIT ?",
            (start, end, provider, key.symbol, key.interval, -1 if limit is None else limit),
        )
        candles = [Candle._make(row) for row in rows]
        if newest:
            candles.reverse()
        if queued:
            merged = {candle.time: candle for candle in candles} | queued
            candles = [merged[time] for time in sorted(merged)]
        if limit is not None and len(candles) > limit:
            candles = candles[len(candles) - limit :] if newest else candles[:limit]
        return candles

    async def spans(self, provider: str, key: StreamKey, start: int, end: int) -> list[Span]:
        """Return what of the open times from `start` up to `end` is known completely; ascending, cut to the range.

        Raises `StoreError`.
        """
        queued = [write.span for write in self._queue_of.get((provider, key), ()) if write.span is not None]
        rows = await self._fetch(
            'SELECT start, "end" FROM spans WHERE start < ? AND "end" > ? AND stream_id ='
            " (SELECT id FROM streams WHERE provider = ? AND symbol = ? AND interval = ?)",
            (end, start, provider, key.symbol, key.interval),
        )
        spans = [Span._make(row) for row in rows] + queued
        return merge_spans(Span(max(span.start, start), min(span.end, end)) for span in spans)

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
        return StoreSummary(streams, candles, spans, file_bytes, self._queued, self.dropped)

    async def _fetch(self, sql: str, parameters: Sequence[object]) -> list[sqlite3.Row]:
        try:
            async with self._lock:
                rows = list(await self._connection.execute_fetchall(sql, parameters))
        except (sqlite3.Error, ValueError, OverflowError) as error:
            reason = _reason(error)
            if isinstance(error, sqlite3.Error):
                self._note("read", reason)
            raise StoreError(f"the store cannot be read: {reason}") from error
        self._note("read", None)
        return rows

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
        if _storable(candle) is None:
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
            raise StoreError(f"the store cannot be written: {_reason(error)}") from error

    async def flush(self) -> None:
        """Return when everything queued so far is written. Raises `StoreError` when it cannot be."""
        if self._queue:
            await self._written(self._number)

    def _enqueue(self, provider: str, key: StreamKey, candles: Sequence[Candle], span: Span | None) -> int:
        good = tuple(fit for fit in map(_storable, candles) if fit is not None)
        self.rejected += len(candles) - len(good)
        if span is not None:
            span = Span(max(span.start, 0), min(span.end, _LATEST_TIME))
            if span.end <= span.start:
                span = None
        if not good and span is None:
            return self._number
        self._number += 1
        write = _Write(self._number, (provider, key), good, span)
        self._queue.append(write)
        self._queue_of.setdefault(write.stream, deque()).append(write)
        self._queued += len(good)
        while self._queued > self._max_queued and len(self._queue) > 1:
            self.dropped += len(self._pop().candles)
        self._work.set()
        return self._number

    def _pop(self) -> _Write:
        write = self._queue.popleft()
        self._queued -= len(write.candles)
        writes = self._queue_of[write.stream]
        writes.popleft()
        if not writes:
            del self._queue_of[write.stream]
        return write

    async def _written(self, number: int) -> None:
        if not self._queue or self._queue[0].number > number:
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
        retry_s, attempts = _RETRY_S[0], 0
        while True:
            if not self._queue:
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
            batch = self._next_batch()
            try:
                await self._write(batch)
            except (sqlite3.Error, ValueError) as error:
                attempts += 1
                retry_s = min(retry_s * 2, _RETRY_S[1]) if attempts > 1 else _RETRY_S[0]
                reason = _reason(error)
                self._note("write", reason)
                self._answer_waiters(self._number, StoreError(f"the store cannot be written: {reason}"))
                if self._is_closing and attempts >= _CLOSE_ATTEMPTS:
                    return
                continue
            attempts = 0
            last = batch[-1].number
            while self._queue and self._queue[0].number <= last:
                self._pop()
            self._note("write", None)
            self._answer_waiters(last)
            if self._waiters:
                self._hurry.set()

    def _next_batch(self) -> list[_Write]:
        batch: list[_Write] = []
        candles = 0
        for write in self._queue:
            if batch and candles + len(write.candles) > _BATCH_CANDLES:
                break
            batch.append(write)
            candles += len(write.candles)
        return batch

    async def _write(self, batch: Sequence[_Write]) -> None:
        connection = self._connection
        async with self._lock:
            await connection.execute("BEGIN IMMEDIATE")
            try:
                ids = await self._stream_ids({write.stream for write in batch})
                await self._write_candles([(ids[write.stream], *candle) for write in batch for candle in write.candles])
                await self._write_spans([(ids[write.stream], write.span) for write in batch if write.span is not None])
                await connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        await connection.execute("ROLLBACK")
                raise
            self._ids.update(ids)

    async def _stream_ids(self, streams: Iterable[tuple[str, StreamKey]]) -> dict[tuple[str, StreamKey], int]:
        # New ids reach `self._ids` after the commit only: a rolled back one may be given to another stream.
        ids = {}
        for stream in streams:
            if stream in self._ids:
                ids[stream] = self._ids[stream]
                continue
            provider, key = stream
            rows = await self._connection.execute_fetchall(
                "INSERT INTO streams (provider, symbol, interval) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET provider = provider RETURNING id",
                (provider, key.symbol, key.interval),
            )
            (ids[stream],) = next(iter(rows))
        return ids

    async def _write_candles(self, rows: Sequence[tuple[object, ...]]) -> None:
        if not rows:
            return
        async with self._connection.executemany(_ADD, rows) as cursor:
            added = cursor.rowcount
        if added < len(rows):
            # Some were there already: in the order queued, so that the last one stays.
            await self._connection.executemany(_REPLACE, rows)
        await self._connection.execute("UPDATE totals SET candles = candles + ?", (added,))

    async def _write_spans(self, spans: Sequence[tuple[int, Span]]) -> None:
        if not spans:
            return
        wanted: dict[int, list[Span]] = {}
        for stream_id, span in spans:
            wanted.setdefault(stream_id, []).append(span)
        present: dict[int, set[Span]] = {stream_id: set() for stream_id in wanted}
        for stream_id, start, end in await self._connection.execute_fetchall(
            'SELECT stream_id, start, "end" FROM spans WHERE stream_id IN (SELECT value FROM json_each(?))',
            (json.dumps(list(wanted)),),
        ):
            present[stream_id].add(Span(start, end))
        gone: list[tuple[int, int]] = []
        new: list[tuple[int, int, int]] = []
        for stream_id, added in wanted.items():
            merged = set(merge_spans([*present[stream_id], *added]))
            gone += [(stream_id, span.start) for span in present[stream_id] - merged]
            new += [(stream_id, *span) for span in merged - present[stream_id]]
        if gone:
            await self._connection.executemany("DELETE FROM spans WHERE stream_id = ? AND start = ?", gone)
        if new:
            await self._connection.executemany("INSERT INTO spans VALUES (?, ?, ?)", new)

    def _note(self, doing: str, reason: str | None) -> None:
        before = self.problem
        if reason is None:
            self._problems.pop(doing, None)
        else:
            self._problems[doing] = reason
        if before is None and reason is not None:
            log.error("store cannot %s: %s; %d candles wait", doing, reason, self._queued)
        elif before is not None and self.problem is None:
            log.warning("store works again; %d candles wait, %d were dropped", self._queued, self.dropped)


def _storable(candle: Candle) -> Candle | None:
    # A row that the table refuses would stop every later one.
    try:
        fit = Candle(candle.time, *(float(value) for value in candle[1:]))
        return fit if isinstance(fit.time, int) and fit.time < _LATEST_TIME and fit.fault() is None else None
    except (TypeError, ValueError, OverflowError):
        return None


def _open_database(name: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(name, timeout=_OPEN_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreError(
            f"database {name}: {_reason(error)}; check that its directory exists and is writable"
        ) from error
    try:
        _prepare(connection, name)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"database {name}: {_reason(error)}; {_advice(error)}") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, name: str) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (version or tables) and application != APPLICATION_ID:
        raise StoreError(f"database {name}: is a database of another program; name another file")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"database {name}: has schema version {version}, this relay knows up to {len(MIGRATIONS)};"
            " upgrade the relay or name another file"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Also without a migration: says at once when the file can only be read.
    connection.execute("BEGIN IMMEDIATE")
    # Once more inside of the transaction: another process may have been quicker.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")


_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program has locked it",
    sqlite3.SQLITE_LOCKED: "another program has locked it",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_READONLY: "it can only be read",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk fails",
}


def _reason(error: Exception) -> str:
    # Our words, because the texts of SQLite and the system may name the file.
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return _REASONS.get(code & 0xFF, f"the database answered {name}")
    if isinstance(error, OverflowError):
        return "a number is too large"
    return "it is closed"


def _advice(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return "stop the other program or name another file"
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return "move it away or name another file"
    return "check the disk and the rights of the file"
