"""Which candles make a longer one: by UTC, by days of a provider, by sessions, over holidays and clock changes."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.derived_intervals import GridOfHours, bases, derived_intervals
from relay.core.intervals import INTERVALS, length_s, next_open
from relay.core.model import OpenHours
from relay.core.periods import Periods
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from tests.support.examples import examples
from tests.support.moments import at

HOUR, DAY = 3600, 86_400
NYSE = TradingCalendar(
    "America/New_York",
    "0930-1600",
    holidays=("2026-01-01", "2026-01-19", "2026-02-16", "2026-04-03", "2026-05-25", "2026-11-26", "2026-12-25"),
    special_days={"2026-11-27": "0930-1300"},
)
FOREX = TradingCalendar("America/New_York", "1700-1700", holidays=("2026-12-25",))
TOKYO = TradingCalendar("Asia/Tokyo", "0900-1130,1230-1530")
ALL_DAYS = ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")
"""The intervals of Kraken's `ohlc`."""


def texts(periods: Periods, *opened: str) -> list[tuple[str, str]]:
    found = [periods.holding(at(one)) for one in opened]
    return [(_text(one.opens), _text(one.ends)) for one in found]


def _text(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M")


# -- which interval is built of which ---------------------------------------------------------------------------------


def test_each_interval_that_lacks_is_built_of_the_longest_one_that_divides_it() -> None:
    everywhere = GridOfHours(is_utc_grid=True)
    assert derived_intervals(ALL_DAYS, everywhere, 0) == {
        "3m": "1m", "2h": "1h", "6h": "1h", "8h": "4h", "12h": "4h", "3d": "1d", "1M": "1d",
    }  # fmt: skip


def test_where_nobody_says_how_long_candles_open_they_are_built_of_hours_at_most() -> None:
    # Candles of four or six hours may open by the day of another zone.
    assert derived_intervals(ALL_DAYS, GridOfHours(), 0) == {
        "3m": "1m", "2h": "1h", "6h": "1h", "8h": "1h", "12h": "1h", "3d": "1d", "1M": "1d",
    }  # fmt: skip


def test_in_sessions_no_shorter_candle_lies_across_an_opening() -> None:
    # At 9:30 an hour of the clock is half over, an hour of the session begins.
    assert derived_intervals(("15m", "1h", "1d", "1w"), GridOfHours(NYSE), 0) == {
        "30m": "15m", "2h": "15m", "4h": "15m", "6h": "15m", "8h": "15m", "12h": "15m", "3d": "1d", "1M": "1d",
    }  # fmt: skip
    assert derived_intervals(("1h", "1d"), GridOfHours(FOREX), 0)["4h"] == "1h"
    assert derived_intervals(("1h",), GridOfHours(NYSE), 0) == {}


def test_weeks_and_months_are_made_of_days_never_of_weeks_or_days_by_threes() -> None:
    assert bases(("1d", "3d", "1w"), DAY) == {"1M": "1d"}
    assert bases(("1w",), DAY) == {}
    assert bases(("8h",), DAY) == {"1d": "8h", "3d": "8h", "1w": "8h", "1M": "8h"}


def test_a_month_of_minutes_is_built_and_a_day_of_seconds_is_not() -> None:
    assert bases(("1m",), DAY)["1M"] == "1m"
    assert bases(("1s",), DAY)["12h"] == "1s"
    assert "1d" not in bases(("1s",), DAY)


def test_nothing_is_built_that_the_provider_has() -> None:
    assert bases(INTERVALS, DAY) == {}


def test_hours_without_a_calendar_say_where_sessions_are_but_not_what_a_day_is() -> None:
    market = TradingHours(NYSE.session_at)
    grid = GridOfHours(market=market)
    assert derived_intervals(("30m",), grid, at("2026-03-04 12:00:00")) == {
        "1h": "30m", "2h": "30m", "4h": "30m", "6h": "30m", "8h": "30m", "12h": "30m",
    }  # fmt: skip


# -- UTC --------------------------------------------------------------------------------------------------------------


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    assert texts(Periods("1w", "1d", is_utc_grid=True), "2026-03-01 00:00:00", "2026-03-02 00:00:00") == [
        ("02-23 00:00", "03-02 00:00"), ("03-02 00:00", "03-09 00:00"),
    ]  # fmt: skip
    assert texts(Periods("1M", "1d"), "2028-02-29 00:00:00") == [("02-01 00:00", "03-01 00:00")]


def test_days_of_another_hour_belong_to_the_date_of_their_middle() -> None:
    # The day of Hong Kong begins at 16:00 UTC: Sunday's evening is Monday.
    weeks, months = Periods("1w", "1d"), Periods("1M", "1d")
    assert texts(weeks, "2026-03-01 16:00:00", "2026-03-07 16:00:00") == [("03-01 16:00", "03-08 16:00")] * 2
    assert texts(months, "2026-01-31 16:00:00") == [("01-31 16:00", "02-28 16:00")]
    # And one that begins at 5:00 UTC is of its own date.
    assert texts(Periods("1w", "1d"), "2026-03-02 05:00:00") == [("03-02 05:00", "03-09 05:00")]


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_hours_are_counted_from_the_opening_and_the_last_one_ends_with_the_session() -> None:
    # New York is five hours behind UTC in winter, four in summer.
    two = Periods("2h", "30m", calendar=NYSE)
    assert texts(two, "2026-03-06 14:30:00", "2026-03-06 16:00:00", "2026-03-06 20:30:00") == [
        ("03-06 14:30", "03-06 16:30"), ("03-06 14:30", "03-06 16:30"), ("03-06 20:30", "03-06 21:00"),
    ]  # fmt: skip
    assert texts(two, "2026-03-09 13:30:00") == [("03-09 13:30", "03-09 15:30")]


def test_a_half_day_ends_its_last_candle() -> None:
    assert texts(Periods("4h", "30m", calendar=NYSE), "2026-11-27 17:30:00") == [("11-27 14:30", "11-27 18:00")]


def test_each_session_of_a_day_is_counted_for_itself() -> None:
    two = Periods("2h", "30m", calendar=TOKYO)
    assert texts(two, "2026-03-04 02:00:00", "2026-03-04 03:30:00", "2026-03-04 06:00:00") == [
        ("03-04 02:00", "03-04 02:30"), ("03-04 03:30", "03-04 05:30"), ("03-04 05:30", "03-04 06:30"),
    ]  # fmt: skip


def test_hours_of_currencies_are_counted_from_five_o_clock_in_new_york() -> None:
    four = Periods("4h", "1h", calendar=FOREX)
    assert texts(four, "2026-03-06 21:00:00", "2026-03-08 21:00:00", "2026-03-09 21:00:00") == [
        ("03-06 18:00", "03-06 22:00"), ("03-08 21:00", "03-09 01:00"), ("03-09 21:00", "03-10 01:00"),
    ]  # fmt: skip


def test_a_day_of_currencies_is_from_five_to_five() -> None:
    days = Periods("1d", "1h", calendar=FOREX)
    assert texts(days, "2026-03-08 21:00:00", "2026-03-09 20:00:00", "2026-03-09 21:00:00") == [
        ("03-08 21:00", "03-09 21:00"), ("03-08 21:00", "03-09 21:00"), ("03-09 21:00", "03-10 21:00"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("day", "opens"),
    [
        # As its opening, as midnight in UTC, and as midnight in New York; Monday is a holiday.
        ("2026-01-20 14:30:00", "01-20 14:30"),
        ("2026-01-20 00:00:00", "01-19 00:00"),
        ("2026-01-20 05:00:00", "01-19 05:00"),
    ],
)
def test_a_week_opens_as_its_days_do(day: str, opens: str) -> None:
    assert texts(Periods("1w", "1d", calendar=NYSE), day) == [(opens, "01-23 21:00")]


def test_a_week_with_a_clock_change_opens_by_the_local_clock() -> None:
    weeks = Periods("1w", "1d", calendar=NYSE)
    assert texts(weeks, "2026-03-06 05:00:00", "2026-03-11 04:00:00") == [
        ("03-02 05:00", "03-06 21:00"), ("03-09 04:00", "03-13 20:00"),
    ]  # fmt: skip


def test_a_sunday_of_currencies_is_a_part_of_the_week_that_follows() -> None:
    weeks = Periods("1w", "1d", calendar=FOREX)
    assert texts(weeks, "2026-03-08 00:00:00", "2026-03-13 00:00:00") == [("03-09 00:00", "03-13 21:00")] * 2


def test_what_a_calendar_calls_closed_is_no_part_of_the_next_session() -> None:
    two = Periods("2h", "30m", calendar=NYSE)
    assert texts(two, "2026-11-26 15:00:00") == [("11-26 14:00", "11-26 16:00")]


def test_a_period_is_over_with_the_last_part_that_is_traded() -> None:
    weeks, two = Periods("1w", "1d", calendar=NYSE), Periods("2h", "30m", calendar=NYSE)
    thursday, friday = at("2026-04-02 13:30:00"), at("2026-04-10 13:30:00")
    # Good Friday is a holiday.
    assert weeks.is_over_with(thursday, weeks.holding(thursday))
    assert weeks.is_over_with(friday, weeks.holding(friday))
    assert not weeks.is_over_with(friday - DAY, weeks.holding(friday))
    half = at("2026-11-27 17:30:00")
    assert two.is_over_with(half, two.holding(half))
    assert not two.is_over_with(half - 1800, two.holding(half - 1800)) or two.holding(half) != two.holding(half - 1800)


# -- whatever the calendar --------------------------------------------------------------------------------------------


CALENDARS = [None, NYSE, FOREX, TOKYO, TradingCalendar("Europe/London", "0800-1630")]
START = at("2026-01-02 00:00:00")


@settings(max_examples=examples(75), deadline=None)
@given(st.sampled_from(CALENDARS), st.integers(0, 370), st.data())
def test_periods_do_not_overlap_and_every_traded_minute_has_one(
    calendar: TradingCalendar | None, day: int, data: st.DataObject
) -> None:
    grid = GridOfHours(calendar, None)
    found = derived_intervals(("15m", "1d"), grid, START)
    interval = data.draw(st.sampled_from([*found]))
    periods = Periods(interval, found[interval], calendar=calendar)
    step = length_s(found[interval])
    known: set[tuple[int, int]] = set()
    for number in range(80):
        opened = START + day * DAY + number * step
        if calendar is not None and found[interval] != "1d" and not calendar.is_open(opened):
            continue
        period = periods.holding(opened)
        known.add((period.opens, period.ends))
        if found[interval] != "1d" or calendar is None:
            assert period.opens <= opened < period.ends
            assert period.ends - period.opens <= length_s(interval)
            assert period == Periods(interval, found[interval], calendar=calendar).holding(opened)
    ordered = sorted(known)
    assert all(one[1] <= other[0] for one, other in pairwise(ordered))


@settings(max_examples=examples(50), deadline=None)
@given(st.integers(0, 700), st.sampled_from(["1d", "3d", "1w", "1M"]))
def test_days_of_trading_are_grouped_by_their_date(day: int, interval: str) -> None:
    """The date is read from the local clock at the end of each session."""
    periods = Periods(interval, "1h" if interval == "1d" else "1d", calendar=FOREX)
    session = FOREX.day_of(START + day * DAY)
    local = datetime.fromtimestamp(session.sessions[-1].closes - 1, ZoneInfo("America/New_York")).date()
    if interval == "1w":
        first = local - timedelta(days=local.weekday())
    elif interval == "1M":
        first = local.replace(day=1)
    elif interval == "3d":
        first = local - timedelta(days=(local.toordinal() - 719_163) % 3)
    else:
        first = local
    period = periods.holding(session.sessions[0].opens)
    opening = datetime.fromtimestamp(period.opens, ZoneInfo("America/New_York"))
    # It opens in the evening before the first day of trading since.
    assert (opening + timedelta(hours=7)).date() >= first
    assert opening.hour == 17
    assert period.opens <= session.sessions[0].opens < period.ends


@given(
    st.sampled_from(["3d", "1w", "1M"]),
    st.sampled_from([NYSE, FOREX, TOKYO, None]),
    st.integers(0, 700),
    st.sampled_from([0, 5 * HOUR, 16 * HOUR, None]),
)
def test_a_candle_opens_with_its_first_day_or_so_much_later_as_is_said(
    interval: str, calendar: TradingCalendar | None, day: int, hour: int | None
) -> None:
    periods = Periods(interval, "1d", calendar=calendar)
    opened = START // DAY * DAY + day * DAY + (hour or 0)
    if hour is None and calendar is not None:
        opened = calendar.day_of(opened).sessions[0].opens
    assert periods.holding(opened).opens <= opened + periods.ahead_s


def test_a_month_of_utc_is_what_the_calendar_says() -> None:
    months = Periods("1M", "1d", is_utc_grid=True)
    opened = START
    while opened < START + 800 * DAY:
        period = months.holding(opened)
        assert next_open("1M", period.opens) == period.ends
        opened += DAY


def test_sessions_without_a_calendar_count_too() -> None:
    market = TradingHours(lambda moment: OpenHours(moment // DAY * DAY + 9 * HOUR, moment // DAY * DAY + 17 * HOUR))
    four = Periods("6h", "1h", market=market)
    assert texts(four, "2026-03-04 16:00:00") == [("03-04 15:00", "03-04 17:00")]


# -- hours in which nothing is traded, as far as anybody said ----------------------------------------------------------


def test_what_is_traded_between_two_days_is_in_neither() -> None:
    day = Periods("1d", "1m", calendar=NYSE)
    moments = ["02-03 14:29", "02-03 14:30", "02-03 20:59", "02-03 21:00", "02-04 14:29", "02-07 15:00"]
    assert [day.counts(at(f"2026-{moment}:00")) for moment in moments] == [False, True, True, False, False, False]
    assert Periods("1d", "1m", calendar=TOKYO).counts(at("2026-02-03 03:00:00")), "between sessions of one day"
    assert Periods("1w", "1d", calendar=NYSE).counts(at("2026-02-07 00:00:00")), "a day by the clock of UTC"
    assert Periods("15m", "1m", calendar=NYSE).counts(at("2026-02-03 14:00:00"))


def test_shorter_candles_behind_a_session_are_none_of_its_last_one() -> None:
    # It opens at 16:00 and ends half an hour later.
    hours = TradingCalendar("UTC", "0900-1630")
    for periods in (Periods("1h", "15m", calendar=hours), Periods("1h", "15m", market=TradingHours(hours.session_at))):
        assert texts(periods, "2026-02-03 16:15:00", "2026-02-03 16:45:00", "2026-02-03 17:15:00") == [
            ("02-03 16:00", "02-03 16:30"), ("02-03 16:30", "02-03 17:00"), ("02-03 17:00", "02-03 18:00"),
        ]  # fmt: skip
