import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import aiohttp
import pytest

from providers.binance import BinanceProvider
from providers.twelve_data import TwelveDataProvider
from providers.twelve_data.tick_codec import TickCodec, ticks_of
from providers.twelve_data.tick_source import TickSource
from providers.twelve_data.waits import WAITS, Waits
from relay import (
    Accepted,
    AuthenticationFailed,
    Candle,
    Clock,
    Hosts,
    PriceUpdate,
    Rejected,
    Secret,
    StreamKey,
    Watchlist,
)
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.moments import at
from tests.support.pump import Pump
from tests.support.running_relay import Message
from tests.support.sandbox import Sandbox, TwelveDataStandIn
from tests.support.twelve_data_plugin import KEY, FakeTime, Plugin

EUR = StreamKey("EUR/USD", "1m")
LOG = "providers.twelve_data.tick_source"


class Exchange(TwelveDataStandIn):
    """A stand-in whose ticks and candles are what a test says; numbers are minutes after 12:00."""

    noon = at("2026-01-14 12:00:00")

    def bars(self, *rows: tuple[float, ...], symbol: str = "EUR/USD", start: int | None = None) -> None:
        """Set the candles that REST has: minute, open, high, low, close."""
        first = self.noon if start is None else start
        names = ("open", "high", "low", "close")
        values = [
            {"datetime": datetime.fromtimestamp(first + row[0] * 60, UTC).strftime("%Y-%m-%d %H:%M:%S")}
            | {name: str(price) for name, price in zip(names, row[1:], strict=True)}
            for row in reversed(rows)
        ]
        self.serve_rows(symbol, "1min", {"meta": {}, "values": values})


# What waits by the machine's clock looks at the exchange's more often: a test moves that by minutes at once.
IMPATIENT = Waits(plan_s=0.02, look_s=0.02, least_retry_s=0.05)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime("2026-01-14 11:59:50")


@pytest.fixture
async def exchange(time: FakeTime) -> AsyncIterator[Exchange]:
    async with Exchange(clock=time, api_key=KEY, credits_per_minute=50, credits_per_day=50_000) as exchange:
        exchange.faults.mute()
        exchange.bars((-2, 1, 1, 1, 1), (-1, 1, 1.2, 0.9, 1.1))
        yield exchange


@pytest.fixture
async def plugin(exchange: Exchange, time: FakeTime) -> AsyncIterator[Plugin]:
    async with aiohttp.ClientSession() as session:
        yield plugin_of(session, exchange, time)


def plugin_of(
    session: aiohttp.ClientSession, exchange: Exchange, time: FakeTime, waits: Waits = IMPATIENT, **settings: object
) -> Plugin:
    limits = {"credits_per_minute": 50, "credits_per_day": 50_000, "poll_seconds": 5}
    plugin = Plugin(session, [exchange.rest_url], time, waits=waits)
    plugin.settings |= {"mode": "stream", "ws_url": (exchange.ws_url,), **limits, **settings}
    return plugin


def told(feed: Pump, since: int = 0) -> list[tuple[float, ...]]:
    """Minutes after 12:00, open, high, low, close, closed, without what is repeated."""
    rows = [
        ((update.candle.time - Exchange.noon) / 60, *update.candle[1:5], update.is_closed)
        for update in feed.updates[since:]
    ]
    return [row for row, before in zip(rows, [None, *rows], strict=False) if row != before]


async def tick(feed: Pump, exchange: Exchange, time: FakeTime, price: float, clock: str) -> None:
    """Send a tick at a time of that day and wait until the newest candle shows it."""
    time.at = at(f"2026-01-14 {clock}") + 0.5
    exchange.inject("EUR/USD", price, at(f"2026-01-14 {clock}"))
    await feed.until(lambda: told(feed)[-1][4] == price)


async def first_poll(feed: Pump, exchange: Exchange) -> None:
    """Wait until the tick stream is accepted and the first poll was told."""
    await eventually(lambda: exchange.subscribed == ["EUR/USD"])
    await feed.until(lambda: bool(feed.updates) and (EUR, "") in feed.remarks and feed.accepted != [])


