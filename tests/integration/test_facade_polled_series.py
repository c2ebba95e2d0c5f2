"""Polling becomes live: who asks for the newest klines again and again costs the exchange one stream."""

import asyncio
import time
from typing import Any

from relay.app import HUB, RelayLimits
from relay.core.model import StreamKey
from relay.streams.subscriptions import CONNECTED
from relay.web.facades.facade import FACADES, FacadeTiming
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Answer, Running
from tests.support.sandbox import Sandbox

POLL_S = 0.05
"""What a bot in a hurry waits for before it asks again."""
CLOCKS_MS = 1500
"""So much the relay's idea of the exchange's time may be behind: it comes from headers in whole seconds."""
IDENTITY = ("binance", StreamKey("BTCUSDT", "1m"))


async def klines(relay: Running, **query: Any) -> Answer:
    asked: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "limit": 5, **query}
    answer = await relay.get("/api/v3/klines", **asked)
    assert answer.status == 200, answer.text
    return answer


def kline_calls(sandbox: Sandbox) -> int:
    return sum(call.path == "/api/v3/klines" for call in sandbox.binance.requests)


def texts(sandbox: Sandbox) -> int:
    """Return how many messages came that are neither pings nor pongs."""
    return sum(message.kind == "text" for message in sandbox.binance.control_messages)


def is_live(relay: Running) -> bool:
    stream = relay.app[HUB].streams.get(IDENTITY)
    return stream is not None and stream.status == CONNECTED and stream.series.last is not None


async def test_the_second_request_makes_a_series_live_and_then_the_exchange_is_asked_nothing(
    sandbox: Sandbox, relay: Running
) -> None:
    await klines(relay)
    assert IDENTITY not in relay.app[HUB].streams
    await klines(relay, limit=7)
    await eventually(lambda: is_live(relay))
    await klines(relay)
    asked = kline_calls(sandbox)
    seen = set()
    for limit in (5, 7, 100, 5, 7):
        await asyncio.sleep(0.25)
        before = sandbox.binance.now_ms()
        rows = (await klines(relay, limit=limit)).body
        seen.add(rows[-1][8])
        assert rows[-1][6] >= before - CLOCKS_MS
    # Older rows are fetched once.
    assert kline_calls(sandbox) <= asked + 1
    assert len(seen) > 1, "the forming row goes on"
    assert sandbox.binance.connections == 1


async def test_during_a_ban_what_is_live_or_known_is_served_and_the_rest_is_429(
    sandbox: Sandbox, relay: Running
) -> None:
    await klines(relay)
    await klines(relay, limit=7)
    await eventually(lambda: is_live(relay))
    await klines(relay)
    sandbox.binance.faults.answer_rest(418, retry_after=77)
    assert (await relay.get("/api/v3/depth?symbol=BTCUSDT")).status == 429
    asked = len(sandbox.binance.requests)
    for _ in range(3):
        before = sandbox.binance.now_ms()
        rows = (await klines(relay)).body
        assert rows[-1][6] >= before - CLOCKS_MS
    for path in ("ping", "time", "exchangeInfo", "exchangeInfo?symbol=ETHUSDT"):
        assert (await relay.get(f"/api/v3/{path}")).status == 200
    refused = await relay.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=900)
    assert (refused.status, refused.body["code"]) == (429, -1003)
    assert 60 < int(refused.headers["Retry-After"]) <= 77
    # While it lasts the exchange is left alone.
    assert len(sandbox.binance.requests) == asked


def before_a_minute_ends(seconds: float) -> float:
    """Return the offset of a clock by which a minute ends so much later."""
    return 60 - time.time() % 60 - seconds


