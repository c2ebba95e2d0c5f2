"""Built streams as their supervisor carries them: in the state of their parts, and honest about what is missing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relay import Candle, PastChange, PriceUpdate, ProviderUnavailable, RateLimited, StreamKey
from relay.core.derived_intervals import Derivation
from relay.core.model import OpenHours
from relay.core.periods import Periods
from relay.core.trading_hours import TradingHours
from relay.history.derived_history import PeriodParts
from relay.history.live_edge import live_of
from relay.history.requests import HistoryRequest
from relay.streams.other_instrument import begin_anew
from relay.streams.outbox import Outbox
from relay.streams.subscriptions import Stream
from relay.supervision.supervisor import Supervisor
from tests.support.conditions import eventually
from tests.support.supervised_provider import MINUTE, A, Remembering, Rig, rig_of

FIVE = StreamKey("A", "5m")
DERIVATION = Derivation("1m", Periods("5m", "1m", is_utc_grid=True))
BEGAN = MINUTE // 300 * 300


class Lists:
    """What a provider lists; `version` grows when it is another."""

    version = 1

    def standing(self, provider: str, symbol: str) -> Any:
        return "trading"


class Silent:
    """A socket that takes everything."""

    def write(self, data: bytes) -> None:
        """Take it."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Carried:
    """A built stream with one subscriber, and the provider that has its parts."""

    def __init__(self, rig: Rig, plugin: Remembering, supervisor: Supervisor, lists: Lists) -> None:
        self.rig = rig
        self.plugin = plugin
        self.supervisor = supervisor
        self.lists = lists
        self.stream = rig.hub.stream("scripted", FIVE, "A", supervisor)
        self.subscriber = rig.hub.join(Outbox(Silent()), lambda subscriber, reason: None)
        rig.hub.subscribe(self.subscriber, self.stream)

    @property
    def base(self) -> Stream:
        return self.rig.hub.streams["scripted", A]

    @property
    def is_built(self) -> bool:
        return self.stream.base is not None

    @property
    def state(self) -> tuple[str, str]:
        return self.stream.status, self.stream.message

    @property
    def last(self) -> tuple[int, float, bool] | None:
        last = self.stream.series.last
        return None if last is None else ((last.time - BEGAN) // 60, last.volume, self.stream.series.last_is_closed)

    def say(self, minute: int, volume: float = 1.0, **marks: bool) -> None:
        self.plugin.feeds[-1].say(PriceUpdate(A, part(minute, volume), **marks))

    async def tell_the_first(self) -> list[PriceUpdate]:
        """Tell the rest of its first candle, and of the next the beginning; return what is told as closed."""
        self.rig.hands.now = BEGAN + 310.0
        for minute in (2, 3, 4):
            self.say(minute, is_closed=True)
        self.say(5)
        await eventually(lambda: self.last == (5, 1.0, False))
        await eventually(lambda: any(update.key == FIVE for update in self.rig.closed))
        return self.rig.closed

    async def pass_time(self, until: Callable[[], object]) -> None:
        """Let seconds pass until a condition holds."""

        def step() -> object:
            self.rig.hands.now += 0.25
            self.supervisor.check(self.rig.hands.now)
            return until()

        await eventually(step, timeout_s=600.0)


def part(minute: int, volume: float = 1.0) -> Candle:
    return Candle(BEGAN + 60 * minute, 1.0, 1.0, 1.0, 1.0, volume)


@asynccontextmanager
async def carried(folder: Path, known: int = 0, **info: Any) -> AsyncIterator[Carried]:
    """Carry the stream from half a minute after the third minute of its candle on; history knows `known` minutes."""
    plugin = Remembering(intervals=("1m",), **info)
    plugin.known = [part(minute) for minute in range(-20, known)]
    async with rig_of(plugin, folder) as rig:
        rig.hands.now = BEGAN + 150.0
        rig.history.derivation_of = lambda source, key: DERIVATION if key == FIVE else None
        rig.history.derived.edge_of = lambda source, key: live_of(rig.hub.streams.get((source.name, key)))
        lists = Lists()
        supervisor = rig.supervisor(lists)
        one = Carried(rig, plugin, supervisor, lists)
        await eventually(lambda: plugin.feeds and A in plugin.feeds[-1].watchlist)
        yield one


async def test_it_is_live_once_the_beginning_of_its_candle_is_known(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        assert one.state == ("connecting", "connecting to the provider")
        one.plugin.may_answer.clear()
        one.say(2, 0.5)
        await eventually(lambda: one.base.status == "connected")
        assert one.last is None
        one.plugin.may_answer.set()
        await eventually(lambda: one.last == (0, 2.5, False))
        assert one.state == ("connected", "live")
        one.say(2, 0.75)
        await eventually(lambda: one.last == (0, 2.75, False))


async def test_the_beginning_of_its_candle_is_not_taken_from_an_answer_that_somebody_else_asked_for_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = Remembering(intervals=("1m",))
    plugin.known = [part(minute) for minute in range(-20, 1)]
    async with rig_of(plugin, tmp_path) as rig:
        rig.history.derivation_of = lambda source, key: DERIVATION if key == FIVE else None
        rig.hands.now = BEGAN + 118.0
        plugin.may_answer.clear()
        somebody = HistoryRequest(rig.provider, A, BEGAN - 1200, None, 100)
        before = asyncio.create_task(rig.history.candles(somebody))
        await eventually(lambda: plugin.asked == 1)
        # The second minute ends, and only then is anything promised.
        rig.hands.now = BEGAN + 121.0
        ask, asked = rig.history.derived.parts, []

        async def fail_at_first(*args: Any, **options: Any) -> PeriodParts:
            asked.append(options)
            if len(asked) == 1:
                raise ProviderUnavailable("not now")
            return await ask(*args, **options)

        monkeypatch.setattr(rig.history.derived, "parts", fail_at_first)
        lists = Lists()
        one = Carried(rig, plugin, rig.supervisor(lists), lists)
        await eventually(lambda: plugin.feeds and A in plugin.feeds[-1].watchlist)
        one.say(2, 0.5)
        await eventually(lambda: len(asked) == 1)
        rig.hands.now = BEGAN + 130.0
        await eventually(lambda: len(asked) == 2)
        plugin.may_answer.set()
        await before
        plugin.known = [part(minute) for minute in range(-20, 2)]
        await eventually(lambda: one.last is not None)
        assert one.last == (0, 2.5, False)


async def test_it_says_why_the_beginning_of_its_candle_is_not_known_and_goes_on_with_the_next(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.plugin.failure = ProviderUnavailable("no history today")
        one.say(2)
        await eventually(lambda: one.stream.status == "backfilling")
        assert one.stream.message == "the candle so far cannot be fetched yet: no history today"
        one.plugin.failure = RateLimited("the budget is used up", 7.0)
        await eventually(lambda: one.stream.status == "throttled", timeout_s=120.0)
        assert "the candle so far follows in " in one.stream.message
        one.rig.hands.now = BEGAN + 310.0
        for minute in (2, 3, 4):
            one.say(minute, is_closed=True)
        one.say(5)
        # The series waits for the first candle, as long as for those of others, and names it as a gap.
        await one.pass_time(lambda: one.last == (5, 1.0, False))
        (gap,) = one.stream.series.gaps.left
        assert gap.start <= BEGAN < gap.end == BEGAN + 300
        one.plugin.failure = None
        one.plugin.known = [part(minute) for minute in range(-20, 5)]
        await one.pass_time(lambda: one.stream.series.gaps.left == [])
        assert one.stream.series.closed[BEGAN].volume == 5.0


async def test_its_state_is_that_of_its_parts(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.say(2)
        await eventually(lambda: one.state == ("connected", "live"))
        watchlist = one.plugin.feeds[-1].watchlist
        watchlist.pause(A, "market_closed", "it opens tomorrow")
        assert one.state == ("market_closed", "it opens tomorrow")
        watchlist.accept([A])
        assert one.state == ("connected", "live")
        watchlist.remark(A, "by polls")
        assert one.state == ("connected", "by polls")
        one.plugin.feeds[-1].end(ProviderUnavailable("cut"))
        await eventually(lambda: one.stream.status == "reconnecting")
        assert one.stream.message == one.base.message
        watchlist = one.plugin.feeds[-1].watchlist
        await eventually(lambda: len(one.plugin.feeds) == 2)
        one.say(2, 2.0)
        await eventually(lambda: one.state == ("connected", "by polls") and one.last == (0, 4.0, False))
        one.plugin.feeds[-1].watchlist.reject(A, "not today")
        assert one.stream.status == "error"
        assert one.stream.message == one.base.message


async def test_a_new_subscriber_has_what_it_is_built_of_tried_again(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.plugin.feeds[-1].watchlist.reject(A, "not today")
        assert one.stream.status == "error"
        one.rig.hands.now += 6.0
        other = one.rig.hub.join(Outbox(Silent()), lambda subscriber, reason: None)
        one.rig.hub.subscribe(other, one.stream)
        await eventually(lambda: A in one.plugin.feeds[-1].watchlist and one.stream.status != "error")


async def test_a_candle_whose_last_part_is_not_there_closes_once_history_says_so(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.say(2, is_closed=True)
        await eventually(lambda: one.last == (0, 3.0, False))
        one.plugin.known = [part(minute) for minute in range(-20, 3)]
        one.rig.hands.now = BEGAN + 299.0
        await one.pass_time(lambda: one.last == (0, 3.0, True))
        assert one.rig.hands.now >= BEGAN + 300


async def test_what_nobody_follows_any_more_is_let_go_of_with_its_parts(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.say(2)
        await eventually(lambda: one.last is not None)
        one.rig.hub.leave(one.subscriber)
        await eventually(lambda: one.rig.hub.streams == {})
        await eventually(lambda: one.plugin.feeds[-1].has_ended)


async def test_a_past_that_is_another_one_is_asked_for_anew(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.say(2)
        await eventually(lambda: one.last == (0, 3.0, False))
        one.plugin.known = [part(minute, 10.0) for minute in range(-20, 2)]
        one.rig.history.change_past(one.rig.provider, PastChange(A))
        begin_anew(one.rig.hub, "scripted", "A", None)
        one.say(2, 2.0)
        await eventually(lambda: one.last == (0, 22.0, False))


async def test_a_candle_of_which_a_part_was_found_or_revised_later_is_revised(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        told = await one.tell_the_first()
        # As the relay's own store has it: a late closing with other values.
        one.plugin.known = [part(minute, 4.0 if minute == 3 else 1.0) for minute in range(-20, 5)]
        one.rig.history.change_past(one.rig.provider, PastChange(A))
        one.say(3, 4.0, is_closed=True)
        await eventually(lambda: told[-1].key == FIVE and told[-1].is_revised)
        assert told[-1].candle.volume == 8.0


async def test_a_revised_candle_of_which_another_part_is_in_doubt_is_asked_for_until_it_is_known(
    tmp_path: Path,
) -> None:
    async with carried(tmp_path, known=5, has_every_candle=True) as one:
        told = await one.tell_the_first()
        one.plugin.known = [part(minute, 4.0 if minute == 3 else 1.0) for minute in range(-20, 5) if minute != 1]
        one.rig.history.change_past(one.rig.provider, PastChange(A))
        asked = one.plugin.asked
        one.say(3, 4.0, is_closed=True)
        await eventually(lambda: one.plugin.asked > asked)
        one.plugin.known = [part(minute, 4.0 if minute == 3 else 1.0) for minute in range(-20, 5)]
        await one.pass_time(lambda: told[-1].key == FIVE and told[-1].is_revised)
        assert told[-1].candle.volume == 8.0


async def test_a_split_takes_the_candle_so_far_and_those_that_closed_anew(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        told = await one.tell_the_first()
        one.say(5, 2.0, is_closed=True)
        one.rig.hands.now = BEGAN + 370.0
        one.say(6)
        await eventually(lambda: one.last == (5, 3.0, False))
        one.plugin.known = [part(minute, 10.0) for minute in range(-20, 6)]
        # What is said of the parts alone is said of what is built of them.
        one.supervisor.past_changes.take(PastChange(A, before=BEGAN + 360, one_interval=True))
        await eventually(lambda: one.last == (5, 11.0, False))
        await eventually(lambda: any(one.key == FIVE and one.is_revised and one.candle.volume == 50.0 for one in told))


async def test_parts_that_are_void_are_not_taken_for_the_candle_so_far(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.rig.hands.now = BEGAN + 310.0
        for minute in (2, 3, 4):
            one.say(minute, is_closed=True)
        one.say(5, is_closed=True)
        one.rig.hands.now = BEGAN + 370.0
        one.say(6)
        await eventually(lambda: one.last == (5, 2.0, False))
        seen: list[float] = []

        def is_now(volume: float) -> bool:
            assert one.last is not None
            seen.append(one.last[1])
            return one.last == (5, volume, False)

        for volume in (10.0, 20.0):
            one.plugin.known = [part(minute, volume) for minute in range(-20, 6)]
            # The second one is restated after a pause, for which the old values are remembered.
            one.supervisor.past_changes.take(PastChange(A, before=BEGAN + 360))
            one.say(6, volume / 5)
            await eventually(partial(is_now, 1.2 * volume))
        # Not what was told of the fifth minute before, with what is told of the sixth now.
        assert 14.0 not in seen


async def test_streams_go_over_to_own_candles_when_there_are_some_and_back(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.say(2)
        await eventually(lambda: one.last is not None)
        one.rig.history.derivation_of = lambda source, key: None
        one.lists.version += 1
        one.supervisor.check(one.rig.hands.now)
        assert [one.is_built] == [False]
        await eventually(lambda: FIVE in one.plugin.feeds[-1].watchlist)
        one.rig.history.derivation_of = lambda source, key: DERIVATION if key == FIVE else None
        one.lists.version += 1
        one.supervisor.check(one.rig.hands.now)
        assert one.is_built
        await eventually(lambda: FIVE not in one.plugin.feeds[-1].watchlist and A in one.plugin.feeds[-1].watchlist)


async def test_what_waits_to_be_revised_is_not_forgotten_with_new_settings(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        told = await one.tell_the_first()
        one.plugin.known = [part(minute, 4.0 if minute == 3 else 1.0) for minute in range(-20, 5)]
        one.rig.history.change_past(one.rig.provider, PastChange(A))
        one.plugin.failure = ProviderUnavailable("no history today")
        asked = one.plugin.asked
        one.say(3, 4.0, is_closed=True)
        await eventually(lambda: one.plugin.asked > asked)
        by_hours = Derivation("1m", Periods("5m", "1m"))
        one.rig.history.derivation_of = lambda source, key: by_hours if key == FIVE else None
        one.supervisor.renew()
        one.plugin.failure = None
        await eventually(lambda: any(update.key == FIVE and update.is_revised for update in told), timeout_s=600.0)
        assert told[-1].candle.volume == 8.0


async def test_new_settings_may_change_what_a_stream_is_built_of(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.say(2)
        await eventually(lambda: one.last == (0, 3.0, False))
        others = Derivation("1s", Periods("5m", "1s", is_utc_grid=True))
        one.rig.history.derivation_of = lambda source, key: others if key == FIVE else None
        one.supervisor.renew()
        assert one.stream.base is not None
        assert one.stream.base.key.interval == "1s"
        await eventually(lambda: A not in one.plugin.feeds[-1].watchlist)


async def test_a_list_that_says_other_hours_has_candles_counted_by_them(tmp_path: Path) -> None:
    async with carried(tmp_path, known=2) as one:
        one.say(2, is_closed=True)
        await eventually(lambda: one.last == (0, 3.0, False))
        one.rig.hands.now = BEGAN + 180.0
        closing = OpenHours(BEGAN, BEGAN + 180)
        one.plugin.known = [part(minute) for minute in range(-20, 3)]
        short = Derivation("1m", Periods("5m", "1m", market=TradingHours(lambda moment: closing)))
        one.rig.history.derivation_of = lambda source, key: short if key == FIVE else None
        one.lists.version += 1
        one.supervisor.check(one.rig.hands.now)
        await eventually(lambda: one.last == (0, 3.0, True))
