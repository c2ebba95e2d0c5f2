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

from relay.web.facades.binance.venue_markets import SPOT, USDM, USDM_STREAMS, VenueMarket
from tests.support.running_relay import start_relay
from tests.support.sandbox import Sandbox


@pytest.fixture
def captures(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--captures"))


def recorded_rows(captures: Path, market: str = "binance") -> dict[tuple[str, str], list[list[Any]]]:
    """Return all rows of a market on record by symbol and interval, ascending."""
    found: dict[tuple[str, str], dict[int, list[Any]]] = {}
    for file in sorted((captures / market / "rest/klines").glob("*.json")):
        symbol, interval, _ = file.stem.split("_", 2)
        found.setdefault((symbol, interval), {}).update({row[0]: row for row in json.loads(file.read_text())})
    for file in sorted((captures / market / "rest/klines_csv").glob("*.csv")):
        symbol, interval, *_ = file.stem.split("-")
        with file.open() as table:
            given = [*csv.reader(table)]
        rows: list[list[Any]] = [[int(one) if at in (0, 6, 8) else one for at, one in enumerate(row)] for row in given]
        found.setdefault((symbol, interval), {}).update({row[0]: row for row in rows})
    return {name: [rows[time] for time in sorted(rows)] for name, rows in found.items()}


@pytest.mark.parametrize("market", [SPOT, USDM], ids=lambda market: market.provider)
async def test_every_recorded_row_comes_out_as_the_same_text(
    captures: Path, tmp_path: Path, market: VenueMarket
) -> None:
    recorded = recorded_rows(captures, market.provider)
    if not recorded:
        pytest.skip(f"no klines of {market.provider} are on record")
    compared = 0
    async with Sandbox(futures=market is USDM) as sandbox:
        exchange = sandbox.futures if market is USDM else sandbox.binance
        exchange.add_symbols(sorted({symbol for symbol, _ in recorded}))
        for (symbol, interval), rows in recorded.items():
            exchange.serve_rows(symbol, interval, rows)
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
                                f"{market.root}/klines",
                                symbol=symbol, interval=interval, startTime=page[0][0], endTime=page[-1][0], limit=1000,
                            )  # fmt: skip
                            assert answer.text == text
                        compared += len(page)
            finally:
                await relay.close()
    assert compared > (20_000 if market is SPOT else 0)


async def test_a_recorded_list_of_contracts_comes_out_as_the_same_text(captures: Path) -> None:
    files = sorted((captures / "binance_usdm/rest").glob("exchangeInfo_*.json"))
    if not files:
        pytest.skip("no list of contracts is on record")
    for file in files:
        given = orjson.loads(file.read_bytes())
        async with Sandbox(futures=True) as sandbox:
            sandbox.futures.faults.answer_rest(200, orjson.dumps(given).decode(), path="/fapi/v1/exchangeInfo")
            relay = await start_relay(sandbox)
            try:
                answer = await relay.get("/fapi/v1/exchangeInfo")
                rows = {row["symbol"]: row for row in (await relay.get("instruments", provider="binance_usdm")).body}
            finally:
                await relay.close()
        entries = [orjson.dumps(entry) for entry in given["symbols"]]
        assert sorted(map(orjson.dumps, answer.body["symbols"])) == sorted(entries)
        named = {row["id"].partition(":")[2]: row for row in rows.values()}
        assert named.keys() == {entry["symbol"] for entry in given["symbols"]}
        for entry in given["symbols"]:
            row = named[entry["symbol"]]
            assert row["status"] == ("trading" if entry["status"] == "TRADING" else "paused")
            is_dated = entry["contractType"].endswith("_QUARTER")
            assert row.get("expires_at") == (entry["deliveryDate"] // 1000 if is_dated else None)


@pytest.mark.parametrize(
    ("market", "name"),
    [
        (SPOT, "combined_binance.com_2021-10-12"),
        (SPOT, "combined_binance.us_2021-10-12"),
        (USDM, "combined_fstream_2021-07-22"),
    ],
)
@pytest.mark.parametrize("path", ["/stream", "/ws"])
async def test_a_recorded_session_comes_out_as_the_same_events(
    captures: Path, market: VenueMarket, name: str, path: str
) -> None:
    file = captures / f"{market.provider}/ws/{name}.jsonl"
    if not file.exists():
        pytest.skip(f"no session of {market.provider} is on record")
    pin, before = (f"{market.provider}:", USDM_STREAMS) if market is USDM else ("", "")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    frames = [line["frame"] for line in lines[1:] if "@kline_" in json.loads(line["frame"])["stream"]]
    events = [json.loads(frame) for frame in frames]
    streams = sorted({event["stream"] for event in events})
    symbols = [stream.partition("@")[0].upper() for stream in streams]

    offset_s = events[0]["data"]["E"] / 1000 - 1 - time.time()
    async with Sandbox(offset_s=offset_s, futures=market is USDM) as sandbox:
        exchange = sandbox.futures if market is USDM else sandbox.binance

        async def play() -> None:
            for frame, event in zip(frames, events, strict=True):
                await sandbox.clock.sleep_until(event["data"]["E"] / 1000)
                exchange.play([frame])

        exchange.add_symbols(symbols)
        for symbol in symbols:
            exchange.serve_rows(symbol, "1m", [])
        exchange.faults.mute()
        relay = await start_relay(sandbox)
        try:
            own = await relay.connect()
            await own.subscribe(*(f"{pin}{symbol}@1m" for symbol in symbols))
            live: set[str] = set()
            while live != {*symbols}:
                message = await own.until(lambda one: one["type"] == "status" and one.get("symbol"))
                if message["status"] == "connected":
                    live.add(message["symbol"].removeprefix(pin))
            async with aiohttp.ClientSession() as session, session.ws_connect(relay.url + before + path) as ws:
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