# ---- candles ----------------------------------------------------------------------------------------------------


async def test_a_first_candle_is_completed_by_the_provider_and_the_next_is_built_of_ticks(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.inject("EUR/USD", 1.15, at("2026-01-14 11:59:55"))
        await feed.until(lambda: told(feed)[-1] == (-1, 1, 1.2, 0.9, 1.15, False))
        exchange.bars((-1, 1, 1.3, 0.9, 1.2), (0, 1.2, 1.2, 1.2, 1.2))
        exchange.inject("EUR/USD", 1.2, at("2026-01-14 12:00:01"))
        time.at = at("2026-01-14 12:00:05")
        await feed.until(lambda: len(told(feed)) >= 4)
        assert told(feed)[2:4] == [(-1, 1, 1.3, 0.9, 1.2, True), (0, 1.2, 1.2, 1.2, 1.2, False)]
        for price, clock in ((1.4, "12:00:20"), (1.1, "12:00:40"), (1.25, "12:00:59")):
            await tick(feed, exchange, time, price, clock)
        time.at = at("2026-01-14 12:01:02")
        await feed.until(lambda: told(feed)[-1] == (0, 1.2, 1.4, 1.1, 1.25, True))


async def test_a_closed_candle_is_confirmed_and_the_difference_told(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.1, 1.1, 1.1))
        exchange.inject("EUR/USD", 1.1, at("2026-01-14 12:00:02"))
        time.at = at("2026-01-14 12:00:05")
        await feed.until(lambda: told(feed)[-1][0] == 0)
        time.at = at("2026-01-14 12:01:02.5")
        await feed.until(lambda: told(feed)[-1] == (0, 1.1, 1.1, 1.1, 1.1, True))
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.15, 1.05, 1.12), (1, 1.12, 1.12, 1.12, 1.12))
        time.at = at("2026-01-14 12:01:05")
        await feed.until(lambda: told(feed)[-1][0] == 1)
        assert told(feed)[-2:] == [(0, 1.1, 1.15, 1.05, 1.12, True), (1, 1.12, 1.12, 1.12, 1.12, False)]


async def test_an_absurd_tick_touches_no_candle_and_a_crash_is_told_with_its_second_tick(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.1, 1.1, 1.1))
        time.at = at("2026-01-14 12:00:05")
        await feed.until(lambda: told(feed)[-1] == (0, 1.1, 1.1, 1.1, 1.1, False))
        for price in (1100.0, 1e300):
            exchange.inject("EUR/USD", price, at("2026-01-14 12:00:06"))
        await tick(feed, exchange, time, 1.2, "12:00:07")
        assert told(feed)[-1] == (0, 1.1, 1.2, 1.1, 1.2, False)
        assert feed.skipped == [
            f"the price of a tick of EUR/USD is far from the ticks around it: {price}" for price in (1100.0, 1e300)
        ]
        exchange.inject("EUR/USD", 0.1, at("2026-01-14 12:00:08"))
        await tick(feed, exchange, time, 0.11, "12:00:09")
        assert told(feed)[-1] == (0, 1.1, 1.2, 0.1, 0.11, False)


