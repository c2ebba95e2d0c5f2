"""A symbol that names another coin than before: its old candles are set aside, and nobody is served both as one."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from providers.binance import BinanceProvider
from providers.sandbox.listings import Pair
from providers.twelve_data import TwelveDataProvider
from relay.app import DIRECTORY, IDENTITIES, STORE, RelayLimits
from relay.core.clock import Clock, ProviderClock
from relay.core.errors import ProviderError, ProviderUnavailable
from relay.core.intervals import length_s
from relay.core.model import Budget, Candle, ProviderInfo, StreamKey
from relay.core.past_change import PastChange
from relay.core.spans import Span
from relay.core.trading_hours import TradingHours
from relay.history.identity_checks import IdentityChecks
from relay.history.requests import HistoryRequest
from relay.history.service import HistoryService
from relay.plugins.hookspecs import hookimpl
from relay.storage.chunks import decode, joined
from relay.storage.inspect import overview, reading
from relay.storage.store import Store
from relay.storage.verify import verify
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

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
        builtin = (QuickLists, TwelveDataProvider)
        limits = RelayLimits(identity_again_s=0.2)
        self.relay = await self._start(database=str(self.path), builtin=builtin, limits=limits, **settings)
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

    async def gone(self) -> None:
        """Wait until so many lists were without the coin that the relay believes it, and one more."""
        await eventually(lambda: self.relay.app[DIRECTORY].standing("binance", OLD.symbol) == "gone")
        await self.refreshed()

    def delist(self) -> None:
        self.sandbox.market.delist(OLD.symbol)

    def list_other(self, price: float = 5.0, hours: float = 3.5) -> int:
        """List another coin by the name; return the open time of its first candle of a minute."""
        since = int(self.sandbox.clock.now() - hours * HOUR) // 60 * 60
        self.sandbox.market.list_other(OLD, price, since * 1000)
        return since

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
    await bench.gone()
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
    await eventually(lambda: relay.app[IDENTITIES].set_aside)
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
    await bench.gone()
    bench.sandbox.market.add_symbols([pair])
    await bench.refreshed()
    asked = len(bench.sandbox.binance.requests)
    await eventually(lambda: not relay.app[IDENTITIES].told())
    assert await bench.prices() == old
    calls = [call for call in bench.sandbox.binance.requests[asked:] if call.path.endswith("klines")]
    assert len(calls) <= 2
    assert not relay.app[IDENTITIES].set_aside
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
    await eventually(lambda: relay.app[IDENTITIES].set_aside)
    assert not any(map(is_old, await bench.prices(interval, limit=limit)))
    assert not any(map(is_old, await bench.prices(interval, limit=limit, start_time=bench.ended - 10 * HOUR)))


@pytest.mark.parametrize("wait_s", [0, 1])
async def test_who_does_not_wait_gets_nothing_that_may_be_of_another_coin(bench: Bench, wait_s: int) -> None:
    relay = await bench.start()
    assert await bench.prices(limit=100)
    await relay.close()
    bench.delist()
    bench.list_other()
    bench.sandbox.binance.faults.delay_rest(3.0)
    await bench.start()
    answer = await bench.relay.get("history", symbol="binance:LUNAUSDT", interval="1h", limit=100, wait_s=wait_s)
    assert (answer.status, answer.body["complete"]) == (200, False)
    assert not [candle for candle in answer.body["candles"] if is_old(candle["close"])]


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


async def test_download_that_reaches_the_change_is_cut_off(bench: Bench) -> None:
    relay = await bench.start()
    query: dict[str, Any] = {
        "symbol": "LUNAUSDT", "interval": "1m", "format": "csv", "limit": 20_000,
        "start_time": bench.ended - 60 * 7000,
    }  # fmt: skip
    assert len((await relay.get("history", **query)).text.splitlines()) == 7001
    await relay.close()
    bench.delist()
    bench.list_other()
    relay = await bench.start()
    # The pages before were sent when the next one told.
    with pytest.raises(aiohttp.ClientError):
        await relay.get("history", **query)
    prices = [float(line.split(",")[4]) for line in (await relay.get("history", **query)).text.splitlines()[1:]]
    assert len(prices) > 200
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
    await eventually(lambda: relay.app[IDENTITIES].set_aside)
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
    assert relay.app[IDENTITIES].told() == []


async def test_one_bad_answer_sets_nothing_aside(bench: Bench) -> None:
    relay = await bench.start()
    old = await bench.prices()
    pair = bench.sandbox.market.delist(OLD.symbol)
    await bench.gone()
    # The first comparison takes two calls: the stored candles are gone, and so is their day.
    day = int(bench.now) // DAY * DAY
    rows = [[day * 1000, "5", "5", "5", "5", "1", (day + DAY) * 1000 - 1, "5", 1, "1", "5", "0"]]
    for body in ([], rows):
        bench.sandbox.binance.faults.answer_rest(200, json.dumps(body), path="/api/v3/klines", times=1)
    bench.sandbox.market.add_symbols([pair])
    await eventually(lambda: [one["state"] for one in relay.app[IDENTITIES].told()] == ["checking"])
    await eventually(lambda: not relay.app[IDENTITIES].told())
    assert bench.sandbox.binance.faults.rest_answer("/api/v3/klines") is None
    assert await bench.prices() == old


async def test_check_that_a_restart_interrupts_goes_on(bench: Bench) -> None:
    relay = await bench.start()
    await bench.prices()
    bench.delist()
    await bench.gone()
    relay.app[IDENTITIES].runs.again_s = 1000.0
    bench.list_other()
    await eventually(lambda: [one["state"] for one in relay.app[IDENTITIES].told()] == ["checking"])
    await relay.close()
    relay = await bench.start()
    assert not any(map(is_old, await bench.prices()))
    await eventually(lambda: [one["state"] for one in relay.app[IDENTITIES].told()] == ["set_aside"])
    assert not any(map(is_old, await bench.prices()))


async def test_snapshot_waits_until_the_stream_has_forgotten_the_old_coin(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    pair = OLD._replace(symbol="LIVEUSDT", base="LIVE")
    sandbox.market.add_symbols([pair])
    relay = await relay_with(builtin=(QuickLists, TwelveDataProvider))
    client = await relay.connect()
    await client.subscribe("LIVEUSDT@1s", bars=5)
    for _ in range(2):
        await client.until_type("price_update", is_closed=True)
    sandbox.market.delist(pair.symbol)
    await eventually(lambda: relay.app[DIRECTORY].standing("binance", pair.symbol) == "gone")
    sandbox.binance.faults.delay_rest(1.0)
    sandbox.market.list_other(pair, 5.0, int(sandbox.clock.now()) * 1000)
    await eventually(lambda: [one["state"] for one in relay.app[IDENTITIES].told()] == ["checking"])
    other = await relay.connect()
    await other.subscribe("LIVEUSDT@1s", bars=50)
    snapshot = await other.until_type("snapshot")
    assert snapshot["candles"]
    assert not any(is_old(candle["close"]) for candle in snapshot["candles"])


async def test_stream_goes_on_with_the_new_coin_and_joins_nothing_of_the_old_one(bench: Bench) -> None:
    relay = await bench.start()
    client = await relay.connect()
    await client.subscribe("LUNAUSDT@1m", bars=5)
    first = await client.until_type("snapshot")
    assert [is_old(candle["close"]) for candle in first["candles"]] == [True] * 5
    bench.delist()
    since = bench.list_other(hours=0.1)
    update = await client.update()
    assert not is_old(update["candle"]["close"])
    async with asyncio.timeout(90):
        while not relay.app[IDENTITIES].set_aside:
            await client.settle()
            await asyncio.sleep(0.2)
    other = await relay.connect()
    await other.subscribe("LUNAUSDT@1m", bars=50)
    snapshot = await other.until_type("snapshot")
    # However long all of that took.
    assert len(snapshot["candles"]) >= 5
    assert snapshot["candles"][0]["time"] >= since
    assert not any(is_old(candle["close"]) for candle in snapshot["candles"])
    assert snapshot["complete"]
    await client.settle()
    times = [message["candle"]["time"] for message in client.updates]
    assert times == sorted(times)
    assert min(times) > first["candles"][-1]["time"]
    assert not any(is_old(message["candle"]["close"]) for message in client.updates)
    # The old coin's last candle was told as closed, so nothing of it is missing.
    assert not [message for message in client.received if message["type"] == "gap"]


# Without a relay


class Venue:
    """A source of candles at one price, minutes from `begins` on, and days from `days_from` on if that is given."""

    name = "venue"
    has_history = True
    close_grace_s = 5.0

    def __init__(self, price: float, begins: int, days_from: int | None = None, *, interval: str = "1m") -> None:
        self.price, self.begins, self.days_from = price, begins, days_from
        self.clock = ProviderClock(Clock(wall=lambda: NOW, monotonic=lambda: NOW))
        intervals = (interval,) if days_from is None else (interval, "1d")
        self.info = ProviderInfo("venue", 1, "Venue", ("demo",), intervals)
        self.asked = 0
        self.failure: ProviderError | None = None
        self.used = 0
        self.moment = 0.0

    def budgets(self) -> Sequence[Budget]:
        return (Budget("calls a minute", 8, self.used, NOW + 60),)

    def market(self, symbol: str) -> TradingHours:
        return TradingHours()

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        begins = self.days_from if key.interval == "1d" and self.days_from is not None else self.begins
        step = length_s(key.interval)
        first = -(-max(begins, start or 0) // step) * step
        return [flat(time, self.price) for time in range(first, end, step)[:limit]]

    def first(self) -> Candle:
        return flat(self.begins, self.price)


def flat(time: int, price: float) -> Candle:
    return Candle(time, price, price, price, price, 1.0)


NOW = 1_700_000_000 // DAY * DAY + 7200.5
TODAY = int(NOW) // DAY * DAY
KEPT = TODAY - 10 * DAY
KEY = StreamKey("LUNAUSDT", "1m")


class Checked:
    """Identities about what is stored: an hour of minutes at 80, ten days old."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.changes: list[tuple[str, str, int | None]] = []
        self.identity_checks = IdentityChecks(
            store,
            clock,
            on_changed=lambda *change: self.changes.append(change),
            again_s=0.05,
            retry_s=(0.1, 0.2),
            pace_s=0.01,
        )

    async def kept(self) -> dict[str, int]:
        """Return how many candles are stored under which name."""
        names = {key for _, key in await self.store.streams()}
        counts = {key.symbol: len(await self.store.read("venue", key, 0, 1 << 40)) for key in names}
        return {name: count for name, count in counts.items() if count}

    async def over(self) -> None:
        """Wait for the end of the checks."""
        await eventually(lambda: "checking" not in [one["state"] for one in self.identity_checks.told()])


