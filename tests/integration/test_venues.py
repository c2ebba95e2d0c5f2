"""Kraken, Coinbase and Bybit as packages of others: their plugins run in a relay, against stand-ins over real sockets.

Their own tests, with the conformance check, are beside them in `tests/plugins/`.
"""

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from relay.core.clock import Clock
from tests.conftest import StartRelay
from tests.support.running_relay import Running, WsClient

PLUGINS = Path(__file__).parents[1] / "plugins"
VENUES = ("kraken", "coinbase", "bybit")
LONGEST_STEP_S = 300


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the stand-in of a venue, with five messages a second; no candle is over before somebody skips to that."""
    monkeypatch.syspath_prepend(str(PLUGINS / name))
    module = importlib.import_module(f"{name}_standin")
    venue = getattr(module, name.capitalize())(pace_s=0.2)
    # A moment after a beginning: what ended then may still be told.
    venue.skip(1 - venue.now() % LONGEST_STEP_S)
    return venue


async def running(relay_with: StartRelay, name: str, venue: Any) -> Running:
    file = str(PLUGINS / name / f"market_relay_{name}.py")
    # This machine moves on with the venue: one symbol alone would not be believed.
    return await relay_with(plugins=(file,), tables={name: venue.settings}, clock=Clock(wall=venue.now))


async def following(client: WsClient, symbol: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read on to the next closed candle and the update after it."""
    closed = await client.update(symbol=symbol, is_closed=True)
    return closed, await client.update(symbol=symbol, is_closed=False)


