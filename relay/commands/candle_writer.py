"""Candles written as text, page after page: lines, CSV, JSON, newline-delimited JSON; and files to go on with."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson

from relay.client import Candle, History
from relay.client.decoding import candle_object
from relay.commands.formatting import json_line, moment, number
from relay.core.model import EXTRA_FIELDS

CSV_HEAD = b"time,open,high,low,close,volume\n"
"""As the relay's own answers with `format=csv`, which hold closed candles only, too."""
EXTENDED_CSV_HEAD = b"%b,%b\n" % (CSV_HEAD.strip(), ",".join(EXTRA_FIELDS).encode())
"""The same with `extended`."""
RESUMABLE = ("csv", "ndjson")
COMPARED = 10
"""So many of the last closed candles in a file tell whether it is of the stream that is to go on in it."""

_LONGEST_LINE = 4096
_JSON_BEGIN = re.compile(rb'\{"symbol":"[^"]*","interval":"\w*",("provider":"[^"]*",)?"candles":\[')
_LINE = re.compile(rb"[-0-9]+T[:0-9]+Z(\t[-.0-9]+){5}\t(closed|open)\n")


class CandleWriter:
    """Writes pages in one form, of `extended` candles or others; `close` ends what was begun."""

    def __init__(self, file: BinaryIO, form: str, *, has_begun: bool = False, extended: bool = False) -> None:
        self._csv_head = EXTENDED_CSV_HEAD if extended else CSV_HEAD
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
                self._file.write(self._csv_head)
            elif self._form == "json":
                names = {"symbol": page.symbol, "interval": page.interval}
                if page.provider:
                    names["provider"] = page.provider
                self._file.write(json_line(names).encode()[:-1] + b',"candles":[')
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


def closed_of(page: History) -> tuple[Candle, ...]:
    """Return the candles of a page that are final."""
    return page.candles if page.last_is_closed else page.candles[:-1]


def _rows(page: History, form: str) -> Iterator[bytes]:
    for position, candle in enumerate(page.candles, 1):
        is_closed = page.last_is_closed or position < len(page.candles)
        if form == "json":
            yield orjson.dumps(candle_object(candle))
        elif form == "ndjson":
            yield orjson.dumps({**candle_object(candle), "is_closed": is_closed})
        elif form == "csv":
            if is_closed:
                yield orjson.dumps([*candle_object(candle).values()])[1:-1].replace(b"null", b"")
        else:
            words = [moment(candle.time), *map(number, candle[1:]), "closed" if is_closed else "open"]
            yield "\t".join(words).encode()


def for_its_owner(path: str, flags: int) -> int:
    """Open a file as `open` does; one that is created nobody else may read, whatever the umask."""
    return os.open(path, flags, 0o600)


def is_ours(path: Path) -> bool:
    """Say whether this command wrote a file, or could have: in one of its forms, or empty. Raises `OSError`."""
    with path.open("rb") as file:
        begin = file.read(_LONGEST_LINE)
    if not begin or _JSON_BEGIN.match(begin) or _LINE.match(begin):
        return True
    for form, head in (("csv", CSV_HEAD), ("csv", EXTENDED_CSV_HEAD), ("ndjson", b'{"time":')):
        if begin.startswith(head):
            with suppress(ValueError):
                read_earlier(path, form, extended=None)
                return True
    return False


class Earlier(NamedTuple):
    """A file of an earlier run: its last closed candles, oldest first, how many bytes end with them, and when the first
    candle of all opened, if there is one.
    """

    candles: tuple[Candle, ...]
    size: int
    first_open: int | None = None

    def is_of(self, answer: History) -> bool:
        """Say whether the candles of an answer about the same time are those of the file.

        Most of them, since a provider may have changed some or filled a gap; no other stream has as many in common.
        """
        ours = {candle.time: candle for candle in self.candles}
        theirs = {candle.time: candle for candle in answer.candles}
        same = sum(theirs.get(time) == candle for time, candle in ours.items())
        return 2 * same > len(ours | theirs)


def read_earlier(path: Path, form: str, *, extended: bool | None = False) -> Earlier | None:
    """Read the end of a file of an earlier run, None where it has not begun. What comes behind is no whole candle.

    `extended` says whether its candles have to carry more than prices and volume, None that they may. Raises
    `ValueError` when it is no such file.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    with path.open("rb") as file:
        head = file.readline() if form == "csv" else b""
        if form == "csv" and head not in (CSV_HEAD, EXTENDED_CSV_HEAD):
            raise ValueError("it is not a CSV file of this command")
        begin = size = file.tell()
        line = file.readline(_LONGEST_LINE)
        first = _time_of(line, form)
        has_more = head == EXTENDED_CSV_HEAD or (form == "ndjson" and b'"trades":' in line)
        if extended is not None and has_more != extended and (head or line.endswith(b"\n")):
            raise ValueError(f"it was written with{'' if has_more else 'out'} --extended")
        found: list[Candle] = []
        for end, line in _lines_backwards(file, begin):
            candle = _closed(line, form)
            if candle is not None:
                size = max(size, end)
                found.append(candle)
            if len(found) == COMPARED:
                break
    return Earlier(tuple(found[::-1]), size, first)


def _lines_backwards(file: BinaryIO, begin: int) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines, the last one first, each with where it ends. Raises `ValueError` where one is too long."""
    end = file.seek(0, os.SEEK_END)
    while end > begin:
        start = max(begin, end - _LONGEST_LINE)
        file.seek(start)
        text = file.read(end - start)
        line_start = start + text.rfind(b"\n", 0, len(text) - 1) + 1
        if start > begin and line_start == start:
            raise ValueError("its last line is too long")
        if text.endswith(b"\n"):
            yield end, text[line_start - start :]
        end = line_start


def _closed(line: bytes, form: str) -> Candle | None:
    """Return the candle in a line, None if it was open. Raises `ValueError`."""
    try:
        found, is_closed = _read(line, form)
    except (TypeError, KeyError, ValueError):
        raise ValueError("one of its last lines is not a candle") from None
    return found if is_closed else None


def _time_of(line: bytes, form: str) -> int | None:
    """Return when the candle in a line opened, None if the line is not whole. Raises `ValueError`."""
    if not line.endswith(b"\n"):
        return None
    try:
        return _read(line, form)[0].time
    except (TypeError, KeyError, ValueError):
        raise ValueError("its first line is not a candle") from None


def _read(line: bytes, form: str) -> tuple[Candle, bool]:
    if form == "csv":
        time, *values = line.strip().split(b",")
        count = len(Candle._fields) - 1
        is_whole = len(values) in (count, count + len(EXTRA_FIELDS))
        return Candle(int(time), *map(float, values[:count])), is_whole
    row = orjson.loads(line)
    return Candle(**{name: row[name] for name in Candle._fields}), row.get("is_closed") is True
