"""When a market is traded: known weeks, both changes of clocks, and a slow model that walks minute by minute."""

import re
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay import OpenHours, TradingCalendar
from relay.core.spans import FOREVER
from tests.support.examples import examples
from tests.support.moments import at
from tests.support.walked_calendar import WalkedCalendar

NYSE = TradingCalendar(
    "America/New_York",
    "0930-1600",
    holidays=["2026-07-03", date(2026, 11, 26)],
    special_days={"2026-11-27": "0930-1300", "2026-12-24": "1030-1300"},
)
MONEY = TradingCalendar("America/New_York", "1700-1700", holidays=["12-25", "01-01"])
METAL = TradingCalendar("America/New_York", "1800-1700")
TOKYO = TradingCalendar("Asia/Tokyo", "0900-1530", pauses="1130-1230")


@pytest.mark.parametrize(
    ("calendar", "moment", "opens", "closes"),
    [
        (NYSE, "2026-01-14 12:00", "2026-01-14 14:30", "2026-01-14 21:00"),
        (NYSE, "2026-01-14 20:59", "2026-01-14 14:30", "2026-01-14 21:00"),
        (NYSE, "2026-01-14 21:00", "2026-01-15 14:30", "2026-01-15 21:00"),
        # the weekends in which New York changes its clocks
        (NYSE, "2026-03-06 21:00", "2026-03-09 13:30", "2026-03-09 20:00"),
        (NYSE, "2026-10-30 20:00", "2026-11-02 14:30", "2026-11-02 21:00"),
        # a holiday, the half day after another one, and a day that opens late
        (NYSE, "2026-07-02 20:00", "2026-07-06 13:30", "2026-07-06 20:00"),
        (NYSE, "2026-11-25 21:00", "2026-11-27 14:30", "2026-11-27 18:00"),
        (NYSE, "2026-12-24 15:00", "2026-12-24 15:30", "2026-12-24 18:00"),
        # a week that begins on Sunday evening
        (MONEY, "2026-01-14 12:00", "2026-01-11 22:00", "2026-01-16 22:00"),
        (MONEY, "2026-03-07 12:00", "2026-03-08 21:00", "2026-03-13 21:00"),
        (MONEY, "2026-10-31 12:00", "2026-11-01 22:00", "2026-11-06 22:00"),
        # a holiday takes the evening before with it
        (MONEY, "2025-12-24 21:59", "2025-12-21 22:00", "2025-12-24 22:00"),
        (MONEY, "2025-12-24 22:00", "2025-12-25 22:00", "2025-12-26 22:00"),
        # and one on a Saturday takes nothing
        (MONEY, "2021-12-24 12:00", "2021-12-19 22:00", "2021-12-24 22:00"),
        (METAL, "2026-01-14 22:30", "2026-01-14 23:00", "2026-01-15 22:00"),
        (TOKYO, "2026-01-14 03:00", "2026-01-14 03:30", "2026-01-14 06:30"),
    ],
)
def test_the_session_that_holds_a_moment_or_the_next_one(
    calendar: TradingCalendar, moment: str, opens: str, closes: str
) -> None:
    assert calendar.session_at(at(moment)) == OpenHours(at(opens), at(closes))
    assert calendar.is_open(at(moment)) == (at(opens) <= at(moment))


def test_local_times_that_the_clocks_skip_or_show_twice() -> None:
    night = TradingCalendar("America/New_York", "0130-0230:1")
    # 02:30 does not exist on 2026-03-08: the clocks go from 02:00 to 03:00.
    assert night.session_at(at("2026-03-08 00:00")) == OpenHours(at("2026-03-08 06:30"), at("2026-03-08 07:00"))
    # 01:30 exists twice on 2026-11-01.
    assert night.session_at(at("2026-11-01 00:00")) == OpenHours(at("2026-11-01 05:30"), at("2026-11-01 07:30"))
    # All of it is skipped: the next week's is the next one.
    gone = TradingCalendar("America/New_York", "0200-0300:1")
    assert gone.session_at(at("2026-03-08 00:00")) == OpenHours(at("2026-03-15 06:00"), at("2026-03-15 07:00"))


def test_a_market_that_never_closes_and_one_that_did_once() -> None:
    always = TradingCalendar("UTC", "24x7")
    assert always.is_always_open
    assert always.session_at(at("2026-01-17")) == OpenHours(-FOREVER, FOREVER)
    assert always.last_close(0) == 0
    once = TradingCalendar("UTC", "24x7", holidays=["2026-01-17"])
    assert not once.is_always_open
    assert once.session_at(at("2020-01-01")) == OpenHours(-FOREVER, at("2026-01-17"))
    assert once.session_at(at("2026-01-17")) == OpenHours(at("2026-01-18"), FOREVER)
    assert once.last_close(at("2026-01-17 12:00")) == at("2026-01-17")


