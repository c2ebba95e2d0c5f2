"""How fast a provider turns messages into updates, compared with the least that it takes on the same machine."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress

from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.testing.check_run import CheckRun
from relay.testing.findings import FaultName
from relay.testing.watched_session import Player
from relay.upstream.watchlist import Watchlist

ENOUGH_S = 0.5
"""No more turns once they took so much CPU."""
_MESSAGES = 200


def typical(turns_s: Sequence[float]) -> float:
    """Return what a good turn takes: whatever else the machine does makes a turn slower, but its clock may also fail.

    A quarter of the turns took less: while a clock stands still or goes back, single ones seem to take nothing.
    """
    return max(sorted(turns_s)[len(turns_s) // 4], 1e-9)


def _turns(messages: Sequence[str | bytes]) -> int:
    return max(5, 3000 // len(messages))


async def check_speed(run: CheckRun) -> None:
    """Play the messages of the streams again, from memory, and measure the CPU time of this thread."""
    messages = run.session.recorded[:_MESSAGES]
    if not messages:
        run.leave_out("speed", "the provider read no messages from a WebSocket")
        return
    player = Player(messages, _turns(messages), ENOUGH_S, run.tolerances.settle_s)
    run.session.player = player
    keys = [run.key] if run.second is None else [run.key, run.second]
    updates = 0

    async def read() -> None:
        nonlocal updates
        async with aclosing(run.provider.open_feed(Watchlist(keys))) as feed:
            async for _ in feed:
                updates += 1

    reading = asyncio.create_task(read(), name=f"replayed feed of {run.provider.name}")
    over = asyncio.create_task(player.is_over.wait(), name="end of the replay")
    await asyncio.wait((reading, over), timeout=run.timeout_s, return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    await run.provider.end_feed(reading)
    run.session.player = None
    if not player.turns_s or not updates:
        run.leave_out("speed", "the recorded messages give no updates when they are played again")
        return
    each_s = typical(player.turns_s) / len(messages)
    run.updates_per_cpu_s = updates / (len(player.turns_s) * len(messages)) / each_s
    times = each_s / _least_s(run.key, messages)
    if times > run.tolerances.slowest:
        run.blame(
            FaultName.TOO_SLOW,
            f"a message costs {each_s * 1e6:.0f} µs of CPU until its updates are there, {times:.0f} times as much as "
            f"json.loads and a candle; at most {run.tolerances.slowest:g} times is fine",
        )


def _least_s(key: StreamKey, messages: Sequence[str | bytes]) -> float:
    """Return the CPU time to read one message and to build one update."""
    turns_s = []
    for _ in range(_turns(messages)):
        began = time.thread_time()
        for message in messages:
            # Not every message is JSON: some venues answer a ping with a bare word.
            with suppress(ValueError):
                json.loads(message)
            PriceUpdate(key, Candle(60, 1.0, 1.0, 1.0, 1.0, 1.0))
        turns_s.append(time.thread_time() - began)
    return typical(turns_s) / len(messages)
