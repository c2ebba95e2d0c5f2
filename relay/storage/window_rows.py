"""Windows of candles as the database has them: the SQL that reads them, its rows, and the chunks they make; pure."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from relay.core.model import Candle, CandleExtras, extend
from relay.core.spans import Span
from relay.storage.chunks import EMPTY, Chunk, Packed, decode, encode, joined, unpack

STREAM_ID = "(SELECT id FROM streams WHERE provider = ?1 AND symbol = ?2 AND interval = ?3)"
STREAM = f"WITH stream (id) AS MATERIALIZED (SELECT {STREAM_ID})"
_NULLS = "NULL, NULL, NULL, NULL, NULL"


def _behind(number: str) -> str:
    # The candles of a window that are not in its chunk; all of them if it has none.
    return f"""
SELECT 2, time / ?4, NULL, time, open, high, low, close, volume FROM candles
WHERE stream_id = (SELECT id FROM stream) AND time < ({number} + 1) * ?4 AND time >= coalesce(
  (SELECT until FROM chunks WHERE stream_id = (SELECT id FROM stream) AND number = {number}), {number} * ?4
)
"""


# What a stream is asked for first: its spans, and two windows next to each other. No recursion and no table function,
# which would take longer than all of the rest.
SHELF = "UNION ALL".join(
    (
        f"""{STREAM}
SELECT 3, start, "end", NULL, {_NULLS} FROM spans WHERE stream_id = (SELECT id FROM stream)
""",
        f"""
SELECT 1, number, head, text, {_NULLS} FROM chunks
WHERE stream_id = (SELECT id FROM stream) AND number BETWEEN ?5 - 1 AND ?5
""",
        _behind("(?5 - 1)"),
        _behind("?5"),
    )
)
WINDOWS = f"""
{STREAM},
wanted (number, until, head, text) AS (
  SELECT value, until, head, text FROM json_each(?5)
  LEFT JOIN chunks ON stream_id = (SELECT id FROM stream) AND number = value
)
SELECT 1, number, head, text, {_NULLS} FROM wanted WHERE head IS NOT NULL
UNION ALL
SELECT 2, number, NULL, time, open, high, low, close, volume FROM wanted CROSS JOIN candles
WHERE stream_id = (SELECT id FROM stream)
AND time >= coalesce(until, number * ?4) AND time < (number + 1) * ?4
"""
# No chunk holds what is beside prices and volume, so all rows are read.
EXTENDED_WINDOWS = f"""
{STREAM}
SELECT value, time, open, high, low, close, volume, quote_volume, trades, taker_volume, taker_quote_volume, written
FROM json_each(?5) CROSS JOIN candles
WHERE stream_id = (SELECT id FROM stream) AND time >= value * ?4 AND time < (value + 1) * ?4
"""
# One look-up for each window and not a reading of all candles; a window with a chunk holds some.
NUMBERS = f"""
WITH RECURSIVE stream (id) AS MATERIALIZED (SELECT {STREAM_ID}),
numbers (number) AS (
  SELECT (SELECT min(time) FROM candles WHERE stream_id = (SELECT id FROM stream)) / ?4
  UNION ALL
  SELECT coalesce(
    (SELECT number FROM chunks WHERE stream_id = (SELECT id FROM stream) AND number = numbers.number + 1),
    (SELECT min(time) FROM candles WHERE stream_id = (SELECT id FROM stream) AND time >= (numbers.number + 1) * ?4) / ?4
  )
  FROM numbers WHERE number IS NOT NULL
)
SELECT number FROM numbers WHERE number IS NOT NULL
"""


class WindowRows(NamedTuple):
    """What is stored of one window: a packed chunk or None, and the candles behind it."""

    packed: Packed | None
    rows: list[Candle]


class StoredIndex(NamedTuple):
    """What is stored about a stream: the spans that are known, and those of the windows read that hold candles."""

    spans: list[Span]
    windows: dict[int, WindowRows]


def candle_of_row(row: Sequence[Any]) -> Candle:
    """Return the candle of a row with all columns, a plain one where it carries nothing."""
    extras = CandleExtras._make(row[6:])
    return Candle._make(row[:6]) if extras.is_empty else extend(Candle._make(row[:6]), extras)


def stored_index(rows: Iterable[sqlite3.Row]) -> StoredIndex:
    """Put together what a query for windows gave."""
    spans: list[Span] = []
    windows: dict[int, WindowRows] = {}
    for kind, number, second, *row in rows:
        if kind == 3:
            spans.append(Span(number, second))
            continue
        window = windows.get(number) or WindowRows(None, [])
        if kind == 1:
            windows[number] = WindowRows(Packed(second, row[0]), window.rows)
        else:
            windows[number] = window
            window.rows.append(Candle._make(row))
    return StoredIndex(spans, windows)


def put_together(found: Mapping[int, WindowRows], queued: Mapping[int, Mapping[int, Candle]]) -> dict[int, Chunk]:
    """Make the chunks of windows from what is stored and what waits to be written; none where that is damaged."""
    chunks = {}
    for number, (packed, rows) in found.items():
        try:
            chunk = EMPTY if packed is None else unpack(packed)
        except ValueError:
            continue
        if rows:
            chunk = joined((chunk, encode(rows)))
        newer = queued.get(number)
        if newer and chunk.times and min(newer) <= chunk.times[-1]:
            merged = {candle.time: candle for candle in decode(chunk)} | dict(newer)
            chunk = encode([merged[time] for time in sorted(merged)])
        elif newer:
            chunk = joined((chunk, encode([newer[time] for time in sorted(newer)])))
        chunks[number] = chunk
    return chunks
