"""The untidy stand-ins do what their orders say, over real sockets."""

import random
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.sandbox import StagedClock, StagedMarket
from tests.support.untidy import BAD_CELLS, BAD_ROWS, REFUSALS, UntidyBinance, UntidyTwelveData, refuse_rest

Json = Any

NOON = 1_792_584_000
"""2026-10-21 12:00 UTC, a Wednesday."""


def clock_at(moment: float, speed: float = 1.0) -> StagedClock:
    return StagedClock(speed, moment - time.time())


@pytest.fixture
async def binance() -> AsyncIterator[UntidyBinance]:
    """Half a minute past noon, at the speed of life."""
    async with UntidyBinance(StagedMarket(1), clock_at(NOON + 30), random.Random(1), pace_s=0.1) as stand_in:
        yield stand_in


@pytest.fixture
async def forex() -> AsyncIterator[UntidyTwelveData]:
    async with UntidyTwelveData(
        StagedMarket(1), clock_at(NOON + 30), random.Random(1), credits_per_minute=1000, tick_every_s=0.05
    ) as stand_in:
        yield stand_in


async def klines(session: aiohttp.ClientSession, binance: UntidyBinance, query: str = "") -> list[list[Json]]:
    async with session.get(f"{binance.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=1m{query}") as answer:
        rows: list[list[Json]] = orjson.loads(await answer.read())
        return rows


