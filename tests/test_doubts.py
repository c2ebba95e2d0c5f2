"""A symbol that names another coin than before: its old candles are set aside, and nobody is served both as one."""

import json
import logging
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from providers.binance import BinanceProvider
from providers.sandbox import Pair, Sandbox
from providers.twelve_data import TwelveDataProvider
from relay.app import DOUBTS, STORE
from relay.clock import Clock
from relay.model import Candle, ProviderInfo, StreamKey
from relay.plugins.hookspecs import hookimpl
from relay.storage.coverage import Span
from relay.storage.store import Store
from relay.storage.upkeep import overview, reading
from relay.storage.verify import verify
from tests.conftest import StartRelay
from tests.running import Running, eventually

OLD = Pair("LUNAUSDT", "LUNA", "USDT", 80.0, 4, 2, 900_000.0, 400_000, 0.001, date(2022, 1, 3))
HOUR = 3600
DAY = 86_400


class QuickLists(BinanceProvider):
    """Binance with a list that is looked at every second."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(instruments_ttl_s=1.0)


class Bench:
    """A relay with a file, and LUNAUSDT, which was traded at 80 until two days ago."""

    def __init__(self, sandbox: Sandbox, start: StartRelay, path: Path) -> None:
        self.sandbox = sandbox
        self.path = path
        self.relay: Running
        self._start = start
        sandbox.market.add_symbols([OLD])
        self.now = sandbox.clock.now()
        # Nothing was traded since: the way to be seen as delisted before the list says so.
        self.ended = int(self.now) // HOUR * HOUR - 2 * DAY
        sandbox.market.hide(OLD.symbol, self.ended * 1000, 1 << 50)

    async def start(self, **settings: Any) -> Running:
        self.relay = await self._start(
            database=str(self.path), builtin=(QuickLists, TwelveDataProvider), **settings
        )  # fmt: skip
        self.relay.app[DOUBTS].again_s = 0.2
        return self.relay

    async def prices(self, interval: str = "1h", **query: Any) -> list[float]:
        answer = await self.relay.get("history", symbol="LUNAUSDT", interval=interval, **{"limit": 5000, **query})
        assert answer.status == 200, answer.text
        return [candle["close"] for candle in answer.body["candles"]]

    async def refreshed(self) -> None:
        """Wait until the relay has used a list that was given from now on."""
        calls = self.sandbox.binance.requests
        asked = len([call for call in calls if call.path.endswith("exchangeInfo")])
        await eventually(lambda: len([call for call in calls if call.path.endswith("exchangeInfo")]) >= asked + 2)

    def delist(self) -> None:
        self.sandbox.market.delist(OLD.symbol)

    def list_other(self, price: float = 5.0, hours: float = 3.5) -> None:
        since = self.sandbox.clock.now() - hours * HOUR
        self.sandbox.market.list_other(OLD, price, int(since) // 60 * 60_000)

    def stored_as(self) -> dict[str, int]:
        with reading(str(self.path)) as connection:
            streams = overview(connection, str(self.path)).streams
            assert verify(connection, streams, self.sandbox.clock.now()).faults == []
        return {str(stream.key): stream.candles for stream in streams if stream.key.symbol.startswith("LUNA")}


@pytest.fixture
async def bench(sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path) -> Bench:
    return Bench(sandbox, relay_with, tmp_path / "relay.db")


def is_old(price: float) -> bool:
    return price > 50


async def test_symbol_that_is_listed_again_for_another_coin_has_that_coins_history_only(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await bench.start()
    old = await bench.prices()
    assert len(old) > 4000
    assert all(map(is_old, old))
    bench.delist()
    await bench.refreshed()
    assert (await relay.get("history", symbol="LUNAUSDT", interval="1h")).status == 404
    bench.list_other()
    await bench.refreshed()
    prices = await bench.prices()
    assert len(prices) in (4, 5)
    assert not any(map(is_old, prices))
    client = await relay.connect()
    await client.subscribe("LUNAUSDT@1h", bars=100)
    snapshot = await client.until_type("snapshot")
    assert snapshot["complete"]
    assert not any(is_old(candle["close"]) for candle in snapshot["candles"])
    await eventually(lambda: relay.app[DOUBTS].set_aside)
    # The stored ones are kept as they were, under a name that nobody can ask for.
    told = (await relay.get("status")).body["store"]["set_aside"]
    assert [(one["provider"], one["symbol"], one["state"]) for one in told] == [("binance", "LUNAUSDT", "set_aside")]
    name = told[0]["kept_as"]
    assert name.startswith("LUNAUSDT~2")
    kept = await relay.app[STORE].read("binance", StreamKey(name, "1h"), 0, 1 << 40)
    assert [candle.close for candle in kept] == old
    assert (await relay.get("history", symbol=name, interval="1h")).status == 404
    (warning,) = [record for record in caplog.records if "names another instrument" in record.message]
    assert warning.levelno == logging.WARNING
    assert str(len(old)) in warning.message
    assert name in warning.message
    assert not any(map(is_old, await bench.prices()))
    await relay.close()
    assert bench.stored_as()[f"{name}@1h"] == len(old)


async def test_coin_that_is_back_has_its_candles_back(bench: Bench) -> None:
    relay = await bench.start()
    old = await bench.prices()
    pair = bench.sandbox.market.crypto[OLD.symbol]
    bench.delist()
    await bench.refreshed()
    bench.sandbox.market.add_symbols([pair])
    await bench.refreshed()
    asked = len(bench.sandbox.binance.requests)
    await eventually(lambda: not relay.app[DOUBTS].told())
    assert await bench.prices() == old
    calls = [call for call in bench.sandbox.binance.requests[asked:] if call.path.endswith("klines")]
    assert len(calls) <= 2
    assert not relay.app[DOUBTS].set_aside
    await relay.close()
    assert bench.stored_as() == {"LUNAUSDT@1h": len(old)}


@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
async def test_change_while_the_relay_was_off_is_seen_before_anything_is_served(bench: Bench, interval: str) -> None:
    relay = await bench.start()
    limit = 1000
    assert all(map(is_old, await bench.prices(interval, limit=limit)))
    await relay.close()
    bench.delist()
    bench.list_other()
    relay = await bench.start()
    prices = await bench.prices(interval, limit=limit)
    assert prices
    assert not any(map(is_old, prices))
    await eventually(lambda: relay.app[DOUBTS].set_aside)
    assert not any(map(is_old, await bench.prices(interval, limit=limit)))
    assert not any(map(is_old, await bench.prices(interval, limit=limit, start_time=bench.ended - 10 * HOUR)))


async def test_range_that_begins_with_stored_candles_is_not_answered_with_both(bench: Bench) -> None:
    relay = await bench.start()
    start = bench.ended - 20 * HOUR
    assert len(await bench.prices(start_time=start)) == 20
    await relay.close()
    bench.delist()
    bench.list_other()
    await bench.start()
    prices = await bench.prices(start_time=start)
    assert len(prices) in (4, 5)
    assert not any(map(is_old, prices))


async def test_past_that_an_earlier_version_mixed_is_parted_where_the_new_coin_begins(bench: Bench) -> None:
    relay = await bench.start()
    old = await bench.prices(start_time=bench.ended - 20 * HOUR)
    await relay.close()
    bench.delist()
    bench.list_other(hours=5)
    # Both as one complete span; nothing says when the list was seen.
    store = await Store.open(bench.path, Clock())
    since = int(bench.now) // HOUR * HOUR - 2 * HOUR
    new = [Candle(since + n * HOUR, 5.0, 5.5, 4.5, 5.0, 1.0) for n in range(2)]
    await store.add("binance", StreamKey("LUNAUSDT", "1h"), new, Span(bench.ended, new[-1].time + 1))
    await store.documents.put("listed:binance", b"{}")
    await store.close()
    relay = await bench.start()
    prices = await bench.prices(limit=3)
    assert not any(map(is_old, prices))
    await eventually(lambda: relay.app[DOUBTS].set_aside)
    assert not any(map(is_old, await bench.prices()))
    await relay.close()
    ((name, count),) = [item for item in bench.stored_as().items() if "~" in item[0]]
    assert name.endswith("@1h")
    assert count == len(old)


async def test_empty_and_failing_answers_set_nothing_aside(bench: Bench) -> None:
    relay = await bench.start()
    start = bench.ended - 20 * HOUR
    old = await bench.prices(start_time=start)
    await relay.close()
    # The provider has nothing of the symbol any more, the new one's first candle has yet to come.
    bench.sandbox.market.hide(OLD.symbol, 0, 1 << 50)
    relay = await bench.start()
    assert await bench.prices(start_time=start) == old
    bench.sandbox.binance.faults.answer_rest(500, path="/api/v3/klines")
    assert await bench.prices(start_time=start, end_time=bench.ended - 1) == old
    assert relay.app[DOUBTS].told() == []


async def test_one_bad_answer_sets_nothing_aside(bench: Bench) -> None:
    relay = await bench.start()
    old = await bench.prices()
    pair = bench.sandbox.market.delist(OLD.symbol)
    await bench.refreshed()
    # The first comparison takes two calls: the stored candles are gone, and so is their day.
    rows = [[int(bench.now) // HOUR * HOUR * 1000, "5", "5", "5", "5", "1", 0, "5", 1, "1", "5", "0"]]
    bench.sandbox.binance.faults.answer_rest(200, json.dumps(rows), path="/api/v3/klines", times=2)
    bench.sandbox.market.add_symbols([pair])
    await eventually(lambda: [one["state"] for one in relay.app[DOUBTS].told()] == ["checking"])
    await eventually(lambda: not relay.app[DOUBTS].told())
    assert bench.sandbox.binance.faults.rest_answer("/api/v3/klines") is None
    assert await bench.prices() == old


async def test_check_that_a_restart_interrupts_goes_on(bench: Bench) -> None:
    relay = await bench.start()
    await bench.prices()
    bench.delist()
    await bench.refreshed()
    relay.app[DOUBTS].again_s = 1000.0
    bench.list_other()
    await eventually(lambda: [one["state"] for one in relay.app[DOUBTS].told()] == ["checking"])
    await relay.close()
    relay = await bench.start()
    assert not any(map(is_old, await bench.prices()))
    await eventually(lambda: [one["state"] for one in relay.app[DOUBTS].told()] == ["set_aside"])
    assert not any(map(is_old, await bench.prices()))


async def test_stream_goes_on_with_the_new_coin_and_joins_nothing_of_the_old_one(bench: Bench) -> None:
    relay = await bench.start()
    client = await relay.connect()
    await client.subscribe("LUNAUSDT@1m", bars=5)
    first = await client.until_type("snapshot")
    assert [is_old(candle["close"]) for candle in first["candles"]] == [True] * 5
    bench.delist()
    bench.list_other(hours=0.1)
    update = await client.update()
    assert not is_old(update["candle"]["close"])
    await eventually(lambda: relay.app[DOUBTS].set_aside)
    other = await relay.connect()
    await other.subscribe("LUNAUSDT@1m", bars=50)
    snapshot = await other.until_type("snapshot")
    assert 5 <= len(snapshot["candles"]) <= 8
    assert not any(is_old(candle["close"]) for candle in snapshot["candles"])
    assert snapshot["complete"]
    await client.settle()
    times = [message["candle"]["time"] for message in client.updates]
    assert times == sorted(times)
    assert min(times) > first["candles"][-1]["time"]
    assert not any(is_old(message["candle"]["close"]) for message in client.updates)
    # The old coin's last candle was told as closed, so nothing of it is missing.
    assert not [message for message in client.received if message["type"] == "gap"]
