"""The candle contract of one stream, against generated truths: whatever arrives in whatever order, what is told holds.

A `World` is a true sequence of candles and everything the exchange says of it. `Play` lets its events reach a series
late, twice, out of order or never, and answers for history: fully, in part, too late, wrongly, or not at all. What the
series tells is judged by the invariants below, each a function of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, ExtendedCandle, PriceUpdate, StreamKey, widened
from relay.core.spans import Span
from relay.streams.catching_up import Missing
from relay.streams.gaps import MOST, SeriesGap
from relay.streams.judged_updates import MOST_HELD
from relay.streams.series import Series
from relay.streams.told_candles import RECALLED, REMEMBERED
from tests.support.examples import examples

MINUTE = StreamKey("BTCUSDT", "1m")
DAY = 86_400
STARTS = {"1s": 1_700_000_000, "1m": 1_699_999_980, "1h": 1_699_999_200, "3d": 19_676 * DAY, "1w": 19_674 * DAY}
MONTH_STARTS = (1_696_118_400, 1_698_796_800, 1_701_388_800, 1_704_067_200, 1_706_745_600, 1_709_251_200)


class Event(NamedTuple):
    """Something the exchange says, at `at_ms` of its time; `order` tells older from newer news."""

    order: int
    at_ms: int
    candle: Candle
    is_closed: bool


class World:
    """Candles that truly were, and all that an exchange says of them, in the order in which it happens."""

    def __init__(self, interval: str, times: Sequence[int], states: Sequence[int], revisions: Sequence[bool]) -> None:
        self.interval = interval
        self.times = list(times)
        self.events: list[Event] = []
        for number, time in enumerate(times):
            end_ms = next_open(interval, time) * 1000
            for state in range(states[number]):
                self._happen(time * 1000 + 100 + state, time, state + 1, is_closed=False)
            self._happen(end_ms + 5, time, 50, is_closed=True)
            if number and revisions[number]:
                self._happen(end_ms + 6, times[number - 1], 60, is_closed=True)

    def __repr__(self) -> str:
        events = [f"{e.candle.time}{'!' if e.is_closed else ''}:{e.candle.volume:g}@{e.at_ms}" for e in self.events]
        return f"World({self.interval}, {' '.join(events)})"

    def _happen(self, at_ms: int, time: int, volume: int, *, is_closed: bool) -> None:
        price = 100.0 + self.times.index(time)
        candle = Candle(time, price, price + volume, price - volume, price, float(volume))
        self.events.append(Event(len(self.events), at_ms, candle, is_closed))

    def known_at(self, happened: int) -> dict[int, Event]:
        """Return the newest news of each candle after so many events."""
        return {event.candle.time: event for event in self.events[:happened]}


class Told(NamedTuple):
    """One thing that subscribers were told; `before` is what `told_before` said of it."""

    what: PriceUpdate | SeriesGap
    before: int | None = None


class Play:
    """Runs one series against a world; `told` is what subscribers got since the last restart."""

    def __init__(self, world: World, lacking: frozenset[int], differing: frozenset[int], happened: int) -> None:
        self.world = world
        self.lacking = lacking
        self.differing = differing
        self.happened = min(happened, len(world.events) - 1)
        self.key = StreamKey("X", world.interval)
        self.restart()

    def restart(self) -> None:
        self.promised_at = self.world.events[min(self.happened, len(self.world.events) - 1)].at_ms / 1000 - 1
        self.series = Series(self.key, self.promised_at)
        self.told: list[Told] = []
        self.wires: list[list[Event]] = [[], []]
        self.pending: tuple[Missing, list[Candle], Candle | None] | None = None
        self.arrived: set[int] = set()
        self.has_given_up = False
        self.spoke_while_catching_up = False

    # -- what can happen ---------------------------------------------------------------------------

    def advance(self) -> None:
        """Let one more event happen; it is on its way on both connections."""
        if self.happened < len(self.world.events):
            for wire in self.wires:
                wire.append(self.world.events[self.happened])
            self.happened += 1

    def arrive(self, wire: int, position: int = 0) -> None:
        """Let an event arrive, the first or, out of order, another one."""
        events = self.wires[wire]
        if events:
            self._accept(events.pop(min(position, len(events) - 1)))

    def each(self, *steps: Callable[[], None]) -> None:
        for step in steps:
            step()

    def lose(self, wire: int) -> None:
        """Lose what is on its way on one connection."""
        self.wires[wire].clear()

    def lose_one(self, wire: int) -> None:
        if self.wires[wire]:
            self.wires[wire].pop(0)

    def repeat(self, back: int) -> None:
        """Let an event arrive again that happened some time ago, whether it had arrived or not."""
        if self.happened > back:
            self._accept(self.world.events[self.happened - 1 - back])

    def ask(self, lag: int = 0) -> None:
        """Ask history; the answer may be cut short. The question stands until `answer`."""
        self.pending = None
        missing = self.series.missing(self.world.events[self.happened - 1].at_ms / 1000)
        if missing is None:
            if self.series.is_catching_up:
                self._tell(self.series.fill((), None))
            return
        closed, forming = self._history(missing.start, missing.end)
        if lag:
            closed, forming = closed[:-lag], None
            if missing.end is not None:
                if not closed:
                    return
                missing = missing._replace(end=closed[-1].time + 1)
        self.pending = (missing, closed, forming)

    def answer(self) -> None:
        if self.pending is not None and self.series.is_catching_up:
            missing, closed, forming = self.pending
            self.pending = None
            self._tell(self.series.fill(closed, missing.end, forming))

    def fail(self) -> None:
        """Give history up."""
        if self.series.is_catching_up:
            self.pending = None
            self.has_given_up = True
            self._tell(self.series.give_up())

    def repair(self, *, is_partial: bool = False) -> None:
        if self.series.gaps.left:
            gap = self.series.gaps.left[0]
            closed, _ = self._history(gap.start, gap.end)
            until = None
            if is_partial and closed:
                closed, until = closed[:1], closed[0].time + 1
            self._tell(self.series.repair(gap, closed, until))

    def finish(self) -> None:
        """Let everything happen, and let history answer what is asked until nothing is."""
        self.happened = len(self.world.events)
        self.pending = None
        # Once for what waits, and once more for what may have closed since that was said.
        for _ in range(2):
            self.series.catch_up()
            for _ in range(2 * len(self.world.times) + 2):
                self.ask()
                self.answer()
            assert not self.series.is_catching_up, "the series asks for ever"

    # -- what follows ------------------------------------------------------------------------------

    def _history(self, start: int, end: int | None) -> tuple[list[Candle], Candle | None]:
        closed, forming = [], None
        for time, event in sorted(self.world.known_at(self.happened).items()):
            if time < start or (end is not None and time >= end) or time in self.lacking:
                continue
            candle = event.candle
            if not event.is_closed:
                forming = candle
            else:
                closed.append(candle._replace(close=candle.close + 0.25) if time in self.differing else candle)
        return closed, forming

    def _accept(self, event: Event) -> None:
        self.arrived.add(event.order)
        was_catching_up = self.series.is_catching_up
        told = self.series.accept(PriceUpdate(self.key, event.candle, event.is_closed, event.at_ms))
        self.spoke_while_catching_up |= was_catching_up and bool(told)
        self._tell(told)

    def _tell(self, updates: Sequence[PriceUpdate]) -> None:
        self.told += [Told(gap) for gap in self.series.gaps.drain()]
        self.told += [Told(update, self.series.told_before(update)) for update in updates]

    # -- for the invariants ------------------------------------------------------------------------

    @property
    def updates(self) -> list[PriceUpdate]:
        return [told.what for told in self.told if isinstance(told.what, PriceUpdate)]

    def order_of(self, candle: Candle, *, is_closed: bool) -> float:
        """Return which event a told state comes from; history's own values count as a little newer."""
        for event in self.world.events:
            if event.is_closed is is_closed and event.candle == candle:
                return event.order
            if event.is_closed and is_closed and event.candle == candle._replace(close=candle.close - 0.25):
                return event.order + 0.5
        raise AssertionError(f"{candle} never was")

    def owed(self) -> set[int]:
        """Return the candles that had to be told: those that close after the promise or follow something told."""
        first = min((update.candle.time for update in self.updates), default=None)
        return {
            time
            for time in self.world.times
            if next_open(self.world.interval, time) > self.promised_at or (first is not None and time >= first)
        }

    def excused(self) -> set[int]:
        """Return the candles that history denies and the feed never closed: nobody could have told them."""
        return {
            time
            for time in self.lacking
            if not any(
                self.world.events[n].candle.time == time and self.world.events[n].is_closed for n in self.arrived
            )
        }


