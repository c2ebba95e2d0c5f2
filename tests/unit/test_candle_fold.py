"""A stream of longer candles made of what one of shorter candles tells: in order, each once, and nothing made up."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.periods import Periods
from relay.core.trading_calendar import TradingCalendar
from relay.streams.candle_fold import CandleFold
from relay.streams.gaps import SeriesGap
from relay.streams.series import Series

KEY, BASE = StreamKey("X", "5m"), StreamKey("X", "1m")
START = 1_764_000_000
M = 60


def part(minute: int, close: float = 1.0, volume: float = 1.0) -> Candle:
    return Candle(START + M * minute, 1.0, max(1.0, close), min(1.0, close), close, volume)


def update(minute: int, close: float = 1.0, volume: float = 1.0, **marks: bool) -> PriceUpdate:
    return PriceUpdate(BASE, part(minute, close, volume), **marks)


def fold_since(minute: int) -> CandleFold:
    return CandleFold(KEY, Periods("5m", "1m", is_utc_grid=True), lambda: START + M * minute)


def told(updates: list[PriceUpdate]) -> list[tuple[int, float, float, bool]]:
    return [((one.candle.time - START) // M, one.candle.close, one.candle.volume, one.is_closed) for one in updates]


def test_it_closes_with_its_last_part_and_not_before() -> None:
    fold = fold_since(0)
    for minute in range(4):
        assert told(fold.take(update(minute, 2.0, is_closed=True))) == [(0, 2.0, minute + 1.0, False)]
    assert told(fold.take(update(4, 3.0, 0.5))) == [(0, 3.0, 4.5, False)]
    assert told(fold.take(update(4, 4.0, 0.75, is_closed=True))) == [(0, 4.0, 4.75, True)]
    assert told(fold.take(update(5, 5.0))) == [(5, 5.0, 1.0, False)]


def test_where_the_last_part_is_not_there_it_closes_before_the_next_one_begins() -> None:
    fold = fold_since(0)
    fold.take(update(1, is_closed=True))
    assert told(fold.take(update(7))) == [(0, 1.0, 1.0, True), (5, 1.0, 1.0, False)]


def test_a_period_that_had_begun_is_told_once_its_beginning_is_known() -> None:
    fold = fold_since(2)
    assert fold.take(update(2)) == []
    assert fold.take(update(2, 3.0, is_closed=True)) == []
    # History is as old as its question: what was told meanwhile stands.
    assert told(fold.complete([part(0), part(1), part(2, 9.0)], None)) == [(0, 3.0, 3.0, False)]
    assert fold.lacking is None


def test_one_that_ends_before_its_beginning_is_known_is_not_told() -> None:
    fold = fold_since(2)
    for minute in (2, 3, 4):
        assert fold.take(update(minute, is_closed=True)) == []
    assert told(fold.take(update(5))) == [(5, 1.0, 1.0, False)]
    assert fold.complete([part(0)], None) == []


def test_after_a_gap_it_is_lacking_until_history_has_all_of_it() -> None:
    fold = fold_since(0)
    fold.take(update(0, is_closed=True))
    fold.lose(SeriesGap(START + M, START + 2 * M))
    assert fold.take(update(2, is_closed=True)) == []
    assert told(fold.complete([part(0), part(1, 2.0), part(2)], None)) == [(0, 1.0, 3.0, False)]


def test_a_gap_that_was_told_before_its_period_counts_too() -> None:
    fold = fold_since(0)
    fold.take(update(4, is_closed=True))
    fold.lose(SeriesGap(START + 4 * M, START + 6 * M))
    assert fold.take(update(6)) == []
    assert fold.lacking is not None
    assert told(fold.take(update(10))) == [(10, 1.0, 1.0, False)]


def test_a_revised_part_of_the_open_period_is_asked_for_with_the_others() -> None:
    fold = fold_since(0)
    fold.take(update(0, is_closed=True))
    fold.take(update(1, is_closed=True))
    assert fold.take(update(0, 5.0, 7.0, is_closed=True, is_revised=True)) == []
    assert told(fold.complete([part(0), part(1)], None)) == [(0, 1.0, 8.0, False)]


def test_a_revised_part_of_a_period_that_is_over_is_noted_once() -> None:
    fold = fold_since(0)
    for minute in range(5):
        fold.take(update(minute, is_closed=True))
    assert fold.take(update(3, 5.0, is_closed=True, is_revised=True)) == []
    assert fold.take(update(3, 6.0, is_closed=True, is_revised=True)) == []
    assert [*fold.revised] == [START]


def test_an_older_state_of_the_open_part_changes_nothing() -> None:
    fold = fold_since(0)
    fold.take(update(1, is_closed=True))
    assert fold.take(update(1, 9.0)) == []
    assert fold.take(update(0, 9.0)) == []


def test_a_past_that_is_another_one_is_asked_for_anew() -> None:
    fold = fold_since(0)
    fold.take(update(0, is_closed=True))
    fold.begin_anew()
    assert fold.take(update(1)) == []
    assert told(fold.complete([part(0, 7.0)], None)) == [(0, 1.0, 2.0, False)]


def test_it_says_that_nothing_is_missing_between_two_periods_unless_a_gap_is() -> None:
    fold = fold_since(0)
    follows = []
    for minute in (1, 11, 21):
        fold.take(update(minute, is_closed=True))
        follows.append(fold.follows)
        if minute == 11:
            fold.lose(SeriesGap(START + 16 * M, START + 17 * M))
    assert follows == [None, START, None]


def test_the_first_part_of_a_recording_may_not_be_the_first_of_its_period() -> None:
    fold = CandleFold(KEY, Periods("5m", "1m", is_utc_grid=True), lambda: START, is_recorded=True)
    assert fold.take(update(2)) == []
    lacking = fold.lacking
    assert lacking == (START, START + 5 * M)
    fold.leave_out()
    for minute in (2, 3, 4):
        assert fold.take(update(minute, is_closed=True)) == []
    assert fold.take(update(3, 7.0, is_closed=True, is_revised=True)) == []
    assert (fold.lacking, fold.revised) == (None, {})
    assert told(fold.take(update(6))) == [(5, 1.0, 1.0, False)]
    whole = CandleFold(KEY, Periods("5m", "1m", is_utc_grid=True), lambda: START, is_recorded=True)
    assert told(whole.take(update(0))) == [(0, 1.0, 1.0, False)]


# -- any play ---------------------------------------------------------------------------------------------------------


class Event(NamedTuple):
    """What happens next: a part opens, changes, closes, is passed over, lost and told as a gap, revised, or fetched."""

    kind: str
    number: int = 0


EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(["close", "close", "close", "change", "pass", "gap", "repair", "revise", "ask", "ask"]),
        st.integers(0, 30),
    ),
    max_size=80,
)


@given(st.integers(0, 12), EVENTS)
def test_any_play_of_parts_is_one_sequence_of_their_sums(since: int, events: list[Event]) -> None:
    """Its series closes what the fold could not, from history, as a supervisor does."""
    truth: dict[int, Candle] = {minute: part(minute, 1.0, minute + 1.0) for minute in range(since)}
    lost: dict[int, Candle] = {}
    touched: set[int] = set()
    fold, series = fold_since(since), Series(KEY, float(START + M * since))
    seen: list[PriceUpdate] = []
    closed: dict[int, Candle] = {}

    def whole(opened: int) -> Candle | None:
        inside = [truth[one] for one in sorted(truth) if opened <= one < opened + 5]
        if not inside or any(opened <= one < opened + 5 for one in lost):
            return None
        return Candle(
            START + M * opened,
            inside[0].open,
            max(one.high for one in inside),
            min(one.low for one in inside),
            inside[-1].close,
            sum(one.volume for one in inside),
        )

    def tell(updates: list[PriceUpdate]) -> None:
        for one in updates:
            if one.is_closed and series.last is None and series.is_settled(one.candle.time):
                continue
            heard = [*series.accept(one)]
            if series.is_catching_up and (missing := series.missing()) is not None:
                until = START + M * (minute // 5 * 5) if missing.end is None else missing.end
                times = range((missing.start - START) // M // 5 * 5, (until - START) // M, 5)
                found = [whole(opened) for opened in times]
                gone = [(START + M * at, START + M * (at + 5)) for at, one in zip(times, found, strict=True)
                        if one is None and any(at <= other < at + 5 for other in lost)]  # fmt: skip
                known = [one for one in found if one is not None and one.time >= missing.start]
                heard += series.fill(known, until, None, gone)
            seen.extend(heard)
            for other in heard:
                if other.is_closed:
                    closed[other.candle.time] = other.candle

    minute = since
    for event in events:
        candle = part(minute, 1.0 + event.number, event.number / 4)
        if event.kind == "change":
            tell(fold.take(PriceUpdate(BASE, candle)))
        elif event.kind == "close":
            truth[minute] = candle
            tell(fold.take(PriceUpdate(BASE, candle, is_closed=True)))
            minute += 1
        elif event.kind == "pass":
            minute += 1 + event.number % 7
        elif event.kind == "gap":
            lost[minute] = candle
            touched.add(minute)
            fold.lose(SeriesGap(START + M * minute, START + M * (minute + 1)))
            minute += 1
        elif event.kind in ("repair", "revise"):
            from_where = lost if event.kind == "repair" else truth
            owed = [one for one in sorted(from_where) if one >= since]
            if owed:
                which = owed[event.number % len(owed)]
                truth[which] = lost.pop(which) if event.kind == "repair" else part(which, 3.0, event.number)
                tell(fold.take(PriceUpdate(BASE, truth[which], is_closed=True, is_revised=True)))
        elif fold.lacking is not None:
            opened = (fold.lacking.opens - START) // M
            if not any(opened <= one < opened + 5 for one in lost):
                tell(fold.complete([truth[one] for one in sorted(truth)], None))
        changed = [one for time in [*fold.revised] if (one := whole((time - START) // M)) is not None]
        fold.revised.clear()
        for revised in series.revise([one for one in changed if one.time in series.closed], (), 0.0):
            closed[revised.candle.time] = revised.candle
    ordinary = [one.candle.time for one in seen if not one.is_revised]
    assert ordinary == sorted(ordinary)
    finals = [one.candle.time for one in seen if one.is_closed and not one.is_revised]
    assert len(finals) == len({*finals})
    # What is over before the newest one, was traded and was never lost, was told.
    newest = 0 if series.last is None else (series.last.time - START) // M
    owed = [one for one in range((since + 4) // 5 * 5, newest, 5) if whole(one) is not None]
    assert [one for one in owed if START + M * one not in closed and not touched & {*range(one, one + 5)}] == []
    gaps = {gap.start for gap in series.gaps.left}
    for time, candle in closed.items():
        opened = (time - START) // M
        if time not in gaps and (expected := whole(opened)) is not None and opened + 5 <= minute:
            assert candle == expected


def test_what_is_traded_outside_the_hours_of_a_day_ends_it_and_is_not_in_it() -> None:
    days = Periods("1d", "1m", calendar=TradingCalendar("UTC", "1602-1606"))
    fold = CandleFold(StreamKey("X", "1d"), days, lambda: START)
    assert fold.take(update(1, 9.0, is_closed=True)) == []
    assert told(fold.take(update(2, 2.0))) == [(2, 2.0, 1.0, False)]
    assert told(fold.take(update(2, 2.0, is_closed=True))) == [(2, 2.0, 1.0, False)]
    # Nothing is traded in its last minutes.
    assert told(fold.take(update(7, 9.0))) == [(2, 2.0, 1.0, True)]
    assert fold.take(update(7, 9.0, is_closed=True)) == []
    assert told(fold.take(update(1442, 3.0))) == [(1442, 3.0, 1.0, False)]
    assert fold.follows == START + 2 * M