def opens(rows: list[list[Json]]) -> list[int]:
    return [row[0] // 1000 - NOON for row in rows]


async def series(session: aiohttp.ClientSession, forex: UntidyTwelveData, query: str = "&outputsize=3") -> Json:
    path = f"/time_series?symbol=EUR/USD&interval=1min&timezone=UTC&apikey=sandbox-key{query}"
    async with session.get(forex.rest_url + path) as answer:
        return orjson.loads(await answer.read())


def minutes(body: Json) -> list[str]:
    return [value["datetime"][11:16] for value in body["values"]]


# -- latency ---------------------------------------------------------------------------------------


async def server_time(session: aiohttp.ClientSession, binance: UntidyBinance) -> tuple[float, float]:
    """Return how old the answer is when it comes, and how long it took."""
    began = time.monotonic()
    async with session.get(f"{binance.rest_url}/api/v3/time") as answer:
        told = orjson.loads(await answer.read())["serverTime"] / 1000
    return binance.clock.now() - told, time.monotonic() - began


async def test_an_answer_is_computed_late_or_at_once(session: aiohttp.ClientSession, binance: UntidyBinance) -> None:
    binance.faults.delay_rest(0.3, computed="at_once")
    age_s, took_s = await server_time(session, binance)
    assert age_s >= 0.29
    assert took_s >= 0.3
    binance.faults.delay_rest(0.3)
    age_s, took_s = await server_time(session, binance)
    assert age_s < took_s - 0.29


def test_a_delay_is_drawn_for_each_call(binance: UntidyBinance) -> None:
    binance.faults.delay_rest(0, 5, computed="either")
    drawn = [binance.faults.rest_delay() for _ in range(200)]
    assert all(before == 0 or after == 0 for before, after in drawn)
    late = [before for before, _ in drawn if before]
    at_once = [after for _, after in drawn if after]
    assert min(len(late), len(at_once)) > 50
    assert min(late + at_once) < 0.5
    assert 4.5 < max(late + at_once) <= 5
    binance.faults.delay_rest(0)
    assert binance.faults.rest_delay() == (0, 0)


# -- history ---------------------------------------------------------------------------------------


async def test_history_lists_closed_candles_only(
    session: aiohttp.ClientSession, binance: UntidyBinance, forex: UntidyTwelveData
) -> None:
    assert opens(await klines(session, binance, "&limit=2")) == [-60, 0]
    assert minutes(await series(session, forex)) == ["12:00", "11:59", "11:58"]
    binance.untidy.list_closed_only()
    forex.untidy.list_closed_only()
    assert opens(await klines(session, binance, "&limit=2")) == [-120, -60]
    assert opens(await klines(session, binance, f"&limit=5&startTime={(NOON - 120) * 1000}")) == [-120, -60]
    assert minutes(await series(session, forex)) == ["11:59", "11:58", "11:57"]


async def test_a_closed_candle_is_listed_late(
    session: aiohttp.ClientSession, binance: UntidyBinance, forex: UntidyTwelveData
) -> None:
    binance.untidy.list_closed_only(lag_s=45)
    forex.untidy.list_closed_only(lag_s=45)
    assert opens(await klines(session, binance, "&limit=2")) == [-180, -120]
    assert minutes(await series(session, forex)) == ["11:58", "11:57", "11:56"]


@pytest.mark.parametrize("kind", BAD_ROWS)
async def test_one_row_is_bad(
    session: aiohttp.ClientSession, binance: UntidyBinance, forex: UntidyTwelveData, kind: str
) -> None:
    window = f"&startTime={(NOON - 3600) * 1000}&endTime={(NOON - 61) * 1000}"
    true = await klines(session, binance, window)
    values = (await series(session, forex, "&outputsize=20&end_date=2026-10-21 11:30:00"))["values"]
    binance.untidy.spoil_rows(kind, [NOON - 120])
    forex.untidy.spoil_rows(kind)
    rows = await klines(session, binance, window)
    changed = [(row, told) for row, told in zip(true, rows, strict=True) if row != told]
    assert [row[0] for row, _ in changed] == [(NOON - 120) * 1000]
    row, told = changed[0]
    told_values = (await series(session, forex, "&outputsize=20&end_date=2026-10-21 11:30:00"))["values"]
    value, told_value = next((a, b) for a, b in zip(values, told_values, strict=True) if a != b)
    assert sum(a != b for a, b in zip(values, told_values, strict=True)) == 1
    if kind == "above high":
        assert round((float(told[4]) - float(row[2])) * 1e8) == 1
        assert float(told_value["close"]) > float(value["high"])
    else:
        assert told[4] == told_value["close"] == BAD_CELLS[kind]


async def test_a_bar_settles_later(session: aiohttp.ClientSession, forex: UntidyTwelveData) -> None:
    true = (await series(session, forex, "&outputsize=7"))["values"]
    forex.untidy.settle_after(120)
    told = (await series(session, forex, "&outputsize=7"))["values"]
    # 11:58 ends at an odd minute, one and a half minutes ago; 11:56 has settled.
    assert [value["datetime"][11:16] for value, was in zip(told, true, strict=True) if value != was] == ["11:58"]


async def test_answers_are_empty(
    session: aiohttp.ClientSession, binance: UntidyBinance, forex: UntidyTwelveData
) -> None:
    binance.untidy.answer_empty()
    forex.untidy.answer_empty()
    assert await klines(session, binance) == []
    assert (await series(session, forex))["values"] == []


async def test_an_answer_is_cut_short(session: aiohttp.ClientSession, forex: UntidyTwelveData) -> None:
    forex.faults.answer_rest(200, truncated=True, times=1)
    with pytest.raises(aiohttp.ClientPayloadError):
        await series(session, forex)


async def test_an_answer_is_for_somebody_else(session: aiohttp.ClientSession, forex: UntidyTwelveData) -> None:
    forex.untidy.answer_for({"EUR/USD": "USD/JPY"}, "5min")
    body = await series(session, forex)
    assert (body["meta"]["symbol"], body["meta"]["interval"]) == ("USD/JPY", "5min")
    assert float(body["values"][0]["close"]) > 20


# -- refusals and lists ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSALS)
async def test_rest_refuses(session: aiohttp.ClientSession, binance: UntidyBinance, name: str) -> None:
    refuse_rest(binance.faults, name, times=1)
    async with session.get(f"{binance.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=1m") as answer:
        expected = REFUSALS[name]
        assert (answer.status, answer.content_type) == (expected.status, expected.content_type)
        assert answer.headers.get("Retry-After") == (expected.retry_after and str(expected.retry_after))
    assert await klines(session, binance) != []


async def test_a_subscription_is_refused_as_busy(session: aiohttp.ClientSession, binance: UntidyBinance) -> None:
    request = {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 1}
    binance.faults.refuse_subscriptions()
    async with session.ws_connect(f"{binance.ws_url}/ws") as socket:
        await socket.send_json(request)
        assert await socket.receive_json(timeout=20) == {"error": {"code": 2, "msg": "busy"}, "id": 1}
        binance.faults.clear()
        await socket.send_json(request)
        assert (await socket.receive_json(timeout=20)) == {"result": None, "id": 1}


async def test_ticks_are_refused_as_busy(session: aiohttp.ClientSession, forex: UntidyTwelveData) -> None:
    forex.faults.refuse_subscriptions()
    async with session.ws_connect(f"{forex.ws_url}?apikey=sandbox-key") as socket:
        await socket.send_json({"action": "subscribe", "params": {"symbols": "EUR/USD"}})
        told = await socket.receive_json(timeout=20)
        assert (told["status"], told["fails"]) == ("error", [{"symbol": "EUR/USD", "message": "busy"}])


async def test_the_list_of_a_moment(
    session: aiohttp.ClientSession, binance: UntidyBinance, forex: UntidyTwelveData
) -> None:
    async def listed() -> dict[str, str]:
        async with session.get(f"{binance.rest_url}/api/v3/exchangeInfo?showPermissionSets=false") as answer:
            return {info["symbol"]: info["status"] for info in orjson.loads(await answer.read())["symbols"]}

    binance.untidy.list_as("BREAK")
    found = await listed()
    assert len(found) > 5
    assert set(found.values()) == {"BREAK"}
    binance.untidy.clear()
    binance.untidy.list_only("ETHBTC")
    assert await listed() == {"ETHBTC": "TRADING"}
    forex.untidy.list_only("EUR/USD")
    async with session.get(f"{forex.rest_url}/forex_pairs?apikey=sandbox-key") as answer:
        body = orjson.loads(await answer.read())
    assert [row["symbol"] for row in body["data"]] == ["EUR/USD"]


# -- streams ---------------------------------------------------------------------------------------


async def events(session: aiohttp.ClientSession, binance: UntidyBinance, *names: str, count: int = 1) -> list[Json]:
    """Give the first events of streams."""
    found: list[Json] = []
    async with session.ws_connect(f"{binance.ws_url}/ws/{'/'.join(names)}") as socket:
        while len(found) < count:
            found.append(await socket.receive_json(timeout=20))
    return found


async def test_one_symbol_has_wrong_stamps(session: aiohttp.ClientSession, binance: UntidyBinance) -> None:
    binance.untidy.stamp("BTCUSDT", 7200)
    told = await events(session, binance, "btcusdt@kline_1s", "ethusdt@kline_1s", count=2)
    ahead = {event["s"]: (event["E"] // 1000 - NOON, event["k"]["t"] // 1000 - NOON) for event in told}
    assert min(ahead["BTCUSDT"]) >= 7200
    assert max(ahead["ETHUSDT"]) < 3600


async def test_a_tick_has_a_wrong_stamp_and_another_name(
    session: aiohttp.ClientSession, forex: UntidyTwelveData
) -> None:
    forex.untidy.stamp("EUR/USD", -7200)
    forex.untidy.answer_for({"EUR/USD": "USD/JPY"})
    async with session.ws_connect(f"{forex.ws_url}?apikey=sandbox-key") as socket:
        await socket.send_json({"action": "subscribe", "params": {"symbols": "EUR/USD"}})
        await socket.receive_json(timeout=20)
        told = await socket.receive_json(timeout=20)
    assert told["symbol"] == "USD/JPY"
    assert told["timestamp"] < NOON - 3600


async def test_events_are_for_somebody_else(session: aiohttp.ClientSession, binance: UntidyBinance) -> None:
    binance.untidy.answer_for({"BTCUSDT": "ETHUSDT"}, "5m")
    (event,) = await events(session, binance, "btcusdt@kline_1s")
    assert (event["s"], event["k"]["s"], event["k"]["i"]) == ("ETHUSDT", "ETHUSDT", "5m")


async def test_a_closing_event_differs_from_history(session: aiohttp.ClientSession, binance: UntidyBinance) -> None:
    binance.untidy.close_otherwise()
    (event,) = await events(session, binance, "btcusdt@kline_1s")
    kline = event["k"]
    path = f"/api/v3/klines?symbol=BTCUSDT&interval=1s&startTime={kline['t']}&limit=1"
    async with session.get(binance.rest_url + path) as answer:
        (row,) = orjson.loads(await answer.read())
    assert (row[0], row[1], row[2], row[3]) == (kline["t"], kline["o"], kline["h"], kline["l"])
    assert row[4] != kline["c"]
    (kept,) = binance.untidy.also["BTCUSDT@1s", kline["t"] // 1000]
    assert kept[3] == float(kline["c"])


async def test_a_closing_comes_after_the_next_candle_began(
    session: aiohttp.ClientSession, binance: UntidyBinance
) -> None:
    binance.untidy.close_late(2, 2)
    (event,) = await events(session, binance, "btcusdt@kline_1s")
    assert event["k"]["x"]
    assert binance.now_ms() - event["E"] >= 2000


async def test_events_come_twice(session: aiohttp.ClientSession, binance: UntidyBinance) -> None:
    binance.untidy.repeat(1)
    first, second = await events(session, binance, "btcusdt@kline_1s", count=2)
    assert first == second


async def test_events_overtake_each_other(session: aiohttp.ClientSession, binance: UntidyBinance) -> None:
    binance.untidy.disorder(0.5)
    told = await events(session, binance, *(f"{s}usdt@kline_1m" for s in ("btc", "eth", "bnb", "sol")), count=40)
    stamps = [event["E"] for event in told if not event["k"]["x"]]
    assert stamps != sorted(stamps)
