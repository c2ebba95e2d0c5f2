"""What a market's hours say of spans of time; the hours are those of currencies, in weeks with and without a change."""

import pytest

from relay.core.model import OpenHours
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from tests.support.moments import at

FRIDAY, SUNDAY = at("2026-01-16 22:00:00"), at("2026-01-18 22:00:00")
WEEK = OpenHours(at("2026-01-11 22:00:00"), FRIDAY)
NEXT = OpenHours(SUNDAY, at("2026-01-23 22:00:00"))


def hours(moment: int) -> OpenHours | None:
    return WEEK if moment < FRIDAY else NEXT if moment < NEXT.closes else None


def test_a_span_is_closed_when_nothing_in_it_is_open() -> None:
    market = TradingHours(hours)
    assert market.is_closed(FRIDAY, SUNDAY)
    assert market.is_closed(at("2026-01-17 00:00:00"), at("2026-01-18 20:00:00"))
    assert not market.is_closed(FRIDAY - 1, SUNDAY)
    assert not market.is_closed(FRIDAY, SUNDAY + 1)
    assert (market.opens_at(FRIDAY - 1), market.opens_at(FRIDAY)) == (FRIDAY - 1, SUNDAY)


def test_a_market_without_hours_is_never_closed() -> None:
    market = TradingHours()
    assert not market.is_closed(0, 1)
    assert market.opens_at(7) == 7
    assert market.open_parts(3, 9, 60) == [(3, 9)]


def test_hours_are_asked_for_once_while_they_hold() -> None:
    asked = []

    def ask(moment: int) -> OpenHours | None:
        asked.append(moment)
        return hours(moment)

    market = TradingHours(ask)
    for moment in (FRIDAY - 100, FRIDAY - 5000, FRIDAY + 5, FRIDAY + 90_000, SUNDAY + 5, FRIDAY + 1):
        market.opens_at(moment)
    assert asked == [FRIDAY - 100, FRIDAY + 5, FRIDAY + 1]


def test_open_parts_of_a_span_leave_the_weekend_out() -> None:
    market = TradingHours(hours)
    start, end = FRIDAY - 3600, SUNDAY + 7200
    assert market.open_parts(start, end, 60) == [(start, FRIDAY), (SUNDAY, end)]
    assert market.open_parts(start, end, 3600) == [(start, FRIDAY), (SUNDAY, end)]
    assert market.open_parts(FRIDAY, SUNDAY, 60) == []
    assert market.open_parts(FRIDAY + 60, SUNDAY + 60, 60) == [(SUNDAY, SUNDAY + 60)]


def test_long_candles_in_which_the_market_opens_are_not_left_out() -> None:
    market = TradingHours(hours)
    ((_, closed), (opened, _)) = market.open_parts(at("2026-01-16 00:00:00"), at("2026-01-20 00:00:00"), 86_400)
    assert closed == FRIDAY
    assert at("2026-01-17 00:00:00") < opened <= at("2026-01-18 00:00:00")
    whole = (at("2026-01-05 00:00:00"), at("2026-01-22 00:00:00"))
    assert market.open_parts(*whole, 7 * 86_400) == [whole]


@pytest.mark.parametrize(
    ("interval", "opened", "moment", "is_early"),
    [
        ("1m", FRIDAY - 60, FRIDAY - 1, True),
        ("1m", FRIDAY - 60, FRIDAY, False),
        # The market closes within it.
        ("4h", FRIDAY - 7200, FRIDAY - 1, True),
        ("4h", FRIDAY - 7200, FRIDAY, False),
        # It opens again within it.
        ("1d", FRIDAY - 79_200, FRIDAY, False),
        ("1w", at("2026-01-12 00:00:00"), FRIDAY, True),
        # The clocks of its zone may have been set forward.
        ("1d", at("2026-01-13 22:00:00"), at("2026-01-14 21:00:00"), False),
        ("1d", at("2026-01-13 22:00:00"), at("2026-01-14 20:59:59"), True),
        ("1M", at("2026-01-01 00:00:00"), at("2026-01-31 00:00:00"), True),
    ],
)
def test_a_candle_is_closed_at_the_end_of_its_interval_or_with_its_session(
    interval: str, opened: int, moment: int, is_early: bool
) -> None:
    assert TradingHours(hours).closes_early(interval, opened, moment) is is_early


def test_a_provider_that_counts_in_utc_has_no_short_days_and_a_clock_may_be_behind() -> None:
    market, day = TradingHours(), at("2026-01-13 00:00:00")
    assert market.closes_early("1d", day, day + 86_399, is_utc_grid=True)
    assert not market.closes_early("1d", day, day + 86_399, slack_s=1.0, is_utc_grid=True)
    assert not market.closes_early("1d", day, day + 86_400, is_utc_grid=True)


