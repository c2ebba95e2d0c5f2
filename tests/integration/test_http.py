"""The REST contract, section 4, over a real socket against the stand-ins."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import aiohttp
import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import DIRECTORY, STORE, RelayLimits
from relay.plugins.cancellation import PluginTiming
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.raw_socket import HANDSHAKE
from tests.support.running_relay import Answer, Running
from tests.support.sandbox import Sandbox

SECRETS = ("sandbox-key", "Traceback", "site-packages", ".py", "http://127", "127.0.0.1", "/tmp", "/home")


def assert_problem(answer: Answer, status: int, code: str, *words: str) -> None:
    """The answer is an RFC 9457 problem with this status and code; its detail has these words, and no secret."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert set(answer.body) == {"type", "title", "status", "detail", "code"}
    assert (answer.body["status"], answer.body["code"]) == (status, code), answer.text
    assert all(word in answer.body["detail"] for word in words), answer.text
    assert not any(secret in answer.text for secret in SECRETS), answer.text
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1


# -- history ---------------------------------------------------------------------------------------


async def test_history_without_start_gives_the_last_candles_forming_one_last(relay: Running) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=10)
    assert answer.status == 200
    assert set(answer.body) == {"symbol", "interval", "provider", "candles", "last_is_closed"}
    assert (answer.body["symbol"], answer.body["interval"], answer.body["last_is_closed"]) == ("BTCUSDT", "1m", False)
    times = [candle["time"] for candle in answer.body["candles"]]
    assert times == list(range(times[0], times[0] + 600, 60))
    assert set(answer.body["candles"][0]) == {"time", "open", "high", "low", "close", "volume"}


async def test_history_gives_500_candles_by_default(relay: Running) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m")
    assert len(answer.body["candles"]) == 500


@pytest.mark.parametrize("limit", [1, 5000])
async def test_history_gives_as_many_as_asked_for(relay: Running, limit: int) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=limit)
    assert len(answer.body["candles"]) == limit


async def test_history_with_start_gives_the_first_candles_from_it(relay: Running) -> None:
    start = 1_700_000_040 // 60 * 60
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=start, limit=3)
    assert [candle["time"] for candle in answer.body["candles"]] == [start, start + 60, start + 120]
    assert answer.body["last_is_closed"] is True


async def test_history_takes_both_ends_inclusively(relay: Running) -> None:
    start = 1_700_000_040 // 60 * 60
    for begin, end, times in (
        (start, start + 120, [start, start + 60, start + 120]),
        (start + 1, start + 119, [start + 60]),
        (start, start, [start]),
        (start + 1, start + 59, []),
    ):
        answer = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=begin, end_time=end)
        assert [candle["time"] for candle in answer.body["candles"]] == times


async def test_history_without_start_ends_at_end_time(relay: Running) -> None:
    end = 1_700_000_040 // 60 * 60
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", end_time=end, limit=2)
    assert [candle["time"] for candle in answer.body["candles"]] == [end - 60, end]


async def test_history_of_forex_has_no_volume(relay: Running) -> None:
    answer = await relay.get("history", symbol="eur/usd", interval="1H", limit=5)
    assert (answer.body["symbol"], answer.body["interval"]) == ("EUR/USD", "1h")
    assert [candle["volume"] for candle in answer.body["candles"]] == [0.0] * 5


async def test_history_of_a_range_that_begins_soon_is_empty_and_one_far_ahead_is_a_mistake(relay: Running) -> None:
    soon = int(time.time()) + 3600
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=soon)
    assert (answer.status, answer.body["candles"], answer.body["last_is_closed"]) == (200, [], True)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=99_999_999_999)
    assert (answer.status, answer.body["code"]) == (400, "invalid_request")
    said = "start_time 99999999999 (5138-11-16T09:46:39+00:00) is in the future; there are no candles yet"
    assert answer.body["detail"] == said


async def test_times_may_be_written_as_rfc_3339(relay: Running) -> None:
    seconds = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=1_764_000_000, limit=3)
    written = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time="2025-11-24T16:00:00Z", limit=3)
    assert written.body == seconds.body
    # A plus sign that nobody escaped comes as a space.
    address = "history?symbol=BTCUSDT&interval=1m&start_time=2025-11-24T17:00:00+01:00&limit=3"
    assert (await relay.get(address)).body == seconds.body


