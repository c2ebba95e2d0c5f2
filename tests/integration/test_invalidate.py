"""A provider that says that its past changed: what was stored goes, what was told comes again as revised."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, StreamKey, Watchlist, hookimpl
from relay.core.clock import Clock
from relay.core.model import Candle as StoredCandle
from relay.core.past_change import PastChange
from relay.core.spans import Span
from relay.storage.inspect import overview, reading
from relay.storage.store import Store
from relay.storage.verify import verify
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.transports import Transport


class Shares:
    """A share at 100 until `split` is called: then at 50, and so is all of its past before the split."""

    __name__ = "shares"

    def __init__(self) -> None:
        self.began = int(time.time()) - 600
        self.is_split = False
        self.told: list[tuple[StreamKey, int | None]] = []
        self.asked = 0
        # A split that is reported while history is asked for candles from here on.
        self.splits_at: int | None = None

    def split(self, before: int | None) -> None:
        self.is_split = True
        self.told.append((StreamKey("SHARE", "1m"), before))

    def _candle(self, opened: int) -> Candle:
        price = 50.0 if self.is_split else 100.0
        return Candle(opened, price, price, price, price, 1.0)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="shares", api=API_VERSION, title="Shares", asset_classes=("demo",), intervals=("1s", "1m"),
            close_grace_s=0.5,
        )  # fmt: skip

    @hookimpl
    async def relay_candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        self.asked += 1
        if start is not None and start == self.splits_at:
            self.splits_at = None
            self.split(None)
            while self.told:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        step = 60 if interval == "1m" else 1
        first = -(-max(self.began, start or 0) // step) * step
        times = range(first, min(end, int(time.time()) + 1), step)
        return [self._candle(opened) for opened in (times[-limit:] if start is None else times[:limit])]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        opened = int(time.time())
        while True:
            await asyncio.sleep(0.05)
            while self.told:
                watchlist.invalidate(*self.told.pop())
            if time.time() >= opened + 1:
                for key in watchlist.streams:
                    yield PriceUpdate(key, self._candle(opened), is_closed=True)
                opened += 1


async def test_told_candles_are_revised_and_stored_ones_are_asked_for_anew(
    relay_with: StartRelay, over: Transport
) -> None:
    shares = Shares()
    relay = await relay_with(builtin=(*BUILTIN, shares))
    client = await over.subscriber(relay, "SHARE@1s")
    for _ in range(3):
        await client.update(is_closed=True)
    before = client.closed_times
    query: dict[str, Any] = {"symbol": "SHARE", "interval": "1s", "start_time": shares.began, "limit": 300}
    for _ in range(3):
        prices = {candle["close"] for candle in (await relay.get("history", **query)).body["candles"]}
        assert prices == {100.0}
    asked = shares.asked
    shares.split(None)
    await eventually(lambda: not shares.told)
    revised = [await client.update(revised=True) for _ in before]
    assert [message["candle"]["time"] for message in revised] == before
    assert {(message["candle"]["close"], message["is_closed"]) for message in revised} == {(50.0, True)}
    answer = await relay.get("history", **query)
    assert {candle["close"] for candle in answer.body["candles"]} == {50.0}
    assert len(answer.body["candles"]) == 300
    assert shares.asked > asked
    # The stream goes on where it was.
    update = await client.update(is_closed=True)
    assert update["candle"]["time"] > before[-1]
    fresh = [message for message in client.updates if message["is_closed"] and not message.get("revised")]
    times = [message["candle"]["time"] for message in fresh]
    assert times == list(range(times[0], times[0] + len(times)))
    assert not [message for message in client.received if message["type"] == "gap"]


async def test_a_past_that_changes_while_it_is_joined_is_fetched_again(relay_with: StartRelay) -> None:
    shares = Shares()
    relay = await relay_with(builtin=(*BUILTIN, shares))
    first = await relay.connect()
    await first.subscribe("SHARE@1s")
    await first.update(is_closed=True)
    second = await relay.connect()
    # The newest candles are fetched before those of the gap.
    shares.splits_at = gap = shares.began + 5
    since = int(time.time()) - 100
    await second.ask("subscribe", symbol="SHARE", interval="1s", since=since, gaps=[[gap, gap + 5]])
    snapshot = await second.until_type("snapshot")
    assert shares.is_split
    assert {candle["close"] for candle in [*snapshot["candles"], *snapshot["revised"]]} == {50.0}
    assert len(snapshot["candles"]) > 90


async def test_a_flood_of_reports_becomes_few_messages_and_few_calls(
    relay_with: StartRelay, over: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="relay")
    shares = Shares()
    relay = await relay_with(builtin=(*BUILTIN, shares))
    client = await over.subscriber(relay, "SHARE@1s", bars=300)
    await client.seen("snapshot")
    shares.is_split = True
    asked = shares.asked
    shares.told = [(StreamKey("SHARE", "1m"), None)] * 500
    fresh = await client.until(lambda message: message.get("replaces"))
    assert {candle["close"] for candle in fresh["candles"][:-1]} == {50.0}
    assert len([message for message in client.received if message["type"] == "outdated"]) == 1
    assert shares.asked < asked + 20
    row = next(one for one in (await relay.get("status")).body["providers"] if one["name"] == "shares")
    assert row["past_changes"] == 500
    assert len([record for record in caplog.records if "changed the history" in record.message]) == 1


async def test_what_opened_later_stays(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    start = 1_700_000_000 // 3600 * 3600
    store = await Store.open(path, Clock())
    minutes = [StoredCandle(start + 60 * n, 2.0, 3.0, 1.0, 2.5, 10.0) for n in range(2000)]
    hours = [StoredCandle(start + 3600 * n, 2.0, 3.0, 1.0, 2.5, 10.0) for n in range(30)]
    await store.add("shares", StreamKey("SHARE", "1m"), minutes, Span(0, start + 120_000))
    await store.add("shares", StreamKey("SHARE", "1h"), hours, Span(start, start + 30 * 3600))
    await store.add("shares", StreamKey("OTHER", "1m"), minutes, Span(start, start + 120_000))
    await store.chunks("shares", StreamKey("SHARE", "1m"), 0, 1 << 40, 5000, False)
    seen = store.look()
    before = start + 7000 * 10
    store.removals.void("shares", PastChange(StreamKey("SHARE", "1m"), before))
    assert not seen.is_same("shares", "SHARE")
    assert store.version("shares", StreamKey("SHARE", "1m")) == -1
    assert await store.read("shares", StreamKey("SHARE", "1m"), 0, 1 << 40) == minutes[1167:]
    assert await store.spans("shares", StreamKey("SHARE", "1m"), 0, 1 << 40) == [Span(before, start + 120_000)]
    assert len(await store.read("shares", StreamKey("OTHER", "1m"), 0, 1 << 40)) == 2000
    await store.close()
    with reading(str(path)) as connection:
        found = verify(connection, overview(connection, str(path)).streams, start + 1e6)
    assert found.faults == []


@pytest.mark.parametrize("one_interval", [True, False])
async def test_what_waits_to_be_written_is_forgotten_too(tmp_path: Path, one_interval: bool) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    candle = StoredCandle(60, 2.0, 3.0, 1.0, 2.5, 10.0)
    store.put_closed("shares", StreamKey("SHARE", "1m"), candle, None)
    store.removals.void("shares", PastChange(StreamKey("SHARE", "1m"), one_interval=one_interval))
    assert await store.read("shares", StreamKey("SHARE", "1m"), 0, 1 << 40) == []
    await store.close()


class Restless:
    """Says at each question for candles that its past is another one."""

    __name__ = "restless"

    def __init__(self) -> None:
        self.asked = 0
        self.watchlist: Watchlist | None = None

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("restless", API_VERSION, "Restless", ("demo",), ("1m",))

    @hookimpl
    async def relay_candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        self.asked += 1
        await asyncio.sleep(0.1)
        assert self.watchlist is not None
        self.watchlist.invalidate(StreamKey(symbol, interval))
        last = min(int(time.time()), end) // 60 * 60
        times = range(-(-(start or 0) // 60) * 60, last + 1, 60)
        return [Candle(opened, 1.0, 1.0, 1.0, 1.0) for opened in (times[-limit:] if start is None else times[:limit])]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        self.watchlist = watchlist
        while True:
            version = watchlist.version
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 1.0, 1.0, 1.0))
            await watchlist.changed(version)


@pytest.mark.parametrize("past", [{"bars": 300}, {"since": -300}])
async def test_a_past_that_is_another_one_each_time_is_said_not_to_be_had(
    relay_with: StartRelay, past: dict[str, int]
) -> None:
    restless = Restless()
    relay = await relay_with(builtin=(*BUILTIN, restless), max_history_rows_per_minute=1000)
    client = await relay.connect()
    await client.subscribe("X@1m")
    await client.update()
    if "since" in past:
        past = {"since": int(time.time()) - 18_000}
    began = asyncio.get_running_loop().time()
    await client.ask("subscribe", streams=["restless:Y@1m"], **past, id=1)
    assert (await client.answer(1))["type"] == "subscription"
    assert not (await client.until_type("snapshot"))["complete"]
    assert asyncio.get_running_loop().time() - began < 10.0
    # What it was not given counts once, and for nothing else.
    await client.subscribe("BTCUSDT@1m", bars=500)
    assert len((await client.until_type("snapshot"))["candles"]) == 500
    # Ever less often, also where a candle closes meanwhile, which is asked for as well: it could be asked 600 times.
    asked = restless.asked
    await asyncio.sleep(60.0)
    assert restless.asked - asked < 200
