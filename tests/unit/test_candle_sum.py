"""The candle that several make: exact sums of decimal numbers, and what one of them lacks is not known."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.candle_sum import CandleSum
from relay.core.model import EXTRA_FIELDS, Candle, CandleExtras, ExtendedCandle, WidenedCandle, extend, is_widened
from relay.core.written_numbers import written_candle


def test_volumes_are_added_as_the_decimal_numbers_that_they_are() -> None:
    made = CandleSum(0, [Candle(60 * n, 1, 1, 1, 1, volume) for n, volume in enumerate((0.1, 0.2, 0.3, 1e-8))]).candle()
    assert made.volume == 0.60000001


amounts = st.integers(0, 10**15).map(lambda number: f"{number // 10**8}.{number % 10**8:08}")


@given(st.lists(st.tuples(amounts, amounts, amounts, amounts, st.integers(0, 10**6)), min_size=1, max_size=40))
def test_sums_of_texts_are_exact_to_the_last_digit_of_a_float(rows: list[tuple[str, str, str, str, int]]) -> None:
    candles = [
        written_candle(60 * n, ("2.0", "3.0", "1.0", "2.5", *texts), trades) for n, (*texts, trades) in enumerate(rows)
    ]
    made = CandleSum(0, candles).candle()
    totals = [float(sum(map(Decimal, column))) for column in zip(*[row[:4] for row in rows], strict=True)]
    assert [made.volume, made.quote_volume, made.taker_volume, made.taker_quote_volume] == totals
    assert made.trades == sum(row[4] for row in rows)
    # Nobody wrote these numbers.
    assert made.extras is not None
    assert made.extras.written is None


def test_numbers_with_more_digits_than_a_float_holds_are_added_by_their_texts() -> None:
    # Both read as 12345678901234568.0; their sum is odd in the last place.
    texts = ("2.0", "3.0", "1.0", "2.5", "12345678901234567.5", "0.0", "0.0", "0.0")
    made = CandleSum(0, [written_candle(0, texts, 1), written_candle(60, texts, 1)]).candle()
    assert made.volume == 24691357802469135.0


@pytest.mark.parametrize("field", EXTRA_FIELDS)
def test_what_one_part_lacks_is_not_known_of_the_whole(field: str) -> None:
    known = CandleExtras(1.0, 2, 0.5, 0.25)
    parts = [extend(Candle(0, 1, 1, 1, 1), known), extend(Candle(60, 1, 1, 1, 1), known._replace(**{field: None}))]
    made = CandleSum(0, parts).candle()
    doubled = CandleExtras(2.0, 4, 1.0, 0.5)._replace(**{field: None})
    assert made.extras == doubled


def test_one_plain_part_makes_the_whole_plain() -> None:
    parts = [ExtendedCandle(0, 1, 1, 1, 1, trades=3), Candle(60, 1, 1, 1, 1)]
    assert CandleSum(0, parts).candle().extras is None


def test_prices_are_those_of_first_highest_lowest_and_last() -> None:
    parts = [Candle(60, 5, 7, 4, 6, 1), Candle(120, 6, 9, 6, 8, 1), Candle(180, 8, 8, 3, 3.5, 1)]
    assert CandleSum(0, parts).candle() == Candle(0, 5, 9, 3, 3.5, 3)


def test_a_widened_part_makes_the_whole_widened() -> None:
    assert is_widened(CandleSum(0, [Candle(0, 1, 1, 1, 1), WidenedCandle(60, 1, 2, 1, 2)]).candle())


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(0, 999)), min_size=2, max_size=20), st.data())
def test_two_sums_in_a_row_are_the_sum_of_all(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    candles = [
        ExtendedCandle(60 * n, price, price + 1, price - 1, price, volume / 10, trades=volume)
        for n, (price, volume) in enumerate(rows)
    ]
    place = data.draw(st.integers(0, len(candles)))
    one, other = CandleSum(0, candles[:place]), CandleSum(0, candles[place:])
    one.extend(other)
    assert one.candle() == CandleSum(0, candles).candle()
    assert CandleSum(0, candles[:-1]).with_next(candles[-1]).candle() == one.candle()
    assert one.candle().trades == sum(volume for _, volume in rows)


def test_nothing_makes_no_candle() -> None:
    with pytest.raises(ValueError, match="no candle makes up the one of 60"):
        CandleSum(60).candle()
