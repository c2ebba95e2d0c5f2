"""The invented market: exact sums between intervals, the same answers from the same seed, real-looking sizes."""

import itertools
import time
from datetime import UTC, datetime
from statistics import mean, median

import pytest

from providers.sandbox.intervals import FIXED_MS, end_time, open_time
from providers.sandbox.listings import DAY_MS, HOUR_MS
from providers.sandbox.market import Market, UnknownSymbol
from providers.sandbox.parts import Part
from tests.support.sandbox.market import StagedMarket

MINUTE_MS = 60_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = at("2026-10-14 12:00:00")


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(7)


def added_up(parts: list[Part]) -> tuple[int, ...]:
    traded = [part for part in parts if part.trades] or parts[:1]
    return (
        traded[0].open,
        max(part.high for part in traded),
        min(part.low for part in traded),
        traded[-1].close,
        sum(part.volume for part in parts),
        sum(part.quote for part in parts),
        sum(part.taker for part in parts),
        sum(part.taker_quote for part in parts),
        sum(part.trades for part in parts),
        traded[0].first_id,
    )


def values(part: Part) -> tuple[int, ...]:
    return (part.open, part.high, part.low, part.close, part.volume, part.quote, part.taker, part.taker_quote,
            part.trades, part.first_id)  # fmt: skip


@pytest.mark.parametrize("symbol", ["BTCUSDT", "DOGEUSDT", "BTCEUR", "LRCBTC", "币安人生USDT", "EUR/USD", "XAU/USD"])
@pytest.mark.parametrize(
    ("larger", "smaller", "opened"),
    [
        ("1m", "1s", "2026-10-14 12:34:00"),
        ("3m", "1m", "2026-10-14 12:33:00"),
        ("1h", "1m", "2026-10-14 12:00:00"),
        ("1h", "1s", "2026-10-13 03:00:00"),
        ("12h", "15m", "2026-10-14 12:00:00"),
        ("1d", "1h", "2026-10-14 00:00:00"),
        ("1d", "1m", "2026-10-16 00:00:00"),
        ("1w", "1d", "2026-10-12 00:00:00"),
        ("1M", "1d", "2026-09-01 00:00:00"),
    ],
)
def test_smaller_candles_add_up_to_the_larger_one(
    market: Market, symbol: str, larger: str, smaller: str, opened: str
) -> None:
    whole = market.candle(symbol, larger, at(opened))
    assert whole.start == at(opened)
    parts = []
    start = whole.start
    while start < whole.end:
        parts.append(market.candle(symbol, smaller, start))
        start = parts[-1].end
    assert start == whole.end
    assert values(whole) == added_up(parts)


def test_trade_ids_run_on_from_candle_to_candle(market: Market) -> None:
    parts = [market.candle("BTCUSDT", "1m", NOON + i * MINUTE_MS) for i in range(90)]
    for before, after in itertools.pairwise(parts):
        assert after.first_id == before.last_id + 1


def test_equal_seeds_agree_whatever_was_asked_before() -> None:
    first, second = Market("x"), Market("x")
    moments = [NOON + i * 7_777_777 for i in range(20)]
    forwards = [first.candle("SOLUSDT", "1m", moment) for moment in moments]
    backwards = [second.candle("SOLUSDT", "1m", moment) for moment in reversed(moments)]
    assert forwards == backwards[::-1]


def test_other_seeds_differ() -> None:
    assert Market(1).candle("BTCUSDT", "1m", NOON) != Market(2).candle("BTCUSDT", "1m", NOON)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ADAUSDT", "LRCBTC", "EUR/USD"])
def test_forming_candle_holds_what_happened_so_far(market: Market, symbol: str) -> None:
    opened = at("2026-10-14 13:00:00")
    whole = market.candle(symbol, "1h", opened)
    before: Part | None = None
    for moment in range(opened + 1, opened + HOUR_MS, 177_777):
        forming = market.candle(symbol, "1h", opened, moment)
        assert (forming.start, forming.end) == (whole.start, whole.end)
        assert whole.low <= forming.low <= forming.close <= forming.high <= whole.high
        if forming.trades and whole.trades:
            assert (forming.open, forming.first_id) == (whole.open, whole.first_id)
        if before is not None:
            assert forming.volume >= before.volume
            assert forming.trades >= before.trades
        before = forming
    assert market.candle(symbol, "1h", opened, opened + HOUR_MS) == whole


def test_forming_candle_equals_the_seconds_and_trades_before_it(market: Market) -> None:
    moment = NOON + 37_421
    forming = market.candle("BTCUSDT", "1m", NOON, moment)
    seconds = [market.candle("BTCUSDT", "1s", NOON + i * 1000, moment) for i in range(38)]
    assert values(forming) == added_up(seconds)
    ticks = market.ticks("BTCUSDT", NOON, moment)
    assert len(ticks) == forming.trades
    assert (ticks[0][1], ticks[-1][1]) == (forming.open, forming.close)
    assert max(price for _, price in ticks) == forming.high


