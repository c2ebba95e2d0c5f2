"""Sums over streams: taken in slices, and no stream counts twice that is removed meanwhile."""

import asyncio

import pytest

from relay.core.clock import Clock
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream
from relay.web.stream_totals import AT_A_TIME, take_tallies
from tests.support.feeder import Feeder

COUNT = 3 * AT_A_TIME


@pytest.fixture
async def hub() -> Hub:
    """A hub with many streams of one provider, each with two updates."""
    hub = Hub(Clock())
    feeder = Feeder(hub)
    for number in range(COUNT):
        stream = hub.stream("venue", StreamKey(f"S{number}", "1m"), f"S{number}", feeder)
        for price in (1.0, 2.0):
            candle = Candle(time=60, open=1.0, high=price, low=1.0, close=price, volume=1.0)
            hub.publish(stream, PriceUpdate(key=stream.key, candle=candle, is_closed=False))
    return hub


async def test_streams_are_added_up_a_slice_at_a_time(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = [0]
    real = Stream.counts

    def counts(stream: Stream) -> tuple[int, ...]:
        counted[0] += 1
        return real(stream)

    monkeypatch.setattr(Stream, "counts", counts)
    taking = asyncio.create_task(take_tallies(hub, ["venue", "other"]))
    most = 0
    while not taking.done():
        before = counted[0]
        await asyncio.sleep(0)
        most = max(most, counted[0] - before)
    assert (counted[0], most) == (COUNT, AT_A_TIME)
    stream_totals = await taking
    assert (stream_totals["venue"].streams, stream_totals["venue"].counts["told"]) == (COUNT, 2 * COUNT)
    assert (stream_totals["other"].streams, stream_totals["other"].counts["told"]) == (0, 0)


async def test_stream_that_is_removed_or_comes_back_is_counted_once(hub: Hub) -> None:
    taking = asyncio.create_task(take_tallies(hub, ["venue"]))
    await asyncio.sleep(0)
    for stream in [*hub.streams.values()]:
        hub.remove(stream)
    assert (await taking)["venue"].counts["told"] == 2 * COUNT
    after = (await take_tallies(hub, ["venue"]))["venue"]
    assert (after.streams, after.counts["told"]) == (0, 2 * COUNT)
    hub.stream("venue", StreamKey("S1", "1m"), "S1", Feeder(hub))
    again = (await take_tallies(hub, ["venue"]))["venue"]
    assert (again.streams, again.counts["told"]) == (1, 2 * COUNT)