@pytest.mark.parametrize("moment", [-(1 << 50), (1 << 50)])
def test_times_that_nobody_means_count_as_open(moment: int) -> None:
    assert NYSE.is_open(moment)


def test_trading_time_is_counted_over_closed_hours() -> None:
    friday = at("2026-03-06 20:00")
    assert NYSE.after_trading(friday, 2 * 3600) == at("2026-03-09 14:30")
    assert NYSE.before_trading(at("2026-03-09 14:30"), 2 * 3600) == friday
    assert NYSE.trading_between(at("2026-11-26"), at("2026-11-28")) == 3.5 * 3600
    assert NYSE.trading_between(at("2026-01-01"), at("2027-01-01")) == (257 * 6.5 + 3.5 + 2.5) * 3600
    assert MONEY.last_close(at("2025-12-25 12:00")) == at("2025-12-24 22:00")
    assert NYSE.last_close(at("2026-01-14 15:00")) == at("2026-01-14 15:00")
    assert NYSE.last_close(at("2026-01-14 14:30")) == at("2026-01-13 21:00")


def test_the_offset_of_the_zone_changes_with_its_clocks() -> None:
    assert [NYSE.offset_s(at(moment)) for moment in ("2026-03-08 06:59", "2026-03-08 07:00")] == [-18_000, -14_400]


# -- the text form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sessions", "pauses", "text"),
    [
        ("0930-1600", "", "0930-1600 America/New_York"),
        ("1700-1700", "", "1700-1700 America/New_York"),
        ("24x7", "", "24x7"),
        ("0000-0000:1234567", "", "24x7"),
        ("0900-1630|0900-1400:6", "", "0900-1630:2345|0900-1400:6 America/New_York"),
        ("0900-1530", "1130-1230", "0900-1130,1230-1530 America/New_York"),
        ("1700-1700", "1655-1700", "1700-1655 America/New_York"),
        ("0930-1600|1800-0000:1", "", "1800-0000:1|0930-1600 America/New_York"),
    ],
)
def test_weekly_hours_have_the_text_that_charts_read(sessions: str, pauses: str, text: str) -> None:
    calendar = TradingCalendar("America/New_York", sessions, pauses=pauses)
    assert calendar.text == text
    again = TradingCalendar("America/New_York", calendar.sessions)
    assert again.sessions == calendar.sessions


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"zone": "New York"}, "'New York' is not a time zone; write its IANA name, for example America/New_York"),
        ({"zone": None}, "None is not a time zone"),
        ({"sessions": "9:30-16:00"}, "'9:30-16:00' is not a session: write HHMM-HHMM"),
        ({"sessions": "0930-1660"}, "'0930-1660' is not a session: times are from 0000 to 2359"),
        ({"sessions": "0930-1600:0"}, "'0' are not days: 1 is Sunday, 7 is Saturday"),
        ({"sessions": "0900-1200,1100-1300"}, "the sessions of '0900-1200,1100-1300' overlap or do not ascend"),
        ({"sessions": "0930-1600|1000-1600"}, "has hours without days twice"),
        ({"sessions": "0930-1600:23|1000-1600:3"}, "has hours for day 3 twice"),
        ({"sessions": ""}, "'' is not a session"),
        ({"pauses": "0900-1700"}, "the pauses '0900-1700' leave nothing of the sessions '0930-1600'"),
        ({"holidays": ["25.12.2026"]}, "'25.12.2026' is not a day: write 2026-12-25, or 12-25 for each year"),
        ({"holidays": ["13-01"]}, "'13-01' is not a day"),
        ({"holidays": "2026-12-25"}, "holidays is the text '2026-12-25', not a list of dates"),
        ({"holidays": [20261225]}, "20261225 is not a day"),
        ({"holidays": ["2026-12-25"], "special_days": {"2026-12-25": "0930-1300"}}, "2026-12-25 is named twice"),
        ({"special_days": {"12-24": "noon"}}, "'noon' is not a session"),
        (
            {"holidays": [f"{month:02}-{day:02}" for month in range(1, 12) for day in range(1, 11)]},
            "110 days of each year are named, more than 100",
        ),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        TradingCalendar(**{"zone": "America/New_York", "sessions": "0930-1600", **arguments})


# -- the slow model ----------------------------------------------------------------------------------------------

