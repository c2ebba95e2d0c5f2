"""The client against the stand-in of a relay: whatever happens, each closed candle once and in order."""

import asyncio
import os
import random
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from relay.client import (
    Failure,
    Gap,
    Message,
    RelayClient,
    Snapshot,
    Update,
)
from relay.core.model import StreamKey
from tests.support.client_readings import BTC, START, client, closed_times, is_a, is_open_at, relay, until
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.stand_in_relay import StandInRelay

__all__ = ["client", "relay"]

ROOT = Path(__file__).parents[2]


async def test_subscribe_while_connected_is_sent_at_once(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    relay.open_market("ETHUSDT@1m", START)
    await client.subscribe("ETHUSDT@1m")
    messages = await until(client, is_a(Update))
    assert [getattr(message, "key", None) for message in messages] == [("ETHUSDT", "1m")] * 2


async def test_one_malformed_name_leaves_everything_as_it_was(relay: StandInRelay, client: RelayClient) -> None:
    with pytest.raises(ValueError, match="SYMBOL@INTERVAL"):
        await client.subscribe("BTCUSDT@1m", "ETHUSDT")
    assert client.streams == ()


async def test_leaving_a_stream_that_waits_for_its_turn_is_no_failure(relay: StandInRelay, client: RelayClient) -> None:
    relay.open_market("ETHUSDT@1m", START)
    relay.refuse["ETHUSDT@1m"] = ("rate_limited", {"retry_after": 60})
    await client.subscribe("BTCUSDT@1m", "ETHUSDT@1m")
    await until(client, is_a(Failure))
    await client.unsubscribe("ETHUSDT@1m")
    await relay.wait_for_requests(2)
    await relay.tick(BTC, 1.0)
    assert is_a(Update)((await until(client, is_a(Update, Failure)))[-1])


async def test_many_streams_are_asked_for_in_frames_that_the_relay_takes(
    relay: StandInRelay, client: RelayClient
) -> None:
    names = [f"{'X' * 30}{number:04}@1m" for number in range(250)]
    for name in names:
        relay.open_market(name, START)
    await client.subscribe(*names, bars=0)
    confirmed = 0
    async with asyncio.timeout(LONGEST_WAIT_S):
        async for message in client:
            confirmed += isinstance(message, Snapshot)
            if confirmed == 250:
                break
    assert max(relay.frame_sizes) <= 4096
    assert max(len(request["streams"]) for request in relay.requests) <= 100
    assert sorted(name for request in relay.requests for name in request["streams"]) == names


async def test_cancelled_iteration_loses_nothing(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=4)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(client)
    messages = await until(client, is_a(Snapshot))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(client)
    await relay.close_candle(BTC)
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START, START + 60, START + 120, START + 180]


async def test_candle_seen_only_open_is_closed_after_the_resume(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.drop(1001)
    await relay.close_candle(BTC)
    messages = await until(client, is_open_at(START + 240))
    assert relay.requests[1]["since"] == START + 179
    assert closed_times(messages) == [START + 180]


async def test_what_the_relay_cannot_give_after_a_loss_is_told_as_a_gap(
    relay: StandInRelay, client: RelayClient
) -> None:
    await client.subscribe("BTCUSDT@1m", bars=2)
    await until(client, is_a(Snapshot))
    await relay.drop(1001)
    for _ in range(3):
        await relay.close_candle(BTC)
    del relay.markets[BTC][3:5]
    relay.is_complete = False
    gap, *rest = (await until(client, is_open_at(START + 360)))[3:]
    assert isinstance(gap, Gap)
    assert (gap.start, gap.end) == (START + 180, START + 300)
    assert closed_times(rest) == [START + 300]


@pytest.mark.parametrize("seed", range(5))
async def test_random_faults_leave_every_closed_candle_once_and_in_order(seed: int) -> None:
    dice = random.Random(seed)
    relay = StandInRelay()
    keys = [relay.open_market("BTCUSDT@1m", START), relay.open_market("EUR/USD@1m", START)]
    await relay.start()

    async def torment() -> None:
        for _ in range(60):
            for key in keys:
                await relay.tick(key, dice.uniform(90, 110))
                if dice.random() < 0.6:
                    await relay.close_candle(key)
            relay.replays = dice.randrange(4)
            match dice.randrange(12):
                case 0:
                    await relay.drop(dice.choice([1001, 4000, 1011]))
                case 1:
                    relay.cut()
                case 2:
                    await relay.say("{")
                case 3:
                    await relay.stop()
                    await relay.start()
            await asyncio.sleep(dice.choice([0, 0, 0.005, 0.02]))
        # The test ends with these, or with what a resume brings instead.
        await asyncio.sleep(0.05)
        for key in keys:
            await relay.close_candle(key)

    got: dict[StreamKey, list[Message]] = {key: [] for key in keys}
    async with RelayClient(relay.url, waits_for_relay=True, backoff_s=(0.001, 0.02)) as client:
        await client.subscribe(*map(str, keys), bars=2)
        tormenting = asyncio.create_task(torment())
        async with asyncio.timeout(LONGEST_WAIT_S):
            async for message in client:
                if isinstance(message, Update | Snapshot):
                    got[message.key].append(message)
                if tormenting.done() and all(
                    closed_times(got[key])[-1:] == [relay.markets[key][-2].time] for key in keys
                ):
                    break
        await tormenting
    await relay.stop()
    for key in keys:
        times = closed_times(got[key])
        assert times == list(range(times[0], relay.markets[key][-1].time, 60))


async def test_stream_refused_while_a_relay_starts_is_asked_for_again(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=1)
    messages = await until(client, is_a(Snapshot))
    relay.refuse["BTCUSDT@1m"] = ("provider_unavailable", {})
    await relay.drop(1001)
    failure = (await until(client, is_a(Failure)))[-1]
    assert isinstance(failure, Failure)
    assert failure.is_retried
    await relay.close_candle(BTC)
    relay.refuse.clear()
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START + 180]


async def test_rate_limited_subscription_waits_as_long_as_the_relay_says(
    relay: StandInRelay, client: RelayClient
) -> None:
    relay.refuse["BTCUSDT@1m"] = ("rate_limited", {"retry_after": 0.2})
    await client.subscribe("BTCUSDT@1m")
    failure = (await until(client, is_a(Failure)))[-1]
    assert isinstance(failure, Failure)
    assert failure.retry_after_s == 0.2
    relay.refuse.clear()
    before = asyncio.get_running_loop().time()
    await until(client, is_a(Update))
    assert asyncio.get_running_loop().time() - before > 0.15


async def test_example_of_the_readme_prints_what_comes(relay: StandInRelay, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(import asyncio\n.*?RelayClient.*?)```", readme, re.DOTALL)
    assert found is not None
    program = tmp_path / "bot.py"
    program.write_text(found[1].replace("http://127.0.0.1:8000", relay.url), encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=PIPE, env=environ)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LONGEST_WAIT_S):
            said = [await process.stdout.readline(), await process.stdout.readline()]
            await relay.close_candle(BTC)
            said.append(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()
    assert said[:2] == [b"BTCUSDT@1m 4 candles\n", b"EUR/USD@1h is refused: no EUR/USD\n"]
    assert said[2].startswith(b"BTCUSDT@1m Candle(time=%d, open=103.0" % (START + 180))