@pytest.fixture
async def checked() -> AsyncIterator[Checked]:
    clock = Clock(wall=lambda: NOW)
    store = await Store.open(":memory:", clock)
    rows = [flat(time, 80.0) for time in range(KEPT, KEPT + 3600, 60)]
    await store.add("venue", KEY, rows, Span(0, KEPT + 3600))
    found = Checked(store, clock)
    yield found
    await found.identity_checks.close()
    await store.close()


async def test_nothing_stored_is_used_before_the_first_list_of_a_run_is_seen(checked: Checked) -> None:
    venue = Venue(5.0, int(NOW) - 600, TODAY)
    await checked.identity_checks.note_list(venue, ["BTCUSDT"])
    identity_checks = IdentityChecks(checked.store, Clock(wall=lambda: NOW))
    await identity_checks.start([venue], ["venue"])
    assert not identity_checks.is_settled(venue, KEY)
    assert identity_checks.is_settled(venue, StreamKey("BTCUSDT", "1m"))
    used = asyncio.create_task(identity_checks.settle(venue, KEY))
    await asyncio.sleep(0)
    assert not used.done()
    await identity_checks.note_list(venue, ["BTCUSDT", "LUNAUSDT"])
    await used
    assert await checked.store.read("venue", KEY, 0, 1 << 40) == []
    await identity_checks.close()


