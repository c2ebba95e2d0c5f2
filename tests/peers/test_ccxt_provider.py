"""Exchanges of ccxt as providers: its classes talk to stand-ins in the venues' own formats."""

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from providers.ccxt import CcxtProvider
from relay.core.errors import BadAnswer, ConfigError, ProviderError, ProviderUnavailable, RateLimited, UnknownSymbol
from relay.core.model import StreamKey
from relay.testing import check_provider, open_provider
from tests.conftest import StartRelay
from tests.peers.environments import execute
from tests.support.running_relay import Running

# Making the environment takes a minute the first time.
pytestmark = [pytest.mark.peers, pytest.mark.timeout(300), pytest.mark.usefixtures("ccxt_library")]

PLUGINS = Path(__file__).parents[1] / "plugins"
BTC = StreamKey("BTC/USD", "1m")


def stand_in(name: str) -> Any:
    if (folder := str(PLUGINS / name)) not in sys.path:
        sys.path.append(folder)
    venue = getattr(importlib.import_module(f"{name}_standin"), name.capitalize())(pace_s=0.5)
    if name == "kraken":
        # ccxt takes these pairs, which Kraken lists no more, for the usual ones.
        del venue.pairs["XBTUSD.d"]
    return venue


def table_of(name: str, venue: Any) -> dict[str, Any]:
    """Return the settings of an instance whose exchange is a stand-in."""
    rest, ws = venue.settings["rest_url"], venue.settings["ws_url"]
    api = {"kraken": {"public": rest, "ws": {"publicV2": ws}}}[name]
    return {"exchange": name, "options": {"urls": {"api": api}}}


async def running(relay_with: StartRelay, **venues: Any) -> Running:
    """Start a relay with an instance for each stand-in."""
    instances = {name: {"uses": "ccxt", **table_of(name, venue)} for name, venue in venues.items()}
    return await relay_with(instances=instances)


async def be_away(venue: Any, seconds: float) -> None:
    """Cut all connections of a stand-in, and accept none for so long."""
    runner: web.AppRunner = venue._runner
    ((host, port, *_),) = runner.addresses
    for site in [*runner.sites]:
        await site.stop()
    assert runner.server is not None
    for connection in runner.server.connections:
        if connection.transport is not None:
            connection.transport.abort()
    await asyncio.sleep(seconds)
    await web.TCPSite(runner, host, port).start()


@pytest.mark.parametrize(("name", "symbol"), [("kraken", "BTC/USD")])
async def test_conformance(name: str, symbol: str) -> None:
    async with stand_in(name) as venue:
        report = await check_provider(
            CcxtProvider, symbol=symbol, interval="1m", settings=table_of(name, venue), intervals=("1m", "1h")
        )
    assert {"closing", "refusal", "unknown symbol in history", f"live values of {symbol}@1m"} <= set(report.checked)


async def test_relay_serves_an_exchange_and_an_outage_leaves_nothing_out(relay_with: StartRelay) -> None:
    async with stand_in("kraken") as venue:
        relay = await running(relay_with, kraken=venue)
        client = await relay.connect()
        streams = ["BTC/USD@1m", "ETH/USD@1m", "BTC/USD@5m"]
        await client.subscribe(*(f"kraken:{stream}" for stream in streams), bars=3)
        for stream in streams:
            symbol, _, interval = stream.partition("@")
            snapshot = await client.seen("snapshot", symbol=symbol, interval=interval)
            assert (snapshot["complete"], len(snapshot["candles"])) == (True, 3)
        client.read_on()
        began = len(client.received)
        # Over the end of a minute, and of five.
        await asyncio.sleep((295 - venue.now()) % 300)
        await be_away(venue, 10)
        await asyncio.sleep(130)
        told = [message for message in client.received[began:] if message.get("is_closed")]
        for stream in streams:
            symbol, _, interval = stream.partition("@")
            minutes = int(interval[:-1])
            closed = [one["candle"] for one in told if (one["symbol"], one["interval"]) == (symbol, interval)]
            times = [candle["time"] for candle in closed]
            assert times == list(range(times[0], times[0] + len(times) * minutes * 60, minutes * 60))
            assert times[-1] + minutes * 60 == int(venue.now()) // (minutes * 60) * minutes * 60
            for candle in closed:
                assert list(candle.values())[1:] == list(venue.candle(candle["time"], minutes))
        assert not [message for message in client.received if message["type"] == "gap"]
        states = [message["status"] for message in client.received if message["type"] == "status"]
        assert {"reconnecting", "connected"} <= set(states)
        # Each interval has a connection of its own: Kraken knows a symbol once on one.
        intervals = {message["params"]["interval"] for message in venue.messages if message["method"] == "subscribe"}
        assert intervals == {1, 5}


