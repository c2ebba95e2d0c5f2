"""`bars` and `since`: the past that a subscription begins with and the live stream are one sequence."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import HISTORY
from relay.core.model import StreamKey
from relay.history.past_fetch import PAST_WAITS
from relay.history.provider_calls import ProviderCall
from relay.history.requests import CandleSource, PageRequest
from relay.protocol.client_requests import SubscribeOptions
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Reader, Running, WsClient
from tests.support.sandbox import Sandbox
from tests.support.transports import Transport


async def test_snapshot_comes_after_the_state_and_before_updates(reader: Reader, sandbox: Sandbox) -> None:
    sandbox.binance.faults.refuse(503, times=1)
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=5, id="a")
    kinds = [await reader.next() for _ in range(3)]
    assert [message["type"] for message in kinds] == ["subscription", "status", "snapshot"]
    snapshot = kinds[2]
    names = {"type", "symbol", "interval", "provider", "candles", "last_is_closed", "complete", "seq", "revision"}
    assert set(snapshot) == names
    assert len(snapshot["candles"]) == 5
    assert snapshot["complete"] is True


async def test_stream_that_waits_for_a_late_candle_holds_up_no_other_of_its_client(reader: Reader) -> None:
    # Trading in it is paused, so its last candle is old, and may be followed by one that is not in history yet.
    await reader.ask("subscribe", streams=["NKNUSDT@15m", "BTCUSDT@15m"], bars=3)
    assert (await reader.until_type("snapshot"))["symbol"] == "BTCUSDT"


@pytest.mark.parametrize("options", [{"bars": 30}, {"bars": 1}, {"bars": 0}, {"closed_only": True, "bars": 10}])
async def test_snapshot_and_live_are_one_sequence(quick: Running, over: Transport, options: dict[str, Any]) -> None:
    client = await over.reader(quick)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", **options)
    snapshot = await client.until_type("snapshot")
    for _ in range(3):
        await client.update(is_closed=True)
    past = [candle["time"] for candle in snapshot["candles"]]
    assert len(past) == options["bars"]
    if past and not snapshot["last_is_closed"]:
        past.pop()
    times = past + client.closed_times
    assert times == list(range(times[0], times[0] + len(times)))


async def test_since_brings_everything_opened_after_it(relay: Running, reader: Reader) -> None:
    history = (await relay.get("history", symbol="BTCUSDT", interval="1s", limit=20)).body["candles"]
    since = history[0]["time"]
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1s", since=since)
    snapshot = await reader.until_type("snapshot")
    assert snapshot["complete"] is True
    await reader.update(is_closed=True)
    past = [candle["time"] for candle in snapshot["candles"]]
    assert past[0] == since + 1
    if not snapshot["last_is_closed"]:
        past.pop()
    times = past + reader.closed_times
    assert times == list(range(since + 1, since + 1 + len(times)))


async def test_since_with_bars_brings_at_most_the_last_bars(relay: Running, over: Transport) -> None:
    history = (await relay.get("history", symbol="BTCUSDT", interval="1m", limit=50)).body["candles"]
    client = await over.subscriber(relay, "BTCUSDT@1m", since=history[0]["time"], bars=5)
    few = await client.seen("snapshot")
    assert len(few["candles"]) == 5
    assert few["candles"][-1]["time"] >= history[-1]["time"]
    client = await over.subscriber(relay, "ETHUSDT@1m", since=history[-3]["time"], bars=500)
    all_since = await client.seen("snapshot")
    assert [candle["time"] for candle in all_since["candles"]][:2] == [history[-2]["time"], history[-1]["time"]]


async def test_since_soon_brings_nothing(reader: Reader) -> None:
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1m", since=int(time.time()) + 3600)
    snapshot = await reader.until_type("snapshot")
    assert (snapshot["candles"], snapshot["last_is_closed"], snapshot["complete"]) == ([], True, True)


@pytest.mark.parametrize("interval", ["1d", "1w", "1M"])
async def test_since_before_the_first_candle_brings_all_there_is_and_tells_no_gap(
    reader: Reader, interval: str
) -> None:
    await reader.ask("subscribe", symbol="BTCUSDT", interval=interval, since=0)
    snapshot = await reader.until_type("snapshot")
    assert len(snapshot["candles"]) > 100
    assert "gap" not in [message["type"] for message in reader.received]


async def test_most_bars_come_in_one_snapshot(reader: Reader) -> None:
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=5000)
    snapshot = await reader.until_type("snapshot")
    times = [candle["time"] for candle in snapshot["candles"]]
    assert times == list(range(times[0], times[0] + 5000 * 60, 60))


async def test_snapshot_says_when_the_past_is_not_complete(reader: Reader, sandbox: Sandbox) -> None:
    sandbox.binance.faults.answer_rest(500, "{}")
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=10)
    snapshot = await reader.until_type("snapshot")
    assert snapshot["complete"] is False


async def test_a_resume_that_the_provider_fails_brings_what_is_known_and_tells_what_is_not(
    relay: Running, reader: Reader, sandbox: Sandbox
) -> None:
    now = int(time.time())
    since = now - now % 60 - 200 * 60
    known = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=since + 60, limit=50)
    sandbox.binance.faults.answer_rest(500, "{}")
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1m", since=since)
    snapshot = await reader.until_type("snapshot")
    assert snapshot["complete"] is False
    assert snapshot["candles"][:50] == known.body["candles"]
    gaps = [(message["from"], message["to"]) for message in reader.received if message["type"] == "gap"]
    assert len(gaps) == 1
    assert gaps[0][0] == since + 51 * 60
    # The rest is what the stream owes from its beginning on.
    assert gaps[0][1] > now - 60


async def test_a_past_that_the_budget_does_not_allow_for_long_is_told_as_one_that_follows(
    reader: Reader, sandbox: Sandbox
) -> None:
    sandbox.binance.faults.answer_rest(429, "{}", retry_after=600)
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1m", since=int(time.time()) - 3600)
    snapshot = await reader.until_type("snapshot")
    assert snapshot["complete"] is False
    gaps = [message["reason"] for message in reader.received if message["type"] == "gap"]
    assert gaps
    assert all("was not asked; these candles follow later" in reason for reason in gaps)


async def test_a_past_that_the_budget_allows_a_little_later_is_waited_for_and_sent_once(
    reader: Reader, sandbox: Sandbox
) -> None:
    sandbox.binance.faults.answer_rest(429, "{}", retry_after=4 * round(PAST_WAITS.patience_s))
    await reader.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=20)
    await reader.until_type("status", status="throttled")
    sandbox.binance.faults.clear()
    snapshot = await reader.until(lambda message: message["type"] == "snapshot", timeout_s=100.0)
    assert (len(snapshot["candles"]), snapshot["complete"], "pending" in snapshot) == (20, True, False)


async def test_past_of_a_subscription_takes_the_turn_of_its_client(
    relay_with: StartRelay, over: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await relay_with(tokens={"alice": "opensesame"})
    calls, asked = relay.app[HISTORY].calls, []
    start = calls.start

    def watched(source: CandleSource, key: StreamKey, piece: PageRequest, client: str | None) -> ProviderCall:
        asked.append((key, client))
        return start(source, key, piece, client)

    monkeypatch.setattr(calls, "start", watched)
    await over.subscriber(relay, "BTCUSDT@1m", headers={"Authorization": "Bearer opensesame"}, bars=50)
    await over.subscriber(relay, "ETHUSDT@1m", token="opensesame", since=int(time.time()) - 3600)
    assert asked == [(StreamKey("BTCUSDT", "1m"), "token:alice"), (StreamKey("ETHUSDT", "1m"), "token:alice")]


async def test_requests_during_a_fetch_are_all_answered_and_the_last_one_counts(
    relay: Running, client: WsClient, sandbox: Sandbox
) -> None:
    sandbox.binance.faults.delay_rest(0.4)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=3, id=1)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=7, id=2)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", closed_only=True, id=3)
    snapshot = await client.until_type("snapshot")
    assert [m["id"] for m in client.received if m["type"] == "subscription"] == [1, 2, 3]
    assert len(snapshot["candles"]) == 7
    (options,) = (channel.options for channel in next(iter(relay.hub.subscribers)).subscriptions.values())
    assert options == SubscribeOptions(closed_only=True)


async def test_a_provider_that_hangs_holds_up_no_snapshot_of_another(
    relay: Running, reader: Reader, sandbox: Sandbox
) -> None:
    await relay.get("symbols")
    sandbox.twelve_data.faults.delay_rest(30)
    await reader.ask("subscribe", streams=["GBP/USD@1h", "BTCUSDT@1m"], bars=5)
    assert (await reader.until_type("snapshot"))["symbol"] == "BTCUSDT"


class Counting:
    """A provider without history: a closed candle every 10 ms."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="counting", api=API_VERSION, title="Counting", asset_classes=("demo",), intervals=("1s",)
        )  # fmt: skip

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        # An hour ago, so that a hundred candles a second do not run into the future.
        for time_s in itertools.count(int(time.time()) - 3600):
            await asyncio.sleep(0.01)
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(time_s, 1.0, 1.0, 1.0, 1.0), is_closed=True)


