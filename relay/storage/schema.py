"""The database file: its schema, how it is brought up to date, and what its errors mean in our words."""

import sqlite3
from collections.abc import Sequence

from relay.core.errors import StoreError

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
    (
        # Derived from the candles and never needed: those of one window before `until`, encoded.
        "CREATE TABLE chunks (stream_id INTEGER NOT NULL REFERENCES streams (id), number INTEGER NOT NULL,"
        " until INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (stream_id, number))",
    ),
    (
        # Made anew when they are read: the text apart, so that it is served as it comes.
        "DROP TABLE chunks",
        "CREATE TABLE chunks (stream_id INTEGER NOT NULL REFERENCES streams (id), number INTEGER NOT NULL,"
        " until INTEGER NOT NULL, head BLOB NOT NULL, text BLOB NOT NULL, PRIMARY KEY (stream_id, number))",
    ),
    (
        # The last revision of each candle that was told as closed before; `relay.storage.revisions` says more.
        "CREATE TABLE revisions (stream_id INTEGER NOT NULL REFERENCES streams (id), time INTEGER NOT NULL,"
        " number INTEGER NOT NULL, PRIMARY KEY (stream_id, time)) WITHOUT ROWID",
        "CREATE INDEX revisions_by_number ON revisions (stream_id, number)",
        # What was revised before is not known.
        "ALTER TABLE totals ADD COLUMN revisions_from INTEGER NOT NULL DEFAULT 0",
        "UPDATE totals SET revisions_from = 1000000 * CAST(strftime('%s', 'now') AS INTEGER)",
    ),
    (
        # What a candle carries beside prices and volume: null where nobody gave it, as in all rows from before.
        "ALTER TABLE candles ADD COLUMN quote_volume REAL",
        "ALTER TABLE candles ADD COLUMN trades INTEGER",
        "ALTER TABLE candles ADD COLUMN taker_volume REAL",
        "ALTER TABLE candles ADD COLUMN taker_quote_volume REAL",
        # How the provider wrote the numbers; `relay.core.written_numbers` says more.
        "ALTER TABLE candles ADD COLUMN written TEXT",
        # The candle was revised in nothing but that.
        "ALTER TABLE revisions ADD COLUMN is_of_extras INTEGER NOT NULL DEFAULT 0",
    ),
)

OPEN_TIMEOUT_S = 2.0
# Reads wait behind a blocked write, and a failed one is tried again anyway: give up early.
_BUSY_MS = 250


def open_database(
    path: str, name: str, *, timeout_s: float = OPEN_TIMEOUT_S, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> sqlite3.Connection:
    """Open or create the file and bring its schema up to date; `path` may be `:memory:`, `name` is for errors.

    Another program that has locked it is waited for, `timeout_s` at most.
    Raises `StoreError` with one sentence that names the file and says what to do.
    """
    try:
        connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
    except sqlite3.Error as error:
        reason = reason_of(error)
        raise StoreError(
            f"database {name}: {reason}; check that its directory exists and is writable", reason
        ) from error
    try:
        _prepare(connection, name, migrations)
    except sqlite3.Error as error:
        connection.close()
        reason = reason_of(error)
        raise StoreError(f"database {name}: {reason}; {advice_for(error)}", reason) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, name: str, migrations: Sequence[Sequence[str]]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (version or tables) and application != APPLICATION_ID:
        reason = "is a database of another program"
        raise StoreError(f"database {name}: {reason}; name another file", f"it {reason}")
    if version > len(migrations):
        reason = f"has schema version {version}, this relay supports up to {len(migrations)}"
        advice = "upgrade the relay, restore a backup of the time before, or name another file"
        raise StoreError(f"database {name}: {reason}; {advice}", f"it {reason}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Also without a migration: says at once when the file can only be read.
    connection.execute("BEGIN IMMEDIATE")
    # Once more inside of the transaction: another process may have been quicker.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for statements in migrations[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")
    # What a log that was left holds goes into the file: from now on each checkpoint shows that it begins.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")


_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program has locked it",
    sqlite3.SQLITE_LOCKED: "another program has locked it",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk has an error",
}


def reason_of(error: Exception) -> str:
    """Say what a failed statement means, without naming the file."""
    # Our words, because the texts of SQLite and the system may name the file.
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return _REASONS.get(code & 0xFF, f"SQLite reported {name}")
    if isinstance(error, OverflowError):
        return "a number is too large"
    return "it is closed"


def advice_for(error: sqlite3.Error) -> str:
    """Say what an operator can do about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return "stop the other program or name another file"
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return "move it away or name another file"
    return "check the disk and the permissions of the file"