async def test_instruments_have_the_steps_of_the_exchange(relay_with: StartRelay) -> None:
    async with stand_in("kraken") as venue:
        relay = await running(relay_with, kraken=venue)
        rows = (await relay.get("instruments", provider="kraken")).body
        assert [(row["id"], row["price_step"], row["volume_step"], row["status"]) for row in rows] == [
            ("kraken:BTC/USD", "0.001", "0.00000001", "trading"),
            ("kraken:ETH/USD", "0.001", "0.00000001", "trading"),
            ("kraken:OLD/USD", "0.001", "0.00000001", "paused"),
        ]
        assert rows[0]["intervals"] == ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"]
        providers = {one["name"]: one for one in (await relay.get("status")).body["providers"]}
        assert providers["kraken"]["title"] == "Kraken (by ccxt, best effort)"


async def test_history_ends_where_the_exchange_has_no_more_and_costs_few_requests() -> None:
    async with stand_in("kraken") as venue, open_provider(CcxtProvider, table_of("kraken", venue)) as provider:
        newest = await provider.candles(BTC, None, 2**31, 5000)
        # Kraken keeps 720 candles of each interval.
        assert len(newest) == 720
        assert newest == sorted(newest)
        asked = len(venue.asked)
        assert asked < 6
        assert await provider.candles(BTC, newest[0].time - 10**7, newest[0].time, 500) == []
        assert len(venue.asked) - asked < 4


async def test_refusals_keep_their_meaning_and_only_the_log_has_the_words_of_the_exchange() -> None:
    wanted: dict[tuple[int, str], type[ProviderError]] = {
        (200, "EQuery:Unknown asset pair"): BadAnswer,
        (200, "EGeneral:Too many requests"): RateLimited,
        (200, "EAPI:Rate limit exceeded"): RateLimited,
        (200, "EService:Unavailable"): ProviderUnavailable,
        (200, "EGeneral:Internal error"): ProviderUnavailable,
        (429, ""): RateLimited,
        (503, ""): ProviderUnavailable,
    }
    found, waits = {}, set()
    async with stand_in("kraken") as venue:
        for status, text in wanted:
            venue.status, venue.errors, venue.headers = status, [text] if text else [], {"Retry-After": "7"}
            # One each: who asks too often is not asked again for a while.
            async with open_provider(CcxtProvider, table_of("kraken", venue)) as provider:
                with pytest.raises(ProviderError) as caught:
                    await provider.candles(BTC, None, 2**31, 5)
            found[status, text] = type(caught.value)
            assert "127.0.0.1" not in str(caught.value)
            assert text in caught.value.detail
            if isinstance(caught.value, RateLimited):
                waits.add((status, caught.value.retry_after))
        venue.status, venue.errors = 200, []
        async with open_provider(CcxtProvider, table_of("kraken", venue)) as provider:
            with pytest.raises(UnknownSymbol):
                await provider.candles(StreamKey("NO/SUCH", "1m"), None, 2**31, 5)
    assert found == wanted
    assert waits == {(200, 60.0), (429, 7.0)}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"exchange": "krakn"},
            "is not an exchange of ccxt; it has 104, such as kraken, bybit, okx, coinbase; did you",
        ),
        ({"exchange": "coinspot"}, "has no candles in ccxt (fetchOHLCV)"),
        ({"exchange": "kraken", "market_types": ["margin"]}, "types of markets are spot, swap, future"),
    ],
)
async def test_wrong_settings_are_named_with_what_would_be_right(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with open_provider(CcxtProvider, settings):
            pass
    assert said in str(caught.value)
    assert str(settings.get("market_types", [settings["exchange"]])[0]) in str(caught.value)


@pytest.mark.real_time  # a process
async def test_one_exchange_is_imported_and_the_package_is_whole_for_others() -> None:
    script = """
import sys
from providers.ccxt.library import exchange_class, exchange_names
import aiohttp.http_websocket
assert exchange_class("bybiteu").__module__ == "ccxt.pro.bybiteu"
assert {"ccxt.kraken", "ccxt.async_support.okx", "aiohttp_fast_zlib"}.isdisjoint(sys.modules), "too much is imported"
import ccxt, ccxt.async_support, ccxt.pro
assert tuple(sorted(ccxt.exchanges)) == exchange_names()
assert ccxt.pro.kraken.__module__ == "ccxt.pro.kraken" and ccxt.kraken.__module__ == "ccxt.kraken"
assert issubclass(ccxt.pro.kraken, ccxt.async_support.kraken)
assert ccxt.BadSymbol is sys.modules["ccxt.base.errors"].BadSymbol
"""
    path = ":".join([str(PLUGINS.parents[1]), *sys.path])
    await execute(sys.executable, "-c", script, environ={"PYTHONPATH": path})
