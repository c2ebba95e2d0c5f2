"""The statements that store candles, spans and revisions, inside of a transaction of whoever calls them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

import aiosqlite

from relay.core.model import EXTRA_FIELDS, Candle, CandleExtras
from relay.core.spans import Span, merge_spans
from relay.storage.chunks import window_s
from relay.storage.revisions import DROP_EXCESS, MOST, NOTE
from relay.storage.write_queue import StreamId, Write

_ADD = f"INSERT INTO candles VALUES ({', '.join('?' * 12)}) ON CONFLICT (stream_id, time) DO NOTHING"
COLUMNS = (*Candle._fields[1:], *CandleExtras._fields)
"""Of the table of candles, after stream and open time."""
# Candles without extras come from whoever does not know them, and take away none of the same values.
_REPLACE = (
    f"INSERT INTO candles VALUES ({', '.join('?' * 12)}) ON CONFLICT (stream_id, time) DO UPDATE SET"
    f" {', '.join(f'{column} = excluded.{column}' for column in COLUMNS)}"
    f" WHERE coalesce({', '.join(f'excluded.{column}' for column in EXTRA_FIELDS)}) IS NOT NULL"
    " OR (open, high, low, close, volume)"
    " IS NOT (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)"
)


async def write_candles(connection: aiosqlite.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Store candles with the ids of their streams in front, over what is there; keep the total."""
    if not rows:
        return
    async with connection.executemany(_ADD, rows) as cursor:
        added = cursor.rowcount
    if added < len(rows):
        # Some were there already: in the order queued, so that the last one stays.
        await connection.executemany(_REPLACE, rows)
    await connection.execute("UPDATE totals SET candles = candles + ?", (added,))


async def note_revisions(connection: aiosqlite.Connection, rows: Sequence[tuple[int, int, int | None, bool]]) -> None:
    """Note revisions: stream, open time, number, and whether only extras are others; keep the newest of a stream."""
    if rows:
        await connection.executemany(NOTE, rows)
        await connection.executemany(DROP_EXCESS, [(number, MOST) for number in {row[0] for row in rows}])


async def drop_chunks(connection: aiosqlite.Connection, batch: Iterable[Write], ids: dict[StreamId, int]) -> None:
    """Forget the chunks that now lack a candle or have an old one; what comes behind their end harms none."""
    first: dict[tuple[int, int], int] = {}
    for write in batch:
        length = window_s(write.stream[1].interval)
        for candle in write.candles:
            window = (ids[write.stream], candle.time // length)
            first[window] = min(candle.time, first.get(window, candle.time))
    if first:
        await connection.executemany(
            "DELETE FROM chunks WHERE stream_id = ? AND number = ? AND until > ?",
            [(*window, time) for window, time in first.items()],
        )


async def write_spans(connection: aiosqlite.Connection, spans: Sequence[tuple[int, Span]]) -> None:
    """Add spans to what is known of streams, merged with what is there."""
    if not spans:
        return
    wanted: dict[int, list[Span]] = defaultdict(list)
    for stream_id, span in spans:
        wanted[stream_id].append(span)
    present: dict[int, set[Span]] = {stream_id: set() for stream_id in wanted}
    for stream_id, start, end in await connection.execute_fetchall(
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
        await connection.executemany("DELETE FROM spans WHERE stream_id = ? AND start = ?", gone)
    if new:
        await connection.executemany("INSERT INTO spans VALUES (?, ?, ?)", new)
