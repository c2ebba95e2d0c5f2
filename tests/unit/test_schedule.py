from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.twelve_data.forex import ALWAYS, METAL, MONEY, Hours
from providers.twelve_data.schedule import (
    DELAY_S,
    Means,
    PollLine,
    aligned,
    is_slow,
    midnight_after,
    next_check,
    periods,
    promised,
)
from tests.support.examples import examples
from tests.support.moments import at

WEDNESDAY = at("2026-01-14 00:00")
FREE = Means(per_minute=6, today=720, least_s=30.0)


def line(interval: str, hours: Hours = MONEY) -> PollLine:
    return PollLine(interval, hours.calendar)


def demand(lines: list[PollLine], every: list[float], now: float) -> float:
    """Return how many credits the polls cost until midnight UTC."""
    end = midnight_after(now)
    return sum(line.hours.trading_between(now, end) / period for line, period in zip(lines, every, strict=True))


# ---- how often --------------------------------------------------------------------------------------------------


def test_720_credits_give_one_pair_a_poll_every_two_minutes_of_a_day() -> None:
    assert periods([line("1m")], FREE, WEDNESDAY) == pytest.approx([120.0])


def test_what_is_left_in_the_evening_is_spent_in_the_evening() -> None:
    assert periods([line("1m")], FREE, WEDNESDAY + 12 * 3600) == pytest.approx([60.0])
    assert periods([line("1m")], FREE, WEDNESDAY + 23 * 3600) == [30.0]


def test_equal_pairs_share_equally() -> None:
    assert periods([line("1m")] * 5, FREE, WEDNESDAY) == pytest.approx([600.0] * 5)


def test_a_candle_100_times_as_long_is_asked_for_a_tenth_as_often() -> None:
    short, long = periods([line("1m"), line("1h")], FREE, WEDNESDAY)
    assert long / short == pytest.approx(60**0.5)
    assert 86_400 / short + 86_400 / long == pytest.approx(720)


def test_a_minutes_credits_bound_many_pairs_without_a_daily_limit() -> None:
    means = Means(per_minute=42, today=None, least_s=30.0)
    assert periods([line("1m")] * 20, means, WEDNESDAY) == [30.0] * 20
    assert periods([line("1m")] * 84, means, WEDNESDAY) == pytest.approx([120.0] * 84)


def test_closed_hours_cost_nothing() -> None:
    """On Friday the market is open for 22 hours, on Sunday for two; gold pauses for one on a Wednesday.

    One credit is left for the last candle of a session that ends before midnight.
    """
    assert periods([line("1m")], FREE, at("2026-01-16 00:00")) == pytest.approx([22 * 3600 / 719])
    assert periods([line("1m")] * 20, FREE, at("2026-01-18 22:00")) == pytest.approx([200.0] * 20)
    assert periods([line("1m", METAL)], FREE, WEDNESDAY) == pytest.approx([23 * 3600 / 719])
    assert periods([line("1m")], FREE, at("2026-01-17 12:00")) == [30.0]


def test_without_credits_there_are_no_polls() -> None:
    assert periods([line("1m")], Means(6, 0, 30.0), WEDNESDAY) == [inf]
    assert demand([line("1m")], [inf], WEDNESDAY) == 0


def test_half_of_the_day_is_promised_to_polls_and_less_as_trading_passes() -> None:
    assert promised([line("1m")], 800, 30.0, WEDNESDAY) == 400
    assert promised([line("1m")], 800, 30.0, WEDNESDAY + 18 * 3600) == 100
    # half of the two hours of a Sunday have passed
    assert promised([line("1m")] * 9, 800, 30.0, at("2026-01-18 23:00")) == 200
    assert promised([line("1m")], 800, 600.0, WEDNESDAY) == 144
    assert promised([line("1m")], 800, 30.0, at("2026-01-17 12:00")) == 0
    assert promised([], 800, 30.0, WEDNESDAY) == 0