@pytest.mark.parametrize("symbol", ["BTCUSDT", "XRPUSDT", "ETHBTC", "LRCBTC", "GBP/USD"])
@pytest.mark.parametrize("interval", ["1s", "1m", "15m", "1h", "1d"])
def test_every_candle_is_possible(market: Market, symbol: str, interval: str) -> None:
    for i in range(300):
        part = market.candle(symbol, interval, NOON - i * FIXED_MS[interval])
        assert 0 < part.low <= min(part.open, part.close)
        assert part.high >= max(part.open, part.close)
        if part.trades == 0:
            assert part.volume == part.quote == part.taker == part.taker_quote == 0
            assert part.open == part.high == part.low == part.close == part.previous
        else:
            assert part.volume >= part.trades
            assert 0 <= part.taker <= part.volume
            assert 0 <= part.taker_quote <= part.quote
            if "/" not in symbol:
                assert part.low * part.volume <= part.quote <= part.high * part.volume


def test_quiet_pair_often_has_minutes_without_a_trade(market: Market) -> None:
    parts = [market.candle("LRCBTC", "1m", NOON + i * MINUTE_MS) for i in range(720)]
    traded = sum(1 for part in parts if part.trades)
    assert 60 < traded < 400
    for before, after in itertools.pairwise(parts):
        if after.trades == 0:
            assert after.open == before.close


@pytest.mark.parametrize(
    ("interval", "count", "least_bp", "most_bp"),
    [("1m", 3000, 2, 14), ("15m", 2000, 12, 40), ("1h", 2000, 35, 110), ("4h", 1000, 70, 240), ("1d", 1500, 200, 520)],
)
def test_bitcoin_moves_and_trades_like_the_real_one(
    market: Market, interval: str, count: int, least_bp: int, most_bp: int
) -> None:
    parts = [market.candle("BTCUSDT", interval, NOON - i * FIXED_MS[interval]) for i in range(count)]
    middle_range = median((part.high - part.low) / part.open * 10_000 for part in parts)
    assert least_bp < middle_range < most_bp
    body = mean(abs(p.close - p.open) for p in parts) / mean(p.high - p.low for p in parts)
    assert 0.35 < body < 0.65
    volumes = [part.volume for part in parts]
    assert 0.3 < median(volumes) / mean(volumes) < 0.95
    assert max(volumes) > 2.5 * mean(volumes)


@pytest.mark.parametrize(("symbol", "phase"), [("BTCUSDT", 1), ("ADAUSDT", 1), ("XRPUSDT", 0), ("SOLUSDT", 2)])
def test_three_day_candles_count_from_the_first_day_of_a_pair(market: Market, symbol: str, phase: int) -> None:
    part = market.candle(symbol, "3d", NOON)
    assert part.start // DAY_MS % 3 == phase
    assert part.end - part.start == 3 * DAY_MS


def test_weeks_open_on_monday_and_months_on_the_first() -> None:
    assert open_time("1w", NOON) == at("2026-10-12 00:00:00")
    assert open_time("1M", NOON) == at("2026-10-01 00:00:00")
    assert end_time("1M", at("2027-12-01 00:00:00")) == at("2028-01-01 00:00:00")
    assert open_time("1d", NOON, shift_ms=8 * HOUR_MS) == at("2026-10-13 16:00:00")


def test_first_week_is_stamped_before_the_listing(market: Market) -> None:
    listed = at("2017-08-17 00:00:00")
    week = market.candle("BTCUSDT", "1w", listed)
    assert week.start == at("2017-08-14 00:00:00")
    assert values(week) == added_up([market.candle("BTCUSDT", "1d", listed + i * DAY_MS) for i in range(4)])


@pytest.mark.parametrize(
    ("symbol", "moment", "is_open"),
    [
        ("EUR/USD", "2026-01-16 21:59:00", True),
        ("EUR/USD", "2026-01-16 22:00:00", False),
        ("EUR/USD", "2026-01-17 12:00:00", False),
        ("EUR/USD", "2026-01-18 21:59:00", False),
        ("EUR/USD", "2026-01-18 22:00:00", True),
        # The United States have summer time from 2026-03-08, Europe only from 2026-03-29.
        ("EUR/USD", "2026-03-06 21:30:00", True),
        ("EUR/USD", "2026-03-13 20:59:00", True),
        ("EUR/USD", "2026-03-13 21:00:00", False),
        ("EUR/USD", "2026-03-15 21:00:00", True),
        ("XAU/USD", "2026-01-14 22:30:00", False),
        ("XAU/USD", "2026-07-14 21:30:00", False),
        ("XAU/USD", "2026-07-14 22:30:00", True),
        ("BTCUSDT", "2026-01-17 12:00:00", True),
    ],
)
def test_forex_follows_new_york_hours(market: Market, symbol: str, moment: str, is_open: bool) -> None:
    assert market.is_open(symbol, at(moment)) is is_open
    assert (market.candle(symbol, "1h", at(moment)).trades > 0) is is_open


