"""The facade for programs that trade USD-M futures: what differs from spot, of rows, lists, refusals and streams."""

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest

from providers.sandbox.contracts import deliveries
from tests.conftest import StartRelay
from tests.integration.test_facade_differential import compared
from tests.integration.test_facade_streams import Connect, VenueClient, closes, connect
from tests.support.binance_oracle import BinanceOracle
from tests.support.running_relay import Answer, Running
from tests.support.sandbox import Sandbox

__all__ = ["connect"]

TOKEN = "a-token-of-this-test-0123456789"
MINUTE_MS = 60_000
BTC = "btcusdt@kline_1m"
NKN_GONE_MS = 1_751_616_000_000
QUARTERS_AGO_MS = 1_700_000_000_000


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """The stand-ins with that for futures, whose candles of contracts are none of spot's."""
    async with Sandbox(pace_s=0.5, futures=True) as running:
        yield running


def start_of(sandbox: Sandbox, minutes: int = 400) -> int:
    return (sandbox.futures.now_ms() // MINUTE_MS - minutes) * MINUTE_MS


async def klines(relay: Running, before: str = "", **query: Any) -> Answer:
    return await relay.get(f"{before}/fapi/v1/klines", **{"symbol": "BTCUSDT", "interval": "1m", **query})


def refusal(answer: Answer) -> tuple[int, int]:
    return answer.status, answer.body["code"]


# -- REST --------------------------------------------------------------------------------------------------------------


async def test_rows_are_those_of_the_contract_as_text(sandbox: Sandbox, relay: Running) -> None:
    start, futures = start_of(sandbox), sandbox.futures
    quarter = f"BTCUSDT_{next(deliveries(sandbox.today)):%y%m%d}"
    for symbol in ("BTCUSDT", quarter, "1000PEPEUSDT"):
        truth = futures.rest.klines(futures.market.pair(symbol), "1m", start, None, 20)
        # From the provider, then from memory.
        for _ in range(2):
            answer = await klines(relay, symbol=symbol, startTime=start, limit=20)
            assert answer.text == orjson.dumps(truth).decode()
    spot = await relay.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", startTime=start, limit=20)
    assert spot.body[0][1] != (await klines(relay, startTime=start, limit=20)).body[0][1]
    assert {call.path for call in sandbox.binance.requests} <= {"/api/v3/exchangeInfo", "/api/v3/klines"}


async def test_rows_are_500_unless_told_and_more_than_1500_are_refused(sandbox: Sandbox, relay: Running) -> None:
    start = start_of(sandbox, 2000)
    lengths = [len((await klines(relay, startTime=start, limit=limit)).body) for limit in (500, 1500)]
    assert len((await klines(relay, startTime=start)).body) == 500
    assert lengths == [500, 1500]
    answer = await klines(relay, limit=1501)
    assert refusal(answer) == (400, -1130)
    assert answer.body["msg"] == "Data sent for parameter 'limit' is not valid."


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"symbol": "NOPE"}, -1121),
        ({"symbol": "LRCBTC"}, -1121),
        ({"interval": "1s"}, -1120),
        ({"interval": "45m"}, -1120),
        ({"limit": "x"}, -1100),
        ({"timeZone": "8"}, -1104),
    ],
)
async def test_what_there_is_not_of_futures_is_refused(relay: Running, query: dict[str, str], code: int) -> None:
    assert refusal(await klines(relay, **query)) == (400, code)


LENGTHS = {"1m": MINUTE_MS, "5m": 5 * MINUTE_MS, "1h": 60 * MINUTE_MS, "8h": 480 * MINUTE_MS, "1d": 1440 * MINUTE_MS}


