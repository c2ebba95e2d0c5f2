"""Comparisons of known candles with a later answer: a revision, or the past of something else."""

from relay.core.model import Candle, ExtendedCandle, widened
from relay.history.comparison import Comparison, compare

KNOWN = {time: Candle(time, 80.0, 82.0, 79.0, 81.0, 5.0) for time in range(0, 600, 60)}


def test_equal_candles_are_compared_and_nothing_changed() -> None:
    assert compare(KNOWN, [*KNOWN.values()]) == Comparison(10, (), (), False)


def test_a_difference_is_a_change_however_small() -> None:
    changed = KNOWN[60]._replace(volume=5.000_001)
    assert compare(KNOWN, [KNOWN[0], changed, KNOWN[120]]) == Comparison(3, (changed,), (), False)


def test_a_candle_that_was_not_known_is_found() -> None:
    found = Candle(660, 1.0, 1.0, 1.0, 1.0)
    assert compare(KNOWN, [KNOWN[0], found]) == Comparison(1, (), (found,), False)


def test_what_an_answer_leaves_out_says_nothing() -> None:
    assert compare(KNOWN, []) == Comparison(0, (), (), False)


def test_most_prices_far_away_are_another_instrument() -> None:
    other = [one._replace(open=5.0, high=5.2, low=4.9, close=5.1) for one in KNOWN.values()]
    assert compare(KNOWN, other).is_other
    assert not compare(KNOWN, [*other[:5], *[*KNOWN.values()][5:]]).is_other
    assert not compare(KNOWN, other[:1]).is_other


def test_many_small_differences_are_revisions() -> None:
    moved = [one._replace(high=one.high + 0.1) for one in KNOWN.values()]
    result = compare(KNOWN, moved)
    assert (len(result.changed), result.is_other) == (10, False)


def test_a_candle_that_had_to_be_widened_says_nothing_of_one_that_is_known() -> None:
    lifted = widened(KNOWN[60]._replace(close=82.1))
    assert lifted == (60, 80.0, 82.1, 79.0, 82.1, 5.0)
    assert compare(KNOWN, [KNOWN[0], lifted, KNOWN[120]]) == Comparison(2, (), (), False)
    assert compare({}, [lifted]) == Comparison(0, (), (lifted,), False)


def full(time: int, trades: int | None) -> ExtendedCandle:
    return ExtendedCandle(*KNOWN[time], trades=trades)


def test_other_extras_are_a_difference_of_those_and_where_none_were_known_they_are_filled_in() -> None:
    known = {0: full(0, 3), 60: full(60, 3), 120: KNOWN[120], 180: full(180, 3), 240: full(240, 3)}
    changed = full(240, 9)._replace(volume=6.0)
    result = compare(known, [full(0, 3), full(60, 4), full(120, 3), KNOWN[180], changed])
    assert result == Comparison(5, (changed,), (), False, (full(60, 4),), (full(120, 3),))
    assert (result.refined[0].trades, result.filled[0].trades) == (4, 3)
