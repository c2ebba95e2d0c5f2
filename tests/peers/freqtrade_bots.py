"""Bots of freqtrade: how they are set, started and watched, whatever exchange their addresses lead to."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.peers.environments import CLIENTS, environment, execute

PACKAGE = "freqtrade==2026.9"
PATIENCE_S = 200.0

Row = list[float]


class Addresses(NamedTuple):
    """Where a bot finds its exchange: the base addresses of REST and of the WebSocket."""

    rest: str
    ws: str


def configuration(
    exchange: Addresses, pairs: Sequence[str], *, timeframe: str = "1m", most_trades: int = 3, has_streams: bool = True
) -> dict[str, Any]:
    """Return a bot's settings, its prices taken from the order book as by default; without streams it polls candles."""
    pricing = {"price_side": "same", "use_order_book": True, "order_book_top": 1}
    return {
        "dry_run": True,
        "dry_run_wallet": 10_000,
        "max_open_trades": most_trades,
        "stake_currency": "USDT",
        "stake_amount": 100,
        "timeframe": timeframe,
        "strategy": "Always",
        "strategy_path": str(CLIENTS / "freqtrade_strategies"),
        "initial_state": "running",
        "entry_pricing": pricing,
        "exit_pricing": pricing,
        "pairlists": [{"method": "StaticPairList"}],
        "exchange": {
            "name": "binance",
            "enable_ws": has_streams,
            "pair_whitelist": [*pairs],
            "only_from_ccxt": True,
            "ccxt_config": {
                "options": {"fetchMarkets": {"types": ["spot"]}},
                "urls": {"api": {"public": f"{exchange.rest}/api/v3", "ws": {"spot": f"{exchange.ws}/ws"}}},
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
        # It wraps its lines, at a width that depends on where it runs.
        return " ".join(self._log.read_text().split())

    def shown(self, pair: str) -> list[list[Row]]:
        """Return the newest candles as the strategy was shown them, once for each time."""
        lines = self._shown.read_text().splitlines(keepends=True) if self._shown.exists() else []
        # The last one may be on its way.
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [said["rows"] for said in found if said["pair"] == pair]

    def rows(self, pair: str) -> list[Row]:
        """Return the candles that the strategy was shown last, or none."""
        return next(reversed(self.shown(pair)), [])

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so. Raises AssertionError with what the bot said last when that takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():  # noqa: ASYNC110  files tell nobody that they grow
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(self.words[-4000:]) from None


async def prepared(folder: Path, settings: dict[str, Any]) -> tuple[Path, Path]:
    """Give the program, and its settings in a folder of its own."""
    program = (await asyncio.to_thread(environment, PACKAGE)).parent / "freqtrade"
    file = folder / "config.json"
    file.write_text(json.dumps(settings))
    await execute(program, "create-userdir", "--userdir", folder / "data")
    return program, file


@asynccontextmanager
async def trading(folder: Path, settings: dict[str, Any]) -> AsyncIterator[Bot]:
    """Run a bot; it has to be running at the end still."""
    program, file = await prepared(folder, settings)
    bot = Bot(folder / "log", folder / "shown")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "trade", "--config", file, "--userdir", folder / "data",
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