def some_query(dice: random.Random, quarter: str, now_ms: int) -> str:
    """Return a request for klines; some make no sense."""
    interval = dice.choice([*LENGTHS])
    length = LENGTHS[interval]
    symbol = dice.choice(["BTCUSDT", "btcusdt", "NKNUSDT", quarter, "币安人生USDT", "NOPEUSDT", "A B", "LRCBTC"])
    near = dice.choice([now_ms - 40 * length, now_ms + 9 * length, NKN_GONE_MS - 3 * length, QUARTERS_AGO_MS])
    asked = {"symbol": symbol, "interval": dice.choice([interval] * 9 + ["1s", "7m", ""])}
    if dice.random() < 0.6:
        asked["startTime"] = str(near + dice.choice([0, 1, -1, length // 2]))
    if dice.random() < 0.4:
        asked["endTime"] = str(near + dice.choice([0, length, 17 * length - 1]))
    if dice.random() < 0.7 or length > MINUTE_MS:
        asked["limit"] = dice.choice(["1", "2", "99", "100", "0", "1501", "-1", "x", "007"])
    if dice.random() < 0.1:
        asked[dice.choice(["timeZone", "recvWindow"])] = "0"
    return "/fapi/v1/klines?" + "&".join(f"{name}={quote(text)}" for name, text in asked.items())


async def test_relay_and_exchange_answer_the_same(sandbox: Sandbox, relay: Running) -> None:
    dice, oracle = random.Random(21), BinanceOracle(sandbox, futures=True)
    quarter = f"BTCUSDT_{next(deliveries(sandbox.today)):%y%m%d}"
    paths = [some_query(dice, quarter, sandbox.futures.now_ms()) for _ in range(400)]
    both = [await compared(relay, oracle, sandbox, path) for path in paths]
    differing = [found for _, found in both if found is not None]
    assert not differing, f"{len(differing)} of {len(paths)}:\n" + "\n".join(differing[:12])
    answered = [status for status, _ in both[:100]]
    assert 20 < answered.count(200) < 80


async def test_lower_case_is_the_same_contract(sandbox: Sandbox, relay: Running) -> None:
    start = start_of(sandbox)
    one, other = [await klines(relay, symbol=name, startTime=start, limit=3) for name in ("btcusdt", "BTCUSDT")]
    assert (one.status, one.text) == (200, other.text)


async def test_the_list_has_all_that_the_exchange_says_of_contracts(sandbox: Sandbox, relay: Running) -> None:
    answer = await relay.get("/fapi/v1/exchangeInfo")
    async with aiohttp.ClientSession() as session:
        given = await (await session.get(f"{sandbox.futures.rest_url}/fapi/v1/exchangeInfo")).json()
    assert sorted(answer.body["symbols"], key=str) == sorted(given["symbols"], key=str)
    assert (answer.body["futuresType"], answer.body["rateLimits"]) == ("U_MARGINED", given["rateLimits"][:1])
    one = await relay.get("/fapi/v1/exchangeInfo?symbol=ETHUSDT")
    assert [entry["symbol"] for entry in one.body["symbols"]] == ["ETHUSDT"]
    assert {"LRCBTC", "NKNUSDT"} <= {
        entry["symbol"] for entry in (await relay.get("/api/v3/exchangeInfo")).body["symbols"]
    }
    assert (await relay.get("/dapi/v1/exchangeInfo")).body["symbols"] == []


async def test_the_weight_is_that_of_futures(sandbox: Sandbox, relay: Running) -> None:
    for _ in range(3):
        await klines(relay, startTime=start_of(sandbox), limit=1500)
    used = int((await relay.get("/fapi/v1/ping")).headers["X-MBX-USED-WEIGHT-1M"])
    assert used == sandbox.futures.rest.weight_used
    refused = await klines(relay, limit=1501)
    assert refused.headers["X-MBX-USED-WEIGHT-1M"] == str(used)
    assert abs((await relay.get("/fapi/v1/time")).body["serverTime"] - sandbox.futures.now_ms()) < 2500


@pytest.mark.parametrize(
    "call",
    ["ticker/24hr?symbol=BTCUSDT", "ticker/price", "ticker/bookTicker?symbol=btcusdt", "depth?symbol=BTCUSDT&limit=5",
     "trades?symbol=BTCUSDT&limit=3", "aggTrades?symbol=BTCUSDT&limit=3"],
)  # fmt: skip
async def test_what_only_the_exchange_can_say_is_asked_there(sandbox: Sandbox, relay: Running, call: str) -> None:
    answers = [await relay.get(f"/fapi/v1/{call}") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].text == answers[1].text
    name = call.partition("?")[0]
    assert [request.path for request in sandbox.futures.requests].count(f"/fapi/v1/{name}") == 1


async def test_what_futures_do_not_have_is_not_there(relay: Running) -> None:
    for path in ("/fapi/v1/avgPrice?symbol=BTCUSDT", "/fapi/v1/ticker?symbol=BTCUSDT", "/fapi/v1/uiKlines"):
        assert (await relay.get(path)).status == 404
    assert refusal(await relay.get("/fapi/v1/ticker/24hr?symbols=[]")) == (400, -1104)
    refused = await relay.get("/fapi/v1/depth?symbol=BTCUSDT&limit=7")
    assert (refused.status, refused.body["code"]) == (400, -4021)


async def test_during_a_ban_known_rows_are_served_and_the_rest_is_429(sandbox: Sandbox, relay: Running) -> None:
    start = start_of(sandbox)
    known = await klines(relay, startTime=start, limit=10)
    sandbox.futures.rest.banned_until_ms = sandbox.futures.now_ms() + 300_000
    other = await klines(relay, symbol="ETHUSDT", startTime=start, limit=10)
    assert refusal(other) == (429, -1003)
    assert 200 < int(other.headers["Retry-After"]) <= 300
    assert (await klines(relay, startTime=start, limit=10)).text == known.text


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/market/ws", "/market/ws/0", "/market/stream", f"/market/ws/{BTC}"])
async def test_events_are_those_of_the_contract(sandbox: Sandbox, relay: Running, connect: Connect, path: str) -> None:
    client = await connect(relay.url, path)
    assert await client.ask("SUBSCRIBE", BTC) == {"result": None, "id": 1}
    message = await client.event(lambda kline: kline["x"])
    assert ("stream" in message) == path.endswith("/stream")
    kline = message.get("data", message)["k"]
    (row,) = sandbox.futures.rest.klines(sandbox.futures.market.pair("BTCUSDT"), "1m", kline["t"], None, 1)
    assert [kline[letter] for letter in "tohlcvTqnVQB"] == [*row]
    assert await client.ask("LIST_SUBSCRIPTIONS", identity=2) == {"result": [BTC], "id": 2}
    assert sandbox.binance.connects == 0


async def test_streams_that_the_relay_does_not_have_are_refused(relay: Running, connect: Connect) -> None:
    client = await connect(relay.url, "/market/ws")
    for name in ("btcusdt@aggTrade", "btcusdt@markPrice@1s", "btcusdt_perpetual@continuousKline_1m"):
        answer = await client.ask("SUBSCRIBE", name)
        assert "this relay has klines in UTC only" in answer["error"]["msg"], name
    assert await client.ask("SUBSCRIBE", "nopeusdt@kline_1m", "btcusdt@kline_1s") == {"result": None, "id": 1}


async def test_a_token_goes_into_the_path(sandbox: Sandbox, relay_with: StartRelay, connect: Connect) -> None:
    relay = await relay_with(tokens=(TOKEN,))
    assert (await klines(relay, limit=2)).status == 401
    assert (await klines(relay, f"/t/{TOKEN}", limit=2)).status == 200
    client = await connect(relay.url, f"/t/{TOKEN}/market/stream?streams={BTC}")
    assert (await client.event())["stream"] == BTC


async def test_an_outage_takes_no_close(sandbox: Sandbox, relay: Running, connect: Connect) -> None:
    futures = sandbox.futures
    client: VenueClient = await connect(relay.url, f"/market/ws/{BTC}")
    await client.event(lambda kline: kline["x"])
    first = closes(client)[0]
    futures.faults.refuse(503, seconds=200)
    futures.faults.drop()
    while not closes(client)[-1] >= first + 6 * MINUTE_MS:
        with suppress(TimeoutError):
            # It answers pings while it waits.
            await client.next()
    assert closes(client) == [*range(first, closes(client)[-1] + 1, MINUTE_MS)]
    rows = futures.rest.klines(futures.market.pair("BTCUSDT"), "1m", first, None, len(closes(client)))
    told = [message["k"] for message in client.received if message.get("e") == "kline" and message["k"]["x"]]
    assert [[kline[letter] for letter in "tohlcv"] for kline in told] == [[*row[:6]] for row in rows]


async def test_the_relay_itself_names_both_markets(sandbox: Sandbox, relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", "binance_usdm:BTCUSDT@1m")
    prices: dict[str, float] = {}
    while len(prices) < 2:
        update = await client.update()
        prices[update["symbol"]] = update["candle"]["close"]
    assert prices.keys() == {"BTCUSDT", "binance_usdm:BTCUSDT"}
    assert prices["BTCUSDT"] != prices["binance_usdm:BTCUSDT"]
    assert (sandbox.binance.subscribed, sandbox.futures.subscribed) == ([BTC], [BTC])
    rows = (await relay.get("instruments", asset_class="future")).body
    # The one of today may be delivered already.
    quarter = next(deliveries(sandbox.today + timedelta(days=1)))
    (dated,) = [row for row in rows if row["id"] == f"binance_usdm:BTCUSDT_{quarter:%y%m%d}"]
    assert (dated["status"], dated["expires_at"] % 86_400) == ("trading", 8 * 3600)
    assert {row["provider"] for row in rows} == {"binance_usdm"}