@pytest.mark.parametrize(
    ("symbol", "meant"),
    [
        ("BTC/USDT", "BTCUSDT"),
        ("BTC-USD", "BTCUSDT"),
        ("EURUSD", "EUR/USD"),
        ("bitcoin", "BTCUSDT"),
        ("btc", "BTCUSDT"),
        ("kraken:BTCUSDT", "BTCUSDT"),
    ],
)
async def test_what_is_meant_by_an_unknown_symbol_is_said(relay: Running, symbol: str, meant: str) -> None:
    answer = await relay.get("history", symbol=symbol, interval="1m")
    assert (answer.status, answer.body["code"]) == (404, "unknown_symbol")
    assert re.search(rf"no provider lists it; did you mean {meant}( or \S+)?\?$", answer.body["detail"])
    client = await relay.connect()
    await client.ask("subscribe", symbol=symbol, interval="1m")
    assert (await client.error())["message"] == answer.body["detail"]


async def test_what_is_meant_by_an_unknown_parameter_is_said(relay: Running) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", start=1_764_000_000)
    known = "symbol, interval, start_time, end_time, limit, format, extended, symbols, wait_s"
    assert answer.body["detail"] == f"unknown parameter 'start'; known parameters are {known}; did you mean start_time?"


async def test_a_symbol_of_another_provider_than_the_pin_is_suggested(relay: Running) -> None:
    answer = await relay.get("history", symbol="binance:EUR/USD", interval="1m")
    assert answer.body["detail"] == "unknown symbol 'EUR/USD': Binance does not list it; did you mean EUR/USD?"


async def test_no_other_symbol_is_suggested_beside_one_in_another_spelling(relay: Running) -> None:
    answer = await relay.get("history", symbol="XAUUSD", interval="1m")
    assert answer.body["detail"].endswith("; did you mean XAU/USD?")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/api/v1/market-data/histroy", "/api/v1/market-data/history"),
        ("/API/V1/market-data/history/", "/api/v1/market-data/history"),
        ("/history", "/api/v1/market-data/history"),
        ("/api/v4/klines", "/api/v1/market-data/history"),
        ("/api/v1/market-data/candles", "/api/v1/market-data/history"),
        ("/websocket", "/api/v1/market-data/ws"),
        ("/symbols", "/api/v1/market-data/symbols"),
        ("/status", "/status.html"),
        ("/api/v1/market-data/ws/api/v1/market-data/status", "/api/v1/market-data/status"),
        ("/client.mjs", "/client.js"),
        ("/index.html", "/"),
        ("/openapi.yaml", "/openapi.json"),
        ("/health", "/healthz"),
    ],
)
async def test_what_is_meant_by_an_unknown_route_is_said(relay: Running, path: str, meant: str) -> None:
    assert (await relay.get(path)).body["detail"].endswith(f"; did you mean {meant}? /docs describes the routes")


@pytest.mark.parametrize("path", ["/api", "/api/v1/market-data", "/login", "/charts", "/robots.txt"])
async def test_a_route_that_is_like_none_suggests_none(relay: Running, path: str) -> None:
    assert (await relay.get(path)).body["detail"] == f"there is no '{path}'; /docs describes the routes"


async def test_a_long_route_is_cut_in_the_answer(relay: Running) -> None:
    assert (await relay.get("/" + "x" * 3000)).body["detail"].endswith("…'; /docs describes the routes")


