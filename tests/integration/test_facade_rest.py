"""The REST side of the facade for Binance's programs: rows, lists, refusals, tokens and limits."""

import logging
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay.app import STORE, RelayLimits
from relay.config.settings import FACADE_NAMES
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.web.facades.catalogue import FACADE_TYPES
from relay.web.facades.facade import FACADES, FacadeTiming
from tests.conftest import StartRelay
from tests.support.binance_oracle import BinanceOracle
from tests.support.conditions import eventually
from tests.support.running_relay import Answer, Running
from tests.support.sandbox import Sandbox

KLINES: dict[str, list[list[Any]]] = orjson.loads(
    (Path(__file__).parents[1] / "data" / "binance" / "klines.json").read_bytes()
)
START_MS = 1_700_000_040_000 // 60_000 * 60_000
TOKEN = "a-token-of-this-test-0123456789"


def kline_calls(sandbox: Sandbox) -> int:
    return sum(call.path == "/api/v3/klines" for call in sandbox.binance.requests)


async def klines(relay: Running, before: str = "", **query: Any) -> Answer:
    asked: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", **query}
    return await relay.get(f"{before}/api/v3/klines", **asked)


def refusal(answer: Answer) -> tuple[int, int]:
    assert set(answer.body) == {"code", "msg"}
    assert answer.headers["Content-Type"] == "application/json;charset=UTF-8"
    return answer.status, answer.body["code"]


# -- rows --------------------------------------------------------------------------------------------------------------