async def test_a_list_that_does_not_come_is_waited_for_only_so_long(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    identity_checks = IdentityChecks(checked.store, Clock(wall=lambda: NOW), patience_s=0.02)
    await identity_checks.start([venue], ["venue"])
    await identity_checks.settle(venue, KEY)
    assert await checked.kept() == {"LUNAUSDT": 60}


async def test_what_a_stream_remembers_is_joined_to_nothing_before_it_was_compared(checked: Checked) -> None:
    venue = Venue(5.0, int(NOW) - 600, TODAY)
    await checked.identity_checks.note_list(venue, ["BTCUSDT"])
    await checked.identity_checks.note_list(venue, ["BTCUSDT", "LUNAUSDT"])
    # Its candles are away, so what is asked of history needs no comparison.
    await checked.identity_checks.settle(venue, KEY)
    assert checked.changes == []
    await checked.identity_checks.settle(venue, KEY, is_spliced=True)
    assert checked.changes == [("venue", "LUNAUSDT", TODAY)]


async def test_answer_that_does_not_fit_is_compared_before_it_is_used(checked: Checked) -> None:
    venue = Venue(5.0, int(NOW) - 600, TODAY)
    await checked.identity_checks.note_answer(venue, KEY, venue.first())
    assert await checked.store.read("venue", KEY, 0, 1 << 40) == []
    assert await checked.store.spans("venue", KEY, 0, 1 << 40) == []
    assert checked.changes == [("venue", "LUNAUSDT", TODAY)]
    assert [one["state"] for one in checked.identity_checks.told()] == ["checking"]
    await checked.over()
    assert [one["state"] for one in checked.identity_checks.told()] == ["set_aside"]
    assert list((await checked.kept()).values()) == [60]
    await checked.identity_checks.note_answer(venue, KEY, venue.first())
    assert venue.asked == 4


async def test_a_past_that_its_provider_changed_is_no_other_instrument(checked: Checked) -> None:
    venue = Venue(20.0, 0)
    await checked.identity_checks.start([venue])
    await checked.identity_checks.note_answer(venue, KEY, flat(KEPT + 3600, 20.0))
    assert [one["state"] for one in checked.identity_checks.told()] == ["checking"]
    change = PastChange(KEY, int(NOW))
    checked.store.removals.void("venue", change)
    checked.identity_checks.note_past_change("venue", change)
    await checked.over()
    assert checked.identity_checks.told() == []
    assert await checked.kept() == {}
    asked = venue.asked
    assert await checked.identity_checks.note_differences("venue", KEY, KEPT)
    assert venue.asked == asked


async def test_answer_that_fits_costs_nothing(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    await checked.identity_checks.note_answer(venue, KEY, flat(KEPT + 3600, 80.0))
    assert venue.asked == 0


async def test_hole_in_the_same_instrument_costs_one_call_once(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    for _ in range(3):
        await checked.identity_checks.note_answer(venue, KEY, flat(int(NOW) - 600, 80.0))
    assert venue.asked == 1
    assert await checked.kept() == {"LUNAUSDT": 60}


async def test_provider_that_keeps_minutes_for_less_long_than_days_names_the_same(checked: Checked) -> None:
    venue = Venue(80.0, int(NOW) - 600, 0)
    await checked.identity_checks.note_answer(venue, KEY, venue.first())
    assert venue.asked == 2
    assert checked.identity_checks.told() == []
    assert checked.changes == []
    assert await checked.kept() == {"LUNAUSDT": 60}


async def test_history_that_begins_later_each_time_names_the_same(checked: Checked) -> None:
    key = StreamKey("LUNAUSDT", "1s")
    await checked.store.add("venue", key, [flat(KEPT, 80.0)], Span(0, KEPT + 1))
    venue = Venue(80.0, int(NOW) - 60, interval="1s")
    await checked.identity_checks.note_answer(venue, key, venue.first())
    assert [one["state"] for one in checked.identity_checks.told()] == ["checking"]
    venue.begins += 2
    await checked.over()
    assert checked.identity_checks.told() == []
    assert await checked.store.read("venue", key, 0, 1 << 40) == [flat(KEPT, 80.0)]


@pytest.mark.parametrize("is_other", [False, True])
async def test_candles_that_cannot_be_compared_are_away_until_they_can(checked: Checked, is_other: bool) -> None:
    venue = Venue(5.0, int(NOW) - 600, TODAY) if is_other else Venue(80.0, 0)
    venue.failure = ProviderUnavailable("down")
    await checked.identity_checks.note_answer(venue, KEY, flat(int(NOW) - 600, 5.0))
    assert await checked.kept() == {"LUNAUSDT~checking": 60}
    assert checked.changes == []
    asked = venue.asked
    await eventually(lambda: venue.asked > asked)
    venue.failure = None
    await checked.over()
    (name,) = await checked.kept()
    assert name.startswith("LUNAUSDT~2") if is_other else name == "LUNAUSDT"


async def test_doubt_that_only_time_speaks_for_takes_nothing_away_from_a_provider_that_fails(checked: Checked) -> None:
    venue = Venue(5.0, int(NOW) - 600, TODAY)
    venue.failure = ProviderUnavailable("down")
    await checked.identity_checks.note_list(venue, ["LUNAUSDT"])
    await checked.identity_checks.settle(venue, KEY)
    assert venue.asked == 1
    assert await checked.kept() == {"LUNAUSDT": 60}
    # An answer that does not fit is more of a sign, whatever was tried before.
    await checked.identity_checks.note_answer(venue, KEY, venue.first())
    assert await checked.kept() == {"LUNAUSDT~checking": 60}


@pytest.mark.parametrize("symbol", ["LUNAUSDT", "lunausdt"])
async def test_candles_of_who_is_back_are_away_before_the_list_is_used(checked: Checked, symbol: str) -> None:
    venue = Venue(5.0, int(NOW) - 600, TODAY)
    venue.failure = ProviderUnavailable("down")
    for listed in (["BTCUSDT", symbol], ["BTCUSDT"], [], ["BTCUSDT", symbol]):
        assert await checked.kept() == {"LUNAUSDT": 60}
        await checked.identity_checks.note_list(venue, listed)
    assert await checked.kept() == {"LUNAUSDT~checking": 60}


async def test_absence_is_remembered_for_the_next_run(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    venue.failure = ProviderUnavailable("down")
    await checked.identity_checks.note_list(venue, ["LUNAUSDT", "BTCUSDT"])
    await checked.identity_checks.note_list(venue, ["BTCUSDT"])
    later = IdentityChecks(checked.store, Clock(wall=lambda: NOW + DAY))
    await later.note_list(venue, ["BTCUSDT"])
    assert await checked.kept() == {"LUNAUSDT": 60}
    await later.note_list(venue, ["LUNAUSDT", "BTCUSDT"])
    assert await checked.kept() == {"LUNAUSDT~checking": 60}
    await later.close()


async def lose_nearly_all(checked: Checked, venue: Venue) -> list[str]:
    """Let a list lose nearly all and have them back; return who they are."""
    names = ["LUNAUSDT", *(f"T{number}" for number in range(9))]
    for name in names[1:]:
        await checked.store.add("venue", StreamKey(name, "1m"), [flat(KEPT, 80.0)], Span(0, KEPT + 1))
    for listed in (names, ["TEST"], names):
        await checked.identity_checks.note_list(venue, listed)
    return names


async def test_list_that_lost_nearly_all_takes_nothing_away(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    names = await lose_nearly_all(checked, venue)
    assert checked.identity_checks.told() == []
    assert set(await checked.kept()) == set(names)
    # They are compared all the same, one after the other.
    await eventually(lambda: all(checked.identity_checks.is_settled(venue, StreamKey(name, "1m")) for name in names))
    assert set(await checked.kept()) == set(names)


async def test_other_coins_are_found_in_a_list_that_had_lost_nearly_all_though_nobody_asks(checked: Checked) -> None:
    await lose_nearly_all(checked, Venue(5.0, int(NOW) - 600, TODAY))
    await eventually(lambda: len(checked.identity_checks.set_aside) == 10)


async def test_the_next_run_compares_who_was_back_and_not_compared_yet(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    venue.used = 6  # so that nobody's turn comes
    names = await lose_nearly_all(checked, venue)
    await checked.identity_checks.close()
    later = IdentityChecks(checked.store, Clock(wall=lambda: NOW))
    await later.note_list(venue, names)
    assert not later.is_settled(venue, KEY)
    await later.close()


async def test_who_is_back_while_nothing_can_be_written_is_compared_once_it_can_though_nobody_asks(
    tmp_path: Path,
) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    await store.add("venue", KEY, [flat(KEPT, 80.0)], Span(0, KEPT + 60))
    checked = Checked(store, Clock(wall=lambda: NOW))
    venue = Venue(5.0, int(NOW) - 600, TODAY)
    await checked.identity_checks.note_list(venue, ["BTCUSDT"])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await checked.identity_checks.note_list(venue, ["BTCUSDT", "LUNAUSDT"])
        other.execute("ROLLBACK")
    await eventually(lambda: bool(checked.identity_checks.set_aside))
    await checked.identity_checks.close()
    await store.close()


async def test_nobody_is_asked_for_the_sake_of_a_check_while_the_budget_is_short(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    await checked.identity_checks.note_list(venue, ["LUNAUSDT"])
    venue.used = 6
    await checked.identity_checks.settle(venue, KEY)
    assert venue.asked == 0
    assert await checked.kept() == {"LUNAUSDT": 60}


UNTIL = KEPT + 3540
"""The open time of the newest stored candle."""


async def test_differences_make_a_check_due_of_what_was_compared(checked: Checked) -> None:
    venue = Venue(40.0, 0)
    await checked.identity_checks.start([venue])
    # What the answer went on with says nothing of what was stored before.
    newer = [flat(time, 40.0) for time in range(KEPT + 3600, KEPT + 7200, 60)]
    await checked.store.add("venue", KEY, newer, Span(KEPT + 3600, KEPT + 7200))
    assert not await checked.identity_checks.note_differences("venue", KEY, UNTIL)
    assert checked.changes == [("venue", "LUNAUSDT", None)]
    await checked.over()
    assert [one["state"] for one in checked.identity_checks.told()] == ["set_aside"]


@pytest.mark.parametrize("price", [70.0, 5.0])
async def test_few_candles_beside_those_asked_for_show_another_coin(checked: Checked, price: float) -> None:
    venue = Venue(price, 0)
    venue.info = venue.info._replace(candles_back=3)
    await checked.identity_checks.start([venue])
    history = HistoryService(checked.store, Clock(wall=lambda: NOW), checked.identity_checks)
    history.calls.on_disagreement = checked.identity_checks.note_differences
    for start in (KEPT + 3600, KEPT + 1800):
        past = await history.candles(HistoryRequest(venue, KEY, start, KEPT + 7200, 500))
        assert past.is_complete
        assert {candle.close for candle in past.candles} == {price}
    await checked.over()
    assert [one["state"] for one in checked.identity_checks.told()] == ["set_aside"]
    await history.close()


async def test_one_answer_that_does_not_fit_is_not_stored_unless_the_next_one_is_like_it(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue, far = Venue(80.0, 0), [0]
    answer = venue.candles

    async def answer_of_another(key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        rows = await answer(key, start, end, limit)
        if start != far[0]:
            return rows
        far[0] = 0
        return [flat(row.time, 5.0) for row in rows]

    monkeypatch.setattr(venue, "candles", answer_of_another)
    history = HistoryService(checked.store, Clock(wall=lambda: NOW), checked.identity_checks)
    far[0] = start = KEPT + 7200
    past = await history.candles(HistoryRequest(venue, KEY, start, start + 3599, 500))
    assert {candle.close for candle in past.candles} == {80.0}
    assert {candle.close for candle in await checked.store.read("venue", KEY, 0, 1 << 40)} == {80.0}
    assert venue.asked == 3
    await history.close()


async def test_few_differences_of_the_same_instrument_are_revisions(checked: Checked) -> None:
    venue = Venue(80.0, 0)
    await checked.identity_checks.start([venue])
    for _ in range(2):
        assert await checked.identity_checks.note_differences("venue", KEY, UNTIL)
        assert venue.asked == 1
    # That was found out of what is older.
    assert await checked.identity_checks.note_differences("venue", KEY, UNTIL + 60)
    assert venue.asked == 2


async def test_file_that_cannot_be_written_leaves_everything_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    await store.add("venue", KEY, [flat(KEPT, 80.0)], Span(0, KEPT + 60))
    checked = Checked(store, Clock(wall=lambda: NOW))
    venue = Venue(5.0, int(NOW) - 600, TODAY)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await checked.identity_checks.note_answer(venue, KEY, venue.first())
        assert checked.changes == []
        other.execute("ROLLBACK")
    assert await checked.kept() == {"LUNAUSDT": 1}
    await eventually(lambda: bool(checked.changes))
    assert checked.changes == [("venue", "LUNAUSDT", TODAY)]
    await checked.over()
    assert [name.startswith("LUNAUSDT~2") for name in await checked.kept()] == [True]
    await checked.identity_checks.close()
    await store.close()


async def test_what_was_stored_while_candles_were_away_is_joined_with_them(checked: Checked, tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    rows = [flat(KEPT + 60 * number, 80.0) for number in range(1500)]
    await store.add("venue", KEY, rows, Span(0, KEPT + 90_000))
    await store.add("venue", StreamKey("LUNAUSDT", "1h"), [flat(KEPT, 80.0)], Span(KEPT, KEPT + 3600))
    assert len((await store.chunks("venue", KEY, 0, 1 << 40, 5000, False)).chunks) > 1
    assert await store.removals.set_aside("venue", "LUNAUSDT", "LUNAUSDT~checking") == 1501
    newer = [flat(KEPT + 60 * number, 81.0) for number in range(1490, 1600)]
    await store.add("venue", KEY, newer, Span(KEPT + 60 * 1490, KEPT + 60 * 1600))
    await store.add("venue", StreamKey("LUNAUSDT", "5m"), [flat(KEPT, 81.0)], Span(KEPT, KEPT + 300))
    await store.removals.take_back("venue", "LUNAUSDT~checking", "LUNAUSDT")
    assert await store.read("venue", KEY, 0, 1 << 40) == rows[:1490] + newer
    assert await store.spans("venue", KEY, 0, 1 << 40) == [Span(0, KEPT + 96_000)]
    encoded = decode(joined((await store.chunks("venue", KEY, 0, 1 << 40, 5000, False)).chunks))
    assert encoded == rows[:1490] + newer
    store.put_closed("venue", KEY, flat(KEPT + 96_000, 81.0), KEPT + 96_000 - 60)
    await store.close()
    with reading(str(path)) as connection:
        streams = overview(connection, str(path)).streams
        assert verify(connection, streams, NOW).faults == []
    assert {str(stream.key): stream.candles for stream in streams} == {
        "LUNAUSDT@1m": 1601,
        "LUNAUSDT@5m": 1,
        "LUNAUSDT@1h": 1,
    }
