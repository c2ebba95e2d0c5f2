"""Finds what is wrong with a database file: rows, spans and encoded candles against each other; changes nothing."""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from typing import NamedTuple, TypeAlias

import orjson

from relay.core.intervals import INTERVALS, length_s
from relay.core.model import NO_EXTRAS, Candle, CandleExtras, extend
from relay.core.spans import Span, clip_spans, merge_spans
from relay.core.written_numbers import is_readable
from relay.storage.chunks import Packed, encode, unpack, window_s
from relay.storage.inspect import FUTURE_S, StoredStream, has_chunks, has_extras
from relay.storage.schema import reason_of

_EXAMPLES = 5
_DAY_S = 86_400
_SHORTEST_MONTH_S = 28 * _DAY_S

# Number, until, head and text of a stored chunk.
_Chunk: TypeAlias = tuple[int, int, bytes, bytes]


class Fault(NamedTuple):
    """One kind of fault of one stream (of the file: `stream` is empty), how often, and the first of them.

    Examples are open times, or texts where it is not about candles.
    """

    stream: str
    what: str
    times: int
    examples: Sequence[int | str]


class Verified(NamedTuple):
    """How much was looked at, and what is wrong."""

    candles: int
    spans: int
    chunks: int
    faults: Sequence[Fault]


def verify(connection: sqlite3.Connection, streams: Sequence[StoredStream], now: float) -> Verified:
    """Check a file that `upkeep.reading` opened; `now` is in Unix seconds. Holds one window of candles at a time.

    What coverage claims can be contradicted by the data only: candles where it says that nobody can know yet, and a
    larger candle that it says does not exist although there are smaller ones in it.
    """
    verifier = _Verifier(connection)
    verifier.check_file()
    known = [stream for stream in streams if stream.key.interval in INTERVALS]
    for stream in streams:
        if stream not in known:
            verifier.add("", "a stream has an unknown interval", str(stream))
    for stream in known:
        verifier.check_spans(stream, now)
        verifier.check_rows(stream, now)
        for smaller in known:
            if _fits_into(smaller, stream):
                verifier.check_nothing_lacks(stream, smaller)
    verifier.check_total()
    spans = sum(len(stream.spans) for stream in streams)
    return Verified(verifier.candles, spans, verifier.chunks, verifier.faults())


