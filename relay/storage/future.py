"""The SQL that takes out of a database what lies in the future, where nothing can be known; no connection."""

CUT = (
    "UPDATE totals SET candles = candles - (SELECT count(*) FROM candles WHERE stream_id = :stream AND time > :latest)",
    "DELETE FROM candles WHERE stream_id = :stream AND time > :latest",
    "DELETE FROM chunks WHERE stream_id = :stream AND number >= :latest / :window",
    # Whoever wrote such a span had a wrong time, so of its end only what candles prove is kept.
    'UPDATE spans SET "end" = (SELECT coalesce(max(time) + 1, spans.start) FROM candles'
    " WHERE stream_id = :stream AND time >= spans.start AND time <= :latest)"
    ' WHERE stream_id = :stream AND "end" > :latest + 1',
    'DELETE FROM spans WHERE stream_id = :stream AND "end" <= start',
)
"""Statements of one transaction: `stream` is an id, `latest` the last open time that can be, `window` as of chunks."""
