"""What a candle carries beside prices and volume, and the texts of its numbers, which are given back as they came."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.model import (
    Candle,
    CandleExtras,
    ExtendedCandle,
    extend,
    has_other_extras,
    is_bare,
    newer_of,
    repeats,
)
from relay.core.written_numbers import (
    is_readable,
    packed,
    repacked,
    with_decimals,
    written_candle,
    written_rest,
    written_texts,
)

# Rows as Binance wrote them, of each symbol and interval on record the first, the last and those that no float holds.
KLINES: dict[str, list[list[Any]]] = json.loads(
    (Path(__file__).parents[1] / "data" / "binance" / "klines.json").read_text(encoding="utf-8")
)
ROWS = [row for rows in KLINES.values() for row in rows]
NUMBERS = st.from_regex(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,12})?", fullmatch=True)

PLAIN = Candle(60, 1.0, 4.0, 0.5, 2.0, 10.0)
FULL = ExtendedCandle(*PLAIN, quote_volume=20.0, trades=3, taker_volume=4.0, taker_quote_volume=8.0)


def texts_of(row: list[Any]) -> tuple[str, ...]:
    return (*row[1:6], row[7], row[9], row[10])


def candle_of(row: list[Any]) -> ExtendedCandle:
    return written_candle(row[0] // 1000, texts_of(row), row[8])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_recorded_row_is_given_back_as_it_was_written(row: list[Any]) -> None:
    candle = candle_of(row)
    assert candle == Candle(row[0] // 1000, *map(float, row[1:6]))
    assert candle.quote_volume == float(row[7])
    assert candle.trades == row[8]
    assert candle.taker_volume == float(row[9])
    assert candle.taker_quote_volume == float(row[10])
    assert written_texts(candle) == texts_of(row)
    assert is_readable(candle)


def test_some_recorded_numbers_have_more_digits_than_a_float_holds() -> None:
    lengths = [len(candle_of(row).extras.written or "") for row in ROWS]
    assert min(lengths) == len(".8")
    assert max(lengths) > len("1324882983.36818470")


@given(st.lists(NUMBERS, min_size=8, max_size=8))
def test_any_decimal_numbers_are_given_back(texts: list[str]) -> None:
    candle = written_candle(60, tuple(texts), 5)
    assert written_texts(candle) == tuple(texts)
    assert is_readable(candle)
    assert packed([*(candle.extras.written or "").split(",")]).count(",") in (0, 7)


@given(st.lists(NUMBERS, min_size=8, max_size=8))
def test_texts_are_packed_once(texts: list[str]) -> None:
    extras = CandleExtras(written=",".join(texts))
    assert repacked(extras).written == packed(texts)
    assert repacked(repacked(extras)) == repacked(extras)


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["0.00000000"] * 8, ".8"),
        (["5"] * 8, ".0"),
        (["1.50"] * 4 + ["2.500"] * 4, ".2,.2,.2,.2,.3,.3,.3,.3"),
        (["1.00000000"] * 7 + ["790664131.15262610"], ".8,.8,.8,.8,.8,.8,.8,790664131.15262610"),
        (["790664131.15262610"] * 8, ",".join(["790664131.15262610"] * 8)),
    ],
)
def test_texts_are_kept_in_few_bytes(texts: list[str], kept: str) -> None:
    assert packed(texts) == kept


@pytest.mark.parametrize(
    ("number", "count", "text"),
    [
        (0.0, 8, "0.00000000"),
        (2.853e-05, 8, "0.00002853"),
        (1e16, 2, "10000000000000000.00"),
        (5.0, 0, "5"),
        (1e22, 0, "10000000000000000000000"),
        (67462293.24, 8, "67462293.24000000"),
    ],
)
def test_a_number_is_written_with_so_many_decimals(number: float, count: int, text: str) -> None:
    assert with_decimals(number, count) == text


@pytest.mark.parametrize("written", ["", "x", ".8,.8", ".x", ".9999", ".", "1,2,3,4,5,6,7,8", ".8,.8,.8,.8,.8,.8,.8,"])
def test_texts_that_are_not_of_the_numbers_are_noticed(written: str) -> None:
    assert not is_readable(extend(PLAIN, FULL.extras._replace(written=written)))


@pytest.mark.parametrize(
    ("texts", "trades"),
    [
        (("1.0",) * 5, 5),
        (("1.0",) * 9, 5),
        (("1.0",) * 7 + ("-1.0",), 5),
        (("1.0",) * 7 + ("NaN",), 5),
        (("1.0",) * 7 + (None,), 5),
        (("1.0",) * 7 + ("9" * 25,), 5),
        (("1.0",) * 8, -1),
        (("1.0",) * 8, 1.5),
        (("1.0",) * 8, True),
        (("1.0",) * 8, 1 << 63),
    ],
)
def test_bad_extras_cost_a_candle_only_those(texts: Any, trades: Any) -> None:
    candle = written_candle(60, texts, trades)
    assert candle == Candle(60, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert is_bare(candle)
    assert written_texts(candle) is None


def test_a_price_that_is_no_number_makes_no_candle() -> None:
    with pytest.raises(ValueError, match="1e5"):
        written_candle(60, ("1.0", "1e5", *["1.0"] * 6), 5)


# -- candles that carry more beside plain ones ---------------------------------------------------------------------


def test_an_extended_candle_stands_where_a_plain_one_does() -> None:
    time, opened, high, low, close, volume = FULL
    assert Candle(time, opened, high, low, close, volume) == FULL == PLAIN
    assert hash(FULL) == hash(PLAIN)
    assert FULL._asdict() == PLAIN._asdict()
    assert (FULL.quote_volume, FULL.trades, FULL.taker_volume, FULL.taker_quote_volume) == (20.0, 3, 4.0, 8.0)
    assert (PLAIN.quote_volume, PLAIN.trades, PLAIN.taker_volume, PLAIN.taker_quote_volume) == (None,) * 4
    copy = pickle.loads(pickle.dumps(FULL))
    assert (copy, copy.extras) == (FULL, FULL.extras)


def test_what_is_made_of_a_written_candle_carries_nothing_that_is_not_its_own() -> None:
    changed = written_candle(60, ("1.0",) * 8, 5)._replace(volume=2.0)
    assert changed.volume == 2.0
    assert is_bare(changed)


def test_extras_alone_can_differ_but_not_from_none() -> None:
    other = extend(PLAIN, FULL.extras._replace(trades=4))
    assert repeats(FULL, PLAIN)
    assert repeats(PLAIN, FULL)
    assert repeats(FULL, extend(PLAIN, FULL.extras._replace(written=".8")))
    assert has_other_extras(FULL, other)
    assert not repeats(FULL, other)
    assert not repeats(None, FULL)
    assert not repeats(FULL, FULL._replace(close=3.0))


def test_a_newer_state_without_extras_keeps_those_of_the_same_values() -> None:
    assert newer_of(FULL, PLAIN) is FULL
    assert newer_of(PLAIN, FULL) is FULL
    assert newer_of(None, PLAIN) is PLAIN
    changed = PLAIN._replace(close=3.0)
    assert newer_of(FULL, changed) is changed


@given(st.lists(NUMBERS, min_size=8, max_size=8), st.text("0123456789,.", max_size=20))
def test_what_else_was_written_is_given_back_beside_the_numbers(texts: list[str], rest: str) -> None:
    candle = written_candle(60, tuple(texts), 5, rest)
    loose = extend(candle, repacked(CandleExtras(*candle.extras[:4], written=f"{','.join(texts)};{rest}")))
    for one in (candle, loose):
        assert written_texts(one) == tuple(texts)
        assert written_rest(one) == rest
        assert is_readable(one)
    assert written_rest(PLAIN) == written_rest(FULL) == ""


def test_what_else_was_written_is_no_other_value() -> None:
    texts = ("1.0", "4.0", "0.5", "2.0", "10.0", "20.0", "4.0", "8.0")
    known, other = written_candle(60, texts, 3), written_candle(60, texts, 3, "1679661581646", (7, 9))
    assert not has_other_extras(known, other)
    assert repeats(known, other)
    assert other.trade_ids == (7, 9)
