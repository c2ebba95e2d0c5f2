"""Closed candles in SQLite: the database file, what memory holds of it, how it is written, trimmed and checked."""
