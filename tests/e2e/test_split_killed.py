"""`kill -9` between the report of a split and its new prices: the next run does not have the old ones either."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.relay_process import Serving, serving
from tests.support.splitting_venue import ANNOUNCING, OLD, PLUGIN, SplittingVenue, splitting_venue

HISTORY = "/api/v1/market-data/history"


async def ask(relay: Serving, **query: str | int) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(relay.url + HISTORY, params=query) as answer:
        return answer.status, await answer.json()


def run(folder: Path, venue: SplittingVenue, plugin: str = PLUGIN) -> Any:
    off = {"RELAY_BINANCE_ENABLED": "no", "RELAY_TWELVE_DATA_ENABLED": "no"}
    own = {"RELAY_SHARES_SERVERS": venue.servers[0], "RELAY_PLUGINS": plugin}
    env = {**off, **own, "RELAY_DATABASE": str(folder / "relay.db")}
    return serving(folder, is_sandbox=False, env=env)


def is_noted(database: Path, split_at: int) -> bool:
    """Say whether the relay has noted that it took a split."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT body FROM documents WHERE name = 'past:shares'").fetchall()
    return any(str(split_at) in bytes(body).decode() for (body,) in rows)


async def test_a_kill_after_the_report_brings_no_old_price_back(tmp_path: Path) -> None:
    query: dict[str, str | int] = {"symbol": "SHARE", "interval": "1m", "limit": 400}
    async with splitting_venue() as venue:
        async with run(tmp_path, venue) as relay, aiohttp.ClientSession() as session:
            for _ in range(2):
                status, body = await ask(relay, **query)
                assert status == 200
                assert all(candle["close"] >= OLD for candle in body["candles"])
            # Whoever follows keeps the feed open, which reports.
            socket = await session.ws_connect(relay.url + "/api/v1/market-data/ws")
            await socket.send_json({"action": "subscribe", "symbol": "SHARE", "interval": "1m"})
            await asyncio.sleep(0)
            venue.is_refusing = True
            split_at = venue.split()
            await relay.logs("written down")
            relay.process.kill()
            await relay.ended()
        async with run(tmp_path, venue) as relay:
            status, body = await ask(relay, **query)
            assert status == 503, body
            stored, body = await ask(relay, **query, end_time=split_at - 600)
            assert stored == 503, body
            venue.is_refusing = False

            candles: list[dict[str, Any]] = []
            async with asyncio.timeout(LONGEST_WAIT_S):
                while len(candles) < 400:
                    status, body = await ask(relay, **query)
                    candles = body["candles"] if status == 200 else []
                    assert not [one for one in candles if one["time"] < split_at and one["close"] >= OLD]


async def test_a_report_that_was_not_written_is_made_again_by_the_next_run(tmp_path: Path) -> None:
    async with splitting_venue() as venue:
        async with run(tmp_path, venue) as relay:
            status, body = await ask(relay, symbol="SHARE", interval="1m", limit=400)
            assert (status, len(body["candles"])) == (200, 400)
            relay.process.kill()
            await relay.ended()
        split_at = venue.split()
        async with run(tmp_path, venue) as relay, aiohttp.ClientSession() as session:
            socket = await session.ws_connect(relay.url + "/api/v1/market-data/ws")
            await socket.send_json({"action": "subscribe", "symbol": "SHARE", "interval": "1m", "bars": 300})
            found: list[dict[str, Any]] = []
            async with asyncio.timeout(LONGEST_WAIT_S):
                while not (found and found[-1]["type"] == "snapshot" and found[-1]["candles"][-2]["close"] < OLD):
                    found.append(await socket.receive_json())
            assert not [one for one in found[-1]["candles"] if one["time"] < split_at and one["close"] >= OLD]
            await eventually(lambda: venue.asked_history > 1)


async def test_a_split_while_the_relay_is_off_is_asked_for_before_anything_is_answered(tmp_path: Path) -> None:
    query: dict[str, str | int] = {"symbol": "SHARE", "interval": "1m", "limit": 400}
    async with splitting_venue() as venue:
        async with run(tmp_path, venue, ANNOUNCING) as relay:
            assert (await ask(relay, **query))[0] == 200
            relay.process.kill()
            await relay.ended()
        split_at = venue.split()
        taken: list[int] = []
        for _ in range(2):
            async with run(tmp_path, venue, ANNOUNCING) as relay:
                status, body = await ask(relay, **query)
                assert status == 200
                assert not [one for one in body["candles"] if one["time"] < split_at and one["close"] >= OLD]
                # Answers wait until it is known, and it is noted after that: who is stopped before takes it once more.
                await eventually(lambda: is_noted(tmp_path / "relay.db", split_at))
                await relay.stop()
                taken.append(sum("changed the history of SHARE" in line for line in relay.err))
        assert taken == [1, 0]
