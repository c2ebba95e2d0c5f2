"""Recorded candles played through the live protocol: all of them, in step, and nothing of the future."""

import asyncio
import time
from typing import Any

import aiohttp
import orjson
import pytest

from providers.replay import replayed
from relay.core.model import EXTRA_FIELDS, Candle, Instrument, StreamKey
from relay.testing import check_provider, sped_up
from tests.support.conditions import eventually
from tests.support.raw_socket import raw_clients
from tests.support.recordings import START, MemoryRecording, Streams, longer, walk
from tests.support.replaying import replaying
from tests.support.running_relay import PREFIX, Message, Running, WsClient
from tests.support.threadless_database import threadless

BTC, BTC_HOUR, ETH, EUR = (
    StreamKey("BTCUSDT", "1m"),
    StreamKey("BTCUSDT", "1h"),
    StreamKey("ETHUSDT", "1m"),
    StreamKey("EUR/USD", "1m"),
)
WEEK = 7 * 24 * 60
TWO_DAYS = 2 * 24 * 60
NOON = START + 12 * 3600


def as_object(candle: Candle, *, extended: bool = False) -> dict[str, Any]:
    names = (*Candle._fields, *(EXTRA_FIELDS if extended else ()))
    return {name: getattr(candle, name) for name in names}


# -- the recorded week -----------------------------------------------------------------------------


async def record(running: Running, *names: str, **options: Any) -> list[Message]:
    """Keep all that a client is told until the recording of each stream has ended."""
    told: list[Message] = []
    ended: set[str] = set()
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{running.url}{PREFIX}/ws") as socket:
        await socket.send_str(orjson.dumps({"action": "subscribe", "streams": names, **options}).decode())
        async for frame in socket:
            message = orjson.loads(frame.data)
            told.append(message)
            if message["type"] == "status" and message["status"] == "market_closed":
                ended.add(f"{message['symbol']}@{message['interval']}")
                if len(ended) == len(names):
                    break
    return told


def closed_of(told: list[Message], key: StreamKey) -> list[dict[str, Any]]:
    return [
        one["candle"]
        for one in told
        if one["type"] == "price_update" and one["is_closed"] and (one["symbol"], one["interval"]) == key
    ]


@pytest.mark.timeout(300)
def test_two_days_at_3600_times_the_speed_are_the_recorded_ones_row_for_row() -> None:
    minutes, others = walk(TWO_DAYS, extended=True), walk(TWO_DAYS, seed=2, extended=True)
    streams = {BTC: minutes, BTC_HOUR: longer(minutes, "1h")}
    passed: list[float] = []

    async def play() -> list[Message]:
        # Two providers have two feeds, which are in step all the same.
        async with replaying({"binance": streams, "other": {ETH: others}}, speed=3600) as running:
            began = time.monotonic()
            told = await record(running, *map(str, (BTC, BTC_HOUR, ETH)), extended=True)
            passed.append(time.monotonic() - began)
            return told

    with threadless():
        told = sped_up(play, start=1_800_000_000)()
    assert closed_of(told, BTC) == [as_object(one, extended=True) for one in minutes]
    assert closed_of(told, ETH) == [as_object(one, extended=True) for one in others]
    assert closed_of(told, BTC_HOUR) == [as_object(one, extended=True) for one in streams[BTC_HOUR]]
    updates = [one for one in told if one["type"] == "price_update"]
    closes = [one["ts_event"] for one in updates if one["is_closed"]]
    assert closes == sorted(closes)
    assert not [one for one in updates if one.get("backfilled") or one.get("revised")]
    assert not [one for one in told if one["type"] in ("gap", "error")]
    states = {one["status"] for one in told if one["type"] == "status"}
    assert states == {"connected", "connecting", "market_closed"}
    # Two days have 48 hours.
    assert 48 <= passed[0] < 80


# -- what time it is -------------------------------------------------------------------------------