async def test_history_agrees_with_the_live_stream(relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    closed = [(await client.update(is_closed=True))["candle"] for _ in range(2)]
    answer = await relay.get(
        "history", symbol="BTCUSDT", interval="1s", start_time=closed[0]["time"], end_time=closed[1]["time"]
    )
    assert answer.body["candles"] == closed


# -- lists -----------------------------------------------------------------------------------------


async def test_symbols_are_sorted_and_split_by_asset_class(relay: Running) -> None:
    everything = (await relay.get("symbols")).body
    crypto = (await relay.get("symbols", asset_class="crypto")).body
    forex = (await relay.get("symbols", asset_class="forex")).body
    assert everything == sorted(everything)
    assert sorted(crypto + forex) == everything
    assert "BTCUSDT" in crypto
    assert "币安人生USDT" in crypto
    assert "EUR/USD" in forex


async def test_instruments_say_who_serves_them(relay: Running) -> None:
    answer = (await relay.get("instruments", asset_class="crypto")).body
    bitcoin = next(row for row in answer if row["symbol"] == "BTCUSDT")
    assert bitcoin["provider"] == "binance"
    assert (bitcoin["asset_class"], bitcoin["base"], bitcoin["quote"]) == ("crypto", "BTC", "USDT")
    assert bitcoin["intervals"][:3] == ["1s", "1m", "3m"]
    assert "Binance" in bitcoin["attribution"]
    # Its exchange takes no trades in it any more; its history stays.
    assert {row["symbol"] for row in answer if row["status"] != "trading"} == {"NKNUSDT"}
    assert {row["asset_class"] for row in (await relay.get("instruments")).body} == {"crypto", "forex"}


async def test_status_tells_providers_connections_streams_and_budgets(relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    await client.update()
    status = (await relay.get("status")).body
    assert [provider["name"] for provider in status["providers"]] == ["binance", "twelve_data"]
    assert status["connections"] == 1
    clients = status["clients"]
    assert {name: clients[name] for name in ("connected", "subscribers", "subscriptions", "opened", "lagging")} == {
        "connected": 1,
        "subscribers": 1,
        "subscriptions": 1,
        "opened": 1,
        "lagging": 0,
    }
    assert clients["requests"] == {"subscribe": 1}
    assert [(one["streams"], one["lagging"], one["conflated"]) for one in clients["newest"]] == [(1, False, 0)]
    (stream,) = status["streams"]
    assert (stream["symbol"], stream["interval"], stream["status"], stream["subscribers"]) == (
        "BTCUSDT", "1s", "connected", 1,
    )  # fmt: skip
    assert stream["gaps"] == 0
    assert stream["last_update"] > 0
    assert stream["lag_ms"] is not None
    assert {budget["provider"] for budget in status["budgets"]} == {"binance", "twelve_data"}
    assert "sandbox-key" not in str(status)


async def test_status_shows_no_path_of_a_plugin(relay_with: StartRelay, tmp_path: Any) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nowhere_to_be_found")
    answer = await (await relay_with(plugins=(str(broken),))).get("status")
    assert answer.body["plugins_refused"] == [{"source": "file:broken.py"}]
    assert str(tmp_path) not in answer.text


# -- health ----------------------------------------------------------------------------------------


async def test_health_and_readiness(relay: Running) -> None:
    assert (await relay.get("/healthz")).status == 200
    assert (await relay.get("/readyz")).status == 200


async def test_not_ready_while_shutting_down(relay: Running) -> None:
    await relay.app.shutdown()
    assert (await relay.get("/healthz")).status == 200
    assert_problem(await relay.get("/readyz"), 503, "internal", "shutting down")


async def test_not_ready_with_the_store_lost(relay: Running) -> None:
    problems = relay.app[STORE]._database.problems
    problems.note("write", "disk is full")
    assert_problem(await relay.get("/readyz"), 503, "internal", "store", "disk is full")
    problems.clear("write")
    assert (await relay.get("/readyz")).status == 200


# -- errors ----------------------------------------------------------------------------------------

BAD_QUERIES: list[tuple[str, int, str, tuple[str, ...]]] = [
    ("", 400, "invalid_request", ("interval", "interval=1m")),
    ("symbol=BTCUSDT", 400, "invalid_request", ("interval", "interval=1m")),
    ("interval=1m", 400, "invalid_request", ("symbol", "BTCUSDT")),
    ("symbol=&interval=1m", 400, "invalid_request", ("symbol", "BTCUSDT")),
    ("symbol=NOPE&interval=1m", 404, "unknown_symbol", ("'NOPE'", "symbols")),
    ("symbol=BTC%20USDT&interval=1m", 404, "unknown_symbol", ("'BTC USDT'", "48")),
    ("symbol=%3Cscript%3E&interval=1m", 404, "unknown_symbol", ("<script>", "48")),
    (f"symbol={'A' * 3000}&interval=1m", 404, "unknown_symbol", ("AAA", "48")),
    ("symbol=%00&interval=1m", 404, "unknown_symbol", ("48",)),
    ("symbol=%FF%FE&interval=1m", 404, "unknown_symbol", ("48",)),
    ("symbol=BTCUSDT&interval=2m", 400, "unknown_interval", ("'2m'", "1s 1m")),
    ("symbol=BTCUSDT&interval=60", 400, "unknown_interval", ("'60'", "1s 1m")),
    ("symbol=EUR/USD&interval=1s", 400, "unsupported_interval", ("1s", "1m 3m 5m")),
    ("symbol=BTCUSDT&interval=1m&limit=0", 400, "invalid_request", ("limit '0'", "1 to 5000 (50000 with format=csv")),
    ("symbol=BTCUSDT&interval=1m&limit=5001", 400, "invalid_request", ("'5001'", "1 to 5000 (50000 with format=csv")),
    ("symbol=BTCUSDT&interval=1m&limit=-1", 400, "invalid_request", ("'-1'", "1 to 5000 (50000 with format=csv")),
    ("symbol=BTCUSDT&interval=1m&limit=ten", 400, "invalid_request", ("'ten'", "1 to 5000 (50000 with format=csv")),
    ("symbol=BTCUSDT&interval=1m&limit=", 400, "invalid_request", ("limit ''", "1 to 5000 (50000 with format=csv")),
    ("symbol=BTCUSDT&interval=1m&limit=1e3", 400, "invalid_request", ("'1e3'", "whole")),
    ("symbol=BTCUSDT&interval=1m&limit=%D9%A1%D9%A0", 400, "invalid_request", ("limit", "whole")),
    ("symbol=BTCUSDT&interval=1m&limit=5&limit=6", 400, "invalid_request", ("limit", "twice")),
    ("symbol=BTCUSDT&interval=1m&start_time=yesterday", 400, "invalid_request", ("start_time 'yesterday'", "whole")),
    ("symbol=BTCUSDT&interval=1m&start_time=-5", 400, "invalid_request", ("'-5'", "0 to")),
    ("symbol=BTCUSDT&interval=1m&start_time=1700000000.5", 400, "invalid_request", ("1700000000.5", "whole")),
    ("symbol=BTCUSDT&interval=1m&end_time=1700000000000", 400, "invalid_request", ("1700000000000", "0 to")),
    ("symbol=BTCUSDT&interval=1m&end_time=" + "9" * 400, 400, "invalid_request", ("end_time", "0 to")),
    ("symbol=BTCUSDT&interval=1m&start_time=9&end_time=8", 400, "invalid_request", ("start_time 9", "end_time 8")),
    ("symbol=BTCUSDT&interval=1m&from=1", 400, "invalid_request", ("'from'", "start_time")),
    ("symbol=BTCUSDT&interval=1m&token=opensesame", 400, "invalid_request", ("'token'",)),
]


async def test_bad_queries_get_their_errors_and_harm_nobody(relay: Running) -> None:
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1s")
    await other.update()
    at = len(other.received)
    for query, status, code, words in BAD_QUERIES:
        answer = await relay.get(f"history?{query}")
        assert_problem(answer, status, code, *words)
        assert "opensesame" not in answer.text
    await other.update()
    assert {message["type"] for message in other.received[at:]} <= {"price_update", "status"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("symbols?asset_class=stocks", ("'stocks'", "crypto, forex")),
        ("symbols?asset_class=", ("''", "crypto, forex")),
        ("symbols?class=crypto", ("'class'", "asset_class")),
        ("instruments?asset_class=CRYPTO", ("'CRYPTO'", "crypto")),
        ("status?verbose=1", ("'verbose'",)),
        ("ws", ("WebSocket", "ws://")),
    ],
)
async def test_bad_query_of_another_route(relay: Running, path: str, words: tuple[str, ...]) -> None:
    assert_problem(await relay.get(path), 400, "invalid_request", *words)


@pytest.mark.parametrize("path", ["/api/v1/market-data/prices", "/api/v2/", "/%2e%2e/etc/passwd", "/nothing<b>"])
async def test_unknown_path_is_a_problem(relay: Running, path: str) -> None:
    assert_problem(await relay.get(path), 404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_a_problem_that_names_the_right_one(relay: Running, method: str) -> None:
    answer = await relay.get("history", method=method)
    assert_problem(answer, 405, "invalid_request", method, "GET")
    assert "GET" in answer.headers["Allow"]


async def test_head_is_answered(relay: Running) -> None:
    assert (await relay.get("/healthz", method="HEAD")).status == 200


async def test_handshake_without_its_headers_is_a_problem(relay: Running) -> None:
    assert_problem(await relay.get("ws", headers={"Upgrade": "websocket"}), 400, "invalid_request", "CONNECTION")


async def test_handshake_of_another_version_is_a_problem_that_names_it(relay: Running) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "6"}
    answer = await relay.get("ws", headers=headers)
    assert_problem(answer, 400, "invalid_request", "version: 6")
    # RFC 6455 section 4.4: it also names the one that is spoken.
    assert_problem(answer, 400, "invalid_request", "version 13")
    assert answer.headers["Sec-WebSocket-Version"] == "13"


# -- faults of providers ---------------------------------------------------------------------------


async def test_symbol_without_key_says_how_to_set_it(relay_with: StartRelay) -> None:
    relay = await relay_with(tables={"twelve_data": {"api_key": None}})
    answer = await relay.get("history", symbol="EUR/USD", interval="1m")
    assert_problem(answer, 503, "provider_unavailable", "RELAY_TWELVE_DATA_API_KEY")
    assert answer.headers["Retry-After"] == "3600"
    assert (await relay.get("history", symbol="BTCUSDT", interval="1m")).status == 200


@pytest.mark.parametrize(
    ("upstream", "body", "status"),
    [
        (500, "{}", 503),
        (503, "oops", 503),
        (200, "<html>", 502),
        (200, "{}", 502),
        (200, "[[1]]", 502),
        (400, '{"code":-1100,"msg":"Illegal characters"}', 502),
        (418, '{"code":-1003,"msg":"banned"}', 503),
        (429, '{"code":-1003,"msg":"too much"}', 503),
        (451, "{}", 503),
    ],
)
async def test_what_the_provider_answers_badly(
    relay: Running, sandbox: Sandbox, upstream: int, body: str, status: int
) -> None:
    await relay.get("symbols")
    sandbox.binance.faults.answer_rest(upstream, body, retry_after=7 if upstream in (418, 429) else None)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=3)
    assert_problem(answer, status, "provider_unavailable")
    if upstream in (418, 429):
        assert answer.headers["Retry-After"] == "7"


