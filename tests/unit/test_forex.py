import pytest

from providers.twelve_data.forex import ALWAYS, METAL, MONEY, Hours, expected, hours_of, known_pairs, without_padding
from relay import Candle
from tests.support.moments import at


@pytest.mark.parametrize(
    ("moment", "opens", "closes"),
    [
        # winter: 22:00 UTC
        ("2026-01-14 12:00", "2026-01-11 22:00", "2026-01-16 22:00"),
        ("2026-01-16 21:59:59", "2026-01-11 22:00", "2026-01-16 22:00"),
        ("2026-01-16 22:00", "2026-01-18 22:00", "2026-01-23 22:00"),
        ("2026-01-17 12:00", "2026-01-18 22:00", "2026-01-23 22:00"),
        ("2026-01-18 21:59:59", "2026-01-18 22:00", "2026-01-23 22:00"),
        ("2026-01-18 22:00", "2026-01-18 22:00", "2026-01-23 22:00"),
        # summer: 21:00 UTC
        ("2026-07-08 12:00", "2026-07-05 21:00", "2026-07-10 21:00"),
        # the United States change on 2026-03-08 and 2026-11-01, both Sundays, before the market opens
        ("2026-03-07 12:00", "2026-03-08 21:00", "2026-03-13 21:00"),
        ("2026-03-06 12:00", "2026-03-01 22:00", "2026-03-06 22:00"),
        ("2026-10-30 12:00", "2026-10-25 21:00", "2026-10-30 21:00"),
        ("2026-10-31 12:00", "2026-11-01 22:00", "2026-11-06 22:00"),
    ],
)
def test_a_session_lasts_from_sunday_to_friday_17_new_york(moment: str, opens: str, closes: str) -> None:
    assert MONEY.calendar.session_at(at(moment)) == (at(opens), at(closes))


def test_the_last_close_is_now_while_the_market_is_open() -> None:
    assert MONEY.calendar.last_close(at("2026-01-14 12:00")) == at("2026-01-14 12:00")
    assert MONEY.calendar.last_close(at("2026-01-17 12:00")) == at("2026-01-16 22:00")
    assert MONEY.calendar.last_close(at("2026-01-18 22:00")) == at("2026-01-16 22:00")


def test_trading_time_skips_weekends() -> None:
    assert MONEY.calendar.after_trading(at("2026-01-16 21:00"), 2 * 3600) == at("2026-01-18 23:00")
    assert MONEY.calendar.after_trading(at("2026-01-17 12:00"), 3600) == at("2026-01-18 23:00")
    assert MONEY.calendar.after_trading(at("2026-01-14 12:00"), 5 * 86_400) == at("2026-01-21 12:00")
    assert MONEY.calendar.before_trading(at("2026-01-18 23:00"), 2 * 3600) == at("2026-01-16 21:00")
    assert MONEY.calendar.before_trading(at("2026-01-17 12:00"), 3600) == at("2026-01-16 21:00")
    assert MONEY.calendar.before_trading(at("2026-01-21 12:00"), 5 * 86_400) == at("2026-01-14 12:00")


@pytest.mark.parametrize(
    ("moment", "opens", "closes"),
    [
        # winter: the pause is from 22:00 to 23:00 UTC
        ("2026-01-14 12:00", "2026-01-13 23:00", "2026-01-14 22:00"),
        ("2026-01-14 21:59:59", "2026-01-13 23:00", "2026-01-14 22:00"),
        ("2026-01-14 22:00", "2026-01-14 23:00", "2026-01-15 22:00"),
        ("2026-01-14 22:59:59", "2026-01-14 23:00", "2026-01-15 22:00"),
        ("2026-01-14 23:00", "2026-01-14 23:00", "2026-01-15 22:00"),
        # money opens on Sunday an hour earlier
        ("2026-01-16 22:00", "2026-01-18 23:00", "2026-01-19 22:00"),
        ("2026-01-18 22:30", "2026-01-18 23:00", "2026-01-19 22:00"),
        # summer
        ("2026-07-08 12:00", "2026-07-07 22:00", "2026-07-08 21:00"),
        ("2026-03-07 12:00", "2026-03-08 22:00", "2026-03-09 21:00"),
        ("2026-10-31 12:00", "2026-11-01 23:00", "2026-11-02 22:00"),
    ],
)
def test_metals_pause_for_an_hour_every_day(moment: str, opens: str, closes: str) -> None:
    assert METAL.calendar.session_at(at(moment)) == (at(opens), at(closes))


def test_trading_time_of_metals_skips_the_daily_pause() -> None:
    assert METAL.calendar.last_close(at("2026-01-14 22:30")) == at("2026-01-14 22:00")
    assert METAL.calendar.last_close(at("2026-01-14 23:00")) == at("2026-01-14 22:00")
    assert METAL.calendar.last_close(at("2026-01-18 23:00")) == at("2026-01-16 22:00")
    assert METAL.calendar.after_trading(at("2026-01-14 21:00"), 2 * 3600) == at("2026-01-15 00:00")
    assert METAL.calendar.before_trading(at("2026-01-15 00:00"), 2 * 3600) == at("2026-01-14 21:00")


