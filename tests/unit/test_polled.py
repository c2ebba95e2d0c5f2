"""Candles built from the polls of a smaller interval; what polls themselves mean is in test_twelve_data.py."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.twelve_data.forex import ALWAYS, MONEY
from providers.twelve_data.polled import PolledStream
from relay import Candle, PriceUpdate, StreamKey, unreadable
from relay.core.model import widened
from tests.support.examples import examples

NOON = 1_768_392_000  # 2026-01-14 12:00 UTC
MINUTE = StreamKey("EUR/USD", "1m")
FIVE = StreamKey("EUR/USD", "5m")
DAY = StreamKey("EUR/USD", "1d")


def minute(number: int, opened: float, high: float, low: float, close: float) -> Candle:
    return Candle(NOON + 60 * number, opened, high, low, close)


def told(updates: Sequence[PriceUpdate]) -> list[tuple[int, float, float, float, float, bool]]:
    return [((update.candle.time - NOON) // 60, *update.candle[1:5], update.is_closed) for update in updates]


def polled(key: StreamKey, *candles: Candle, now: float = NOON + 100) -> PolledStream:
    stream = PolledStream()
    list(stream.take(key, candles, now))
    return stream


def test_smaller_candles_continue_the_providers_own_state() -> None:
    stream = polled(FIVE, Candle(NOON - 300, 1, 1, 1, 1), Candle(NOON, 1.0, 1.5, 0.9, 1.2))
    updates = list(
        stream.build(FIVE, [minute(1, 1.2, 1.3, 1.1, 1.1), minute(2, 1.1, 1.6, 1.0, 1.4)], NOON + 150, "1m", ALWAYS)
    )
    assert told(updates) == [(0, 1.0, 1.6, 0.9, 1.4, False)]


def test_a_candle_closes_when_a_smaller_one_lies_behind_it() -> None:
    stream = polled(FIVE, Candle(NOON - 300, 1, 1, 1, 1), Candle(NOON, 1.0, 1.5, 0.9, 1.2))
    smaller = [minute(4, 1.2, 1.7, 1.1, 1.6), minute(5, 1.6, 1.8, 1.55, 1.7)]
    assert told(list(stream.build(FIVE, smaller, NOON + 304, "1m", ALWAYS))) == [
        (0, 1.0, 1.7, 0.9, 1.6, True),
        (5, 1.6, 1.8, 1.55, 1.7, False),
    ]
    assert list(stream.built) == [NOON]


def test_a_candle_of_which_all_is_known_closes_a_minute_after_its_end() -> None:
    stream = polled(FIVE, Candle(NOON - 300, 1, 1, 1, 1), Candle(NOON, 1.0, 1.5, 0.9, 1.2))
    assert told(list(stream.build(FIVE, [minute(4, 1.2, 1.2, 1.1, 1.1)], NOON + 361, "1m", ALWAYS))) == [
        (0, 1.0, 1.5, 0.9, 1.1, True)
    ]


def test_a_day_is_continued_but_neither_closed_nor_begun() -> None:
    opened = NOON - 12 * 3600
    stream = polled(DAY, Candle(opened - 86_400, 1, 1, 1, 1), Candle(opened, 1.0, 1.5, 0.9, 1.2), now=NOON)
    last, first = Candle(opened + 86_340, 1.2, 1.9, 1.1, 1.3), Candle(opened + 86_400, 1.3, 9.0, 0.1, 1.3)
    updates = list(stream.build(DAY, [last, first], opened + 90_000, "1m", ALWAYS))
    assert [(update.candle, update.is_closed) for update in updates] == [(Candle(opened, 1.0, 1.9, 0.9, 1.3), False)]


def test_values_that_the_provider_has_otherwise_are_told_again_and_others_not() -> None:
    stream = polled(FIVE, Candle(NOON - 300, 1, 1, 1, 1), Candle(NOON, 1.0, 1.5, 0.9, 1.2))
    list(stream.build(FIVE, [minute(number, 1.2, 1.5, 1.1, 1.2) for number in range(1, 11)], NOON + 604, "1m", ALWAYS))
    mine = [stream.built[NOON], stream.built[NOON + 300]]
    newest = Candle(NOON + 600, 1.2, 1.5, 1.1, 1.2)
    assert stream.rows_needed("5m", NOON + 604, 0) >= 3
    theirs = mine[1]._replace(high=1.6)
    differing, has_agreed = stream.compare(FIVE, [mine[0], theirs, newest])
    assert told(differing) == [(5, 1.2, 1.6, 1.1, 1.2, True)]
    assert (has_agreed, stream.built) == (False, {})
    assert list(stream.take(FIVE, [mine[0], theirs, newest], NOON + 604))[-1].candle == newest


def test_a_candle_that_the_provider_does_not_have_is_a_difference() -> None:
    stream = polled(FIVE, Candle(NOON - 300, 1, 1, 1, 1), Candle(NOON, 1.0, 1.5, 0.9, 1.2))
    list(stream.build(FIVE, [minute(number, 1.2, 1.5, 1.1, 1.2) for number in range(1, 11)], NOON + 604, "1m", ALWAYS))
    assert stream.compare(FIVE, [stream.built[NOON], Candle(NOON + 600, 1.2, 1.5, 1.1, 1.2)]) == ([], False)
    assert stream.built == {}


ODD = widened(minute(1, 1.0, 1.3, 0.9, 1.31))
"""A bar whose close came above its high."""


def is_of_minute_1(update: PriceUpdate) -> bool:
    return update.candle.time == NOON + 60


@pytest.mark.parametrize("is_newest", [True, False])
def test_a_closed_bar_is_not_changed_by_one_that_had_to_be_widened(is_newest: bool) -> None:
    good = minute(1, 1.0, 1.3, 0.9, 1.2)
    behind = [] if is_newest else [minute(2, 1.2, 1.2, 1.2, 1.2)]
    stream = polled(MINUTE, minute(0, 1, 1, 1, 1), good, *behind, now=NOON + 200)
    later = NOON + 230
    assert [*filter(is_of_minute_1, stream.take(MINUTE, [ODD, *behind], later))] == []
    better = good._replace(low=0.8)
    told_of_it = [*filter(is_of_minute_1, stream.take(MINUTE, [better, *behind], later))]
    assert told_of_it == [PriceUpdate(MINUTE, better, is_closed=True)]


@pytest.mark.parametrize("is_newest", [True, False])
def test_a_closed_bar_that_had_to_be_widened_is_changed_by_a_better_one(is_newest: bool) -> None:
    good = minute(1, 1.0, 1.3, 0.9, 1.2)
    behind = [] if is_newest else [minute(2, 1.2, 1.2, 1.2, 1.2)]
    stream = polled(MINUTE, minute(0, 1, 1, 1, 1), ODD, *behind, now=NOON + 200)
    told_of_it = [*filter(is_of_minute_1, stream.take(MINUTE, [good, *behind], NOON + 230))]
    assert told_of_it == [PriceUpdate(MINUTE, good, is_closed=True)]


def test_a_bar_that_had_to_be_widened_is_asked_for_until_it_makes_sense() -> None:
    stream = polled(MINUTE, minute(0, 1, 1, 1, 1), ODD, now=NOON + 200)
    list(stream.take(MINUTE, [minute(8, 1, 1, 1, 1), minute(9, 1, 1, 1, 1)], NOON + 550))
    assert stream.rows_needed("1m", NOON + 600, NOON) == 11
    good = minute(1, 1.0, 1.3, 0.9, 1.2)
    told_of_it = [*filter(is_of_minute_1, stream.take(MINUTE, [good, minute(9, 1, 1, 1, 1)], NOON + 600))]
    assert told_of_it == [PriceUpdate(MINUTE, good, is_closed=True)]
    assert stream.doubted == set()


def test_what_was_built_is_not_wronged_by_a_bar_that_had_to_be_widened() -> None:
    stream = polled(FIVE, Candle(NOON - 300, 1, 1, 1, 1), Candle(NOON, 1.0, 1.5, 0.9, 1.2))
    list(stream.build(FIVE, [minute(number, 1.2, 1.5, 1.1, 1.2) for number in range(1, 6)], NOON + 304, "1m", ALWAYS))
    odd = widened(stream.built[NOON]._replace(close=1.51))
    assert stream.compare(FIVE, [odd, Candle(NOON + 300, 1.2, 1.5, 1.1, 1.2)]) == ([], True)


def test_an_answer_with_a_bar_that_had_to_be_widened_begins_anew_to_cover() -> None:
    stream = polled(MINUTE, minute(0, 1, 1, 1, 1))
    stream.covered = 800.0
    stream.readable(MINUTE, [minute(0, 1, 1, 1, 1), minute(1, 1, 1, 1, 1)], NOON + 100)
    assert stream.covered == 800.0
    assert stream.readable(MINUTE, [minute(0, 1, 1, 1, 1), ODD], NOON + 100)[0][1] == ODD
    assert stream.covered is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda larger, smaller: None, True),
        (lambda larger, smaller: setattr(larger, "newest", None), False),
        (lambda larger, smaller: setattr(smaller, "newest", None), False),
        # a hole in the smaller candles since the larger one was asked for
        (lambda larger, smaller: setattr(smaller, "covered", larger.asked + 1), False),
        (lambda larger, smaller: setattr(smaller, "covered", None), False),
        # volumes do not tell which part of a candle is known already
        (lambda larger, smaller: setattr(larger, "newest", larger.newest._replace(volume=3.0)), False),
        (lambda larger, smaller: setattr(larger, "wronged", 1000.0), False),
        # a range that may be an error would stay
        (lambda larger, smaller: setattr(larger, "newest", ODD), False),
    ],
)
def test_when_candles_can_be_built(change: object, expected: bool) -> None:
    larger, smaller = polled(FIVE, Candle(NOON, 1, 1, 1, 1)), polled(FIVE, Candle(NOON, 1, 1, 1, 1))
    larger.asked, smaller.covered = 900.0, 800.0
    assert callable(change)
    change(larger, smaller)
    assert larger.can_be_built(FIVE, smaller, "1m", 2000.0) is expected
    assert not larger.can_be_built(StreamKey("EUR/USD", "3m"), smaller, "2h", 2000.0)


@settings(max_examples=examples(10))
@given(
    ticks=st.lists(st.integers(50, 150), min_size=300, max_size=300),
    pauses=st.lists(st.integers(1, 25), min_size=1, max_size=20),
    first=st.integers(0, 30),
)
def test_whatever_the_rhythm_of_polls_built_candles_are_the_true_ones(
    ticks: list[int], pauses: list[int], first: int
) -> None:
    """A price every ten seconds; the smaller candles are polled after pauses of so many of them."""

    def true(length: int, opened: int, seen: int) -> Candle:
        prices = [float(price) for price in ticks[opened // 10 : min((opened + length) // 10, seen)]]
        return Candle(NOON + opened, prices[0], max(prices), min(prices), prices[-1])

    def rows(length: int, since: int, seen: int) -> list[Candle]:
        return [true(length, opened, seen) for opened in range(since // length * length, (seen - 1) * 10 + 1, length)]

    small, large = PolledStream(), PolledStream()
    key = StreamKey("EUR/USD", "1m")
    seen = first + 1
    list(small.take(key, rows(60, 0, seen), NOON + seen * 10))
    list(large.take(FIVE, rows(300, 0, seen), NOON + seen * 10))
    for pause in pauses:
        seen = min(seen + pause, len(ticks))
        assert small.newest is not None
        answer = rows(60, small.newest.time - NOON, seen)
        list(small.take(key, answer, NOON + seen * 10))
        updates = list(large.build(FIVE, answer, NOON + seen * 10, "1m", ALWAYS))
        for update in updates:
            opened = update.candle.time - NOON
            if update.is_closed or update is updates[-1]:
                assert update.candle == true(300, opened, seen)


@given(
    ticks=st.lists(st.integers(50, 150), min_size=300, max_size=300),
    pauses=st.lists(st.integers(1, 25), min_size=1, max_size=20),
    lost=st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 5)), min_size=20, max_size=20),
    starts_behind=st.booleans(),
)
def test_what_answers_lack_makes_no_built_candle_wrong(
    ticks: list[int], pauses: list[int], lost: list[tuple[int, int | None]], starts_behind: bool
) -> None:
    """As above, but answers lack their newest rows, or one in the middle, also the one that the larger begins with."""

    def true(length: int, opened: int, seen: int) -> Candle:
        prices = [float(price) for price in ticks[opened // 10 : min((opened + length) // 10, seen)]]
        return Candle(NOON + opened, prices[0], max(prices), min(prices), prices[-1])

    small, large = PolledStream(), PolledStream()
    seen = 130
    since = (seen - 1) // 6 * 60
    now = NOON + seen * 10
    list(small.take(MINUTE, [true(60, since - 60, seen), true(60, since, seen)], now))
    fives = [true(300, opened, seen) for opened in (600, 900, 1200)]
    list(large.take(FIVE, fives[:-1] if starts_behind else fives, now))
    small.covered = large.asked = 1.0
    for pause, (late, place) in zip(pauses, lost, strict=False):
        seen = min(seen + pause, len(ticks))
        now = NOON + seen * 10
        assert small.newest is not None
        answer = [true(60, at, seen) for at in range(small.newest.time - NOON, (seen - 1) * 10 + 1, 60)]
        answer = answer[: max(1, len(answer) - late)]
        if place is not None and 0 < place < len(answer) - 1:
            del answer[place]
        list(small.take(MINUTE, answer, now))
        if not large.can_be_built(FIVE, small, "1m", 2.0):
            break
        for update in large.build(FIVE, answer, now, "1m", ALWAYS):
            opened = update.candle.time - NOON
            assert update.candle.open == true(300, opened, seen).open
            if update.is_closed:
                assert update.candle == true(300, opened, seen)


def test_a_candle_is_not_begun_in_the_middle() -> None:
    """The provider's answer ended with the candle before."""
    stream = polled(FIVE, Candle(NOON - 600, 1, 1, 1, 1), Candle(NOON - 300, 1, 1, 1, 1), now=NOON + 170)
    assert list(stream.build(FIVE, [minute(2, 1, 1, 1, 1), minute(3, 1, 1, 1, 1)], NOON + 200, "1m", MONEY)) == []
    assert stream.is_parted
    # Until the provider has said what it is.
    stream.readable(FIVE, [Candle(NOON, 2.0, 2.0, 1.0, 1.0)], NOON + 210)
    assert not stream.is_parted


