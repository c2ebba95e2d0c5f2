"""A relay with providers that poll: what it makes of their plans, and of what they remember over restarts."""

import asyncio
import itertools
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import SUPERVISORS
from relay.supervision.supervisor import Supervisor
from tests.conftest import StartRelay
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.running_relay import Answer, Running
from tests.support.sandbox import Sandbox


class Hourly:
    """Polls once and says that it will again in an hour; keeps the questions to its history."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("hourly", API_VERSION, "Hourly", ("demo",), ("1m",), close_grace_s=1.0)

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        opened = int(time.time()) // 60 * 60
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(opened, 1, 1, 1, 1))
            if key.symbol == "PLANNED":
                watchlist.expect(key, 3600.0, 3600.0)
        await asyncio.Event().wait()

    @hookimpl
    async def relay_candles(self, symbol: str) -> list[Candle]:
        self.asked.append(symbol)
        return []


async def watched(relay_with: StartRelay, plugin: Hourly) -> tuple[Running, Supervisor]:
    running = await relay_with(builtin=(*BUILTIN, plugin))
    client = await running.connect()
    await client.subscribe("hourly:PLANNED@1m", "hourly:SILENT@1m")
    await client.until(lambda message: message["type"] == "price_update" and "SILENT" in message["symbol"])
    return running, running.app[SUPERVISORS]["hourly"]


async def test_history_is_not_asked_for_what_a_planned_poll_will_bring(relay_with: StartRelay) -> None:
    plugin = Hourly()
    running, supervisor = await watched(relay_with, plugin)
    streams = {key.symbol: stream for (_, key), stream in running.hub.streams.items()}
    began = time.monotonic()
    # Two minutes later its candle is over.
    supervisor.clock.observe(time.time() + 120)
    for _ in range(3):
        supervisor.clock.observe(time.time() + 120)
    supervisor.check(began + 120)
    assert streams["PLANNED"].status == "connected"
    await eventually(lambda: "SILENT" in plugin.asked)
    assert "PLANNED" not in plugin.asked


async def test_status_shows_when_a_stream_is_polled_next(relay_with: StartRelay) -> None:
    began = time.time()
    running, _ = await watched(relay_with, Hourly())
    status = (await running.get("status")).body
    planned, silent = sorted(status["streams"], key=lambda stream: str(stream["symbol"]))
    assert began + 3600 - 1 <= planned["next_poll"] <= status["server_time"] + 3600 + 1
    assert planned["poll_every_s"] == 3600
    assert (silent["next_poll"], silent["poll_every_s"]) == (None, None)


async def spent(relay: Running) -> dict[str, Any]:
    budgets = (await relay.get("status")).body["budgets"]
    return {budget["name"]: budget for budget in budgets if budget["provider"] == "twelve_data"}


async def test_credits_spent_before_a_restart_count_after_it(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    database = str(tmp_path / "relay.db")
    sandbox.twelve_data.rest.credits.per_minute = 8
    tables = {"twelve_data": {"credits_per_minute": 8, "credits_per_day": 800}}
    first = await relay_with(database=database, tables=tables)
    for interval in ("1m", "5m", "15m"):
        assert (await first.get("history", symbol="EUR/USD", interval=interval, limit=3)).status == 200
    before = await spent(first)
    assert before["credits a day"]["used"] >= 4
    await first.close()
    again = await relay_with(database=database, tables=tables)
    after = await spent(again)
    assert after["credits a day"]["used"] >= before["credits a day"]["used"]
    assert after["credits a day"]["reserved"] <= 80


async def test_a_relay_that_is_started_again_and_again_is_never_refused(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    """Each run would have spent three credits at once; the ninth in a minute is answered 503 here, not 429 there."""
    sandbox.twelve_data.rest.credits.per_minute = 8
    tables = {"twelve_data": {"credits_per_minute": 8, "credits_per_day": 800}}
    refused: list[Answer] = []
    # Beyond four runs only where a minute ends among them.
    async with asyncio.timeout(LONGEST_WAIT_S):
        for number in itertools.count():
            relay = await relay_with(database=str(tmp_path / "relay.db"), tables=tables)
            for interval in ("1m", "5m", "15m"):
                before = 10**9 + number
                answer = await relay.get("history", symbol="EUR/USD", interval=interval, end_time=before, limit=1)
                refused += [answer] if answer.status == 503 else []
            await relay.close()
            if number >= 3 and refused:
                break
    assert sandbox.twelve_data.rest.credits.refusals == 0
    assert all(1 <= int(answer.headers["Retry-After"]) <= 65 for answer in refused)
    assert "credits of this minute are used up" in refused[-1].body["detail"]


async def test_both_ends_of_a_range_are_included(relay: Running) -> None:
    start = (int(time.time()) // 60 - 100) * 60
    answer = await relay.get("history", symbol="EUR/USD", interval="1m", start_time=start, end_time=start + 240)
    assert [candle["time"] for candle in answer.body["candles"]] == [start + 60 * number for number in range(5)]
    answer = await relay.get("history", symbol="EUR/USD", interval="1m", start_time=start + 600, end_time=start + 600)
    assert [candle["time"] for candle in answer.body["candles"]] == [start + 600]


async def test_a_spent_day_is_503_until_midnight_and_throttled(sandbox: Sandbox, relay_with: StartRelay) -> None:
    credits = sandbox.twelve_data.rest.credits
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("EUR/USD@1m")
    await client.update()
    # Somebody else spends the rest with the same key.
    credits.used_today = credits.per_day
    state = await client.until_type("status", status="throttled", symbol="EUR/USD")
    assert "credits of this day are used up; the next poll is at " in state["message"]
    assert re.search("T00:00:0[45]Z$", state["message"])
    answer = await relay.get("history", symbol="EUR/USD", interval="5m", limit=3)
    assert answer.status == 503
    left_s = 86_400 - sandbox.twelve_data.clock.now() % 86_400
    assert int(answer.headers["Retry-After"]) == pytest.approx(left_s + 5, abs=30)
    assert credits.refusals == 1


@pytest.mark.parametrize("interval", ["1m", "5m"])
def test_nothing_but_a_price_makes_a_polled_stream_live_again(interval: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.poll_troubles", interval],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
