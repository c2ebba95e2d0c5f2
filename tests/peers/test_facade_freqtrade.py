"""freqtrade uses the relay: it trades in dry-run, sees every candle through an outage, and downloads the past."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.web.facades.facade import FACADES
from tests.peers.bot_runs import MINUTE_MS, outage, truth_of
from tests.peers.environments import execute
from tests.peers.freqtrade_bots import Addresses, configuration, prepared, trading
from tests.support.running_relay import start_relay
from tests.support.sandbox import Sandbox

pytestmark = [pytest.mark.peers, pytest.mark.timeout(900)]

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Addresses, Sandbox, Counter[str]]]:
    async with Sandbox() as sandbox:
        relay = await start_relay(sandbox)
        try:
            answered = relay.app[FACADES].counts["binance"].answered
            yield Addresses(relay.url, relay.url.replace("http://", "ws://")), sandbox, answered
        finally:
            await relay.close()


async def test_it_trades_and_an_outage_takes_no_candle_from_it(tmp_path: Path) -> None:
    async with served() as (relay, sandbox, answered), trading(tmp_path, configuration(relay, PAIRS)) as bot:
        await bot.until(lambda: "LIMIT_BUY has been fulfilled" in bot.words)
        await bot.until(lambda: all(map(bot.rows, PAIRS)))
        last = await outage(sandbox, 4.0) + MINUTE_MS
        await bot.until(lambda: all(bot.rows(pair)[-1][0] >= last for pair in PAIRS))
        for pair in PAIRS:
            rows = bot.rows(pair)
            assert rows == truth_of(sandbox, pair, "1m", int(rows[0][0]), len(rows)), pair
        # One of candles, one of order books.
        assert sandbox.binance.connections == 2
        books = [call for call in sandbox.binance.requests if call.path == "/api/v3/depth" and call.status == 200]
        assert len(books) <= answered["depth"] / 3
        assert "Outdated history" not in bot.words


async def test_it_downloads_the_past(tmp_path: Path) -> None:
    async with served() as (relay, sandbox, _):
        program, settings = await prepared(tmp_path, configuration(relay, PAIRS))
        await execute(
            program, "download-data", "--config", settings, "--userdir", tmp_path / "data",
            "--timeframes", "1h", "1m", "--timerange", "20261101-20261103", "--data-format-ohlcv", "json",
        )  # fmt: skip
        for pair in PAIRS:
            for interval, least in (("1m", 2 * 1440), ("1h", 2 * 24)):
                file = tmp_path / "data" / "data" / "binance" / f"{pair.replace('/', '_')}-{interval}.json"
                rows = json.loads(file.read_text())
                assert len(rows) >= least
                assert rows == truth_of(sandbox, pair, interval, rows[0][0], len(rows)), file.name