def test_a_candle_is_not_closed_before_the_minutes_of_its_end_are_there() -> None:
    stream = polled(FIVE, Candle(NOON - 300, 1, 1, 1, 1), Candle(NOON, 1.0, 1.5, 0.9, 1.2))
    answer = [minute(2, 1.2, 1.2, 1.1, 1.1), minute(3, 1.1, 1.2, 1.1, 1.2)]
    assert told(list(stream.build(FIVE, answer, NOON + 365, "1m", MONEY))) == [(0, 1.0, 1.5, 0.9, 1.2, False)]
    answer = [minute(3, 1.1, 1.2, 1.1, 1.2), minute(4, 1.2, 1.9, 1.2, 1.8), minute(5, 1.8, 1.8, 1.8, 1.8)]
    assert told(list(stream.build(FIVE, answer, NOON + 425, "1m", MONEY))) == [
        (0, 1.0, 1.9, 0.9, 1.8, True), (5, 1.8, 1.8, 1.8, 1.8, False),
    ]  # fmt: skip


def test_hours_in_which_the_market_is_closed_are_no_hole() -> None:
    close, opening = 1_768_600_800, 1_768_773_600  # Friday and Sunday, 17:00 in New York
    stream = polled(FIVE, Candle(close - 600, 1, 1, 1, 1), Candle(close - 300, 1, 1, 1, 1), now=close - 30)
    answer = [Candle(at, 1, 1, 1, 1) for at in (close - 60, opening, opening + 60)]
    updates = list(stream.build(FIVE, answer, opening + 90, "1m", MONEY))
    assert [(update.candle.time, update.is_closed) for update in updates] == [(close - 300, True), (opening, False)]
    assert not stream.is_parted


