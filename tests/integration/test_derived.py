"""Intervals that a venue lacks, over real sockets: a Binance that has seconds, hours and days only, in jumping time.

The stand-in has all intervals, so what the relay builds is compared with what the exchange itself would say.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from providers.binance.provider import BinanceProvider
from relay import Instrument, ProviderInfo, hookimpl
from relay.app import STORE
from relay.core.intervals import length_s
from relay.core.model import StreamKey
from relay.testing import sped_up
from tests.support.running_relay import Message, Reader, Running, start_relay
from tests.support.soak import MarketTruth, StreamCheck
from tests.support.threadless_database import threadless
from tests.support.transports import TRANSPORTS, Transport
from tests.support.untidy import UntidySandbox

MONDAY = 1_772_409_600
"""2026-03-02, a Monday."""
BTC = "BTCUSDT"


class FewIntervals(BinanceProvider):
    """Binance without most of its intervals; its list may say others of each pair."""

    has: tuple[str, ...] = ("1s", "1h", "1d")
    lists: tuple[str, ...] | None = None

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(intervals=self.has, instruments_ttl_s=20.0)

    @hookimpl
    async def relay_instruments(self, session: Any, settings: Any) -> list[Instrument]:
        found = await super().relay_instruments(session, settings)
        return [one._replace(intervals=self.lists) for one in found]


class AllIntervals(FewIntervals):
    has = ("1s", "1m", "1h", "1d")
    lists = ("1s", "1h", "1d")


Act = Callable[[Running, UntidySandbox, FewIntervals], Awaitable[None]]


@asynccontextmanager
async def relay_over(plugin: FewIntervals, seed: int = 1) -> AsyncIterator[tuple[Running, UntidySandbox]]:
    async with UntidySandbox(seed=seed, pace_s=1.0) as sandbox:
        others = "providers.twelve_data:TwelveDataProvider"
        relay = await start_relay(sandbox, builtin=[plugin, others])
        try:
            await relay.get("symbols")
            yield relay, sandbox
        finally:
            await relay.close()


def perform(act: Act, *, seed: int = 1, plugin: FewIntervals | None = None) -> None:
    """Let it happen from 8 s before a full hour on a Monday, without waiting."""

    async def main() -> None:
        few = plugin or FewIntervals()
        async with relay_over(few, seed) as (relay, sandbox):
            await act(relay, sandbox, few)

    with threadless():
        sped_up(main, start=MONDAY + 10 * 3600 - 8.0)()


async def follow(
    relay: Running,
    sandbox: UntidySandbox,
    interval: str,
    seconds: float,
    over: Transport = TRANSPORTS[0],
    **options: Any,
) -> tuple[StreamCheck, list[Message]]:
    """Follow a stream for a while and judge all that comes by the exchange's own candles."""
    now = sandbox.clock.now
    check = StreamCheck(f"{BTC}@{interval}", MarketTruth(sandbox.binance, BTC, interval))
    client = await over.reader(relay)
    await client.ask("subscribe", symbol=BTC, interval=interval, **options)
    until = now() + seconds
    messages: list[Message] = []
    while now() < until:
        try:
            message = await client.next(timeout_s=max(0.1, until - now()))
        except TimeoutError:
            break
        if message["type"] == "subscription":
            check.subscribed(now(), options.get("since"))
        elif "symbol" in message:
            check.take(message, now())
        messages.append(message)
    check.finish(until - 20.0 - length_s(interval))
    await client.close()
    return check, messages


async def native(sandbox: UntidySandbox, interval: str, start: int, count: int) -> list[list[float]]:
    """Return klines of the exchange itself: open time, prices, volume, quote volume, trades, what takers bought."""
    params = {"symbol": BTC, "interval": interval, "startTime": str(start * 1000), "limit": str(count)}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sandbox.binance.rest_url}/api/v3/klines", params=params) as answer,
    ):
        rows = await answer.json()
    return [[row[0] / 1000, *map(float, [*row[1:6], row[7], row[8], row[9], row[10]])] for row in rows]


