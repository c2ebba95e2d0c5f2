"""A relay that has futures only, against a misbehaving exchange for them, in time that jumps: the contract holds."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import pytest

from relay.app import RelayLimits
from relay.supervision.timing import FeedTiming
from tests.support.conditions import eventually
from tests.support.own_time import OwnTimeLoop
from tests.support.running_relay import start_relay
from tests.support.soak import (
    Faulter,
    MarketTruth,
    parts_of,
)
from tests.support.soak_crowd import (
    Crowd,
    is_live,
    kinds_of,
    say,
    stop,
    verdict,
    watch_feeds,
)
from tests.support.untidy import UntidySandbox, UntidyUsdm

__all__ = ["say"]


FUTURES = (
    *(
        f"binance_usdm:{symbol}USDT@1m"
        for symbol in ("BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "1000PEPE", "TSLA")
    ),
    *(f"binance_usdm:T{number:03d}USDT@1m" for number in range(1, 8)),
)
FUTURES_LONE = tuple(f"binance_usdm:T{number:03d}USDT@1m" for number in range(8, 12))
FUTURES_LONGER = 3
"""Of futures there are no seconds: so many times longer than that of spot their soak lasts, in time that jumps."""


@pytest.mark.long
def test_no_fault_of_futures_breaks_the_contract(
    request: pytest.FixtureRequest, say: Callable[[str, object], None]
) -> None:
    seconds = request.config.getoption("--soak-seconds") * FUTURES_LONGER
    with asyncio.Runner(loop_factory=OwnTimeLoop) as runner:
        runner.run(futures_soak(seconds, request.config.getoption("--soak-seed"), kinds_of(request.config), say))


async def futures_soak(
    seconds: float, seed: int, kinds: Sequence[str] | None, say: Callable[[str, object], None]
) -> None:
    """Let a relay that has futures only go through faults of them."""
    limits = RelayLimits(feeds=FeedTiming(history_patience_s=1.0, repair_every_s=3.0))
    off = {name: {"enabled": False} for name in ("binance", "twelve_data")}
    async with UntidySandbox(seed=seed, pace_s=2.0, extra_symbols=11, futures=True) as sandbox:
        exchange = sandbox.futures
        assert isinstance(exchange, UntidyUsdm)
        names = (*FUTURES, *FUTURES_LONE)
        truths = {name: MarketTruth(exchange, *parts_of(name), also=exchange.untidy.also) for name in names}
        relay = await start_relay(sandbox, linger_seconds=0.3, flush_ms=20, limits=limits, instances=off)

        async def not_live() -> list[str]:
            streams = relay.hub.streams.values()
            return [f"{stream.name}@{stream.key.interval} {stream.status}" for stream in streams if not is_live(stream)]

        faulter = Faulter(exchange, truths, random.Random(seed), not_live, kinds)
        crowd = Crowd(
            relay.url, truths, sandbox, seed, faulter, streams=FUTURES, lone_streams=FUTURES_LONE, has_processes=False
        )
        most_feeds = [0]
        watching = asyncio.create_task(watch_feeds(relay, most_feeds, "binance_usdm", 0.05))
        crowd.start()
        try:
            await eventually(lambda: len(relay.hub.streams) >= len(FUTURES))
            await faulter.run(time.monotonic() + seconds)
            await crowd.settle()
        finally:
            crowd.report(say)
            say("upstream connections", exchange.connects)
            await crowd.stop()
            await stop([watching])
            await relay.close()
    assert verdict(crowd, seed) == []
    assert most_feeds[0] <= 2
    assert sum(check.delivered for check in crowd.checks) > seconds / 60 * len(FUTURES)