async def test_clients_meet_the_past_and_nothing_of_its_future() -> None:
    minutes = walk(WEEK)
    async with replaying({"binance": {BTC: minutes, BTC_HOUR: longer(minutes, "1h")}}, start=NOON) as running:
        client = await running.connect(hello=False)
        assert (await client.next())["server_time"] == NOON
        known = minutes[: 12 * 60]
        opened = dict.fromkeys(("open", "high", "low", "close"), minutes[12 * 60].open) | {"time": NOON, "volume": 0.0}
        last = await running.get("history", symbol="btcusdt", interval="1m", limit=3)
        assert last.body["candles"] == [*map(as_object, known[-2:]), opened]
        assert (last.body["last_is_closed"], last.body["provider"]) == (False, "binance")
        whole = await running.get("history", symbol="btcusdt", interval="1m", limit=5000, start_time=0)
        assert whole.body["candles"] == [*map(as_object, known), opened]
        assert whole.body.get("complete", True)
        hours = await running.get("history", symbol="BTCUSDT", interval="1h", limit=500)
        assert [one["time"] for one in hours.body["candles"]] == [START + 3600 * n for n in range(13)]
        later = await running.get("history", symbol="BTCUSDT", interval="1m", start_time=NOON, end_time=NOON + 999_999)
        assert later.body["candles"] == [opened]
        lines = await running.get("history", symbol="BTCUSDT", interval="1m", start_time=NOON - 60, format="csv")
        assert len(lines.text.splitlines()) == 2
        await client.subscribe("BTCUSDT@1m", bars=5)
        snapshot = await client.until_type("snapshot")
        assert [one["time"] for one in snapshot["candles"]] == [NOON - 60 * n for n in range(4, -1, -1)]
        assert snapshot["candles"][-1] == opened
        await client.ask("ping")
        assert NOON <= (await client.until_type("pong"))["server_time"] < NOON + 60


async def test_the_far_future_of_a_recording_is_refused_as_a_start() -> None:
    async with replaying({"binance": {BTC: walk(WEEK)}}, start=NOON) as running:
        answer = await running.get("history", symbol="BTCUSDT", interval="1m", start_time=NOON + 5 * 86_400)
        assert (answer.status, answer.body["code"]) == (400, "invalid_request")
        client = await running.connect()
        await client.ask("subscribe", symbol="BTCUSDT", interval="1m", since=NOON + 5 * 86_400)
        assert (await client.error())["code"] == "invalid_request"


async def test_time_stands_until_somebody_subscribes() -> None:
    candles = walk(100)
    async with replaying({"binance": {BTC: candles}}, speed=12_000) as running:
        await asyncio.sleep(0.3)
        answer = await running.get("history", symbol="BTCUSDT", interval="1m")
        assert [one["time"] for one in answer.body["candles"]] == [START]
        client = await running.connect()
        await client.subscribe("BTCUSDT@1m")
        await client.until_type("status", status="market_closed")
        assert [one["candle"] for one in client.updates if one["is_closed"]] == [*map(as_object, candles)]
        answer = await running.get("history", symbol="BTCUSDT", interval="1m", limit=500)
        assert answer.body["candles"] == [*map(as_object, candles)]
        assert answer.body["last_is_closed"] is True


async def test_who_comes_later_has_past_and_live_as_one_sequence() -> None:
    candles = walk(600)
    async with replaying({"binance": {BTC: candles, ETH: walk(600, seed=2)}}, speed=18_000) as running:
        first = await running.connect()
        await first.subscribe("BTCUSDT@1m")
        await first.update(is_closed=True)
        clients = [await running.connect() for _ in range(5)]
        for number, client in enumerate(clients):
            await client.ask("subscribe", symbol="BTCUSDT", interval="1m", since=START - 1)
            await client.ask("subscribe", symbol="ETHUSDT", interval="1m", since=START - 1)
            await asyncio.sleep(0.05 * number)
        for client in clients:
            await client.until_type("status", status="market_closed", symbol="BTCUSDT")
            await client.settle()
            assert closes_of(client, BTC) == [*map(as_object, candles)]
            assert closes_of(client, ETH) == [*map(as_object, walk(600, seed=2))]


def closes_of(client: WsClient, key: StreamKey) -> list[dict[str, Any]]:
    """Return the closed candles of a client's snapshot and updates."""
    mine = [one for one in client.received if (one.get("symbol"), one.get("interval")) == key]
    (snapshot,) = [one for one in mine if one["type"] == "snapshot"]
    candles: list[dict[str, Any]] = snapshot["candles"]
    if not snapshot["last_is_closed"]:
        candles = candles[:-1]
    return candles + [one["candle"] for one in mine if one["type"] == "price_update" and one["is_closed"]]


async def test_clients_that_never_read_hold_up_neither_time_nor_others() -> None:
    candles = walk(3000, extended=True)
    async with replaying({"binance": {BTC: candles, ETH: walk(3000, seed=2)}}, speed=36_000) as running:
        with raw_clients(running.url, 5, str(BTC), str(ETH)) as dead:
            reader = await running.connect()
            for client in dead:
                await client.open()
            await reader.subscribe(str(BTC), since=START - 1)
            await reader.until_type("status", status="market_closed", symbol="BTCUSDT")
            assert closes_of(reader, BTC) == [*map(as_object, candles)]
            assert not [one for one in reader.updates if one.get("backfilled")]