def of(candle: dict[str, float]) -> list[float]:
    return [*candle.values()]


async def history(relay: Running, interval: str, **query: Any) -> Any:
    answer = await relay.get("history", symbol=BTC, interval=interval, **query)
    assert answer.status == 200, answer.text
    return answer.body


def closed_in(messages: list[Message]) -> list[Message]:
    return [one for one in messages if one["type"] == "price_update" and one["is_closed"]]


def test_a_built_stream_is_what_the_exchange_itself_would_say() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        check, messages = await follow(relay, sandbox, "1m", 200.0, bars=5, extended=True)
        assert check.violations == []
        closed = closed_in(messages)
        assert [one["candle"]["time"] for one in closed] == [MONDAY + 36_000 + 60 * n - 60 for n in range(4)]
        assert not any(one.get("backfilled") or one.get("revised") for one in closed)
        # To the last digit, and what candles carry beside prices and volume as well.
        assert [of(one["candle"]) for one in closed] == await native(sandbox, "1m", closed[0]["candle"]["time"], 4)
        assert len({one["candle"]["volume"] for one in messages if one["type"] == "price_update"}) > 100

    perform(act)


def test_one_upstream_stream_is_shared_by_all_who_are_told_of_it() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        client = await relay.connect()
        await client.subscribe(f"{BTC}@1s", f"{BTC}@1m", f"{BTC}@3m")
        for interval in ("1s", "1m", "3m"):
            await client.update(interval=interval)
        assert sandbox.binance.subscribed == ["btcusdt@kline_1s"]
        status = (await relay.get("status")).body
        rows = status["streams"]
        assert [(one["interval"], one["built_from"], one["status"], one["kept_by"]) for one in rows] == [
            ("1s", None, "connected", ["candles of 1m", "candles of 3m"]),
            ("1m", "1s", "connected", []), ("3m", "1s", "connected", []),
        ]  # fmt: skip
        await client.close()
        await asyncio.sleep(5.0)
        assert sandbox.binance.subscribed == []
        assert (await relay.get("status")).body["streams"] == []

    perform(act)


def test_what_an_exchange_has_and_what_is_built_is_listed_apart() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        (row,) = (await relay.get("instruments", q=BTC, limit=1)).body
        assert row["intervals"] == ["1s", "1h", "1d"]
        assert row["derived_intervals"] == [
            "1m", "3m", "5m", "15m", "30m", "2h", "4h", "6h", "8h", "12h", "3d", "1w", "1M",
        ]  # fmt: skip

    perform(act)


@pytest.mark.parametrize("interval", ["2h", "8h", "1w", "1M"])
def test_history_is_what_the_exchange_itself_would_say(interval: str) -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        body = await history(relay, interval, limit=40, extended="true")
        candles = body["candles"]
        assert (len(candles), body["last_is_closed"], body.get("complete")) == (40, False, None)
        assert [of(one) for one in candles[:-1]] == await native(sandbox, interval, candles[0]["time"], 39)
        part = await history(relay, interval, start_time=candles[3]["time"] + 1, end_time=candles[7]["time"])
        assert [one["time"] for one in part["candles"]] == [one["time"] for one in candles[4:8]]
        answer = await relay.get("history", symbol=BTC, interval=interval, limit=12, format="csv")
        lines = answer.text.splitlines()
        # The open candle is left out, as always.
        assert [int(line.split(",")[0]) for line in lines[1:]] == [int(one["time"]) for one in candles[-13:-1]]

    perform(act)


def test_more_lines_than_one_answer_may_hold_come_page_by_page() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        answer = await relay.get("history", symbol=BTC, interval="2h", limit=6000, format="ndjson")
        times = [int(line.split(":")[1].split(",")[0]) for line in answer.text.splitlines()]
        assert answer.status == 200
        assert len(times) == 6000
        assert {b - a for a, b in pairwise(times)} == {7200}

    perform(act)


