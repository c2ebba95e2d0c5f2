"""Looks at the database file from outside, also while a relay writes to it: how large, what is in it; and shrinks it.

Only `cut_future` and `forget` change what is stored, while no relay uses it. What is wrong with it finds
`relay/storage/verify.py`.
"""

import difflib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from relay.core.errors import RequestError, StoreError
from relay.core.intervals import INTERVALS, open_time, parse_interval
from relay.core.model import StreamKey
from relay.core.spans import Span, gaps_between, merge_spans
from relay.storage.chunks import window_s
from relay.storage.future import CUT
from relay.storage.place import claimed, stamp_of
from relay.storage.schema import APPLICATION_ID, MIGRATIONS, advice_for, reason_of

FUTURE_S = 600
"""A provider's clock may be ahead of this machine's by so much."""
_WAIT_S = 5.0


class StoredStream(NamedTuple):
    """One stream in the file: its candles from the `first` open time to the `last`, and what is known completely.

    Where the file is so damaged that nobody can count them, it is not readable.
    """

    id: int
    provider: str
    key: StreamKey
    candles: int
    first: int | None
    last: int | None
    spans: Sequence[Span]
    is_readable: bool = True

    def __str__(self) -> str:
        return f"{self.provider} {self.key}"

    def gaps(self) -> list[Span]:
        """Return what lies between the spans, as far as a candle can open there."""
        spans, interval = merge_spans(self.spans), self.key.interval
        if not spans or interval not in INTERVALS:
            return []
        gaps = gaps_between(spans, spans[0].start, spans[-1].end)
        return [gap for gap in gaps if open_time(interval, gap.end - 1) >= gap.start]


class Forgotten(NamedTuple):
    """What was deleted of one stream."""

    provider: str
    key: StreamKey
    candles: int
    spans: int


class Overview(NamedTuple):
    """What a file holds: `file_bytes` with its write-ahead log, of which `free_bytes` wait to be used again."""

    version: int
    file_bytes: int
    free_bytes: int
    chunk_bytes: int
    streams: Sequence[StoredStream]


@contextmanager
def reading(name: str) -> Iterator[sqlite3.Connection]:
    """Open a relay's database for reading: one state of it, whatever a running relay writes meanwhile.

    Raises `StoreError`, also for what fails inside, with one sentence that names the file and says what to do.
    """
    if name == ":memory:":
        raise StoreError("database :memory: keeps nothing; name a file")
    if not Path(name).is_file():
        raise StoreError(f"database {name}: there is no such file; a relay creates it when it starts")
    try:
        with closing(_connect(f"{Path(name).absolute().as_uri()}?mode=ro", name)) as connection:
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        raise StoreError(f"database {name}: {reason_of(error)}; {advice_for(error)}") from error


