"""Closed candles as the text that clients get: encoded once, then only cut and joined; pure.

A stream's time is divided into windows of `WINDOW` candles. The candles of one window make one chunk. Chunks of another
`CandleForm` than `PLAIN` are kept in memory only, and made where somebody wants them.
"""

import sys
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson

from relay.core.compression import crc32
from relay.core.intervals import length_s
from relay.core.model import EXTRA_FIELDS, NO_EXTRAS, Candle

WINDOW = 512
_NEAR = 2048
CSV_HEAD = b"time,open,high,low,close,volume\n"
EXTENDED_CSV_HEAD = b"time,open,high,low,close,volume,quote_volume,trades,taker_volume,taker_quote_volume\n"

_FIRST = b'{"time":'
_CSV_MARKS = ((b',"open":', b","), (b',"high":', b","), (b',"low":', b","), (b',"close":', b","), (b',"volume":', b","))
_BARE = b"".join([b',"%b":null' % name.encode() for name in EXTRA_FIELDS])
_EXTRA_MARKS = tuple((b',"%b":' % name.encode(), b",") for name in EXTRA_FIELDS)


class CandleForm(ABC):
    """One way to write candles for clients: JSON values joined by commas. There is one object of each form.

    Every candle begins with `first`, its open time in seconds, and `behind`. `is_extended` says that the candles have
    to carry what is known beside prices and volume.
    """

    first = b'{"time":'
    behind = b","
    is_extended = True

    @abstractmethod
    def text(self, candles: Sequence[Candle]) -> bytes:
        """Write candles, which are in order."""

    @abstractmethod
    def bare_times(self, chunk: "Chunk") -> list[int]:
        """Return the open times of the candles of a chunk that lack what the form is to have."""


class _Plain(CandleForm):
    is_extended = False

    def text(self, candles: Sequence[Candle]) -> bytes:
        return _joined_values(
            [
                {"time": time, "open": opened, "high": high, "low": low, "close": close, "volume": volume}
                for time, opened, high, low, close, volume in candles
            ]
        )

    def bare_times(self, chunk: "Chunk") -> list[int]:
        return []


class _Extended(CandleForm):
    def text(self, candles: Sequence[Candle]) -> bytes:
        return _joined_values([_extended(candle) for candle in candles])

    def bare_times(self, chunk: "Chunk") -> list[int]:
        if _BARE not in chunk.text:
            return []
        rows = orjson.loads(b"[%b]" % chunk.text)
        return [row["time"] for row in rows if all(row[name] is None for name in EXTRA_FIELDS)]


PLAIN: CandleForm = _Plain()
"""Objects with open time, prices and volume, as they are stored."""
EXTENDED: CandleForm = _Extended()
"""Objects that also have what candles carry beside these, null where it is not known."""


def _joined_values(rows: Sequence[object]) -> bytes:
    return orjson.dumps(rows)[1:-1]


class Chunk(NamedTuple):
    """Candles as JSON values of one form joined by commas, and their open times, ascending.

    `is_full` says that none of them lacks what the form is to have; False, that the text has to be looked at.
    """

    times: Sequence[int]
    text: bytes
    form: CandleForm = PLAIN
    is_full: bool = False

    def bare_times(self) -> list[int]:
        """Return the open times of the candles that lack what the form is to have."""
        return [] if self.is_full else self.form.bare_times(self)

    def part(self, first: int, last: int) -> "Chunk":
        """Return the candles from index `first` up to, not including, `last`."""
        count = len(self.times)
        if first >= last:
            return EMPTY
        if first == 0 and last == count:
            return self
        begin = self._place(first) if first else 0
        end = self._place(last) - 1 if last < count else len(self.text)
        return Chunk(self.times[first:last], self.text[begin:end], self.form, self.is_full)

    def within(self, start: int, end: int, limit: int, *, newest: bool) -> "Chunk":
        """Return the candles with `start` ≤ open time < `end`; the first `limit`, or with `newest` the last."""
        first, last = bisect_left(self.times, start), bisect_left(self.times, end)
        return self.part(max(first, last - limit), last) if newest else self.part(first, min(last, first + limit))

    def _place(self, index: int) -> int:
        # With what is behind the number: 17 must not be found in 1700.
        mark = b"%b%d%b" % (self.form.first, self.times[index], self.form.behind)
        # Candles of a stream are of much the same length: to search from the start would take longer than all else.
        near = len(self.text) * index // len(self.times)
        found = self.text.find(mark, max(0, near - _NEAR), near + _NEAR)
        return found if found >= 0 else self.text.index(mark)


