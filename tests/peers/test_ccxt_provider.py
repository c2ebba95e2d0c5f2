"""Exchanges of ccxt as providers: its classes talk to stand-ins in the venues' own formats."""

import asyncio
import importlib
import random
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from providers.ccxt import CcxtProvider
from relay.core.errors import BadAnswer, ConfigError, ProviderError, ProviderUnavailable, RateLimited, UnknownSymbol
from relay.core.model import StreamKey
from relay.testing import WatchedFeed, check_provider, open_provider
from tests.conftest import StartRelay
from tests.peers.environments import execute
from tests.support import ccxt_venues
from tests.support.okx_stand_in import OkxStandIn
from tests.support.running_relay import Running
from tests.support.troubled_kraken import TroubledKraken

# Making the environment takes a minute the first time.
pytestmark = [pytest.mark.peers, pytest.mark.timeout(300), pytest.mark.usefixtures("ccxt_library")]

PLUGINS = Path(__file__).parents[1] / "plugins"
BTC = StreamKey("BTC/USD", "1m")


def stand_in(name: str) -> Any:
    if name == "okx":
        return OkxStandIn()
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
    apis: dict[str, dict[str, Any]] = {
        "kraken": {"public": rest, "ws": {"publicV2": ws}},
        "coinbase": {"rest": rest},
        "bybit": {"public": rest, "ws": {"public": {"spot": ws}}},
        "okx": {"rest": rest, "ws": ws},
    }
    return {"exchange": name, "options": {"urls": {"api": apis[name]}}}


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


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("kraken", "BTC/USD"), ("coinbase", "BTC/USD"), ("bybit", "BTC/USDT"), ("okx", "BTC/USDT")],
)
async def test_conformance(name: str, symbol: str) -> None:
    async with stand_in(name) as venue:
        report = await check_provider(
            CcxtProvider, symbol=symbol, interval="1m", settings=table_of(name, venue), intervals=("1m", "1h", "1d")
        )
    assert {"closing", "refusal", "unknown symbol in history", f"live values of {symbol}@1m"} <= set(report.checked)


def truth(name: str, venue: Any, opened: int, minutes: int) -> list[float]:
    """Return open, high, low, close and volume of a candle that is over, as the stand-in has them."""
    if name == "kraken":
        return list(venue.candle(opened, minutes))
    if name == "coinbase":
        return [float(venue.row(opened, minutes * 60)[one]) for one in ("open", "high", "low", "close", "volume")]
    row = venue.values(opened, str(minutes)) if name == "bybit" else venue.row(opened, minutes * 60)[1:]
    return [float(text) for text in row[:5]]


@pytest.mark.parametrize(
    ("name", "quote", "how"),
    [
        ("kraken", "USD", "live by ccxt, best effort"),
        ("coinbase", "USD", "polled by ccxt every 5 s, best effort"),
        ("bybit", "USDT", "live by ccxt, best effort"),
        ("okx", "USDT", "live by ccxt, best effort"),
    ],
)
async def test_relay_serves_an_exchange_and_an_outage_leaves_nothing_out(
    name: str, quote: str, how: str, relay_with: StartRelay
) -> None:
    async with stand_in(name) as venue:
        relay = await running(relay_with, **{name: venue})
        client = await relay.connect()
        streams = [f"BTC/{quote}@1m", f"ETH/{quote}@1m", f"BTC/{quote}@5m"]
        await client.subscribe(*(f"{name}:{stream}" for stream in streams), bars=3)
        for stream in streams:
            symbol, _, interval = stream.partition("@")
            snapshot = await client.seen("snapshot", symbol=symbol, interval=interval)
            assert (snapshot["complete"], len(snapshot["candles"])) == (True, 3)
        client.read_on()
        began = len(client.received)
        # Over the end of a minute, and of five.
        await asyncio.sleep((295 - time.time()) % 300)
        await be_away(venue, 10)
        await asyncio.sleep(130)
        told = [message for message in client.received[began:] if message["type"] == "price_update"]
        assert {message["ts_event"] for message in told} == {None}
        for stream in streams:
            symbol, _, interval = stream.partition("@")
            minutes = int(interval[:-1])
            closed = [
                message["candle"]
                for message in told
                if (message["symbol"], message["interval"], message["is_closed"]) == (symbol, interval, True)
            ]
            times = [candle["time"] for candle in closed]
            assert times == list(range(times[0], times[0] + len(times) * minutes * 60, minutes * 60))
            assert times[-1] + minutes * 60 == int(time.time()) // (minutes * 60) * minutes * 60
            for candle in closed:
                assert list(candle.values())[1:] == truth(name, venue, candle["time"], minutes)
        assert not [message for message in client.received if message["type"] == "gap"]
        said = [(message["status"], message["message"]) for message in client.received if message["type"] == "status"]
        assert "reconnecting" in {status for status, _ in said}
        status, text = said[-1]
        assert status == "connected"
        assert text.startswith(how)


async def test_intervals_of_one_symbol_go_over_connections_of_their_own(relay_with: StartRelay) -> None:
    async with stand_in("kraken") as venue:
        relay = await running(relay_with, kraken=venue)
        client = await relay.connect()
        await client.subscribe("kraken:BTC/USD@1m", "kraken:BTC/USD@5m")
        for interval in ("1m", "5m"):
            await client.update(interval=interval)
        (kraken,) = [one for one in (await relay.get("status")).body["providers"] if one["name"] == "kraken"]
        assert kraken["connections"] == 2
        # Kraken has one interval of a symbol on a connection, and ccxt keeps them under one name.
        assert sorted(m["params"]["interval"] for m in venue.messages if m["method"] == "subscribe") == [1, 5]


