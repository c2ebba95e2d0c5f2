"""Candles written as text, page after page: lines, CSV, JSON, newline-delimited JSON; and files to go on with."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from relay.client import History
from relay.commands.figures import moment, number

CSV_HEAD = b"time,open,high,low,close,volume,is_closed\n"
RESUMABLE = ("csv", "ndjson")


class Writer:
    """Writes pages in one form; `close` ends what was begun."""

    def __init__(self, file: BinaryIO, form: str, *, has_begun: bool = False) -> None:
        self._file = file
        self._form = form
        self._has_begun = has_begun
        self._has_rows = False
        self._tail = b""

    def write(self, page: History) -> None:
        """Write a page."""
        if not self._has_begun:
            self._has_begun = True
            if self._form == "csv":
                self._file.write(CSV_HEAD)
            elif self._form == "json":
                names = {"symbol": page.symbol, "interval": page.interval}
                if page.provider:
                    names["provider"] = page.provider
                self._file.write(orjson.dumps(names)[:-1] + b',"candles":[')
        rows = list(_rows(page, self._form))
        if self._form == "json":
            self._tail = b'],"last_is_closed":%b}\n' % (b"true" if page.last_is_closed else b"false")
            if rows:
                self._file.write((b"," if self._has_rows else b"") + b",".join(rows))
                self._has_rows = True
        elif rows:
            self._file.write(b"\n".join(rows) + b"\n")

    def close(self) -> None:
        """Write what comes last."""
        self._file.write(self._tail)
        self._file.flush()


def _rows(page: History, form: str) -> Iterator[bytes]:
    for position, candle in enumerate(page.candles, 1):
        is_closed = page.last_is_closed or position < len(page.candles)
        if form == "json":
            yield orjson.dumps(candle._asdict())
        elif form == "ndjson":
            yield orjson.dumps({**candle._asdict(), "is_closed": is_closed})
        elif form == "csv":
            yield ",".join([str(candle.time), *map(number, candle[1:]), "true" if is_closed else "false"]).encode()
        else:
            words = [moment(candle.time), *map(number, candle[1:]), "closed" if is_closed else "open"]
            yield "\t".join(words).encode()


def for_its_owner(path: str, flags: int) -> int:
    """Open a file as `open` does; one that is created nobody else may read, whatever the umask."""
    return os.open(path, flags, 0o600)


def resume_point(path: Path, form: str) -> int | None:
    """Cut a file of an earlier run behind its last closed candle; return the time to go on from, None at its beginning.

    Raises `ValueError` when it is no such file.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    with path.open("r+b") as file:
        if form == "csv" and file.readline() != CSV_HEAD:
            raise ValueError("it is no CSV file of this command")
        begin = file.tell()
        end = file.seek(0, os.SEEK_END)
        while end > begin:
            # A line is far shorter than this.
            file.seek(max(begin, end - 4096))
            start = file.tell()
            text = file.read(end - start)
            line_start = start + text.rfind(b"\n", 0, len(text) - 1) + 1
            if start > begin and line_start == start:
                raise ValueError("its last line is too long")
            line = text[line_start - start :]
            if line.endswith(b"\n"):
                time = _closed_time(line, form)
                if time is not None:
                    file.truncate(end)
                    return time + 1
            end = line_start
        file.truncate(begin)
    return None


def _closed_time(line: bytes, form: str) -> int | None:
    """Return the open time of the candle in a line, None if it was open. Raises `ValueError`."""
    if form == "csv":
        time, *_, is_closed = line.strip().split(b",")
        return int(time) if is_closed == b"true" else None
    row = orjson.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("time"), int):
        raise ValueError("its last line is no candle")
    found: int = row["time"]
    return found if row.get("is_closed") is True else None