async def test_half_an_answer_of_the_provider(relay: Running, sandbox: Sandbox) -> None:
    await relay.get("symbols")
    sandbox.binance.faults.answer_rest(200, truncated=True)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=3)
    assert_problem(answer, 503, "provider_unavailable")


async def test_provider_that_does_not_answer_in_time(relay_with: StartRelay, sandbox: Sandbox) -> None:
    relay = await relay_with(limits=RelayLimits(plugins=PluginTiming(call_timeout_s=0.5)))
    await eventually(lambda: relay.app[DIRECTORY].standing("binance", "BTCUSDT") == "trading")
    sandbox.binance.faults.delay_rest(5)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=3)
    assert_problem(answer, 504, "provider_unavailable")


async def test_store_that_cannot_be_read(relay: Running) -> None:
    await relay.get("symbols")
    await relay.app[STORE]._database.connection.close()
    assert_problem(await relay.get("history", symbol="BTCUSDT", interval="1m"), 503, "internal", "store")


class Wrecked:
    """A provider that raises wherever it is asked, with a secret in every message."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="wrecked", api=API_VERSION, title="Wrecked", asset_classes=("demo",), intervals=("1m",)
        )  # fmt: skip

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        for key in watchlist.streams:
            if len(watchlist):
                raise ZeroDivisionError("sandbox-key")
            yield PriceUpdate(key, Candle(0, 1, 1, 1, 1))

    @hookimpl
    async def relay_candles(self, symbol: str) -> Sequence[Candle]:
        raise MemoryError("sandbox-key")

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        raise KeyError("sandbox-key")

    @hookimpl
    def relay_budgets(self) -> Sequence[Any]:
        raise RuntimeError("sandbox-key")


async def test_a_provider_that_raises_everywhere_harms_no_other(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Wrecked))
    client = await relay.connect()
    await client.ask("subscribe", streams=["wrecked:X@1m", "BTCUSDT@1s", "EUR/USD@1m"], id=1)
    answers = [await client.answer(1) for _ in range(3)]
    assert {(answer["symbol"], answer.get("code", answer["type"])) for answer in answers} == {
        ("wrecked:X", "provider_unavailable"),
        ("BTCUSDT", "subscription"),
        ("EUR/USD", "subscription"),
    }
    await client.seen("price_update", symbol="BTCUSDT")
    await client.seen("price_update", symbol="EUR/USD")
    assert_problem(await relay.get("history", symbol="wrecked:X", interval="1m"), 503, "provider_unavailable")
    assert "BTCUSDT" in (await relay.get("symbols")).body
    status = await relay.get("status")
    assert next(row for row in status.body["providers"] if row["name"] == "wrecked")["state"] == "degraded"
    assert "sandbox-key" not in status.text
    assert "sandbox-key" not in str(client.received)


class Unlisted(Wrecked):
    """Takes any symbol, because it gives no list, and fails at every one of them."""

    relay_instruments = None  # type: ignore[assignment]


async def test_streams_of_a_provider_that_raises_say_so_and_others_go_on(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Unlisted))
    client = await relay.connect()
    await client.ask("subscribe", streams=["wrecked:X@1m", "BTCUSDT@1s"])
    # A symbol that nobody lists belongs to the provider without a list, by its bare name.
    lost = await client.until(lambda m: m["type"] == "status" and m["symbol"] == "X" and "ZeroDiv" in m["message"])
    assert (lost["interval"], lost["status"]) in (("1m", "connecting"), ("1m", "reconnecting"))
    await client.ask("subscribe", symbol="wrecked:X", interval="1m", bars=3, id=2)
    snapshot = await client.until_type("snapshot")
    assert (snapshot["candles"], snapshot["complete"]) == ([], False)
    for _ in range(2):
        await client.update(symbol="BTCUSDT")
    assert "sandbox-key" not in str(client.received)


async def test_many_requests_at_once_are_all_answered(relay: Running) -> None:
    answers = await asyncio.gather(
        *(relay.get("history", symbol="BTCUSDT", interval="1m", limit=50 + n) for n in range(30))
    )
    assert [len(answer.body["candles"]) for answer in answers] == [50 + n for n in range(30)]


async def test_garbage_instead_of_http_ends_only_that_connection(relay: Running) -> None:
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert b"Traceback" not in answer
    async with aiohttp.ClientSession() as session, session.get(f"{relay.url}/healthz") as good:
        assert good.status == 200


@pytest.mark.parametrize(
    "asked",
    [
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"what?\r\n\r\n",
        HANDSHAKE,
    ],
)
async def test_no_answer_says_what_the_relay_is_made_of(relay: Running, asked: bytes) -> None:
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(asked)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    writer.close()
    assert "server: market-relay\r\n" in head
    assert "aiohttp" not in head
    assert "python" not in head


async def test_a_forming_candle_is_not_served_as_closed_while_the_provider_is_slow(relay_with: StartRelay) -> None:
    async with Sandbox(speed=60, pace_s=0.05) as fast:
        relay = await relay_with(sandbox=fast)
        client = await relay.connect()
        await client.subscribe("BTCUSDT@1m")
        await client.update(is_closed=True)
        await client.update(is_closed=False)
        fast.binance.faults.delay_rest(1.5)
        answers = [(await relay.get("history", symbol="BTCUSDT", interval="1m", limit=50)).body for _ in range(3)]
        fast.binance.faults.delay_rest(0)
        closed = [answer["candles"] if answer["last_is_closed"] else answer["candles"][:-1] for answer in answers]
        newest = max(candles[-1]["time"] for candles in closed)
        await client.until(lambda message: message.get("is_closed") and message["candle"]["time"] > newest)
        told = {message["candle"]["time"]: message["candle"] for message in client.received if message.get("is_closed")}
        common = [candle for candles in closed for candle in candles if candle["time"] in told]
        assert common
        assert common == [told[candle["time"]] for candle in common]