async def test_every_recorded_row_comes_out_with_all_twelve_columns_as_text(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    sandbox.binance.add_symbols({name.partition("@")[0] for name in KLINES})
    relay = await relay_with()
    for name, rows in KLINES.items():
        symbol, interval = name.split("@")
        sandbox.binance.serve_rows(symbol, interval, rows)
        for row in rows:
            # From the provider, from the store, from memory.
            for _ in range(3):
                at = {"startTime": row[0], "endTime": row[0]}
                answer = await klines(relay, symbol=symbol, interval=interval, **at)
                assert answer.text == orjson.dumps([row]).decode()


async def test_a_kline_that_an_outage_cut_short_keeps_its_close_time_and_the_ignored_field(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    opened = 1_679_659_200_000
    rows = [
        [opened - 3_600_000, "2.00000000", "2.00000000", "2.00000000", "2.00000000", "1.00000000", opened - 1,
         "2.00000000", 1, "0.00000000", "0.00000000", "17928899.62484339"],
        [opened, "2.00000000", "2.00000000", "2.00000000", "2.00000000", "0.00000000", opened + 2_381_646, "0.00000000",
         0, "0.00000000", "0.00000000", "0"],
    ]  # fmt: skip
    sandbox.binance.serve_rows("BTCUSDT", "1h", rows)
    relay = await relay_with()
    for _ in range(3):
        assert (await klines(relay, interval="1h", endTime=opened)).body == rows


async def test_what_was_stored_without_texts_is_fetched_once_more_and_never_made_up(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    relay = await relay_with()
    start = START_MS // 1000
    bare = [Candle(start + 60 * n, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(3)]
    await relay.app[STORE].add("binance", StreamKey("BTCUSDT", "1m"), bare, Span(start, start + 180))
    sandbox.binance.faults.answer_rest(503)
    answer = await klines(relay, startTime=START_MS, limit=3)
    assert refusal(answer) == (503, -1001)
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "asked",
    [
        f"klines?symbol=BTCUSDT&interval=1m&startTime={START_MS}&limit=3",
        "trades?symbol=BTCUSDT&limit=3",
        'exchangeInfo?permissions=["SPOT","TRD_GRP_005"]',
    ],
    ids=["klines", "passed on", "list"],
)
async def test_a_program_hears_in_time_that_the_exchange_is_slow_and_has_the_answer_later(
    sandbox: Sandbox, relay_with: StartRelay, asked: str
) -> None:
    relay = await relay_with(limits=RelayLimits(facades=FacadeTiming(answer_s=0.5)))
    await relay.get("/api/v3/exchangeInfo")
    sandbox.binance.faults.delay_rest(3.0)
    before = len(sandbox.binance.requests)
    assert refusal(await relay.get(f"/api/v3/{asked}")) == (504, -1007)
    answers = [await relay.get(f"/api/v3/{asked}")]
    while answers[-1].status != 200:
        assert refusal(answers[-1]) == (504, -1007)
        answers.append(await relay.get(f"/api/v3/{asked}"))
    # The call that was given up by one was waited for by the next.
    assert len(sandbox.binance.requests) - before == 1


async def test_times_in_microseconds_are_taken_and_given(relay: Running, sandbox: Sandbox) -> None:
    path = f"/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={START_MS * 1000}&limit=2"
    header = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    answer = await relay.get(path, headers=header)
    assert answer.body == BinanceOracle(sandbox).ask(path, X_MBX_TIME_UNIT="MICROSECOND").body
    assert answer.body[0][0] == START_MS * 1000
    assert (await relay.get(path)).body[0][0] == START_MS


@pytest.mark.parametrize(
    "path",
    ["time", "exchangeInfo?symbol=BTCUSDT", "exchangeInfo?symbol=BTCUSDT&showPermissionSets=true",
     "ticker/24hr?symbol=BTCUSDT", "avgPrice?symbol=BTCUSDT", "trades?symbol=BTCUSDT&limit=1"],
)  # fmt: skip
async def test_who_asks_for_microseconds_gets_no_milliseconds(relay: Running, path: str) -> None:
    header = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    plain, micro = (await relay.get(f"/api/v3/{path}")).text, (await relay.get(f"/api/v3/{path}", headers=header)).text

    def times(text: str) -> list[int]:
        return [*map(int, re.findall(r'"(?:time|serverTime|openTime|closeTime)":(\d+)', text))]

    assert len(times(micro)) == len(times(plain)) > 0
    for one, other in zip(times(plain), times(micro), strict=True):
        assert abs(one - other / 1000) < 60_000


async def test_a_head_request_is_answered_as_a_get_without_a_body(relay: Running) -> None:
    path = f"/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={START_MS}&limit=3"
    given, head = await relay.get(path), await relay.get(path, method="HEAD")
    assert (head.status, head.text) == (200, "")
    assert head.headers["Content-Length"] == str(len(given.text))
    assert head.headers["X-MBX-USED-WEIGHT-1M"]


async def test_klines_of_another_time_zone_are_passed_on(relay: Running, sandbox: Sandbox) -> None:
    query: dict[str, Any] = {"interval": "1d", "timeZone": "8", "endTime": START_MS, "limit": 3}
    asked = kline_calls(sandbox)
    answers = [await klines(relay, **query) for _ in range(3)]
    truth = BinanceOracle(sandbox).ask(
        f"/api/v3/klines?symbol=BTCUSDT&interval=1d&timeZone=8&endTime={START_MS}&limit=3"
    )
    assert [answer.body for answer in answers] == [truth.body] * 3
    assert answers[0].body[0][0] % 86_400_000 == 16 * 3_600_000
    assert kline_calls(sandbox) == asked + 1


async def test_the_newest_klines_of_a_pair_that_was_delisted_take_a_few_requests(
    sandbox: Sandbox, relay: Running
) -> None:
    # A year and a half before its end some are known.
    await klines(relay, symbol="NKNUSDT", startTime=1_704_067_200_000, limit=10)
    asked = kline_calls(sandbox)
    answer = await klines(relay, symbol="NKNUSDT", limit=500)
    truth = BinanceOracle(sandbox).ask("/api/v3/klines?symbol=NKNUSDT&interval=1m&limit=500")
    assert (answer.status, answer.body) == (200, truth.body)
    # More of them the longer ago its end is: each one reaches twice as far.
    assert kline_calls(sandbox) - asked <= 30


async def test_an_interval_that_the_relay_makes_itself_and_another_providers_symbol_are_unknown(relay: Running) -> None:
    assert refusal(await klines(relay, interval="10m")) == (400, -1120)
    for symbol in ("EURUSD", "EUR.USD", "NOPEUSDT"):
        assert refusal(await klines(relay, symbol=symbol)) == (400, -1121)


# -- what cannot be had ------------------------------------------------------------------------------------------------


async def test_during_a_ban_known_klines_are_served_and_the_rest_is_429(sandbox: Sandbox, relay: Running) -> None:
    query: dict[str, Any] = {"startTime": START_MS, "limit": 10}
    known = await klines(relay, **query)
    sandbox.binance.faults.answer_rest(418, retry_after=77)
    unknown = await klines(relay, symbol="ETHUSDT", **query)
    assert refusal(unknown) == (429, -1003)
    assert 60 < int(unknown.headers["Retry-After"]) <= 77
    assert "X-MBX-USED-WEIGHT-1M" in unknown.headers
    assert (await klines(relay, **query)).text == known.text
    banned = await klines(relay)
    assert refusal(banned) == (429, -1003)


async def test_an_exchange_that_cannot_be_reached_is_an_error_and_no_empty_answer(
    sandbox: Sandbox, relay: Running
) -> None:
    sandbox.binance.faults.answer_rest(500)
    answer = await klines(relay)
    assert refusal(answer) == (503, -1001)


# -- lists -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "symbol=ETHUSDT",
        'symbols=["BTCUSDT","NKNUSDT"]',
        "symbolStatus=BREAK",
        "permissions=MARGIN",
        "showPermissionSets=true&symbol=BTCUSDT",
        'permissions=["SPOT","TRD_GRP_005"]',
        "",
    ],
)
async def test_exchange_info_has_all_that_the_exchange_gave(sandbox: Sandbox, relay: Running, query: str) -> None:
    path = f"/api/v3/exchangeInfo?{query}"
    given = (await relay.get(path)).body
    is_plain = "showPermissionSets" not in query and "TRD" not in query
    truth: Any = BinanceOracle(sandbox).ask(path + "&showPermissionSets=false" if is_plain else path).body
    assert given["symbols"] == truth["symbols"]
    assert given["symbols"]
    assert given.keys() == truth.keys()
    assert given["rateLimits"][0] == truth["rateLimits"][0] | {"limit": 6000}


@pytest.mark.parametrize(
    "query",
    ["symbol=NOPEUSDT", "symbol=btcusdt", "symbols=BTCUSDT", 'symbols=["BTCUSDT","NOPE"]', "symbolStatus=OPEN",
     'symbols=["BTCUSDT","BTCUSDT"]', "symbol=BTCUSDT&symbols=[]", "symbol=BTCUSDT&symbolStatus=TRADING", "x=1",
     "showPermissionSets=maybe", "symbol=BTCUSDT&symbol=BTCUSDT"],
)  # fmt: skip
async def test_exchange_info_refuses_as_the_exchange_does(sandbox: Sandbox, relay: Running, query: str) -> None:
    path = f"/api/v3/exchangeInfo?{query}"
    answer, truth = await relay.get(path), BinanceOracle(sandbox).ask(path)
    assert (answer.status, answer.body) == (truth.status, truth.body)
    assert answer.status == 400


async def test_markets_that_the_relay_does_not_have_list_nothing(relay: Running) -> None:
    for path in ("/fapi/v1/exchangeInfo", "/dapi/v1/exchangeInfo"):
        answer = await relay.get(path)
        assert (answer.status, answer.body["symbols"]) == (200, [])
    assert refusal(await relay.get("/fapi/v1/klines", symbol="BTCUSDT", interval="1m")) == (400, -1121)


async def test_ping_and_time(sandbox: Sandbox, relay: Running) -> None:
    assert (await relay.get("/api/v3/ping")).body == {}
    told = (await relay.get("/api/v3/time")).body["serverTime"]
    assert abs(told - sandbox.binance.now_ms()) < 2500
    assert (await relay.get("/fapi/v1/time")).status == 200
    for path in ("/api/v3/ping?x=1", "/api/v3/time?a=1&b=2"):
        answer, truth = await relay.get(path), BinanceOracle(sandbox).ask(path)
        assert (answer.status, answer.body) == (truth.status, truth.body)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sapi/v1/asset/tradeFee?timestamp=1&signature=abc"),
        ("GET", "/sapi/v1/system/status"),
        ("GET", "/api/v3/account"),
        ("GET", "/api/v3/openOrders?symbol=BTCUSDT"),
        ("POST", "/api/v3/order"),
        ("POST", "/api/v3/userDataStream"),
        ("DELETE", "/fapi/v1/order"),
        ("GET", "/fapi/v2/positionRisk"),
        ("GET", "/api/v3/klines?symbol=BTCUSDT&interval=1m&signature=abc"),
        ("GET", "/api/v3/klines?symbol=BTCUSDT&interval=1m&%73ignature=abc&signature="),
        ("HEAD", "/api/v3/%61ccount"),
        ("GET", "/api/v3/depth?symbol=BTCUSDT&timestamp=1&signature=abc"),
        ("GET", "/api/v3/nope?signature=abc"),
        ("GET", "/ws/pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1"),
        ("GET", "/t/any/market/ws/pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1"),
        ("GET", "/stream?streams=btcusdt@kline_1m&signature=abc"),
        ("POST", "/api/v3/ping"),
        ("GET", "/t/any/api/v3/order"),
    ],
)
async def test_nothing_signed_and_no_account_passes(sandbox: Sandbox, relay: Running, method: str, path: str) -> None:
    await relay.get("/api/v3/exchangeInfo")
    before = len(sandbox.binance.requests)
    answer = await relay.get(path, method=method, headers={"X-MBX-APIKEY": "key-of-a-client"})
    if method == "HEAD":
        assert (answer.status, answer.text) == (403, "")
    else:
        assert refusal(answer) == (403, -1002)
        assert "market data only" in answer.body["msg"]
    assert len(sandbox.binance.requests) == before