class _Verifier:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._has_chunks = has_chunks(connection)
        self._has_extras = has_extras(connection)
        self._found: dict[tuple[str, str], tuple[int, list[int | str]]] = {}
        self.candles = 0
        self.chunks = 0

    def add(self, stream: object, what: str, example: int | str) -> None:
        key = (str(stream), what)
        count, examples = self._found.get(key, (0, []))
        if len(examples) < _EXAMPLES:
            examples.append(example)
        self._found[key] = (count + 1, examples)

    def faults(self) -> list[Fault]:
        return [Fault(*key, count, tuple(examples)) for key, (count, examples) in self._found.items()]

    @contextmanager
    def _readable(self, stream: object = "") -> Iterator[None]:
        # The other streams may still be read.
        try:
            yield
        except sqlite3.DatabaseError as error:
            self.add(stream, "cannot be read", reason_of(error))

    # -- the file ----------------------------------------------------------------------------------

    def check_file(self) -> None:
        with self._readable():
            for (text,) in self._connection.execute("PRAGMA integrity_check"):
                if text != "ok":
                    self.add("", "SQLite finds the file damaged", str(text))
        with self._readable():
            for table, *_ in self._connection.execute("PRAGMA foreign_key_check"):
                self.add("", "rows belong to no stream", str(table))
        with self._readable():
            for name, body in self._connection.execute("SELECT name, body FROM documents"):
                try:
                    orjson.loads(body)
                except (orjson.JSONDecodeError, TypeError):
                    self.add("", "a document is not JSON", str(name))

    def check_total(self) -> None:
        with self._readable():
            counted, told = self._connection.execute(
                "SELECT (SELECT count(*) FROM candles), (SELECT candles FROM totals)"
            ).fetchone()
            if counted != told:
                self.add("", "the stored number of candles is wrong", f"{told}, there are {counted}")

    # -- one stream --------------------------------------------------------------------------------

    def check_spans(self, stream: StoredStream, now: float) -> None:
        latest = now + 1 + FUTURE_S
        for span in stream.spans:
            if span.end <= span.start:
                self.add(stream, "a span is empty", span.start)
            if span.end > latest:
                self.add(stream, "a span ends in the future", span.end)
        for before, span in pairwise(stream.spans):
            if span.start <= before.end:
                self.add(stream, "a span begins before the one before it ends", span.start)

    def check_rows(self, stream: StoredStream, now: float) -> None:
        shortest = _shortest(stream.key.interval)
        length = window_s(stream.key.interval)
        last: int | None = None
        with self._readable(stream):
            chunks = self._chunks(stream)
            chunk = next(chunks, None)
            for number, rows in groupby(self._rows(stream), key=lambda row: row.time // length):
                while chunk is not None and chunk[0] < number:
                    self.add(stream, "encoded candles where there are none", chunk[0] * length)
                    chunk = next(chunks, None)
                candles = []
                for row in rows:
                    if row.time > now + FUTURE_S:
                        self.add(stream, "a candle lies in the future", row.time)
                    if last is not None and row.time - last < shortest:
                        self.add(stream, "a candle begins before the one before it ends", row.time)
                    last = row.time
                    if self._is_sound(stream, row):
                        candles.append(row)
                        self._check_extras(stream, row)
                    self.candles += 1
                if chunk is not None and chunk[0] == number:
                    self._check_chunk(stream, chunk, candles)
                    chunk = next(chunks, None)
            while chunk is not None:
                self.add(stream, "encoded candles where there are none", chunk[0] * length)
                chunk = next(chunks, None)

    def _rows(self, stream: StoredStream) -> Iterator[Candle]:
        extras = f", {', '.join(CandleExtras._fields)}" if self._has_extras else ""
        sql = f"SELECT time, open, high, low, close, volume{extras} FROM candles WHERE stream_id = ? ORDER BY time"
        for row in self._connection.execute(sql, (stream.id,)):
            candle = Candle._make(row[:6])
            yield candle if row[6:] in ((), NO_EXTRAS) else extend(candle, CandleExtras._make(row[6:]))

    def _chunks(self, stream: StoredStream) -> Iterator[_Chunk]:
        if not self._has_chunks:
            return iter(())
        sql = "SELECT number, until, head, text FROM chunks WHERE stream_id = ? ORDER BY number"
        return self._connection.execute(sql, (stream.id,))

    def _is_sound(self, stream: StoredStream, row: Candle) -> bool:
        if not all(isinstance(value, float) for value in row[1:]):
            self.add(stream, "a value is not a number", row.time)
            return False
        fault = row.fault()
        if fault is not None:
            self.add(stream, fault, row.time)
        return True

    def _check_extras(self, stream: StoredStream, row: Candle) -> None:
        if row.extras is None:
            return
        quote_volume, trades, taker_volume, taker_quote_volume, written = row.extras
        volumes: tuple[object, ...] = (quote_volume, taker_volume, taker_quote_volume)
        if not all(one is None or (isinstance(one, float) and 0 <= one < math.inf) for one in volumes):
            self.add(stream, "the quote volume or what takers bought is not a number of 0 or more", row.time)
        elif written is not None and not (isinstance(written, str) and is_readable(row)):
            self.add(stream, "the numbers as they were written are not those of the candle", row.time)
        if trades is not None and not (isinstance(trades, int) and trades >= 0):
            self.add(stream, "the number of trades is not a whole number of 0 or more", row.time)

    def _check_chunk(
        self, stream: StoredStream, chunk: tuple[int, int, bytes, bytes], candles: Sequence[Candle]
    ) -> None:
        self.chunks += 1
        number, until, head, text = chunk
        begin = number * window_s(stream.key.interval)
        try:
            found = unpack(Packed(head, text))
        except (ValueError, TypeError):
            # Whoever reads it finds that out as well, and makes it anew: no harm is done.
            self.add(stream, "encoded candles are damaged", begin)
            return
        expected = encode([candle for candle in candles if candle.time < until])
        if (list(found.times), found.text) != (list(expected.times), expected.text):
            self.add(stream, "encoded candles differ from the candles", begin)

    def check_nothing_lacks(self, stream: StoredStream, smaller: StoredStream) -> None:
        with self._readable(stream):
            for empty in self._empty(stream):
                rows = self._connection.execute(
                    "SELECT time FROM candles WHERE stream_id = ? AND time >= ? AND time < ? ORDER BY time",
                    (smaller.id, *empty),
                )
                for (time,) in rows:
                    self.add(stream, f"the span is stored as empty, but there is a candle of {smaller.key}", time)

    def _empty(self, stream: StoredStream) -> Iterator[Span]:
        """Yield the times that no candle of a stream covers, as far as it is known that none does."""
        length = length_s(stream.key.interval)
        busy: list[Span] = []
        for (time,) in self._connection.execute(
            "SELECT time FROM candles WHERE stream_id = ? ORDER BY time", (stream.id,)
        ):
            if busy and time <= busy[-1].end:
                busy[-1] = Span(busy[-1].start, time + length)
            else:
                busy.append(Span(time, time + length))
        for span in merge_spans(stream.spans):
            # A candle that covers a moment opened less than its length before.
            at, end = span.start + length - 1, span.end
            for covered in clip_spans(busy, at, end):
                if at < covered.start:
                    yield Span(at, covered.start)
                at = covered.end
            if at < end:
                yield Span(at, end)


def _shortest(interval: str) -> int:
    """Return how far apart two candles are at least: days may be shorter by an hour, months have 28 days."""
    if interval == "1M":
        return _SHORTEST_MONTH_S
    length = length_s(interval)
    return length if length < 3600 else length - 3600 if length >= _DAY_S else min(length, 3600)


def _fits_into(smaller: StoredStream, larger: StoredStream) -> bool:
    # Only below a day: venues date longer candles by calendars of their own.
    same = smaller.provider == larger.provider and smaller.key.symbol == larger.key.symbol
    return same and length_s(smaller.key.interval) < length_s(larger.key.interval) < _DAY_S