def test_coins_trade_at_all_times() -> None:
    saturday = at("2026-01-17 12:00")
    assert ALWAYS.is_always_open
    assert ALWAYS.calendar.session_at(saturday).opens < saturday
    assert ALWAYS.calendar.last_close(saturday) == saturday
    assert ALWAYS.calendar.after_trading(saturday, 3600) == saturday + 3600
    assert ALWAYS.calendar.before_trading(saturday, 3600) == saturday - 3600


@pytest.mark.parametrize(
    ("start", "end", "hours", "open_hours"),
    [
        ("2026-01-14", "2026-01-15", MONEY, 24),
        ("2026-01-14", "2026-01-15", METAL, 23),
        ("2026-01-16", "2026-01-17", MONEY, 22),
        ("2026-01-17", "2026-01-18", MONEY, 0),
        ("2026-01-18", "2026-01-19", MONEY, 2),
        ("2026-01-18", "2026-01-19", METAL, 1),
        ("2026-01-12", "2026-01-19", MONEY, 120),
        # the hour that New York skips lies in the weekend
        ("2026-03-02", "2026-03-09", MONEY, 121),
        ("2026-01-17", "2026-01-18", ALWAYS, 24),
        ("2026-01-15", "2026-01-14", MONEY, 0),
    ],
)
def test_trading_time_of_a_span(start: str, end: str, hours: Hours, open_hours: int) -> None:
    assert hours.calendar.trading_between(at(start), at(end)) == open_hours * 3600


def test_a_weekend_of_gold_loses_its_padding_and_nothing_else() -> None:
    """Hourly ranges in dollars as they are in a summer of New York, padded; the recording itself is not shipped."""
    hours = [
        ("2026-08-14 19:00", 8.9), ("2026-08-14 20:00", 7.2), ("2026-08-14 21:00", 0.6), ("2026-08-14 22:00", 0.5),
        ("2026-08-15 12:00", 0.5), ("2026-08-16 20:00", 0.6), ("2026-08-16 21:00", 1.1), ("2026-08-16 22:00", 20.4),
        ("2026-08-17 20:00", 9.0), ("2026-08-17 21:00", 1.2), ("2026-08-17 22:00", 11.3),
    ]  # fmt: skip
    candles = [Candle(at(moment), 4000.0, 4000.0 + wide, 4000.0, 4000.0) for moment, wide in hours]
    kept = without_padding(candles, "1h", METAL)
    assert [candle.time for candle in kept] == [
        at("2026-08-14 19:00"), at("2026-08-14 20:00"), at("2026-08-16 22:00"), at("2026-08-17 20:00"),
        at("2026-08-17 22:00"),
    ]  # fmt: skip
    assert min(candle.high - candle.low for candle in kept) > 5


@pytest.mark.parametrize(
    ("interval", "moments", "kept"),
    [
        (
            "15m",
            ["2026-01-16 21:45", "2026-01-16 22:00", "2026-01-17 12:00", "2026-01-18 21:45", "2026-01-18 22:00"],
            ["2026-01-16 21:45", "2026-01-18 22:00"],
        ),
        # the four hours from 20:00 hold two hours of trading, on both ends of a weekend
        (
            "4h",
            ["2026-01-16 20:00", "2026-01-17 00:00", "2026-01-18 16:00", "2026-01-18 20:00"],
            ["2026-01-16 20:00", "2026-01-18 20:00"],
        ),
        # a day's last hours are enough
        ("1d", ["2026-01-16", "2026-01-17", "2026-01-18", "2026-01-19"], ["2026-01-16", "2026-01-18", "2026-01-19"]),
        ("1w", ["2026-01-12", "2026-01-19"], ["2026-01-12", "2026-01-19"]),
        ("1M", ["2026-01-01", "2026-02-01"], ["2026-01-01", "2026-02-01"]),
    ],
)
def test_candles_without_a_moment_of_trading_are_padding(interval: str, moments: list[str], kept: list[str]) -> None:
    candles = [Candle(at(moment), 1, 1, 1, 1) for moment in moments]
    assert [candle.time for candle in without_padding(candles, interval)] == [at(moment) for moment in kept]


@pytest.mark.parametrize(
    ("interval", "opened", "opens"),
    [
        ("4h", "2026-01-18 20:00", "2026-01-18 22:00"),
        ("1d", "2026-01-18", "2026-01-18 22:00"),
        ("1d", "2026-03-08", "2026-03-08 21:00"),
        ("1M", "2026-02-01", "2026-02-01 22:00"),
    ],
)
def test_a_candle_that_holds_an_opening_is_padding_until_then(interval: str, opened: str, opens: str) -> None:
    candles = [Candle(at(opened), 1, 1, 1, 1)]
    assert without_padding(candles, interval, now=at(opens) - 1800) == []
    assert without_padding(candles, interval, now=at(opens) + 1) == candles