def test_what_is_built_is_not_stored() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        await follow(relay, sandbox, "1m", 100.0, bars=20)
        await history(relay, "8h", limit=100)
        stored = await relay.app[STORE].newest("binance", 100)
        assert sorted(key.interval for key, _ in stored) == ["1h", "1s"]

    perform(act)


@pytest.mark.parametrize("seed", range(4))
def test_a_rude_exchange_changes_nothing(seed: int) -> None:
    """It is slow, cuts its connections, closes late and twice, and its history lags."""

    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        binance, untidy = sandbox.binance, sandbox.binance.untidy
        binance.faults.delay_rest(0.0, 4.0, computed="either")
        untidy.close_late(0.0, 0.8)
        untidy.repeat(0.2)
        untidy.disorder(0.1)
        if seed % 2:
            untidy.list_closed_only(3.0)
        loop = asyncio.get_running_loop()
        cuts = [loop.call_later(at, binance.faults.drop) for at in (20.0, 58.0, 61.0, 130.0)]
        cuts.append(loop.call_later(150.0, lambda: binance.stop_listening(seconds=25.0)))
        first, second = TRANSPORTS[seed // 2], TRANSPORTS[1 - seed // 2]
        joins = [follow(relay, sandbox, "1m", 300.0, first, bars=5)]
        joins.append(later(40.0 + seed, follow(relay, sandbox, "1m", 250.0, second, since=MONDAY + 36_000 - 300)))
        joins.append(later(90.0 - seed, follow(relay, sandbox, "3m", 210.0, second, bars=3)))
        found = await asyncio.gather(*joins)
        for cut in cuts:
            cut.cancel()
        assert [text for check, _ in found for text in check.violations] == []
        assert all(check.delivered for check, _ in found)

    perform(act, seed=seed)


async def later(seconds: float, following: Awaitable[Any]) -> Any:
    await asyncio.sleep(seconds)
    return await following


def test_a_candle_without_some_parts_is_in_doubt_until_it_is_believed_that_there_are_none() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        first = MONDAY + 36_000
        sandbox.binance.hide(BTC, first + 30, first + 33)
        client = await relay.connect()
        await client.ask("subscribe", symbol=BTC, interval="1m")
        # The relay asked twice: to those who follow it is what it is.
        closed = await closing(client, first)
        assert [of(closed["candle"])] == [row[:6] for row in await native(sandbox, "1m", first, 1)]
        body = await history(relay, "1m", start_time=first - 60, end_time=first)
        assert ([one["time"] for one in body["candles"]], body["complete"]) == ([first - 60], False)
        # Four answers in 36 minutes agree.
        client.read_on()
        await asyncio.sleep(2400.0)
        body = await history(relay, "1m", start_time=first - 60, end_time=first)
        assert ([one["time"] for one in body["candles"]], body.get("complete")) == ([first - 60, first], None)
        assert body["candles"][1] == closed["candle"]

    perform(act)


def test_a_part_that_cannot_be_read_makes_a_gap_of_the_long_candle_until_it_can() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        first = MONDAY + 36_000
        sandbox.binance.untidy.spoil_rows("null", {first + 40})
        client = await relay.connect()
        await client.ask("subscribe", symbol=BTC, interval="1m")
        await closing(client, first - 60)
        await client.until(
            lambda one: one["type"] == "price_update" and sandbox.clock.now() >= first + 38, timeout_s=120.0
        )
        sandbox.binance.stop_listening(seconds=5.0)
        sandbox.binance.faults.drop()
        gap = await client.until(lambda one: one["type"] == "gap", timeout_s=300.0)
        assert (gap["from"], gap["to"]) == (first, first + 60)
        assert first not in client.closed_times
        body = await history(relay, "1m", start_time=first, end_time=first)
        assert (body["candles"], body["complete"]) == ([], False)
        sandbox.binance.untidy.clear()
        repaired = await client.until(lambda one: one.get("revised"), timeout_s=900.0)
        assert [of(repaired["candle"])] == [row[:6] for row in await native(sandbox, "1m", first, 1)]

    perform(act)


async def closing(client: Reader, opened: int | None = None) -> Message:
    """Read on to the next candle that closes, or the one that opened then."""
    return await client.until(
        lambda one: one["type"] == "price_update" and one["is_closed"] and opened in (None, one["candle"]["time"]),
        timeout_s=300.0,
    )


def test_a_revised_part_revises_the_long_candle_and_a_client_that_comes_back_has_it() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        sandbox.binance.untidy.close_otherwise(0.3)
        client = await relay.connect()
        await client.ask("subscribe", symbol=BTC, interval="1m", bars=1)
        snapshot = await client.until_type("snapshot")
        first = MONDAY + 36_000
        # Not a moment longer: the revision may follow at once.
        while first not in client.closed_times:
            await client.next(timeout_s=100.0)
        other = next(one for one in client.updates if one["is_closed"] and one["candle"]["time"] == first)
        sandbox.binance.untidy.clear()
        revised = await client.until(
            lambda one: one.get("revised") and one["candle"]["time"] == first, timeout_s=2000.0
        )
        assert revised["candle"] != other["candle"]
        body = await history(relay, "1m", start_time=first, end_time=first, extended="true")
        assert [of(one) for one in body["candles"]] == await native(sandbox, "1m", first, 1)
        since = max(client.closed_times)
        await client.close()
        again = await relay.connect()
        await again.ask("subscribe", symbol=BTC, interval="1m", since=since, revision=snapshot["revision"])
        came = await again.until_type("snapshot")
        assert first in [one["time"] for one in came["revised"]]
        await again.ask("unsubscribe", symbol=BTC, interval="1m")
        await again.ask("subscribe", symbol=BTC, interval="1m", since=since, revision=came["revision"])
        assert (await again.until_type("snapshot"))["revised"] == []

    perform(act)


def test_the_own_candles_of_an_exchange_win_from_when_it_lists_them_until_it_does_not() -> None:
    async def act(relay: Running, sandbox: UntidySandbox, plugin: FewIntervals) -> None:
        client = await relay.connect()
        await client.ask("subscribe", symbol=BTC, interval="1m")
        await closing(client)
        assert sandbox.binance.subscribed == ["btcusdt@kline_1s"]
        plugin.lists = ("1s", "1m", "1h", "1d")
        while sandbox.binance.subscribed != ["btcusdt@kline_1m"]:
            await client.next(timeout_s=100.0)
        seen = [*client.closed_times]
        await closing(client)
        await closing(client)
        (row,) = (await relay.get("instruments", q=BTC, limit=1)).body
        assert "1m" in row["intervals"]
        stored = await relay.app[STORE].read("binance", StreamKey(BTC, "1m"), 0, 1 << 40, 100, True)
        # What was built before is not among what the exchange said.
        assert [one.time for one in stored if one.time in seen] == []
        plugin.lists = ("1s", "1h", "1d")
        while sandbox.binance.subscribed != ["btcusdt@kline_1s"]:
            await client.next(timeout_s=100.0)
        await closing(client)
        await closing(client)
        times = client.closed_times
        assert times == [*range(times[0], times[-1] + 1, 60)]

    perform(act, plugin=AllIntervals())


def test_an_interval_that_cannot_be_built_is_refused_with_those_that_can() -> None:
    class Hours(FewIntervals):
        has = ("1h",)

    async def act(relay: Running, sandbox: UntidySandbox, _: FewIntervals) -> None:
        answer = await relay.get("history", symbol=BTC, interval="1m")
        assert (answer.status, answer.body["code"]) == (400, "unsupported_interval")
        assert answer.body["detail"].endswith("use one of 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M")

    perform(act, plugin=Hours())