# -- the invariants --------------------------------------------------------------------------------


def time_goes_back_only_in_revisions(play: Play) -> None:
    times = [update.candle.time for update in play.updates if not update.is_revised]
    assert times == sorted(times)


def every_candle_is_closed_at_most_once(play: Play) -> None:
    closed = [update.candle.time for update in play.updates if update.is_closed and not update.is_revised]
    assert len(closed) == len(set(closed))


def nothing_open_follows_the_closing(play: Play) -> None:
    closed: set[int] = set()
    for update in play.updates:
        if update.is_closed:
            closed.add(update.candle.time)
        else:
            assert update.candle.time not in closed


def only_closed_candles_are_revised(play: Play) -> None:
    assert all(update.is_closed for update in play.updates if update.is_revised)


def revisions_speak_of_the_past(play: Play) -> None:
    newest = None
    for update in play.updates:
        if update.is_revised:
            assert newest is not None
            assert update.candle.time <= newest
        else:
            newest = update.candle.time


def revisions_bring_news(play: Play) -> None:
    known: dict[int, Candle] = {}
    for update in play.updates:
        if update.is_revised:
            assert known.get(update.candle.time) != update.candle
        if update.is_closed:
            known[update.candle.time] = update.candle


def nothing_is_missing_in_the_end(play: Play) -> None:
    closed = {update.candle.time for update in play.updates if update.is_closed}
    gaps = [told.what for told in play.told if isinstance(told.what, SeriesGap)]
    for time in play.owed() - play.excused():
        assert time in closed or any(gap.start <= time < gap.end for gap in gaps), time


def every_candle_is_complete_before_a_later_one(play: Play) -> None:
    settled: set[int] = set()
    owed, excused = play.owed(), {time for time in play.lacking}
    for told in play.told:
        if isinstance(told.what, SeriesGap):
            settled.update(time for time in play.world.times if told.what.start <= time < told.what.end)
            continue
        if not told.what.is_revised:
            earlier = {time for time in owed if time < told.what.candle.time}
            assert earlier - excused <= settled
        if told.what.is_closed:
            settled.add(told.what.candle.time)


def a_candle_told_as_open_is_closed_or_a_gap(play: Play) -> None:
    """Also where history denies it: what a client saw begin may not just vanish."""
    shown: set[int] = set()
    for told in play.told:
        if isinstance(told.what, SeriesGap):
            shown = {time for time in shown if not told.what.start <= time < told.what.end}
        elif told.what.is_closed:
            shown.discard(told.what.candle.time)
        else:
            assert all(time >= told.what.candle.time for time in shown)
            shown.add(told.what.candle.time)


def every_value_was_true(play: Play) -> None:
    for update in play.updates:
        play.order_of(update.candle, is_closed=update.is_closed)


def news_is_never_undone(play: Play) -> None:
    newest: dict[int, float] = {}
    for update in play.updates:
        order = play.order_of(update.candle, is_closed=update.is_closed)
        assert order >= newest.get(update.candle.time, -1)
        newest[update.candle.time] = order