class Long:
    """A provider with a candle for every minute of its past, and no live ones."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(name="long", api=API_VERSION, title="Long", asset_classes=("demo",), intervals=("1m",))

    @hookimpl
    async def relay_candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        times = range(0 if start is None else -(-start // 60) * 60, end, 60)
        return [Candle(time, 1.0, 1.0, 1.0, 1.0) for time in (times[-limit:] if start is None else times[:limit])]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        await asyncio.Event().wait()
        yield PriceUpdate(next(iter(watchlist.streams)), Candle(0, 1.0, 1.0, 1.0, 1.0))


@pytest.mark.real_time  # The relay waits for its store; meanwhile the time until it misses a pong would pass.
async def test_since_long_ago_brings_the_newest_and_says_why_the_others_do_not_come(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Long))
    client, now = await relay.connect(), int(time.time()) // 60 * 60
    await client.ask("subscribe", symbol="long:X", interval="1m", since=now - 60 * 20_500)
    gap = await client.until_type("gap")
    assert gap["reason"] == "one answer has at most 20000 candles, the newest; request these from history"
    snapshot = await client.until_type("snapshot")
    # The newest ones may come later.
    assert 19_990 <= len(snapshot["candles"]) <= 20_000
    assert (gap["to"], snapshot["complete"]) == (snapshot["candles"][0]["time"], False)


async def test_without_history_the_snapshot_holds_what_the_relay_saw_and_says_so(
    relay_with: StartRelay, over: Transport
) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Counting))
    first = await over.subscriber(relay, "X@1s", bars=5)
    snapshot = await first.seen("snapshot")
    assert (snapshot["candles"], snapshot["complete"]) == ([], False)
    for _ in range(20):
        await first.update()
    second = await over.subscriber(relay, "X@1s", bars=5)
    snapshot = await second.seen("snapshot", symbol="X")
    update = await second.seen("price_update", symbol="X")
    times = [candle["time"] for candle in snapshot["candles"]] + [update["candle"]["time"]]
    assert times == list(range(times[0], times[0] + 6))
    third = await over.subscriber(relay, "Y@1s", bars=0)
    nothing = await third.seen("snapshot")
    assert (nothing["candles"], nothing["complete"]) == ([], True)


class Seconds:
    """Has seconds of one symbol; all answers come when it `gives`."""

    def __init__(self, name: str, gives: asyncio.Event) -> None:
        self.__name__ = self.name = name
        self.gives = gives
        self.asked = 0

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(self.name, API_VERSION, self.name.title(), ("demo",), ("1s",))

    @hookimpl
    async def relay_candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        self.asked += 1
        await self.gives.wait()
        last = min(int(time.time()), end)
        times = range(last - 30_000 if start is None else start, last + 1)
        return [Candle(opened, 1.0, 1.0, 1.0, 1.0) for opened in (times[-limit:] if start is None else times[:limit])]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        while True:
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(int(time.time()), 1.0, 1.0, 1.0, 1.0))
            await asyncio.sleep(1.0)


# While so much is on its way through a socket, a time that jumps would pass the limits of who reads it.
@pytest.mark.real_time
async def test_pasts_that_come_from_several_providers_at_once_wait_for_the_reader(relay_with: StartRelay) -> None:
    gives = asyncio.Event()
    sources = [Seconds(name, gives) for name in ("one", "two", "three")]
    relay = await relay_with(builtin=sources, with_stand_ins=False)
    client = await relay.connect()
    names = [f"{source.name}:X@1s" for source in sources]
    await client.ask("subscribe", streams=names, since=int(time.time()) - 13_000)
    await eventually(lambda: all(source.asked for source in sources))
    gives.set()
    # It reads on only when all have come.
    await asyncio.sleep(3.0)
    snapshots = 0
    while snapshots < len(sources):
        text = await client.read(None)
        snapshots += '"type":"snapshot"' in str(text[:100])