# Days around which clocks change: by an hour, by half of one, at midnight, and a day that one zone never had.
CHANGES = [
    ("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"), ("Europe/London", "2026-03-29"),
    ("Australia/Lord_Howe", "2026-04-05"), ("Asia/Beirut", "2026-03-29"), ("Pacific/Apia", "2011-12-30"),
    ("Asia/Kolkata", "2026-06-15"), ("UTC", "2026-12-25"),
]  # fmt: skip
TIMES = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}{quarter % 4 * 15:02}")
ONE = st.tuples(TIMES, TIMES).map(lambda hours: [hours])


@st.composite
def two(draw: st.DrawFn) -> list[tuple[str, str]]:
    a, b, c, d = sorted(draw(st.lists(st.integers(1, 95), min_size=4, max_size=4, unique=True)))
    clock = [f"{quarter // 4:02}{quarter % 4 * 15:02}" for quarter in (a, b, c, d)]
    return [(clock[0], clock[1]), (clock[2], clock[3])]


HOURS = st.one_of(ONE, two())
QUARTER_S = 900
"""All these times, and the offsets of the zones, are multiples of a quarter of an hour."""


@pytest.mark.parametrize(
    ("calendar", "week", "around"),
    [
        (NYSE, {day: [("0930", "1600")] for day in range(5)}, "2026-03-08"),
        (NYSE, {day: [("0930", "1600")] for day in range(5)}, "2026-11-01"),
        (MONEY, {day: [("1700", "1700")] for day in range(5)}, "2026-03-08"),
        (METAL, {day: [("1800", "1700")] for day in range(5)}, "2026-11-01"),
    ],
)
def test_it_agrees_with_a_walk_minute_by_minute(
    calendar: TradingCalendar, week: dict[int, list[tuple[str, str]]], around: str
) -> None:
    start = at(around) - 86_400
    walked = WalkedCalendar(calendar.zone, week)
    for moment, is_open in walked.walk(start, start + 3 * 86_400):
        assert calendar.is_open(moment) is is_open, moment


def text_of(hours: list[tuple[str, str]]) -> str:
    return ",".join(f"{opens}-{closes}" for opens, closes in hours)


@settings(
    max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(
    place=st.sampled_from(CHANGES),
    week=st.dictionaries(st.integers(0, 6), HOURS, min_size=1),
    pauses=st.one_of(st.just([]), ONE),
    off=st.dictionaries(st.integers(-3, 3), st.one_of(st.just([]), HOURS), max_size=3),
    each=st.dictionaries(st.integers(-3, 3), st.one_of(st.just([]), HOURS), max_size=2),
)
def test_it_agrees_with_a_walk_whatever_the_hours_are(
    place: tuple[str, str],
    week: dict[int, list[tuple[str, str]]],
    pauses: list[tuple[str, str]],
    off: dict[int, list[tuple[str, str]]],
    each: dict[int, list[tuple[str, str]]],
) -> None:
    zone, around = place
    middle = date.fromisoformat(around)
    dated = {middle + timedelta(days=days): hours for days, hours in off.items()}
    yearly = {f"{middle + timedelta(days=days):%m-%d}": hours for days, hours in each.items()}
    walked = WalkedCalendar(zone, week, pauses, dated, yearly, QUARTER_S)
    named: list[tuple[Any, list[tuple[str, str]]]] = [*dated.items(), *yearly.items()]
    sessions = "|".join(f"{text_of(hours)}:{(day + 1) % 7 + 1}" for day, hours in week.items())
    try:
        calendar = TradingCalendar(
            zone,
            sessions,
            pauses=text_of(pauses),
            holidays=[day for day, hours in named if not hours],
            special_days={day: text_of(hours) for day, hours in named if hours},
        )
    except ValueError as error:
        if "leave nothing" not in str(error):
            raise
        return
    start, end = at(around) - 3 * 86_400, at(around) + 4 * 86_400
    expected = walked.sessions(start, end)
    # What touches the ends of the walk may go on beyond them.
    whole = [one for one in expected if start < one[0] and one[1] < end]
    for opens, closes in whole:
        for moment in (opens, (opens + closes) // 2, closes - 1):
            assert calendar.session_at(moment) == (opens, closes)
        assert calendar.last_close(closes) == closes or closes in {one[0] for one in expected}
    for (_, closes), (opens, _) in pairwise(expected):
        for moment in (closes, (opens + closes) // 2, opens - 1):
            assert calendar.session_at(moment).opens == opens
            assert calendar.last_close(moment) == closes
    assert calendar.trading_between(start, end) == sum(closes - opens for opens, closes in expected)
    if expected:
        begin, until = expected[0][0], expected[-1][1]
        traded = sum(closes - opens for opens, closes in expected)
        for seconds in (QUARTER_S, traded // 2, traded):
            assert calendar.trading_between(begin, calendar.after_trading(begin, seconds)) == seconds
            assert calendar.trading_between(calendar.before_trading(until, seconds), until) == seconds