@settings(max_examples=examples(50))
@given(
    lines=st.lists(
        st.builds(
            PollLine,
            st.sampled_from(["1m", "5m", "15m", "1h", "8h", "1d", "1w", "1M"]),
            st.sampled_from([hours.calendar for hours in (MONEY, METAL, ALWAYS)]),
        ),
        min_size=1,
        max_size=30,
    ),
    today=st.integers(1, 5000),
    per_minute=st.integers(1, 60),
    least_s=st.floats(1, 600),
    now=st.floats(WEDNESDAY, WEDNESDAY + 6 * 86_400),
)
def test_no_plan_costs_more_than_there_is_and_none_leaves_what_could_be_spent(
    lines: list[PollLine], today: int, per_minute: int, least_s: float, now: float
) -> None:
    every = periods(lines, Means(per_minute, today, least_s), now)
    cost = demand(lines, every, now)
    assert cost <= today * 1.000001
    assert all(period >= least_s for period in every)
    assert all(a >= b for (one, a) in zip(lines, every, strict=True) for (other, b) in zip(lines, every, strict=True)
               if one.length_s >= other.length_s and one.hours == other.hours)  # fmt: skip
    without_minute = periods(lines, Means(10**9, today, least_s), now)
    if any(period > least_s for period in without_minute):
        assert demand(lines, without_minute, now) >= (today - len(lines)) * 0.999999


# ---- when -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ideal", "period", "expected"),
    [
        # closes at 4, 64, 124, …; a poll was at 4
        (124, 120, 124),
        (130, 126, 124),
        (150, 146, 124),
        (155, 151, 184),
        (64, 60, 64),
        (79, 75, 64),
        (604, 600, 604),
    ],
)
def test_a_poll_of_short_candles_is_made_at_the_nearest_close(ideal: float, period: float, expected: float) -> None:
    assert aligned(ideal, period, 4.0, 60.0, 34.0, 30.0) == expected


@pytest.mark.parametrize(
    ("asked", "period", "expected"),
    [
        # closes at 4, 304, 604, …
        (4, 60, 64),
        (184, 60, 244),
        (190, 60, 250),
        (250, 60, 304),
        (230, 60, 304),
        (290, 60, 320 + 30),
    ],
)
def test_long_candles_have_a_poll_at_each_close(asked: float, period: float, expected: float) -> None:
    assert aligned(asked + period, period, 4.0, 300.0, asked + 30.0, 30.0) == expected


@settings(max_examples=examples(75))
@given(st.floats(30, 4000), st.sampled_from([60.0, 300.0, 900.0, 3600.0]), st.floats(0, 3600))
def test_polls_of_a_steady_plan_keep_their_distance_and_their_average(
    period: float, length: float, phase: float
) -> None:
    """Every close of candles longer than the period has its poll; else every poll comes at a close."""
    close = 4.0
    anchor = asked = close + phase
    moments = []
    for _ in range(60):
        due = aligned(anchor + period, period, close, length, asked + 30.0, 30.0)
        assert due >= asked + 30.0
        anchor = due if period < length else min(max(anchor + period, due - period / 2), due + period / 2)
        asked = due
        moments.append(due)
    if period >= length:
        assert all((moment - close) % length == pytest.approx(0, abs=1e-6) or length - (moment - close) % length < 1e-6
                   for moment in moments[1:])  # fmt: skip
        assert (moments[-1] - moments[0]) / 59 == pytest.approx(period, rel=0.05)
    else:
        first = close + -(-(moments[1] - close) // length) * length
        closes = [first + n * length for n in range(int((moments[-1] - first) // length))]
        assert all(any(abs(moment - one) < 30.001 + 1e-6 and moment >= one - 1e-6 for moment in moments)
                   for one in closes)  # fmt: skip


def test_built_candles_are_checked_at_their_first_close_and_then_once_an_hour() -> None:
    noon = at("2026-01-14 12:00")
    assert next_check(noon, "5m", None) == noon + 300 + DELAY_S
    assert next_check(noon + 300, "5m", noon + 300 + DELAY_S) == noon + 3900 + DELAY_S
    assert next_check(noon + 3600, "5m", noon + 300 + DELAY_S) == noon + 3900 + DELAY_S
    assert next_check(noon, "1h", noon + 4) == noon + 3600 + DELAY_S
    assert next_check(WEDNESDAY, "1d", noon) == WEDNESDAY + 86_400 + DELAY_S


def test_a_stream_is_slow_when_its_polls_are_minutes_and_candles_apart() -> None:
    assert not is_slow("1m", 300)
    assert is_slow("1m", 301)
    assert not is_slow("1h", 7200)
    assert is_slow("1h", 7201)
