from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.intervals import INTERVALS, end_of, first_open_after, next_open, open_time, opens_of
from tests.support.moments import at

LAST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
NEW_YORK = ZoneInfo("America/New_York")


def new_york_day(moment: int) -> int:
    """A day as the currency market counts it: from 17:00 to 17:00 in New York, 23 to 25 hours long."""
    day = (datetime.fromtimestamp(moment, NEW_YORK) + timedelta(hours=7)).date() - timedelta(days=1)
    return int(datetime(day.year, day.month, day.day, 17, tzinfo=NEW_YORK).timestamp())


@pytest.mark.parametrize(
    ("interval", "moment", "opened"),
    [
        ("1s", "2026-03-01 08:09:13", "2026-03-01 08:09:13"),
        ("1m", "2026-03-01 08:09:59", "2026-03-01 08:09:00"),
        ("5m", "2026-03-01 08:09:59", "2026-03-01 08:05:00"),
        ("4h", "2026-03-01 23:59:59", "2026-03-01 20:00:00"),
        ("8h", "2026-03-01 08:00:00", "2026-03-01 08:00:00"),
        ("1d", "2026-03-01 23:59:59", "2026-03-01 00:00:00"),
        ("1w", "2026-03-01 23:59:59", "2026-02-23 00:00:00"),
        ("1w", "2026-03-02 00:00:00", "2026-03-02 00:00:00"),
        ("1w", "1970-01-05 00:00:00", "1970-01-05 00:00:00"),
        ("1M", "2024-02-29 23:59:59", "2024-02-01 00:00:00"),
        ("1M", "2026-12-31 12:00:00", "2026-12-01 00:00:00"),
    ],
)
def test_open_time_of_the_candle_that_holds_a_moment(interval: str, moment: str, opened: str) -> None:
    assert open_time(interval, at(moment)) == at(opened)


@given(st.sampled_from(INTERVALS), st.integers(7 * 86_400, LAST))
def test_each_moment_lies_in_exactly_one_candle(interval: str, moment: int) -> None:
    opened = open_time(interval, moment)
    assert opened <= moment < next_open(interval, opened)
    assert open_time(interval, opened) == opened
    assert open_time(interval, opened - 1) < opened
    assert next_open(interval, open_time(interval, opened - 1)) == opened


@given(st.integers(7 * 86_400, LAST))
def test_weeks_open_on_monday_and_months_on_the_first(moment: int) -> None:
    week = datetime.fromtimestamp(open_time("1w", moment), UTC)
    month = datetime.fromtimestamp(open_time("1M", moment), UTC)
    assert (week.isoweekday(), week.hour, week.minute, week.second) == (1, 0, 0, 0)
    assert (month.day, month.hour, month.minute, month.second) == (1, 0, 0, 0)


@given(st.sampled_from(INTERVALS), st.integers(7 * 86_400, LAST))
def test_the_end_found_by_boundaries_is_the_next_open_time(interval: str, moment: int) -> None:
    opened = open_time(interval, moment)
    assert end_of(interval, opens_of(interval), opened) == next_open(interval, opened)


@pytest.mark.parametrize(
    ("moment", "opened", "end"),
    [
        ("2026-01-14 12:00:00", "2026-01-13 22:00:00", "2026-01-14 22:00:00"),
        ("2026-03-08 12:00:00", "2026-03-07 22:00:00", "2026-03-08 21:00:00"),
        ("2026-11-01 12:00:00", "2026-10-31 21:00:00", "2026-11-01 22:00:00"),
    ],
)
def test_days_may_have_23_or_25_hours(moment: str, opened: str, end: str) -> None:
    assert new_york_day(at(moment)) == at(opened)
    assert end_of("1d", new_york_day, at(opened)) == at(end)


@given(st.integers(0, LAST))
def test_a_month_has_a_next_one_whatever_its_day(moment: int) -> None:
    following = next_open("1M", moment)
    assert 27 * 86_400 < following - moment <= 31 * 86_400


@pytest.mark.parametrize(
    ("opened", "following"),
    [
        ("2026-10-31 23:00:00", "2026-11-30 23:00:00"),
        ("2026-01-31 23:00:00", "2026-02-28 23:00:00"),
        ("2026-02-28 23:00:00", "2026-03-31 23:00:00"),
    ],
)
def test_months_of_a_zone_east_of_utc_follow_each_other(opened: str, following: str) -> None:
    assert next_open("1M", at(opened)) == at(following)


@pytest.mark.parametrize(
    ("interval", "moment", "an_open", "first"),
    [
        ("1m", "2026-01-14 12:00:00", None, "2026-01-14 12:01:00"),
        ("1m", "2026-01-14 11:59:59", None, "2026-01-14 12:00:00"),
        ("1h", "2026-01-14 09:30:00", "2026-01-14 15:30:00", "2026-01-14 10:30:00"),
        ("1h", "2026-01-14 09:31:00", "2026-01-14 15:30:00", "2026-01-14 10:30:00"),
        ("1h", "2026-01-14 16:00:00", "2026-01-14 15:30:00", "2026-01-14 16:30:00"),
        ("1h", "2026-01-14 15:30:00", "2026-01-14 15:30:00", "2026-01-14 16:30:00"),
        ("1M", "2026-10-31 00:00:00", None, "2026-11-01 00:00:00"),
        ("1M", "2026-10-31 23:00:00", "2026-11-30 23:00:00", "2026-11-30 23:00:00"),
        ("1w", "2026-01-14 00:00:00", "2026-01-26 00:00:00", "2026-01-19 00:00:00"),
    ],
)
def test_the_first_open_time_after_a_moment(interval: str, moment: str, an_open: str | None, first: str) -> None:
    assert first_open_after(interval, at(moment), None if an_open is None else at(an_open)) == at(first)
