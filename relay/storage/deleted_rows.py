"""The statements that take out what is stored of one stream, inside of a transaction of whoever calls them."""

from collections.abc import Sequence

import aiosqlite

from relay.core.spans import Span, cut_spans
from relay.storage.revisions import FORGOTTEN


async def delete_candles(connection: aiosqlite.Connection, where: str, values: Sequence[int]) -> int:
    """Delete single candles, also from the total; return how many."""
    run = connection.execute
    async with run(f"DELETE FROM candles WHERE {where}", values) as cursor:
        count = cursor.rowcount
    await run("UPDATE totals SET candles = candles - ?", (count,))
    return count


async def delete_before(connection: aiosqlite.Connection, stream_id: int, end: int, length: int) -> int:
    """Delete what opened before `end`, of windows that are `length` seconds long; return how many candles."""
    place = (stream_id, end)
    run = connection.execute
    count = await delete_candles(connection, "stream_id = ? AND time < ?", place)
    await run("DELETE FROM chunks WHERE stream_id = ?1 AND number * ?3 < ?2", (*place, length))
    await run(
        'INSERT OR REPLACE INTO spans SELECT stream_id, ?2, "end" FROM spans'
        ' WHERE stream_id = ?1 AND start < ?2 AND "end" > ?2',
        place,
    )
    await run("DELETE FROM spans WHERE stream_id = ? AND start < ?", place)
    await run("DELETE FROM revisions WHERE stream_id = ? AND time < ? AND time <> ?", (*place, FORGOTTEN))
    return count


async def delete_span(connection: aiosqlite.Connection, stream_id: int, span: Span, length: int) -> None:
    """Delete what opened in a span, of windows that are `length` seconds long."""
    place = (stream_id, *span)
    run = connection.execute
    await delete_candles(connection, "stream_id = ? AND time >= ? AND time < ?", place)
    await run(
        "DELETE FROM chunks WHERE stream_id = ?1 AND number * ?4 < ?3 AND (number + 1) * ?4 > ?2", (*place, length)
    )
    await run("DELETE FROM revisions WHERE stream_id = ? AND time >= ? AND time < ?", place)
    rows = await connection.execute_fetchall(
        'SELECT start, "end" FROM spans WHERE stream_id = ? AND start < ? AND "end" > ?',
        (stream_id, span.end, span.start),
    )
    touched = [Span(*row) for row in rows]
    await connection.executemany(
        "DELETE FROM spans WHERE stream_id = ? AND start = ?", [(stream_id, one.start) for one in touched]
    )
    await connection.executemany(
        "INSERT INTO spans VALUES (?, ?, ?)", [(stream_id, *part) for part in cut_spans(touched, span)]
    )


async def delete_from(connection: aiosqlite.Connection, stream_id: int, start: int, length: int) -> None:
    """Delete what opened at `start` or later."""
    place = (stream_id, start)
    run = connection.execute
    await delete_candles(connection, "stream_id = ? AND time >= ?", place)
    await run("DELETE FROM chunks WHERE stream_id = ?1 AND (number + 1) * ?3 > ?2", (*place, length))
    await run("DELETE FROM spans WHERE stream_id = ? AND start >= ?", place)
    await run('UPDATE spans SET "end" = ?2 WHERE stream_id = ?1 AND "end" > ?2', place)