async def test_a_client_sees_the_difference_as_a_revision(relay_with: StartRelay) -> None:
    # A Wednesday noon to come: the hour decides when polls are. The relay's clock goes on with the exchange's, since no
    # candle closes before its end.
    week = 7 * 86_400
    start = (int(datetime.now(UTC).timestamp()) // week + 2) * week - 43_200
    time = FakeTime()
    time.at = start - 10.0
    clock = Clock(wall=time.now, monotonic=lambda: time.at - 1000.0)
    provider = TwelveDataProvider(clock, IMPATIENT)
    # As many credits as the table says: the fewer, the more the time of day decides when the next poll is.
    exchange = Exchange(clock=time, api_key=KEY, credits_per_minute=50, credits_per_day=50_000)
    async with Sandbox() as sandbox, exchange:
        exchange.faults.mute()
        exchange.bars((-2, 1, 1, 1, 1), (-1, 1, 1.2, 0.9, 1.1), start=start)
        table = {
            "mode": "stream", "ws_url": exchange.ws_url, "rest_url": exchange.rest_url, "api_key": KEY,
            "poll_seconds": 5, "credits_per_minute": 50, "credits_per_day": 50_000,
        }  # fmt: skip
        relay = await relay_with(
            sandbox=sandbox,
            builtin=(BinanceProvider, provider),
            tables={"twelve_data": table},
            clock=clock,
        )
        client = await relay.connect()
        await client.subscribe("EUR/USD@1m")
        await client.update(is_closed=False)
        await eventually(lambda: exchange.subscribed == ["EUR/USD"])
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.1, 1.1, 1.1), start=start)
        exchange.inject("EUR/USD", 1.1, start + 2)
        time.at = start + 5.0
        await client.until(lambda message: of(message, start))
        time.at = start + 62.5
        closing = await client.until(lambda message: of(message, start, is_closed=True))
        exchange.bars((0, 1.1, 1.15, 1.05, 1.12), (1, 1.12, 1.12, 1.12, 1.12), start=start)
        time.at = start + 70.0
        revision = await client.until(lambda message: of(message, start, is_closed=True))
        assert (closing["candle"]["close"], closing.get("revised")) == (1.1, None)
        assert (revision["candle"]["close"], revision["revised"]) == (1.12, True)


def of(message: Message, opened: int, *, is_closed: bool = False) -> bool:
    """Say whether a message is the update of a candle in this state."""
    if message["type"] != "price_update":
        return False
    return (message["candle"]["time"], message["is_closed"]) == (opened, is_closed)


async def test_a_silent_minute_is_asked_of_the_provider_before_the_next_candle_is_told(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.1, 1.1, 1.1), (1, 1.1, 1.1, 1.1, 1.1), (2, 1.3, 1.3, 1.3, 1.3))
        exchange.inject("EUR/USD", 1.3, at("2026-01-14 12:02:01"))
        time.at = at("2026-01-14 12:02:04")
        await feed.until(lambda: told(feed)[-1][0] == 2)
        assert [(row[0], row[-1]) for row in told(feed)[-4:]] == [(-1, True), (0, True), (1, True), (2, False)]


async def test_a_late_tick_does_not_reopen_a_candle(exchange: Exchange, plugin: Plugin, time: FakeTime) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.1, 1.1, 1.1))
        time.at = at("2026-01-14 12:00:05")
        await feed.until(lambda: told(feed)[-1][0] == 0)
        count = len(feed.updates)
        exchange.inject("EUR/USD", 9.9, at("2026-01-14 11:59:58"))
        exchange.inject("EUR/USD", 1.2, at("2026-01-14 12:00:04"))
        await feed.until(lambda: told(feed)[-1] == (0, 1.1, 1.2, 1.1, 1.2, False))
        assert [row[0] for row in told(feed, count)] == [0]


async def test_outside_the_session_ticks_make_no_candles(exchange: Exchange, plugin: Plugin, time: FakeTime) -> None:
    friday = at("2026-01-16 21:59:00")
    time.at = friday - 20.0
    exchange.bars((-2, 1, 1, 1, 1), (-1, 1, 1, 1, 1), start=friday)
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.bars((-1, 1, 1, 1, 1), (0, 1, 1.2, 0.9, 1.1), start=friday)
        time.at = friday + 10.0
        await feed.until(lambda: feed.updates[-1].candle.time == friday)
        time.at = friday + 60.5
        exchange.inject("EUR/USD", 5.5, friday + 60)
        await feed.until(lambda: [status for _, status, _ in feed.paused] == ["market_closed"])
        assert not feed.updates[-1].is_closed
        time.at = friday + 62.5
        exchange.inject("EUR/USD", 5.6, friday + 62)
        await feed.until(lambda: feed.updates[-1].is_closed)
        # It need not be said again after the last candle: the relay knows the hours.
        assert [status for _, status, _ in feed.paused] == ["market_closed"]
        assert feed.updates[-1].candle == Candle(friday, 1, 1.2, 0.9, 1.1)
        assert {update.candle.time - friday for update in feed.updates} == {-60, 0}
        assert "2026-01-18T22:00:00Z" in feed.paused[-1][2]


