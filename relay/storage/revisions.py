"""Which closed candles were revised, in the order in which it happened: so who was away can be given just those.

Every revision has a number, larger than all before it, also those of earlier runs: numbers begin with the time of the
start in microseconds. The table keeps the last number of each candle, and of each stream the newest `MOST`. A row
without an open time says that all that was stored of the stream was forgotten. One of nothing but what a candle carries
beside prices and volume is marked: it means nothing to who does not get that. Only the SQL is here, and no connection.
"""

from collections.abc import Sequence
from typing import NamedTuple

from relay.core.model import Candle

MOST = 2000
"""Revisions that are kept of a stream; who asks for older ones is told that they are not known."""
FORGOTTEN = -1
"""Stands for the open time of a candle where the whole past of a stream was forgotten."""
STEP = 1_000_000
"""So far beyond the last number on the disk a run begins at least: the newest of the last run may not be there."""

FIRST = "SELECT max(?, revisions_from, (SELECT coalesce(max(number), 0) + ? FROM revisions)) FROM totals"
"""Takes the time in microseconds and `STEP`; returns the number that a run begins with."""

NOTE = (
    "INSERT INTO revisions VALUES (?, ?, ?, ?) ON CONFLICT (stream_id, time)"
    " DO UPDATE SET number = excluded.number, is_of_extras = min(is_of_extras, excluded.is_of_extras)"
)
"""Takes the id of a stream, an open time, a number, and whether nothing but extras was revised."""

DROP_EXCESS = (
    "DELETE FROM revisions WHERE stream_id = ?1 AND number <="
    " (SELECT number FROM revisions WHERE stream_id = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)"
)
"""Takes the id of a stream and `MOST`."""

SINCE = """
WITH stream (id) AS MATERIALIZED (SELECT id FROM streams WHERE provider = ?1 AND symbol = ?2 AND interval = ?3)
SELECT number, revisions.time, open, high, low, close, volume,
quote_volume, trades, taker_volume, taker_quote_volume, written
FROM revisions LEFT JOIN candles USING (stream_id, time)
WHERE stream_id = (SELECT id FROM stream) AND number > ?4 AND (?5 OR NOT is_of_extras)
"""
"""Takes provider, symbol, interval, a number, and whether revisions of nothing but extras count."""

KNOWN_FROM = """
WITH stream (id) AS MATERIALIZED (SELECT id FROM streams WHERE provider = ?1 AND symbol = ?2 AND interval = ?3)
SELECT coalesce(
  (SELECT number FROM revisions WHERE stream_id = (SELECT id FROM stream) ORDER BY number DESC LIMIT 1 OFFSET ?4),
  (SELECT revisions_from FROM totals)
)
"""
"""Takes provider, symbol, interval and `MOST` - 1; returns the number before which revisions may be gone."""


class Revisions(NamedTuple):
    """Candles that were revised, as they are now, by open time; `is_complete`: there are no others.

    `is_forgotten` says that what was stored of the stream was forgotten since, so that others are other ones, too.
    """

    candles: Sequence[Candle]
    is_complete: bool
    is_forgotten: bool = False


class RevisionNumbers:
    """The number of the `newest` revision, and up to which they are `lost`: those may not be in the file."""

    __slots__ = ("lost", "newest")

    def __init__(self) -> None:
        self.newest = self.lost = 0

    def next(self) -> int:
        """Return the number of one more revision."""
        self.newest += 1
        return self.newest

    def lose(self, number: int) -> None:
        """Note that the revisions up to a number may not be in the file."""
        self.lost = max(self.lost, number)
