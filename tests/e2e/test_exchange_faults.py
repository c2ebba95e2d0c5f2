"""The whole relay against a misbehaving exchange, over real sockets, with the truth known: the contract holds.

`pytest -m long tests/e2e/test_exchange_faults.py --soak-seconds 600 --soak-seed 7 -s` runs longer, with other faults.
"""

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from relay.app import RelayLimits
from relay.supervision.timing import FeedTiming
from tests.support.conditions import eventually
from tests.support.javascript_client import node_of
from tests.support.running_relay import start_relay
from tests.support.soak import (
    Faulter,
)
from tests.support.soak_crowd import (
    STREAMS,
    Crowd,
    agree,
    is_live,
    kinds_of,
    sandbox_of,
    say,
    stop,
    truths_of,
    verdict,
    watch_feeds,
)

__all__ = ["say"]


@pytest.mark.long
async def test_no_fault_of_the_exchange_breaks_the_contract(
    request: pytest.FixtureRequest, say: Callable[[str, object], None]
) -> None:
    # So short that history is given up now and then: gaps and their repair belong to the contract.
    limits = RelayLimits(feeds=FeedTiming(history_patience_s=1.0, repair_every_s=3.0))
    node_of(request.config)
    seconds, seed = request.config.getoption("--soak-seconds"), request.config.getoption("--soak-seed")
    async with sandbox_of(seed) as sandbox:
        truths = truths_of(sandbox)
        relay = await start_relay(sandbox, linger_seconds=0.3, flush_ms=20, limits=limits)

        async def not_live() -> list[str]:
            streams = relay.hub.streams.values()
            return [f"{stream.name}@{stream.key.interval} {stream.status}" for stream in streams if not is_live(stream)]

        faulter = Faulter(sandbox.binance, truths, random.Random(seed), not_live, kinds_of(request.config))
        crowd = Crowd(relay.url, truths, sandbox, seed, faulter)
        most_feeds = [0]
        watching = asyncio.create_task(watch_feeds(relay, most_feeds))
        crowd.start()
        try:
            await eventually(lambda: len(relay.hub.streams) >= len(STREAMS))
            await faulter.run(time.monotonic() + seconds)
            await crowd.settle()
            sandbox.binance.faults.mute()
            await eventually(lambda: agree(crowd.clients, relay))
        finally:
            crowd.report(say)
            say("upstream connections", sandbox.binance.connects)
            say("connections at once", most_feeds[0])
            await crowd.stop()
            await stop([watching])
            await relay.close()
    assert verdict(crowd, seed) == []
    assert most_feeds[0] <= 2
