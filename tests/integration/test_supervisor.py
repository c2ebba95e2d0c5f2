"""Feeds come and go, exchanges have their oddities, clocks are wrong: what clients get stays whole."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import pytest

from providers import BUILTIN
from providers.binance import BinanceProvider
from providers.twelve_data import TwelveDataProvider
from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import SUPERVISORS, RelayLimits
from relay.core.clock import Clock
from relay.supervision.supervisor import Supervisor
from relay.supervision.timing import FeedTiming
from tests.support.conditions import eventually
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox
from tests.support.soak import Habit, MarketTruth, SoakClient, StreamCheck
from tests.support.transports import Transport

StartRelay = Callable[..., Awaitable[Running]]

STREAMS = ("BTCUSDT@1s", "ETHUSDT@1s", "DOGEUSDT@1s", "LRCBTC@1s", "BTCUSDT@1m")

# Of two connections the new one may be read first: what the old one has still to say is then asked of history.
UNBROKEN = {"connected", "backfilling"}


class Patient(BinanceProvider):
    """Binance whose late candles are not asked for: a pause of the machine causes no backfill, only a hole does."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(close_grace_s=60.0)


class ShortLived(Patient):
    """Binance, were its connections to live for a second."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(feed_life_s=1.0)


class Sampler:
    """Watches what is true for a moment only: feeds at once, states of streams."""

    def __init__(self, relay: Running) -> None:
        self.most_feeds = 0
        self.states: set[str] = set()
        self._relay = relay

    async def watch(self) -> None:
        while True:
            self.most_feeds = max(self.most_feeds, binance(self._relay).open_feeds)
            self.states |= {stream.status for stream in self._relay.hub.streams.values()}
            await asyncio.sleep(0.005)


def binance(relay: Running) -> Supervisor:
    return relay.app[SUPERVISORS]["binance"]


def connects_exceed(sandbox: Sandbox, number: int) -> bool:
    return sandbox.binance.connects > number


def has_delivered(check: StreamCheck, candles: int) -> bool:
    return check.delivered >= candles


@asynccontextmanager
async def watching(
    relay: Running, sandbox: Sandbox, names: Iterable[str] = STREAMS, **options: object
) -> AsyncIterator[tuple[SoakClient, Sampler]]:
    """Have one client follow streams and check them, from when all are live; it must find nothing wrong."""
    truths = {name: MarketTruth(sandbox.binance, *name.split("@")) for name in names}
    client = SoakClient("client", relay.url, Habit(dict(options)), truths, sandbox.clock.now, random.Random(1))
    client.stays = True
    sampler = Sampler(relay)
    tasks = [asyncio.create_task(client.run())]
    try:
        await eventually(lambda: [s.status for s in relay.hub.streams.values()] == ["connected"] * len(truths))
        tasks.append(asyncio.create_task(sampler.watch()))
        yield client, sampler
        now = sandbox.clock.now()
        await eventually(lambda: all(check.is_settled(now) for check in client.checks.values()), 30)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert client.violations == []


async def test_ten_rotations_leave_no_hole_and_never_more_than_two_connections(
    sandbox: Sandbox, record_property: Callable[[str, object], None]
) -> None:
    relay = await start_relay(sandbox, builtin=(ShortLived, TwelveDataProvider))
    try:
        async with watching(relay, sandbox) as (client, sampler):
            supervisor = binance(relay)
            await eventually(lambda: supervisor.attempts.sentences["rotation before the provider's limit"] >= 10, 60)
            await eventually(lambda: supervisor.open_feeds == 1)
            connects = sandbox.binance.connects
            rotations = supervisor.attempts.sentences["rotation before the provider's limit"]
        record_property("connections opened during 10 rotations", connects)
        print(f"connections opened during 10 rotations: {connects}")
        # The first one, one for each rotation, and one that may be under way.
        assert connects <= rotations + 2
        assert sampler.most_feeds <= 2
        assert sandbox.binance.most_connections == 2
        assert sampler.states <= UNBROKEN
        assert [check.gaps for check in client.checks.values()] == [[]] * len(STREAMS)
    finally:
        await relay.close()


async def test_an_announced_shutdown_is_met_with_a_new_connection_before_the_old_one_ends(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(builtin=(Patient, TwelveDataProvider))
    async with watching(relay, sandbox) as (_, sampler):
        for number in range(1, 4):
            # Longer than a busy machine pauses: what counts is that the new connection comes first.
            sandbox.binance.announce_shutdown(close_after_s=20.0)
            await eventually(partial(connects_exceed, sandbox, number))
            await eventually(lambda: binance(relay).open_feeds == 1)
    assert sandbox.binance.connects == 4
    assert sandbox.binance.most_connections == 2
    assert sampler.states <= UNBROKEN


async def test_a_rotation_waits_while_the_exchange_takes_no_connections(sandbox: Sandbox) -> None:
    relay = await start_relay(sandbox, builtin=(ShortLived, TwelveDataProvider))
    try:
        async with watching(relay, sandbox) as (_, sampler):
            sandbox.binance.faults.refuse(503)
            refused = len(sandbox.binance.connect_log)
            await eventually(lambda: len(sandbox.binance.connect_log) >= refused + 2)
            assert sampler.states <= UNBROKEN
            sandbox.binance.faults.accept()
            before = sandbox.binance.connects
            await eventually(lambda: sandbox.binance.connects > before)
        assert sandbox.binance.most_connections == 2
    finally:
        await relay.close()


async def test_an_outage_of_the_exchange_leaves_no_candles_and_no_gap(relay: Running, sandbox: Sandbox) -> None:
    async with watching(relay, sandbox) as (client, _):
        start = int(sandbox.clock.now()) + 2
        sandbox.binance.hide("BTCUSDT", start, start + 3)
        check = client.checks["BTCUSDT@1s"]
        await eventually(lambda: (check.last_closed or 0) > start + 3)
        assert not {start, start + 1, start + 2} & set(check.closed)
        assert check.gaps == []
        assert client.checks["ETHUSDT@1s"].closed.keys() >= {start, start + 1, start + 2}


async def test_a_candle_cut_short_by_an_outage_is_what_the_exchange_says_it_is() -> None:
    async with Sandbox(speed=20.0, pace_s=0.1, forex_always_open=True) as sandbox:
        relay = await start_relay(sandbox)
        try:
            async with watching(relay, sandbox, ["BTCUSDT@1m"]) as (client, _):
                minute = (int(sandbox.clock.now()) // 60 + 2) * 60
                sandbox.binance.hide("BTCUSDT", minute + 20, minute + 120)
                check = client.checks["BTCUSDT@1m"]
                await eventually(lambda: (check.last_closed or 0) > minute + 120, 30)
                assert minute in check.closed
                assert minute + 60 not in check.closed
        finally:
            await relay.close()


async def test_a_quiet_pair_whose_exchange_closes_traded_candles_only_is_complete() -> None:
    # A minute of this exchange: history is asked once an interval.
    limits = RelayLimits(feeds=FeedTiming(least_ask_pause_s=3.0, most_ask_pause_s=3.0))
    async with Sandbox(speed=20.0, pace_s=0.1, closings="traded", forex_always_open=True) as sandbox:
        relay = await start_relay(sandbox, limits=limits)
        try:
            async with watching(relay, sandbox, ["LRCBTC@1m", "BTCUSDT@1m"]) as (client, _):
                check = client.checks["LRCBTC@1m"]
                await eventually(lambda: check.delivered >= 2, 60)
        finally:
            await relay.close()


@pytest.mark.parametrize("symbol", ["BTCUSDT", "XRPUSDT", "SOLUSDT", "DOGEUSDT"])
async def test_three_day_candles_come_with_the_phase_of_their_pair(
    relay: Running, sandbox: Sandbox, symbol: str
) -> None:
    async with watching(relay, sandbox, [f"{symbol}@3d"], bars=12) as (client, _):
        check = client.checks[f"{symbol}@3d"]
        await eventually(lambda: check.delivered == 11 and check.last is not None and not check.last[2])


async def test_a_wall_clock_that_jumps_or_runs_behind_changes_nothing(sandbox: Sandbox) -> None:
    wrong_by_s = -3 * 3600.0
    clock = Clock(wall=lambda: time.time() + wrong_by_s)
    relay = await start_relay(sandbox, clock=clock)
    try:
        async with watching(relay, sandbox, bars=30) as (client, sampler):
            check = client.checks["BTCUSDT@1s"]
            for jump_s in (5 * 3600.0, -86_400.0, 2.0):
                wrong_by_s += jump_s
                await eventually(partial(has_delivered, check, check.delivered + 2))
            sandbox.binance.faults.drop()
            await eventually(partial(has_delivered, check, check.delivered + 3))
        assert sampler.states <= {"connected", "reconnecting", "backfilling"}
    finally:
        await relay.close()


class NoHistory:
    """A provider of one candle a tenth of a second that ends every now and then and cannot tell what was."""

    def __init__(self) -> None:
        self.at = 1_764_000_000
        self.feeds = 0

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("bare", API_VERSION, "Bare", ("demo",), ("1s",))

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        self.feeds += 1
        for _ in range(5):
            for key in watchlist.streams:
                now = int(time.time())
                yield PriceUpdate(key, Candle(now, 1.0, 1.0, 1.0, 1.0), is_closed=False)
            await asyncio.sleep(0.1)


async def test_a_provider_without_history_that_comes_back_says_what_is_missing(
    sandbox: Sandbox, over: Transport
) -> None:
    bare = NoHistory()
    relay = await start_relay(sandbox, builtin=(*BUILTIN, bare))
    try:
        client = await over.subscriber(relay, "bare:X@1s")
        first = await client.update()
        told = await client.until_type("gap")
        later = await client.update()
        assert told["from"] >= first["candle"]["time"]
        assert told["to"] <= later["candle"]["time"]
        assert bare.feeds >= 1
    finally:
        await relay.close()


class SmallFeeds(BinanceProvider):
    """Binance with room for twenty streams on a connection, and a list that is looked at every second."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(streams_per_feed=20, instruments_ttl_s=1.0)