async def test_message_that_cannot_be_read_costs_seconds() -> None:
    async with (
        TroubledKraken(random.Random(1)) as venue,
        open_provider(CcxtProvider, table_of("kraken", venue)) as provider,
        WatchedFeed(provider, [BTC]) as feed,
    ):
        assert await feed.until(lambda: feed.count(BTC), 30)
        for connects in (2, 3, 4):
            # ccxt reads it as text, which it is not.
            await venue.say(b"\xff\x00")
            assert await feed.until(partial(is_connected_to, venue, connects), 6)
            wanted = feed.count(BTC) + 3
            assert await feed.until(partial(has_heard, feed, wanted), 10)


def is_connected_to(venue: TroubledKraken, times: int) -> bool:
    return venue.connects >= times


def has_heard(feed: WatchedFeed, updates: int) -> bool:
    return feed.count(BTC) >= updates


async def test_stream_that_is_not_subscribed_is_noticed(relay_with: StartRelay) -> None:
    async with TroubledKraken(random.Random(1)) as venue:
        relay = await running(relay_with, kraken=venue)
        client = await relay.connect()
        await client.subscribe("kraken:ETH/USD@1m")
        await client.update(symbol="ETH/USD")
        venue.troubles.add("unconfirmed")
        await client.subscribe("kraken:BTC/USD@1m")
        client.read_on()
        await asyncio.sleep(10)
        venue.get_well()
        await asyncio.sleep(60)
        assert venue.connects == 2
        told = [message for message in client.received if message["type"] == "price_update"]
        assert {message["symbol"] for message in told[-6:]} == {"BTC/USD", "ETH/USD"}


async def test_stream_that_waits_to_be_subscribed_is_not_doubted() -> None:
    intervals = ("1m", "5m", "15m", "30m")
    settings = {"messages_per_second": 0.1}
    async with (
        TroubledKraken(random.Random(1)) as venue,
        open_provider(CcxtProvider, {**table_of("kraken", venue), **settings}) as provider,
        AsyncExitStack() as stack,
    ):
        wanted = [[StreamKey(symbol, interval) for symbol in ("BTC/USD", "ETH/USD")] for interval in intervals]
        feeds = [await stack.enter_async_context(WatchedFeed(provider, keys)) for keys in wanted]
        # The last ones have their turn after 70 s.
        await asyncio.sleep(150)
        assert all(feed.count(key) for feed, keys in zip(feeds, wanted, strict=True) for key in keys)
        assert [feed.closing for feed in feeds] == [[], [], [], []]
        assert venue.asked == []


async def test_streams_that_come_together_are_subscribed_with_one_message() -> None:
    keys = [StreamKey(symbol, "1m") for symbol in ("BTC/USDT", "ETH/USDT", "BTC/USDT:USDT")]
    settings = {"market_types": ["spot", "swap"]}
    async with (
        stand_in("okx") as venue,
        open_provider(CcxtProvider, {**table_of("okx", venue), **settings}) as provider,
        WatchedFeed(provider, [*keys, StreamKey("NO/SUCH", "1m")]) as feed,
    ):
        assert await feed.until(lambda: feed.rejected and all(map(feed.count, keys)), 30)
        assert feed.rejected == {StreamKey("NO/SUCH", "1m"): "the exchange does not list it: NO/SUCH@1m"}
        assert sorted(len(message["args"]) for message in venue.messages) == [1, 2]
        listed = {one.symbol: (one.asset_class, one.status) for one in await provider.instruments()}
        assert listed["BTC/USDT:USDT"] == ("future", "trading")
        assert listed["OLD/USDT"] == ("crypto", "paused")


async def test_days_that_begin_elsewhere_live_are_taken_from_history() -> None:
    # ccxt asks OKX for days of UTC in history, and for days of Hong Kong live.
    day, hours = StreamKey("BTC/USDT", "1d"), StreamKey("BTC/USDT", "4h")
    async with (
        stand_in("okx") as venue,
        open_provider(CcxtProvider, table_of("okx", venue)) as provider,
        WatchedFeed(provider, [day]) as feed,
        WatchedFeed(provider, [hours]) as other,
    ):
        assert await feed.until(lambda: feed.count(day) > 3, 200)
        assert {update.candle.time % 86_400 for update in feed.updates} == {0}
        asked = len(venue.asked)
        assert await other.until(lambda: other.count(hours) > 100, 200)
        assert len(venue.asked) <= asked + 4


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


async def test_wrong_type_of_markets_is_named_with_those_that_there_are() -> None:
    async with (
        stand_in("kraken") as venue,
        open_provider(CcxtProvider, {**table_of("kraken", venue), "market_types": ["swap"]}) as provider,
    ):
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.instruments()
        said = "Kraken lists no markets of the types swap (market_types); ccxt says that it has spot"
        assert str(caught.value) == said


def test_page_of_exchanges_says_what_ccxt_says() -> None:
    assert ccxt_venues.PAGE.read_text(encoding="utf-8") == ccxt_venues.page(), "python -m tests.support.ccxt_venues"


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
