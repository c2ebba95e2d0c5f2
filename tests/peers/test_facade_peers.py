"""Programs that others wrote for Binance use the relay: only the base address is another one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.peers.environments import environment, run
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

START = 1_790_000_040_000


async def prepared(*packages: str) -> Path:
    return await asyncio.to_thread(environment, *packages)


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[Running, Sandbox]]:
    async with Sandbox(pace_s=0.1) as sandbox:
        relay = await start_relay(sandbox, **settings)
        try:
            yield relay, sandbox
        finally:
            await relay.close()


def addresses(relay: Running, before: str = "") -> tuple[str, str]:
    return f"{relay.url}{before}", f"{relay.url.replace('http://', 'ws://')}{before}"


def rows_of(sandbox: Sandbox, symbol: str, count: int) -> list[list[Any]]:
    return [
        [*row] for row in sandbox.binance.rest.klines(sandbox.binance.market.pair(symbol), "1m", START, None, count)
    ]


@pytest.mark.parametrize("token", ["", "a-token-of-this-test-0123"])
async def test_ccxt(token: str) -> None:
    python = await prepared("ccxt==4.5.90")
    async with served(tokens=(token,) if token else ()) as (relay, sandbox):
        said = await run(python, "ccxt_client", *addresses(relay, f"/t/{token}" if token else ""))
        assert abs(said["time"] - sandbox.binance.now_ms()) < 60_000
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
        said = await run(python, "ccxt_facade_client", *addresses(relay), timeout_s=120)
        assert said["paged"] == [[row[0], *map(float, row[1:6])] for row in rows_of(sandbox, "BTCUSDT", 2500)]
        assert {call.path for call in sandbox.binance.requests} <= {
            "/api/v3/exchangeInfo", "/api/v3/klines", "/api/v3/ticker/24hr", "/api/v3/ticker/bookTicker",
            "/api/v3/ticker/price", "/api/v3/depth", "/api/v3/aggTrades",
        }  # fmt: skip
        # One connection to the exchange, whatever a program opens.
        assert sandbox.binance.connects == 1
    assert said["markets"] > 10
    assert said["types"] == ["spot"]
    assert set(said["watched"]) == {"BTC/USDT", "ETH/USDT"}
    assert said["ticker"] == "BTC/USDT"
    assert said["tickers"] == ["BTC/USDT", "ETH/USDT"]
    assert said["book"] == [5, 5]
    assert said["trades"] == 7


async def test_python_binance() -> None:
    python = await prepared("python-binance==1.0.37")
    async with served() as (relay, sandbox):
        said = await run(python, "python_binance_client", *addresses(relay))
        assert said["klines"] == rows_of(sandbox, "BTCUSDT", 3)
    assert said["paged"] == 1501
    assert "BTCUSDT" in said["listed"]
    assert said["error"] == [400, -1120, "Invalid interval."]
    assert [event["k"]["i"] for event in said["single"]] == ["1m"] * 3
    assert {message["stream"] for message in said["several"]} == {"btcusdt@kline_1m", "ethusdt@kline_5m"}


async def test_binance_sdk_spot() -> None:
    python = await prepared("binance-sdk-spot==13.2.0")
    async with served() as (relay, _):
        said = await run(python, "binance_sdk_client", *addresses(relay))
    assert len(said["klines"]) == 5
    assert {event["s"] for event in said["watched"]} == {"BTCUSDT"}
