"""What was missed is fetched before live updates go on, told as a gap if it cannot be, and repaired later."""

import asyncio
from collections.abc import Container, Sequence
from pathlib import Path

import pytest

from relay import Candle, ProviderUnavailable, RateLimited, StreamKey, UnknownSymbol
from relay.core.model import unreadable
from relay.history.doubts import EMPTY_PAUSES_S
from relay.streams.gaps import SeriesGap
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.timing import FEED_TIMING, FeedTiming
from tests.support.conditions import eventually
from tests.support.supervised_provider import MINUTE, A, Remembering, Rig, Scripted, candle, rig_of, update


def told(rig: Rig) -> list[tuple[int, bool]]:
    """Return the closed candles that were told: their minute, and whether as revised."""
    return [((one.candle.time - MINUTE) // 60, one.is_revised) for one in rig.closed]


def live(rig: Rig) -> SupervisedStream:
    """Carry a stream that is live with the open candle of minute 0."""
    supervised = rig.carry(A)
    supervised.go_live()
    rig.hub.publish(supervised.stream, update(A))
    return supervised


def task_of(name: str) -> asyncio.Task[object]:
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == name)
    return task


async def test_a_stream_that_cannot_have_missed_anything_is_live_at_once(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        supervised.lose("the connection was lost")
        rig.backfill.resume(supervised)
        assert supervised.stream.status == "connected"
        assert plugin.asked == 0


async def test_what_was_missed_before_a_planned_poll_is_left_to_it(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        supervised.lose("the connection was lost")
        supervised.expect(600.0, 600.0)
        rig.hands.now = MINUTE + 130.0
        rig.backfill.resume(supervised)
        assert supervised.stream.status == "connected"


async def test_a_stream_that_waited_for_credits_is_as_silent_as_before(tmp_path: Path) -> None:
    async with rig_of(Remembering(), tmp_path) as rig:
        supervised = live(rig)
        supervised.rest("throttled", "the credits of this minute are used up")
        rig.hands.now += 1000.0
        supervised.expect(30.0, 30.0)
        supervised.accept()
        rig.backfill.resume(supervised)
        supervised.check_silence(rig.hands.now)
        assert supervised.stream.status == "stale"


@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_silent_stream_of_a_symbol_that_is_gone_is_stale(tmp_path: Path, is_silent: bool) -> None:
    """After a lost connection it may be back with the next answer: what was missed is still owed then."""
    plugin = Remembering()
    plugin.failure = UnknownSymbol("Invalid symbol.")
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        rig.hands.now += 1000.0
        if is_silent:
            supervised.check_silence(rig.hands.now)
            assert supervised.stream.status == "stale"
        rig.backfill.check_close(supervised, rig.hands.now)
        await eventually(lambda: plugin.asked and (not is_silent or supervised.stream.status == "stale"))
        assert supervised.stream.status == ("stale" if is_silent else "backfilling")
        # What comes after all is held until it is known what was missed before it.
        plugin.failure = None
        plugin.known = [candle(0), candle(1)]
        rig.hands.now += 60.0
        rig.hub.publish(supervised.stream, update(A, 2))
        rig.backfill.start(supervised)
        await eventually(lambda: told(rig) == [(0, False), (1, False)])


async def test_a_stream_that_may_have_missed_a_candle_is_live_once_it_was_told(tmp_path: Path) -> None:
    plugin = Remembering()
    plugin.known = [candle(0), candle(1), candle(2)]
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        supervised.lose("the connection was lost")
        rig.hands.now = MINUTE + 130.0
        rig.backfill.resume(supervised)
        rig.backfill.start(supervised)
        assert supervised.stream.status == "backfilling"
        await eventually(lambda: supervised.stream.status == "connected")
        assert told(rig) == [(0, False), (1, False)]
        assert supervised.stream.series.last == candle(2)
        assert (plugin.asked, rig.backfill.fetched) == (1, 1)


async def test_a_candle_that_its_feed_did_not_close_is_asked_for(tmp_path: Path) -> None:
    plugin = Remembering()
    plugin.known = [candle(0)]
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        rig.hands.now = MINUTE + 60.9
        rig.backfill.check_close(supervised, rig.hands.now)
        assert supervised.stream.status == "connected"
        rig.hands.now = MINUTE + 61.0
        rig.backfill.check_close(supervised, rig.hands.now)
        await eventually(lambda: told(rig) == [(0, False)])


async def test_a_provider_without_history_is_not_asked_for_a_candle(tmp_path: Path) -> None:
    async with rig_of(Scripted(), tmp_path) as rig:
        supervised = live(rig)
        rig.hands.now = MINUTE + 90.0
        rig.backfill.check_close(supervised, rig.hands.now)
        supervised.lose("the connection was lost")
        rig.backfill.resume(supervised)
        assert supervised.stream.status == "connected"


async def test_fetching_that_was_cancelled_begins_again(tmp_path: Path) -> None:
    plugin = Remembering()
    plugin.known = [candle(0)]
    plugin.may_answer.clear()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        rig.hands.now = MINUTE + 61.0
        rig.backfill.check_close(supervised, rig.hands.now)
        await eventually(lambda: plugin.asked == 1)
        fetching = task_of("backfill A@1m")
        rig.backfill.cancel(supervised)
        await asyncio.wait({fetching})
        assert fetching.cancelled()
        supervised.lose("the connection was lost")
        plugin.may_answer.set()
        rig.backfill.resume(supervised)
        await eventually(lambda: supervised.stream.status == "connected")
        assert told(rig) == [(0, False)]


IMPATIENT = FeedTiming(history_patience_s=0.0)


async def gap_of(rig: Rig, plugin: Remembering) -> SupervisedStream:
    """Carry a stream whose minutes 0 to 2 could not be fetched before minute 3 came."""
    plugin.failure = ProviderUnavailable("down")
    supervised = live(rig)
    rig.hands.now = MINUTE + 190.0
    rig.hub.publish(supervised.stream, update(A, 3))
    rig.backfill.start(supervised)
    await eventually(lambda: supervised.stream.status == "connected")
    return supervised


async def test_live_updates_do_not_wait_forever_for_history_that_fails(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gap_of(rig, plugin)
        assert supervised.stream.gap_count == 1
        assert supervised.stream.series.last == candle(3)
        assert [event for _, event in supervised.stream.events] == [f"gap {MINUTE} to {MINUTE + 180}: down"]
        assert rig.backfill.fetched == 0


async def test_a_gap_is_repaired_once_history_answers(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gap_of(rig, plugin)
        plugin.failure, plugin.known = None, [candle(0), candle(1), candle(2)]
        rig.backfill.repair({A: supervised}, rig.hands.now)
        await eventually(lambda: not supervised.stream.series.gaps.left)
        assert told(rig) == [(0, True), (1, True), (2, True)]


async def gaps_at(rig: Rig, plugin: Remembering, missing: Container[int], minutes: int) -> SupervisedStream:
    """Carry a stream that told its minutes, but those that are missing, while history failed; it answers now."""
    plugin.failure = ProviderUnavailable("down")
    supervised = live(rig)
    rig.hands.now = MINUTE + 60 * minutes
    for number in (number for number in range(minutes) if number not in missing):
        rig.hub.publish(supervised.stream, update(A, number, is_closed=True))
        if supervised.stream.series.is_catching_up:
            rig.backfill.start(supervised)
            await eventually(lambda: supervised.stream.status == "connected")
    plugin.failure, plugin.known = None, [candle(number) for number in range(minutes)]
    plugin.asked = 0
    rig.closed.clear()
    return supervised


async def repair(rig: Rig, supervised: SupervisedStream, number: int) -> None:
    """Have the gaps of `A` looked at once more; `number` counts the times."""
    rig.backfill.repair({A: supervised}, rig.hands.now + number * FEED_TIMING.repair_every_s)
    await asyncio.gather(task_of("repair scripted"))


@pytest.mark.parametrize("is_stored", [False, True])
async def test_all_gaps_that_one_call_can_hold_are_repaired_by_one_question(tmp_path: Path, is_stored: bool) -> None:
    plugin = Remembering(candles_per_call=40)
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gaps_at(rig, plugin, range(2, 100, 3), 100)
        assert len(supervised.stream.series.gaps.left) == 33
        for time, one in supervised.stream.series.closed.items() if is_stored else ():
            rig.history.keep("scripted", A, one, supervised.stream.series.closed_before(time))
        rig.hands.now += 60.0
        for number in (1, 2, 3):
            await repair(rig, supervised, number)
            assert plugin.asked == number
        assert told(rig) == [(number, True) for number in range(2, 99, 3)]
        assert supervised.stream.series.gaps.left == []


async def test_gaps_of_which_nothing_is_there_yet_all_stay(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gaps_at(rig, plugin, (2, 3, 6, 7), 12)
        left, candles, plugin.known = supervised.stream.series.gaps.left, plugin.known, []
        await repair(rig, supervised, 1)
        assert supervised.stream.series.gaps.left == left
        plugin.known = candles
        rig.hands.now += EMPTY_PAUSES_S[0]
        await repair(rig, supervised, 2)
        assert told(rig) == [(2, True), (3, True), (6, True), (7, True)]


async def test_a_gap_that_may_only_be_late_holds_up_no_older_one(tmp_path: Path) -> None:
    plugin = Remembering(close_grace_s=5.0)
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gaps_at(rig, plugin, (2, 3, 6, 7), 9)
        rig.hands.now = MINUTE + 60.0 * 8 + 1.0
        plugin.known = [candle(number) for number in range(7)]
        await repair(rig, supervised, 1)
        assert told(rig) == [(2, True), (3, True)]
        assert [gap.start for gap in supervised.stream.series.gaps.left] == [MINUTE + 360]


async def test_a_gap_that_cannot_be_asked_for_holds_up_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gaps_at(rig, plugin, (2, 6), 12)
        answer = rig.provider.candles

        async def refuse_old(key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
            if (start or 0) < MINUTE + 180:
                raise ProviderUnavailable("that is too long ago")
            return await answer(key, start, end, limit)

        monkeypatch.setattr(rig.provider, "candles", refuse_old)
        for number in (1, 2):
            await repair(rig, supervised, number)
        assert told(rig) == [(6, True)]
        assert [gap.start for gap in supervised.stream.series.gaps.left] == [MINUTE + 120]


async def test_a_repair_that_fails_is_tried_again_after_a_while(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gap_of(rig, plugin)
        asked = plugin.asked
        for after_s, expected in ((0, 1), (1, 1), (FEED_TIMING.repair_every_s, 2)):
            rig.backfill.repair({A: supervised}, rig.hands.now + after_s)
            await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "repair scripted"))
            assert plugin.asked == asked + expected, after_s
        assert len(supervised.stream.series.gaps.left) == 1


async def test_a_stream_that_was_dropped_while_history_was_asked_is_left_as_it_was(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path, IMPATIENT) as rig:
        supervised = await gap_of(rig, plugin)
        plugin.failure, plugin.known = None, [candle(0), candle(1), candle(2)]
        plugin.may_answer.clear()
        streams = {A: supervised}
        asked = plugin.asked
        rig.backfill.repair(streams, rig.hands.now)
        repair = task_of("repair scripted")
        await eventually(lambda: plugin.asked == asked + 1)
        streams.clear()
        plugin.may_answer.set()
        await repair
        assert told(rig) == []
        assert len(supervised.stream.series.gaps.left) == 1


async def test_live_updates_wait_for_a_budget_that_is_used_up(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        plugin.failure = RateLimited("the credits of this minute are used up", 60.0)
        supervised = live(rig)
        rig.hands.now = MINUTE + 190.0
        rig.hub.publish(supervised.stream, update(A, 3))
        rig.backfill.start(supervised)
        await eventually(lambda: supervised.stream.status == "throttled")
        assert "60 s" in supervised.stream.message
        rig.hands.now += 40.0
        plugin.failure, plugin.known = None, [candle(0), candle(1), candle(2)]
        # The plugin is not called before, by the time of the loop.
        await asyncio.sleep(61.0)
        rig.hands.now += 21.0
        await eventually(lambda: supervised.stream.status == "connected")
        assert told(rig) == [(0, False), (1, False), (2, False)]
        assert supervised.stream.gap_count == 0


async def test_a_candle_that_is_open_in_an_answer_about_the_past_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        clock, answer, behind_s = rig.provider.clock, rig.provider.candles, [600.0]

        async def answer_of_a_copy(key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
            rows = await answer(key, start, end, limit)
            clock.observe(rig.hands.now - behind_s[0])
            return rows

        monkeypatch.setattr(rig.provider, "candles", answer_of_a_copy)
        clock.observe(rig.hands.now, "A")
        rig.hands.now = MINUTE + 330.0
        for number in (3, 4, 5):
            rig.hub.publish(supervised.stream, update(A, number))
        plugin.known = [candle(number) for number in range(6)]
        rig.backfill.start(supervised)
        await eventually(lambda: "not closed there yet" in supervised.stream.message)
        behind_s[0] = 0.0

        def is_live_soon() -> bool:
            rig.hands.now += 0.02
            return supervised.stream.status == "connected"

        await eventually(is_live_soon)
        assert told(rig) == [(number, False) for number in range(5)]
        assert supervised.stream.gap_count == 0


async def test_a_gap_told_to_one_client_is_repaired(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        plugin.known = [candle(-2), candle(-1)]
        supervised.stream.series.owe(SeriesGap(MINUTE - 120, MINUTE))
        rig.backfill.repair({A: supervised}, rig.hands.now + FEED_TIMING.repair_every_s)
        await eventually(lambda: not supervised.stream.series.gaps.left)
        assert told(rig) == [(-2, True), (-1, True)]


async def test_a_candle_that_cannot_be_read_is_told_as_a_gap_and_follows_when_it_can(tmp_path: Path) -> None:
    plugin = Remembering()
    plugin.known = [candle(0), unreadable(candle(1).time), candle(2), candle(3)]
    async with rig_of(plugin, tmp_path) as rig:
        supervised = live(rig)
        rig.hands.now = MINUTE + 190.0
        rig.hub.publish(supervised.stream, update(A, 3))
        rig.backfill.start(supervised)
        await eventually(lambda: supervised.stream.status == "connected")
        assert told(rig) == [(0, False), (2, False)]
        assert [(gap.start - MINUTE, gap.end - MINUTE) for gap in supervised.stream.series.gaps.left] == [(60, 120)]
        assert supervised.stream.series.last == candle(3)
        plugin.known[1] = candle(1)
        rig.hands.now += 5
        rig.backfill.repair({A: supervised}, rig.hands.now + FEED_TIMING.repair_every_s)
        await eventually(lambda: not supervised.stream.series.gaps.left)
        assert told(rig) == [(0, False), (2, False), (1, True)]
