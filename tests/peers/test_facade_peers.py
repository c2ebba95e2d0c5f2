"""Programs that others wrote for Binance use the relay: only the base address is another one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.peers.environments import environment, node_environment, run
from tests.peers.test_peers import check_futures
from tests.support.conditions import eventually
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

START = 1_790_000_040_000
OUTAGE_S = 3.0
APART_MS = 1000
"""So far the clocks of relay and exchange may be apart."""


async def prepared(*packages: str) -> Path:
    return await asyncio.to_thread(environment, *packages)


@asynccontextmanager
async def served(*, futures: bool = False, **settings: Any) -> AsyncIterator[tuple[Running, Sandbox]]:
    async with Sandbox(pace_s=0.1, futures=futures) as sandbox:
        relay = await start_relay(sandbox, **settings)
        try:
            yield relay, sandbox
        finally:
            await relay.close()


def addresses(relay: Running, before: str = "") -> tuple[str, str]:
    return f"{relay.url}{before}", f"{relay.url.replace('http://', 'ws://')}{before}"


def rows_of(sandbox: Sandbox, symbol: str, count: int, interval: str = "1m", start: int = START) -> list[list[Any]]:
    pair = sandbox.binance.market.pair(symbol)
    return [[*row] for row in sandbox.binance.rest.klines(pair, interval, start, None, count)]


async def outage(sandbox: Sandbox) -> None:
    """Cut the exchange off for so long that candles close meanwhile."""
    binance = sandbox.binance
    assert binance.connections == 1
    binance.faults.refuse(503, seconds=OUTAGE_S)
    binance.faults.drop()
    await eventually(lambda: binance.connections == 0)
    await eventually(lambda: binance.connections == 1)


def check_closes(sandbox: Sandbox, rows: Sequence[Sequence[Any]]) -> None:
    """Hold seconds of BTCUSDT against the truth; rows are open time, four prices and the volume, as text or numbers."""
    assert len(rows) == 14
    assert sandbox.binance.connects >= 2
    truth = rows_of(sandbox, "BTCUSDT", len(rows), "1s", rows[0][0])
    kind = type(rows[0][1])
    assert [[*row] for row in rows] == [[row[0], *map(kind, row[1:6])] for row in truth]


def row_of(kline: dict[str, Any]) -> list[Any]:
    return [kline["t"], *(kline[name] for name in "ohlcv")]


@pytest.mark.parametrize("token", ["", "a-token-of-this-test-0123"])
async def test_ccxt(token: str) -> None:
    python = await prepared("ccxt==4.5.90")
    async with served(tokens=(token,) if token else ()) as (relay, sandbox):
        began = sandbox.binance.now_ms()
        said = await run(python, "ccxt_client", *addresses(relay, f"/t/{token}" if token else ""))
        assert began - APART_MS <= said["time"] <= sandbox.binance.now_ms() + APART_MS
        truth = rows_of(sandbox, "BTCUSDT", 5)
        assert said["candles"] == [[row[0], *map(float, row[1:6])] for row in truth]
    assert said["markets"]["BTC/USDT"] is True
    assert said["markets"]["NKN/USDT"] is False
    assert len(said["newest"]) == 3
    assert said["error"] == "BadSymbol"
    assert said["watched"]


async def test_ccxt_with_all_that_it_asks_of_a_market() -> None:
    python = await prepared("ccxt==4.5.90")
    async with served() as (relay, sandbox):
        said = await run(python, "ccxt_facade_client", *addresses(relay))
        assert said["paged"] == [[row[0], *map(float, row[1:6])] for row in rows_of(sandbox, "BTCUSDT", 2500)]
        assert {call.path for call in sandbox.binance.requests} <= {
            "/api/v3/exchangeInfo", "/api/v3/klines", "/api/v3/ticker/24hr", "/api/v3/ticker/bookTicker",
            "/api/v3/ticker/price", "/api/v3/depth", "/api/v3/aggTrades",
        }  # fmt: skip
        # One connection to the exchange for candles and one for order books, whatever a program opens.
        assert sandbox.binance.connects == 2
        assert sum(call.path == "/api/v3/depth" for call in sandbox.binance.requests) == 1
    assert said["markets"] > 10
    assert said["types"] == ["spot"]
    assert set(said["watched"]) == {"BTC/USDT", "ETH/USDT"}
    assert said["ticker"] == "BTC/USDT"
    assert said["tickers"] == ["BTC/USDT", "ETH/USDT"]
    assert said["books"] == [[levels, levels, True, True] for levels in (5, 5, 20, 5)]
    assert said["trades"] == 7


async def test_python_binance() -> None:
    python = await prepared("python-binance==1.0.37")
    async with served() as (relay, sandbox):
        said = await run(python, "python_binance_client", *addresses(relay))
        assert said["klines"] == rows_of(sandbox, "BTCUSDT", 3)
        assert sum(call.path == "/api/v3/depth" for call in sandbox.binance.requests) == 1
    assert [len(book["bids"]) for book in said["books"]] == [5, 5, 20]
    assert {tuple(book) for book in said["books"]} == {("lastUpdateId", "bids", "asks")}
    assert {type(text) for book in said["books"] for level in book["asks"] for text in level} == {str}
    assert said["paged"] == 1501
    assert "BTCUSDT" in said["listed"]
    assert said["error"] == [400, -1120, "Invalid interval."]
    assert [event["k"]["i"] for event in said["single"]] == ["1m"] * 3
    assert {message["stream"] for message in said["several"]} == {"btcusdt@kline_1m", "ethusdt@kline_5m"}


def past_of(sandbox: Sandbox) -> int:
    return sandbox.futures.now_ms() // 60_000 * 60_000 - 5000 * 60_000


@pytest.mark.parametrize("token", ["", "a-token-of-this-test-0123"])
async def test_ccxt_for_futures(token: str) -> None:
    python = await prepared("ccxt==4.5.90")
    async with served(tokens=(token,) if token else (), futures=True) as (relay, sandbox):
        start, before = past_of(sandbox), f"/t/{token}" if token else ""
        said = await run(python, "ccxt_usdm_client", *addresses(relay, before), f"{start}")
        truth = sandbox.futures.rest.klines(sandbox.futures.market.pair("BTCUSDT"), "1m", start, None, 5)
        assert said["candles"] == [[row[0], *(float(str(text)) for text in row[1:6])] for row in truth]
        assert sandbox.futures.connects == 1
        assert sandbox.binance.connects == 0
    check_futures(said)


async def test_python_binance_for_futures() -> None:
    python = await prepared("python-binance==1.0.37")
    async with served(futures=True) as (relay, sandbox):
        start = past_of(sandbox)
        said = await run(python, "python_binance_futures_client", *addresses(relay), f"{start}")
        assert said["klines"] == sandbox.futures.rest.klines(
            sandbox.futures.market.pair("BTCUSDT"), "1m", start, None, 3
        )
    assert said["paged"] == 1501
    assert said["error"] == [400, -1130, "Data sent for parameter 'limit' is not valid."]
    assert {message["stream"] for message in said["several"]} == {"btcusdt@kline_1m", "ethusdt@kline_5m"}


async def test_binance_sdk_spot() -> None:
    python = await prepared("binance-sdk-spot==13.2.0")
    async with served() as (relay, _):
        said = await run(python, "binance_sdk_client", *addresses(relay))
    assert len(said["klines"]) == 5
    assert {event["s"] for event in said["watched"]} == {"BTCUSDT"}


@pytest.mark.parametrize("package", ["ccxt==4.5.90", "python-binance==1.0.37", "binance-sdk-spot==13.2.0"])
async def test_an_outage_takes_no_close(package: str) -> None:
    python = await prepared(package)
    async with served() as (relay, sandbox):
        name = package.partition("=")[0]
        rows = await run(python, "closes_of", name, *addresses(relay), once_begun=lambda: outage(sandbox))
        check_closes(sandbox, rows)


async def test_binance_connector() -> None:
    python = await prepared("binance-connector==3.13.0")
    async with served() as (relay, sandbox):
        said = await run(python, "binance_connector_client", *addresses(relay), once_begun=lambda: outage(sandbox))
        assert said["klines"] == rows_of(sandbox, "BTCUSDT", 3)
        check_closes(sandbox, [*map(row_of, said["closes"])])
    assert said["answers"] == [None, ["btcusdt@kline_1s"]]
    assert said["ui_klines"] == 500
    assert said["listed"] == ["BTCUSDT", "ETHUSDT"]
    assert (said["book"], said["ticker"], said["combined"]) == (5, "BTCUSDT", "ethusdt@kline_1m")
    assert said["used"] == ["x-mbx-used-weight", "x-mbx-used-weight-1m"]
    assert said["errors"] == [[400, -1121], [403, -1002]]


async def test_unicorn_binance_websocket_api() -> None:
    python = await prepared("unicorn-binance-websocket-api==2.16.1")
    async with served() as (relay, sandbox):
        said = await run(python, "unicorn_client", *addresses(relay), once_begun=lambda: outage(sandbox))
        check_closes(sandbox, [*map(row_of, said["closes"])])
    assert {"ethusdt@kline_1s", "solusdt@kline_1s"} <= set(said["others"])


async def test_unicorn_binance_websocket_api_with_hundreds_of_streams() -> None:
    # It names them all in one message.
    python = await prepared("unicorn-binance-websocket-api==2.16.1")
    async with Sandbox(extra_symbols=30) as sandbox:
        relay = await start_relay(sandbox, max_streams=4000)
        try:
            markets = [symbol.lower() for symbol in sandbox.binance.market.crypto if symbol.isascii()][-25:]
            said = await run(python, "unicorn_many_client", *addresses(relay), ",".join(markets))
            assert len(sandbox.binance.subscribed) == said["wanted"] == 350
        finally:
            await relay.close()
    assert (len(said["told"]), said["faults"]) == (350, [])


async def test_nautilus_trader() -> None:
    python = await prepared("nautilus_trader==1.221.0")
    async with served() as (relay, sandbox):
        said = await run(python, "nautilus_client", *addresses(relay), once_begun=lambda: outage(sandbox))
        check_closes(sandbox, [[row[0] - 999, *row[1:]] for row in said["closes"]])
        times = [row[0] - 59_999 for row in said["past"]]
        assert len(times) in (1799, 1800)
        truth = rows_of(sandbox, "BTCUSDT", len(times), "1m", times[0])
        assert [row[1:] for row in said["past"]] == [row[1:6] for row in truth]
    assert "BTCUSDT.BINANCE" in said["instruments"]


async def test_binance_api_node() -> None:
    node, folder = await asyncio.to_thread(node_environment, "binance-api-node@0.13.10")
    async with served() as (relay, sandbox):
        began = sandbox.binance.now_ms()
        said = await run(
            node, "binance_api_node_client.mjs", folder, *addresses(relay), once_begun=lambda: outage(sandbox)
        )
        names = ("open", "high", "low", "close", "volume")
        check_closes(sandbox, [[one["startTime"], *(one[name] for name in names)] for one in said["closes"]])
        truth = rows_of(sandbox, "BTCUSDT", 3)
        assert [[one["openTime"], *(one[name] for name in names)] for one in said["candles"]] == [
            row[:6] for row in truth
        ]
        assert began - APART_MS <= said["time"] <= sandbox.binance.now_ms() + APART_MS
    assert {"BTCUSDT", "ETHUSDT"} <= set(said["listed"])
    assert (said["book"], said["price"], said["error"], said["others"]) == (5, ["BTCUSDT"], -1121, ["ETHUSDT"])


async def test_ccxt_of_node() -> None:
    node, folder = await asyncio.to_thread(node_environment, "ccxt@4.5.84")
    async with served() as (relay, sandbox):
        said = await run(node, "ccxt_node_client.mjs", folder, *addresses(relay), once_begun=lambda: outage(sandbox))
        check_closes(sandbox, [[row[0], *map(float, row[1:])] for row in said["closes"]])
        truth = rows_of(sandbox, "BTCUSDT", 3)
        assert said["candles"] == [[row[0], *map(float, row[1:6])] for row in truth]
    assert said["markets"] > 10
    assert (said["ticker"], said["book"]) == ("BTC/USDT", 5)
