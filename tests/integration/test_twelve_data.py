import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise

import aiohttp
import orjson
import pytest
from aiohttp import web

from providers.twelve_data import TwelveDataProvider
from providers.twelve_data.answers import INTERVALS, KeyRefused, SeriesAnswer, read_series, refusal
from providers.twelve_data.forex import MONEY, hours_of
from providers.twelve_data.polled import PolledStream
from providers.twelve_data.waits import Waits
from relay import (
    AuthenticationFailed,
    BadAnswer,
    Candle,
    Instrument,
    PriceUpdate,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Secret,
    StreamKey,
    UnknownSymbol,
    is_unreadable,
)
from tests.support.loopback_server import app_of, loopback_server
from tests.support.moments import at
from tests.support.pump import keys
from tests.support.sandbox import TwelveDataStandIn
from tests.support.twelve_data_plugin import EUR, KEY, DrivenFeed, FakeTime, Plugin, asked

# ---- what an answer means ---------------------------------------------------------------------------------------


def body(*rows: tuple[str, float, float, float, float]) -> dict[str, object]:
    names = ("open", "high", "low", "close")
    values = [
        {"datetime": row[0]} | {name: str(value) for name, value in zip(names, row[1:], strict=True)} for row in rows
    ]
    return {"meta": {}, "values": values, "status": "ok"}


def series(content: object, symbol: str = "EUR/USD", interval: str = "1m") -> SeriesAnswer:
    read = read_series(content, interval, hours_of(symbol))
    assert isinstance(read, SeriesAnswer)
    return read


def test_rows_are_turned_oldest_first_and_their_times_are_utc() -> None:
    read = series(body(("2026-01-14 12:01:00", 2, 2, 2, 2), ("2026-01-14 12:00:00", 1, 1, 1, 1)))
    assert read.candles == [Candle(at("2026-01-14 12:00"), 1, 1, 1, 1), Candle(at("2026-01-14 12:01"), 2, 2, 2, 2)]


def test_a_bare_day_is_a_label_too() -> None:
    assert series(body(("2026-01-14", 1, 1, 1, 1)), interval="1d").candles[0].time == at("2026-01-14 00:00")


def test_a_bar_that_contradicts_itself_is_widened() -> None:
    read = series(body(("2026-01-14 12:00:00", 1.1, 1.2, 1.0, 1.3), ("2026-01-14 12:01:00", 0.9, 1.2, 1.0, 1.1)))
    assert read.candles == [
        Candle(at("2026-01-14 12:00"), 1.1, 1.3, 1.0, 1.3),
        Candle(at("2026-01-14 12:01"), 0.9, 1.2, 0.9, 1.1),
    ]


def test_an_open_time_that_comes_twice_counts_once() -> None:
    read = series(body(("2026-01-14 12:00:00", 2, 2, 2, 2), ("2026-01-14 12:00:00", 1, 1, 1, 1)))
    assert read.candles == [Candle(at("2026-01-14 12:00"), 2, 2, 2, 2)]


@pytest.mark.parametrize(
    "row",
    [
        None,
        7,
        {},
        {"datetime": "soon", "open": "1", "high": "1", "low": "1", "close": "1"},
        {"datetime": None, "open": "1", "high": "1", "low": "1", "close": "1"},
        {"datetime": "2026-01-14", "open": "NaN", "high": "1", "low": "1", "close": "1"},
        {"datetime": "2026-01-14", "open": "1e999", "high": "1", "low": "1", "close": "1"},
        {"datetime": "2026-01-14", "open": "1", "high": "1", "low": [], "close": "1"},
        {"datetime": "2026-01-14", "open": "1", "high": "1", "close": "1"},
        {"datetime": "2026-01-31", "open": "1", "high": "1", "low": "1", "close": "1"},
    ],
)
def test_a_row_without_sense_is_unreadable_and_counted(row: object) -> None:
    values = [row, {"datetime": "2026-01-01", "open": "1", "high": "1", "low": "1", "close": "1"}]
    read = series({"values": values, "status": "ok"}, interval="1M")
    assert (read.spoilt, read.rows) == (1, 2)
    assert [is_unreadable(candle) for candle in read.candles] == [False, True]


def test_a_bar_that_contradicts_itself_by_much_is_unreadable() -> None:
    read = series(body(("2026-01-14 12:00:00", 1.1, 1.2, 1.0, 1.9), ("2026-01-14 11:59:00", 1, 1, 1, 1)))
    assert [is_unreadable(candle) for candle in read.candles] == [False, True]


@pytest.mark.parametrize("text", ["1_00", " 100 ", "١٠٠", "1e308", "NaN", "-5", "0x10", "", "0", None])
def test_what_is_no_price_makes_a_row_unreadable(text: str | None) -> None:
    row = {"datetime": "2026-01-14 12:00:00", "open": "1", "high": "1", "low": "1", "close": text}
    (candle,) = series({"values": [row]}).candles
    assert (candle.time, is_unreadable(candle)) == (at("2026-01-14 12:00"), True)


@pytest.mark.parametrize("label", ["2026-01-14 12:00:03", "2026-W03-3", "2026-01-14T12:00:00+10:00", "soon"])
def test_a_label_that_is_no_open_time_is_that_of_the_candle_between_its_neighbours(label: str) -> None:
    rows = [
        {"datetime": datetime, "open": "1", "high": "1", "low": "1", "close": "1"}
        for datetime in ("2026-01-14 12:02:00", label, "2026-01-14 12:00:00")
    ]
    read = series({"values": rows})
    assert [is_unreadable(candle) for candle in read.candles] == [False, True, False]
    assert read.candles[1].time == at("2026-01-14 12:01")


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"symbol": "GBP/USD", "interval": "1min"}, "asked for USD/JPY, the answer is for GBP/USD"),
        ({"symbol": "USD/JPY", "interval": "5min"}, "asked for USD/JPY at 1min, the answer is at 5min"),
        (
            {"symbol": "USD/JPY", "interval": "1min", "currency_base": "British Pound"},
            "asked for USD/JPY, the currency_base of the answer is British Pound",
        ),
        (
            {"symbol": "USD/JPY", "interval": "1min", "currency_quote": "US Dollar"},
            "asked for USD/JPY, the currency_quote of the answer is US Dollar",
        ),
    ],
)
def test_an_answer_about_something_else_is_refused(meta: dict[str, str], told: str) -> None:
    codes = {"British Pound": "GBP", "US Dollar": "USD", "Japanese Yen": "JPY"}
    content = body(("2026-01-14 12:00:00", 1.31, 1.32, 1.3, 1.31)) | {"meta": meta}
    assert read_series(content, "1m", MONEY, "USD/JPY", codes) == KeyRefused(0, told)