# -- candles that cannot be read -------------------------------------------------------------------

ONE = StreamKey("EUR/USD", "1m")


def poll(stream: PolledStream, now: float, *candles: Candle) -> list[tuple[int, float, float, float, float, bool]]:
    kept, is_followed = stream.readable(ONE, candles, now)
    return told(list(stream.take(ONE, kept, now, is_followed=is_followed)))


def flat(number: int, price: float = 1.0) -> Candle:
    return minute(number, price, price, price, price)


def test_a_candle_that_cannot_be_read_withholds_no_later_one() -> None:
    stream = polled(ONE, flat(0), flat(1))
    answer = [flat(1), unreadable(NOON + 120), flat(3), unreadable(NOON + 240), flat(5, 2.0)]
    assert poll(stream, NOON + 310, *answer) == [
        (1, 1.0, 1.0, 1.0, 1.0, True), (3, 1.0, 1.0, 1.0, 1.0, True), (5, 2.0, 2.0, 2.0, 2.0, False),
    ]  # fmt: skip
    assert stream.rows_needed("1m", NOON + 310, NOON - 86_400) >= 5
    assert poll(stream, NOON + 350, flat(2), flat(3), unreadable(NOON + 240), flat(5, 3.0)) == [
        (2, 1.0, 1.0, 1.0, 1.0, True), (5, 3.0, 3.0, 3.0, 3.0, False),
    ]  # fmt: skip
    assert poll(stream, NOON + 430, flat(2), flat(3), flat(4), flat(5, 3.0)) == [
        (4, 1.0, 1.0, 1.0, 1.0, True), (5, 3.0, 3.0, 3.0, 3.0, True),
    ]  # fmt: skip


def test_the_newest_candle_that_cannot_be_read_still_closes_the_one_before() -> None:
    stream = polled(ONE, flat(0), flat(1))
    assert poll(stream, NOON + 125, flat(1), unreadable(NOON + 120)) == [(1, 1.0, 1.0, 1.0, 1.0, True)]
    assert poll(stream, NOON + 185, flat(2), flat(3)) == [
        (2, 1.0, 1.0, 1.0, 1.0, True), (3, 1.0, 1.0, 1.0, 1.0, False),
    ]  # fmt: skip


def test_larger_candles_are_not_built_from_an_answer_that_lacks_one() -> None:
    smaller, larger = polled(ONE, flat(0), flat(1)), polled(FIVE, flat(-5), flat(0))
    smaller.covered = larger.asked = 1.0
    assert larger.can_be_built(FIVE, smaller, "1m", 2.0)
    poll(smaller, NOON + 250, flat(1), unreadable(NOON + 120), flat(3))
    smaller.covered = smaller.covered or 3.0
    assert not larger.can_be_built(FIVE, smaller, "1m", 3.0)
