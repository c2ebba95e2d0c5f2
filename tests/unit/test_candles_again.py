"""Candles that feeds send again from before what their streams remember: judged by what history knows of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay import Candle, PastChange, PriceUpdate
from relay.core.spans import Span
from relay.history.final_candles import News
from relay.history.requests import HistoryRequest
from relay.supervision.candles_again import CandlesAgain
from relay.supervision.stream_state import SupervisedStream
from tests.support.conditions import eventually
from tests.support.supervised_provider import MINUTE, A, Remembering, Rig, candle, fed_stream, make_live, rig_of, update


class Bench:
    """A stream that tells minutes from 0 on, whose clients may have older ones."""

    def __init__(self, rig: Rig, plugin: Remembering, supervised: SupervisedStream) -> None:
        self.rig = rig
        self.plugin = plugin
        self.supervised = supervised
        self.series = supervised.stream.series
        self.again = CandlesAgain(rig.provider, rig.hub, rig.history)

    def say(self, minute: int, volume: float, at_s: float | None = None) -> None:
        stamp_ms = None if at_s is None else int(at_s * 1000)
        self.plugin.feeds[0].say(PriceUpdate(A, candle(minute, volume), True, stamp_ms))

    async def look(self) -> None:
        """Judge what waits, to its end."""
        self.again.check({A: self.supervised})
        await eventually(lambda: not self.again._tasks)

    async def store(self, *minutes: int) -> None:
        for minute in minutes:
            one = candle(minute)
            await self.rig.history._store.add("scripted", A, [one], Span(one.time, one.time + 1))

    @property
    def revised(self) -> list[Candle]:
        return [one.candle for one in self.rig.closed if one.is_revised]


@asynccontextmanager
async def bench(folder: Path, *, is_live: bool = True) -> AsyncIterator[Bench]:
    plugin = Remembering()
    plugin.known = [candle(minute) for minute in range(-20, 0)]
    async with rig_of(plugin, folder) as rig:
        supervised, _ = await fed_stream(rig, plugin)
        made = Bench(rig, plugin, supervised)
        if is_live:
            plugin.feeds[0].say(update(A))
            await eventually(lambda: made.series.last is not None)
        yield made
        await made.again.close()


async def test_only_what_is_stored_with_other_values_is_revised(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.store(-9, -5)
        for minute, volume in ((-9, 1.0), (-7, 7.0), (-5, 7.0)):
            one.say(minute, volume)
        await eventually(lambda: len(one.series.unjudged) == 3)
        await one.look()
        assert one.revised == [candle(-5, 7.0)]
        assert one.plugin.asked == 0


async def test_a_stamped_candle_that_comes_again_before_anything_of_the_stream_is_revised(tmp_path: Path) -> None:
    async with bench(tmp_path, is_live=False) as one:
        await one.store(-3)
        one.say(-3, 7.0, one.rig.hands.now)
        await eventually(lambda: one.rig.counters.skipped == 1)
        await one.look()
        assert one.revised == [candle(-3, 7.0)]
        assert one.series.last is None


async def test_what_history_is_being_asked_for_is_waited_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        one.plugin.may_answer.clear()
        request = HistoryRequest(one.rig.provider, A, start=MINUTE - 600, end=MINUTE - 60, limit=20)
        asking = asyncio.create_task(one.rig.history.candles(request))
        await eventually(lambda: one.plugin.asked)
        one.say(-5, 7.0)
        await eventually(lambda: one.series.unjudged)
        one.again.check({A: one.supervised})
        await asyncio.sleep(0)
        assert one.revised == []
        one.plugin.may_answer.set()
        assert candle(-5) in (await asking).candles
        await eventually(lambda: one.revised == [candle(-5, 7.0)])


@pytest.mark.parametrize("is_read", [False, True], ids=["before it is read", "while it is read"])
async def test_what_comes_again_of_a_past_that_is_another_one_by_now_is_not_told(tmp_path: Path, is_read: bool) -> None:
    async with bench(tmp_path) as one:
        await one.store(-5)
        one.say(-5, 7.0)
        await eventually(lambda: one.series.unjudged)
        one.again.check({A: one.supervised})
        if is_read:
            await asyncio.sleep(0)
        one.rig.history.change_past(one.rig.provider, PastChange(A))
        await one.look()
        await one.look()
        assert one.revised == []


async def test_what_comes_again_waits_while_the_store_cannot_be_read(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.store(-5)
        await one.rig.history._store.close()
        one.say(-5, 7.0)
        await eventually(lambda: one.series.unjudged)
        await one.look()
        assert [*one.series.unjudged] == [candle(-5).time]


async def test_what_came_again_just_before_a_stream_is_dropped_is_news_for_who_comes_back(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        told: list[News] = []
        rig.history.calls.on_news = told.append
        one = candle(-5)
        await rig.history._store.add("scripted", A, [one], Span(one.time, one.time + 1))
        supervisor = rig.supervisor()
        stream = rig.hub.stream("scripted", A, "A", supervisor)
        attachment = rig.hub.attach(stream)
        await make_live(plugin, stream)
        plugin.feeds[0].say(PriceUpdate(A, candle(-5, 7.0), True))
        await eventually(lambda: stream.series.unjudged)
        rig.hub.detach(attachment)
        await eventually(lambda: told)
        assert [news[:4] for news in told] == [("scripted", A, [candle(-5, 7.0)], ())]
        assert not rig.hub.streams
