"""Encoded candles: cutting and joining text gives what encoding the same candles gives."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.model import Candle
from relay.storage.chunks import CSV_HEAD, EMPTY, Chunk, Packed, as_csv, as_lines, decode, encode, joined, pack, unpack

values = st.floats(allow_nan=False, allow_infinity=False, width=64)
candles = st.builds(Candle, st.integers(0, 1 << 40), values, values, values, values, values)
rows = st.lists(candles, max_size=12, unique_by=lambda candle: candle.time).map(sorted)


def objects(chunk: Chunk) -> list[Candle]:
    return [Candle(**one) for one in json.loads(b"[%b]" % chunk.text)]


def test_a_candle_is_written_as_the_contract_says() -> None:
    chunk = encode([Candle(time=60, open=1.0, high=2.5, low=0.5, close=2.0, volume=7.25)])
    assert chunk.text == b'{"time":60,"open":1.0,"high":2.5,"low":0.5,"close":2.0,"volume":7.25}'


@given(rows, st.integers(-1, 13), st.integers(-1, 13), st.integers(0, 13), st.booleans())
def test_a_cut_holds_the_candles_of_its_range(
    some: list[Candle], first: int, last: int, limit: int, newest: bool
) -> None:
    times = [-1, *(candle.time for candle in some), 1 << 41]
    start, end = times[min(first + 1, len(times) - 1)], times[min(last + 1, len(times) - 1)]
    inside = [candle for candle in some if start <= candle.time < end]
    wanted = inside[max(len(inside) - limit, 0) :] if newest else inside[:limit]
    cut = encode(some).within(start, end, limit, newest=newest)
    assert objects(cut) == wanted
    assert list(cut.times) == [candle.time for candle in wanted]


def test_a_time_is_not_found_within_a_longer_one() -> None:
    chunk = encode([Candle(time, 1.0, 1.0, 1.0, 1.0) for time in (17, 170, 1700)])
    assert objects(chunk.within(170, 1700, 99, newest=False)) == [Candle(170, 1.0, 1.0, 1.0, 1.0)]


@given(rows, st.integers(0, 12))
def test_parts_join_to_the_whole(some: list[Candle], at: int) -> None:
    assert objects(joined([encode(some[:at]), EMPTY, encode(some[at:])])) == some


@given(rows)
def test_what_was_packed_comes_back(some: list[Candle]) -> None:
    chunk = unpack(pack(encode(some)))
    assert (objects(chunk), list(chunk.times)) == (some, [candle.time for candle in some])
    assert decode(chunk) == some


@given(rows.filter(bool), st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_chunk_is_noticed(some: list[Candle], at: int, flip: int) -> None:
    head, text = pack(encode(some))
    data = bytearray(text)
    data[at % len(data)] ^= flip
    with pytest.raises(ValueError, match="damaged"):
        unpack(Packed(head, bytes(data)))


@pytest.mark.parametrize(("head", "text"), [(b"", b""), (b"\x01", b""), (bytes(8), b"{")])
def test_a_chunk_that_is_cut_off_is_noticed(head: bytes, text: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpack(Packed(head, text))


@given(rows)
def test_lines_hold_one_object_each(some: list[Candle]) -> None:
    lines = as_lines(encode(some))
    assert [Candle(**json.loads(line)) for line in lines.splitlines()] == some
    assert lines.endswith(b"\n") or not some


@given(rows)
def test_csv_holds_one_row_each(some: list[Candle]) -> None:
    text = (CSV_HEAD + as_csv(encode(some))).decode()
    read = list(csv.DictReader(io.StringIO(text)))
    assert [
        Candle(int(row["time"]), *(float(row[name]) for name in ("open", "high", "low", "close", "volume")))
        for row in read
    ] == some
