"""The Binance stand-in keeps the rules of the real one, over real sockets."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from tests.support.conditions import eventually
from tests.support.process_pauses import steps
from tests.support.sandbox import GARBAGE, BinanceStandIn, StagedClock, StagedMarket

Json = Any

MINUTE_MS = 60_000
DAY_MS = 86_400_000


@pytest.fixture
async def binance() -> AsyncIterator[BinanceStandIn]:
    """Sixty times faster than life: a minute candle each second, an update every 0.1 s."""
    async with BinanceStandIn(StagedMarket(1), StagedClock(speed=60), pace_s=0.1, messages_per_second=None) as stand_in:
        yield stand_in


@pytest.fixture
async def calm() -> AsyncIterator[BinanceStandIn]:
    """At the speed of life."""
    async with BinanceStandIn(StagedMarket(1), StagedClock()) as stand_in:
        yield stand_in


async def get(session: aiohttp.ClientSession, stand_in: BinanceStandIn, path: str, **headers: str) -> tuple[int, Json]:
    async with session.get(stand_in.rest_url + path, headers=headers) as answer:
        raw = await answer.read()
        return answer.status, orjson.loads(raw) if raw else None


async def ask(socket: aiohttp.ClientWebSocketResponse, **request: Json) -> Json:
    """Send a control request and give its answer, passing over events."""
    await socket.send_json(request)
    while True:
        message = await socket.receive_json(timeout=20)
        if "id" in message:
            return message


async def events(socket: aiohttp.ClientWebSocketResponse, seconds: float) -> list[Json]:
    """Give what comes within a time, of which a pause of the machine uses up a part only."""
    found = []
    for step_s in steps(seconds):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(step_s):
                while True:
                    found.append(await socket.receive_json())
    return found


async def next_event(socket: aiohttp.ClientWebSocketResponse, *, final: bool | None = None) -> Json:
    while True:
        message = await socket.receive_json(timeout=20)
        if message.get("e") == "kline" and final in (None, message["k"]["x"]):
            return message


# ---- opening -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws", "/ws/0", "/stream"])
async def test_connection_may_start_empty(session: aiohttp.ClientSession, binance: BinanceStandIn, path: str) -> None:
    async with session.ws_connect(binance.ws_url + path) as socket:
        assert await ask(socket, method="LIST_SUBSCRIPTIONS", id=3) == {"result": [], "id": 3}


@pytest.mark.parametrize("name", ["btcusdt@kline_1m", "btcusdt%40kline_1m"])
async def test_raw_stream_by_url_sends_bare_events(
    session: aiohttp.ClientSession, binance: BinanceStandIn, name: str
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/{name}") as socket:
        event = await socket.receive_json(timeout=20)
    assert list(event) == ["e", "E", "s", "k"]
    assert list(event["k"]) == list("tTsifLochlvnxqVQB")
    kline = event["k"]
    assert (event["e"], event["s"], kline["s"], kline["i"], kline["B"]) == ("kline", "BTCUSDT", "BTCUSDT", "1m", "0")
    assert kline["T"] == kline["t"] + MINUTE_MS - 1
    assert kline["L"] - kline["f"] + 1 == kline["n"]
    for key in "ochlvqVQ":
        assert isinstance(kline[key], str)
        assert len(kline[key].partition(".")[2]) == 8
    assert type(kline["x"]) is bool


async def test_combined_stream_by_url_wraps_events(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    url = f"{binance.ws_url}/stream?streams=btcusdt@kline_1m/ethusdt@kline_5m"
    async with session.ws_connect(url) as socket:
        names = {(await socket.receive_json(timeout=20))["stream"] for _ in range(6)}
        assert names == {"btcusdt@kline_1m", "ethusdt@kline_5m"}
        # Answers are never wrapped.
        assert await ask(socket, method="GET_PROPERTY", params=["combined"], id=5) == {"result": True, "id": 5}


async def test_times_in_microseconds_on_request(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1m?timeUnit=MICROSECOND") as socket:
        event = await next_event(socket)
    assert event["k"]["t"] % 60_000_000 == 0
    assert event["k"]["T"] == event["k"]["t"] + 59_999_999
    assert event["E"] > 10**15


async def test_symbol_with_other_letters(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws") as socket:
        await ask(socket, method="SUBSCRIBE", params=["币安人生usdt@kline_1m"], id=1)
        assert (await next_event(socket))["s"] == "币安人生USDT"


# ---- control messages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", [1, -(2**63), "abc-123", "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f", None])
async def test_id_comes_back_as_sent(session: aiohttp.ClientSession, binance: BinanceStandIn, identity: object) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": identity})
        answer = await socket.receive_json(timeout=20)
    assert answer == {"result": None, "id": identity}
    assert type(answer["id"]) is type(identity)


@pytest.mark.parametrize(
    ("sent", "code", "message", "identity"),
    [
        ("nonsense", 3, "Invalid JSON: expected value at line 1 column 1", None),
        ("{}", 2, "Invalid request: missing field `method`", None),
        ('{"method":"DANCE","id":4}', 2, "Invalid request: unknown variant `DANCE`, expected one of", 4),
        ('{"method":"SUBSCRIBE","params":["btcusdt"],"id":1}', 2, "Invalid request: invalid stream", 1),
        ('{"method":"SUBSCRIBE","params":["btcusdt@kline_7m"],"id":1}', 2, "Invalid request: invalid stream", 1),
        ('{"method":"SUBSCRIBE","id":1}', 2, "Invalid request: missing field `params`", 1),
        ('{"method":"LIST_SUBSCRIPTIONS","params":["x"],"id":1}', 2, "Invalid request: too many parameters", 1),
        ('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1.5}', 2, "Invalid request: request ID", None),
        ('{"method":"SET_PROPERTY","params":["combined",7],"id":1}', 1, "Invalid value type: expected Boolean", 1),
        ('{"method":"GET_PROPERTY","params":["colour"],"id":1}', 0, "Unknown property", 1),
    ],
)
async def test_wrong_request_gets_a_nested_error(
    session: aiohttp.ClientSession, binance: BinanceStandIn, sent: str, code: int, message: str, identity: object
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws") as socket:
        await socket.send_str(sent)
        answer = await socket.receive_json(timeout=20)
    assert list(answer) == ["error", "id"]
    assert answer["error"]["code"] == code
    assert answer["error"]["msg"].startswith(message)
    assert answer["id"] == identity


async def test_subscribing_twice_doubles_nothing(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/stream?streams=btcusdt@kline_1s") as socket:
        for identity in (1, 2):
            await ask(socket, method="SUBSCRIBE", params=["btcusdt@kline_1s", "btcusdt@kline_1s"], id=identity)
        assert binance.subscribed == ["btcusdt@kline_1s"]
        seen = [message["data"]["k"]["t"] for message in await events(socket, 0.3)]
    assert len(seen) > 5
    assert len(set(seen)) == len(seen)


async def test_unsubscribed_stream_falls_silent(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1m") as socket:
        await next_event(socket)
        await ask(socket, method="UNSUBSCRIBE", params=["btcusdt@kline_1m"], id=1)
        assert await events(socket, 0.3) == []


async def test_combined_can_be_switched_on_a_live_connection(
    session: aiohttp.ClientSession, binance: BinanceStandIn
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1m") as socket:
        assert await ask(socket, method="SET_PROPERTY", params=["combined", True], id=4) == {"result": None, "id": 4}
        assert (await socket.receive_json(timeout=20))["stream"] == "btcusdt@kline_1m"


@pytest.mark.parametrize("name", ["nopeusdt@kline_1s", "BTCUSDT@kline_1s", "nknusdt@kline_1s"])
async def test_symbol_that_does_not_trade_is_accepted_and_silent(
    session: aiohttp.ClientSession, binance: BinanceStandIn, name: str
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws") as socket:
        assert await ask(socket, method="SUBSCRIBE", params=[name], id=1) == {"result": None, "id": 1}
        assert await events(socket, 0.3) == []


async def test_at_most_1024_streams_on_a_connection(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws") as socket:
        for first in range(0, 1000, 100):
            names = [f"t{i}usdt@kline_1m" for i in range(first, first + 100)]
            assert "result" in await ask(socket, method="SUBSCRIBE", params=names, id=first)
        names = [f"x{i}usdt@kline_1m" for i in range(25)]
        assert (await ask(socket, method="SUBSCRIBE", params=names, id=1))["error"]["code"] == 2
        assert "result" in await ask(socket, method="SUBSCRIBE", params=names[:24], id=1)


async def test_frame_above_4096_bytes_ends_the_connection(
    session: aiohttp.ClientSession, binance: BinanceStandIn
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws") as socket:
        await socket.send_str('{"method":"LIST_SUBSCRIPTIONS","id":1}' + " " * 4096)
        assert (await socket.receive(timeout=20)).type is WSMsgType.CLOSE
    assert socket.close_code == 1008


# ---- events ------------------------------------------------------------------------------------------------------


async def test_stream_closes_every_candle_and_rest_agrees(
    session: aiohttp.ClientSession, binance: BinanceStandIn
) -> None:
    names = ["btcusdt@kline_1m", "lrcbtc@kline_1m", "adausdt@kline_1s"]
    async with session.ws_connect(f"{binance.ws_url}/stream?streams={'/'.join(names)}") as socket:
        messages = await events(socket, 2.6)
    for name in names:
        klines = [m["data"]["k"] for m in messages if m["stream"] == name]
        closed = [kline for kline in klines if kline["x"]]
        assert len(closed) >= 2
        length = closed[0]["T"] + 1 - closed[0]["t"]
        opens = [kline["t"] for kline in closed]
        assert opens == list(range(opens[0], opens[-1] + 1, length))
        # Nothing about a candle comes after its closing, and candles follow one another.
        assert [kline["t"] for kline in klines] == sorted(kline["t"] for kline in klines)
        query = f"?symbol={closed[0]['s']}&interval={closed[0]['i']}&startTime={opens[0]}&limit={len(closed)}"
        _, rows = await get(session, binance, f"/api/v3/klines{query}")
        assert [
            [k["t"], k["o"], k["h"], k["l"], k["c"], k["v"], k["T"], k["q"], k["n"], k["V"], k["Q"], k["B"]]
            for k in closed
        ] == rows


async def test_candle_without_a_trade_closes_flat_with_ids_of_minus_one(
    session: aiohttp.ClientSession, binance: BinanceStandIn
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/lrcbtc@kline_1s") as socket:
        while True:
            kline = (await next_event(socket, final=True))["k"]
            if kline["n"] == 0:
                break
    assert (kline["f"], kline["L"], kline["v"], kline["q"]) == (-1, -1, "0.00000000", "0.00000000")
    assert kline["o"] == kline["h"] == kline["l"] == kline["c"]


async def test_closing_comes_a_few_milliseconds_after_the_candle(
    session: aiohttp.ClientSession, calm: BinanceStandIn
) -> None:
    async with session.ws_connect(f"{calm.ws_url}/ws/lrcbtc@kline_1s") as socket:
        late = [event["E"] - event["k"]["T"] for event in [await next_event(socket) for _ in range(2)]]
        # While the machine pauses nothing is sent; it does not pause all the time.
        while min(late) >= 1000:
            event = await next_event(socket)
            late.append(event["E"] - event["k"]["T"])
    assert min(late) >= 5


async def test_closings_of_2021_come_late_and_only_after_trades(session: aiohttp.ClientSession) -> None:
    clock = StagedClock(speed=60)
    async with BinanceStandIn(StagedMarket(1), clock, pace_s=0.1, closings="traded") as binance:
        url = f"{binance.ws_url}/stream?streams=btcusdt@kline_1m/lrcbtc@kline_1s"
        async with session.ws_connect(url) as socket:
            messages = [message["data"] for message in await events(socket, 2.4)]
    finals = [event for event in messages if event["k"]["x"]]
    assert [event for event in finals if event["s"] == "BTCUSDT"]
    assert all(event["k"]["n"] > 0 for event in finals)
    assert all(event["E"] - event["k"]["T"] > 5000 for event in finals if event["s"] == "BTCUSDT")


async def test_pace_between_updates(session: aiohttp.ClientSession) -> None:
    async with (
        BinanceStandIn(StagedMarket(1), StagedClock(), pace_s=0.2) as binance,
        session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1d") as socket,
    ):
        stamps = [(await next_event(socket))["E"] for _ in range(5)]
    # A quiet moment may stretch a gap, nothing shortens it.
    assert all(after - before >= 150 for before, after in itertools.pairwise(stamps))


async def test_shifted_day_is_cut_in_its_zone(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1d@+08:00") as socket:
        kline = (await next_event(socket))["k"]
    assert kline["t"] % DAY_MS == 16 * 3_600_000
    assert kline["T"] == kline["t"] + DAY_MS - 1


# ---- life of a connection ----------------------------------------------------------------------------------------


async def test_server_pings_and_drops_who_does_not_answer(session: aiohttp.ClientSession) -> None:
    async with BinanceStandIn(StagedMarket(1), ping_every_s=0.1) as binance:
        async with session.ws_connect(f"{binance.ws_url}/ws", autoping=False) as socket:
            first = await socket.receive(timeout=20)
            assert first.type is WSMsgType.PING
            assert first.data.isdigit()
            binance.pong_within_s = 0.3
            while (message := await socket.receive(timeout=20)).type is WSMsgType.PING:
                pass
        assert message.type is WSMsgType.CLOSE
        assert socket.close_code == 1008


async def test_connection_that_answers_pings_lives(session: aiohttp.ClientSession) -> None:
    stand_in = BinanceStandIn(StagedMarket(1), ping_every_s=0.1, pong_within_s=60.0, messages_per_second=None)
    async with stand_in as binance, session.ws_connect(f"{binance.ws_url}/ws") as socket:
        reading = asyncio.create_task(socket.receive())
        (connection,) = binance._open.values()
        await eventually(lambda: len(binance.control_messages) >= 10, timeout_s=20)
        assert {message.kind for message in binance.control_messages} == {"pong"}
        # A pong begins its time anew.
        assert not binance._gives_up_on(connection, connection.opened + 60.5)
        assert not reading.done()
        reading.cancel()


async def test_pings_pongs_and_requests_all_count_for_five_a_second(
    session: aiohttp.ClientSession, calm: BinanceStandIn
) -> None:
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        for _ in range(2):
            await socket.ping()
            await socket.pong()
        await ask(socket, method="LIST_SUBSCRIPTIONS", id=1)
        assert calm.rate_violations == 0
        await socket.pong()
        assert (await socket.receive(timeout=20)).type in (WSMsgType.PONG, WSMsgType.CLOSE)
        await eventually(lambda: calm.connections == 0)
    assert socket.close_code == 1008
    assert calm.rate_violations == 1
    assert calm.max_messages_in_any_second() == 6
    assert [message.kind for message in calm.control_messages] == ["ping", "pong", "ping", "pong", "text", "pong"]


async def test_connection_ends_after_its_longest_life(session: aiohttp.ClientSession) -> None:
    async with (
        BinanceStandIn(StagedMarket(1), connection_life_s=0.2) as binance,
        session.ws_connect(f"{binance.ws_url}/ws") as socket,
    ):
        assert (await socket.receive(timeout=20)).type is WSMsgType.CLOSE


async def test_shutdown_is_announced_raw_and_combined(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    async with (
        session.ws_connect(f"{calm.ws_url}/ws") as raw,
        session.ws_connect(f"{calm.ws_url}/stream") as combined,
    ):
        calm.announce_shutdown(close_after_s=0.1)
        first, second = await raw.receive_json(timeout=20), await combined.receive_json(timeout=20)
        assert list(first) == ["e", "E"]
        assert first["e"] == "serverShutdown"
        assert second == {"stream": "!serverShutdown", "data": first}
        assert (await raw.receive(timeout=20)).type is WSMsgType.CLOSE


# ---- klines over REST --------------------------------------------------------------------------------------------


async def test_selection_of_rows(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    start = 1_790_000_000_000 // MINUTE_MS * MINUTE_MS
    end = start + 9 * MINUTE_MS
    base = "/api/v3/klines?symbol=BTCUSDT&interval=1m"

    async def opens(query: str) -> list[int]:
        _, rows = await get(session, calm, base + query)
        return [(row[0] - start) // MINUTE_MS for row in rows]

    assert await opens(f"&startTime={start}&limit=3") == [0, 1, 2]
    assert await opens(f"&startTime={start + 1}&limit=3") == [1, 2, 3]
    assert await opens(f"&endTime={end}&limit=3") == [7, 8, 9]
    assert await opens(f"&endTime={end - 1}&limit=3") == [6, 7, 8]
    assert await opens(f"&startTime={start}&endTime={end}") == list(range(10))
    assert await opens(f"&startTime={start}&endTime={end}&limit=4") == [0, 1, 2, 3]
    assert await opens(f"&startTime={start}&endTime={start}") == [0]
    assert await opens(f"&startTime={start}000&endTime={start}999") == [0]
    assert await opens(f"&startTime={end}&endTime={start}") == []
    newest = await opens("&limit=2")
    assert newest[1] == newest[0] + 1


async def test_newest_row_is_the_unfinished_candle(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    _, rows = await get(session, calm, "/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=2")
    assert rows[1][0] <= calm.now_ms() <= rows[1][6]
    assert [type(field) for field in rows[0]] == [int, *[str] * 5, int, str, int, str, str, str]


@pytest.mark.parametrize(("sent", "count"), [("", 500), ("&limit=1000", 1000), ("&limit=5000", 1000)])
async def test_limit_is_500_unless_told_and_cut_to_1000(
    session: aiohttp.ClientSession, calm: BinanceStandIn, sent: str, count: int
) -> None:
    _, rows = await get(session, calm, f"/api/v3/klines?symbol=ETHUSDT&interval=1m{sent}")
    assert len(rows) == count
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


async def test_history_begins_with_the_listing(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    _, rows = await get(session, calm, "/api/v3/klines?symbol=BTCUSDT&interval=1w&startTime=0&limit=1")
    assert rows[0][0] == 1_502_668_800_000  # Monday 2017-08-14, three days before the listing
    _, rows = await get(session, calm, "/api/v3/klines?symbol=BTCUSDT&interval=1d&endTime=1000000000000")
    assert rows == []


async def test_delisted_pair_keeps_its_history(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    _, rows = await get(session, calm, "/api/v3/klines?symbol=NKNUSDT&interval=1d&limit=1")
    assert rows[0][0] == 1_751_500_800_000  # 2025-07-03
    assert rows[0][8] > 0


async def test_time_zone_moves_the_days(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    for zone, hour in (("8", 16.0), ("-1:00", 1.0), ("05:45", 18.25)):
        path = f"/api/v3/klines?symbol=BTCUSDT&interval=1d&limit=1&timeZone={zone}"
        _, rows = await get(session, calm, path)
        assert rows[0][0] % DAY_MS == hour * 3_600_000


async def test_answer_in_microseconds(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    path = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1"
    _, rows = await get(session, calm, path, **{"X-MBX-TIME-UNIT": "MICROSECOND"})
    assert rows[0][6] == rows[0][0] + 59_999_999


async def test_outage_has_no_candles_anywhere(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    noon = 1_790_000_000_000 // 3_600_000 * 3_600_000
    # From 40 minutes past the hour until the end of the next one nothing exists.
    calm.hide("BTCUSDT", noon / 1000 + 2400, noon / 1000 + 7200)
    base = f"/api/v3/klines?symbol=BTCUSDT&startTime={noon}"
    _, minutes = await get(session, calm, f"{base}&interval=1m&limit=41")
    assert [(row[0] - noon) // MINUTE_MS for row in minutes] == [*range(40), 120]
    _, hours = await get(session, calm, f"{base}&interval=1h&limit=2")
    assert [row[0] - noon for row in hours] == [0, 7_200_000]
    assert hours[0][6] == noon + 2_400_000 - 1
    assert hours[0][8] == sum(row[8] for row in minutes[:40])


async def test_recorded_rows_are_selected_like_any_others(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    rows = [[t, "1.0", "2.0", "0.5", "1.5", "3.0", t + 59_999, "4.0", 5, "1.0", "1.0", "0"] for t in (60_000, 120_000)]
    calm.serve_rows("OLDUSDT", "1m", rows)
    base = "/api/v3/klines?symbol=OLDUSDT&interval=1m"
    assert await get(session, calm, base) == (200, rows)
    assert await get(session, calm, f"{base}&limit=1") == (200, rows[1:])
    assert await get(session, calm, f"{base}&startTime=60000&limit=1") == (200, rows[:1])
    assert await get(session, calm, f"{base}&startTime=60001&endTime=119999") == (200, [])


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("klines?interval=1m", 400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
        ("klines?symbol=BTCUSDT", 400, -1102,
         "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."),
        ("klines?symbol=btcusdt&interval=1m", 400, -1100, "Illegal characters found in parameter 'symbol'; legal"),
        ("klines?symbol=BTC/USDT&interval=1m", 400, -1100, "Illegal characters found in parameter 'symbol'; legal"),
        ("klines?symbol=BTCUSDT&interval=1m&limit=abc", 400, -1100,
         "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'."),
        ("klines?symbol=NOPEUSDT&interval=1m", 400, -1121, "Invalid symbol."),
        ("klines?symbol=BTCUSDT&interval=1D", 400, -1120, "Invalid interval."),
        ("klines?symbol=BTCUSDT&interval=1mo", 400, -1120, "Invalid interval."),
        ("klines?symbol=BTCUSDT&interval=1m&x=1", 400, -1104,
         "Not all sent parameters were read; read '2' parameter(s) but was sent '3'."),
        ("klines?symbol=BTCUSDT&symbol=BTCUSDT&interval=1m", 400, -1101, "Duplicate values for a parameter detected."),
        ("time?x=1", 400, -1101, "Too many parameters; expected '0' and received '1'."),
        ("exchangeInfo?symbol=NOPEUSDT", 400, -1121, "Invalid symbol."),
        ('exchangeInfo?symbols=["BTCUSDT","NOPEUSDT"]', 400, -1121, "Invalid symbol."),
        ('exchangeInfo?symbols=["BTCUSDT","BTCUSDT"]', 400, -1151, "Symbol is present multiple times"),
        ("exchangeInfo?symbolStatus=SLEEPING", 400, -1122, "Invalid symbolStatus."),
        ("exchangeInfo?symbol=BTCUSDT&symbolStatus=TRADING", 400, -1128, "Combination of optional parameters invalid."),
    ],
)  # fmt: skip
async def test_rest_errors(
    session: aiohttp.ClientSession, calm: BinanceStandIn, path: str, status: int, code: int, message: str
) -> None:
    answered, body = await get(session, calm, f"/api/v3/{path}")
    assert answered == status
    assert list(body) == ["code", "msg"]
    assert body["code"] == code
    assert body["msg"].startswith(message)


async def test_unknown_path_answers_404_with_nothing(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    async with session.get(f"{calm.rest_url}/api/v3/nope") as answer:
        assert (answer.status, await answer.read()) == (404, b"")
        assert "X-MBX-USED-WEIGHT-1M" in answer.headers


# ---- exchangeInfo, time, limits ----------------------------------------------------------------------------------


async def test_exchange_info_lists_trading_and_delisted_pairs(
    session: aiohttp.ClientSession, calm: BinanceStandIn
) -> None:
    _, info = await get(session, calm, "/api/v3/exchangeInfo?showPermissionSets=false")
    assert list(info) == ["timezone", "serverTime", "rateLimits", "exchangeFilters", "symbols"]
    status = {entry["symbol"]: entry["status"] for entry in info["symbols"]}
    assert (status["BTCUSDT"], status["NKNUSDT"]) == ("TRADING", "BREAK")
    entry = info["symbols"][0]
    assert (entry["baseAsset"], entry["quoteAsset"], entry["permissions"], entry["permissionSets"]) == (
        "BTC", "USDT", [], [],
    )  # fmt: skip
    assert entry["filters"][0]["tickSize"] == "0.01000000"
    _, info = await get(session, calm, "/api/v3/exchangeInfo?symbolStatus=BREAK")
    assert [entry["symbol"] for entry in info["symbols"]] == ["NKNUSDT"]


async def test_permission_sets_are_large_unless_declined(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    _, info = await get(session, calm, "/api/v3/exchangeInfo?symbol=BTCUSDT")
    assert len(info["symbols"][0]["permissionSets"][0]) > 200


async def test_status_of_a_pair_can_change(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1m") as socket:
        await next_event(socket)
        binance.set_status("BTCUSDT", "HALT")
        await events(socket, 0.1)
        assert await events(socket, 0.4) == []
    _, info = await get(session, binance, "/api/v3/exchangeInfo?symbol=BTCUSDT")
    assert info["symbols"][0]["status"] == "HALT"


async def test_time_and_date_follow_the_exchanges_clock(session: aiohttp.ClientSession) -> None:
    clock = StagedClock(offset_s=-86_400 * 30)
    async with (
        BinanceStandIn(StagedMarket(1), clock) as binance,
        session.get(f"{binance.rest_url}/api/v3/time") as answer,
    ):
        server_time = (await answer.json())["serverTime"] / 1000
        date = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert abs(server_time - clock.now()) < 1
    assert abs(date - clock.now()) < 2
    assert time.time() - server_time > 86_400 * 29


async def test_weights_then_429_then_418(session: aiohttp.ClientSession) -> None:
    async with BinanceStandIn(StagedMarket(1), StagedClock(), weight_limit=22, ban_after=2) as binance:
        used, statuses, waits = [], [], []
        for path in ("ping", "exchangeInfo", "ping", "ping", "ping", "ping", "ping"):
            async with session.get(f"{binance.rest_url}/api/v3/{path}") as answer:
                used.append(answer.headers["X-MBX-USED-WEIGHT-1M"])
                statuses.append(answer.status)
                if answer.status != 200:
                    assert (await answer.json())["code"] == -1003
                    waits.append(int(answer.headers["Retry-After"]))
    assert used == ["1", "21", "22", "23", "24", "25", "26"]
    assert statuses == [200, 200, 200, 429, 429, 418, 418]
    assert 1 <= waits[0] <= 60
    assert 118 <= waits[-1] <= 120


# ---- faults ------------------------------------------------------------------------------------------------------


async def test_dropped_connections_get_no_close_frame(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        assert calm.faults.drop() == 1
        message = await socket.receive(timeout=20)
        assert message.type in (WSMsgType.CLOSED, WSMsgType.ERROR)
        assert socket.close_code == 1006
    await eventually(lambda: calm.connections == 0)


async def test_orderly_close_with_a_code(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        calm.faults.drop(1012, reason="Service restart")
        message = await socket.receive(timeout=20)
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 1012, "Service restart")


async def test_refused_with_a_status_a_number_of_times(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    calm.faults.refuse(451, times=2)
    for _ in range(2):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{calm.ws_url}/ws")
        assert refused.value.status == 451
    async with session.ws_connect(f"{calm.ws_url}/ws"):
        assert [connect.status for connect in calm.connect_log] == [451, 451, 101]


async def test_not_listening_and_listening_again(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    async with session.ws_connect(f"{calm.ws_url}/ws") as before:
        calm.faults.stop_listening()
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.ws_connect(f"{calm.ws_url}/ws")
        assert (await get(session, calm, "/api/v3/ping"))[0] == 200
        assert (await ask(before, method="LIST_SUBSCRIPTIONS", id=1))["result"] == []
        calm.faults.accept()
        await calm.listening()
        async with session.ws_connect(f"{calm.ws_url}/ws"):
            assert calm.connections == 2


async def test_muted_connection_answers_but_sends_no_data(
    session: aiohttp.ClientSession, binance: BinanceStandIn
) -> None:
    url = f"{binance.ws_url}/stream?streams=btcusdt@kline_1s/ethusdt@kline_1s"
    async with session.ws_connect(url) as socket:
        binance.faults.mute("btcusdt@kline_1s")
        await events(socket, 0.1)
        assert {message["stream"] for message in await events(socket, 0.2)} == {"ethusdt@kline_1s"}
        binance.faults.mute()
        await events(socket, 0.1)
        assert await events(socket, 0.2) == []
        assert "result" in await ask(socket, method="LIST_SUBSCRIPTIONS", id=1)
        binance.faults.unmute()
        assert await events(socket, 0.2)


async def test_mute_that_a_new_subscription_or_connection_ends(
    session: aiohttp.ClientSession, binance: BinanceStandIn
) -> None:
    name = "btcusdt@kline_1s"
    async with session.ws_connect(f"{binance.ws_url}/ws/{name}") as socket:
        for resubscribe_helps in (True, False):
            binance.faults.mute(name, reconnect_helps=True, resubscribe_helps=resubscribe_helps)
            await events(socket, 0.1)
            assert await events(socket, 0.15) == []
            await ask(socket, method="UNSUBSCRIBE", params=[name], id=1)
            await ask(socket, method="SUBSCRIBE", params=[name], id=2)
            assert bool(await events(socket, 0.15)) is resubscribe_helps
        async with session.ws_connect(f"{binance.ws_url}/ws/{name}") as fresh:
            assert await events(fresh, 0.15)
        binance.faults.unmute()
        assert await events(socket, 0.15)


async def test_frozen_connection_does_nothing_at_all(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1s", autoping=False) as socket:
        await next_event(socket)
        binance.faults.freeze()
        await events(socket, 0.1)
        await socket.ping()
        await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 9})
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.2)
        async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1s") as fresh:
            assert await next_event(fresh)
        assert (await get(session, binance, "/api/v3/ping"))[0] == 200
        binance.faults.thaw()
        assert (await socket.receive(timeout=20)).type is WSMsgType.TEXT


async def test_garbage_reaches_the_client_as_it_is(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        assert calm.faults.send_garbage() == len(GARBAGE) == 30
        received = [(await socket.receive(timeout=20)).data for _ in GARBAGE]
    assert received == list(GARBAGE)


async def test_ordered_rest_answers(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    calm.faults.answer_rest(429, '{"code":-1003,"msg":"slow down"}', retry_after=7, times=1)
    calm.faults.answer_rest(503, "<html>busy</html>", content_type="text/html", times=2, path="/api/v3/klines")
    async with session.get(f"{calm.rest_url}/api/v3/ping") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert (await get(session, calm, "/api/v3/ping"))[0] == 200
    for status in (503, 503, 200):
        async with session.get(f"{calm.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1") as answer:
            assert answer.status == status
    assert [call.status for call in calm.requests] == [429, 200, 503, 503, 200]


async def test_truncated_rest_answer(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    calm.faults.answer_rest(200, truncated=True, times=1)
    async with session.get(f"{calm.rest_url}/api/v3/klines?symbol=BTCUSDT&interval=1m") as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_delays(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    calm.faults.delay_rest(0.2)
    started = time.monotonic()
    await get(session, calm, "/api/v3/ping")
    assert time.monotonic() - started >= 0.2
    calm.faults.clear()
    calm.faults.delay_frames(0.2)
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        started = time.monotonic()
        await ask(socket, method="LIST_SUBSCRIPTIONS", id=1)
        assert time.monotonic() - started >= 0.2


async def test_connections_cut_after_a_time(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        calm.faults.cut_after(0.1)
        assert (await socket.receive(timeout=20)).type in (WSMsgType.CLOSED, WSMsgType.ERROR)
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        assert (await socket.receive(timeout=20)).type in (WSMsgType.CLOSED, WSMsgType.ERROR)


async def test_lost_closings(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1m") as socket:
        opens = [(await next_event(socket, final=True))["k"]["t"]]
        binance.faults.lose_closings("btcusdt@kline_1m", times=1)
        opens += [(await next_event(socket, final=True))["k"]["t"] for _ in range(2)]
    # One was on its way already if the machine paused just then.
    gaps = [after - before for before, after in itertools.pairwise(opens)]
    assert sorted(gaps) == [MINUTE_MS, 2 * MINUTE_MS]


async def test_injected_event_revises_a_closed_candle(session: aiohttp.ClientSession, binance: BinanceStandIn) -> None:
    async with session.ws_connect(f"{binance.ws_url}/ws/btcusdt@kline_1m") as socket:
        closed = (await next_event(socket, final=True))["k"]
        binance.faults.mute()
        binance.inject("btcusdt@kline_1m", t=closed["t"], c="1.25000000", E=5)
        while (event := await next_event(socket))["E"] != 5:
            pass
    assert event["k"] == {**closed, "c": "1.25000000"}


async def test_recording_is_played_after_the_subscription(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    calm.faults.mute()
    calm.play_after_subscribe(["one", "two"])
    async with session.ws_connect(f"{calm.ws_url}/ws") as socket:
        await ask(socket, method="SUBSCRIBE", params=["btcusdt@kline_1m"], id=1)
        assert [await socket.receive_str(timeout=20) for _ in range(2)] == ["one", "two"]
        await calm.play(["three"])
        assert await socket.receive_str(timeout=20) == "three"


async def test_clear_ends_every_fault(session: aiohttp.ClientSession, calm: BinanceStandIn) -> None:
    faults = calm.faults
    faults.refuse(503)
    faults.mute()
    faults.freeze()
    faults.answer_rest(500)
    faults.lose_closings()
    faults.delay_rest(5)
    faults.stop_listening(rest=True)
    faults.clear()
    await calm.listening()
    assert (await get(session, calm, "/api/v3/ping")) == (200, {})
    async with session.ws_connect(f"{calm.ws_url}/ws/btcusdt@kline_1s") as socket:
        assert await next_event(socket, final=True)