def test_an_answer_in_small_letters_or_with_a_name_that_is_not_known_is_taken() -> None:
    meta = {"symbol": "usd/jpy", "interval": "1min", "currency_base": "Greenback", "currency_quote": "Japanese Yen"}
    content = body(("2026-01-14 12:00:00", 1.31, 1.32, 1.3, 1.31)) | {"meta": meta}
    assert isinstance(read_series(content, "1m", MONEY, "USD/JPY", {"Japanese Yen": "JPY"}), SeriesAnswer)


def test_volume_is_taken_where_there_is_one() -> None:
    row = {"datetime": "2026-01-14", "open": "1", "high": "1", "low": "1", "close": "1", "volume": "12"}
    assert series({"values": [row]}).candles[0].volume == 12.0


@pytest.mark.parametrize("content", [None, [], 7, {}, {"values": None}, {"values": {}}])
def test_an_answer_without_values_is_refused(content: object) -> None:
    assert read_series(content, "1m", MONEY) == KeyRefused(0, "the answer has no values")


def test_weekend_bars_are_dropped_for_money_and_kept_for_coins() -> None:
    content = body(("2026-01-17 12:00:00", 1, 1, 1, 1))
    assert series(content).candles == []
    assert len(series(content, "BTC/USD").candles) == 1


@pytest.mark.parametrize(
    ("content", "status", "expected"),
    [
        ({"status": "ok", "values": []}, 200, None),
        ([], 200, None),
        ([], 404, KeyRefused(404, "")),
        (None, 403, KeyRefused(403, "")),
        ({"code": 404, "message": f"the key {KEY} is bad"}, 404, KeyRefused(404, "the key *** is bad")),
        ({"code": 404, "message": "no", "status": "error"}, 404, KeyRefused(404, "no")),
        ({"code": 404, "message": "no", "status": "error"}, 200, KeyRefused(404, "no")),
        ({"code": 429, "message": "slow"}, 200, KeyRefused(429, "slow")),
        ({"status": "error"}, 200, KeyRefused(500, "")),
        ({"status": "error", "message": 7}, 403, KeyRefused(403, "")),
    ],
)
def test_an_error_is_found_with_any_status(content: object, status: int, expected: KeyRefused | None) -> None:
    assert refusal(content, status, Secret(KEY)) == expected


# ---- what is new in it ------------------------------------------------------------------------------------------


def candle(minute: int, close: float = 1.0) -> Candle:
    return Candle(at("2026-01-14 12:00") + 60 * minute, 1.0, 2.0, 0.5, close)