@pytest.mark.parametrize(("interval", "name", "opened"), [("4h", "4h", 20), ("1d", "1day", 0)])
async def test_a_candle_in_which_the_market_closed_is_closed_for_a_stream_that_began_afterwards(
    exchange: Exchange, plugin: Plugin, time: FakeTime, interval: str, name: str, opened: int
) -> None:
    time.at = at("2026-01-16 23:00:00")
    label = f"2026-01-16 {opened:02}:00:00"
    bar = {"datetime": label, "open": "1", "high": "1.2", "low": "0.9", "close": "1.1"}
    exchange.serve_rows("EUR/USD", name, {"meta": {}, "values": [bar]})
    async with plugin.pump(f"EUR/USD@{interval}") as feed:
        await feed.until(lambda: bool(feed.updates))
        await eventually(lambda: exchange.subscribed == ["EUR/USD"])
        time.at = at("2026-01-17 00:00:05")
        exchange.inject("EUR/USD", 9.9, at("2026-01-17 00:00:04"))
        time.at = at("2026-01-17 00:01:05")
        await feed.until(lambda: feed.updates[-1].is_closed)
        assert feed.updates[-1].candle == Candle(at(label), 1, 1.2, 0.9, 1.1)
        assert [update.is_closed for update in feed.updates].count(True) == 1