def test_a_candle_that_was_traded_stays_while_it_is_open_in_closed_hours() -> None:
    candles = [Candle(at("2026-01-16 20:00"), 1, 1, 1, 1)]
    assert without_padding(candles, "4h", now=at("2026-01-16 23:00")) == candles


def test_money_and_metals_keep_hours_of_their_own_and_coins_none() -> None:
    assert {hours_of(symbol) for symbol in ("EUR/USD", "COP/ARS", "USD/CNH")} == {MONEY}
    assert {hours_of(symbol) for symbol in ("XAU/USD", "XAG/EUR", "XPT/USD")} == {METAL}
    assert {hours_of(symbol) for symbol in ("BTC/USD", "ETH/EUR", "AAPL", "EUR", "")} == {ALWAYS}


def test_the_known_pairs_are_written_as_the_market_does() -> None:
    pairs = known_pairs()
    assert {"EUR/USD", "USD/JPY", "GBP/USD", "AUD/USD", "USD/CHF", "USD/CAD", "NZD/USD", "EUR/GBP"} <= set(pairs)
    assert {"XAU/USD", "XAG/USD"} <= set(pairs)
    assert "USD/EUR" not in pairs
    assert len(pairs) == len(set(pairs))
    assert all(hours_of(pair) is not ALWAYS for pair in pairs)


def test_a_market_that_never_closes_was_open_at_the_beginning_of_time_too() -> None:
    assert ALWAYS.calendar.last_close(0) == 0
    assert ALWAYS.calendar.last_close(-5) == -5
    assert ALWAYS.calendar.before_trading(10, 3600) == -3590


# -- holidays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "moment", "opens", "closes"),
    [
        # The day of the market that ends on a holiday is shut, and begins on the evening before.
        (MONEY, "2025-12-24 21:59", "2025-12-21 22:00", "2025-12-24 22:00"),
        (MONEY, "2025-12-24 22:00", "2025-12-25 22:00", "2025-12-26 22:00"),
        (MONEY, "2017-12-22 22:00", "2017-12-25 22:00", "2017-12-29 22:00"),
        (MONEY, "2017-12-29 22:00", "2018-01-01 22:00", "2018-01-05 22:00"),
        (METAL, "2025-12-24 12:00", "2025-12-23 23:00", "2025-12-24 18:45"),
        (METAL, "2025-12-24 18:45", "2025-12-25 23:00", "2025-12-26 22:00"),
        # Good Friday, as recorded in 2026
        (METAL, "2026-04-02 21:00", "2026-04-05 22:00", "2026-04-06 21:00"),
        (MONEY, "2026-04-03 12:00", "2026-03-29 21:00", "2026-04-03 21:00"),
        # a holiday at a weekend takes no day of trading
        (MONEY, "2027-12-24 12:00", "2027-12-19 22:00", "2027-12-24 22:00"),
    ],
)
def test_bank_holidays_are_in_the_calendar(hours: Hours, moment: str, opens: str, closes: str) -> None:
    assert hours.calendar.session_at(at(moment)) == (at(opens), at(closes))


def test_a_holiday_throws_no_candle_away() -> None:
    christmas = [Candle(at("2025-12-25 12:00") + 60 * number, 1, 1, 1, 1) for number in range(3)]
    assert without_padding(christmas, "1m", MONEY) == christmas
    assert without_padding(christmas, "1m", METAL) == christmas


def test_a_holiday_that_brings_a_candle_is_a_usual_day_from_then_on() -> None:
    now = at("2025-12-25 12:00")
    before = Candle(at("2025-12-24 21:59"), 1, 1, 1, 1)
    assert expected(MONEY, now, None) is MONEY.calendar
    assert expected(MONEY, now, before) is MONEY.calendar
    assert expected(MONEY, now, Candle(at("2025-12-25 11:59"), 1, 1, 1, 1)) is MONEY.week
    # What was traded before the holiday says nothing of the next one.
    assert expected(MONEY, at("2026-01-01 12:00"), Candle(at("2025-12-25 11:59"), 1, 1, 1, 1)) is MONEY.calendar


@pytest.mark.parametrize("moment", ["2020-04-10", "2024-03-29", "2025-04-18", "2026-04-03", "2038-04-23"])
def test_metals_rest_on_good_friday(moment: str) -> None:
    assert not METAL.calendar.is_open(at(f"{moment} 12:00"))
    assert METAL.week.is_open(at(f"{moment} 12:00"))


def test_the_text_of_the_hours_is_that_of_charts() -> None:
    assert [hours.calendar.text for hours in (MONEY, METAL, ALWAYS)] == [
        "1700-1700 America/New_York", "1800-1700 America/New_York", "24x7",
    ]  # fmt: skip
