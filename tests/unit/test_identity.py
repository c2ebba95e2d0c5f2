"""What a comparison of stored candles with a provider's shows about the instrument; pure."""

from collections.abc import Sequence

import pytest

from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.history.identity import UNKNOWN, Verdict, follows, judge, judge_by_longer, longer_interval
from relay.streams.gaps import SeriesGap
from relay.streams.series import Series

HOUR = 3600
DAY = 86_400
SAME = Verdict(True)
KEY = StreamKey("LUNAUSDT", "1h")


def at(time: int, price: float) -> Candle:
    return Candle(time, price, price * 1.01, price * 0.99, price, 1.0)


def hours(first: int, last: int, price: float) -> list[Candle]:
    return [at(hour * HOUR, price) for hour in range(first, last)]


STORED = hours(100, 110, 80.0)


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (STORED, SAME),
        (hours(100, 112, 80.2), SAME),
        (hours(100, 112, 5.0), Verdict(False)),
        # A few revisions do not make another instrument.
        ([*hours(100, 104, 70.0), *hours(104, 112, 80.0)], SAME),
        ([*hours(100, 106, 70.0), *hours(106, 112, 80.0)], Verdict(False)),
        # They are gone, and what there is begins later.
        (hours(500, 503, 5.0), Verdict(False, 500 * HOUR)),
        (hours(500, 503, 80.0), Verdict(False, 500 * HOUR)),
        # Its history begins later, among the stored ones, and agrees with them.
        (hours(108, 120, 80.0), SAME),
        ([], UNKNOWN),
        # An answer on another grid says nothing.
        ([at(100 * HOUR + 60, 5.0)], UNKNOWN),
        # A row that cannot be read neither.
        ([Candle(500 * HOUR, *[float("nan")] * 4)], UNKNOWN),
    ],
)
def test_judgement(told: Sequence[Candle], verdict: Verdict) -> None:
    assert judge(STORED, told) == verdict


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        # A provider keeps hours for less long than days.
        ([at(4 * DAY, 80.0), at(5 * DAY, 81.0)], SAME),
        ([at(4 * DAY, 5.0)], Verdict(False)),
        ([at(20 * DAY, 5.0)], Verdict(False, 20 * DAY)),
        ([at(20 * DAY, 80.0)], Verdict(False, 20 * DAY)),
        ([], UNKNOWN),
    ],
)
def test_candle_that_is_gone_is_looked_for_in_its_day(told: Sequence[Candle], verdict: Verdict) -> None:
    assert judge_by_longer(STORED[-1], told) == verdict


def test_longest_interval_up_to_a_day() -> None:
    assert longer_interval("1m", ("1m", "1h", "1d", "1w", "1M")) == "1d"
    assert longer_interval("1m", ("1m", "5m")) == "5m"
    assert longer_interval("1d", ("1m", "1d", "1w")) is None


@pytest.mark.parametrize(
    ("first", "is_fine"),
    [
        (at(110 * HOUR, 80.0), True),
        (at(228 * HOUR, 88.0), True),
        (at(229 * HOUR, 80.0), False),
        (at(110 * HOUR, 5.0), False),
        (at(110 * HOUR, 160.0), False),
    ],
)
def test_neighbours(first: Candle, is_fine: bool) -> None:
    assert follows("1h", STORED[-1], first) is is_fine


def test_holes_of_long_intervals_are_counted_in_candles() -> None:
    assert follows("1w", at(0, 80.0), at(20 * DAY, 80.0))
    assert not follows("1w", at(0, 80.0), at(21 * DAY, 80.0))


# What a stream makes of it


def told(series: Series, hour: int, price: float, *, is_closed: bool) -> list[PriceUpdate]:
    return list(series.accept(PriceUpdate(KEY, at(hour * HOUR, price), is_closed)))


def test_stream_forgets_the_old_instrument_and_asks_for_the_new_one_only() -> None:
    series = Series(KEY, 99.5 * HOUR)
    assert told(series, 99, 80.0, is_closed=True)
    assert told(series, 100, 80.0, is_closed=False)
    assert not told(series, 500, 5.0, is_closed=False)
    assert series.begin_anew(450 * HOUR) == SeriesGap(100 * HOUR, 101 * HOUR)
    assert (series.closed, series.last) == ({}, None)
    # No gap names again what was told.
    assert series.owed_from() == 100 * HOUR + 1
    missing = series.missing(500.5 * HOUR)
    assert missing is not None
    assert (missing.start, missing.end) == (100 * HOUR + 1, 500 * HOUR)
    updates = series.fill(hours(450, 500, 5.0), missing.end)
    assert [update.candle.time // HOUR for update in updates] == list(range(450, 501))
    assert [update.is_closed for update in updates] == [True] * 50 + [False]
    assert series.gaps.drain() == []


def test_stream_that_has_the_new_instrument_keeps_its_newest_candle() -> None:
    series = Series(KEY, None)
    for hour in (100, 101):
        assert told(series, hour, 5.0, is_closed=True)
    assert told(series, 102, 5.0, is_closed=False)
    assert series.begin_anew(None) is None
    assert (series.closed, series.last) == ({}, at(102 * HOUR, 5.0))
    assert told(series, 102, 5.1, is_closed=True)


def test_only_candles_that_were_told_otherwise_are_stated_again() -> None:
    series = Series(KEY, None)
    for hour in range(100, 104):
        assert told(series, hour, 80.0, is_closed=True)
    updates = series.revise([*hours(100, 102, 40.0), *hours(102, 110, 80.0)], (), 200.0 * HOUR)
    assert [(update.candle.time // HOUR, update.is_revised, update.is_closed) for update in updates] == [
        (100, True, True),
        (101, True, True),
    ]
    assert [candle.close for candle in series.closed.values()] == [40.0, 40.0, 80.0, 80.0]
