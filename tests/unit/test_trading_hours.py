"""What a market's hours say of spans of time; the hours are those of currencies, in weeks with and without a change."""

from relay.core.model import OpenHours
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