@pytest.mark.parametrize(
    ("name", "symbol", "interval", "step"),
    [("kraken", "BTC/USD", "1m", 60), ("coinbase", "BTC-USD", "5m", 300), ("bybit", "bybit:BTCUSDT", "1m", 60)],
)
async def test_venue_serves_history_and_live_candles_as_one_sequence(
    name: str, symbol: str, interval: str, step: int, relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stand_in(name, monkeypatch) as venue:
        relay = await running(relay_with, name, venue)
        client = await relay.connect()
        await client.subscribe(f"{symbol}@{interval}", bars=400)
        snapshot = await client.seen("snapshot", symbol=symbol)
        times = [candle["time"] for candle in snapshot["candles"]]
        assert snapshot["complete"]
        assert times == list(range(times[-1] - 399 * step, times[-1] + step, step))
        await client.update(symbol=symbol, is_closed=False)
        asked = len(venue.asked)
        # No further: a candle that is over for long is asked for before its closing is here.
        venue.skip(step - venue.now() % step)
        closed, after = await following(client, symbol)
        assert closed["candle"]["time"] == times[-1]
        assert not closed.get("backfilled")
        assert after["candle"]["time"] == times[-1] + step
        # The feed closed it, so nobody had to ask for it.
        assert len(venue.asked) == asked
        assert (await relay.get("history", symbol="NO-SUCH", interval=interval)).status == 404


async def test_intervals_of_one_symbol_go_over_connections_of_their_own(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stand_in("kraken", monkeypatch) as venue:
        relay = await running(relay_with, "kraken", venue)
        client = await relay.connect()
        await client.subscribe("BTC/USD@1m", "BTC/USD@5m", "ETH/USD@1m")
        for symbol, interval in (("BTC/USD", "1m"), ("BTC/USD", "5m"), ("ETH/USD", "1m")):
            await client.seen("price_update", symbol=symbol, interval=interval)
        status = (await relay.get("status")).body
        (kraken,) = [provider for provider in status["providers"] if provider["name"] == "kraken"]
        assert kraken["connections"] == 2
        asked = sorted((m["params"]["interval"], m["params"]["symbol"]) for m in venue.messages)
        assert asked == [(1, ["BTC/USD", "ETH/USD"]), (5, ["BTC/USD"])]


async def test_a_built_stream_begins_when_the_venue_says_although_its_clock_is_far_behind(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stand_in("kraken", monkeypatch) as venue:
        # The date of its answers is that of this machine.
        venue.skip(-1200)
        relay = await running(relay_with, "kraken", venue)
        client = await relay.connect()
        await client.subscribe("kraken:BTC/USD@3m", bars=3)
        snapshot = await client.seen("snapshot")
        assert len(snapshot["candles"]) == 3
        assert snapshot["candles"][-1]["time"] == int(venue.now()) // 180 * 180


@pytest.mark.parametrize(("interval", "minutes"), [("3m", 3), ("2h", 120), ("12h", 720), ("3d", 4320)])
async def test_intervals_that_a_venue_lacks_are_built_of_those_that_it_keeps(
    interval: str, minutes: int, relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stand_in("kraken", monkeypatch) as venue:
        relay = await running(relay_with, "kraken", venue)
        (listed,) = (await relay.get("instruments", q="BTC/USD", provider="kraken")).body
        assert listed["intervals"] == ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"]
        assert listed["derived_intervals"] == ["3m", "2h", "6h", "8h", "12h", "3d", "1M"]
        body = (await relay.get("history", symbol="kraken:BTC/USD", interval=interval, limit=1000)).body
        candles = [(candle["time"], *candle_values(candle)) for candle in body["candles"]]
        times = [time for time, *_ in candles]
        step = minutes * 60
        assert times == list(range(times[0], times[-1] + step, step))
        assert not any(time % step for time in times)
        # Kraken keeps 720 candles: none is given without its beginning, and the open one is not over.
        assert len(candles) in range(720 * 60 // step - 1, 721)
        assert candles[:-1] == [(time, *venue.candle(time, minutes)) for time in times[:-1]]
        assert not body["last_is_closed"]


async def test_a_stream_that_a_venue_lacks_closes_with_its_last_part(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stand_in("kraken", monkeypatch) as venue:
        venue.skip(-venue.now() % 180)
        relay = await running(relay_with, "kraken", venue)
        client = await relay.connect()
        await client.subscribe("kraken:BTC/USD@3m", "kraken:BTC/USD@1m", bars=100)
        snapshot = await client.seen("snapshot", interval="3m")
        times = [candle["time"] for candle in snapshot["candles"]]
        assert snapshot["complete"]
        assert times == list(range(times[-1] - 99 * 180, times[-1] + 180, 180))
        parts = []
        for _ in range(3):
            await client.update(is_closed=False)
            venue.skip(60 - venue.now() % 60)
            parts.append(candle_values((await client.update(interval="1m", is_closed=True))["candle"]))
        closed = await client.update(interval="3m", is_closed=True)
        # The venue says of a part what it said last: a skip takes the rest of it.
        opened, highs, lows, closes, volumes = zip(*parts, strict=True)
        expected = [opened[0], max(highs), min(lows), closes[-1], pytest.approx(sum(volumes))]
        assert candle_values(closed["candle"]) == expected
        assert closed["candle"]["time"] == times[-1]
        assert (await client.update(interval="3m"))["candle"]["time"] == times[-1] + 180
        (only,) = {message["params"]["interval"] for message in venue.messages if message["method"] == "subscribe"}
        assert only == 1


def candle_values(candle: dict[str, float]) -> list[float]:
    return [candle[name] for name in ("open", "high", "low", "close", "volume")]


async def test_lost_message_has_the_closing_values_asked_for(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stand_in("coinbase", monkeypatch) as venue:
        relay = await running(relay_with, "coinbase", venue)
        client = await relay.connect()
        await client.subscribe("BTC-USD@5m")
        first = await client.update(symbol="BTC-USD")
        venue.lose(3)
        venue.skip(300)
        closed = await client.update(symbol="BTC-USD", is_closed=True)
        assert closed["candle"]["time"] == first["candle"]["time"]
        assert closed["candle"]["volume"] == 30.0
        assert closed["backfilled"]


@pytest.mark.parametrize("name", VENUES)
def test_entry_point_of_the_package_names_the_plugin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((PLUGINS / name / "pyproject.toml").read_text())["project"]
    (target,) = project["entry-points"]["relay.providers"].values()
    monkeypatch.syspath_prepend(str(PLUGINS / name))
    assert importlib.import_module(target).relay_provider().name == name


@pytest.mark.parametrize("name", VENUES)
def test_provider_is_below_200_lines(name: str) -> None:
    assert len((PLUGINS / name / f"market_relay_{name}.py").read_text().splitlines()) < 200
