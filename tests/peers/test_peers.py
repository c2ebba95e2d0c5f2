"""Clients that other people wrote for the real exchanges understand the stand-ins."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.peers.environments import environment, run
from tests.support.sandbox import BinanceStandIn, BinanceUsdmStandIn, StagedClock, StagedMarket, TwelveDataStandIn

# Making an environment takes minutes the first time.
pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

MINUTE_MS = 60_000
START = 1_790_000_040_000


async def prepared(*packages: str) -> Path:
    return await asyncio.to_thread(environment, *packages)


def exchange() -> BinanceStandIn:
    return BinanceStandIn(StagedMarket(1), StagedClock(speed=60), pace_s=0.1)


async def test_ccxt() -> None:
    python = await prepared("ccxt==4.5.90")
    async with exchange() as binance:
        began = binance.now_ms()
        said = await run(python, "ccxt_client", binance.rest_url, binance.ws_url)
        assert began <= said["time"] <= binance.now_ms()
        assert {connect.path for connect in binance.connect_log} == {"/ws/0"}
        assert binance.rate_violations == 0
        pair = binance.market.pair("BTCUSDT")
        truth = binance.rest.klines(pair, "1m", START, None, 5)
        assert said["candles"] == [[row[0], *(float(str(row[at])) for at in range(1, 6))] for row in truth]
        for row in said["watched"][:-1]:
            closed = binance.rest.klines(pair, "1m", row[0], row[0], 1)[0]
            assert row == [closed[0], *(float(str(closed[at])) for at in range(1, 6))]
    assert said["markets"]["BTC/USDT"] is True
    assert said["markets"]["NKN/USDT"] is False
    assert len(said["newest"]) == 3
    assert said["error"] == "BadSymbol"


async def test_python_binance() -> None:
    python = await prepared("python-binance==1.0.37")
    async with exchange() as binance:
        said = await run(python, "python_binance_client", binance.rest_url, binance.ws_url)
        truth = binance.rest.klines(binance.market.pair("BTCUSDT"), "1m", START, None, 3)
        assert said["klines"] == truth
        assert "/ws/btcusdt@kline_1m" in {connect.path for connect in binance.connect_log}
        assert binance.rate_violations == 0
    assert said["paged"] == 1501
    assert "BTCUSDT" in said["listed"]
    assert said["error"] == [400, -1120, "Invalid interval."]
    assert [event["k"]["i"] for event in said["single"]] == ["1m"] * 3
    assert {message["stream"] for message in said["several"]} == {"btcusdt@kline_1m", "ethusdt@kline_5m"}


async def test_binance_sdk_spot() -> None:
    python = await prepared("binance-sdk-spot==13.2.0")
    async with exchange() as binance:
        said = await run(python, "binance_sdk_client", binance.rest_url, binance.ws_url)
        # The program ends right after its UNSUBSCRIBE, which may be lost with the connection.
        assert sum(orjson.loads(one.text)["method"] == "SUBSCRIBE" for one in binance.control_messages if one.text) == 1
        assert binance.rate_violations == 0
    assert len(said["klines"]) == 5
    assert ["REQUEST_WEIGHT", 2] in said["limits"]
    assert {event["s"] for event in said["watched"]} == {"BTCUSDT"}


def futures() -> BinanceUsdmStandIn:
    return BinanceUsdmStandIn(clock=StagedClock(speed=60), pace_s=0.1)


async def test_ccxt_for_futures() -> None:
    python = await prepared("ccxt==4.5.90")
    async with futures() as binance:
        start = (binance.now_ms() // MINUTE_MS - 5000) * MINUTE_MS
        said = await run(python, "ccxt_usdm_client", binance.rest_url, binance.ws_url, f"{start}")
        assert {connect.path for connect in binance.connect_log} == {"/market/ws/0"}
        assert binance.rate_violations == 0
        pair = binance.market.pair("BTCUSDT")
        truth = binance.rest.klines(pair, "1m", start, None, 5)
        assert said["candles"] == [[row[0], *(float(str(row[at])) for at in range(1, 6))] for row in truth]
        for row in said["watched"]["BTC/USDT:USDT"][:-1]:
            closed = binance.rest.klines(pair, "1m", row[0], row[0], 1)[0]
            assert row == [closed[0], *(float(str(closed[at])) for at in range(1, 6))]
    check_futures(said)


def check_futures(said: dict[str, Any]) -> None:
    assert said["markets"]["BTCUSDT"] == ["swap", True, None]
    assert said["markets"]["NKNUSDT"][1] is False
    assert [one[:2] for name, one in said["markets"].items() if name.startswith("BTCUSDT_")] == [["future", True]] * 2
    assert (said["paged"], len(said["newest"]), said["trades"]) == (2000, 3, 7)
    assert (said["ticker"], said["book"], said["error"]) == ("BTC/USDT:USDT", [5, 5], "BadSymbol")
    assert said["watched"].keys() == {"BTC/USDT:USDT", said["dated"]}


async def test_python_binance_for_futures() -> None:
    python = await prepared("python-binance==1.0.37")
    async with futures() as binance:
        start = (binance.now_ms() // MINUTE_MS - 5000) * MINUTE_MS
        said = await run(
            python, "python_binance_futures_client", binance.rest_url, binance.ws_url, f"{start}", "continuous"
        )
        assert said["klines"] == binance.rest.klines(binance.market.pair("BTCUSDT"), "1m", start, None, 3)
        assert "/market/ws/btcusdt_perpetual@continuousKline_1m" in {one.path for one in binance.connect_log}
        assert binance.rate_violations == 0
    assert (said["paged"], said["ping"]) == (1501, {})
    assert "BTCUSDT" in said["listed"]
    assert said["error"] == [400, -1130, "Data sent for parameter 'limit' is not valid."]
    assert {message["stream"] for message in said["several"]} == {"btcusdt@kline_1m", "ethusdt@kline_5m"}
    assert [event["e"] for event in said["continuous"]] == ["continuous_kline"] * 3


@pytest.mark.parametrize("errors_as_200", [False, True])
async def test_twelvedata(errors_as_200: bool) -> None:
    python = await prepared("twelvedata==1.4.0", "websocket-client")
    market = StagedMarket(1, forex_always_open=True)
    async with TwelveDataStandIn(
        market, StagedClock(speed=30), credits_per_minute=1000, errors_as_200=errors_as_200, tick_every_s=0.05
    ) as exchange:
        said = await run(python, "twelvedata_client", exchange.rest_url, exchange.ws_url, exchange.api_key)
        assert exchange.rest.credits.refusals == 0
    assert len(said["utc"]) == len(said["default"]) == 5
    assert {len(row["close"].partition(".")[2]) for row in said["utc"]} == {5}
    # Sydney is ten or eleven hours ahead, and the clock may have moved on between the two calls.
    assert said["default"][0]["datetime"] > said["utc"][0]["datetime"]
    assert [row[0] for row in said["csv"]] == sorted((row[0] for row in said["csv"]), reverse=True)
    assert list(said["batch"]) == ["EUR/USD", "GBP/USD"]
    assert "EUR/USD" in {row["symbol"] for row in said["pairs"]}
    assert said["usage"]["plan_limit"] == 1000
    assert said["error"][0] == "TwelveDataError"
    assert "**symbol** or **figi** parameter is missing or invalid." in said["error"][1]
    prices = [event for event in said["events"] if event["event"] == "price"]
    assert len(prices) >= 5
    assert all(event["symbol"] == "EUR/USD" for event in prices)
