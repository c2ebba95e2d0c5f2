"""Closing candles for venues that do not say when one is closed."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from relay import Candle, CloseOnNext, PriceUpdate, StreamKey

KEY, OTHER = StreamKey("X", "1m"), StreamKey("Y", "1m")


def candle(opened: int, close: float = 1.0) -> Candle:
    return Candle(opened, 1.0, 9.0, 0.5, close, 2.0)


def test_candle_is_closed_with_its_last_values_when_the_next_one_begins() -> None:
    closing = CloseOnNext()
    assert closing.take(KEY, candle(60, 2.0), 60_100) == (PriceUpdate(KEY, candle(60, 2.0), False, 60_100),)
    assert closing.take(KEY, candle(60, 3.0), 60_200) == (PriceUpdate(KEY, candle(60, 3.0), False, 60_200),)
    assert closing.take(KEY, candle(120), 120_100) == (
        PriceUpdate(KEY, candle(60, 3.0), True, 120_100),
        PriceUpdate(KEY, candle(120), False, 120_100),
    )


def test_streams_do_not_close_one_another() -> None:
    closing = CloseOnNext()
    closing.take(KEY, candle(60))
    assert [update.is_closed for update in closing.take(OTHER, candle(120))] == [False]


def test_older_candle_is_closed_and_changes_nothing_else() -> None:
    closing = CloseOnNext()
    closing.take(KEY, candle(120, 5.0))
    assert closing.take(KEY, candle(60, 2.0)) == (PriceUpdate(KEY, candle(60, 2.0), True),)
    assert closing.take(KEY, candle(180))[0] == PriceUpdate(KEY, candle(120, 5.0), True)


def test_forgotten_candle_is_left_open() -> None:
    closing = CloseOnNext()
    for key in (KEY, OTHER):
        closing.take(key, candle(60))
    closing.forget([KEY])
    assert [update.is_closed for update in closing.take(KEY, candle(120))] == [False]
    assert [update.is_closed for update in closing.take(OTHER, candle(120))] == [True, False]
    closing.forget()
    assert [update.is_closed for update in closing.take(OTHER, candle(180))] == [False]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=40))
def test_what_is_open_is_always_the_newest_and_is_closed_once_it_is_passed(states: Sequence[tuple[int, int]]) -> None:
    closing = CloseOnNext()
    newest: dict[int, float] = {}
    for opened, close in states:
        before = max(newest, default=opened)
        updates = closing.take(KEY, candle(opened, float(close)))
        newest[opened] = float(close)
        assert updates[-1].candle == candle(opened, float(close))
        assert updates[-1].is_closed == (opened < before)
        passed = [update.candle for update in updates[:-1]]
        assert passed == ([candle(before, newest[before])] if opened > before else [])
