"""The stand-in for USD-M futures keeps the rules of the real ones, where they differ from spot."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from providers.sandbox.contracts import deliveries
from tests.support.conditions import eventually
from tests.support.sandbox import BinanceUsdmStandIn, StagedClock, StagedContractMarket

Json = Any
MINUTE_MS = 60_000
TODAY = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
async def binance() -> AsyncIterator[BinanceUsdmStandIn]:
    """Sixty times faster than life: a minute candle each second."""
    clock = StagedClock(speed=60, offset_s=TODAY.timestamp() - time.time())
    market = StagedContractMarket(today=TODAY.date())
    async with BinanceUsdmStandIn(market, clock, pace_s=0.1, messages_per_second=None) as stand_in:
        yield stand_in


async def get(session: aiohttp.ClientSession, stand_in: BinanceUsdmStandIn, path: str) -> tuple[int, Json]:
    async with session.get(stand_in.rest_url + path) as answer:
        raw = await answer.read()
        return answer.status, orjson.loads(raw) if raw else None


async def event(socket: aiohttp.ClientWebSocketResponse) -> Json:
    while True:
        message = await socket.receive_json(timeout=20)
        if "k" in message.get("data", message):
            return message


async def test_events_of_contracts_have_the_decimals_that_they_need(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn
) -> None:
    url = f"{binance.ws_url}/market/stream?streams=btcusdt_261225@kline_1m"
    async with session.ws_connect(url) as socket:
        message = await event(socket)
    assert message["stream"] == "btcusdt_261225@kline_1m"
    kline = message["data"]["k"]
    assert list(kline) == list("tTsifLochlvnxqVQB")
    assert (kline["s"], kline["B"]) == ("BTCUSDT_261225", "0")
    assert {letter: len(kline[letter].partition(".")[2]) for letter in "ovqQ"} == {"o": 1, "v": 3, "q": 4, "Q": 4}


async def test_continuous_klines_name_pair_and_kind(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/market/ws/btcusdt_current_quarter@continuousKline_1m") as socket:
        message = await event(socket)
    assert (message["e"], message["ps"], message["ct"]) == ("continuous_kline", "BTCUSDT", "CURRENT_QUARTER")
    assert "s" not in message["k"]


@pytest.mark.parametrize("path", ["/ws", "/stream", "/public/ws", "/public/stream", "/private/ws"])
async def test_paths_without_klines_open_and_answer_and_have_none(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn, path: str
) -> None:
    async with (
        session.ws_connect(binance.ws_url + path) as dead,
        session.ws_connect(f"{binance.ws_url}/market/ws") as live,
    ):
        for socket in (dead, live):
            await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 1})
            assert await socket.receive_json(timeout=20) == {"result": None, "id": 1}
        for _ in range(5):
            await event(live)
        await dead.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert await dead.receive_json(timeout=20) == {"result": ["btcusdt@kline_1m"], "id": 2}


async def test_whatever_is_subscribed_to_is_confirmed(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn
) -> None:
    names = ["nopeusdt@kline_1m", "BTCUSDT@kline_1m", "btcusdt@nothing", "btcusdt@kline_1s"]
    async with session.ws_connect(f"{binance.ws_url}/market/ws") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": names, "id": 1})
        assert await socket.receive_json(timeout=20) == {"result": None, "id": 1}
        await socket.send_json({"method": "SUBSCRIBE", "params": ["ethusdt@kline_1m"], "id": 2})
        assert {(await event(socket))["s"] for _ in range(4)} == {"ETHUSDT"}


async def test_one_stream_too_many_ends_the_connection(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn
) -> None:
    async with session.ws_connect(f"{binance.ws_url}/market/ws") as socket:
        for at in range(0, 1025, 205):
            params = [f"s{number}@kline_1m" for number in range(at, at + 205)]
            await socket.send_json({"method": "SUBSCRIBE", "params": params, "id": at})
            answer = await socket.receive_json(timeout=20)
        assert answer == {"error": {"code": 4, "msg": "Too many subscriptions"}}
        assert (await socket.receive(timeout=20)).type is WSMsgType.CLOSE
        assert socket.close_code == 1008


async def test_every_candle_closes_and_rest_agrees(session: aiohttp.ClientSession, binance: BinanceUsdmStandIn) -> None:
    closed: list[Json] = []
    async with session.ws_connect(f"{binance.ws_url}/market/ws/ethusdt@kline_1m") as socket:
        while len(closed) < 4:
            message = await event(socket)
            closed += [message["k"]] if message["k"]["x"] else []
    assert [kline["t"] for kline in closed] == [closed[0]["t"] + MINUTE_MS * place for place in range(4)]
    path = f"/fapi/v1/klines?symbol=ETHUSDT&interval=1m&startTime={closed[0]['t']}&limit=4"
    _, rows = await get(session, binance, path)
    assert [[row[0], *row[1:6], row[6], row[7], row[8]] for row in rows] == [
        [kline["t"], *(kline[letter] for letter in "ohlcv"), kline["T"], kline["q"], kline["n"]] for kline in closed
    ]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/fapi/v1/klines?symbol=NOPE&interval=1m", 400, -1121),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=1s", 400, -1120),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1501", 400, -1130),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=0", 400, -1130),
        ("/fapi/v1/klines?symbol=BTCUSDT", 400, -1102),
        ("/fapi/v1/depth?symbol=BTCUSDT&limit=7", 400, -4021),
        ("/fapi/v1/ticker/price?symbol=NOPE", 400, -1121),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m", 404, None),
    ],
)
async def test_rest_errors(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn, path: str, status: int, code: int | None
) -> None:
    answer = await get(session, binance, path)
    assert (answer[0], answer[1] and answer[1]["code"]) == (status, code)


async def test_klines_are_500_unless_told_and_1500_at_most(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn
) -> None:
    lengths = []
    for more in ("", "&limit=99", "&limit=1500"):
        _, rows = await get(session, binance, f"/fapi/v1/klines?symbol=btcusdt&interval=1h{more}")
        lengths.append(len(rows))
    assert lengths == [500, 99, 1500]
    assert binance.rest.weight_used == 5 + 1 + 10


async def test_the_list_says_what_kind_a_contract_is(
    session: aiohttp.ClientSession, binance: BinanceUsdmStandIn
) -> None:
    _, body = await get(session, binance, "/fapi/v1/exchangeInfo")
    named = {entry["symbol"]: entry for entry in body["symbols"]}
    assert body["futuresType"] == "U_MARGINED"
    kinds = {
        symbol: (named[symbol]["contractType"], named[symbol]["pair"], named[symbol]["status"]) for symbol in named
    }
    assert kinds["BTCUSDT"] == ("PERPETUAL", "BTCUSDT", "TRADING")
    assert kinds["BTCUSDT_261225"] == ("CURRENT_QUARTER", "BTCUSDT", "TRADING")
    assert kinds["ETHUSDT_270326"] == ("NEXT_QUARTER", "ETHUSDT", "TRADING")
    assert kinds["NKNUSDT"] == ("PERPETUAL", "NKNUSDT", "SETTLING")
    assert named["BTCUSDT"]["deliveryDate"] == 4_133_404_800_000
    _, tickers = await get(session, binance, "/fapi/v1/ticker/price")
    assert {one["symbol"] for one in tickers} == named.keys() - {"NKNUSDT"}


async def test_limits_are_told_in_the_words_of_futures(session: aiohttp.ClientSession) -> None:
    market = StagedContractMarket(today=TODAY.date())
    async with BinanceUsdmStandIn(market, StagedClock(), weight_limit=3, ban_after=1) as stand_in:
        answers = [await get(session, stand_in, "/fapi/v1/ping") for _ in range(5)]
        assert [status for status, _ in answers] == [200, 200, 200, 429, 418]
        assert "is 3 requests per minute" in answers[3][1]["msg"]
        assert f"banned until {stand_in.rest.banned_until_ms}" in answers[4][1]["msg"]


def test_contracts_are_delivered_on_the_last_friday_of_a_quarter() -> None:
    coming = deliveries(TODAY.date())
    assert [next(coming) for _ in range(3)] == [date(2026, 12, 25), date(2027, 3, 26), date(2027, 6, 25)]
    assert next(deliveries(date(2026, 12, 25))) == date(2026, 12, 25)
    assert next(deliveries(date(2026, 12, 26))) == date(2027, 3, 26)


async def test_a_client_that_answers_no_ping_is_sent_away(session: aiohttp.ClientSession) -> None:
    market = StagedContractMarket(today=TODAY.date())
    async with BinanceUsdmStandIn(market, StagedClock()) as stand_in:
        async with session.ws_connect(f"{stand_in.ws_url}/market/ws", autoping=False):
            began = time.monotonic()
            await eventually(lambda: not stand_in.connections, 2000)
        assert 700 < time.monotonic() - began < 800
