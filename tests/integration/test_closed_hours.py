"""Closed hours of a market: no candle is missed, no gap names them, and the first price after them comes at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from providers.twelve_data.forex import METAL, MONEY, Hours
from relay.app import DIRECTORY
from relay.core.intervals import next_open
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.trading_hours import TradingHours
from relay.history.requests import PastCandles
from relay.history.snapshot import is_joined, splice
from relay.protocol.client_requests import PastWanted as Wanted
from relay.streams.catching_up import Missing
from relay.streams.gaps import SeriesGap
from relay.streams.series import Series
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.moments import at
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox
from tests.support.transports import TRANSPORTS, Transport
from tests.support.untidy import refuse_rest


def market(hours: Hours = MONEY) -> TradingHours:
    return TradingHours(hours.calendar.session_at)


def series_of(interval: str, promised: str, hours: Hours = MONEY) -> Series:
    series = Series(StreamKey("X", interval), float(at(promised)))
    series.market = market(hours)
    return series


def told(series: Series, opened: str, *, is_closed: bool = False) -> bool:
    """Say whether a live update of the candle that opened then is told at once."""
    update = PriceUpdate(series.key, Candle(at(opened), 1, 1, 1, 1), is_closed)
    return list(series.accept(update)) == [update]


# The last candle before the close and the first one after it. New York changes to summer time on 2026-03-08 and back
# on 2026-11-01, both times while the market is closed.
REOPENINGS = [
    ("1m", MONEY, "2026-01-16 21:59:00", "2026-01-18 22:00:00"),
    ("1m", MONEY, "2026-03-06 21:59:00", "2026-03-08 21:00:00"),
    ("1m", MONEY, "2026-10-30 20:59:00", "2026-11-01 22:00:00"),
    ("1h", MONEY, "2026-03-06 21:00:00", "2026-03-08 21:00:00"),
    ("4h", MONEY, "2026-01-16 20:00:00", "2026-01-18 20:00:00"),
    ("4h", MONEY, "2026-10-30 20:00:00", "2026-11-01 20:00:00"),
    ("1d", MONEY, "2026-03-06 00:00:00", "2026-03-08 00:00:00"),
    ("1w", MONEY, "2026-01-12 00:00:00", "2026-01-19 00:00:00"),
    ("1m", METAL, "2026-01-14 21:59:00", "2026-01-14 23:00:00"),
    ("1h", METAL, "2026-07-15 20:00:00", "2026-07-15 22:00:00"),
    ("1m", METAL, "2026-10-30 20:59:00", "2026-11-01 23:00:00"),
]


@pytest.mark.parametrize(("interval", "hours", "last", "first"), REOPENINGS)
def test_the_first_candle_after_closed_hours_follows_the_last_one_before(
    interval: str, hours: Hours, last: str, first: str
) -> None:
    series = series_of(interval, last, hours)
    assert told(series, last)
    assert told(series, last, is_closed=True)
    assert told(series, first)
    assert series.missing() is None


@pytest.mark.parametrize(("interval", "hours", "last", "first"), REOPENINGS)
def test_a_stream_that_is_wanted_in_closed_hours_begins_with_the_first_candle_after_them(
    interval: str, hours: Hours, last: str, first: str
) -> None:
    wanted = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(next_open(interval, at(last))))
    assert told(series_of(interval, wanted, hours), first)


def test_the_last_candle_before_the_close_is_not_passed_over() -> None:
    series = series_of("1m", "2026-01-16 21:58:30")
    told(series, "2026-01-16 21:58:00", is_closed=True)
    assert not told(series, "2026-01-18 22:00:00")
    assert series.missing() == Missing(at("2026-01-16 21:58:01"), at("2026-01-18 22:00:00"))


def test_a_candle_that_was_open_at_the_close_has_to_be_closed_before_the_next_one_is_told() -> None:
    series = series_of("4h", "2026-01-16 21:00:00")
    assert told(series, "2026-01-16 20:00:00")
    assert not told(series, "2026-01-18 20:00:00")


def test_gaps_do_not_name_closed_hours() -> None:
    series = series_of("1m", "2026-01-16 21:00:30")
    told(series, "2026-01-16 21:00:00", is_closed=True)
    told(series, "2026-01-18 23:00:00")
    series.give_up()
    assert series.gaps.drain() == [
        SeriesGap(at("2026-01-16 21:01:00"), at("2026-01-16 22:00:00")),
        SeriesGap(at("2026-01-18 22:00:00"), at("2026-01-18 23:00:00")),
    ]


def test_a_subscription_is_joined_over_closed_hours_and_its_gaps_do_not_name_them() -> None:
    friday, sunday = at("2026-01-16 21:59:00"), at("2026-01-18 22:00:00")
    series = series_of("1m", "2026-01-18 12:00:00")
    told(series, "2026-01-18 22:00:00", is_closed=True)
    before = Candle(friday - 7200, 1, 1, 1, 1), Candle(friday, 1, 1, 1, 1)
    assert is_joined(PastCandles(before, True, True), series, Wanted(bars=5), has_open=False)
    assert not is_joined(PastCandles(before[:1], True, True), series, Wanted(bars=5), has_open=False)
    snapshot = splice(series, {}, PastCandles(before[:1], True, False), Wanted(since=friday - 7200))
    assert snapshot.gaps == [SeriesGap(friday - 7140, friday + 60)]
    assert [candle.time for candle in snapshot.candles] == [sunday]


@pytest.mark.parametrize(
    ("interval", "last", "due"),
    [
        ("1m", "2026-01-16 21:59:00", "2026-01-18 22:01:00"),
        ("4h", "2026-01-16 20:00:00", "2026-01-19 00:00:00"),
        ("1d", "2026-03-06 00:00:00", "2026-03-09 00:00:00"),
        ("1w", "2026-01-12 00:00:00", "2026-01-26 00:00:00"),
        # February of 2026 ends with a weekend.
        ("1M", "2026-01-01 00:00:00", "2026-02-27 22:00:00"),
        ("1m", "2026-01-14 12:00:00", "2026-01-14 12:02:00"),
    ],
)
def test_the_next_candle_is_due_after_the_market_has_opened(interval: str, last: str, due: str) -> None:
    series = series_of(interval, last)
    told(series, last, is_closed=True)
    assert series.due_at() == at(due)


# ---- a whole relay ----------------------------------------------------------------------------------------------


@pytest.fixture
async def opening(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """The stand-ins a few seconds before a moment."""
    async with Sandbox(offset_s=at(request.param) - 5 - time.time()) as sandbox:
        yield sandbox


async def relay_at(sandbox: Sandbox, relay_with: StartRelay, mode: str) -> Running:
    relay = await relay_with(
        sandbox=sandbox, tables={"twelve_data": {"market_hours": "forex", "mode": mode, "poll_seconds": 1}}
    )
    # Its clock is that of the exchange once a list was answered.
    await eventually(lambda: any(one.instrument.asset_class == "forex" for one in relay.app[DIRECTORY].everything()))
    return relay


@pytest.mark.parametrize(
    ("opening", "mode", "symbol", "over"),
    [
        ("2026-03-08 21:00:00", "poll", "EUR/USD", TRANSPORTS[0]),
        ("2026-11-01 22:00:00", "stream", "EUR/USD", TRANSPORTS[1]),
        ("2026-01-14 23:00:00", "poll", "XAU/USD", TRANSPORTS[1]),
    ],
    indirect=["opening", "over"],
)
async def test_the_first_price_after_closed_hours_comes_at_once(
    opening: Sandbox, relay_with: StartRelay, over: Transport, mode: str, symbol: str
) -> None:
    relay = await relay_at(opening, relay_with, mode)
    client = await over.subscriber(relay, f"{symbol}@1m", bars=3)
    closed = await client.seen("status", symbol=symbol, status="market_closed")
    opens = opening.clock.now() // 60 * 60 + 60
    assert closed["message"].startswith("the market is closed; it opens at ")
    first = await client.update()
    assert first["candle"]["time"] == opens
    await client.seen("status", symbol=symbol, status="connected")
    states = [message["status"] for message in client.received if message["type"] == "status"]
    assert "backfilling" not in states
    (stream,) = (await relay.get("status")).body["streams"]
    assert stream["session"] == ("1700" if symbol == "EUR/USD" else "1800") + "-1700 America/New_York"
    assert not [message for message in client.received if message["type"] == "gap"]


@pytest.mark.parametrize(
    ("opening", "mode", "over"),
    [("2026-01-16 22:00:00", "stream", TRANSPORTS[0]), ("2026-10-30 21:00:00", "poll", TRANSPORTS[1])],
    indirect=["opening", "over"],
)
async def test_a_stream_rests_from_the_close_on_whatever_comes_late(
    opening: Sandbox, relay_with: StartRelay, over: Transport, mode: str
) -> None:
    relay = await relay_at(opening, relay_with, mode)
    client = await over.subscriber(relay, "EUR/USD@1m")
    last = opening.clock.now() // 60 * 60
    await client.until_type("status", symbol="EUR/USD", status="market_closed")
    heard = len(client.received)
    if mode == "stream":
        # Its last candle is closed by the ticks, two seconds later.
        await client.update(is_closed=True)
        assert client.closed_times == [last]
    # Whoever comes now is told the same.
    other = await over.subscriber(relay, "EUR/USD@1m", bars=2)
    await other.seen("snapshot")
    await opening.clock.sleep_until(last + 65)
    await client.settle()
    assert [message for message in client.received[heard:] if message["type"] in ("status", "gap")] == []
    states = [message["status"] for message in other.received if message["type"] == "status"]
    assert states == ["connected", "market_closed"]


@pytest.mark.parametrize("interval", ["4h", "1d"])
@pytest.mark.parametrize("opening", ["2026-01-18 21:30:00"], indirect=True)
async def test_a_candle_that_holds_the_opening_opens_no_market(
    opening: Sandbox, relay_with: StartRelay, interval: str
) -> None:
    relay = await relay_at(opening, relay_with, "poll")
    client = await relay.connect()
    await client.subscribe(f"EUR/USD@{interval}", bars=3)
    friday = at("2026-01-16 20:00") if interval == "4h" else at("2026-01-16")
    snapshot = await client.until_type("snapshot")
    await opening.clock.sleep_until(at("2026-01-18 21:30:05"))
    await client.settle()
    states = [message["status"] for message in client.received if message.get("symbol") and message["type"] == "status"]
    assert states[-1] == "market_closed"
    assert "connected" not in states
    assert [one["candle"]["time"] for one in client.updates if one["candle"]["time"] > friday] == []
    assert snapshot["candles"][-1]["time"] == friday
    answer = await relay.get("history", symbol="EUR/USD", interval=interval, limit=1)
    assert answer.body["candles"][-1]["time"] == friday


@pytest.mark.parametrize("opening", ["2026-01-16 22:30:00"], indirect=True)
async def test_the_last_candle_of_a_week_is_closed_although_nothing_could_be_asked_until_it_was_over(
    opening: Sandbox, relay_with: StartRelay
) -> None:
    relay = await relay_at(opening, relay_with, "poll")
    faults = opening.twelve_data.faults
    refuse_rest(faults, "503")
    client = await relay.connect(heartbeat=None)
    await client.subscribe("EUR/USD@4h")
    asyncio.get_running_loop().call_later(at("2026-01-17 03:00") - opening.clock.now(), faults.clear)
    with suppress(TimeoutError):
        async with asyncio.timeout(at("2026-01-17 05:00") - opening.clock.now()):
            while True:
                await client.next(None)
    last = at("2026-01-16 20:00")
    assert client.closed_times == [last]
    assert [message for message in client.received if message["type"] == "gap"] == []
    answer = await relay.get("history", symbol="EUR/USD", interval="4h", limit=1)
    assert (answer.body["candles"][-1]["time"], answer.body["last_is_closed"]) == (last, True)


@pytest.mark.parametrize("opening", ["2026-01-17 12:01:00"], indirect=True)
async def test_ticks_of_a_saturday_make_no_stream_live(opening: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_at(opening, relay_with, "stream")
    client = await relay.connect()
    await client.subscribe("EUR/USD@1m")
    await client.until_type("status", symbol="EUR/USD", status="market_closed")
    await eventually(lambda: opening.twelve_data.subscribed == ["EUR/USD"])
    heard = len(client.received)
    # The exchange sends quotes each minute although it is closed.
    await opening.clock.sleep_until(at("2026-01-17 12:01:03"))
    await client.settle()
    assert [message for message in client.received[heard:] if message["type"] != "pong"] == []
