"""A price that is far from all before it waits for a second one: mistakes are left out, crashes are told."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import Candle, Leaps, PriceUpdate, StreamKey

KEY, OTHER = StreamKey("EUR/USD", "1m"), StreamKey("USD/JPY", "1m")


def price(value: float, *, at: int = 0, closed: bool = False, low: float | None = None) -> PriceUpdate:
    low = value if low is None else low
    return PriceUpdate(KEY, Candle(60 * at, value, max(value, low), low, value), closed)


def told(updates: Sequence[PriceUpdate]) -> tuple[list[PriceUpdate], list[PriceUpdate]]:
    """Return what is told of the updates, and what is dropped."""
    dropped: list[PriceUpdate] = []
    leaps = Leaps(dropped.append)
    passed = [one for update in updates for one in ((update,) if leaps.passes(update) else leaps.weigh(update))]
    return passed, dropped


@pytest.mark.parametrize("absurd", [1e300, 1100.0, 0.0011, 5.6])
def test_one_absurd_price_among_others_is_left_out(absurd: float) -> None:
    before, wrong, after = price(1.1), price(absurd), price(1.1001)
    assert told([before, wrong, after]) == ([before, after], [wrong])


def test_a_crash_is_told_when_a_second_price_confirms_it() -> None:
    updates = [price(100.0), price(8.0), price(9.0), price(8.5)]
    assert told(updates) == (updates, [])


def test_a_currency_that_loses_six_zeros_is_told_and_so_is_what_follows() -> None:
    updates = [price(5_000_000.0), price(5.0, at=1), price(5.1, at=1), price(5.1, at=1, closed=True), price(5.2, at=2)]
    assert told(updates) == (updates, [])


def test_a_wick_that_the_candle_keeps_is_told_with_the_next_update() -> None:
    """A venue that adds trades up says the lowest price again with each update; a wrong message is said once."""
    updates = [price(100.0), price(99.0, low=8.0), price(98.0, low=8.0), price(98.0, low=8.0, closed=True)]
    assert told(updates) == (updates, [])
    wrong = [price(100.0), price(99.0, low=8.0), price(98.0, low=97.0)]
    assert told(wrong) == ([wrong[0], wrong[2]], [wrong[1]])


def test_two_mistakes_that_disagree_confirm_nothing() -> None:
    updates = [price(1.0), price(1e9), price(1e-9), price(1.0)]
    assert told(updates) == ([updates[0], updates[3]], updates[1:3])


def test_slow_moves_of_any_size_are_told_at_once() -> None:
    updates = [price(1.5**n, at=n, closed=True) for n in range(40)]
    leaps = Leaps(lambda update: None)
    assert all(map(leaps.passes, updates))


def test_streams_do_not_judge_one_another() -> None:
    leaps = Leaps(lambda update: None)
    assert leaps.passes(price(1.1))
    assert leaps.passes(price(157.0)._replace(key=OTHER))


def test_what_is_believed_from_elsewhere_is_what_later_prices_are_near_to() -> None:
    leaps = Leaps(lambda update: None)
    leaps.believe(KEY, price(1.1).candle)
    assert not leaps.passes(price(1100.0))
    leaps.believe(KEY, price(1000.0).candle)
    assert leaps.passes(price(1100.0))


@given(st.lists(st.floats(1e-6, 1e6), max_size=30))
def test_no_level_that_lasts_for_two_prices_is_withheld(prices: Sequence[float]) -> None:
    updates = [price(value, at=n) for n, value in enumerate(prices)]
    passed, dropped = told([*updates, *(update._replace(candle=update.candle) for update in updates[-1:] * 2)])
    assert [update.candle.time for update in passed] == sorted(update.candle.time for update in passed)
    assert passed[-1:] == updates[-1:]
    assert len(passed) + len(dropped) == len(updates) + 2 * bool(updates)
