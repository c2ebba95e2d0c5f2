"""Candles that streams closed are compared with history later, rarely, and only with what nobody else needs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from providers.twelve_data.credits import Credits, CreditUse
from relay import Budget, Candle, PriceUpdate, RateLimited, StreamKey, hookimpl
from relay.core.spans import Span
from relay.history.final_candles import News
from relay.history.requests import HistoryRequest
from relay.history.service import HistoryService
from relay.streams.hub import Hub
from relay.supervision.recheck import Recheck
from relay.supervision.stream_state import SupervisedStream
from tests.support.supervised_provider import MINUTE, A, B, Remembering, Rig, candle, rig_of, update

EVERY_S = 60.0


class Metered(Remembering):
    """A provider with history and budgets, which remembers what it was asked."""

    def __init__(self, **info: Any) -> None:
        super().__init__(**{"compare_after_s": (300.0,), **info})
        self.budgets: list[Budget] = []
        self.ranges: list[tuple[int, int]] = []
        self.was_asked = asyncio.Event()

    @hookimpl
    def relay_budgets(self) -> Sequence[Budget]:
        return self.budgets

    @hookimpl
    async def relay_candles(self, start: int | None, end: int) -> list[Candle]:
        self.was_asked.set()
        self.ranges.append((((start or 0) - MINUTE) // 60, (end - 1 - MINUTE) // 60))
        return await super().relay_candles(start, end)


class Watch:
    """A recheck with the parts that it works with; `unheard` is what nobody follows."""

    def __init__(self, rig: Rig, history: HistoryService, plugin: Metered) -> None:
        self.rig = rig
        self.plugin = plugin
        self.history = history
        self.recheck = Recheck(rig.provider, history, rig.hands.clock, every_s=EVERY_S)
        self.streams: dict[Any, SupervisedStream] = {}
        self.unheard: list[Candle] = []
        history.calls.on_news = self._tell
        rig.hub = Hub(rig.hands.clock, on_closed=self._keep)

    def _keep(self, stream: Any, one: Any, after: int | None) -> None:
        self.rig.closed.append(one)
        self.history.keep(stream.provider, stream.key, one.candle, after)

    def _tell(self, news: News) -> None:
        stream = self.rig.hub.streams.get((news.provider, news.key))
        if stream is None:
            self.unheard += [*news.changed, *news.found]
        else:
            self.rig.hub.tell(stream, stream.series.revise(news.changed, news.found, news.asked_at))

    def carry(self, key: Any) -> SupervisedStream:
        self.streams[key] = self.rig.carry(key)
        return self.streams[key]

    def close_minutes(self, key: Any, *minutes: int) -> None:
        for minute in minutes:
            self.rig.hub.publish(self.streams[key].stream, update(key, minute, is_closed=True))

    async def tick(self, seconds: float = EVERY_S) -> int:
        """Let time pass and look once; return how many calls were made."""
        before = len(self.plugin.ranges)
        self.rig.hands.now += seconds
        self.recheck.check(self.streams, self.rig.hands.now)
        for task in [self.recheck._task] if self.recheck._task is not None else []:
            await task
        return len(self.plugin.ranges) - before

    @property
    def revised(self) -> list[tuple[int, float]]:
        return [((one.candle.time - MINUTE) // 60, one.candle.volume) for one in self.rig.closed if one.is_revised]


@asynccontextmanager
async def watch_of(plugin: Metered, folder: Path) -> AsyncIterator[Watch]:
    async with rig_of(plugin, folder) as rig:
        watch = Watch(rig, rig.history, plugin)
        yield watch
        await watch.recheck.close()
        watch.rig.hub.close()


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    """A stream `A@1m` that closed minutes 0 to 4; history knows them, and that minute 2 has another volume."""
    plugin = Metered()
    plugin.known = [candle(0), candle(1), candle(2, volume=7.0), candle(3), candle(4)]
    async with watch_of(plugin, tmp_path) as opened:
        opened.carry(A)
        opened.close_minutes(A, 0)
        await opened.tick()
        opened.close_minutes(A, 1, 2, 3, 4)
        yield opened


async def test_what_a_wrong_time_stored_of_the_future_is_forgotten_though_nobody_asks(watch: Watch) -> None:
    """Once its time has come, nobody could tell that it was not known."""
    store, clock, hands = watch.history._store, watch.rig.provider.clock, watch.rig.hands

    async def spans() -> list[Span]:
        return [span for _, span in await store.newest("scripted", 9)]

    await watch.tick()
    ahead = int(clock.now()) + 7200
    for source in ("ONE", "OTHER", None):
        clock.observe(ahead, source)
    await store.add("scripted", B, [candle(0)], Span(MINUTE, ahead - 3600))
    await watch.tick(1)
    assert Span(MINUTE, ahead - 3600) in await spans()
    # The exchange sets its clock right, and this machine's agrees.
    for source in ("ONE", "OTHER", None):
        clock.observe(hands.clock.wall(), source)
    await watch.tick(1)
    assert Span(MINUTE, MINUTE + 1) in await spans()


async def test_a_close_that_history_has_otherwise_is_told_as_revised_and_put_right(watch: Watch) -> None:
    assert await watch.tick(600) == 1
    assert watch.revised == [(2, 7.0)]
    rows = await watch.history._store.read("scripted", A, MINUTE, MINUTE + 300)
    assert [row.volume for row in rows] == [1.0, 1.0, 7.0, 1.0, 1.0]
    assert (watch.history.calls.compared["scripted"], watch.history.calls.differed["scripted"]) == (5, 1)


async def test_nothing_is_asked_before_the_delay_and_nothing_twice(watch: Watch) -> None:
    watch.rig.hands.now = MINUTE + 300.0
    assert await watch.tick(30) == 0
    assert await watch.tick() == 1
    assert await watch.tick() == 1
    assert watch.history.calls.compared["scripted"] == 2
    assert await watch.tick(600) == 1
    assert watch.history.calls.compared["scripted"] == 5
    assert await watch.tick(6000) == 0


async def test_calls_are_far_apart(watch: Watch) -> None:
    watch.carry(B)
    watch.close_minutes(B, 0)
    assert await watch.tick(600) == 1
    assert await watch.tick(EVERY_S - 1) == 0


async def test_each_delay_compares_once_more(tmp_path: Path) -> None:
    plugin = Metered(compare_after_s=(300.0, 3600.0))
    plugin.known = [candle(0), candle(1)]
    async with watch_of(plugin, tmp_path) as watch:
        watch.carry(A)
        watch.close_minutes(A, 0, 1)
        assert await watch.tick() == 0
        watch.close_minutes(A, 2)
        assert await watch.tick(600) == 1
        assert await watch.tick(600) == 0
        plugin.known = [candle(0), candle(1), candle(2, volume=3.0)]
        assert await watch.tick(3600) == 1
        assert watch.revised == [(2, 3.0)]
        assert await watch.tick(3600) == 0


async def test_one_question_compares_for_all_delays(tmp_path: Path) -> None:
    """A question costs the same whatever it reaches: what little there is to spare has to last for all streams."""
    plugin = Metered(compare_after_s=(300.0, 3600.0))
    plugin.known = [candle(minute) for minute in range(80)]
    async with watch_of(plugin, tmp_path) as watch:
        watch.carry(A)
        watch.close_minutes(A, *range(80))
        assert await watch.tick(3600 + 20 * 60) == 1
        assert await watch.tick() == 1
        assert plugin.ranges == [(0, 74), (74, 75)]


@pytest.mark.parametrize(
    "budget",
    [
        Budget("weight", 100, 50, MINUTE + 9e9),
        Budget("credits", 8, 0, MINUTE + 9e9, reserved=0),
    ],
)
async def test_nothing_is_asked_while_the_budget_has_little_left(watch: Watch, budget: Budget) -> None:
    watch.plugin.budgets = [budget]
    assert await watch.tick(600) == 0
    watch.plugin.budgets = [budget._replace(used=0, reserved=None)]
    watch.rig.hands.now += 600
    assert await watch.tick() == 1


async def test_of_what_is_kept_for_history_half_is_left(watch: Watch) -> None:
    watch.plugin.budgets = [Budget("credits a day", 800, 700, watch.rig.hands.now + 1000, reserved=80)]
    assert await watch.tick(600) == 1
    watch.plugin.budgets = [Budget("credits a day", 800, 700, watch.rig.hands.now + 1000, reserved=40)]
    watch.close_minutes(A, 5)
    assert await watch.tick(6000) == 0


async def test_questions_are_spread_over_the_time_until_the_budget_is_back(watch: Watch) -> None:
    watch.carry(B)
    watch.close_minutes(B, 0)
    watch.plugin.budgets = [Budget("credits a day", 800, 0, watch.rig.hands.now + 80_000, reserved=80)]
    assert await watch.tick(600) == 1
    watch.close_minutes(B, 1)
    assert await watch.tick(1900) == 0
    assert await watch.tick(200) == 1


async def test_nothing_is_asked_while_a_call_is_under_way(watch: Watch) -> None:
    watch.plugin.may_answer.clear()
    request = asyncio.create_task(
        watch.history.candles(HistoryRequest(watch.rig.provider, B, start=MINUTE - 6000, end=MINUTE - 3000, limit=5))
    )
    await watch.plugin.was_asked.wait()
    assert await watch.tick(600) == 0
    watch.plugin.may_answer.set()
    await request
    assert await watch.tick() == 1


async def test_a_refusal_changes_nothing_and_is_tried_again(watch: Watch) -> None:
    watch.plugin.failure = RateLimited("slow down", 5.0)
    assert await watch.tick(600) == 1
    assert watch.revised == []
    watch.plugin.failure = None
    assert await watch.tick() == 1
    assert watch.revised == [(2, 7.0)]


async def test_a_stream_that_was_dropped_is_compared_to_its_end(watch: Watch) -> None:
    assert await watch.tick() == 0
    del watch.streams[A]
    assert await watch.tick(600) == 1
    assert watch.history.calls.compared["scripted"] == 5
    assert await watch.tick(600) == 0


async def test_a_candle_that_history_did_not_give_at_first_comes_as_revised(watch: Watch) -> None:
    supervised = watch.streams[A]
    watch.plugin.known = [candle(0), candle(1), candle(2), candle(3), candle(4)]
    watch.rig.hands.now = MINUTE + 600.0
    past = await watch.history.candles(
        HistoryRequest(watch.rig.provider, A, start=MINUTE + 300, end=MINUTE + 420, limit=5)
    )
    assert past.candles == ()
    watch.rig.hub.tell(supervised.stream, supervised.stream.series.fill((), MINUTE + 480))
    watch.close_minutes(A, 8)
    watch.plugin.known.append(candle(6))
    await watch.tick()
    assert watch.plugin.ranges[-1] == (5, 7)
    assert watch.revised == [(6, 1.0)]
    assert watch.rig.closed[-1].is_backfilled


async def test_a_day_of_comparisons_stays_within_half_of_what_the_credits_keep_for_history(tmp_path: Path) -> None:
    day = MINUTE // 86_400 * 86_400 + 86_400

    class Credited(Metered):
        """Spends a credit of history a call, beside polls that spend one every three minutes."""

        def __init__(self) -> None:
            super().__init__(compare_after_s=(900.0, 14_400.0), close_grace_s=75.0)
            self.now = float(day)
            self.credits = Credits(8, 800, wall=lambda: self.now, monotonic=lambda: self.now, knows_time=lambda: True)

        @hookimpl
        def relay_budgets(self) -> Sequence[Budget]:
            return self.credits.budgets()

        @hookimpl
        async def relay_candles(self, start: int | None, end: int) -> list[Candle]:
            self.ranges.append((start or 0, end))
            self.credits.settle(self.credits.spend(1, CreditUse.HISTORY))
            known = range(-(-(start or 0) // 60) * 60, end, 60)
            # Every fourth bar changes in the hour after its close.
            return [at_time(at, 2.0 if at % 240 == 0 and self.now - at > 3600 else 1.0) for at in known]

    plugin = Credited()
    async with watch_of(plugin, tmp_path) as watch:
        keys = [StreamKey(symbol, "1m") for symbol in "ABCDEF"]
        watch.rig.hands.now = float(day)
        watch.recheck._next_at = 0.0
        for key in keys:
            watch.carry(key)
        for minute in range(24 * 60):
            plugin.now = watch.rig.hands.now
            if minute % 3 == 0:
                plugin.credits.settle(plugin.credits.spend(1, CreditUse.POLL))
            plugin.credits.promise((1440 - minute) // 3)
            for key in keys:
                closing = PriceUpdate(key, at_time(day + 60 * (minute - 1), 1.0), is_closed=True)
                watch.rig.hub.publish(watch.streams[key].stream, closing)
            await watch.tick(60)
        assert 20 <= len(plugin.ranges) <= 40
        for key in keys:
            rows = await watch.history._store.read("scripted", key, day, day + 12 * 3600)
            assert [row.volume for row in rows] == [2.0 if row.time % 240 == 0 else 1.0 for row in rows]


def at_time(at: int, volume: float) -> Candle:
    return Candle(at, 1.0, 1.0, 1.0, 1.0, volume)


async def test_what_closed_before_the_first_look_is_compared_too(tmp_path: Path) -> None:
    plugin = Metered()
    plugin.known = [candle(0), candle(1, volume=7.0), candle(2)]
    async with watch_of(plugin, tmp_path) as watch:
        watch.carry(A)
        watch.close_minutes(A, 0, 1, 2)
        await watch.tick()
        assert await watch.tick(600) == 1
        assert watch.revised == [(1, 7.0)]


# -- over a restart --------------------------------------------------------------------------------


@asynccontextmanager
async def next_run(plugin: Metered, folder: Path, minute: int) -> AsyncIterator[Watch]:
    """Begin another run on the same file."""
    async with watch_of(plugin, folder) as watch:
        watch.rig.hands.now = MINUTE + 60.0 * minute
        await watch.recheck.recall()
        yield watch


async def volumes(watch: Watch, key: StreamKey) -> list[float]:
    return [row.volume for row in await watch.history._store.read("scripted", key, MINUTE, MINUTE + 6000)]


@pytest.mark.parametrize("is_carried", [True, False])
async def test_what_closed_before_a_stop_is_compared_by_the_next_run(tmp_path: Path, is_carried: bool) -> None:
    plugin = Metered()
    plugin.known = [candle(0), candle(1), candle(2), candle(3)]
    async with watch_of(plugin, tmp_path) as watch:
        watch.carry(A)
        # Killed before the first look: nothing is written down but the candles.
        watch.close_minutes(A, 0, 1, 2)
    plugin.known[2] = candle(2, volume=7.0)
    async with next_run(plugin, tmp_path, 4) as watch:
        if is_carried:
            watch.carry(A)
            watch.close_minutes(A, 3)
        assert await watch.tick() == 0
        assert await watch.tick(600) == 1
        assert watch.revised == ([(2, 7.0)] if is_carried else [])
        assert watch.unheard == ([] if is_carried else [candle(2, volume=7.0)])
        assert (await volumes(watch, A))[:3] == [1.0, 1.0, 7.0]
        assert await watch.tick(600) == 0


async def test_a_later_look_that_was_due_is_had_by_the_next_run(tmp_path: Path) -> None:
    plugin = Metered(compare_after_s=(300.0, 3600.0))
    plugin.known = [candle(0), candle(1)]
    async with watch_of(plugin, tmp_path) as watch:
        watch.carry(A)
        watch.close_minutes(A, 0, 1)
        assert await watch.tick(600) == 1
    plugin.known[0] = candle(0, volume=7.0)
    async with next_run(plugin, tmp_path, 12) as watch:
        assert await watch.tick() == 1, "the looks of the last run are not written down"
        plugin.known[1] = candle(1, volume=8.0)
        assert await watch.tick(600) == 0
        assert await watch.tick(3600) == 1
        assert await volumes(watch, A) == [7.0, 8.0]
        assert await watch.tick(3600) == 0


async def test_a_look_that_is_late_enough_serves_for_the_earlier_delays_too(tmp_path: Path) -> None:
    plugin = Metered(compare_after_s=(300.0, 3600.0))
    plugin.known = [candle(minute) for minute in range(3)]
    async with watch_of(plugin, tmp_path) as watch:
        watch.carry(A)
        watch.close_minutes(A, 0, 1, 2)
    async with next_run(plugin, tmp_path, 100) as watch:
        assert [await watch.tick() for _ in range(3)] == [1, 0, 0]


async def test_a_restart_brings_back_neither_streams_of_long_ago_nor_what_was_set_aside(tmp_path: Path) -> None:
    plugin = Metered()
    long_ago = [Candle(MINUTE - 3 * 86_400, 1.0, 1.0, 1.0, 1.0, 1.0)]
    async with watch_of(plugin, tmp_path) as watch:
        store = watch.history._store
        await store.add("scripted", B, long_ago, Span(long_ago[0].time, long_ago[0].time + 1))
        await store.add("scripted", StreamKey("A~1", "1m"), [candle(2)], Span(MINUTE + 120, MINUTE + 121))
        await store.add("other", StreamKey("C", "1m"), [candle(2)], Span(MINUTE + 120, MINUTE + 121))
        watch.carry(A)
        watch.close_minutes(A, 0)
    # The relay was down for a week: what it followed until then is looked at, once.
    plugin.known = [candle(0, volume=7.0)]
    async with next_run(plugin, tmp_path, 7 * 1440) as watch:
        assert [await watch.tick() for _ in range(3)] == [1, 0, 0]
        assert plugin.ranges == [(0, 0)]
        assert await volumes(watch, A) == [7.0]


async def test_a_question_has_no_more_candles_than_the_provider_gives_in_one_answer(tmp_path: Path) -> None:
    plugin = Metered(candles_per_call=12)
    plugin.known = [candle(minute) for minute in range(30)]
    async with watch_of(plugin, tmp_path) as watch:
        watch.carry(A)
        watch.close_minutes(A, *range(30))
    async with next_run(plugin, tmp_path, 60) as watch:
        assert [await watch.tick() for _ in range(4)] == [1, 1, 1, 0]
        assert plugin.ranges == [(0, 9), (10, 19), (20, 29)]


async def test_what_nobody_follows_gets_every_second_question_at_most(tmp_path: Path) -> None:
    plugin = Metered()
    plugin.known = [candle(minute) for minute in range(60)]
    async with watch_of(plugin, tmp_path) as watch:
        for number in range(10):
            key = StreamKey(f"O{number}", "1m")
            watch.carry(key)
            watch.close_minutes(key, 0)
    async with next_run(plugin, tmp_path, 20) as watch:
        watch.carry(A)
        for minute in range(20, 34):
            watch.close_minutes(A, minute)
            assert await watch.tick() == 1
        # From the sixth minute on there is something to compare of A.
        assert [high for _, high in plugin.ranges if high >= 20] == [20, 22, 24, 26, 28]
        assert [(low, high) for low, high in plugin.ranges if high < 20] == [(0, 0)] * 9


async def test_nothing_is_asked_for_between_the_open_times_of_long_candles(tmp_path: Path) -> None:
    plugin, key = Metered(), StreamKey("A", "5m")
    async with rig_of(plugin, tmp_path) as rig:
        watch = Watch(rig, rig.history, plugin)
        stream = watch.carry(key).stream
        for number in (0, 1):
            opened = candle(5 * number)
            rig.hub.publish(stream, PriceUpdate(key, opened, is_closed=True))
        rig.hub.publish(stream, PriceUpdate(key, candle(10)))
        # Five minutes long, and compared five minutes after its close.
        calls = [await watch.tick() for _ in range(20)]
        assert sum(calls) == 2