async def test_an_unknown_path_is_answered_without_a_word(relay: Running) -> None:
    for path in ("/api/v3/nope", "/fapi/v1/nope", "/api/v3/klines/x", "/t/any/api/v3/nope", "/api/v3"):
        answer = await relay.get(path)
        assert (answer.status, answer.text) == (404, "")


async def test_keys_signatures_and_tokens_are_neither_passed_on_nor_logged(
    sandbox: Sandbox, relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    relay = await relay_with(tokens=(TOKEN,))
    secrets = {"X-MBX-APIKEY": "key-of-a-client"}
    for path in (
        "klines?symbol=ETHUSDT&interval=1h",
        "order?signature=sig-of-a-client",
        "nope",
        "klines?symbol=",
        "x/y",
    ):
        for root in (f"/t/{TOKEN}/api/v3/", f"/t/{TOKEN}/sapi/v1/", f"/t/{TOKEN}/"):
            answer = await relay.get(root + path, headers=secrets)
            assert TOKEN not in answer.text
    assert (await relay.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).text.count(TOKEN) == 0
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert not re.search(f"{TOKEN}|key-of-a-client|sig-of-a-client", logged)
    assert all("key-of-a-client" not in str(call) for call in sandbox.binance.requests)


async def test_the_token_is_in_the_path(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=(TOKEN,))
    query: dict[str, Any] = {"startTime": START_MS, "limit": 2}
    assert (await klines(relay, f"/t/{TOKEN}", **query)).status == 200
    for before in ("", "/t/wrong", f"/t/{TOKEN}x", "/t/"):
        answer = await klines(relay, before, **query)
        assert answer.status in (401, 404)
    assert refusal(await klines(relay, **query)) == (401, -2015)
    header = {"Authorization": f"Bearer {TOKEN}"}
    assert (await relay.get("/api/v3/ping", headers=header)).status == 200
    # Of the relay's own routes it is no token.
    assert (await relay.get(f"/t/{TOKEN}/api/v1/market-data/status")).status in (401, 404)


async def test_limits_of_an_address_are_said_in_the_exchanges_words(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second_per_address=0.1)
    assert (await relay.get("/api/v3/ping")).status == 200
    answer = await relay.get("/api/v3/ping")
    assert refusal(answer) == (429, -1003)
    assert int(answer.headers["Retry-After"]) >= 1
    rows = await relay_with(max_history_rows_per_minute_per_address=5)
    query: dict[str, Any] = {"startTime": START_MS, "limit": 6}
    assert (await klines(rows, **query)).status == 200
    assert refusal(await klines(rows, **query)) == (429, -1003)


async def test_pages_of_other_origins_are_refused_and_allowed_ones_may_read(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=("https://charts.example.org",))
    allowed = await relay.get("/api/v3/ping", headers={"Origin": "https://charts.example.org"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://charts.example.org"
    assert refusal(await relay.get("/api/v3/ping", headers={"Origin": "https://evil.example"})) == (403, -1002)


async def test_it_can_be_switched_off(relay_with: StartRelay) -> None:
    relay = await relay_with(facades=())
    assert (await relay.get("/api/v3/ping")).status == 404
    assert [*relay.app[FACADES]] == []
    assert tuple(FACADE_TYPES) == FACADE_NAMES


# -- what it costs -----------------------------------------------------------------------------------------------------


async def test_the_weight_told_is_the_relays_own(sandbox: Sandbox, relay: Running) -> None:
    await klines(relay, startTime=START_MS, limit=5)
    used = (await klines(relay, startTime=START_MS, limit=5)).headers["X-MBX-USED-WEIGHT-1M"]
    await eventually(lambda: sandbox.binance.rest.weight_used == int(used))


async def test_an_answer_that_was_asked_for_twice_is_kept_for_everybody(sandbox: Sandbox, relay: Running) -> None:
    query: dict[str, Any] = {"startTime": START_MS, "limit": 100}
    asked = kline_calls(sandbox)
    first = await klines(relay, **query)
    for before in ("", "/t/any", "/t/other"):
        assert (await klines(relay, before, **query)).text == first.text
    assert kline_calls(sandbox) == asked + 1
