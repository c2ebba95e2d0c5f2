"""The Twelve Data stand-in keeps the rules of the real one, over real sockets."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from tests.support.conditions import eventually
from tests.support.process_pauses import steps
from tests.support.sandbox import Sandbox, StagedClock, StagedMarket, TwelveDataStandIn

Json = Any

KEY = {"Authorization": "apikey sandbox-key"}
WEDNESDAY = "2026-10-14 12:00:30"
SUNDAY = "2026-10-18 12:00:30"


def clock_at(moment: str, speed: float = 1.0) -> StagedClock:
    return StagedClock(speed, datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() - time.time())


def stand_in_at(moment: str = WEDNESDAY, speed: float = 1.0, **options: Any) -> TwelveDataStandIn:
    return TwelveDataStandIn(StagedMarket(1), clock_at(moment, speed), **{"credits_per_minute": 1000, **options})


@pytest.fixture
async def exchange() -> AsyncIterator[TwelveDataStandIn]:
    async with stand_in_at() as stand_in:
        yield stand_in


async def get(session: aiohttp.ClientSession, stand_in: TwelveDataStandIn, path: str) -> tuple[int, Json]:
    async with session.get(stand_in.rest_url + path, headers=KEY) as answer:
        return answer.status, orjson.loads(await answer.read())


async def series(session: aiohttp.ClientSession, stand_in: TwelveDataStandIn, query: str) -> list[dict[str, str]]:
    status, body = await get(session, stand_in, f"/time_series?{query}")
    assert status == 200, body
    values: list[dict[str, str]] = body["values"]
    return values


async def labels(session: aiohttp.ClientSession, stand_in: TwelveDataStandIn, query: str) -> list[str]:
    return [row["datetime"] for row in await series(session, stand_in, query)]


# ---- time_series -------------------------------------------------------------------------------------------------


async def test_shape_of_an_answer(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    path = "/time_series?symbol=AUD/USD&interval=1min&outputsize=2&timezone=UTC"
    _, body = await get(session, exchange, path)
    assert list(body) == ["meta", "values", "status"]
    assert body["status"] == "ok"
    assert body["meta"] == {
        "symbol": "AUD/USD", "interval": "1min", "currency_base": "Australian Dollar", "currency_quote": "US Dollar",
        "type": "Physical Currency",
    }  # fmt: skip
    assert [list(row) for row in body["values"]] == [["datetime", "open", "high", "low", "close"]] * 2
    assert all(isinstance(value, str) for row in body["values"] for value in row.values())


async def test_newest_first_with_the_forming_bar_unless_ascending(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    query = "symbol=EUR/USD&interval=1min&outputsize=3&timezone=UTC"
    newest_first = ["2026-10-14 12:00:00", "2026-10-14 11:59:00", "2026-10-14 11:58:00"]
    assert await labels(session, exchange, query) == newest_first
    assert await labels(session, exchange, f"{query}&order=asc") == newest_first[::-1]
    assert await labels(session, exchange, f"{query}&order=ASC") == newest_first[::-1]


async def test_trailing_zeros_are_cut_unless_decimals_are_asked(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    rows = await series(session, exchange, "symbol=EUR/USD&interval=1min&outputsize=300")
    lengths = {len(row["close"].partition(".")[2]) for row in rows}
    assert {4, 5} <= lengths
    assert not any(row["close"].endswith("0") for row in rows)
    rows = await series(session, exchange, "symbol=EUR/USD&interval=1min&outputsize=300&dp=5")
    assert {len(row["close"].partition(".")[2]) for row in rows} == {5}


async def test_thirty_rows_unless_told_and_5000_with_dates(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    assert len(await series(session, exchange, "symbol=EUR/USD&interval=1min")) == 30
    rows = await series(session, exchange, "symbol=EUR/USD&interval=1min&start_date=2026-10-01&timezone=UTC")
    assert len(rows) == 5000
    assert rows[0]["datetime"] == "2026-10-14 12:00:00"
    status, body = await get(session, exchange, "/time_series?symbol=EUR/USD&interval=1min&outputsize=5001")
    assert (status, body["code"]) == (400, 400)


async def test_dates_and_outputsize_give_the_newest_before_the_end(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    query = "symbol=EUR/USD&interval=1min&timezone=UTC&start_date=2026-10-13 10:00:00&end_date=2026-10-13 11:00:00"
    assert await labels(session, exchange, f"{query}&outputsize=2") == ["2026-10-13 11:00:00", "2026-10-13 10:59:00"]
    everything = await labels(session, exchange, query)
    assert (len(everything), everything[-1]) == (61, "2026-10-13 10:00:00")
    with_t = query.replace("13 1", "13T1")
    assert await labels(session, exchange, with_t) == everything


async def test_bare_end_date_leaves_its_day_out_of_daily_bars(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    query = "symbol=EUR/USD&interval=1day&timezone=UTC&start_date=2026-10-05&end_date=2026-10-08"
    assert await labels(session, exchange, query) == ["2026-10-07", "2026-10-06", "2026-10-05"]


async def test_one_day_by_its_date(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    rows = await labels(session, exchange, "symbol=EUR/USD&interval=1h&timezone=UTC&date=2026-10-13")
    assert (len(rows), rows[0], rows[-1]) == (24, "2026-10-13 23:00:00", "2026-10-13 00:00:00")


@pytest.mark.parametrize(
    ("zone", "label"),
    [
        ("", "2026-10-14 23:00:00"),
        ("&timezone=Exchange", "2026-10-14 23:00:00"),
        ("&timezone=UTC", "2026-10-14 12:00:00"),
        ("&timezone=America/New_York", "2026-10-14 08:00:00"),
    ],
)
async def test_labels_are_sydney_time_unless_asked_otherwise(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn, zone: str, label: str
) -> None:
    assert await labels(session, exchange, f"symbol=EUR/USD&interval=1h&outputsize=1{zone}") == [label]


async def test_days_follow_sydney_unless_utc_is_asked(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    sydney = await series(session, exchange, "symbol=EUR/USD&interval=1day&end_date=2026-10-14&outputsize=1")
    hours = await series(
        session, exchange, "symbol=EUR/USD&interval=1h&start_date=2026-10-13 00:00:00&end_date=2026-10-13 23:00:00"
    )
    assert sydney[0]["datetime"] == "2026-10-13"
    assert (sydney[0]["open"], sydney[0]["close"]) == (hours[-1]["open"], hours[0]["close"])
    utc = await series(session, exchange, "symbol=EUR/USD&interval=1day&end_date=2026-10-14&outputsize=1&timezone=UTC")
    assert utc[0]["open"] != sydney[0]["open"]


async def test_weeks_and_months_are_stamped_on_their_first_day(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    base = "symbol=EUR/USD&timezone=UTC&outputsize=2"
    assert await labels(session, exchange, f"{base}&interval=1week") == ["2026-10-12", "2026-10-05"]
    assert await labels(session, exchange, f"{base}&interval=1month") == ["2026-10-01", "2026-09-01"]


async def test_doubled_hour_of_sydney_is_lost_even_in_utc(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    query = "symbol=XAU/USD&interval=15min&timezone=UTC&order=asc&start_date=2026-04-04 14:30:00"
    rows = await labels(session, exchange, f"{query}&end_date=2026-04-04 16:15:00")
    assert rows == ["2026-04-04 14:30:00", "2026-04-04 14:45:00", "2026-04-04 16:00:00", "2026-04-04 16:15:00"]


async def test_closed_hours_are_padded_with_almost_flat_bars(session: aiohttp.ClientSession) -> None:
    async with stand_in_at(SUNDAY) as exchange:
        rows = await series(session, exchange, "symbol=XAU/USD&interval=15min&outputsize=20&timezone=UTC")
    assert rows[0]["datetime"] == "2026-10-18 12:00:00"
    for row in rows:
        height = float(row["high"]) - float(row["low"])
        assert 0 < height < 0.0002 * float(row["close"])


async def test_padding_can_be_switched_off(session: aiohttp.ClientSession) -> None:
    async with stand_in_at(SUNDAY, padding=False) as exchange:
        base = "symbol=EUR/USD&timezone=UTC"
        assert await labels(session, exchange, f"{base}&interval=15min&outputsize=1") == ["2026-10-16 20:45:00"]
        days = await labels(session, exchange, f"{base}&interval=1day&outputsize=3")
        assert days == ["2026-10-16", "2026-10-15", "2026-10-14"]
        path = f"/time_series?{base}&interval=15min&start_date=2026-10-17&end_date=2026-10-18"
        status, body = await get(session, exchange, path)
    assert status == 400
    assert body["message"].startswith("No data is available on the specified dates.")


async def test_bars_may_be_inconsistent_when_switched_on(session: aiohttp.ClientSession) -> None:
    async with stand_in_at(inconsistent_bars=True) as exchange:
        rows = await series(session, exchange, "symbol=EUR/USD&interval=5min&outputsize=5000")
    bad = [row for row in rows if float(row["close"]) > float(row["high"])]
    assert 1 <= len(bad) <= 30


async def test_larger_bars_agree_with_smaller_ones(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    span = "timezone=UTC&dp=5&start_date=2026-10-13 10:00:00&end_date=2026-10-13 10:59:00&symbol=GBP/USD"
    minutes = await series(session, exchange, f"{span}&interval=1min&order=asc")
    hour = (await series(session, exchange, f"{span}&interval=1h"))[0]
    assert hour["open"] == minutes[0]["open"]
    assert hour["close"] == minutes[-1]["close"]
    assert hour["high"] == max(row["high"] for row in minutes)
    assert hour["low"] == min(row["low"] for row in minutes)


async def test_batch_is_keyed_by_symbol_and_holds_its_errors(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn
) -> None:
    url = f"{exchange.rest_url}/time_series?symbol=EUR/USD,NOPE/USD&interval=1day&outputsize=1"
    async with session.get(url, headers=KEY) as answer:
        body = await answer.json()
        assert answer.headers["Is_batch"] == "true"
        assert answer.headers["api-credits-used"] == "2"
    assert list(body) == ["EUR/USD", "NOPE/USD"]
    assert list(body["EUR/USD"]) == ["meta", "values", "status"]
    assert (body["NOPE/USD"]["code"], body["NOPE/USD"]["status"]) == (404, "error")


async def test_csv_has_no_charset_and_semicolons(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    url = f"{exchange.rest_url}/time_series?symbol=EUR/USD&interval=1day&outputsize=2&format=CSV&timezone=UTC"
    async with session.get(url, headers=KEY) as answer:
        lines = (await answer.text()).splitlines()
        assert answer.headers["Content-Type"] == "text/csv"
    assert lines[0] == "datetime;open;high;low;close"
    assert [line.split(";")[0] for line in lines[1:]] == ["2026-10-14", "2026-10-13"]


async def test_parameter_names_in_any_case(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    assert len(await series(session, exchange, "Symbol=eur/usd&INTERVAL=1min&OutputSize=2")) == 2


async def test_recorded_answer_is_served(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    values = [
        {"datetime": "2026-08-14 00:26:00", "open": "0.5", "high": "0.6", "low": "0.4", "close": "0.55"},
        {"datetime": "2026-08-14 00:25:00", "open": "0.4", "high": "0.5", "low": "0.4", "close": "0.5"},
    ]
    exchange.serve_rows("AUD/USD", "1min", {"meta": {"symbol": "AUD/USD"}, "values": values})
    base = "symbol=AUD/USD&interval=1min&timezone=UTC"
    assert await series(session, exchange, base) == values
    assert await series(session, exchange, f"{base}&end_date=2026-08-14 00:25:00") == values[1:]


# ---- errors, key, credits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("time_series?symbol=EUR/USD&interval=xyz", 400,
         "Invalid **interval** provided: xyz. Supported intervals: 1min, 5min, 15min, 30min, 45min, 1h, 2h, 4h, 8h, "
         "1day, 1week, 1month"),
        ("time_series?symbol=NOPE/USD&interval=1h", 404, "**symbol** or **figi** parameter is missing or invalid."),
        ("time_series?interval=1h", 404, "**symbol** or **figi** parameter is missing or invalid."),
        ("time_series?symbol=EUR/USD&interval=1h&timezone=utc", 400, "Invalid **timezone** provided: utc."),
        ("time_series?symbol=EUR/USD&interval=1h&start_date=soon", 400, "Invalid **start_date** provided: soon."),
        ("time_series?symbol=EUR/USD&interval=1h&start_date=2030-01-01", 400, "No data is available on the specified"),
        ("quote?symbol=NOPE/USD", 404, "**symbol** or **figi** parameter is missing or invalid."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("errors_as_200", [False, True])
async def test_errors_as_status_or_inside_200(
    session: aiohttp.ClientSession, path: str, code: int, message: str, errors_as_200: bool
) -> None:
    async with stand_in_at(errors_as_200=errors_as_200) as exchange:
        status, body = await get(session, exchange, f"/{path}")
    assert status == (200 if errors_as_200 else code)
    assert (body["code"], body["status"]) == (code, "error")
    assert body["message"].startswith(message)


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {"Authorization": "apikey sandbox-key"}, 200),
        ("?apikey=sandbox-key", {}, 200),
        ("", {}, 401),
        ("?apikey=other", {}, 401),
        ("", {"Authorization": "Bearer sandbox-key"}, 401),
    ],
)
async def test_key_in_the_query_or_the_header(
    session: aiohttp.ClientSession, exchange: TwelveDataStandIn, query: str, headers: dict[str, str], status: int
) -> None:
    async with session.get(f"{exchange.rest_url}/forex_pairs{query}", headers=headers) as answer:
        body = await answer.json()
    assert answer.status == status
    if status == 401:
        assert body["message"].startswith("**apikey** parameter is incorrect or not specified.")
        assert body["code"] == 401
    assert "sandbox-key" not in repr(exchange.requests)


async def test_credits_of_the_minute_refuse_a_batch_whole_and_keep_counting(session: aiohttp.ClientSession) -> None:
    async with stand_in_at(credits_per_minute=8) as exchange:
        six = "AUD/USD,EUR/USD,GBP/USD,USD/JPY,USD/CHF,USD/CAD"
        one = await get(session, exchange, f"/time_series?symbol={six}&interval=1h&outputsize=1")
        assert one[0] == 200
        async with session.get(f"{exchange.rest_url}/price?symbol={six}", headers=KEY) as answer:
            body = await answer.json()
            assert answer.status == 429
            assert (answer.headers["api-credits-used"], answer.headers["api-credits-left"]) == ("12", "0")
    assert body == {
        "code": 429,
        "message": "You have run out of API credits for the current minute. 12 API credits were used, with the current "
        "limit being 8. Wait for the next minute or consider switching to a higher tier plan at "
        "https://twelvedata.com/pricing",
        "status": "error",
    }
    assert exchange.rest.credits.refusals == 1


async def test_credits_come_back_with_the_clock_minute(session: aiohttp.ClientSession) -> None:
    async with stand_in_at("2026-10-14 12:00:20", credits_per_minute=1) as exchange:
        assert [(await get(session, exchange, "/price?symbol=EUR/USD"))[0] for _ in range(2)] == [200, 429]
        # Less than a minute after they were spent.
        exchange.clock.jump(40.5)
        assert (await get(session, exchange, "/price?symbol=EUR/USD"))[0] == 200


async def test_credits_of_the_day_end_at_midnight_utc(session: aiohttp.ClientSession) -> None:
    async with stand_in_at("2026-10-14 23:58:00", credits_per_day=2) as exchange:
        bodies = [(await get(session, exchange, "/price?symbol=EUR/USD"))[1] for _ in range(4)]
        assert bodies[3]["message"].startswith(
            "You have run out of API credits for the day. 4 API credits were used, with the current limit being 2."
        )
        exchange.clock.jump(150)
        _, usage = await get(session, exchange, "/api_usage")
    assert usage == {
        "timestamp": usage["timestamp"], "current_usage": 1, "plan_limit": 1000, "daily_usage": 1,
        "plan_daily_limit": 2, "plan_category": "basic",
    }  # fmt: skip


# ---- the other calls ---------------------------------------------------------------------------------------------


async def test_forex_pairs_with_filters(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    _, body = await get(session, exchange, "/forex_pairs")
    assert (body["status"], body["count"]) == ("ok", len(body["data"]))
    assert body["count"] >= 12
    assert [row["symbol"] for row in body["data"]] == sorted(row["symbol"] for row in body["data"])
    _, body = await get(session, exchange, "/forex_pairs?symbol=EUR/USD")
    assert body["data"] == [
        {"symbol": "EUR/USD", "currency_group": "Major", "currency_base": "Euro", "currency_quote": "US Dollar"}
    ]
    _, body = await get(session, exchange, "/forex_pairs?currency_base=Euro")
    assert {row["symbol"].partition("/")[0] for row in body["data"]} == {"EUR"}


async def test_quote_rate_price_and_search(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    _, quote = await get(session, exchange, "/quote?symbol=EUR/USD")
    assert (quote["exchange"], quote["is_market_open"], quote["datetime"]) == ("Forex", True, "2026-10-14")
    assert quote["timestamp"] == datetime(2026, 10, 13, 13, tzinfo=UTC).timestamp()
    assert "volume" not in quote
    _, rate = await get(session, exchange, "/exchange_rate?symbol=EUR/USD")
    assert list(rate) == ["symbol", "rate", "timestamp"]
    assert isinstance(rate["rate"], float)
    _, price = await get(session, exchange, "/price?symbol=EUR/USD")
    assert abs(float(price["price"]) - rate["rate"]) < 0.001
    _, found = await get(session, exchange, "/symbol_search?symbol=gold")
    assert [row["symbol"] for row in found["data"]] == ["XAU/USD"]
    assert await get(session, exchange, "/earliest_timestamp?symbol=EUR/USD&interval=1day&timezone=UTC") == (
        200,
        {"datetime": "2020-01-01", "unix_time": 1577836800},
    )
    assert await get(session, exchange, "/technical_indicators") == (200, {"data": {}, "status": "ok"})


# ---- WebSocket ---------------------------------------------------------------------------------------------------


async def test_wrong_key_is_refused_at_the_upgrade(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(f"{exchange.ws_url}?apikey=other")
    assert refused.value.status == 401
    async with session.ws_connect(exchange.ws_url, headers={"X-TD-APIKEY": "sandbox-key"}):
        assert exchange.connections == 1


@pytest.mark.parametrize(
    ("symbols", "null_lists", "answer"),
    [
        ("EUR/USD", False, {"event": "subscribe-status", "status": "ok", "success": [
            {"symbol": "EUR/USD", "exchange": "PHYSICAL CURRENCY", "type": "PHYSICAL_CURRENCY"}]}),
        ("NOPE/USD", False, {"event": "subscribe-status", "status": "error", "fails": [{"symbol": "NOPE/USD"}]}),
        ([{"symbol": "EUR/USD", "type": "Forex"}, {"symbol": "X/Y"}], False,
         {"event": "subscribe-status", "status": "warning", "success": [
             {"symbol": "EUR/USD", "exchange": "PHYSICAL CURRENCY", "type": "PHYSICAL_CURRENCY"}],
          "fails": [{"symbol": "X/Y"}]}),
        ("NOPE/USD", True,
         {"event": "subscribe-status", "status": "error", "success": None, "fails": [{"symbol": "NOPE/USD"}]}),
    ],
)  # fmt: skip
async def test_answer_to_a_subscription(
    session: aiohttp.ClientSession, symbols: object, null_lists: bool, answer: dict[str, object]
) -> None:
    async with (
        stand_in_at(null_lists=null_lists) as exchange,
        session.ws_connect(f"{exchange.ws_url}?apikey=sandbox-key") as socket,
    ):
        await socket.send_json({"action": "subscribe", "params": {"symbols": symbols}})
        assert await socket.receive_json(timeout=20) == answer


async def test_ticks_are_numbers_with_whole_seconds_and_agree_with_the_bars(session: aiohttp.ClientSession) -> None:
    async with stand_in_at(speed=30, tick_every_s=0.05) as exchange:
        async with session.ws_connect(f"{exchange.ws_url}?apikey=sandbox-key") as socket:
            await socket.send_json({"action": "subscribe", "params": {"symbols": "EUR/USD,XAU/USD"}})
            await socket.receive_json(timeout=20)
            ticks = []
            for step_s in steps(1.5):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(step_s):
                        while True:
                            ticks.append(await socket.receive_json())
        euro = [tick for tick in ticks if tick["symbol"] == "EUR/USD"]
        start = datetime.fromtimestamp(euro[0]["timestamp"], UTC)
        base = f"symbol=EUR/USD&interval=1min&timezone=UTC&start_date={start:%Y-%m-%d %H:%M:00}"
        bars = await series(session, exchange, base)
    assert len(euro) > 10
    for tick in euro:
        assert type(tick["timestamp"]) is int
        assert type(tick["price"]) is float
        label = datetime.fromtimestamp(tick["timestamp"] // 60 * 60, UTC).strftime("%Y-%m-%d %H:%M:%S")
        bar = next(bar for bar in bars if bar["datetime"] == label)
        assert float(bar["low"]) <= tick["price"] <= float(bar["high"])
    assert list(euro[0])[:2] == ["event", "symbol"]


async def test_plan_limits_the_symbols(session: aiohttp.ClientSession) -> None:
    async with (
        stand_in_at(stream_symbols=1) as exchange,
        session.ws_connect(f"{exchange.ws_url}?apikey=sandbox-key") as socket,
    ):
        await socket.send_json({"action": "subscribe", "params": {"symbols": "EUR/USD,GBP/USD"}})
        answer = await socket.receive_json(timeout=20)
        assert answer["status"] == "warning"
        assert answer["fails"][0]["symbol"] == "GBP/USD"
        await socket.send_json({"action": "unsubscribe", "params": {"symbols": "EUR/USD"}})
        await eventually(lambda: exchange.subscribed == [])


async def test_reset_and_heartbeat(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    async with session.ws_connect(f"{exchange.ws_url}?apikey=sandbox-key") as socket:
        await socket.send_json({"action": "subscribe", "params": {"symbols": "EUR/USD"}})
        await socket.send_json({"action": "reset"})
        await socket.send_json({"action": "heartbeat"})
        while (message := await socket.receive_json(timeout=20))["event"] != "heartbeat":
            pass
        assert message == {"event": "heartbeat", "status": "ok"}
        assert exchange.subscribed == []


async def test_fourth_connection_closes_the_oldest(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    url = f"{exchange.ws_url}?apikey=sandbox-key"
    async with session.ws_connect(url) as oldest, session.ws_connect(url), session.ws_connect(url):
        assert exchange.connections == 3
        async with session.ws_connect(url):
            assert (await oldest.receive(timeout=20)).type is WSMsgType.CLOSE
            await eventually(lambda: exchange.connections == 3)


async def test_client_without_heartbeats_is_closed(session: aiohttp.ClientSession) -> None:
    async with (
        stand_in_at(heartbeat_within_s=60.0) as exchange,
        session.ws_connect(f"{exchange.ws_url}?apikey=sandbox-key") as socket,
    ):
        (connection,) = exchange._open.values()
        await asyncio.sleep(0.2)
        await socket.send_json({"action": "heartbeat"})
        assert (await socket.receive(timeout=20)).type is WSMsgType.TEXT
        # A heartbeat begins its time anew, a ping does not.
        assert not exchange._gives_up_on(connection, connection.opened + 60.1)
        exchange.heartbeat_within_s = exchange.pong_within_s = 0.3
        await socket.ping()
        assert (await socket.receive(timeout=20)).type is WSMsgType.CLOSE


async def test_faults_have_the_same_words(session: aiohttp.ClientSession, exchange: TwelveDataStandIn) -> None:
    url = f"{exchange.ws_url}?apikey=sandbox-key"
    async with session.ws_connect(url) as socket:
        await socket.send_json({"action": "subscribe", "params": {"symbols": "EUR/USD"}})
        await socket.receive_json(timeout=20)
        exchange.faults.mute()
        exchange.inject("EUR/USD", 1.5, 12, bid=None)
        while (message := await socket.receive_json(timeout=20))["price"] != 1.5:
            pass
        assert (message["timestamp"], message["bid"]) == (12, None)
        exchange.faults.drop()
        assert (await socket.receive(timeout=20)).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
    exchange.faults.answer_rest(500, "[]", times=1)
    assert await get(session, exchange, "/forex_pairs") == (500, [])


# ---- the sandbox as a whole --------------------------------------------------------------------------------------


async def test_sandbox_tells_the_settings_of_both_providers(session: aiohttp.ClientSession) -> None:
    async with Sandbox(forex_always_open=True) as sandbox:
        settings = sandbox.provider_settings()
        assert list(settings) == ["binance", "twelve_data"]
        assert list(settings["binance"]) == ["ws_url", "rest_url"]
        assert settings["twelve_data"]["api_key"] == "sandbox-key"
        assert settings["twelve_data"]["credits_per_minute"] == 610
        assert str(settings["twelve_data"]["ws_url"]).endswith("/v1/quotes/price")
        async with session.get(f"{settings['binance']['rest_url']}/api/v3/ping") as answer:
            assert answer.status == 200
        rows = await series(session, sandbox.twelve_data, "symbol=EUR/USD&interval=1min&outputsize=500&timezone=UTC")
        # Hours of them: on a quiet night ten minutes may know two prices.
        assert len({row["close"] for row in rows}) > 2
        newest = datetime.fromisoformat(rows[0]["datetime"]).replace(tzinfo=UTC)
        assert datetime.now(UTC) - newest < timedelta(seconds=62)