# -- candles of a market with short sessions -----------------------------------------------------------------------

NYSE = TradingCalendar("America/New_York", "0930-1600", special_days={"2026-11-27": "0930-1300"})
STOCKS = TradingHours(NYSE.session_at)


@pytest.mark.parametrize(
    ("interval", "opened", "over"),
    [
        # counted from the opening: the last hour of a day has 30 minutes, and so has that of a half day
        ("1h", "2026-11-25 19:30", "2026-11-25 20:30"),
        ("1h", "2026-11-25 20:30", "2026-11-25 21:00"),
        ("1h", "2026-11-27 17:30", "2026-11-27 18:00"),
        # by the clock: the first hour is short as well, but over with its interval
        ("1h", "2026-11-25 14:00", "2026-11-25 15:00"),
        ("15m", "2026-11-25 20:45", "2026-11-25 21:00"),
        # days, by UTC and by New York, and weeks from Monday
        ("1d", "2026-11-25 00:00", "2026-11-25 21:00"),
        ("1d", "2026-11-25 05:00", "2026-11-25 21:00"),
        ("1d", "2026-11-27 14:30", "2026-11-27 18:00"),
        ("1w", "2026-11-23 05:00", "2026-11-27 18:00"),
        ("1M", "2026-11-01 04:00", "2026-11-30 21:00"),
        # no trading at all
        ("1d", "2026-11-28 05:00", "2026-11-29 05:00"),
    ],
)
def test_a_candle_is_over_with_the_trading_in_it(interval: str, opened: str, over: str) -> None:
    assert STOCKS.end_of(interval, at(opened)) == at(over)
    assert TradingHours().end_of("1h", at(opened)) == at(opened) + 3600


@pytest.mark.parametrize(
    ("interval", "opened", "due"),
    [
        ("1h", "2026-11-25 19:30", "2026-11-25 21:00"),
        # the next day opens by its own hour, also when the clocks changed
        ("1h", "2026-03-06 20:30", "2026-03-09 14:30"),
        ("1d", "2026-03-06 14:30", "2026-03-09 20:00"),
        ("1d", "2026-03-06 05:00", "2026-03-09 20:00"),
    ],
)
def test_the_candle_that_follows_is_due_in_the_next_session(interval: str, opened: str, due: str) -> None:
    assert STOCKS.next_due(interval, at(opened)) == at(due)


def test_candles_that_are_counted_from_the_opening_do_not_open_before_it() -> None:
    night = at("2026-11-25 21:30"), at("2026-11-27 16:30")
    opens = at("2026-11-27 14:30")
    assert STOCKS.open_parts(*night, 3600) == [
        (at("2026-11-26 14:00"), at("2026-11-26 21:00")),
        (at("2026-11-27 14:00"), at("2026-11-27 16:30")),
    ]
    counted = STOCKS.open_parts(*night, 3600, at("2026-11-25 15:30"))
    assert counted == [(at("2026-11-26 14:30"), at("2026-11-26 21:00")), (opens, at("2026-11-27 16:30"))]
    # Nothing is missing up to the first candle of a day, whichever way they are counted.
    assert STOCKS.open_parts(at("2026-11-26 21:30"), opens, 3600) == []


def test_hours_are_asked_for_once_by_who_looks_at_two_sessions_in_turn() -> None:
    asked: list[int] = []

    def ask(moment: int) -> OpenHours:
        asked.append(moment)
        return NYSE.session_at(moment)

    market = TradingHours(ask)
    for _ in range(9):
        assert market.end_of("1h", at("2026-11-25 20:30")) == at("2026-11-25 21:00")
        assert market.opens_at(at("2026-11-25 23:00")) == at("2026-11-26 14:30")
    assert len(asked) == 2


def test_whether_a_span_of_years_has_trading_in_it_is_said_by_its_first_session() -> None:
    asked = []

    def hours(moment: int) -> OpenHours:
        asked.append(moment)
        return OpenHours(moment // 86_400 * 86_400 + 36_000, moment // 86_400 * 86_400 + 86_400)

    market = TradingHours(hours)
    assert market.has_open_part(0, 50 * 365 * 86_400, 3600)
    assert len(asked) == 1
    assert not market.has_open_part(86_400, 86_400 + 36_000 - 3600, 3600)
    assert market.open_parts(0, 2 * 86_400, 3600) == [(36_000, 86_400), (86_400 + 36_000, 2 * 86_400)]
