"""freqtrade uses the relay: it trades in dry-run, sees every candle through an outage, and downloads the past."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.peers.environments import CLIENTS, environment, execute
from tests.support.conditions import eventually
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

PACKAGE = "freqtrade==2026.9"
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
MINUTE_MS = 60_000
PATIENCE_S = 200.0


def configuration(relay: Running) -> dict[str, Any]:
    """Return a bot's settings, its prices taken from the order book as by default."""
    pricing = {"price_side": "same", "use_order_book": True, "order_book_top": 1}
    public, streams = f"{relay.url}/api/v3", f"{relay.url.replace('http://', 'ws://')}/ws"
    return {
        "dry_run": True,
        "dry_run_wallet": 1000,
        "max_open_trades": len(PAIRS),
        "stake_currency": "USDT",
        "stake_amount": 100,
        "timeframe": "1m",
        "strategy": "Always",
        "strategy_path": str(CLIENTS / "freqtrade_strategies"),
        "initial_state": "running",
        "entry_pricing": pricing,
        "exit_pricing": pricing,
        "pairlists": [{"method": "StaticPairList"}],
        "exchange": {
            "name": "binance",
            "pair_whitelist": [*PAIRS],
            "only_from_ccxt": True,
            "ccxt_config": {
                "options": {"fetchMarkets": {"types": ["spot"]}},
                "urls": {"api": {"public": public, "ws": {"spot": streams}}},
            },
        },
    }


class Bot:
    """freqtrade on its way: what it says, and the candles that its strategy was shown."""

    def __init__(self, log: Path, shown: Path) -> None:
        self._log = log
        self._shown = shown

    @property
    def words(self) -> str:
        return self._log.read_text()

    def rows(self, pair: str) -> list[list[float]]:
        """Return the candles that the strategy was shown last, or none."""
        lines = self._shown.read_text().splitlines() if self._shown.exists() else []
        found = [said["rows"] for said in map(json.loads, lines) if said["pair"] == pair]
        return found[-1] if found else []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so. Raises AssertionError with what the bot said last when that takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():  # noqa: ASYNC110  files tell nobody that they grow
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(self.words[-4000:]) from None


async def prepared(folder: Path, relay: Running) -> tuple[Path, Path]:
    """Give the program, and its settings in a folder of its own."""
    program = (await asyncio.to_thread(environment, PACKAGE)).parent / "freqtrade"
    settings = folder / "config.json"
    settings.write_text(json.dumps(configuration(relay)))
    await execute(program, "create-userdir", "--userdir", folder / "data")
    return program, settings


@asynccontextmanager
async def trading(folder: Path, relay: Running) -> AsyncIterator[Bot]:
    program, settings = await prepared(folder, relay)
    bot = Bot(folder / "log", folder / "shown")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "trade", "--config", settings, "--userdir", folder / "data",
            "--db-url", f"sqlite:///{folder}/trades.sqlite",
            stdout=log, stderr=log, env={**os.environ, "SEEN_BY_THE_STRATEGY": str(folder / "shown")},
        )  # fmt: skip
        try:
            yield bot
            assert process.returncode is None, bot.words[-4000:]
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            await process.wait()


async def outage(sandbox: Sandbox) -> int:
    """Cut the exchange off, streams and requests, while a minute ends; return the open time of that minute."""
    binance = sandbox.binance
    binance.faults.answer_rest(503)
    binance.faults.refuse(503)
    binance.faults.drop()
    await eventually(lambda: binance.connections == 0)
    minute = binance.now_ms() // MINUTE_MS * MINUTE_MS
    while binance.now_ms() < minute + MINUTE_MS + 2_000:  # noqa: ASYNC110  the minute ends by time
        await asyncio.sleep(0.2)
    binance.faults.clear()
    return minute


def truth_of(sandbox: Sandbox, pair: str, interval: str, start: int, count: int) -> list[list[float]]:
    """Return candles of the exchange as freqtrade holds them."""
    market = sandbox.binance.market.pair(pair.replace("/", ""))
    rows = sandbox.binance.rest.klines(market, interval, start, None, count)
    return [[float(str(value)) for value in row[:6]] for row in rows]


async def test_it_trades_and_an_outage_takes_no_candle_from_it(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        relay = await start_relay(sandbox)
        try:
            async with trading(tmp_path, relay) as bot:
                await bot.until(lambda: "LIMIT_BUY has been fulfilled" in bot.words)
                await bot.until(lambda: all(map(bot.rows, PAIRS)))
                missed = await outage(sandbox)
                last = missed + MINUTE_MS
                await bot.until(lambda: all(bot.rows(pair)[-1][0] >= last for pair in PAIRS))
                for pair in PAIRS:
                    rows = bot.rows(pair)
                    assert rows == truth_of(sandbox, pair, "1m", int(rows[0][0]), len(rows)), pair
                assert sandbox.binance.connections == 1
                assert "Outdated history" not in bot.words
        finally:
            await relay.close()


async def test_it_downloads_the_past(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        relay = await start_relay(sandbox)
        try:
            program, settings = await prepared(tmp_path, relay)
            await execute(
                program, "download-data", "--config", settings, "--userdir", tmp_path / "data",
                "--timeframes", "1h", "1m", "--timerange", "20261101-20261103", "--data-format-ohlcv", "json",
            )  # fmt: skip
        finally:
            await relay.close()
        for pair in PAIRS:
            for interval, least in (("1m", 2 * 1440), ("1h", 2 * 24)):
                file = tmp_path / "data" / "data" / "binance" / f"{pair.replace('/', '_')}-{interval}.json"
                rows = json.loads(file.read_text())
                assert len(rows) >= least
                assert rows == truth_of(sandbox, pair, interval, rows[0][0], len(rows)), file.name