def test_forex_can_be_open_on_a_sunday() -> None:
    sunday = at("2026-01-18 12:00:00")
    assert Market(forex_always_open=True).candle("EUR/USD", "1m", sunday).trades > 0


def test_hidden_span_has_no_market() -> None:
    market, untouched = StagedMarket(3), Market(3)
    start, end = NOON + 20 * MINUTE_MS, NOON + 80 * MINUTE_MS
    market.hide("BTCUSDT", start, end)
    assert not market.exists("BTCUSDT", start, start + MINUTE_MS)
    assert market.exists("BTCUSDT", NOON, NOON + HOUR_MS)
    hour = market.candle("BTCUSDT", "1h", NOON)
    kept = [untouched.candle("BTCUSDT", "1m", NOON + i * MINUTE_MS) for i in range(20)]
    assert values(hour) == added_up(kept)
    assert market.last_ms("BTCUSDT", NOON, NOON + HOUR_MS) == start - 1
    assert market.candle("BTCUSDT", "1m", start).trades == 0
    assert market.candle("ETHUSDT", "1m", start).trades > 0


def test_delisted_pair_stands_still(market: Market) -> None:
    assert market.candle("NKNUSDT", "1h", at("2025-07-01 12:00:00")).trades > 0
    assert market.candle("NKNUSDT", "1h", NOON).trades == 0


def test_symbol_of_a_delisted_pair_can_name_another_coin() -> None:
    market = StagedMarket(3)
    assert market.candle("BNBUSDT", "1h", NOON - DAY_MS).trades > 0
    pair = market.delist("BNBUSDT")
    with pytest.raises(UnknownSymbol):
        market.candle("BNBUSDT", "1h", NOON)
    with pytest.raises(UnknownSymbol):
        market.delist("BNBUSDT")
    market.list_other(pair, 5.0, NOON)
    assert market.candle("BNBUSDT", "1h", NOON - DAY_MS).trades == 0
    assert not market.exists("BNBUSDT", NOON - HOUR_MS, NOON)
    listed = market.candle("BNBUSDT", "1h", NOON)
    assert listed.trades > 0
    assert 4.0 < listed.close / 10**pair.price_decimals < 6.0


def test_more_symbols_on_demand() -> None:
    market = StagedMarket(extra_symbols=200)
    assert market.candle("T200USDT", "1h", NOON).trades > 0
    with pytest.raises(UnknownSymbol):
        market.candle("T201USDT", "1h", NOON)
    market.add_symbols(["T201USDT", "SEK/NOK"])
    assert market.candle("T201USDT", "1h", NOON).trades > 0
    assert market.candle("SEK/NOK", "1h", NOON).trades > 0


def test_thousand_candles_of_a_fresh_symbol_come_at_once() -> None:
    for interval in ("1s", "1m", "5m", "1h", "1d"):
        market = Market(5)
        started = time.process_time()
        for i in range(1000):
            market.candle("BTCUSDT", interval, NOON - i * FIXED_MS[interval])
        assert time.process_time() - started < 1.0


def test_forming_candle_is_cheap_once_warm(market: Market) -> None:
    market.candle("BTCUSDT", "1h", NOON, NOON + 1)
    started = time.process_time()
    for i in range(200):
        market.candle("BTCUSDT", "1h", NOON, NOON + 1_800_000 + i)
    assert (time.process_time() - started) / 200 < 0.001


def test_a_stretch_that_was_asked_for_before_is_as_a_test_left_it() -> None:
    market, hour = StagedMarket(7), (NOON, NOON + HOUR_MS)
    before = market.span("BTCUSDT", *hour)
    assert before == Market(7).span("BTCUSDT", *hour)
    market.hide("BTCUSDT", NOON, NOON + 30 * MINUTE_MS)
    half = market.span("BTCUSDT", *hour)
    assert 0 < half.trades < before.trades
    market.list_other(market.delist("BTCUSDT"), 5.0, NOON)
    assert market.span("BTCUSDT", *hour).close < half.close / 1000


def test_markets_that_share_the_walk_through_the_days_answer_as_one_that_does_not() -> None:
    one, other = StagedMarket("shared"), StagedMarket("shared")
    for market, day in ((one, "2019-01-01"), (other, "2022-01-01"), (one, "2026-10-14"), (other, "2026-10-14")):
        start = at(f"{day} 00:00:00")
        assert market.span("BTCUSDT", start, start + DAY_MS) == Market("shared").span("BTCUSDT", start, start + DAY_MS)
    assert one.walk(one.pair("BTCUSDT")) is other.walk(other.pair("BTCUSDT"))
    other.list_other(other.delist("BTCUSDT"), 50.0, NOON)
    after = (NOON + DAY_MS, NOON + 2 * DAY_MS)
    assert one.span("BTCUSDT", *after) == Market("shared").span("BTCUSDT", *after) != other.span("BTCUSDT", *after)