def take(stream: PolledStream, now_minute: float, *candles: Candle) -> list[tuple[int, float, bool]]:
    updates = stream.take(EUR, candles, candle(0).time + 60 * now_minute)
    return [((update.candle.time - candle(0).time) // 60, update.candle.close, update.is_closed) for update in updates]


def test_a_candle_closes_with_its_final_values_when_the_next_appears() -> None:
    stream = PolledStream()
    assert take(stream, 5.5, candle(4), candle(5, 1.1)) == [(5, 1.1, False)]
    assert take(stream, 5.9, candle(4), candle(5, 1.2)) == [(5, 1.2, False)]
    assert take(stream, 6.1, candle(5, 1.3), candle(6, 1.4)) == [(5, 1.3, True), (6, 1.4, False)]


def test_candles_between_two_polls_are_not_lost() -> None:
    stream = PolledStream()
    take(stream, 5.5, candle(4), candle(5))
    assert take(stream, 8.5, *(candle(minute) for minute in range(4, 9))) == [
        (5, 1.0, True),
        (6, 1.0, True),
        (7, 1.0, True),
        (8, 1.0, False),
    ]


def test_a_last_candle_closes_a_minute_after_its_end() -> None:
    stream = PolledStream()
    assert take(stream, 6.5, candle(4), candle(5)) == [(5, 1.0, False)]
    assert take(stream, 7.1, candle(4), candle(5, 1.1)) == [(5, 1.1, True)]
    assert take(stream, 7.5, candle(4), candle(5, 1.1)) == []


def test_a_late_change_of_a_closed_candle_is_sent() -> None:
    stream = PolledStream()
    take(stream, 5.5, candle(4), candle(5))
    take(stream, 6.1, candle(5), candle(6))
    assert take(stream, 6.5, candle(5, 1.7), candle(6)) == [(5, 1.7, True), (6, 1.0, False)]
    assert take(stream, 6.6, candle(5, 1.7), candle(6)) == [(6, 1.0, False)]


def test_enough_rows_are_asked_to_reach_the_last_candle() -> None:
    stream = PolledStream()
    now = candle(0).time + 60.0 * 10
    assert stream.rows_needed("1m", now, 0) == 2
    take(stream, 5.5, candle(4), candle(5))
    assert stream.rows_needed("1m", now, 0) == 7
    assert stream.rows_needed("1m", now + 1e9, 0) == 5000


# ---- polls ------------------------------------------------------------------------------------------------------


async def test_the_real_loop_polls_at_once_and_again(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await feed.until(lambda: bool(feed.updates))
        assert feed.accepted == [EUR]
        feed.watchlist.add(StreamKey("GBP/USD", "1m"))
        await feed.until(lambda: len(feed.accepted) == 2)
    assert [call.query["symbol"] for call in asked(exchange)] == ["EUR/USD", "GBP/USD"]
    assert feed.error is None


async def test_a_cancelled_loop_leaves_no_task(plugin: Plugin) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await feed.until(lambda: bool(feed.updates))
        await asyncio.sleep(0)
        mine = {task for task in asyncio.all_tasks() if "changed" in repr(task)}
        assert len(mine) == 1
    assert all(task.done() for task in mine)


async def test_candles_close_with_the_values_that_history_gives(plugin: Plugin, time: FakeTime) -> None:
    feed = plugin.feed("EUR/USD@1m")
    updates = await feed.run(620)
    closed = [update.candle for update in updates if update.is_closed]
    assert len(closed) == 10
    assert closed == await plugin.candles("EUR/USD", "1m", closed[0].time, closed[-1].time + 60, 100)
    assert [later.time - earlier.time for earlier, later in pairwise(closed)] == [60] * 9
    assert feed.accepted == [EUR]


async def test_a_stream_is_polled_every_poll_seconds(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time, poll_seconds=60)
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(599)
    assert len(asked(exchange)) == 10
    assert all(call.query["timezone"] == "UTC" for call in asked(exchange))
    assert feed.paused == []


async def test_streams_of_an_interval_share_a_call(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m", "EUR/USD@1h")
    await feed.run(25)
    assert [(call.query["symbol"], call.query["interval"]) for call in asked(exchange)] == [
        ("EUR/USD", "1min"),  # one symbol tries first
        ("GBP/USD,USD/JPY", "1min"),
        ("EUR/USD", "1h"),
    ]
    assert len(feed.accepted) == 4


@pytest.mark.parametrize("skew", [-100.0, 35.0])
async def test_20_streams_share_8_credits_and_never_exceed_them(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime, skew: float
) -> None:
    exchange.add_symbols([f"{base}/{quote}" for base in ("SEK", "NOK", "DKK") for quote in ("PLN", "HUF", "ZAR")])
    names = [f"{symbol}@1m" for symbol in list(exchange.market.forex)[:20]]
    assert len(names) == 20
    plugin = Plugin(session, [exchange.rest_url], time, skew)
    feed = plugin.feed(*names)
    await feed.run(3600)
    assert exchange.rest.credits.refusals == 0
    assert exchange.rest.credits.largest_in_a_minute <= 8
    assert len(set(feed.accepted)) == 20
    counts = [sum(name.split("@")[0] in call.query["symbol"] for call in asked(exchange)) for name in names]
    assert max(counts) - min(counts) <= 1
    # 800 less a tenth for history, for the twelve hours that are left of the day
    assert min(counts) == 3
    assert {status for _, status, _ in feed.paused} == {"throttled"}
    for name in keys(*names):
        closed = [update.candle.time for update in feed.updates if update.is_closed and update.key == name]
        assert closed == list(range(closed[0], closed[-1] + 60, 60))


async def test_one_pair_is_fresh_all_day_and_every_candle_closes(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    """800 credits for 1,440 candles: a call every two minutes after a close, and a tenth is left for history."""
    time.at = at("2026-01-14 00:00:01")
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(86_390)
    closed = [update.candle.time for update in feed.updates if update.is_closed]
    assert closed[-1] >= at("2026-01-14 23:57")
    assert closed == list(range(at("2026-01-14 00:00"), closed[-1] + 60, 60))
    assert exchange.rest.credits.refusals == 0
    assert 700 <= exchange.rest.credits.used_today <= 724
    assert len(asked(exchange)) <= 720
    assert feed.paused == []
    gaps = [in_s for key, in_s, _ in feed.expected if key == EUR]
    assert max(gaps) <= 180


async def test_the_days_credits_are_never_exceeded_and_come_back(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    exchange.rest.credits.per_day = 100
    time.at = at("2026-01-14 20:00")
    plugin = Plugin(session, [exchange.rest_url], time, credits_per_day=100)
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(3600)
    # Somebody uses up what is left; the next answers say so.
    exchange.rest.credits.used_today = 100
    await feed.run(600)
    key, status, message = feed.paused[-1]
    assert (key, status) == (EUR, "throttled")
    assert message == "the 100 credits of this day are used up; the next poll is at 2026-01-15T00:00:05Z"
    with pytest.raises(RateLimited) as caught:
        await plugin.candles("EUR/USD", "1m", None, int(time.at), 5)
    assert caught.value.retry_after == pytest.approx(at("2026-01-15") + 5 - time.at, abs=1)
    assert plugin.provider.relay_budgets(settings=plugin.settings)[1].used == 100
    await feed.run(4 * 3600)
    assert exchange.rest.credits.refusals == 1
    closed = [update.candle.time for update in feed.updates if update.is_closed]
    assert closed == list(range(at("2026-01-14 20:00"), closed[-1] + 60, 60))


async def test_a_minute_that_others_used_up_is_waited_out(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    exchange.rest.credits.spend(8)
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m")
    await feed.run(30)
    assert exchange.rest.credits.refusals == 1
    assert {status for _, status, _ in feed.paused} == {"throttled"}
    await feed.run(200)
    assert len(feed.accepted) == 2
    assert exchange.rest.credits.refusals == 1


async def test_a_refused_call_is_not_made_again_within_its_minute(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    """Refused calls cost as well; here the refusal comes without headers that would show what was used."""
    content = '{"code":429,"message":"You have run out of API credits for the current minute.","status":"error"}'
    exchange.faults.answer_rest(429, content, times=1, path="/time_series")
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(35)
    assert len(asked(exchange)) == 1
    # Its waiting is planned: no reason to call it stale or to ask history.
    key, in_s, _ = feed.expected[-1]
    assert (key, 0 < in_s <= 62) == (EUR, True)
    await feed.run(15)
    assert len(asked(exchange)) == 2
    assert feed.accepted == [EUR]


async def test_a_refused_call_is_not_made_again_before_the_server_said_so(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    content = '{"code":429,"message":"You have run out of API credits for the current minute.","status":"error"}'
    exchange.faults.answer_rest(429, content, retry_after=300, times=1, path="/time_series")
    for _ in range(2):
        with pytest.raises(RateLimited) as caught:
            await plugin.candles("EUR/USD", "1m", None, int(time.at), 5)
        assert caught.value.retry_after == pytest.approx(300, abs=5)
    assert len(asked(exchange)) == 1


async def test_a_day_that_others_used_up_is_waited_out(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    exchange.rest.credits.roll()
    exchange.rest.credits.used_today = 800
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(6 * 3600)
    assert exchange.rest.credits.refusals == 1
    await feed.run(7 * 3600)
    assert feed.accepted == [EUR]


async def test_an_unknown_symbol_is_rejected_and_harms_no_other(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "NOPE/USD@1m", "GBP/USD@1m")
    await feed.run(5)
    assert [key for key, _ in feed.rejected] == keys("NOPE/USD@1m")
    assert "missing or invalid" in feed.rejected[0][1]
    assert feed.accepted == keys("EUR/USD@1m", "GBP/USD@1m")


async def test_a_refusal_of_a_whole_batch_is_narrowed_down(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m")
    await feed.run(0.1)
    exchange.faults.answer_rest(404, '{"code":404,"message":"**symbol** is invalid","status":"error"}', times=1)
    exchange.faults.answer_rest(404, '{"code":404,"message":"**symbol** is invalid","status":"error"}', times=1)
    await feed.run(5)
    assert [key for key, _ in feed.rejected] == keys("GBP/USD@1m")
    assert feed.accepted == keys("EUR/USD@1m", "USD/JPY@1m")


async def test_errors_inside_http_200_are_understood(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    exchange.rest.errors_as_200 = True
    plugin = Plugin(session, [exchange.rest_url], time)
    feed = plugin.feed("NOPE/USD@1m")
    await feed.run(5)
    assert [key for key, _ in feed.rejected] == keys("NOPE/USD@1m")
    assert await plugin.candles("EUR/USD", "1m", at("2015-01-01"), at("2015-01-02"), 5) == []
    wrong = Plugin(session, [exchange.rest_url], time, api_key=Secret("wrong"))
    with pytest.raises(AuthenticationFailed):
        await wrong.feed("EUR/USD@1m").run(5)


@pytest.mark.parametrize(
    ("status", "content"), [(500, ""), (503, "<html>"), (500, '{"code":500,"status":"error","message":"oops"}'),
                            (200, '{"code":500,"status":"error","message":"oops"}')],
)  # fmt: skip
async def test_a_broken_server_ends_the_feed_and_the_next_one_misses_nothing(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime, status: int, content: str
) -> None:
    feed = plugin.feed("EUR/USD@1m")
    first = await feed.run(70)
    exchange.faults.answer_rest(status, content, times=1)
    with pytest.raises(ProviderUnavailable, match=r"500|503"):
        await feed.run(60)
    time.at += 300
    second = await plugin.feed("EUR/USD@1m").run(1)
    closed = [update.candle.time for update in first + second if update.is_closed]
    assert closed == list(range(at("2026-01-14 12:00"), at("2026-01-14 12:07"), 60))


async def test_a_failing_server_is_asked_for_one_symbol_only(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(500, "", path="/time_series")
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m")
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            await feed.run(5)
    assert [call.query["symbol"] for call in asked(exchange)] == ["EUR/USD", "GBP/USD", "USD/JPY"]


async def test_a_failing_server_costs_no_more_than_the_plan(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    exchange.faults.answer_rest(500, "", path="/time_series")
    feed = plugin.feed("EUR/USD@1m")
    end = time.at + 3600
    while time.at < end:
        with contextlib.suppress(ProviderUnavailable):
            await feed.run(60)
    assert 30 <= len(asked(exchange)) <= 61


async def test_the_account_is_asked_for_even_if_it_cannot_be_had(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(500, "", path="/api_usage")
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(600)
    assert feed.accepted == [EUR]
    assert [call.path for call in exchange.requests].count("/api_usage") == 1
    await feed.run(600)
    assert [call.path for call in exchange.requests].count("/api_usage") == 2


ONE_BAR = {"values": [{"datetime": "2026-01-14 12:00:00", "open": "1", "high": "1", "low": "1", "close": "1"}]}


async def batch_after_first(exchange: TwelveDataStandIn, feed: DrivenFeed, answer: dict[str, object]) -> None:
    """Let one symbol try first, then answer the batch of the two others like this, once."""
    await feed.run(0.1)
    exchange.faults.answer_rest(200, orjson.dumps(answer).decode(), times=1)


@pytest.mark.parametrize(
    "bad", [{"code": 500, "status": "error", "message": "oops"}, {"values": 7}, None, {"status": "error"}]
)
async def test_one_broken_entry_of_a_batch_waits_for_its_next_turn(
    exchange: TwelveDataStandIn, plugin: Plugin, bad: object
) -> None:
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m")
    await batch_after_first(exchange, feed, {"GBP/USD": bad, "USD/JPY": ONE_BAR})
    await feed.run(20)
    assert feed.accepted == keys("EUR/USD@1m", "USD/JPY@1m")
    assert len(feed.skipped) == 1
    assert len(asked(exchange)) == 2
    await feed.run(200)
    assert StreamKey("GBP/USD", "1m") in feed.accepted


async def test_a_batch_of_broken_entries_harms_no_stream_that_is_answered(
    exchange: TwelveDataStandIn, plugin: Plugin
) -> None:
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m")
    await batch_after_first(exchange, feed, {})
    await feed.run(20)
    assert feed.accepted == [EUR]
    assert len(feed.skipped) == 2
    # Once nothing is answered any more the feed ends.
    exchange.faults.answer_rest(200, "{}")
    with pytest.raises(BadAnswer, match="no values"):
        await feed.run(200)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, '{"meta":{"symbol":"USD/JPY"},"values":[],"status":"ok"}'),
        (400, '{"code":400,"message":"bad interval","status":"error"}'),
        (503, ""),
    ],
)
async def test_a_stream_whose_answers_fail_is_delivered_again_when_one_has_a_candle_of_it(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime, status: int, content: str
) -> None:
    await plugin.feed("EUR/USD@1m").run(5)
    exchange.faults.answer_rest(status, content, path="/time_series")
    accepted, told = list[StreamKey](), list[PriceUpdate]()
    for answer in (None, '{"values":[],"status":"ok"}', '{"values":[{"datetime":"x"}],"status":"ok"}'):
        if answer is not None:
            exchange.faults.answer_rest(200, answer, path="/time_series")
        for _ in range(5):
            feed = plugin.feed("EUR/USD@1m")
            with contextlib.suppress(ProviderError):
                await feed.run(40)
            accepted += feed.accepted
            told += feed.updates
    # The first feed is not to know yet: its stream was answered a moment ago.
    assert accepted == [EUR]
    assert len(told) == 1
    exchange.faults.answer_rest_normally()
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(70)
    assert feed.accepted == [EUR]
    assert feed.updates


async def test_an_entry_without_credits_is_asked_again_later(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m")
    bad = {"code": 429, "status": "error", "message": "You have run out of API credits for the current minute."}
    await batch_after_first(exchange, feed, {"GBP/USD": bad, "USD/JPY": ONE_BAR})
    await feed.run(30)
    assert len(asked(exchange)) == 2
    await feed.run(40)
    assert len(feed.accepted) == 3
    assert feed.rejected == []


async def test_an_entry_with_a_refused_key_ends_the_feed(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m", "USD/JPY@1m")
    bad = {"code": 401, "status": "error", "message": "wrong"}
    await batch_after_first(exchange, feed, {"GBP/USD": bad, "USD/JPY": ONE_BAR})
    with pytest.raises(AuthenticationFailed):
        await feed.run(20)


async def test_no_data_accepts_a_stream_that_has_none_yet(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    content = '{"code":400,"message":"No data is available on the specified dates.","status":"error"}'
    exchange.faults.answer_rest(400, content)
    feed = plugin.feed("EUR/USD@1m")
    assert await feed.run(20) == []
    assert feed.accepted == [EUR]


async def test_spoilt_rows_are_counted(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(200, '{"values":[{},{"datetime":"x"}],"status":"ok"}')
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(20)
    assert feed.skipped == ["EUR/USD@1m: invalid rows: 2"]


def time_series(*rows: tuple[str, str | None], symbol: str = "EUR/USD") -> str:
    values = [{"datetime": label, "open": "1", "high": "1", "low": "1", "close": close} for label, close in rows]
    return json.dumps({"meta": {"symbol": symbol, "interval": "1min"}, "values": values, "status": "ok"})


async def test_an_answer_for_another_symbol_is_not_told(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("USD/JPY@1m")
    await feed.run(20)
    before = len(feed.updates)
    row = ("2026-01-14 12:00:00", "1")
    exchange.faults.answer_rest(200, time_series(row, row, symbol="GBP/USD"))
    with pytest.raises(BadAnswer, match="asked for USD/JPY, the answer is for GBP/USD"):
        await feed.run(120)
    assert len(feed.updates) == before


async def test_an_entry_of_a_batch_for_another_symbol_is_skipped(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "USD/JPY@1m")
    await feed.run(5)
    row = ("2026-01-14 12:00:00", "7")
    euro = json.loads(time_series(row))
    exchange.faults.answer_rest(200, json.dumps({"EUR/USD": euro, "USD/JPY": euro}))
    account = plugin.provider.account(plugin.settings)
    answers = await plugin.provider.newest(["EUR/USD", "USD/JPY"], "1m", 2, account, plugin.session, plugin.settings)
    assert isinstance(answers["EUR/USD"], SeriesAnswer)
    assert answers["USD/JPY"] == KeyRefused(0, "asked for USD/JPY, the answer is for EUR/USD")


@pytest.mark.parametrize(
    "content",
    [
        time_series(("2026-01-13 12:00:00", "1"), symbol="GBP/USD"),
        '{"code":400,"message":"No data is available on the specified dates.","status":"error",'
        '"meta":{"symbol":"GBP/USD","interval":"1min","exchange":""}}',
    ],
)
async def test_history_of_another_symbol_is_a_bad_answer(
    exchange: TwelveDataStandIn, plugin: Plugin, content: str
) -> None:
    await plugin.candles("USD/JPY", "1m", None, at("2026-01-13 12:00"), 2)
    exchange.faults.answer_rest(200, content)
    with pytest.raises(BadAnswer, match="asked for USD/JPY, the answer is for GBP/USD"):
        await plugin.candles("USD/JPY", "1m", None, at("2026-01-13 12:01"), 1)


async def test_a_bar_without_a_value_costs_no_newer_price_and_is_told_by_the_next_poll(
    exchange: TwelveDataStandIn, plugin: Plugin
) -> None:
    feed = plugin.feed("EUR/USD@1m")
    first = await feed.run(20)
    assert first
    last = max(update.candle.time for update in first)
    spoilt = time_series((_label(last + 120), "1"), (_label(last + 60), None), (_label(last), "1"))
    whole = time_series((_label(last + 120), "1"), (_label(last + 60), "1"), (_label(last), "1"))
    exchange.faults.answer_rest(200, spoilt, times=1)
    exchange.faults.answer_rest(200, whole)
    told = await feed.run(60)
    assert [(update.candle.time, update.is_closed) for update in told] == [(last, True), (last + 120, False)]
    told = await feed.run(170)
    assert (last + 60, True) in [(update.candle.time, update.is_closed) for update in told]


async def test_a_bar_that_stays_without_a_value_is_stepped_over_and_told_when_it_comes(
    exchange: TwelveDataStandIn, plugin: Plugin
) -> None:
    feed = plugin.feed("EUR/USD@1m")
    first = await feed.run(20)
    last = max(update.candle.time for update in first)
    spoilt = time_series((_label(last + 120), "1"), (_label(last + 60), None), (_label(last), "1"))
    whole = time_series((_label(last + 120), "1"), (_label(last + 60), "1"), (_label(last), "1"))
    exchange.faults.answer_rest(200, spoilt, times=2)
    exchange.faults.answer_rest(200, whole)
    await feed.run(400)
    told = [update.candle.time for update in feed.updates]
    closed = [update.candle.time for update in feed.updates if update.is_closed]
    assert set(closed[:3]) == {last, last + 60, last + 120}
    assert told.index(last + 120) < told.index(last + 60)


async def test_a_bar_of_history_without_a_value_is_unreadable(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    content = time_series(("2026-01-13 12:02:00", "1"), ("2026-01-13 12:01:00", None), ("2026-01-13 12:00:00", "1"))
    exchange.faults.answer_rest(200, content, path="/time_series")
    noon = at("2026-01-13 12:00")
    candles = await plugin.candles("EUR/USD", "1m", noon, noon + 180, 10)
    assert [(candle.time - noon, is_unreadable(candle)) for candle in candles] == [(0, False), (60, True), (120, False)]


async def test_a_range_in_closed_hours_costs_no_call(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    saturday = at("2026-01-10 12:00")
    assert await plugin.candles("EUR/USD", "1m", saturday, saturday + 3600, 60) == []
    assert asked(exchange) == []


def _label(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


async def test_an_answer_serves_who_wants_the_stream_when_it_arrives(plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m", "GBP/USD@1m")
    await feed.run(0.1)
    poll, _ = feed.polls.plan()
    assert poll is not None
    assert poll.keys == tuple(keys("GBP/USD@1m"))
    given = await feed.polls.ask(poll)
    feed.watchlist.remove(poll.keys[0])
    assert list(feed.polls.take(given)) == []
    feed.watchlist.add(poll.keys[0])
    assert [update.key for update in feed.polls.take(given)] == list(poll.keys)
    assert poll.keys[0] in feed.accepted


async def test_a_stream_that_is_wanted_during_a_call_waits_for_its_own(plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(0.1)
    plugin.time.at += 100
    poll, _ = feed.polls.plan()
    assert poll is not None
    given = await feed.polls.ask(poll)
    feed.watchlist.add(StreamKey("EUR/USD", "5m"))
    assert {update.key for update in feed.polls.take(given)} == {EUR}
    await feed.run(1)
    assert feed.accepted == keys("EUR/USD@1m", "EUR/USD@5m")


@pytest.mark.parametrize("content", ["[]", "7", "{}", '{"values":7}', "nonsense", '{"EUR/USD":{}}'])
async def test_an_answer_without_sense_ends_the_feed(exchange: TwelveDataStandIn, plugin: Plugin, content: str) -> None:
    exchange.faults.answer_rest(200, content)
    with pytest.raises(BadAnswer):
        await plugin.feed("EUR/USD@1m").run(5)


async def test_a_stream_that_comes_back_soon_is_served_without_a_credit(
    exchange: TwelveDataStandIn, plugin: Plugin
) -> None:
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(5)
    feed.watchlist.remove(EUR)
    await feed.run(5)
    feed.watchlist.add(EUR)
    await feed.run(5)
    assert feed.accepted == [EUR, EUR]
    assert len(feed.updates) == 2
    assert len(asked(exchange)) == 1


async def test_a_stream_that_comes_back_late_does_not_replay_its_absence(plugin: Plugin) -> None:
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(5)
    feed.watchlist.remove(EUR)
    await feed.run(3600)
    feed.watchlist.add(EUR)
    assert [update.is_closed for update in await feed.run(5)] == [False]


async def test_polls_without_news_say_nothing_however_often_the_stream_is_wanted_anew(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    bar = {"datetime": "2026-01-14 12:00:00", "open": "1", "high": "1.2", "low": "0.9", "close": "1.1"}
    exchange.serve_rows("EUR/USD", "1min", {"meta": {}, "values": [bar]})
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(180)
    assert feed.updates[-1].is_closed
    made, polled = len(feed.updates), len(feed.polled)
    for _ in range(20):
        await feed.run(180)
        # As the relay does with a stream that is stale.
        feed.watchlist.remove(EUR)
        feed.watchlist.add(EUR)
    assert len(feed.updates) == made
    again = plugin.feed("EUR/USD@1m")
    await again.run(60)
    assert again.updates == []
    # Asked as often as planned, no more.
    assert len(feed.polled) - polled <= 60
    exchange.serve_rows("EUR/USD", "1min", {"meta": {}, "values": [bar | {"datetime": "2026-01-14 13:00:00"}]})
    await again.run(300)
    assert again.updates[-1].candle.time == at("2026-01-14 13:00")


# ---- the weekend ------------------------------------------------------------------------------------------------


async def test_the_weekend_is_not_polled_and_friday_is_closed(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    time.at = at("2026-01-16 21:50")
    feed = plugin.feed("EUR/USD@1m", "EUR/USD@4h")
    await feed.run(12 * 60)
    friday = [update for update in feed.updates if update.key == EUR]
    assert friday[-1].candle.time == at("2026-01-16 21:59")
    assert friday[-1].is_closed
    assert friday[-1].candle == (await plugin.candles("EUR/USD", "1m", at("2026-01-16 21:59"), at("2026-01-17"), 5))[0]
    assert (EUR, "market_closed", "the market is closed; it opens at 2026-01-18T22:00:00Z") in feed.paused
    before = len(asked(exchange))
    await feed.run(46 * 3600)
    # The four hours from 20:00 end at midnight: one more poll gives their final values.
    assert len(asked(exchange)) - before == 1
    long = [update for update in feed.updates if update.key == StreamKey("EUR/USD", "4h")]
    assert (long[-1].candle.time, long[-1].is_closed) == (at("2026-01-16 20:00"), True)
    assert time.at < at("2026-01-18 22:00")
    sunday = await feed.run(3 * 3600)
    closed = [update.candle.time for update in sunday if update.key == EUR and update.is_closed]
    assert closed == list(range(at("2026-01-18 22:00"), closed[-1] + 60, 60))
    assert {status for _, status, _ in feed.paused} == {"market_closed"}
    # Once at the close, once more when the minutes have closed, which the four hours are built from, and theirs.
    assert [key.interval for key, _, _ in feed.paused] == ["1m", "4h", "1m", "4h", "4h"]


@pytest.mark.parametrize(
    ("interval", "wanted", "opened", "closes"),
    [
        ("4h", "2026-01-16 23:00", "2026-01-16 20:00", "2026-01-17 00:00"),
        ("1d", "2026-01-16 23:00", "2026-01-16 00:00", "2026-01-17 00:00"),
        ("8h", "2026-10-30 21:30", "2026-10-30 16:00", "2026-10-31 00:00"),
        ("1d", "2026-03-06 23:59", "2026-03-06 00:00", "2026-03-07 00:00"),
        ("1w", "2026-01-17 12:00", "2026-01-12 00:00", "2026-01-19 00:00"),
    ],
)
async def test_a_candle_in_which_the_market_closed_is_closed_for_a_stream_that_is_wanted_afterwards(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime, interval: str, wanted: str, opened: str, closes: str
) -> None:
    time.at = at(wanted)
    key = StreamKey("EUR/USD", interval)
    feed = plugin.feed(str(key))
    await feed.run(at(closes) - time.at)
    assert feed.updates[0].candle.time == at(opened)
    assert not any(update.is_closed for update in feed.updates)
    await feed.run(130)
    (closed,) = [update.candle for update in feed.updates if update.is_closed]
    assert closed == (await plugin.candles(key.symbol, interval, at(opened), at(opened) + 1, 5))[0]


async def test_a_short_candle_that_was_over_at_the_close_is_not_asked_for_afterwards(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    time.at = at("2026-01-16 22:05")
    await plugin.feed("EUR/USD@1m", "EUR/USD@5m").run(3600)
    assert asked(exchange) == []


async def test_an_empty_answer_after_the_close_is_not_asked_for_again_and_a_failure_is(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    time.at = at("2026-01-16 23:00")
    feed = plugin.feed("EUR/USD@1d")
    await plugin.instruments()
    exchange.faults.answer_rest(500, b"{}", times=1)
    with pytest.raises(ProviderUnavailable):
        await feed.run(60)
    empty = b'{"code":400,"message":"No data is available on the specified dates.","status":"error"}'
    exchange.faults.answer_rest(400, empty, times=1)
    await feed.run(3 * 3600)
    assert [call.status for call in asked(exchange)] == [200, 500, 400]


async def test_a_new_stream_on_a_weekend_waits_for_the_market(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime
) -> None:
    time.at = at("2026-01-17 12:00")
    feed = plugin.feed("EUR/USD@1m")
    await feed.run(3600)
    assert asked(exchange) == []
    assert feed.accepted == []
    assert [status for _, status, _ in feed.paused] == ["market_closed"]


@pytest.mark.parametrize(
    ("interval", "opened", "friday"),
    [("4h", "2026-01-18 20:00", "2026-01-16 20:00"), ("1d", "2026-01-18", "2026-01-16")],
)
async def test_no_candle_opens_before_the_market_does(
    exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime, interval: str, opened: str, friday: str
) -> None:
    time.at = at("2026-01-18 21:00")
    key = StreamKey("EUR/USD", interval)
    feed = plugin.feed(str(key))
    await feed.run(3540)
    assert {update.candle.time for update in feed.updates} <= {at(friday)}
    assert (await plugin.times("EUR/USD", interval, None, at("2026-01-19"), 2))[-1] == at(friday)
    await feed.run(300)
    assert feed.updates[-1].candle.time == at(opened)
    assert (await plugin.times("EUR/USD", interval, None, at("2026-01-19"), 2))[-1] == at(opened)


async def test_market_hours_always_polls_on_weekends(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    time.at = at("2026-01-17 12:00")
    feed = Plugin(session, [exchange.rest_url], time, market_hours="always").feed("EUR/USD@1m")
    assert await feed.run(100)
    assert feed.paused == []


async def test_coins_are_polled_on_weekends(exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime) -> None:
    time.at = at("2026-01-17 12:00:30")
    exchange.serve_rows("BTC/USD", "1min", body(("2026-01-17 12:00:00", 1, 1, 1, 1)))
    feed = plugin.feed("BTC/USD@1m")
    assert await feed.run(5)
    assert feed.paused == []


# ---- history ----------------------------------------------------------------------------------------------------


async def test_the_newest_candles_before_an_end(plugin: Plugin) -> None:
    end = at("2026-01-14 10:00")
    assert await plugin.times("EUR/USD", "1m", None, end, 50) == list(range(end - 3000, end, 60))
    assert await plugin.times("EUR/USD", "1m", None, end + 1, 2) == [end - 60, end]


async def test_the_first_candles_from_a_start(plugin: Plugin) -> None:
    start = at("2026-01-14 01:00")
    end = at("2026-01-14 12:00")
    assert await plugin.times("EUR/USD", "1m", start, end, 50) == list(range(start, start + 3000, 60))
    assert await plugin.times("EUR/USD", "1m", start + 1, end, 2) == [start + 60, start + 120]
    assert await plugin.times("EUR/USD", "1m", end - 60, end, 50) == [end - 60]
    assert await plugin.times("EUR/USD", "1m", end, end, 50) == []


async def test_the_open_candle_is_included_when_the_range_reaches_it(plugin: Plugin) -> None:
    end = at("2026-01-15")
    assert (await plugin.times("EUR/USD", "1m", None, end, 2))[-1] == at("2026-01-14 12:00")
    assert (await plugin.times("EUR/USD", "1d", None, end, 2))[-1] == at("2026-01-14")
    assert (await plugin.times("EUR/USD", "1h", at("2026-01-14 11:00"), end, 9))[-1] == at("2026-01-14 12:00")


async def test_7000_candles_take_two_pages_backwards(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    end = at("2026-01-14 10:00")
    start = at("2026-01-07 10:00") + 60 * 20
    times = await plugin.times("EUR/USD", "1m", None, end, 7000)
    assert len(times) == 7000
    assert times[-1] == end - 60
    assert times == sorted(set(times))
    assert not any(at("2026-01-09 22:00") <= moment < at("2026-01-11 22:00") for moment in times)
    assert len(asked(exchange)) == 2
    forwards = await plugin.times("EUR/USD", "1m", times[0], end, 7000)
    assert forwards == times
    assert start < end


async def test_pages_before_one_that_failed_are_not_paid_for_again(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    start, end = at("2026-01-07 10:00"), at("2026-01-14 10:00")
    answer = exchange.rest.answer

    def fail_the_second_page(request: web.Request) -> web.Response:
        pages = [call for call in asked(exchange) if call.path == "/time_series"]
        return web.Response(status=500) if len(pages) == 1 else answer(request)

    exchange.rest.answer = fail_the_second_page  # type: ignore[method-assign]
    with pytest.raises(ProviderUnavailable):
        await plugin.candles("EUR/USD", "1m", start, end, 7000)
    times = await plugin.times("EUR/USD", "1m", start, end, 7000)
    pages = [call.query["start_date"] for call in asked(exchange) if call.path == "/time_series"]
    assert [pages.count(page) for page in sorted(set(pages))] == [1, 2]
    assert (
        times
        == [
            moment for moment in range(start, end, 60) if not at("2026-01-09 22:00") <= moment < at("2026-01-11 22:00")
        ][:7000]
    )


async def test_a_weekend_costs_no_page(exchange: TwelveDataStandIn, plugin: Plugin, time: FakeTime) -> None:
    monday = at("2026-01-12 00:00")
    expected = [*range(at("2026-01-09 21:00"), at("2026-01-09 22:00"), 60), *range(at("2026-01-11 22:00"), monday, 60)]
    assert await plugin.times("EUR/USD", "1m", at("2026-01-09 21:00"), monday, 500) == expected
    assert await plugin.times("EUR/USD", "1m", None, monday, 180) == expected
    assert await plugin.times("EUR/USD", "1m", None, at("2026-01-11 12:00"), 1) == [at("2026-01-09 21:59")]
    assert await plugin.times("EUR/USD", "1m", at("2026-01-10 12:00"), monday, 1) == [at("2026-01-11 22:00")]
    assert len(asked(exchange)) == 4
    for interval in ("1m", "5m", "1h"):
        assert await plugin.times("EUR/USD", interval, at("2026-01-09 22:00"), at("2026-01-11 22:00"), 500) == []
    assert len(asked(exchange)) == 4


async def test_daily_candles_leave_out_saturdays(plugin: Plugin) -> None:
    days = await plugin.times("EUR/USD", "1d", at("2026-01-08"), at("2026-01-13"), 10)
    assert days == [at(f"2026-01-{day:02d}") for day in (8, 9, 11, 12)]
    assert await plugin.times("EUR/USD", "1d", None, at("2026-01-12"), 3) == days[:3]
    assert await plugin.times("EUR/USD", "1d", at("2026-01-10"), at("2026-01-12"), 1) == [at("2026-01-11")]


@pytest.mark.parametrize("interval", list(INTERVALS))
async def test_every_interval_has_history_both_ways(plugin: Plugin, interval: str) -> None:
    newest = await plugin.candles("EUR/USD", interval, None, at("2026-01-14 12:00"), 5)
    assert len(newest) == 5
    assert all(one.fault() is None for one in newest)
    first = await plugin.candles("EUR/USD", interval, newest[0].time, at("2026-01-14 12:00"), 5)
    assert first == newest


async def test_a_start_long_before_the_first_candle_costs_two_credits(
    exchange: TwelveDataStandIn, plugin: Plugin
) -> None:
    times = await plugin.times("EUR/USD", "1m", 0, at("2026-01-14 12:00"), 3)
    assert times == [at("2020-01-01 00:00"), at("2020-01-01 00:01"), at("2020-01-01 00:02")]
    assert [call.path for call in asked(exchange)] == ["/earliest_timestamp", "/time_series"]
    await plugin.times("EUR/USD", "1m", 0, at("2026-01-14 12:00"), 3)
    assert len(asked(exchange)) == 3


async def test_without_the_first_timestamp_the_window_grows(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    exchange.rest.credits.per_minute = 55
    plugin = Plugin(session, [exchange.rest_url], time, credits_per_minute=55)
    exchange.faults.answer_rest(200, "{}", path="/earliest_timestamp")
    times = await plugin.times("EUR/USD", "1h", 0, at("2026-01-14 12:00"), 3)
    assert times == [at("2020-01-01 00:00") + 3600 * hour for hour in range(3)]
    assert len(asked(exchange)) < 20


async def test_an_empty_range_is_an_empty_list(plugin: Plugin) -> None:
    assert await plugin.candles("EUR/USD", "1m", at("2015-01-01"), at("2015-01-02"), 5) == []
    assert await plugin.candles("EUR/USD", "1m", None, at("2015-01-02"), 5) == []


async def test_history_without_credits_is_rate_limited(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    for _ in range(7):
        await plugin.candles("EUR/USD", "1m", None, at("2026-01-14 12:00"), 1)
    with pytest.raises(RateLimited, match="credits of this minute") as caught:
        await plugin.candles("EUR/USD", "1m", None, at("2026-01-14 12:00"), 1)
    assert 0 < caught.value.retry_after <= 61
    assert len(asked(exchange)) == 7


async def test_an_unknown_symbol_has_no_history(plugin: Plugin) -> None:
    with pytest.raises(UnknownSymbol, match="missing or invalid"):
        await plugin.candles("NOPE/USD", "1m", None, at("2026-01-14 12:00"), 1)


async def test_inconsistent_bars_are_served_widened(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    exchange.rest.bars.inconsistent = True
    candles = await plugin.candles("EUR/USD", "1m", None, at("2026-01-14 12:00"), 4000)
    assert len(candles) == 4000
    assert all(one.fault() is None for one in candles)


# ---- instruments, key, settings ---------------------------------------------------------------------------------


async def test_the_venues_pairs_and_the_metals_are_listed(plugin: Plugin) -> None:
    listed = await plugin.instruments()
    money, metal = "1700-1700 America/New_York", "1800-1700 America/New_York"
    pesos = "Colombian Peso / Argentinian Peso"
    assert Instrument("COP/ARS", "forex", "COP", "ARS", name=pesos, session=money) in listed
    assert Instrument("XAU/USD", "forex", "XAU", "USD", name="Gold Spot / US Dollar", session=metal) in listed
    assert Instrument("XAG/USD", "forex", "XAG", "USD", name="Silver Spot / US Dollar", session=metal) in listed
    assert len({one.symbol for one in listed}) == len(listed)
    for symbol in ("XAU/USD", "XAG/USD"):
        assert await plugin.candles(symbol, "1h", None, at("2026-01-14 12:00"), 2), symbol


async def test_metals_are_known_without_being_in_the_list(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(200, '{"data":[{"symbol":"EUR/USD","currency_base":"Euro"}]}')
    metal = "1800-1700 America/New_York"
    assert Instrument("XAG/USD", "forex", "XAG", "USD", session=metal) in await plugin.instruments()


async def test_what_is_traded_at_all_times_says_so(exchange: TwelveDataStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(
        200,
        '{"data":[{"symbol":"BTC/USD","currency_base":"Bitcoin"},'
        '{"symbol":"EUR/USD","currency_base":"Euro","currency_quote":"Dollar"}]}',
    )
    told = {one.symbol: (one.session, one.name) for one in await plugin.instruments()}
    assert told["BTC/USD"] == ("24x7", None)
    assert told["EUR/USD"] == ("1700-1700 America/New_York", "Euro / Dollar")
    plugin.settings["market_hours"] = "always"
    told = {one.symbol: (one.session, one.name) for one in await plugin.instruments()}
    assert told["EUR/USD"] == ("24x7", "Euro / Dollar")


async def test_a_listing_of_more_pairs_than_there_are_is_not_walked(
    exchange: TwelveDataStandIn, plugin: Plugin
) -> None:
    exchange.faults.answer_rest(200, '{"data":[' + "[]," * 20_000 + "[]]}")
    with pytest.raises(BadAnswer, match="20,001 pairs, more than the limit of 20,000"):
        await plugin.instruments()


@pytest.mark.parametrize("content", ["[]", "{}", '{"data":7}', '{"data":[1]}', '{"data":[{}]}'])
async def test_a_listing_without_sense_is_a_bad_answer(
    exchange: TwelveDataStandIn, plugin: Plugin, content: str
) -> None:
    exchange.faults.answer_rest(200, content)
    with pytest.raises(BadAnswer, match="forex_pairs"):
        await plugin.instruments()


async def test_without_a_key_there_is_no_history(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    with pytest.raises(AuthenticationFailed):
        await Plugin(session, [exchange.rest_url], time, api_key=None).candles("EUR/USD", "1m", None, 1, 1)


async def test_without_a_key_the_known_pairs_are_listed_and_nobody_is_asked(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time, api_key=None)
    listed = await plugin.instruments()
    assert Instrument("EUR/USD", "forex", "EUR", "USD", session="1700-1700 America/New_York") in listed
    assert asked(exchange) == []
    assert plugin.provider.relay_budgets(settings=plugin.settings) == ()


class Spy:
    """A server that keeps every request and answers what it is told."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.text = "{}"
        self.status = 200
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.status == 0:
            await asyncio.Event().wait()
        return web.Response(status=self.status, text=self.text)


@pytest.fixture
async def spy() -> AsyncIterator[Spy]:
    spy = Spy()
    async with loopback_server(app_of(spy.handle)) as host:
        spy.url = f"http://{host}"
        yield spy


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 0])
async def test_the_key_travels_in_its_header_and_shows_nowhere(
    spy: Spy,
    session: aiohttp.ClientSession,
    time: FakeTime,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    plugin = Plugin(session, [spy.url], time, waits=Waits(answer_s=0.2))
    spy.status = status
    spy.text = orjson.dumps({"code": status, "message": f"bad key {KEY}", "status": "error"}).decode()
    feed = plugin.feed("EUR/USD@1m")
    texts = []
    for call in (
        plugin.instruments(),
        plugin.candles("EUR/USD", "1m", None, at("2026-01-14 12:00"), 1),
        plugin.candles("EUR/USD", "1m", 0, at("2026-01-14 12:00"), 1),
        feed.run(2),
    ):
        try:
            texts.append(repr(await call))
        except ProviderError as error:
            texts += [repr(error), str(error), repr(error.__context__), repr(error.__cause__)]
    texts += [repr(feed.rejected), repr(feed.skipped), repr(feed.paused), repr(plugin.settings), caplog.text]
    assert not any(KEY in text for text in texts)
    assert spy.requests
    assert all(KEY not in str(request.url) for request in spy.requests)
    assert all(request.headers["Authorization"] == f"apikey {KEY}" for request in spy.requests)


async def test_a_wrong_key_stops_everything(
    exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    plugin = Plugin(session, [exchange.rest_url], time, api_key=Secret("wrong"))
    with pytest.raises(AuthenticationFailed, match="the key was refused"):
        await plugin.feed("EUR/USD@1m").run(5)
    with pytest.raises(AuthenticationFailed):
        await plugin.candles("EUR/USD", "1m", None, at("2026-01-14 12:00"), 1)


async def test_one_call_asks_one_host_and_the_next_call_the_next(
    spy: Spy, exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime
) -> None:
    spy.status = 503
    plugin = Plugin(session, [spy.url, exchange.rest_url], time)
    assert await plugin.instruments()
    assert await plugin.instruments()
    assert [request.path for request in spy.requests] == ["/api_usage"]
    assert [call.path for call in exchange.requests] == ["/forex_pairs", "/forex_pairs"]


async def test_the_time_is_the_exchanges(exchange: TwelveDataStandIn, session: aiohttp.ClientSession) -> None:
    """A relay whose clock is an hour ahead would take the open candle for a closed one."""
    time = exchange.clock
    assert isinstance(time, FakeTime)
    plugin = Plugin(session, [exchange.rest_url], time, skew=3600.0)
    updates = await plugin.feed("EUR/USD@1m").run(5)
    assert [update.is_closed for update in updates] == [False]


def test_the_provider_says_who_it_is() -> None:
    info = TwelveDataProvider().relay_provider()
    assert (info.name, info.asset_classes, info.needs_key) == ("twelve_data", ("forex",), "api_key")
    assert info.intervals == ("1m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "1d", "1w", "1M")
    names = {setting.name: setting for setting in info.settings}
    assert names["api_key"].is_secret
    assert names["api_key"].environment == ("TWELVE_DATA_API_KEY",)
    assert names["mode"].choices == ("poll", "stream")
    assert "Twelve Data" in info.attribution