# -- what a recording may hold ---------------------------------------------------------------------


async def test_holes_are_told_as_they_are() -> None:
    candles = walk(200)
    recorded = [*candles[:50], *candles[51:60], *candles[150:]]
    async with replaying({"binance": {BTC: recorded}}, speed=12_000) as running:
        client = await running.connect()
        await client.subscribe("BTCUSDT@1m")
        await client.until_type("status", status="market_closed")
        assert [one["candle"] for one in client.updates if one["is_closed"]] == [*map(as_object, recorded)]
        assert not [one for one in client.received if one["type"] == "gap"]
        answer = await running.get("history", symbol="BTCUSDT", interval="1m", start_time=START, limit=500)
        assert answer.body["candles"] == [*map(as_object, recorded)]
        assert answer.body.get("complete", True)


def test_a_stream_is_silent_while_nothing_is_recorded_and_nothing_is_late_afterwards() -> None:
    candles = walk(1000)
    recorded = [*candles[:20], *candles[900:]]

    async def play() -> list[Message]:
        async with replaying({"binance": {BTC: recorded, ETH: walk(1000, seed=2)}}, speed=60) as running:
            return await record(running, str(BTC), str(ETH))

    with threadless():
        told = sped_up(play)()
    assert closed_of(told, BTC) == [*map(as_object, recorded)]
    assert closed_of(told, ETH) == [*map(as_object, walk(1000, seed=2))]
    updates = [one for one in told if one["type"] == "price_update"]
    assert not [one for one in updates if one.get("backfilled") or one.get("revised")]
    assert not [one for one in told if one["type"] in ("gap", "error")]
    closes = [one["ts_event"] for one in updates if one["is_closed"]]
    assert closes == sorted(closes)
    states = [one["status"] for one in told if one["type"] == "status" and one.get("symbol") == "BTCUSDT"]
    # As of any provider: silence of a quarter of an hour is not normal for it.
    assert "stale" in states
    assert states[-2:] == ["connected", "market_closed"]


async def test_a_price_that_leaps_is_told_at_its_time() -> None:
    known = {"binance": {"BTCUSDT": Instrument("BTCUSDT", "crypto", "BTC", "USDT", price_step="0.01")}}
    candles = [one._replace(low=0.5) if number == 2 else one for number, one in enumerate(walk(4))]
    candles[3] = Candle(START + 180, 900.0, 9000.0, 900.0, 9000.0, 1.0)
    async with replaying({"binance": {BTC: candles}}, speed=600, known=known) as running:
        client = await running.connect()
        await client.subscribe("BTCUSDT@1m")
        await client.until_type("status", status="market_closed")
        assert [one["candle"] for one in client.updates if one["is_closed"]] == [*map(as_object, candles)]
        assert not [one for one in client.updates if one.get("backfilled")]
        (instrument,) = (await running.get("instruments")).body
        assert (instrument["id"], instrument["asset_class"], instrument["price_step"]) == (
            "binance:BTCUSDT",
            "crypto",
            "0.01",
        )


@pytest.mark.parametrize("with_others", [False, True], ids=["alone", "beside a stream that begins earlier"])
async def test_longer_candles_are_built_of_those_that_are_recorded_completely(with_others: bool) -> None:
    minutes = walk(163, start=START + 17 * 60)
    others = {ETH: walk(180, seed=2)} if with_others else {}
    async with replaying({"binance": {BTC: minutes, **others}}, speed=6000) as running:
        told = await record(running, "BTCUSDT@1h", since=START - 1)
        # The recording begins in the first hour.
        hours = [*map(as_object, longer(minutes[43:], "1h"))]
        assert [candle["time"] for candle in hours] == [START + 3600, START + 7200]
        assert closed_of(told, BTC_HOUR) == hours
        assert not [one for one in told if one["type"] == "gap" or one.get("revised")]
        # What a recording does not have is not asked for again.
        assert not [one for one in told if "candle so far" in one.get("message", "")]
        answer = await running.get("history", symbol="BTCUSDT", interval="1h")
        assert answer.body["candles"] == hours