def overview(connection: sqlite3.Connection, name: str) -> Overview:
    """Say what the file holds; reads the open times of all candles."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (free,) = connection.execute(
        "SELECT (SELECT freelist_count FROM pragma_freelist_count) * (SELECT page_size FROM pragma_page_size)"
    ).fetchone()
    chunk_bytes = 0
    if has_chunks(connection):
        (chunk_bytes,) = connection.execute(
            "SELECT coalesce(sum(length(head) + length(text)), 0) FROM chunks"
        ).fetchone()
    spans: dict[int, list[Span]] = {}
    for stream_id, start, end in connection.execute('SELECT stream_id, start, "end" FROM spans ORDER BY 1, 2'):
        spans.setdefault(stream_id, []).append(Span(start, end))
    streams = []
    for stream_id, provider, symbol, interval in connection.execute("SELECT * FROM streams").fetchall():
        count, first, last, is_readable = 0, None, None, True
        try:
            count, first, last = connection.execute(
                "SELECT count(*), min(time), max(time) FROM candles WHERE stream_id = ?", (stream_id,)
            ).fetchone()
        except sqlite3.DatabaseError:
            is_readable = False
        known = spans.get(stream_id, [])
        streams.append(
            StoredStream(stream_id, provider, StreamKey(symbol, interval), count, first, last, known, is_readable)
        )
    streams.sort(key=lambda stream: (stream.provider, stream.key.symbol, _rank(stream.key.interval)))
    return Overview(version, file_bytes(name), free, chunk_bytes, streams)


def has_chunks(connection: sqlite3.Connection) -> bool:
    """Say whether the file is of a version that keeps encoded candles as this one does."""
    return bool(connection.execute("SELECT 1 FROM pragma_table_info('chunks') WHERE name = 'text'").fetchone())


def has_extras(connection: sqlite3.Connection) -> bool:
    """Say whether the file is of a version that keeps what candles carry beside prices and volume."""
    return bool(connection.execute("SELECT 1 FROM pragma_table_info('candles') WHERE name = 'written'").fetchone())


def file_bytes(name: str) -> int:
    """Return the size on disk, with what SQLite keeps beside the file."""
    # A relay that stops meanwhile takes the other two with it.
    return sum(stamp_of(name + suffix)[1] for suffix in ("", "-wal", "-shm"))


def vacuum(name: str) -> None:
    """Write the file anew without its free pages; needs as much room again meanwhile.

    A running relay cannot write until this ends; it keeps what closes in memory. Raises `StoreError`.
    """
    with reading(name):
        pass
    try:
        with closing(_writing(name)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"database {name}: {reason_of(error)}; {advice_for(error)}") from error


def cut_future(name: str, now: float) -> list[StoredStream]:
    """Take out the candles and spans that lie in the future; return the streams that had some. Raises `StoreError`.

    `now` is in Unix seconds, by a clock that is right. No relay may use the file: it remembers what it stored.
    """
    latest = int(now) + FUTURE_S
    with reading(name) as connection:
        found = overview(connection, name)
    ahead = [
        stream
        for stream in found.streams
        if stream.key.interval in INTERVALS
        and ((stream.last or 0) > latest or any(span.end > latest + 1 for span in stream.spans))
    ]
    if not ahead:
        return []
    if found.version != len(MIGRATIONS):
        raise StoreError(f"database {name}: is of an older version; let this relay open it first")
    try:
        with claimed(name), closing(_writing(name)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            for stream in ahead:
                place = {"stream": stream.id, "latest": latest, "window": window_s(stream.key.interval)}
                for sql in CUT:
                    connection.execute(sql, place)
    except sqlite3.Error as error:
        raise StoreError(f"database {name}: {reason_of(error)}; {advice_for(error)}") from error
    return ahead


def forget(name: str, wanted: Iterable[str]) -> list[Forgotten]:
    """Delete all that is stored under some names, `SYMBOL`, `SYMBOL@INTERVAL` or `provider:SYMBOL…`; all or nothing.

    No relay may use the file: it remembers what it stored. Raises `StoreError`, also for a name that nothing is stored
    under; it names similar ones.
    """
    with reading(name):
        pass
    try:
        with claimed(name), closing(_writing(name, wait_s=0.5)) as connection:
            # Succeeds only where no other program has the file open.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            stored = [
                (stream_id, provider, StreamKey(*key))
                for stream_id, provider, *key in connection.execute("SELECT * FROM streams").fetchall()
            ]
            chosen = dict.fromkeys(stream for text in wanted for stream in _named(stored, text, name))
            forgotten = [
                Forgotten(provider, key, *_delete(connection, stream_id)) for stream_id, provider, key in chosen
            ]
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"database {name}: {reason_of(error)}; {advice_for(error)}") from error
    return forgotten


_Stored = tuple[int, str, StreamKey]


def _named(stored: Sequence[_Stored], text: str, name: str) -> list[_Stored]:
    """Return the streams that an operator's words mean; raises `StoreError` if there is none, or of whom is unclear."""
    symbol, at, interval = text.strip().rpartition("@")
    if not at:
        symbol, interval = interval, ""
    spelt = symbol.upper()
    found = [one for one in stored if spelt in (one[2].symbol.upper(), f"{one[1]}:{one[2].symbol}".upper())]
    if not found:
        names = {key.symbol.upper(): key.symbol for _, _, key in stored}
        names |= {f"{provider}:{key.symbol}".upper(): f"{provider}:{key.symbol}" for _, provider, key in stored}
        near = [names[one] for one in difflib.get_close_matches(spelt, names, n=3)]
        advice = f"did you mean {' or '.join(near)}?" if near else "relay store lists what is stored"
        raise StoreError(f"database {name}: nothing is stored for {symbol!r}; {advice}")
    providers = sorted({provider for _, provider, _ in found})
    if len(providers) > 1:
        pins = " or ".join(f"{provider}:{found[0][2].symbol}" for provider in providers)
        raise StoreError(f"database {name}: {symbol!r} is stored for several providers; write {pins}")
    if not at:
        return found
    try:
        interval = parse_interval(interval)
    except RequestError as error:
        raise StoreError(str(error)) from error
    chosen = [one for one in found if one[2].interval == interval]
    if not chosen:
        there = " ".join(sorted((key.interval for _, _, key in found), key=_rank))
        raise StoreError(f"database {name}: {symbol!r} is not stored at {interval}; it is at {there}")
    return chosen


def _delete(connection: sqlite3.Connection, stream_id: int) -> tuple[int, int]:
    """Delete a stream; return how many candles and spans it had."""
    tables = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    counts = {
        table: connection.execute(f"DELETE FROM {table} WHERE stream_id = ?", (stream_id,)).rowcount
        for table in ("candles", "spans", "chunks", "revisions")
        if table in tables
    }
    connection.execute("UPDATE totals SET candles = candles - ?", (counts["candles"],))
    connection.execute("DELETE FROM streams WHERE id = ?", (stream_id,))
    return counts["candles"], counts["spans"]


def _writing(name: str, wait_s: float = _WAIT_S) -> sqlite3.Connection:
    return _connect(f"{Path(name).absolute().as_uri()}?mode=rw", name, wait_s)


def _connect(address: str, name: str, wait_s: float = _WAIT_S) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=wait_s, isolation_level=None)
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise StoreError(f"database {name}: is not a database of a relay; name another file")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"database {name}: has schema version {version}, this relay supports up to {len(MIGRATIONS)};"
                " upgrade the relay"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _rank(interval: str) -> int:
    return INTERVALS.index(interval) if interval in INTERVALS else len(INTERVALS)