def the_last_state_is_the_newest_that_arrived(play: Play) -> None:
    last: dict[int, PriceUpdate] = {update.candle.time: update for update in play.updates}
    for time, update in last.items():
        arrived = [n for n in play.arrived if play.world.events[n].candle.time == time]
        if time in play.owed() and arrived:
            assert play.order_of(update.candle, is_closed=update.is_closed) >= max(arrived)


def a_gap_needs_a_reason(play: Play) -> None:
    gaps = [told.what for told in play.told if isinstance(told.what, SeriesGap)]
    assert not gaps or play.has_given_up or play.lacking
    assert all(gap.start < gap.end for gap in gaps)


def no_gap_is_told_of_what_was_told(play: Play) -> None:
    closed: set[int] = set()
    for told in play.told:
        if isinstance(told.what, SeriesGap):
            assert not any(told.what.start <= time < told.what.end for time in closed)
        elif told.what.is_closed:
            closed.add(told.what.candle.time)


def what_was_told_before_is_what_stands_before(play: Play) -> None:
    """History counts the time between two candles as known, so nothing that exists may lie there."""
    closed: set[int] = set()
    for told in play.told:
        if not isinstance(told.what, PriceUpdate) or not told.what.is_closed:
            continue
        if told.before is not None:
            between = {time for time in play.world.times if told.before < time < told.what.candle.time}
            assert between <= play.lacking
        closed.add(told.what.candle.time)


def nothing_is_told_while_catching_up(play: Play) -> None:
    assert not play.spoke_while_catching_up


def the_series_knows_what_was_told(play: Play) -> None:
    known: dict[int, Candle] = {update.candle.time: update.candle for update in play.updates if update.is_closed}
    assert {time: candle for time, candle in play.series.closed.items() if time in known} == known
    if play.updates:
        last = max(play.updates, key=lambda update: update.candle.time)
        assert play.series.last is not None
        assert play.series.last.time >= last.candle.time


def memory_is_bounded(play: Play) -> None:
    assert len(play.series.closed) <= REMEMBERED
    assert len(play.series.gaps.left) <= MOST


INVARIANTS: tuple[Callable[[Play], None], ...] = (
    time_goes_back_only_in_revisions,
    every_candle_is_closed_at_most_once,
    nothing_open_follows_the_closing,
    only_closed_candles_are_revised,
    revisions_speak_of_the_past,
    revisions_bring_news,
    nothing_is_missing_in_the_end,
    every_candle_is_complete_before_a_later_one,
    a_candle_told_as_open_is_closed_or_a_gap,
    every_value_was_true,
    news_is_never_undone,
    the_last_state_is_the_newest_that_arrived,
    a_gap_needs_a_reason,
    no_gap_is_told_of_what_was_told,
    what_was_told_before_is_what_stands_before,
    nothing_is_told_while_catching_up,
    the_series_knows_what_was_told,
    memory_is_bounded,
)


# -- generated plays -------------------------------------------------------------------------------