async def test_more_streams_than_a_connection_carries_are_spread_over_several(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(builtin=(SmallFeeds, TwelveDataProvider))
    client = await relay.connect()
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")
    names = [
        f"{symbol}@{i}" for symbol in symbols for i in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h")
    ]
    await client.subscribe(*names)
    await eventually(lambda: len(sandbox.binance.subscribed) == 50)
    assert sandbox.binance.connections == 3
    assert max(map(len, sandbox.binance.subscriptions.values())) == 20
    seen: set[tuple[str, str]] = set()
    while len(seen) < 50:
        update = await client.update()
        seen.add((update["symbol"], update["interval"]))


async def test_a_pair_that_stops_trading_is_paused_until_it_trades_again_and_harms_no_other(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    limits = RelayLimits(feeds=FeedTiming(halt_silence_s=1.0))
    relay = await relay_with(builtin=(SmallFeeds, TwelveDataProvider), limits=limits)
    client = await relay.connect()
    await client.subscribe("DOGEUSDT@1m", "BTCUSDT@1m")
    await client.update(symbol="DOGEUSDT")
    sandbox.binance.set_status("DOGEUSDT", "BREAK")
    state = await client.until_type("status", symbol="DOGEUSDT", status="market_closed")
    assert state["message"] == "Binance has paused trading in DOGEUSDT until the next price"
    await client.update(symbol="BTCUSDT")
    rows = (await relay.get("instruments", asset_class="crypto")).body
    assert next(row["status"] for row in rows if row["symbol"] == "DOGEUSDT") == "paused"
    await client.subscribe("DOGEUSDT@5m")
    await client.seen("status", symbol="DOGEUSDT", interval="5m", status="market_closed")
    sandbox.binance.set_status("DOGEUSDT", "TRADING")
    for interval in ("1m", "5m"):
        await client.seen("status", symbol="DOGEUSDT", interval=interval, status="connected")
        await client.update(symbol="DOGEUSDT", interval=interval)
