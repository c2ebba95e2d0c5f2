"""Recordings of the real Binance, played through the relay, come out of the facade as the same rows and events.

Collected only with `--captures DIR`: the recordings are not part of the repository.
"""

import asyncio
import csv
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.running_relay import start_relay
from tests.support.sandbox import Sandbox


@pytest.fixture
def captures(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--captures"))


def recorded_rows(captures: Path) -> dict[tuple[str, str], list[list[Any]]]:
    """Return all rows on record by symbol and interval, ascending."""
    found: dict[tuple[str, str], dict[int, list[Any]]] = {}
    for file in sorted((captures / "binance/rest/klines").glob("*.json")):
        symbol, interval, _ = file.stem.split("_", 2)
        found.setdefault((symbol, interval), {}).update({row[0]: row for row in json.loads(file.read_text())})
    for file in sorted((captures / "binance/rest/klines_csv").glob("*.csv")):
        symbol, interval, *_ = file.stem.split("-")
        with file.open() as table:
            given = [*csv.reader(table)]
        rows: list[list[Any]] = [[int(one) if at in (0, 6, 8) else one for at, one in enumerate(row)] for row in given]
        found.setdefault((symbol, interval), {}).update({row[0]: row for row in rows})
    return {name: [rows[time] for time in sorted(rows)] for name, rows in found.items()}


async def test_every_recorded_row_comes_out_as_the_same_text(captures: Path, tmp_path: Path) -> None:
    recorded = recorded_rows(captures)
    compared = 0
    async with Sandbox() as sandbox:
        sandbox.binance.add_symbols(sorted({symbol for symbol, _ in recorded}))
        for (symbol, interval), rows in recorded.items():
            sandbox.binance.serve_rows(symbol, interval, rows)
        # From the provider and from memory, then from the file.
        for times in (2, 1):
            relay = await start_relay(sandbox, database=str(tmp_path / "relay.db"))
            try:
                for (symbol, interval), rows in recorded.items():
                    for at in range(0, len(rows), 1000):
                        page = rows[at : at + 1000]
                        text = orjson.dumps(page).decode()
                        for _ in range(times):
                            answer = await relay.get(
                                "/api/v3/klines",
                                symbol=symbol, interval=interval, startTime=page[0][0], endTime=page[-1][0], limit=1000,
                            )  # fmt: skip
                            assert answer.text == text
                        compared += len(page)
            finally:
                await relay.close()
    assert compared > 20_000


@pytest.mark.parametrize("name", ["combined_binance.com_2021-10-12", "combined_binance.us_2021-10-12"])
@pytest.mark.parametrize("path", ["/stream", "/ws"])
async def test_a_recorded_session_comes_out_as_the_same_events(captures: Path, name: str, path: str) -> None:
    lines = [json.loads(line) for line in (captures / f"binance/ws/{name}.jsonl").read_text().splitlines()]
    frames = [line["frame"] for line in lines[1:] if "@kline_" in json.loads(line["frame"])["stream"]]
    events = [json.loads(frame) for frame in frames]
    streams = sorted({event["stream"] for event in events})
    symbols = [stream.partition("@")[0].upper() for stream in streams]

    async with Sandbox(offset_s=events[0]["data"]["E"] / 1000 - 1 - time.time()) as sandbox:

        async def play() -> None:
            for frame, event in zip(frames, events, strict=True):
                await sandbox.clock.sleep_until(event["data"]["E"] / 1000)
                sandbox.binance.play([frame])

        sandbox.binance.add_symbols(symbols)
        for symbol in symbols:
            sandbox.binance.serve_rows(symbol, "1m", [])
        sandbox.binance.faults.mute()
        relay = await start_relay(sandbox)
        try:
            own = await relay.connect()
            await own.subscribe(*(f"{symbol}@1m" for symbol in symbols))
            live: set[str] = set()
            while live != {*symbols}:
                message = await own.until(lambda one: one["type"] == "status" and one.get("symbol"))
                if message["status"] == "connected":
                    live.add(message["symbol"])
            async with aiohttp.ClientSession() as session, session.ws_connect(relay.url + path) as ws:
                await ws.send_json({"method": "SUBSCRIBE", "params": streams, "id": 1})
                assert await ws.receive_json(timeout=30) == {"result": None, "id": 1}
                playing = asyncio.create_task(play())
                by_stream: dict[str, list[str]] = {stream: [] for stream in streams}
                expected: dict[str, list[str]] = {stream: [] for stream in streams}
                for frame, event in zip(frames, events, strict=True):
                    data = frame if path == "/stream" else orjson.dumps(event["data"]).decode()
                    expected[event["stream"]].append(data)
                for _ in events:
                    text = (await ws.receive(30)).data
                    event = json.loads(text)
                    data = event.get("data", event)
                    stream = f"{data['s'].lower()}@kline_{data['k']['i']}"
                    by_stream[stream].append(text)
                    assert by_stream[stream] == expected[stream][: len(by_stream[stream])]
                assert by_stream == expected
                await playing
        finally:
            await relay.close()


async def test_recorded_refusals_are_said_in_the_same_words(captures: Path) -> None:
    lines = [json.loads(line) for line in (captures / "binance/rest/errors_observed.jsonl").read_text().splitlines()]
    asked = [line for line in lines if line["request"].startswith("GET ") and " with " not in line["request"]]
    assert len(asked) > 7
    async with Sandbox() as sandbox:
        # The pair that they were recorded with.
        sandbox.binance.add_symbols(["BNBBTC"])
        relay = await start_relay(sandbox)
        try:
            for line in asked:
                path = line["request"].removeprefix("GET ").replace("/api/v1/", "/api/v3/")
                answer = await relay.get(path)
                assert (answer.body or "") == line["body"], line["request"]
                assert answer.status == (line["http"] or 400)
        finally:
            await relay.close()