async def test_a_longer_candle_within_which_a_recording_ends_stays_open() -> None:
    minutes = walk(32)
    five = StreamKey("BTCUSDT", "5m")
    async with replaying({"binance": {BTC: minutes, ETH: walk(60, seed=2)}}, speed=6000) as running:
        client = await running.connect()
        await client.subscribe("BTCUSDT@5m", "ETHUSDT@1m")
        await client.until_type("status", status="market_closed", symbol="ETHUSDT")
        candles = [*map(as_object, longer(minutes, "5m"))]
        mine = [one for one in client.updates if (one["symbol"], one["interval"]) == five]
        assert [one["candle"] for one in mine if one["is_closed"]] == candles[:-1]
        assert (mine[-1]["candle"], mine[-1]["is_closed"]) == (candles[-1], False)
        ranges: list[dict[str, Any]] = [{}, {"start_time": START}, {"end_time": START + 1800}]
        for options in ranges:
            answer = await running.get("history", symbol="BTCUSDT", interval="5m", **options)
            assert (answer.body["candles"], answer.body["last_is_closed"]) == (candles, False)
            assert answer.body.get("complete", True)
        later = await running.connect()
        await later.subscribe("BTCUSDT@5m", bars=2)
        snapshot = await later.until_type("snapshot")
        assert (snapshot["candles"], snapshot["last_is_closed"]) == (candles[-2:], False)


async def test_nothing_is_fetched_at_holes_of_a_recording_and_streams_stay_live() -> None:
    # Long ones, without any candle of five minutes, and the last minute of each five.
    recorded = [one for number, one in enumerate(walk(200)) if not 3 <= number % 20 < 14 and number % 5 != 4]
    async with replaying({"binance": {BTC: recorded, ETH: walk(200, seed=2)}}, speed=6000) as running:
        told = await record(running, "BTCUSDT@5m", "BTCUSDT@1m", "ETHUSDT@1m")
        states = [one["status"] for one in told if one["type"] == "status" and one.get("symbol") == "BTCUSDT"]
        assert sorted(states) == ["connected"] * 2 + ["connecting"] * 2 + ["market_closed"] * 2
        assert closed_of(told, BTC) == [*map(as_object, recorded)]
        # The last one goes on to the end of time.
        assert closed_of(told, StreamKey("BTCUSDT", "5m")) == [*map(as_object, longer(recorded, "5m")[:-1])]


async def test_what_is_not_recorded_is_refused() -> None:
    async with replaying({"binance": {BTC: walk(5)}}) as running:
        client = await running.connect()
        await client.ask("subscribe", streams=["BTCUSDT@1s", "NOPE@1m"])
        assert {(await client.error())["code"] for _ in range(2)} == {"unknown_symbol", "unsupported_interval"}


async def test_nothing_is_asked_of_a_recording_that_is_played() -> None:
    """No candle is overdue, none is in doubt, none is compared: the recording has said all."""
    async with replaying({"binance": {BTC: walk(2000), EUR: walk(2000, seed=3)[::7]}}, speed=36_000) as running:
        client = await running.connect()
        await client.subscribe("BTCUSDT@1m", "EUR/USD@1m")
        for symbol in ("BTCUSDT", "EUR/USD"):
            await client.seen("status", status="market_closed", symbol=symbol)
        status = (await running.get("status")).body
        (provider,) = status["providers"]
        assert (provider["messages_skipped"], provider["hooks_failed"], provider["compared"]) == (0, 0, 0)
        assert {one["symbol"]: one["backfilled"] for one in status["streams"]} == {"BTCUSDT": 0, "EUR/USD": 0}


async def test_the_end_leaves_a_relay_that_serves_its_history_and_starts_no_attempts() -> None:
    async with replaying({"binance": {BTC: walk(10)}}, speed=6000) as running:
        for _ in range(2):
            client = await running.connect()
            await client.subscribe("BTCUSDT@1m", bars=3)
            assert "ends at 2024-11-24T00:10:00Z" in (await client.seen("status", status="market_closed"))["message"]
            snapshot = await client.seen("snapshot")
            await client.close()
        assert snapshot["candles"] == [*map(as_object, walk(10)[-3:])]
        await eventually(lambda: not running.hub.streams)


# -- the conformance check -------------------------------------------------------------------------


def test_the_conformance_check_passes() -> None:
    minutes = walk(3 * 24 * 60, extended=True)
    streams: Streams = {
        BTC: minutes,
        BTC_HOUR: longer(minutes, "1h"),
        StreamKey("BTCUSDT", "5m"): longer(minutes, "5m"),
        ETH: walk(3 * 24 * 60, seed=2),
    }
    providers, _ = replayed(
        recording=MemoryRecording(streams),
        instruments={"binance": {}},
        start=START + 2 * 86_400,
        end=START + 3 * 86_400,
        speed=1,
    )
    expected = {BTC: minutes[:100], BTC_HOUR: streams[BTC_HOUR][:48]}
    report = sped_up(check_provider)(providers[0], symbol="BTCUSDT", interval="1m", expected=expected)
    assert "live values of BTCUSDT@1m" in report.checked
    assert "values" in report.checked
    assert {part.partition(":")[0] for part in report.unchecked} == {"reconnect", "speed", "refusal"}
