"""The reads and transactions of the store, on one aiosqlite connection; no queue, no memory, no error is handled."""

import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import aiosqlite

from relay.core.model import NO_EXTRAS, Candle, StreamKey
from relay.core.spans import Span
from relay.storage.chunks import encode, pack, window_s
from relay.storage.deleted_rows import delete_before, delete_candles, delete_from, delete_span
from relay.storage.future import CUT
from relay.storage.revisions import FIRST, FORGOTTEN, KNOWN_FROM, MOST, SINCE, STEP
from relay.storage.window_rows import (
    EXTENDED_WINDOWS,
    NUMBERS,
    SHELF,
    STREAM,
    STREAM_ID,
    WINDOWS,
    StoredIndex,
    WindowRows,
    candle_of_row,
    stored_index,
)
from relay.storage.write_queue import StreamId, Write
from relay.storage.written_rows import COLUMNS, drop_chunks, note_revisions, write_candles, write_spans

_ROWS = "SELECT time, open, high, low, close, volume FROM candles WHERE stream_id = " + STREAM_ID
_EXTENDED_ROWS = f"SELECT time, {', '.join(COLUMNS)} FROM candles WHERE stream_id = {STREAM_ID}"


class Tables:
    """Runs statements; the caller sees to it that no two of its coroutines run at the same time."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._ids: dict[StreamId, int] = {}

    @property
    def connection(self) -> aiosqlite.Connection:
        """The connection that is used now."""
        return self._connection

    def use(self, connection: aiosqlite.Connection) -> aiosqlite.Connection:
        """Go on with another connection; return the one before, which is the caller's to close."""
        before, self._connection = self._connection, connection
        self._ids.clear()
        return before

    def forget_ids(self) -> None:
        """Look the streams up again: another program may have changed them."""
        self._ids.clear()

    async def fetch(self, sql: str, values: Iterable[object] = ()) -> list[sqlite3.Row]:
        """Run one statement and return its rows."""
        return list(await self._connection.execute_fetchall(sql, values))

    # Reading

    async def candles(
        self, stream: StreamId, start: int, end: int, limit: int | None, newest: bool, extended: bool = False
    ) -> list[Candle]:
        """Return candles of a range, oldest first; the first `limit`, or with `newest` the last.

        Those that are `extended` carry what is stored beside prices and volume.
        """
        rows_of = _EXTENDED_ROWS if extended else _ROWS
        sql = f"{rows_of} AND time >= ?4 AND time < ?5 ORDER BY time {'DESC' if newest else 'ASC'} LIMIT ?6"
        provider, key = stream
        values = (provider, *key, start, end, -1 if limit is None else limit)
        make = candle_of_row if extended else Candle._make
        rows = [make(row) for row in await self._connection.execute_fetchall(sql, values)]
        if newest:
            rows.reverse()
        return rows

    async def index(self, stream: StreamId, number: int | None) -> StoredIndex:
        """Return the spans of a stream, and the windows `number` - 1 and `number` if they hold candles."""
        return await self._stored(SHELF, stream, number)

    async def windows(self, stream: StreamId, numbers: Sequence[int]) -> dict[int, WindowRows]:
        """Return what is stored of some windows."""
        found = (await self._stored(WINDOWS, stream, json.dumps(numbers))).windows
        return {number: found.get(number) or WindowRows(None, []) for number in numbers}

    async def extended_windows(self, stream: StreamId, numbers: Sequence[int]) -> dict[int, list[Candle]]:
        """Return the extended candles of some windows."""
        provider, key = stream
        values = (provider, *key, window_s(key.interval), json.dumps(numbers))
        found: dict[int, list[Candle]] = {number: [] for number in numbers}
        for number, *row in await self._connection.execute_fetchall(EXTENDED_WINDOWS, values):
            found[number].append(candle_of_row(row))
        return found

    async def numbers(self, stream: StreamId) -> list[int]:
        """Return the numbers of all windows that hold candles, ascending."""
        provider, key = stream
        rows = await self._connection.execute_fetchall(NUMBERS, (provider, *key, window_s(key.interval)))
        return [number for (number,) in rows]

    async def _stored(self, sql: str, stream: StreamId, wanted: int | str | None) -> StoredIndex:
        provider, key = stream
        values = (provider, *key, window_s(key.interval), wanted)
        return stored_index(await self._connection.execute_fetchall(sql, values))

    async def revisions(
        self, stream: StreamId, after: int, extended: bool
    ) -> tuple[int, list[tuple[int, int, Candle | None]]]:
        """Return before which number revisions may be gone, and those after `after`: number, open time, candle.

        Those of nothing but extras only if the candles are `extended`.
        """
        provider, key = stream
        fetch = self._connection.execute_fetchall
        ((known_from,),) = await fetch(KNOWN_FROM, (provider, *key, MOST - 1))
        rows = await fetch(SINCE, (provider, *key, after, extended))
        return known_from, [
            (number, time, None if values[0] is None else candle_of_row((time, *values)))
            for number, time, *values in rows
        ]

    async def newest(self, provider: str, most: int) -> list[tuple[StreamKey, Span]]:
        """Return from where to where something is known of each stream of a provider, the newest first, `most`."""
        rows = await self._connection.execute_fetchall(
            'SELECT symbol, interval, min(start), max("end") AS last FROM streams JOIN spans ON stream_id = id'
            " WHERE provider = ? GROUP BY id ORDER BY last DESC LIMIT ?",
            (provider, most),
        )
        return [(StreamKey(symbol, interval), Span(start, end)) for symbol, interval, start, end in rows]

    async def first_revision(self, now_s: float) -> int:
        """Return the number from which the revisions of this run count."""
        ((number,),) = await self._connection.execute_fetchall(FIRST, (int(now_s * 1e6), STEP))
        return int(number)

    # Writing

    async def write(self, batch: Sequence[Write]) -> None:
        """Write all of it, or after an error nothing."""
        async with self._transaction():
            ids = await self._stream_ids({write.stream for write in batch})
            await write_candles(
                self._connection,
                [
                    (ids[write.stream], *candle, *(candle.extras or NO_EXTRAS))
                    for write in batch
                    for candle in write.candles
                ],
            )
            await drop_chunks(self._connection, batch, ids)
            revised = [write for write in batch if write.revision is not None]
            await note_revisions(
                self._connection,
                [(ids[one.stream], c.time, one.revision, one.is_of_extras) for one in revised for c in one.candles],
            )
            await write_spans(
                self._connection, [(ids[write.stream], write.span) for write in batch if write.span is not None]
            )
        self._ids.update(ids)

    async def trim(self, stream: StreamId, before: int, most: int) -> tuple[int, int]:
        """Delete the oldest candles of a stream, about `most` and all older than `before`, and what tells of them.

        `before` is where a window begins. Returns up to where nothing is left and nothing known, and how many it were.
        """
        length = window_s(stream[1].interval)
        connection = self._connection
        rows = await connection.execute_fetchall(
            f"{STREAM} SELECT id, (SELECT min(time) FROM candles WHERE stream_id = id),"
            " (SELECT time FROM candles WHERE stream_id = id AND time < ?4 ORDER BY time LIMIT 1 OFFSET ?5)"
            " FROM stream",
            (stream[0], *stream[1], before, most),
        )
        ((stream_id, oldest, last),) = rows
        if oldest is None or oldest >= before:
            return 0, 0
        end = before if last is None else min(before, max(last // length, oldest // length + 1) * length)
        async with self._transaction():
            count = await delete_before(self._connection, stream_id, end, length)
        return end, count

    async def rename(self, provider: str, symbol: str, name: str, end: int | None = None) -> int:
        """Keep what is stored of a symbol, at all intervals, under another name; return how many candles that are.

        With `end` what opens from then on is deleted instead: it may be asked for again under the symbol.
        """
        count = 0
        async with self._transaction():
            for stream_id, key in await self._streams_of(provider, symbol):
                if end is not None:
                    await delete_from(self._connection, stream_id, end, window_s(key.interval))
                ((candles,),) = await self._connection.execute_fetchall(
                    "SELECT count(*) FROM candles WHERE stream_id = ?", (stream_id,)
                )
                count += candles
                await self._connection.execute("UPDATE streams SET symbol = ? WHERE id = ?", (name, stream_id))
        self._forget_ids(provider, symbol)
        return count

    async def take_back(self, provider: str, name: str, symbol: str) -> None:
        """Give what was renamed its symbol again; what was stored under the symbol since is the newer of the two."""
        run = self._connection.execute
        async with self._transaction():
            since = {key.interval: stream_id for stream_id, key in await self._streams_of(provider, symbol)}
            for stream_id, key in await self._streams_of(provider, name):
                newer = since.get(key.interval)
                if newer is not None:
                    ids = (stream_id, newer)
                    await run(
                        "DELETE FROM chunks WHERE stream_id IN (?1, ?2) AND (stream_id = ?2 OR number IN"
                        " (SELECT time / ?3 FROM candles WHERE stream_id = ?2))",
                        (*ids, window_s(key.interval)),
                    )
                    await delete_candles(
                        self._connection,
                        "stream_id = ? AND time IN (SELECT time FROM candles WHERE stream_id = ?)",
                        ids,
                    )
                    await run("UPDATE candles SET stream_id = ? WHERE stream_id = ?", ids)
                    rows = await self._connection.execute_fetchall(
                        'SELECT start, "end" FROM spans WHERE stream_id = ?', (newer,)
                    )
                    await run("DELETE FROM spans WHERE stream_id = ?", (newer,))
                    await run("DELETE FROM revisions WHERE stream_id = ?", (newer,))
                    await write_spans(self._connection, [(stream_id, Span(*row)) for row in rows])
                    await run("DELETE FROM streams WHERE id = ?", (newer,))
                await run("UPDATE streams SET symbol = ? WHERE id = ?", (symbol, stream_id))
        self._forget_ids(provider, symbol)

    async def void(self, batch: Sequence[Write]) -> None:
        """Delete what is stored of the span of each write, and note that as a revision; or after an error nothing."""
        async with self._transaction():
            for write in batch:
                provider, key = write.stream
                rows = await self._connection.execute_fetchall(
                    "SELECT id FROM streams WHERE provider = ? AND symbol = ? AND interval = ?", (provider, *key)
                )
                for (stream_id,) in rows:
                    if write.span is not None:
                        await delete_span(self._connection, stream_id, write.span, window_s(key.interval))
                    await note_revisions(self._connection, [(stream_id, FORGOTTEN, write.revision, False)])

    async def _streams_of(self, provider: str, symbol: str) -> list[tuple[int, StreamKey]]:
        rows = await self._connection.execute_fetchall(
            "SELECT id, symbol, interval FROM streams WHERE provider = ? AND symbol = ?", (provider, symbol)
        )
        return [(stream_id, StreamKey(*key)) for stream_id, *key in rows]

    def _forget_ids(self, provider: str, symbol: str) -> None:
        self._ids = {
            (name, key): number for (name, key), number in self._ids.items() if (name, key.symbol) != (provider, symbol)
        }

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """Commit what is done inside, or after an error nothing."""
        connection = self._connection
        await connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            await connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    await connection.execute("ROLLBACK")
            raise

    async def cut_future(self, stream: StreamId, latest: int) -> None:
        """Take out what a stream is said to hold after the open time `latest`."""
        ids = await self._stream_ids({stream})
        place = {"stream": ids[stream], "latest": latest, "window": window_s(stream[1].interval)}
        async with self._transaction():
            for sql in CUT:
                await self._connection.execute(sql, place)

    async def streams(self) -> list[StreamId]:
        """Return all streams that the database knows."""
        rows = await self._connection.execute_fetchall("SELECT provider, symbol, interval FROM streams")
        return [(provider, StreamKey(symbol, interval)) for provider, symbol, interval in rows]

    async def pack(self, stream: StreamId, number: int) -> None:
        """Store the chunk of a window as its candles are now."""
        length = window_s(stream[1].interval)
        rows = await self.candles(stream, number * length, (number + 1) * length, None, False)
        ids = await self._stream_ids({stream})
        if rows:
            await self._connection.execute(
                "INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)",
                (ids[stream], number, rows[-1].time + 1, *pack(encode(rows))),
            )

    async def _stream_ids(self, streams: Iterable[StreamId]) -> dict[StreamId, int]:
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
