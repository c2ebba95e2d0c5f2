"""Programs for Binance and a replay: rows that Binance wrote, or a refusal that says why there are none."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from relay import Instrument, StreamKey, written_candle
from relay.core.model import Candle
from tests.support.recordings import START, walk
from tests.support.replaying import replaying
from tests.support.running_relay import Answer, Running

BTC = StreamKey("BTCUSDT", "1m")
ENTRY = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": []}
KNOWN = {"binance": {"BTCUSDT": Instrument("BTCUSDT", "crypto", "BTC", "USDT", extras={"exchange_info": ENTRY})}}
DATABASE = "; the database of a relay has them, `relay serve --replay relay.db`"
NO_TEXTS = f"This operation is not supported. (the recording of BTCUSDT has no texts of Binance{DATABASE})"
TENTH_MS = (START + 600) * 1000


def written(minute: int) -> Candle:
    texts = ("100.00000000", "101.50000000", "99.00000000", "100.10000000", "7.00000000", "703.00000000")
    return written_candle(START + 60 * minute, (*texts, "3.00000000", "301.00000000"), trades=9)


def row(minute: int) -> list[Any]:
    opened = (START + 60 * minute) * 1000
    return [opened, "100.00000000", "101.50000000", "99.00000000", "100.10000000", "7.00000000", opened + 59_999,
            "703.00000000", 9, "3.00000000", "301.00000000", "0"]  # fmt: skip


@asynccontextmanager
async def database(**options: Any) -> AsyncIterator[Running]:
    """Play what a relay recorded of Binance, ten minutes after it began."""
    candles = [written(minute) for minute in range(20)]
    async with replaying({"binance": {BTC: candles}}, start=START + 600, known=KNOWN, **options) as running:
        yield running


def file() -> Any:
    """Play a file with the same candles: their numbers, and no texts."""
    return replaying({"binance": {BTC: walk(20, extended=True)}}, start=START + 600)


async def klines(relay: Running, **query: Any) -> Answer:
    return await relay.get("/api/v3/klines", **{"symbol": "BTCUSDT", "interval": "1m", **query})


def refusal(answer: Answer) -> tuple[int, int, str]:
    assert "Retry-After" not in answer.headers
    return answer.status, answer.body["code"], answer.body["msg"]


async def test_klines_that_are_over_are_those_of_binance_and_the_forming_one_is_refused_with_the_end_to_ask_for() -> (
    None
):
    async with database() as relay:
        for _ in range(3):
            answer = await klines(relay)
            assert refusal(answer) == (
                400,
                -1020,
                f"This operation is not supported. (the kline of {TENTH_MS} has no texts of Binance in this recording; "
                f"one that forms never has; ask with endTime={TENTH_MS - 1} or an earlier one)",
            )
        assert (await klines(relay, endTime=TENTH_MS - 1)).body == [row(minute) for minute in range(10)]
        assert (await relay.get("/api/v3/exchangeInfo")).body["symbols"] == [ENTRY]
        # To ask is no subscription: time stands.
        assert (await relay.get("/api/v3/time")).body["serverTime"] == TENTH_MS


async def test_what_a_recording_does_not_have_is_refused_with_the_reason() -> None:
    async with database() as relay:
        assert refusal(await klines(relay, interval="15m")) == (
            400,
            -1120,
            "Invalid interval. (this recording has BTCUSDT at 1m)",
        )
        unknown = await klines(relay, symbol="ETHUSDT")
        assert refusal(unknown) == (400, -1121, "Invalid symbol. (this recording does not have it)")
        not_asked = "This operation is not supported. (this relay plays a recording and does not ask Binance)"
        for path in ("depth?symbol=BTCUSDT", "ticker/price?symbol=BTCUSDT", "exchangeInfo?showPermissionSets=true"):
            assert refusal(await relay.get(f"/api/v3/{path}")) == (400, -1020, not_asked)


async def test_a_file_has_no_texts_and_says_so() -> None:
    async with file() as relay:
        for answer in (
            await klines(relay),
            await klines(relay, endTime=TENTH_MS - 1),
            await relay.get("/api/v3/exchangeInfo"),
            await relay.get("/api/v3/exchangeInfo", symbol="BTCUSDT"),
        ):
            assert refusal(answer) == (400, -1020, NO_TEXTS)


async def test_a_relay_without_the_provider_says_so() -> None:
    async with replaying({"replay": {BTC: walk(20)}}) as relay:
        told = "Invalid symbol. (this relay has no candles of this market: no provider binance)"
        assert refusal(await klines(relay)) == (400, -1121, told)
        assert refusal(await relay.get("/api/v3/depth", symbol="BTCUSDT")) == (400, -1121, told)


@pytest.mark.parametrize(
    ("play", "name", "reason"),
    [
        (file, "btcusdt@kline_1m", f"the recording of BTCUSDT has no texts of Binance{DATABASE}"),
        (database, "btcusdt@kline_15m", "this recording has BTCUSDT at 1m"),
        (database, "ethusdt@kline_1m", "this recording does not have it"),
    ],
)
async def test_a_stream_that_would_be_silent_for_ever_is_refused(play: Any, name: str, reason: str) -> None:
    async with play() as relay, aiohttp.ClientSession() as session, session.ws_connect(f"{relay.url}/ws") as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": [name], "id": 1})
        answer = orjson.loads(await socket.receive_str())
        assert answer == {"error": {"code": 2, "msg": f"Invalid request: {reason}"}, "id": 1}


async def test_events_of_a_recording_are_the_closes_that_binance_wrote() -> None:
    async with (
        database(speed=6000) as relay,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{relay.url}/ws/btcusdt@kline_1m") as socket,
    ):
        events = [orjson.loads(await socket.receive_str())["k"] for _ in range(10)]
    assert [(event["t"], event["x"], event["h"]) for event in events] == [
        (TENTH_MS + 60_000 * number, True, "101.50000000") for number in range(10)
    ]
