from datetime import UTC, datetime

import pytest

from providers.forex import (
    after_trading,
    before_trading,
    keeps_hours,
    known_pairs,
    last_close,
    session_at,
    without_padding,
)
from relay import Candle


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


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
    assert session_at(at(moment)) == (at(opens), at(closes))


def test_the_last_close_is_now_while_the_market_is_open() -> None:
    assert last_close(at("2026-01-14 12:00")) == at("2026-01-14 12:00")
    assert last_close(at("2026-01-17 12:00")) == at("2026-01-16 22:00")
    assert last_close(at("2026-01-18 22:00")) == at("2026-01-16 22:00")


def test_trading_time_skips_weekends() -> None:
    assert after_trading(at("2026-01-16 21:00"), 2 * 3600) == at("2026-01-18 23:00")
    assert after_trading(at("2026-01-17 12:00"), 3600) == at("2026-01-18 23:00")
    assert after_trading(at("2026-01-14 12:00"), 5 * 86_400) == at("2026-01-21 12:00")
    assert before_trading(at("2026-01-18 23:00"), 2 * 3600) == at("2026-01-16 21:00")
    assert before_trading(at("2026-01-17 12:00"), 3600) == at("2026-01-16 21:00")
    assert before_trading(at("2026-01-21 12:00"), 5 * 86_400) == at("2026-01-14 12:00")


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


def test_money_and_metals_keep_hours_and_coins_do_not() -> None:
    assert all(keeps_hours(symbol) for symbol in ("EUR/USD", "XAU/USD", "COP/ARS", "USD/CNH"))
    assert not any(keeps_hours(symbol) for symbol in ("BTC/USD", "ETH/EUR", "AAPL", "EUR", ""))


def test_the_known_pairs_are_written_as_the_market_does() -> None:
    pairs = known_pairs()
    assert {"EUR/USD", "USD/JPY", "GBP/USD", "AUD/USD", "USD/CHF", "USD/CAD", "NZD/USD", "EUR/GBP"} <= set(pairs)
    assert {"XAU/USD", "XAG/USD"} <= set(pairs)
    assert "USD/EUR" not in pairs
    assert len(pairs) == len(set(pairs))
    assert all(keeps_hours(pair) for pair in pairs)