EMPTY = Chunk(array("q"), b"", is_full=True)


def encode(candles: Sequence[Candle], form: CandleForm = PLAIN) -> Chunk:
    """Encode candles, which are in order."""
    chunk = Chunk(array("q", [candle.time for candle in candles]), form.text(candles), form)
    # Looked at once, not for each answer that is cut out of it.
    return chunk if form.bare_times(chunk) else chunk._replace(is_full=True)


def _extended(candle: Candle) -> dict[str, float | None]:
    time, opened, high, low, close, volume = candle
    quote_volume, trades, taker_volume, taker_quote_volume, _ = candle.extras or NO_EXTRAS
    return {
        "time": time,
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": volume,
        "quote_volume": quote_volume,
        "trades": trades,
        "taker_volume": taker_volume,
        "taker_quote_volume": taker_quote_volume,
    }


def joined(chunks: Iterable[Chunk]) -> Chunk:
    """Return one chunk with the candles of several, which are in order."""
    found = [chunk for chunk in chunks if chunk.times]
    if len(found) < 2:
        return found[0] if found else EMPTY
    times = array("q")
    for chunk in found:
        times.extend(chunk.times)
    return Chunk(times, b",".join([chunk.text for chunk in found]), found[0].form, all(one.is_full for one in found))


class Packed(NamedTuple):
    """A chunk as it is stored: the check sum of the text and the open times; and the text.

    Not compressed: unpacking would take longer than everything else that a cold answer needs.
    """

    head: bytes
    text: bytes


def pack(chunk: Chunk) -> Packed:
    """Return a chunk as it is stored."""
    return Packed(_in_order_of_files(array("q", [crc32(chunk.text), *chunk.times])).tobytes(), chunk.text)


def unpack(packed: Packed) -> Chunk:
    """Read what `pack` made. Raises `ValueError` when it is damaged."""
    head, text = packed
    times = array("q")
    try:
        times.frombytes(head)
        check = _in_order_of_files(times).pop(0)
    except (ValueError, IndexError):
        raise ValueError("a stored chunk is damaged: it is cut off") from None
    if crc32(text) != check:
        raise ValueError("a stored chunk is damaged: its check sum differs")
    return Chunk(times, text, is_full=True)


def _in_order_of_files(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def window_s(interval: str) -> int:
    """Return the length of a window in seconds."""
    return WINDOW * length_s(interval)


def decode(chunk: Chunk) -> list[Candle]:
    """Return the candles."""
    return [Candle(*row.values()) for row in orjson.loads(b"[%b]" % chunk.text)]


def as_lines(chunk: Chunk) -> bytes:
    """Return newline-delimited JSON."""
    return chunk.text.replace(b"},{", b"}\n{") + b"\n" if chunk.times else b""


def as_named_lines(chunk: Chunk, names: bytes) -> bytes:
    """Return newline-delimited JSON in which each line begins with some fields, a comma after the last one."""
    # Not by `%`: a name may have the sign.
    return b"{" + names + chunk.text[1:].replace(b"},{", b"}\n{" + names) + b"\n" if chunk.times else b""


def as_csv(chunk: Chunk, *, extended: bool = False) -> bytes:
    """Return CSV rows without the head, columns in the order of `CSV_HEAD` or `EXTENDED_CSV_HEAD`; null is empty."""
    text = chunk.text.replace(b"}," + _FIRST, b"\n")
    for mark, comma in (*_CSV_MARKS, *_EXTRA_MARKS) if extended else _CSV_MARKS:
        text = text.replace(mark, comma)
    if extended:
        text = text.replace(b",null", b",")
    return text[len(_FIRST) : -1] + b"\n" if chunk.times else b""
