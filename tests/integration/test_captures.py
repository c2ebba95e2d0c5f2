"""Recorded sessions and answers of the real exchanges, played through the whole relay.

Collected only with `--captures DIR`: the recordings are not part of the repository.
"""

import asyncio
import csv
import json
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from providers.binance.codec import BinanceCodec
from providers.binance_markets.codec import KlineCodec
from providers.binance_usdm.codec import UsdmCodec
from providers.twelve_data.forex import METAL, MONEY, without_padding
from providers.twelve_data.tick_codec import TickCodec, ticks_of
from relay import Accepted, Candle, Hosts, PriceUpdate, Rejected, Secret, StreamKey, enlarge
from relay.app import STORE
from relay.core.written_numbers import written_texts
from tests.support.running_relay import PREFIX as API
from tests.support.running_relay import start_relay
from tests.support.sandbox import Sandbox
from tests.support.ticks import Tick, candles_by_builder, candles_by_sql, read_quotes


@pytest.fixture
def captures(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--captures"))


@asynccontextmanager
async def relay_over(sandbox: Sandbox) -> AsyncIterator[str]:
    """Run a relay whose providers talk to the sandbox; yield its address."""
    running = await start_relay(sandbox, tables={"twelve_data": {"market_hours": "forex"}})
    try:
        yield running.url
    finally:
        await running.close()


@asynccontextmanager
async def sandbox_at(moment: float) -> AsyncIterator[Sandbox]:
    """Start the stand-ins with an exchange clock that shows `moment` now."""
    async with Sandbox(offset_s=moment - time.time()) as sandbox:
        yield sandbox


async def get(url: str, **query: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
        return answer.status, await answer.json(content_type=None)


def as_candle(row: list[Any]) -> dict[str, float]:
    names = ("open", "high", "low", "close", "volume")
    return {"time": row[0] // 1000, **{name: float(row[place]) for place, name in enumerate(names, 1)}}


def written(row: list[Any]) -> tuple[Any, ...]:
    """Return what a row says in texts, and its number of trades."""
    return (row[0] // 1000, *row[1:6], row[7], row[9], row[10], row[8])


def written_again(candle: Candle) -> tuple[Any, ...]:
    """Return the same of a candle."""
    return (candle.time, *(written_texts(candle) or ()), candle.trades)


# -- Binance: recorded WebSocket sessions -------------------------------------------------------------


@pytest.mark.parametrize("name", ["combined_binance.com_2021-10-12", "combined_binance.us_2021-10-12"])
async def test_recorded_session_reaches_a_client_unchanged(captures: Path, name: str) -> None:
    lines = [json.loads(line) for line in (captures / f"binance/ws/{name}.jsonl").read_text().splitlines()]
    frames = [line["frame"] for line in lines[1:]]
    events = [json.loads(frame)["data"] for frame in frames if "@kline_" in json.loads(frame)["stream"]]
    symbols = sorted({event["s"] for event in events})
    expected = {
        symbol: [
            (
                event["k"]["t"] // 1000,
                *(float(event["k"][field]) for field in "ohlcv"),
                event["k"]["x"],
                event["E"],
            )
            for event in events
            if event["s"] == symbol
        ]
        for symbol in symbols
    }

    async def play(sandbox: Sandbox) -> None:
        # As fast as they came: a stamp that is seconds ahead is not believed.
        for frame in frames:
            event = json.loads(frame)["data"]
            if event in events:
                await sandbox.clock.sleep_until(event["E"] / 1000)
            sandbox.binance.play([frame])

    async with sandbox_at(events[0]["E"] / 1000 - 1) as sandbox:
        sandbox.binance.add_symbols(symbols)
        for symbol in symbols:
            sandbox.binance.serve_rows(symbol, "1m", [])
        sandbox.binance.faults.mute()
        async with (
            relay_over(sandbox) as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}{API}/ws") as ws,
        ):
            await ws.send_json({"action": "subscribe", "streams": [f"{symbol}@1m" for symbol in symbols]})
            live: set[str] = set()
            while live != set(symbols):
                message = await ws.receive_json(timeout=30)
                if message["type"] == "status" and message["status"] == "connected" and "symbol" in message:
                    live.add(message["symbol"])
            playing = asyncio.create_task(play(sandbox))
            received: dict[str, list[tuple[Any, ...]]] = {symbol: [] for symbol in symbols}
            while received != expected:
                message = await ws.receive_json(timeout=30)
                if message["type"] == "price_update":
                    candle = message["candle"]
                    received[message["symbol"]].append((*candle.values(), message["is_closed"], message["ts_event"]))
                    symbol = message["symbol"]
                    assert received[symbol] == expected[symbol][: len(received[symbol])]
            await playing
    assert any(update[6] for updates in expected.values() for update in updates) == (".us_" in name)


@pytest.mark.parametrize(("market", "codec_type"), [("binance", BinanceCodec), ("binance_usdm", UsdmCodec)])
def test_recorded_events_are_given_back_as_they_were_written(
    captures: Path, market: str, codec_type: type[KlineCodec]
) -> None:
    count = 0
    files = sorted((captures / market / "ws").glob("*.jsonl"))
    if not files:
        pytest.skip(f"no session of {market} is on record")
    for file in files:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        frames = [line["frame"] for line in lines if "@kline_" in json.loads(line.get("frame", "{}")).get("stream", "")]
        klines = [json.loads(frame)["data"]["k"] for frame in frames]
        codec = codec_type(Hosts(["wss://localhost"]))
        codec.subscribe([StreamKey(kline["s"], kline["i"]) for kline in klines])
        for frame, kline in zip(frames, klines, strict=True):
            (update,) = codec.decode(frame)
            assert isinstance(update, PriceUpdate)
            said = (*(kline[letter] for letter in "ohlcvqVQ"), kline["n"])
            assert written_again(update.candle) == (kline["t"] // 1000, *said)
            count += 1
    assert count > 5


# -- Binance: recorded REST answers -------------------------------------------------------------------


async def test_recorded_klines_are_what_history_answers(captures: Path) -> None:
    files = sorted((captures / "binance/rest/klines").glob("*.json"))
    assert len(files) > 25
    async with Sandbox() as sandbox:
        recorded: dict[tuple[str, str], list[list[Any]]] = {}
        for file in files:
            symbol, interval, _ = file.stem.split("_")
            recorded.setdefault((symbol, interval), []).extend(json.loads(file.read_text()))
        for (symbol, interval), rows in recorded.items():
            rows.sort(key=lambda row: row[0])
            sandbox.binance.serve_rows(symbol, interval, rows)
        async with relay_over(sandbox) as url:
            for (symbol, interval), rows in recorded.items():
                truth = [as_candle(row) for row in {row[0]: row for row in rows}.values()]
                first, last = truth[0]["time"], truth[-1]["time"]
                for _ in range(2):
                    status, body = await get(
                        f"{url}{API}/history",
                        symbol=symbol,
                        interval=interval,
                        start_time=first,
                        end_time=last,
                        limit=5000,
                    )
                    assert status == 200, body
                    assert body["candles"] == truth[:5000]
                calls = len(sandbox.binance.requests)
                status, body = await get(
                    f"{url}{API}/history", symbol=symbol, interval=interval, end_time=last, limit=7
                )
                assert body["candles"] == truth[-7:]
                assert len(sandbox.binance.requests) == calls, "what is stored was asked again"


async def test_recorded_klines_are_stored_and_given_back_to_the_last_digit(captures: Path, tmp_path: Path) -> None:
    recorded: dict[tuple[str, str], dict[int, list[Any]]] = {}
    for file in sorted((captures / "binance/rest/klines").glob("*.json")):
        symbol, interval, _ = file.stem.split("_")
        rows = json.loads(file.read_text())
        recorded.setdefault((symbol, interval), {}).update({row[0]: row for row in rows})
    for file in sorted((captures / "binance/rest/klines_csv").glob("*.csv")):
        symbol, interval, *_ = file.stem.split("-")
        with file.open() as table:
            rows = [
                [int(text) if place in (0, 6, 8) else text for place, text in enumerate(row)]
                for row in csv.reader(table)
            ]
        recorded.setdefault((symbol, interval), {}).update({row[0]: row for row in rows})
    assert sum(map(len, recorded.values())) > 10_000
    async with Sandbox() as sandbox:
        sandbox.binance.add_symbols(sorted({symbol for symbol, _ in recorded}))
        for (symbol, interval), found in recorded.items():
            sandbox.binance.serve_rows(symbol, interval, [found[time] for time in sorted(found)])
        for run in range(2):
            running = await start_relay(sandbox, database=str(tmp_path / "relay.db"))
            try:
                for (symbol, interval), found in recorded.items():
                    rows = [found[time] for time in sorted(found)]
                    first, end = rows[0][0] // 1000, rows[-1][0] // 1000 + 1
                    if not run:
                        answer = await running.get(
                            "history", symbol=symbol, interval=interval, start_time=first, end_time=end - 1,
                            limit=5000, extended="true",
                        )  # fmt: skip
                        assert [
                            (one["quote_volume"], one["trades"], one["taker_volume"], one["taker_quote_volume"])
                            for one in answer.body["candles"]
                        ] == [(float(row[7]), row[8], float(row[9]), float(row[10])) for row in rows[:5000]]
                    stored = await running.app[STORE].read(
                        "binance", StreamKey(symbol, interval), first, end, extended=True
                    )
                    assert [written_again(candle) for candle in stored] == [written(row) for row in rows[:5000]]
            finally:
                await running.close()


async def test_recorded_errors_reach_the_client_as_problems(captures: Path) -> None:
    lines = (captures / "binance/rest/errors_observed.jsonl").read_text().splitlines()
    expected = {418: 503, 429: 503}
    async with Sandbox() as sandbox, relay_over(sandbox) as url:
        await get(f"{url}{API}/symbols")
        for line in map(json.loads, lines):
            body = line["body"] if isinstance(line["body"], str) else json.dumps(line["body"])
            status = line["http"] or 400
            sandbox.binance.faults.answer_rest(status, body, times=1, path="/api/v3/klines")
            answered, problem = await get(f"{url}{API}/history", symbol="BTCUSDT", interval="1m", limit=3)
            assert problem["code"] in {"provider_unavailable", "unknown_symbol"}, (line, problem)
            assert answered in {expected.get(status, 502), 404, 502, 503}, (line, problem)
            sandbox.binance.faults.answer_rest_normally()
            if status in expected:
                break


# -- Twelve Data --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "symbol", "interval"),
    [
        ("time_series_AUDUSD_1min_utc_2026-08-14.json", "AUD/USD", "1m"),
        ("time_series_USDRUB_1min_utc_2020-01-31.json", "USD/RUB", "1m"),
    ],
)
async def test_recorded_time_series_is_what_history_answers(
    captures: Path, file: str, symbol: str, interval: str
) -> None:
    answer = json.loads((captures / "twelvedata/rest" / file).read_text())
    async with Sandbox() as sandbox:
        sandbox.twelve_data.add_symbols([symbol])
        sandbox.twelve_data.serve_rows(symbol, {"1m": "1min"}[interval], answer)
        async with relay_over(sandbox) as url:
            truth = [
                {
                    "time": utc(row["datetime"]),
                    **{name: float(row[name]) for name in ("open", "high", "low", "close")},
                    "volume": 0.0,
                }
                for row in reversed(answer["values"])
            ]
            status, body = await get(
                f"{url}{API}/history", symbol=symbol, interval=interval,
                start_time=truth[0]["time"], end_time=truth[-1]["time"],
            )  # fmt: skip
            assert status == 200, body
            assert body["candles"] == truth


async def test_recorded_gold_loses_its_padded_weekends_and_nothing_else(captures: Path) -> None:
    file = captures / "twelvedata/candles/XAUUSD_15min_utc_2026-01-22_to_08-20.csv"
    rows = [row for row in csv.reader(file.read_text().splitlines(), delimiter=";") if row and row[0][0].isdigit()]
    values = [dict(zip(("datetime", "open", "high", "low", "close"), row, strict=True)) for row in reversed(rows)]
    answer = {"meta": {"symbol": "XAU/USD", "interval": "15min"}, "values": values, "status": "ok"}
    async with Sandbox() as sandbox:
        sandbox.twelve_data.serve_rows("XAU/USD", "15min", answer)
        async with relay_over(sandbox) as url:
            start = utc("2026-03-02 00:00:00")
            status, body = await get(
                f"{url}{API}/history", symbol="XAU/USD", interval="15m",
                start_time=start, end_time=start + 7 * 86_400 - 1, limit=1000,
            )  # fmt: skip
            assert status == 200, body
            times = {candle["time"] for candle in body["candles"]}
            recorded = {utc(row[0]) for row in rows}
            # Winter time in New York: the market closes on Friday at 22:00 UTC and opens on Sunday at 23:00 for gold.
            open_hours = {
                moment
                for moment in recorded
                if start <= moment < start + 5 * 86_400 - 7200 and (moment % 86_400) // 3600 != 22
            }
            assert open_hours <= times
            assert not {moment for moment in times if utc("2026-03-06 22:00:00") <= moment < utc("2026-03-08 21:00:00")}
            assert not {
                moment for moment in times if moment < utc("2026-03-06 22:00:00") and moment % 86_400 // 3600 == 22
            }


def test_the_padding_of_seven_months_of_gold_is_what_the_clock_says_and_almost_flat(captures: Path) -> None:
    file = captures / "twelvedata/candles/XAUUSD_15min_utc_2026-01-22_to_08-20.csv"
    rows = [row for row in csv.reader(file.read_text().splitlines(), delimiter=";") if row and row[0][0].isdigit()]
    candles = sorted(Candle(utc(row[0]), *map(float, row[1:5])) for row in rows)
    kept = without_padding(candles, "15m", METAL)
    dropped = sorted(set(candles) - set(kept))
    assert (len(candles), len(kept), len(dropped)) == (20_156, 13_804, 6_352)
    # Weekends alone, which money and metals have in common.
    assert len(candles) - len(without_padding(candles, "15m", MONEY)) == 5_752
    ranges = [statistics.median(candle.high - candle.low for candle in part) for part in (kept, dropped)]
    assert ranges == pytest.approx([8.157, 0.270], abs=0.001)


async def test_recorded_twelve_data_errors_are_understood_in_both_deliveries(captures: Path) -> None:
    lines = (captures / "twelvedata/rest/errors_observed.jsonl").read_text().splitlines()
    expected = {400: {502, 404}, 401: {503}, 403: {502, 503, 404}, 404: {404}, 429: {503}}
    for line in map(json.loads, lines):
        for status in (line["http"], 200):
            async with Sandbox() as sandbox, relay_over(sandbox) as url:
                await get(f"{url}{API}/symbols")
                sandbox.twelve_data.faults.answer_rest(status, json.dumps(line["body"]), path="/time_series")
                answered, problem = await get(f"{url}{API}/history", symbol="EUR/USD", interval="1m", limit=3)
                assert answered in expected[line["body"]["code"]], (line, status, problem)
                assert problem["code"] in {"provider_unavailable", "unknown_symbol"}


def utc(label: str) -> int:
    return int(time.mktime(time.strptime(label, "%Y-%m-%d %H:%M:%S"))) - time.timezone


async def test_outage_of_2021_is_believed_after_one_answer(captures: Path) -> None:
    file = captures / "candles/BTCUSDT-1m-2021-04-20_outage.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert rows
    name = next(iter(rows[0]))
    times = [_moment(row[name]) for row in rows]
    values = [[row[key] for key in ("open", "high", "low", "close", "volume")] for row in rows]
    klines = [
        [moment * 1000, *value, moment * 1000 + 59_999, "0", 1, "0", "0", "0"]
        for moment, value in zip(times, values, strict=True)
    ]
    async with Sandbox() as sandbox:
        sandbox.binance.serve_rows("BTCUSDT", "1m", klines)
        async with relay_over(sandbox) as url:
            query = {"symbol": "BTCUSDT", "interval": "1m", "start_time": times[0], "end_time": times[-1]}
            _, body = await get(f"{url}{API}/history", **query, limit=5000)
            assert [candle["time"] for candle in body["candles"]] == times
            calls = len(sandbox.binance.requests)
            _, again = await get(f"{url}{API}/history", **query, limit=5000)
            assert again == body
            assert len(sandbox.binance.requests) == calls, "the hole was asked for again"
    await asyncio.sleep(0)


def _moment(text: str) -> int:
    return int(text) // 1000 if text.isdigit() and len(text) > 10 else utc(text[:19].replace("T", " "))


# -- recorded ticks and candles through the builder -------------------------------------------------------


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "4h", "1d", "1w", "1M"])
def test_recorded_ticks_make_the_candles_that_a_database_makes_of_them(captures: Path, interval: str) -> None:
    ticks = read_quotes(captures / "forex/EURUSD_quote_ticks_histdata_2020-01.csv")
    assert len(ticks) == 9500
    candles = candles_by_builder(ticks, interval, grace_s=1.0)
    assert candles == candles_by_sql(ticks, interval)
    assert len(candles) == {"1m": 361, "5m": 73, "1h": 7, "4h": 3, "1d": 2, "1w": 1, "1M": 1}[interval]


@pytest.mark.parametrize("interval", ["5m", "4h", "1w"])
def test_recorded_minutes_make_the_larger_candles_that_a_database_makes_of_them(captures: Path, interval: str) -> None:
    with (captures / "forex/GBPUSD_1min_bid_2012-02.csv").open() as file:
        rows = list(csv.DictReader(file))
    minutes = [
        Candle(
            int(datetime.fromisoformat(row["timestamp"]).timestamp()),
            *(float(row[name]) for name in ("open", "high", "low", "close")),
        )
        for row in rows
    ]
    # Four ticks stand for a minute: a larger candle has the same extremes, beginning and end of either.
    ticks = [
        Tick(0, (minute.time + place) * 1000, price)
        for minute in minutes
        for place, price in enumerate((minute.open, minute.high, minute.low, minute.close))
    ]
    assert enlarge(minutes, interval) == candles_by_sql(ticks, interval)


def test_recorded_frames_of_the_tick_stream_are_understood(captures: Path) -> None:
    lines = (captures / "twelvedata/ws/frames_recorded.jsonl").read_text().splitlines()
    codec = TickCodec(Hosts(["ws://localhost"]), Secret("none"))
    codec.subscribe([ticks_of("EUR/USD")])
    codec.subscribe([ticks_of("GBP/USD")])
    said = [value for line in lines for value in codec.decode(json.loads(line)["frame"])]
    assert [type(value) for value in said] == [Accepted, Rejected, PriceUpdate, PriceUpdate]
    assert [value.key.symbol for value in said if isinstance(value, PriceUpdate)] == ["AMZN", "EUR/USD"]
    assert [value.keys for value in said if isinstance(value, Accepted | Rejected)] == [
        (ticks_of("EUR/USD"),),
        (ticks_of("GBP/USD"),),
    ]
