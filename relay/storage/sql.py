"""The statements of the store, on one aiosqlite connection; no queue, no memory, and no error is handled here."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import aiosqlite

from relay.core.model import EXTRA_FIELDS, NO_EXTRAS, Candle, CandleExtras, StreamKey
from relay.core.spans import Span, cut_spans, merge_spans
from relay.storage.chunks import encode, pack, window_s
from relay.storage.future import CUT
from relay.storage.revisions import DROP_EXCESS, FIRST, FORGOTTEN, KNOWN_FROM, MOST, NOTE, SINCE, STEP
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

_ADD = f"INSERT INTO candles VALUES ({', '.join('?' * 12)}) ON CONFLICT (stream_id, time) DO NOTHING"
_COLUMNS = (*Candle._fields[1:], *CandleExtras._fields)
# Candles without extras come from whoever does not know them, and take away none of the same values.
_REPLACE = (
    f"INSERT INTO candles VALUES ({', '.join('?' * 12)}) ON CONFLICT (stream_id, time) DO UPDATE SET"
    f" {', '.join(f'{column} = excluded.{column}' for column in _COLUMNS)}"
    f" WHERE coalesce({', '.join(f'excluded.{column}' for column in EXTRA_FIELDS)}) IS NOT NULL"
    " OR (open, high, low, close, volume)"
    " IS NOT (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)"
)
_ROWS = "SELECT time, open, high, low, close, volume FROM candles WHERE stream_id = " + STREAM_ID
_EXTENDED_ROWS = f"SELECT time, {', '.join(_COLUMNS)} FROM candles WHERE stream_id = {STREAM_ID}"


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
            await self._write_candles(
                [
                    (ids[write.stream], *candle, *(candle.extras or NO_EXTRAS))
                    for write in batch
                    for candle in write.candles
                ]
            )
            await self._drop_chunks(batch, ids)
            revised = [write for write in batch if write.revision is not None]
            await self._note_revisions(
                [(ids[one.stream], c.time, one.revision, one.is_of_extras) for one in revised for c in one.candles]
            )
            await self._write_spans([(ids[write.stream], write.span) for write in batch if write.span is not None])
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
            count = await self._delete_before(stream_id, end, length)
        return end, count

    async def rename(self, provider: str, symbol: str, name: str, end: int | None = None) -> int:
        """Keep what is stored of a symbol, at all intervals, under another name; return how many candles that are.

        With `end` what opens from then on is deleted instead: it may be asked for again under the symbol.
        """
        count = 0
        async with self._transaction():
            for stream_id, key in await self._streams_of(provider, symbol):
                if end is not None:
                    await self._delete_from(stream_id, end, window_s(key.interval))
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
                    await self._delete_candles(
                        "stream_id = ? AND time IN (SELECT time FROM candles WHERE stream_id = ?)", ids
                    )
                    await run("UPDATE candles SET stream_id = ? WHERE stream_id = ?", ids)
                    rows = await self._connection.execute_fetchall(
                        'SELECT start, "end" FROM spans WHERE stream_id = ?', (newer,)
                    )
                    await run("DELETE FROM spans WHERE stream_id = ?", (newer,))
                    await run("DELETE FROM revisions WHERE stream_id = ?", (newer,))
                    await self._write_spans([(stream_id, Span(*row)) for row in rows])
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
                        await self._delete_span(stream_id, write.span, window_s(key.interval))
                    await self._note_revisions([(stream_id, FORGOTTEN, write.revision, False)])

    async def _streams_of(self, provider: str, symbol: str) -> list[tuple[int, StreamKey]]:
        rows = await self._connection.execute_fetchall(
            "SELECT id, symbol, interval FROM streams WHERE provider = ? AND symbol = ?", (provider, symbol)
        )
        return [(stream_id, StreamKey(*key)) for stream_id, *key in rows]

    def _forget_ids(self, provider: str, symbol: str) -> None:
        self._ids = {
            (name, key): number for (name, key), number in self._ids.items() if (name, key.symbol) != (provider, symbol)
        }

    async def _delete_candles(self, where: str, values: Sequence[int]) -> int:
        """Delete single candles, also from the total; return how many."""
        run = self._connection.execute
        async with run(f"DELETE FROM candles WHERE {where}", values) as cursor:
            count = cursor.rowcount
        await run("UPDATE totals SET candles = candles - ?", (count,))
        return count

    async def _delete_before(self, stream_id: int, end: int, length: int) -> int:
        """Delete what opened before `end`, of windows that are `length` seconds long; return how many candles."""
        place = (stream_id, end)
        run = self._connection.execute
        count = await self._delete_candles("stream_id = ? AND time < ?", place)
        await run("DELETE FROM chunks WHERE stream_id = ?1 AND number * ?3 < ?2", (*place, length))
        await run(
            'INSERT OR REPLACE INTO spans SELECT stream_id, ?2, "end" FROM spans'
            ' WHERE stream_id = ?1 AND start < ?2 AND "end" > ?2',
            place,
        )
        await run("DELETE FROM spans WHERE stream_id = ? AND start < ?", place)
        await run("DELETE FROM revisions WHERE stream_id = ? AND time < ? AND time <> ?", (*place, FORGOTTEN))
        return count

    async def _delete_span(self, stream_id: int, span: Span, length: int) -> None:
        """Delete what opened in a span, of windows that are `length` seconds long."""
        place = (stream_id, *span)
        run = self._connection.execute
        await self._delete_candles("stream_id = ? AND time >= ? AND time < ?", place)
        await run(
            "DELETE FROM chunks WHERE stream_id = ?1 AND number * ?4 < ?3 AND (number + 1) * ?4 > ?2", (*place, length)
        )
        await run("DELETE FROM revisions WHERE stream_id = ? AND time >= ? AND time < ?", place)
        rows = await self._connection.execute_fetchall(
            'SELECT start, "end" FROM spans WHERE stream_id = ? AND start < ? AND "end" > ?',
            (stream_id, span.end, span.start),
        )
        touched = [Span(*row) for row in rows]
        await self._connection.executemany(
            "DELETE FROM spans WHERE stream_id = ? AND start = ?", [(stream_id, one.start) for one in touched]
        )
        await self._connection.executemany(
            "INSERT INTO spans VALUES (?, ?, ?)", [(stream_id, *part) for part in cut_spans(touched, span)]
        )

    async def _delete_from(self, stream_id: int, start: int, length: int) -> None:
        """Delete what opened at `start` or later."""
        place = (stream_id, start)
        run = self._connection.execute
        await self._delete_candles("stream_id = ? AND time >= ?", place)
        await run("DELETE FROM chunks WHERE stream_id = ?1 AND (number + 1) * ?3 > ?2", (*place, length))
        await run("DELETE FROM spans WHERE stream_id = ? AND start >= ?", place)
        await run('UPDATE spans SET "end" = ?2 WHERE stream_id = ?1 AND "end" > ?2', place)

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

    async def _write_candles(self, rows: Sequence[tuple[object, ...]]) -> None:
        if not rows:
            return
        async with self._connection.executemany(_ADD, rows) as cursor:
            added = cursor.rowcount
        if added < len(rows):
            # Some were there already: in the order queued, so that the last one stays.
            await self._connection.executemany(_REPLACE, rows)
        await self._connection.execute("UPDATE totals SET candles = candles + ?", (added,))

    async def _note_revisions(self, rows: Sequence[tuple[int, int, int | None, bool]]) -> None:
        if rows:
            await self._connection.executemany(NOTE, rows)
            await self._connection.executemany(DROP_EXCESS, [(number, MOST) for number in {row[0] for row in rows}])

    async def _drop_chunks(self, batch: Iterable[Write], ids: dict[StreamId, int]) -> None:
        """Forget the chunks that now lack a candle or have an old one; what comes behind their end harms none."""
        first: dict[tuple[int, int], int] = {}
        for write in batch:
            length = window_s(write.stream[1].interval)
            for candle in write.candles:
                window = (ids[write.stream], candle.time // length)
                first[window] = min(candle.time, first.get(window, candle.time))
        if first:
            await self._connection.executemany(
                "DELETE FROM chunks WHERE stream_id = ? AND number = ? AND until > ?",
                [(*window, time) for window, time in first.items()],
            )

    async def _write_spans(self, spans: Sequence[tuple[int, Span]]) -> None:
        if not spans:
            return
        wanted: dict[int, list[Span]] = defaultdict(list)
        for stream_id, span in spans:
            wanted[stream_id].append(span)
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
