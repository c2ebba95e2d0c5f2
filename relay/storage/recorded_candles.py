"""Candles that are only read: of a relay's database, also while that relay writes to it, or taken in from elsewhere."""

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from relay.core.errors import ProviderUnavailable, StoreError
from relay.core.intervals import INTERVALS
from relay.core.model import Candle, StreamKey
from relay.core.threads import in_thread
from relay.storage.inspect import has_extras, reading
from relay.storage.schema import MIGRATIONS, advice_for, reason_of
from relay.storage.set_aside import is_aside
from relay.storage.window_rows import candle_of_row

_WAIT_S = 5.0
_AT_A_TIME = 10_000
_PLAIN = "time, open, high, low, close, volume"
_EXTENDED = f"{_PLAIN}, quote_volume, trades, taker_volume, taker_quote_volume, written"
# A file of an earlier version knows no more.
_BARE = f"{_PLAIN}, NULL, NULL, NULL, NULL, NULL"


class RecordedStream(NamedTuple):
    """The open times of the first and the last candle that are recorded of a stream, in Unix seconds."""

    first: int
    last: int


class RecordedCandles:
    """The candles of all streams of a recording, as they were when it was opened: later ones are left out.

    Threads read it one after the other. Close it in the end.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._reading = threading.Lock()
        self._columns = _EXTENDED if has_extras(connection) else _BARE
        self._ids: dict[tuple[str, StreamKey], int] = {}
        streams: dict[str, dict[StreamKey, RecordedStream]] = {}
        for stream_id, provider, symbol, interval in connection.execute("SELECT * FROM streams ORDER BY id").fetchall():
            if is_aside(symbol) or interval not in INTERVALS:
                continue
            first, last = connection.execute(
                "SELECT (SELECT min(time) FROM candles WHERE stream_id = ?1),"
                " (SELECT max(time) FROM candles WHERE stream_id = ?1)",
                (stream_id,),
            ).fetchone()
            if first is not None:
                key = StreamKey(symbol, interval)
                self._ids[provider, key] = stream_id
                streams.setdefault(provider, {})[key] = RecordedStream(first, last)
        self.streams: Mapping[str, Mapping[StreamKey, RecordedStream]] = MappingProxyType(streams)
        """By the name of the provider that they are from."""
        self.name = name

    def document(self, name: str) -> bytes | None:
        """Return what a relay noted under a name beside its candles. Raises `StoreError`."""
        try:
            row = self._connection.execute("SELECT body FROM documents WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"database {self.name}: {reason_of(error)}; {advice_for(error)}") from error
        return None if row is None else bytes(row[0])

    def has_texts(self, provider: str, symbol: str) -> bool:
        """Say whether any candles of a symbol are recorded with the texts of their provider. Raises `StoreError`."""
        if "written" not in self._columns:
            return False
        sql = "SELECT EXISTS (SELECT 1 FROM candles WHERE stream_id = ? AND written IS NOT NULL)"
        ids = [found for (name, key), found in self._ids.items() if (name, key.symbol) == (provider, symbol)]
        try:
            return any(self._connection.execute(sql, (one,)).fetchone()[0] for one in ids)
        except sqlite3.Error as error:
            raise StoreError(f"database {self.name}: {reason_of(error)}; {advice_for(error)}") from error

    async def read(
        self, provider: str, key: StreamKey, start: int | None, end: int, limit: int
    ) -> Sequence[Candle]:  # fmt: skip
        """Return candles with `start` ≤ open time < `end`, oldest first.

        They are the first `limit`, or without a start the last. Raises `ProviderUnavailable` if it cannot be read.
        """
        return await in_thread(self._read, provider, key, start, end, limit)

    def _read(self, provider: str, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        span, stream_id = self.streams[provider][key], self._ids[provider, key]
        values = (stream_id, span.first if start is None else start, min(end, span.last + 1), limit)
        order = "DESC" if start is None else "ASC"
        sql = (
            f"SELECT {self._columns} FROM candles WHERE stream_id = ? AND time >= ? AND time < ?"
            f" ORDER BY time {order} LIMIT ?"
        )
        try:
            with self._reading:
                rows = self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise ProviderUnavailable(f"the recording cannot be read: {reason_of(error)}") from None
        candles = [candle_of_row(row) for row in rows]
        return candles[::-1] if start is None else candles

    def close(self) -> None:
        """Let go of the file."""
        with self._reading:
            self._connection.close()


def open_recorded(name: str) -> RecordedCandles:
    """Open the database of a relay for reading. Raises `StoreError`."""
    # Says what is wrong with the file.
    with reading(name):
        pass
    try:
        address = f"{Path(name).absolute().as_uri()}?mode=ro"
        # No transaction stays open: it would keep the relay that writes there from shortening its log.
        connection = sqlite3.connect(
            address, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )  # fmt: skip
        try:
            return RecordedCandles(connection, name)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"database {name}: {reason_of(error)}; {advice_for(error)}") from error


def take_in(candles: Iterable[tuple[str, StreamKey, Candle]], name: str) -> RecordedCandles:
    """Take in candles, each with its provider and its stream, once each; they are kept on disk until it is closed.

    SQLite removes the file when the process ends, whatever ends it. Raises `StoreError` where the disk fails.
    """
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        for sql in (sql for statements in MIGRATIONS for sql in statements):
            connection.execute(sql)
        ids: dict[tuple[str, StreamKey], int] = {}
        connection.execute("BEGIN")
        with closing(connection.cursor()) as cursor:
            rest = iter(candles)
            while some := list(islice(rest, _AT_A_TIME)):
                rows = []
                for provider, key, candle in some:
                    stream = (provider, key)
                    if stream not in ids:
                        ids[stream] = len(ids) + 1
                        cursor.execute("INSERT INTO streams VALUES (?, ?, ?, ?)", (ids[stream], provider, *key))
                    rows.append((ids[stream], *candle, *(candle.extras or _NOTHING)))
                cursor.executemany(f"INSERT INTO candles VALUES (?{', ?' * 11})", rows)
        connection.execute("COMMIT")
        return RecordedCandles(connection, name)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"{name} cannot be taken in: {reason_of(error)}; check the disk of temporary files") from error
    except BaseException:
        connection.close()
        raise


_NOTHING = (None,) * 5
