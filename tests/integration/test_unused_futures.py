"""Futures are on in each relay: where nobody uses them, and where their host cannot be reached, nobody notices."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

LIST = "/fapi/v1/exchangeInfo"
HALF_AN_HOUR_S = 1800.0


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """The stand-ins with that for futures."""
    async with Sandbox(pace_s=0.5, futures=True) as running:
        yield running


def block(sandbox: Sandbox, how: str) -> None:
    """Let the host of futures answer nothing that is of use."""
    if how == "forbids":
        sandbox.futures.faults.answer_rest(451, '{"code":0,"msg":"Service unavailable from a restricted location"}')
    elif how == "hangs":
        sandbox.futures.faults.delay_rest(1e6)
    else:
        sandbox.futures.faults.stop_listening(rest=True)


async def states(relay: Running) -> dict[str, str]:
    return {row["name"]: row["state"] for row in (await relay.get("status")).body["providers"]}


async def test_a_relay_whose_clients_use_spot_only_asks_for_one_list(sandbox: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_with()
    client = await relay.connect()
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", id=1)
    assert (await client.answer(1))["provider"] == "binance"
    await eventually(lambda: sandbox.futures.requests)
    symbols = (await relay.get("symbols")).body
    assert {"BTCUSDT", "binance_usdm:BTCUSDT", "binance_usdm:1000PEPEUSDT"} <= {*symbols}
    assert "1000PEPEUSDT" not in symbols
    assert [call.path for call in sandbox.futures.requests] == [LIST]
    assert sandbox.futures.connect_log == []


@pytest.mark.parametrize("how", ["forbids", "refuses", "hangs"])
async def test_a_host_of_futures_that_cannot_be_reached_is_nobodys_trouble(
    sandbox: Sandbox, relay_with: StartRelay, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    block(sandbox, how)
    caplog.set_level(logging.INFO, "relay")
    loop = asyncio.get_running_loop()
    began = loop.time()
    relay = await relay_with()
    assert "BTCUSDT" in (await relay.get("symbols")).body
    assert (await relay.get("history", symbol="NOPE", interval="1m")).body["code"] == "unknown_symbol"
    assert (await relay.get("history", symbol="BTCUSDT", interval="1m")).body["provider"] == "binance"
    # So long a list is waited for that only whoever names its provider misses.
    assert loop.time() - began < 3.0
    await asyncio.sleep(HALF_AN_HOUR_S)
    assert (await relay.get("/readyz")).body == {"status": "ok"}
    assert {*(await states(relay)).values()} == {"ok"}
    assert 'relay_provider_state{provider="binance_usdm",state="ok"} 1.0' in (await relay.get("/metrics")).text
    about_futures = [record for record in caplog.records if "Futures" in record.message or "usdm" in record.message]
    assert [record.levelname for record in about_futures] == ["INFO"]
    assert [call.path for call in sandbox.futures.requests] == [LIST] * len(sandbox.futures.requests)
    assert len(sandbox.futures.requests) <= 9
    assert sandbox.futures.connect_log == []


async def test_who_names_futures_is_told_that_they_cannot_be_reached(sandbox: Sandbox, relay_with: StartRelay) -> None:
    block(sandbox, "forbids")
    relay = await relay_with()
    await asyncio.sleep(HALF_AN_HOUR_S)
    refused = await relay.get("history", symbol="binance_usdm:BTCUSDT", interval="1m")
    assert (refused.status, refused.body["code"]) == (503, "provider_unavailable")
    assert (await relay.get("/fapi/v1/exchangeInfo")).status == 503
    assert await states(relay) == {"binance": "ok", "twelve_data": "ok", "binance_usdm": "degraded"}
    # It is asked again at once when somebody wants it, not a quarter of an hour later.
    sandbox.futures.faults.answer_rest_normally()
    await asyncio.sleep(60.0)
    assert (await relay.get("/fapi/v1/exchangeInfo")).body["symbols"]
    assert (await states(relay))["binance_usdm"] == "ok"


async def test_futures_that_are_switched_off_are_not_contacted(sandbox: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_with(instances={"binance_usdm": {"enabled": False}})
    assert (await relay.get("/fapi/v1/exchangeInfo")).body["symbols"] == []
    refused = await relay.get("history", symbol="binance_usdm:BTCUSDT", interval="1m")
    assert "binance_usdm is switched off" in refused.body["detail"]
    assert sandbox.futures.requests == []