ACTIONS: dict[str, Callable[[Play], None]] = {
    "advance": Play.advance,
    "advance twice": lambda play: play.each(play.advance, play.advance),
    "arrive": lambda play: play.arrive(0),
    "arrive all": lambda play: play.each(*[lambda: play.arrive(0)] * len(play.wires[0])),
    "arrive on the other": lambda play: play.arrive(1),
    "arrive out of order": lambda play: play.arrive(0, 2),
    "lose one": lambda play: play.lose_one(0),
    "lose one on the other": lambda play: play.lose_one(1),
    "lose the connection": lambda play: play.lose(0),
    "repeat": lambda play: play.repeat(0),
    "repeat an older one": lambda play: play.repeat(3),
    "repeat an old one": lambda play: play.repeat(7),
    "reconnect": lambda play: play.series.catch_up(),
    "ask": Play.ask,
    "answer": Play.answer,
    "ask and answer": lambda play: play.each(play.ask, play.answer),
    "ask, lagging": lambda play: play.ask(1),
    "ask, far behind": lambda play: play.ask(2),
    "fail": Play.fail,
    "repair": Play.repair,
    "repair in part": lambda play: play.repair(is_partial=True),
    "restart": Play.restart,
}
WEIGHTED = [*ACTIONS, *["advance", "advance twice", "arrive", "arrive", "arrive all"] * 3, "ask", "ask and answer"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Regular grids, grids with holes, 3d at each phase, weeks from Monday, months."""
    interval = draw(st.sampled_from(["1s", "1m", "1h", "3d", "1w", "1M"]))
    if interval == "1M":
        grid = list(MONTH_STARTS)
    else:
        phase = draw(st.integers(0, 2)) * DAY if interval == "3d" else 0
        grid = [STARTS[interval] + phase + n * length_s(interval) for n in range(9)]
    exists = draw(st.lists(st.integers(0, 4), min_size=len(grid), max_size=len(grid)))
    times = [time for time, number in zip(grid, exists, strict=True) if number] or grid[:2]
    states = draw(st.lists(st.integers(0, 2), min_size=len(times), max_size=len(times)))
    revisions = draw(st.lists(st.integers(0, 5).map(lambda n: n == 5), min_size=len(times), max_size=len(times)))
    return World(interval, times, states, revisions)


@settings(max_examples=examples(250))
@given(data=st.data(), world=worlds(), actions=st.lists(st.sampled_from(WEIGHTED), min_size=5, max_size=60))
def test_whatever_arrives_in_whatever_order_the_contract_holds(
    data: st.DataObject, world: World, actions: list[str]
) -> None:
    some = st.one_of(st.just(frozenset[int]()), st.frozensets(st.sampled_from(world.times), max_size=2))
    lacking, differing = data.draw(some, "history lacks"), data.draw(some, "history differs in")
    play = Play(world, lacking, differing, data.draw(st.integers(0, 6), "events before the start"))
    for action in actions:
        ACTIONS[action](play)
    play.finish()
    for invariant in INVARIANTS:
        invariant(play)


# -- single behaviours -----------------------------------------------------------------------------

T = 1_700_000_040  # a whole minute


def candle(minute: int, close: float = 2.0, volume: float = 7.0) -> Candle:
    return Candle(T + 60 * minute, 1.0, 9.0, 1.0, close, volume)


def live(minute: int, close: float = 2.0, *, is_closed: bool = False, at_ms: int | None = None) -> PriceUpdate:
    return PriceUpdate(MINUTE, candle(minute, close), is_closed, at_ms)


def outline(updates: Sequence[PriceUpdate]) -> list[str]:
    """Write updates as `minute`, `!` closed, `b` backfilled, `r` revised."""
    marks = ("is_closed", "!"), ("is_backfilled", "b"), ("is_revised", "r")
    return [
        f"{(update.candle.time - T) // 60}" + "".join(mark for name, mark in marks if getattr(update, name))
        for update in updates
    ]


def minutes(missing: Missing | SeriesGap | None) -> tuple[float, float | None]:
    assert missing is not None
    return (missing.start - T) / 60, None if missing.end is None else (missing.end - T) / 60


@pytest.fixture
def series() -> Series:
    """Minute candles, promised since the middle of minute 0, which was told as open."""
    made = Series(MINUTE, T + 30.0)
    assert outline(made.accept(live(0))) == ["0"]
    return made


def test_a_lost_closing_event_is_fetched_before_the_next_candle(series: Series) -> None:
    assert series.accept(live(1)) == ()
    assert minutes(series.missing()) == (0, 1)
    assert outline(series.fill([candle(0, 3.0)], T + 60)) == ["0!b", "1"]


def test_a_late_closing_event_needs_no_history(series: Series) -> None:
    series.accept(live(1))
    series.accept(live(0, is_closed=True))
    assert series.missing() is None
    assert outline(series.fill((), None)) == ["0!", "1"]


def test_a_closing_event_after_history_answered_without_it_is_told_as_revised(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.accept(live(2))
    assert outline(series.fill([], T + 120)) == ["2"]
    assert outline(series.accept(live(1, is_closed=True))) == ["1!r"]


def test_a_candle_that_history_does_not_know_does_not_exist(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.accept(live(5))
    assert minutes(series.missing()) == (1 / 60, 5)
    assert outline(series.fill([], T + 300)) == ["5"]
    assert not series.is_catching_up
    assert series.gaps.drain() == []


def test_a_candle_that_was_told_as_open_cannot_vanish(series: Series) -> None:
    series.accept(live(2))
    assert outline(series.fill([candle(1)], T + 120)) == ["1!b", "2"]
    assert series.gaps.drain() == [SeriesGap(T, T + 60)]


def test_the_first_update_of_a_stream_waits_for_candles_that_closed_after_the_promise() -> None:
    series = Series(MINUTE, T + 30.0)
    assert series.accept(live(2)) == ()
    assert outline(series.fill([candle(0), candle(1)], T + 120)) == ["0!b", "1!b", "2"]


def test_the_first_update_of_a_candle_that_was_open_at_the_promise_is_told_at_once() -> None:
    assert outline(Series(MINUTE, T + 30.0).accept(live(0, is_closed=True))) == ["0!"]


def test_candles_that_closed_before_the_promise_are_not_told() -> None:
    series = Series(MINUTE, T + 150.0)
    told = series.fill([candle(minute) for minute in range(-5, 3)], None, candle(3))
    assert outline(told) == ["2!b", "3"]


def test_without_history_the_first_update_is_told_whatever_was_before() -> None:
    series = Series(MINUTE, None)
    assert outline(series.accept(live(7))) == ["7"]


def test_live_updates_that_arrive_while_history_is_asked_up_to_now_follow_its_answer(series: Series) -> None:
    series.catch_up()
    assert minutes(series.missing()) == (0, None)
    series.accept(live(3))
    assert outline(series.fill([candle(0), candle(1)], None, candle(2))) == ["0!b", "1!b"]
    assert minutes(series.missing()) == (1 + 1 / 60, 3)
    assert outline(series.fill([candle(2)], T + 180)) == ["2!b", "3"]


def test_the_next_candle_in_line_needs_no_history(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.catch_up()
    series.accept(live(1))
    assert series.missing() is None
    assert outline(series.fill((), None)) == ["1"]


def test_a_page_of_an_answer_leaves_the_rest_to_ask(series: Series) -> None:
    series.accept(live(3))
    assert outline(series.fill([candle(0)], T + 1)) == ["0!b"]
    assert minutes(series.missing()) == (1 / 60, 3)


def test_the_open_candle_of_history_is_told_where_the_feed_said_nothing_newer(series: Series) -> None:
    series.catch_up()
    assert outline(series.fill([], None, candle(0, 5.0, 8.0))) == ["0"]
    series.catch_up()
    assert outline(series.fill([], None, candle(0, 4.0, 6.0))) == []


def test_an_open_state_that_is_older_than_historys_is_not_told(series: Series) -> None:
    series.catch_up()
    series.missing(T + 40.0)
    series.fill([], None, candle(0, 5.0, 8.0))
    assert series.accept(live(0, 3.0, at_ms=(T + 35) * 1000)) == ()
    assert outline(series.accept(live(0, 6.0, at_ms=(T + 41) * 1000))) == ["0"]


def test_a_provider_without_stamps_is_taken_to_speak_in_order(series: Series) -> None:
    series.catch_up()
    series.missing(T + 40.0)
    series.fill([], None, candle(0, 5.0, 8.0))
    assert outline(series.accept(live(0, 3.0))) == ["0"]
    assert series.accept(live(0, 3.0)) == ()
    assert series.duplicates == 1


def test_a_late_state_of_the_open_candle_does_not_undo_a_newer_one(series: Series) -> None:
    series.accept(live(0, 3.0, at_ms=2000))
    assert series.accept(live(0, 2.5, at_ms=1000)) == ()
    assert series.late == 1


def test_a_closed_candle_that_changes_is_told_as_revised(series: Series) -> None:
    series.accept(live(0, is_closed=True, at_ms=1000))
    series.accept(live(1))
    assert outline(series.accept(live(0, 3.0, is_closed=True, at_ms=2000))) == ["0!r"]


def test_a_late_repeat_does_not_undo_a_revision(series: Series) -> None:
    series.accept(live(0, is_closed=True, at_ms=1000))
    series.accept(live(0, 3.0, is_closed=True, at_ms=2000))
    assert series.accept(live(0, is_closed=True, at_ms=1000)) == ()


def lifted(minute: int, *, at_ms: int | None = None) -> PriceUpdate:
    """Return a closed candle whose close came above its high."""
    return PriceUpdate(MINUTE, widened(candle(minute, 9.1)), is_closed=True, ts_event_ms=at_ms)


def test_a_candle_that_had_to_be_widened_revises_none_that_made_sense(series: Series) -> None:
    series.accept(live(0, is_closed=True, at_ms=1000))
    series.accept(live(1, at_ms=1500))
    assert series.accept(lifted(0, at_ms=2000)) == ()
    assert series.revise([lifted(0).candle], (), T + 200.0) == []
    assert series.closed[T] == candle(0)


def test_a_candle_that_had_to_be_widened_gives_way_to_one_that_made_sense_however_old(series: Series) -> None:
    assert outline(series.accept(lifted(0, at_ms=2000))) == ["0!"]
    assert outline(series.accept(live(0, is_closed=True, at_ms=1000))) == ["0!r"]
    assert series.accept(lifted(0, at_ms=3000)) == ()


def test_a_candle_that_waits_is_not_replaced_by_one_that_had_to_be_widened(series: Series) -> None:
    series.catch_up()
    for update in (live(0, is_closed=True, at_ms=1000), lifted(0, at_ms=2000)):
        series.accept(update)
    assert [update.candle for update in series.fill((), None)] == [candle(0)]


@pytest.mark.parametrize("comes_from_history", [False, True])
def test_a_repair_is_not_undone_by_a_candle_that_had_to_be_widened(comes_from_history: bool) -> None:
    series = Series(MINUTE, T + 30.0)
    gap = SeriesGap(T, T + 60)
    series.gaps.keep(gap)
    assert outline(series.repair(gap, [candle(0)])) == ["0!br"]
    told = series.learn([lifted(0).candle], None, T + 100.0) if comes_from_history else series.accept(lifted(0))
    assert list(told) == []
    assert series.closed[T] == candle(0)


def test_what_is_older_than_memory_is_not_told_again(series: Series) -> None:
    for minute in range(REMEMBERED + 10):
        series.accept(live(minute, is_closed=True))
    assert len(series.closed) == REMEMBERED
    assert series.accept(live(0, is_closed=True)) == ()
    assert series.judge([*series.unjudged.values()], {T: (candle(0), 0.0)}) == []


def test_what_is_older_than_memory_is_told_as_revised_once_it_is_known_to_be_another_one(series: Series) -> None:
    for minute in range(REMEMBERED + 10):
        series.accept(live(minute, is_closed=True))
    for minute in (0, 1, 2):
        assert series.accept(live(minute, 3.0, is_closed=True, at_ms=(T + 9000) * 1000)) == ()
    known = {T: (candle(0), T + 62.0), T + 60: (candle(1, 3.0), T + 122.0)}
    assert outline(series.judge([*series.unjudged.values()], known)) == ["0!r"]
    assert (series.unjudged, series.late, series.duplicates) == ({}, 1, 1)
    # From here on it is known, and older news undoes nothing.
    assert series.accept(live(0, 3.0, is_closed=True)) == ()
    assert series.accept(live(0, is_closed=True, at_ms=(T + 8000) * 1000)) == ()
    assert series.revise([candle(0, 3.0)], [], T + 9100.0) == []
    assert outline(series.accept(live(0, 4.0, is_closed=True, at_ms=(T + 9001) * 1000))) == ["0!r"]
    assert series.unjudged == {}


def test_what_was_said_before_a_known_candle_was_final_revises_nothing(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.accept(live(-5, 3.0, is_closed=True, at_ms=(T - 230) * 1000))
    known = {T - 300: (candle(-5), T - 200.0)}
    assert series.judge([*series.unjudged.values()], known) == []
    assert series.late == 1


def test_of_candles_that_come_again_in_any_number_the_memory_is_bounded(series: Series) -> None:
    known = {T + 60 * minute: (candle(minute), 0.0) for minute in range(-2000, 0)}
    for _ in range(3):
        for minute in range(-2000, 0):
            series.accept(live(minute, is_closed=True))
        assert len(series.unjudged) == MOST_HELD
        series.judge([*series.unjudged.values()], known)
    for minute in range(-2000, 0):
        series.accept(live(minute, is_closed=True))
    assert (len(series.unjudged), len(series._recalled)) == (MOST_HELD, RECALLED)


def test_what_waits_to_be_judged_is_forgotten_with_its_past(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    for minute in (-9, -2):
        series.accept(live(minute, 3.0, is_closed=True))
    series.invalidate(Span(T - 300, T))
    assert [*series.unjudged] == [T - 540]
    series.begin_anew(None)
    assert series.unjudged == {}


def test_giving_up_tells_a_gap_and_goes_on(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.accept(live(4, is_closed=True))
    assert outline(series.give_up()) == ["4!"]
    assert [minutes(gap) for gap in series.gaps.drain()] == [(1, 4)]
    assert series.gaps.drain() == []


def test_giving_up_leaves_an_open_candle_in_the_gap(series: Series) -> None:
    series.accept(live(2))
    series.give_up()
    assert [minutes(gap) for gap in series.gaps.drain()] == [(0, 2)]


def test_giving_up_changes_nothing_while_no_live_update_waits(series: Series) -> None:
    series.catch_up()
    assert series.give_up() == []
    assert series.is_catching_up
    assert series.gaps.drain() == []


def test_a_gap_is_repaired_with_revised_candles(series: Series) -> None:
    series.accept(live(2))
    series.give_up()
    assert outline(series.repair(series.gaps.left[0], [candle(0), candle(1)])) == ["0!br", "1!br"]
    assert series.gaps.left == []


def test_a_gap_is_repaired_once(series: Series) -> None:
    series.accept(live(2))
    series.give_up()
    gap = series.gaps.left[0]
    series.repair(gap, [candle(0)])
    assert series.repair(gap, [candle(0), candle(1)]) == []


def test_a_repair_in_part_leaves_the_rest_of_the_gap(series: Series) -> None:
    series.accept(live(3))
    series.give_up()
    series.repair(series.gaps.left[0], [candle(0)], T + 1)
    assert [minutes(gap) for gap in series.gaps.left] == [(1, 3)]


def test_a_late_closing_event_within_a_gap_is_not_repaired_again(series: Series) -> None:
    series.accept(live(2))
    series.give_up()
    assert outline(series.accept(live(1, is_closed=True))) == ["1!r"]
    assert outline(series.repair(series.gaps.left[0], [candle(0), candle(1)])) == ["0!br"]
    assert series.gaps.left == []


def test_the_candle_before_is_unknown_behind_a_gap(series: Series) -> None:
    first = live(0, is_closed=True)
    series.accept(first)
    second = live(1, is_closed=True)
    series.accept(second)
    assert series.told_before(second) == T
    fourth = live(3, is_closed=True)
    series.accept(fourth)
    series.give_up()
    assert series.told_before(fourth) is None


def test_the_candle_before_is_known_where_history_says_that_nothing_was_between(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    later = live(4, is_closed=True)
    series.accept(later)
    series.fill([], T + 240)
    assert series.told_before(later) == T


def test_memory_is_bounded_whatever_a_provider_sends(series: Series) -> None:
    series.catch_up()
    for minute in range(1, MOST_HELD + 200):
        series.accept(live(minute))
    for _ in range(MOST_HELD + 200):
        series.give_up()
    assert not series.is_catching_up
    assert len(series.gaps.left) == MOST
    assert len(series.gaps.drain()) == MOST_HELD


def test_months_and_weeks_follow_one_another_without_history() -> None:
    for interval, times in (("1M", MONTH_STARTS), ("1w", [STARTS["1w"] + n * 7 * DAY for n in range(6)])):
        key = StreamKey("X", interval)
        series = Series(key, times[0] + 5.0)
        for time in times:
            assert series.accept(PriceUpdate(key, Candle(time, 1.0, 1.0, 1.0, 1.0), True))


def test_three_day_candles_keep_the_phase_of_their_pair() -> None:
    key = StreamKey("X", "3d")
    for phase in range(3):
        start = STARTS["3d"] + phase * DAY
        series = Series(key, start + 5.0)
        for number in range(4):
            assert series.accept(PriceUpdate(key, Candle(start + number * 3 * DAY, 1.0, 1.0, 1.0, 1.0), True))


def test_the_end_of_the_newest_candle_is_when_something_is_due() -> None:
    series = Series(MINUTE, T + 30.0)
    assert series.due_at() is None
    series.accept(live(0))
    assert series.due_at() == T + 60
    series.accept(live(0, is_closed=True))
    assert series.due_at() == T + 120


def test_an_owed_closing_event_is_told_although_history_denied_it_before_anything_closed() -> None:
    series = Series(MINUTE, T + 30.0)
    series.accept(live(1))
    assert outline(series.fill([], T + 60)) == ["1"]
    assert outline(series.accept(live(0, is_closed=True))) == ["0!r"]


def test_of_states_that_wait_the_newest_and_most_final_is_told(series: Series) -> None:
    series.catch_up()
    for update in (live(0, 3.0, at_ms=2000), live(0, 2.5, at_ms=1000)):
        series.accept(update)
    assert [update.candle.close for update in series.fill((), None)] == [3.0]
    series.catch_up()
    for update in (live(0, 4.0, is_closed=True, at_ms=3000), live(0, 3.5, at_ms=4000)):
        series.accept(update)
    assert outline(series.fill((), None)) == ["0!"]


def test_an_answer_that_repeats_what_was_told_tells_nothing(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.catch_up()
    assert series.fill([candle(0)], None) == []


def test_a_candle_of_a_gap_told_to_one_client_is_told_whoever_brings_it() -> None:
    series = Series(MINUTE, promised_at=1000.0)
    series.owe(SeriesGap(0, 120))
    told = series.learn([Candle(time, 1.0, 1.0, 1.0, 1.0) for time in (0, 60, 120)], None, 180.0)
    assert [(update.candle.time, update.is_revised) for update in told] == [(0, True), (60, True)]


def test_a_candle_of_a_gap_that_is_older_than_the_stream_is_told_and_not_answered_for() -> None:
    series = Series(MINUTE, promised_at=1000.0)
    for time in (960, 1020):
        series.accept(PriceUpdate(MINUTE, Candle(time, 1.0, 1.0, 1.0, 1.0), is_closed=True))
    series.owe(SeriesGap(0, 120))
    late = PriceUpdate(MINUTE, Candle(0, 1.0, 1.0, 1.0, 1.0), is_closed=True)
    assert series.accept(late) == (late._replace(is_revised=True),)
    assert series.gaps.left == [SeriesGap(60, 120)]
    # Else a snapshot would take it that nothing is missing between the two.
    assert next(iter(series.closed)) == 960


def test_a_row_that_cannot_be_read_right_before_what_is_owed_is_not_taken_not_to_be_there() -> None:
    series = Series(MINUTE, promised_at=1000.0)
    candles = [Candle(time, 1.0, 1.0, 1.0, 1.0) for time in (780, 840, 960, 1020)]
    first, second = series.learn(candles, None, 1090.0, lost=[(600, 660), (900, 960)])
    assert (series.told_before(first), series.told_before(second)) == (None, 960)
    # Nobody is told of it, but it is repaired.
    assert (series.gaps.drain(), series.gaps.left) == ([], [SeriesGap(900, 960)])


def test_what_history_says_later_of_a_closed_candle_is_told_as_revised(series: Series) -> None:
    for minute in range(3):
        series.accept(live(minute, is_closed=True, at_ms=60_000 * (minute + 1)))
    told = series.revise([candle(1, close=2.5)], [], 600.0)
    assert told == [PriceUpdate(MINUTE, candle(1, close=2.5), is_closed=True, is_revised=True)]
    assert series.closed[candle(1).time] == candle(1, close=2.5)
    assert (series.revised, series.revise([candle(1, close=2.5)], [], 700.0)) == (1, [])


def test_what_a_feed_said_after_history_was_asked_stands(series: Series) -> None:
    series.accept(live(0, is_closed=True, at_ms=60_000))
    series.accept(live(1))
    series.accept(live(0, close=2.2, is_closed=True, at_ms=500_000))
    assert series.revise([candle(0, close=2.5)], [], 400.0) == []
    assert series.closed[candle(0).time] == candle(0, close=2.2)


def test_a_revision_of_a_candle_that_is_forgotten_is_told(series: Series) -> None:
    for minute in range(REMEMBERED + 10):
        series.accept(live(minute, is_closed=True))
    assert outline(series.revise([candle(2, close=2.5)], [], 1e9)) == outline(
        [live(2, is_closed=True)._replace(is_revised=True)]
    )
    assert len(series.closed) == REMEMBERED


def test_a_candle_found_later_is_told_where_it_was_promised(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.catch_up()
    series.fill([candle(2)], candle(3).time)
    series.accept(live(3))
    before = candle(0)._replace(time=candle(0).time - 6000)
    told = series.revise([], [before, candle(1)], 1e9)
    assert told == [PriceUpdate(MINUTE, candle(1), is_closed=True, is_backfilled=True, is_revised=True)]
    assert series.late == 0


def test_history_revises_what_was_over_before_a_stream_that_has_told_nothing() -> None:
    series = Series(MINUTE, T + 30.0)
    assert outline(series.revise([candle(-5, 3.0), candle(0, 3.0)], [], T + 40.0)) == ["-5!r"]


def test_a_candle_that_was_given_before_the_stream_told_anything_is_told_by_it_only_as_revised() -> None:
    series = Series(MINUTE, T + 30.0)
    series.given_to = T - 60
    assert series.accept(live(-1, is_closed=True)) == ()
    known = {T - 60: (candle(-1), 0.0)}
    assert series.judge([*series.unjudged.values()], known) == []
    assert outline(series.accept(live(-1, 3.0, is_closed=True))) == ["-1!r"]
    # What others are owed is told to them.
    series.given_to = T
    assert outline(series.accept(live(0, is_closed=True))) == ["0!"]


def test_of_what_is_not_told_yet_history_revises_nothing(series: Series) -> None:
    assert series.revise([candle(0)], [], 1e9) == []
    series.accept(live(0))
    assert series.revise([candle(0, close=2.5)], [candle(1)], 1e9) == []
    assert series.last == candle(0)


def test_a_candle_that_cannot_be_read_is_a_gap_and_costs_no_other(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.catch_up()
    series.accept(live(4))
    lost = (candle(2).time, candle(3).time)
    told = series.fill([candle(1), candle(3)], candle(4).time, lost=[lost])
    assert [update.candle for update in told] == [candle(1), candle(3), candle(4)]
    assert series.gaps.drain() == [SeriesGap(*lost)]
    assert not series.is_catching_up


def test_a_repair_without_the_candle_that_cannot_be_read_keeps_its_gap_behind_the_others(series: Series) -> None:
    series.accept(live(0, is_closed=True))
    series.accept(live(4))
    series.give_up()
    (gap,) = series.gaps.drain()
    lost = (candle(2).time, candle(3).time)
    told = series.repair(gap, [candle(1), candle(3)], lost=[lost])
    assert [update.candle for update in told] == [candle(1), candle(3)]
    assert series.gaps.left == [SeriesGap(*lost)]
    assert series.gaps.drain() == []
    assert [update.candle for update in series.repair(SeriesGap(*lost), [candle(2)])] == [candle(2)]
    assert series.gaps.left == []


def test_what_was_told_as_a_gap_at_a_join_and_opens_after_the_newest_candle_is_no_repair() -> None:
    def minute(number: int) -> Candle:
        return Candle(STARTS["1m"] + 60 * number, 1.0, 1.0, 1.0, 1.0)

    series = Series(MINUTE, float(STARTS["1m"]))
    for number in (0, 1):
        series.accept(PriceUpdate(MINUTE, minute(number), is_closed=True))
    series.catch_up()
    series.owe(SeriesGap(minute(-3).time, minute(5).time))
    assert series.gaps.left == [SeriesGap(minute(-3).time, minute(2).time)]
    series.missing()
    series.fill([minute(2), minute(4)], None)
    series.pass_gaps()
    assert series.gaps.left == [SeriesGap(minute(-3).time, minute(2).time), SeriesGap(minute(3).time, minute(4).time)]
    fresh = Series(MINUTE, float(STARTS["1m"] + 90))
    fresh.owe(SeriesGap(minute(-3).time, minute(5).time))
    assert fresh.gaps.left == [SeriesGap(minute(-3).time, STARTS["1m"] + 31)]


def repaired_before_it_began() -> tuple[Series, Callable[..., PriceUpdate]]:
    """A stream that was wanted at minute 5 and has told nothing; of a gap of a join 0 to 3 were repaired, 2 was not."""

    def closing(number: int, price: float = 1.0) -> PriceUpdate:
        return PriceUpdate(MINUTE, Candle(STARTS["1m"] + 60 * number, price, price, price, price), is_closed=True)

    series = Series(MINUTE, float(STARTS["1m"] + 5 * 60 + 30))
    series.owe(SeriesGap(closing(0).candle.time, closing(4).candle.time))
    told = series.repair(series.gaps.left[0], [closing(number).candle for number in (0, 1, 3)])
    assert [update.is_revised for update in told] == [True, True, True]
    return series, closing


def test_a_stream_that_comes_to_what_a_repair_told_does_not_tell_it_again() -> None:
    """A polled stream goes on where its polls ended, before the moment at which it was wanted anew."""
    series, closing = repaired_before_it_began()
    told = [update for number in range(7) for update in series.accept(closing(number))]
    assert [(update.candle, update.is_revised) for update in told] == [
        (closing(number).candle, False) for number in (2, 4, 5, 6)
    ]


def test_a_stream_behind_a_gap_that_a_join_left_tells_it_once_when_it_was_repaired() -> None:
    """The gap lay in the past when it was told; then history told the stream of the candle before."""
    series = Series(MINUTE, T + 61.0)
    series.owe(SeriesGap(T, T + 60))
    assert list(series.learn([candle(-1)], None, T + 70.0)) == []
    gap = series.gaps.left[0]
    assert outline(series.repair(gap, [candle(0)])) == ["0!br"]
    # Whoever joins now is given it with the snapshot: it does not come any more.
    assert not series.is_to_come(T)
    assert series.closed[T] == candle(0)
    assert [*series.accept(live(0, is_closed=True))] == []
    assert outline(series.accept(live(1, is_closed=True))) == ["1!"]


def test_a_stream_that_comes_to_other_values_than_a_repair_told_revises_them() -> None:
    series, closing = repaired_before_it_began()
    assert series.accept(closing(0)._replace(is_closed=False)) == ()
    (told,) = series.accept(closing(0, 2.0))
    assert told.is_revised


def test_history_does_not_tell_again_what_a_repair_told_before_the_stream_came_to_it() -> None:
    series, closing = repaired_before_it_began()
    assert [update.candle for update in series.accept(closing(2))] == [closing(2).candle]
    assert series.accept(closing(6)) == ()
    told = series.fill([closing(number).candle for number in (3, 4, 5)], closing(6).candle.time)
    assert [update.candle for update in told] == [closing(number).candle for number in (4, 5, 6)]


# -- what candles carry beside prices and volume -------------------------------------------------------------------


def full(time: int, trades: int | None = 3, close: float = 1.0) -> Candle:
    return ExtendedCandle(time, 1.0, 9.0, 0.5, close, 1.0, quote_volume=2.0, trades=trades)


def bare(time: int, close: float = 1.0) -> Candle:
    return Candle(time, 1.0, 9.0, 0.5, close, 1.0)


def closed_update(candle: Candle, event_ms: int = 0) -> PriceUpdate:
    return PriceUpdate(MINUTE, candle, True, event_ms or None)


def test_other_extras_of_a_closed_candle_are_a_revision_of_those_only() -> None:
    series = Series(MINUTE, None)
    series.accept(closed_update(full(60)))
    (told,) = series.accept(closed_update(full(60, trades=4)))
    assert (told.is_revised, told.is_of_extras, told.candle.trades) == (True, True, 4)
    (told,) = series.accept(closed_update(full(60, trades=5, close=2.0)))
    assert (told.is_revised, told.is_of_extras) == (True, False)
    assert series.accept(closed_update(full(60, trades=5, close=2.0))) == ()


@pytest.mark.parametrize(("first", "second"), [(full(60), bare(60)), (bare(60), full(60))])
def test_that_extras_are_known_or_not_is_no_revision_and_they_stay(first: Candle, second: Candle) -> None:
    series = Series(MINUTE, None)
    series.accept(closed_update(first))
    assert series.accept(closed_update(second)) == ()
    assert series.closed[60].trades == 3
    assert series.duplicates == 1


def test_an_open_candle_of_which_only_extras_changed_is_told() -> None:
    series = Series(MINUTE, None)
    series.accept(PriceUpdate(MINUTE, full(60)))
    assert series.accept(PriceUpdate(MINUTE, full(60))) == ()
    assert len(series.accept(PriceUpdate(MINUTE, full(60, trades=4)))) == 1


def test_history_can_revise_extras_alone_and_fill_in_those_that_were_not_known() -> None:
    series = Series(MINUTE, None)
    for candle in (full(60), bare(120)):
        series.accept(closed_update(candle))
    series.learn_extras([full(60, trades=9), full(120), full(180), full(120, close=2.0)])
    assert [candle.trades for candle in series.closed.values()] == [3, 3]
    assert series.last is not None
    assert series.last.trades == 3
    (told,) = series.revise((), (), 500.0, [full(60, trades=4), full(120), full(180)])
    assert (told.candle.time, told.candle.trades, told.is_revised, told.is_of_extras) == (60, 4, True, True)
    assert not series.is_repeat(closed_update(full(60)))
    assert series.is_repeat(closed_update(bare(60)))
