"""What a feed of a relay makes of the states that another relay tells of its streams."""

import asyncio
from collections.abc import Collection
from contextlib import aclosing

import pytest

from relay import StreamKey, Watchlist
from relay.cluster.shared_feed import SharedFeed
from relay.cluster.wire.bus_messages import StateTold
from tests.support.conditions import eventually

A = StreamKey("A", "1m")
THROTTLED = StateTold("throttled", "HTTP 429; the next attempt is at 2025-11-24T16:01:08Z")


class Source:
    """Takes what a feed wants, and tells nothing by itself."""

    def begin(self, feed: SharedFeed) -> None:
        """Take no notice."""

    def want(self, feed: SharedFeed, keys: Collection[StreamKey]) -> None:
        """Take no notice."""

    def leave(self, feed: SharedFeed, keys: Collection[StreamKey]) -> None:
        """Take no notice."""

    def end(self, feed: SharedFeed) -> None:
        """Take no notice."""


async def reported(*states: StateTold) -> list[str]:
    """Return what a feed reports to its watchlist when it is told these states, and then that the stream is live."""
    found = list[str]()
    watchlist = Watchlist(
        [A],
        on_accept=lambda key: found.append("accepted"),
        on_pause=lambda key, status, message: found.append(status),
        on_lose=lambda key, error, wait_s: found.append(f"lost: {error}"),
    )
    feed = SharedFeed(watchlist, Source())

    async def follow() -> None:
        async with aclosing(feed.updates()) as updates:
            async for _ in updates:
                pass

    task = asyncio.create_task(follow())
    for state in (*states, StateTold("connected", "the end")):
        feed.deliver(A, state)
    await eventually(lambda: found[-1:] == ["accepted"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found[:-1]


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (StateTold("backfilling", "3 candles"), ["throttled", "accepted"]),
        (StateTold("stale", "no data for 90 s"), ["throttled", "accepted"]),
        (StateTold("connecting", "no route; the next attempt is under way"), ["throttled", "lost: no route"]),
        # Another relay begins to carry it, which says more in a moment.
        (StateTold("connecting", "waiting for the provider"), ["throttled"]),
    ],
)
async def test_a_pause_ends_with_the_next_state_that_says_more(state: StateTold, found: list[str]) -> None:
    assert await reported(THROTTLED, state) == found


async def test_what_backfilling_and_stale_mean_without_a_pause_before_is_found_out_here() -> None:
    assert await reported(StateTold("backfilling", "3 candles"), StateTold("stale", "no data for 90 s")) == []
