"""What a subscription starts with, where the stream went on while its past was fetched."""

import asyncio
from collections.abc import Iterable

import pytest

from relay import snapshot
from relay.clock import Clock, ProviderClock
from relay.hub import Hub
from relay.model import Candle, PriceUpdate, StreamKey
from relay.ranges import Past as Answer
from relay.requests import Past
from relay.series import Gap
from relay.storage.coverage import Span
from relay.stream import Stream

KEY = StreamKey("AAA", "1m")


class Feeder:
    """Feeds nothing: the test publishes."""

    has_history = True

    def __init__(self) -> None:
        self.clock = ProviderClock(Clock())

    def wanted(self, stream: Stream) -> None:
        """Take no notice."""

    def unwanted(self, stream: Stream) -> None:
        """Take no notice."""


def candle(minute: int) -> Candle:
    return Candle(minute * 60, 1.0, 1.0, 1.0, 1.0, 0.0)


def candles(minutes: Iterable[int]) -> list[Candle]:
    return [candle(minute) for minute in minutes]


@pytest.fixture
async def stream() -> tuple[Hub, Stream]:
    """A stream that was given up on minute 12: 10, 11 and 13 were told."""
    hub = Hub(Clock(), flush_s=0)
    stream = hub.stream("p", KEY, "AAA", Feeder())
    hub.tell(stream, stream.series.fill(candles((10, 11)), None, None))
    hub.publish(stream, PriceUpdate(KEY, candle(13), is_closed=True))
    hub.tell(stream, stream.series.give_up())
    await asyncio.sleep(0)
    assert stream.series.gaps == [Gap(12 * 60, 13 * 60)]
    return hub, stream


@pytest.mark.parametrize("past", [Past(since=9 * 60), Past(since=11 * 60), Past(bars=4), Past(since=9 * 60, bars=3)])
async def test_gap_told_while_the_past_was_fetched_is_told_with_the_snapshot(
    stream: tuple[Hub, Stream], past: Past
) -> None:
    cut = snapshot.cut(*stream, Answer(tuple(candles((9, 10, 11))), True, True), past)
    assert list(cut.gaps) == [Gap(12 * 60, 13 * 60)]
    assert not cut.is_complete


@pytest.mark.parametrize(
    ("past", "known"),
    [
        (Past(since=9 * 60), (10, 11, 12, 13)),
        (Past(since=12 * 60), (13,)),
        (Past(bars=1), (11, 13)),
        (Past(bars=0), ()),
    ],
)
async def test_gap_that_history_filled_or_that_was_not_asked_for_is_not_told(
    stream: tuple[Hub, Stream], past: Past, known: tuple[int, ...]
) -> None:
    cut = snapshot.cut(*stream, Answer(tuple(candles(known)), True, True), past)
    assert list(cut.gaps) == []
    assert cut.is_complete


async def test_what_is_not_known_is_told_as_gaps_and_a_closed_market_is_known(stream: tuple[Hub, Stream]) -> None:
    known = (Span(60, 120 + 1), Span(240, 360 + 1), Span(360 + 1, 480))
    cut = snapshot.cut(*stream, Answer(tuple(candles((1, 2, 4, 6))), True, False, known), Past(since=0))
    assert [candle.time // 60 for candle in cut.candles] == [1, 2, 4, 6, 10, 11, 13]
    assert [(gap.start // 60, gap.end // 60) for gap in cut.gaps] == [(3, 4), (8, 10), (12, 13)]
    assert not cut.is_complete


@pytest.mark.parametrize(("known", "is_complete"), [((Span(0, 600),), True), ((Span(0, 599),), False), ((), False)])
async def test_snapshot_is_complete_where_everything_is_known_though_the_provider_failed(
    known: tuple[Span, ...], is_complete: bool
) -> None:
    hub = Hub(Clock(), flush_s=0)
    stream = hub.stream("p", KEY, "AAA", Feeder())
    hub.tell(stream, stream.series.fill(candles((10, 11)), None, None))
    cut = snapshot.cut(hub, stream, Answer(tuple(candles((1, 2))), True, False, known), Past(since=0))
    assert (cut.is_complete, bool(cut.gaps)) == (is_complete, not is_complete)


async def test_stream_that_outran_an_answer_leaves_a_gap_behind_it(stream: tuple[Hub, Stream]) -> None:
    answer = snapshot.outrun(Answer(tuple(candles((6, 7))), True, True))
    cut = snapshot.cut(*stream, answer, Past(since=5 * 60))
    assert [(gap.start // 60, gap.end // 60) for gap in cut.gaps] == [(8, 10), (12, 13)]


async def test_who_is_subscribed_already_was_told(stream: tuple[Hub, Stream]) -> None:
    cut = snapshot.cut(*stream, Answer(tuple(candles((9, 10, 11))), True, True), Past(bars=9), before=11 * 60)
    assert list(cut.gaps) == []