async def test_rows_end_with_the_forming_one_right_after_a_candle_ends(relay_with: StartRelay) -> None:
    # The first event of the next candle comes 2.7 s late.
    async with Sandbox(offset_s=before_a_minute_ends(6), pace_s=2.0) as sandbox:
        relay = await relay_with(sandbox=sandbox, limits=RelayLimits(facades=FacadeTiming(first_event_s=30.0)))
        await klines(relay)
        await klines(relay, limit=3)
        await eventually(lambda: is_live(relay))
        asked, begun = kline_calls(sandbox), set[int]()
        while len(begun) < 2:
            await asyncio.sleep(POLL_S)
            before = sandbox.binance.now_ms()
            rows = (await klines(relay)).body
            assert rows[-1][6] >= before - CLOCKS_MS
            assert [row[0] for row in rows] == [*range(rows[0][0], rows[-1][0] + 1, 60_000)]
            begun.add(rows[-1][0])
        assert kline_calls(sandbox) <= asked + 1


async def test_a_first_event_that_does_not_come_is_not_waited_for_without_end(relay_with: StartRelay) -> None:
    async with Sandbox(offset_s=before_a_minute_ends(5), pace_s=1.0) as sandbox:
        relay = await relay_with(sandbox=sandbox, limits=RelayLimits(facades=FacadeTiming(first_event_s=2.0)))
        await klines(relay)
        await klines(relay, limit=3)
        await eventually(lambda: is_live(relay))
        sandbox.binance.faults.mute()
        asked, begun = kline_calls(sandbox), set[int]()
        while len(begun) < 2:
            await asyncio.sleep(POLL_S)
            before = sandbox.binance.now_ms()
            rows = (await klines(relay)).body
            assert rows[-1][6] >= before - CLOCKS_MS
            begun.add(rows[-1][0])
        assert kline_calls(sandbox) > asked


async def test_a_series_is_let_go_some_time_after_the_last_request(sandbox: Sandbox, relay_with: StartRelay) -> None:
    timing = FacadeTiming(kept_intervals=0, least_kept_s=1.0)
    relay = await relay_with(limits=RelayLimits(facades=timing))
    counts = relay.app[FACADES].counts["binance"]
    await klines(relay)
    await klines(relay, limit=7)
    await eventually(lambda: is_live(relay))
    assert counts.live_series == 1
    await eventually(lambda: counts.live_series == 0)
    await eventually(lambda: IDENTITY not in relay.app[HUB].streams)


async def test_a_walk_through_the_past_makes_nothing_live(sandbox: Sandbox, relay: Running) -> None:
    for start in range(1_700_000_040_000, 1_700_000_040_000 + 4 * 60_000_000, 60_000_000):
        await klines(relay, startTime=start, limit=1000)
    await klines(relay, endTime=1_700_000_040_000)
    await klines(relay, endTime=1_700_000_100_000)
    assert not relay.app[HUB].streams


async def test_no_more_streams_than_there_may_be(sandbox: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_with(max_streams=2)
    for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT"):
        for limit in (5, 6, 7):
            await klines(relay, symbol=symbol, limit=limit)
    assert len(relay.app[HUB].streams) <= 2


async def test_many_bots_with_many_pairs_cost_one_list_of_streams(relay_with: StartRelay) -> None:
    async with Sandbox(pace_s=0.5, extra_symbols=20) as sandbox:
        relay = await relay_with(sandbox=sandbox)
        symbols = [f"T{number:03d}USDT" for number in range(1, 21)]

        async def poll() -> None:
            await asyncio.gather(*(klines(relay, symbol=symbol, interval="5m", limit=100) for symbol in symbols))

        for _ in range(3):
            await asyncio.gather(*(poll() for _ in range(5)))
        await eventually(
            lambda: (
                sum(one.status == CONNECTED for one in relay.app[HUB].streams.values()) == len(symbols)
                and all(one.series.last is not None for one in relay.app[HUB].streams.values())
            )
        )
        await poll()
        weight, subscribed = sandbox.binance.rest.weight_used, texts(sandbox)
        for _ in range(4):
            await asyncio.gather(*(poll() for _ in range(5)))
        assert sandbox.binance.rest.weight_used == weight
        assert texts(sandbox) == subscribed
        assert sandbox.binance.connections == 1
        counts = relay.app[FACADES].counts["binance"]
        assert counts.answered["klines"] == 20 * (3 * 5 + 1 + 4 * 5)
        assert counts.weight_asked == 2 * counts.answered["klines"]
        assert counts.weight_saved > 0.8 * counts.weight_asked