async def test_ticks_that_come_while_the_market_is_closed_make_no_stream_live(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    time.at = at("2026-01-17 12:00:00")
    async with plugin.pump("EUR/USD@1m") as feed:
        await feed.until(lambda: bool(feed.paused))
        await eventually(lambda: exchange.subscribed == ["EUR/USD"])
        exchange.inject("EUR/USD", 1.1, int(time.at))
        feed.watchlist.add(StreamKey("EUR/USD", "5m"))
        await feed.until(lambda: len(feed.paused) == 2)
        exchange.faults.drop()
        await eventually(lambda: exchange.connects == 2 and exchange.subscribed == ["EUR/USD"])
        assert {status for _, status, _ in feed.paused} == {"market_closed"}
        assert (feed.accepted, feed.updates) == ([], [])


async def test_the_first_tick_after_closed_hours_is_told_without_a_poll(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    sunday = at("2026-03-08 21:00:00")
    time.at = sunday - 60.0
    async with plugin.pump("EUR/USD@1m") as feed:
        await feed.until(lambda: bool(feed.paused))
        await eventually(lambda: exchange.subscribed == ["EUR/USD"])
        exchange.faults.answer_rest(500, b"{}")
        exchange.inject("EUR/USD", 9.9, sunday - 61)
        time.at = sunday + 2.5
        exchange.inject("EUR/USD", 1.1, sunday)
        await feed.until(lambda: bool(feed.updates))
        assert feed.updates[0].candle == Candle(sunday, 1.1, 1.1, 1.1, 1.1)


# ---- when there are no ticks ------------------------------------------------------------------------------------


async def test_polls_take_over_while_the_tick_stream_is_refused_and_say_so(
    exchange: Exchange, plugin: Plugin, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exchange.faults.refuse(403)
    async with plugin.pump("EUR/USD@1m") as feed:
        await feed.until(lambda: any("HTTP 403" in message for _, message in feed.remarks))
        await feed.until(lambda: feed.accepted == [EUR])
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.1, 1.1, 1.1))
        time.at = at("2026-01-14 12:00:20")
        await feed.until(lambda: told(feed)[-1:] == [(0, 1.1, 1.1, 1.1, 1.1, False)])
        assert told(feed)[-2] == (-1, 1, 1.2, 0.9, 1.1, True)
        await eventually(lambda: len(exchange.connect_log) >= 3)
        exchange.faults.accept()
        await feed.until(lambda: feed.remarks[-1] == (EUR, ""))
        exchange.inject("EUR/USD", 1.4, at("2026-01-14 12:00:22"))
        await feed.until(lambda: told(feed)[-1] == (0, 1.1, 1.4, 1.1, 1.4, False))
    lines = [record.message for record in caplog.records if record.name == LOG]
    assert [line.split(":")[1].strip() for line in lines] == [
        "no tick stream, polling only",
        "the tick stream is back",
    ]
    assert feed.error is None


async def test_a_client_is_told_that_polls_took_over_and_that_ticks_are_back(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(tables={"twelve_data": {"mode": "stream"}})
    client = await relay.connect()
    await client.subscribe("EUR/USD@1m")
    await client.until_type("status", status="connected")
    await eventually(lambda: sandbox.twelve_data.subscribed == ["EUR/USD"])
    sandbox.twelve_data.faults.refuse(403)
    sandbox.twelve_data.faults.drop()
    fallen = await client.until(lambda message: "polling" in message.get("message", ""))
    assert (fallen["type"], fallen["status"]) == ("status", "connected")
    streams = (await relay.get("status")).body["streams"]
    assert [stream["message"][:7] for stream in streams if stream["symbol"] == "EUR/USD"] == ["polling"]
    sandbox.twelve_data.faults.accept()
    await client.until(lambda message: message.get("message") == "live")


async def test_candles_that_closed_while_the_connection_was_lost_are_not_lost(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.faults.refuse(503)
        exchange.faults.drop()
        await feed.until(lambda: "not available" in feed.remarks[-1][1])
        rows = [(minute, 1, 1 + minute / 100, 1, 1) for minute in range(5)]
        exchange.bars((-1, 1, 1.2, 0.9, 1.1), *rows)
        time.at = at("2026-01-14 12:04:10")
        exchange.faults.accept()
        await feed.until(lambda: feed.remarks[-1] == (EUR, ""))
        exchange.inject("EUR/USD", 1.5, at("2026-01-14 12:04:20"))
        time.at = at("2026-01-14 12:04:20.5")
        await feed.until(lambda: told(feed)[-1] == (4, 1, 1.5, 1, 1.5, False))
        closed = [(row[0], row[2]) for row in told(feed) if row[-1]]
        assert closed == [(-1, 1.2), (0, 1), (1, 1.01), (2, 1.02), (3, 1.03)]


async def test_one_connection_too_many_falls_back_to_polls_and_comes_back(exchange: Exchange, plugin: Plugin) -> None:
    exchange.stream_connections = 1
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        url = f"{exchange.ws_url}?apikey={KEY}"
        async with aiohttp.ClientSession() as session, session.ws_connect(url):
            await feed.until(lambda: any("closed the connection" in message for _, message in feed.remarks))
        await feed.until(lambda: feed.remarks[-1] == (EUR, ""))
        assert exchange.connects >= 3


async def test_a_symbol_without_ticks_is_polled_and_the_others_are_not_harmed(
    exchange: Exchange, plugin: Plugin
) -> None:
    exchange.stream_symbols = 1
    exchange.null_lists = True
    exchange.bars((-1, 2, 2, 2, 2), symbol="GBP/USD")
    gbp = StreamKey("GBP/USD", "1m")
    async with plugin.pump("EUR/USD@1m", "GBP/USD@1m") as feed:
        await feed.until(lambda: any(key == gbp and "limit of symbols" in text for key, text in feed.remarks))
        await feed.until(lambda: {update.key for update in feed.updates} == {EUR, gbp})
        exchange.inject("EUR/USD", 1.15, at("2026-01-14 11:59:50"))
        await feed.until(lambda: feed.updates[-1].candle.close == 1.15)
        assert feed.rejected == []
        assert [message for key, message in feed.remarks if key == EUR and message] == []


async def test_a_symbol_whose_ticks_stay_away_is_polled_until_they_come(
    exchange: Exchange, plugin: Plugin, time: FakeTime
) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        time.at += 130
        await feed.until(lambda: "no tick arrived" in feed.remarks[-1][1])
        exchange.inject("EUR/USD", 1.3, int(time.at))
        await feed.until(lambda: feed.remarks[-1] == (EUR, ""))


async def test_ticks_go_on_without_credits_and_without_them_the_stream_is_throttled(
    exchange: Exchange, time: FakeTime
) -> None:
    async with aiohttp.ClientSession() as session:
        plugin = plugin_of(session, exchange, time)
        async with plugin.pump("EUR/USD@1m") as feed:
            await first_poll(feed, exchange)
            exchange.bars((-1, 1, 1.2, 0.9, 1.1), (0, 1.1, 1.1, 1.1, 1.1))
            exchange.inject("EUR/USD", 1.1, at("2026-01-14 12:00:02"))
            time.at = at("2026-01-14 12:00:05")
            await feed.until(lambda: told(feed)[-1][0] == 0)
            plugin.provider.account(plugin.settings).credits.exhaust_day()
            await tick(feed, exchange, time, 1.2, "12:00:30")
            time.at = at("2026-01-14 12:01:10")
            await feed.until(lambda: told(feed)[-1] == (0, 1.1, 1.2, 1.1, 1.2, True))
            await tick(feed, exchange, time, 1.3, "12:01:12")
            assert feed.paused == []
            exchange.faults.refuse(503)
            exchange.faults.drop()
            await feed.until(lambda: bool(feed.paused))
            assert feed.paused[-1][1] == "throttled"


async def test_ticks_go_on_while_rest_is_down(exchange: Exchange, plugin: Plugin, time: FakeTime) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.faults.answer_rest(500)
        time.at = at("2026-01-14 12:00:05")
        await feed.until(lambda: any("polling failed" in reason for reason in feed.skipped))
        exchange.inject("EUR/USD", 1.3, at("2026-01-14 12:00:05"))
        time.at = at("2026-01-14 12:00:40")
        await feed.until(lambda: told(feed)[-1] == (0, 1.3, 1.3, 1.3, 1.3, False))
        assert not feed.has_ended


async def test_the_feed_ends_when_neither_ticks_nor_polls_work(exchange: Exchange, plugin: Plugin) -> None:
    exchange.faults.refuse(503)
    exchange.faults.answer_rest(500)
    async with plugin.pump("EUR/USD@1m") as feed:
        assert await feed.end() is not None


async def test_a_tick_from_the_future_is_counted_and_skipped(exchange: Exchange, plugin: Plugin) -> None:
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.inject("EUR/USD", 9.9, at("2026-01-14 12:05:00"))
        exchange.inject("EUR/USD", 1.15, at("2026-01-14 11:59:50"))
        await feed.until(lambda: told(feed)[-1][4] == 1.15)
        assert feed.skipped == [f"a tick of EUR/USD has a time in the future: {at('2026-01-14 12:05:00')}"]


async def test_a_tick_that_was_under_way_when_the_connection_was_lost_is_of_no_use(exchange: Exchange) -> None:
    async with aiohttp.ClientSession() as session:
        source = TickSource(
            session, Hosts([exchange.ws_url]), Secret(KEY), on_change=lambda *_: None, on_skip=lambda _: None,
            monotonic=exchange.clock.now, now=exchange.clock.now, waits=IMPATIENT,
        )  # fmt: skip
        source.want("EUR/USD")

        async def take(_: PriceUpdate) -> None:
            return

        task = asyncio.create_task(source.listen(take))
        await eventually(lambda: source.is_live)
        assert source.hear("EUR/USD")
        exchange.faults.refuse(503)
        exchange.faults.drop()
        await eventually(lambda: not source.is_live)
        assert not source.hear("EUR/USD")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_heartbeat_is_kept(exchange: Exchange, plugin: Plugin, time: FakeTime) -> None:
    assert WAITS.heartbeat_s == 10
    lively = plugin_of(plugin.session, exchange, time, IMPATIENT._replace(heartbeat_s=0.05))
    async with lively.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        await eventually(lambda: sum("heartbeat" in message.text for message in exchange.control_messages) >= 3)
        assert feed.skipped == []


async def test_streams_of_a_symbol_share_its_ticks(exchange: Exchange, plugin: Plugin) -> None:
    bar = {"datetime": "2026-01-14 11:55:00", "open": "1", "high": "1.2", "low": "0.9", "close": "1.1"}
    exchange.serve_rows("EUR/USD", "5min", {"meta": {}, "values": [bar]})
    five = StreamKey("EUR/USD", "5m")
    async with plugin.pump("EUR/USD@1m", "EUR/USD@5m") as feed:
        await feed.until(lambda: {update.key for update in feed.updates} == {EUR, five})
        await eventually(lambda: exchange.subscribed == ["EUR/USD"])
        exchange.inject("EUR/USD", 1.15, at("2026-01-14 11:59:50"))
        await feed.until(lambda: {update.key for update in feed.updates if update.candle.close == 1.15} == {EUR, five})
        feed.watchlist.remove(five)
        feed.watchlist.remove(EUR)
        await eventually(lambda: exchange.subscribed == [])


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_the_key_is_in_no_log_and_in_no_address(
    exchange: Exchange, plugin: Plugin, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    async with plugin.pump("EUR/USD@1m") as feed:
        await first_poll(feed, exchange)
        exchange.faults.refuse(status)
        exchange.faults.drop(1008, reason=f"the key {KEY} is used elsewhere")
        await feed.until(lambda: any(str(status) in message for _, message in feed.remarks))
    said = [caplog.text, *feed.skipped, *(text for _, text in feed.remarks), str(feed.error)]
    said += [connect.path for connect in exchange.connect_log]
    assert not [text for text in said if KEY in text]
    assert f"HTTP {status}" in caplog.text or "closed the connection" in caplog.text


async def test_without_a_key_there_is_nothing_to_open(exchange: Exchange, time: FakeTime) -> None:
    async with aiohttp.ClientSession() as session:
        plugin = plugin_of(session, exchange, time, api_key=None)
        with pytest.raises(AuthenticationFailed):
            plugin.provider.relay_stream(watchlist=Watchlist([EUR]), session=session, settings=plugin.settings)


async def test_a_refused_key_ends_the_feed_for_good(exchange: Exchange, time: FakeTime) -> None:
    async with aiohttp.ClientSession() as session:
        plugin = plugin_of(session, exchange, time, api_key=Secret("wrong"))
        async with plugin.pump("EUR/USD@1m") as feed:
            assert isinstance(await feed.end(), AuthenticationFailed)


# ---- messages ---------------------------------------------------------------------------------------------------


def codec(*asked: str) -> TickCodec:
    codec = TickCodec(Hosts(["ws://localhost"]), Secret(KEY))
    if asked:
        codec.subscribe([ticks_of(symbol) for symbol in asked])
    return codec


def judged(asked: Sequence[str], answer: str) -> tuple[set[str], list[set[str]]]:
    """Return the symbols that were accepted, and the groups that were refused together."""
    accepted: set[str] = set()
    refused = []
    for value in codec(*asked).decode(answer):
        assert isinstance(value, Accepted | Rejected)
        if isinstance(value, Accepted):
            accepted |= {key.symbol for key in value.keys}
        else:
            refused.append({key.symbol for key in value.keys})
    return accepted, refused


SUCCESS = '"success":[{"symbol":"EUR/USD","exchange":"PHYSICAL CURRENCY","type":"PHYSICAL_CURRENCY"}]'
FAILS = '"fails":[{"symbol":"GBP/USD"}]'


@pytest.mark.parametrize(
    ("answer", "accepted", "refused"),
    [
        ('{"status":"ok","success":[{"symbol":"EUR/USD"},{"symbol":"GBP/USD"}]}', {"EUR/USD", "GBP/USD"}, []),
        ('{"status":"ok","success":null,"fails":null}', {"EUR/USD", "GBP/USD"}, []),
        (f'{{"status":"warning",{SUCCESS},{FAILS}}}', {"EUR/USD"}, [{"GBP/USD"}]),
        (f'{{"status":"warning",{SUCCESS},"fails":null}}', {"EUR/USD"}, [{"GBP/USD"}]),
        ('{"status":"error","success":null,"fails":[{"symbol":"EUR/USD"},{"symbol":"GBP/USD"}]}', set(),
         [{"EUR/USD"}, {"GBP/USD"}]),
        ('{"status":"error","success":null,"fails":null}', set(), [{"EUR/USD", "GBP/USD"}]),
        ('{"status":"error","success":[],"fails":[]}', set(), [{"EUR/USD", "GBP/USD"}]),
        ('{"status":"error"}', set(), [{"EUR/USD", "GBP/USD"}]),
        ('{"status":"ok","success":"EUR/USD","fails":7}', {"EUR/USD", "GBP/USD"}, []),
    ],
)  # fmt: skip
def test_the_answer_to_a_subscription(answer: str, accepted: set[str], refused: list[set[str]]) -> None:
    whole = '{"event":"subscribe-status",' + answer[1:]
    assert judged(["EUR/USD", "GBP/USD"], whole) == (accepted, refused)


def test_answers_belong_to_requests_in_order() -> None:
    listening = codec("EUR/USD")
    listening.subscribe([ticks_of("GBP/USD")])
    nothing = '{"event":"subscribe-status","status":"error","success":null,"fails":null}'
    first = list(listening.decode(f'{{"event":"subscribe-status","status":"ok",{SUCCESS}}}'))
    assert first == [Accepted((ticks_of("EUR/USD"),))]
    assert [value.keys for value in listening.decode(nothing) if isinstance(value, Rejected)] == [
        (ticks_of("GBP/USD"),)
    ]
    assert list(listening.decode(nothing)) == []


def test_an_answer_about_other_symbols_leaves_what_was_asked_open() -> None:
    listening = codec("GBP/USD")
    stray = list(listening.decode(f'{{"event":"subscribe-status","status":"ok",{SUCCESS}}}'))
    assert stray == [Accepted((ticks_of("EUR/USD"),))]
    refused = list(listening.decode('{"event":"subscribe-status","status":"error","success":null,"fails":null}'))
    assert [value.keys for value in refused if isinstance(value, Rejected)] == [(ticks_of("GBP/USD"),)]


def test_a_tick_is_a_price_of_a_second() -> None:
    raw = '{"event":"price","symbol":"EUR/USD","currency":"USD","timestamp":1772352540,"price":1.1816464}'
    assert list(codec().decode(raw)) == [
        PriceUpdate(
            ticks_of("EUR/USD"),
            Candle(1772352540, 1.1816464, 1.1816464, 1.1816464, 1.1816464, 0.0),
            ts_event_ms=1772352540000,
        )
    ]


@pytest.mark.parametrize(
    "raw",
    [
        '{"event":"price","symbol":"EUR/USD","timestamp":"now","price":"dear"}',
        '{"event":"price","symbol":null,"timestamp":1,"price":1}',
        '{"event":"price","symbol":"EUR/USD","timestamp":1772352540,"price":true}',
        '{"event":"price","symbol":"EUR/USD","timestamp":1772352540,"price":0}',
        '{"event":"price","symbol":"EUR/USD","timestamp":1772352540123,"price":1}',
        '{"event":"price","symbol":"EUR/USD","timestamp":1772352540,"price":1e999}',
        '{"event":"error","status":"error","messages":["no such action"]}',
        '{"event":"price"}',
        "[]",
        "null",
        "not json",
    ],
)
def test_a_message_without_sense_is_refused(raw: str) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        list(codec().decode(raw))


@pytest.mark.parametrize("event", ["heartbeat", "unsubscribe-status", "reset-status"])
def test_other_answers_say_nothing(event: str) -> None:
    assert list(codec().decode(f'{{"event":"{event}","status":"ok"}}')) == []


def test_symbols_are_named_in_one_message() -> None:
    assert codec().subscribe([ticks_of("EUR/USD"), ticks_of("XAU/USD")]) == [
        '{"action":"subscribe","params":{"symbols":"EUR/USD,XAU/USD"}}'
    ]
    assert codec().unsubscribe([ticks_of("EUR/USD")]) == ['{"action":"unsubscribe","params":{"symbols":"EUR/USD"}}']
