from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.candle_builder import MOST_SILENT, Built, CandleBuilder, enlarge
from relay.core.model import Candle, is_widened, widened
from tests.support.moments import at
from tests.support.ticks import DATA, candles_by_builder, candles_by_sql, read_candles, read_ticks
from tests.unit.test_intervals import new_york_day

START = at("2026-01-14 12:00:00")
GRACE_S = 2.0


class Tick(NamedTuple):
    """A tick; `arrives` is when it comes in."""

    moment: float
    price: float
    volume: float
    arrives: float


def beginning(moment: float, interval: str) -> int:
    """Cut a moment to its interval with the calendar, not with arithmetic on seconds."""
    time = datetime.fromtimestamp(moment, UTC).replace(microsecond=0)
    midnight = datetime.combine(time.date(), datetime.min.time(), UTC)
    count, unit = int(interval[:-1]), interval[-1]
    cut = {
        "s": lambda: time.replace(second=time.second - time.second % count),
        "m": lambda: time.replace(second=0, minute=time.minute - time.minute % count),
        "h": lambda: time.replace(second=0, minute=0, hour=time.hour - time.hour % count),
        "d": lambda: midnight,
        "w": lambda: midnight - timedelta(days=time.weekday()),
        "M": lambda: midnight.replace(day=1),
    }[unit]()
    return int(cut.timestamp())


def by_hand(ticks: Sequence[Tick], interval: str) -> list[Candle]:
    """Candles of ticks in order of arrival: those of one candle put into a heap, sorted, and looked at."""
    heaps: dict[int, list[Tick]] = {}
    for tick in ticks:
        heaps.setdefault(beginning(tick.moment, interval), []).append(tick)
    candles = []
    for opened, heap in sorted(heaps.items()):
        moments = [tick.moment for tick in heap]
        prices = [tick.price for tick in heap]
        first = prices[moments.index(min(moments))]
        last = prices[len(moments) - 1 - moments[::-1].index(max(moments))]
        volume = sum(Fraction(repr(tick.volume)) for tick in heap)
        candles.append(Candle(opened, first, max(prices), min(prices), last, float(volume)))
    return candles


def run(builder: CandleBuilder, ticks: Sequence[Tick]) -> list[Built]:
    """Feed ticks in order of arrival, then let all grace pass."""
    told: list[Built] = []
    for tick in ticks:
        told += builder.add(tick.moment, tick.price, tick.volume, now=tick.arrives)
    return told + builder.advance(max((tick.arrives for tick in ticks), default=0) + 40 * 86_400)


def closed(told: Sequence[Built]) -> list[Candle]:
    return [built.candle for built in told if built.is_closed]


def ticks_within(seconds: int, longest_delay_s: float) -> st.SearchStrategy[list[Tick]]:
    """Ticks in order of arrival, stamped in halves of a second, many at the same moment."""
    tick = st.builds(
        lambda moment, price, volume, delay: Tick(
            START + moment / 2, float(Decimal(price) / 100), float(Decimal(volume) / 10**8), START + moment / 2 + delay
        ),
        st.integers(0, 2 * seconds),
        st.integers(-(10**4), 10**5),
        st.integers(0, 10**12),
        st.floats(0, longest_delay_s, exclude_max=True),
    )
    return st.lists(tick, max_size=60).map(lambda ticks: sorted(ticks, key=lambda one: one.arrives))


# ---- from ticks -------------------------------------------------------------------------------------------------


@given(ticks_within(600, GRACE_S), st.sampled_from(["1s", "1m", "3m", "5m", "1h", "1d", "1w", "1M"]))
def test_ticks_that_come_within_the_grace_make_the_candles_that_their_stamps_say(
    ticks: list[Tick], interval: str
) -> None:
    builder = CandleBuilder(interval, 0, grace_s=GRACE_S)
    assert closed(run(builder, ticks)) == by_hand(ticks, interval)
    assert builder.late == 0


@given(ticks_within(600, 200.0), st.sampled_from(["1s", "1m", "5m"]), st.booleans(), st.integers(0, 600))
def test_what_is_told_is_in_order_on_the_grid_and_final_when_closed(
    ticks: list[Tick], interval: str, flat: bool, since: int
) -> None:
    told = run(CandleBuilder(interval, START + since, grace_s=GRACE_S, flat=flat), ticks)
    times = [built.candle.time for built in told]
    assert times == sorted(times)
    finished = [time for time, built in zip(times, told, strict=True) if built.is_closed]
    assert len(set(finished)) == len(finished)
    assert set(finished) == set(times)
    for before, after in pairwise(told):
        # Open candles come before their closing, and the next candle only behind it.
        assert before.is_closed == (after.candle.time > before.candle.time)
    for built in told:
        assert built.candle.fault() is None
        assert beginning(built.candle.time, interval) == built.candle.time
        assert built.is_whole == (built.candle.time >= START + since)


@given(ticks_within(600, 200.0))
def test_every_tick_is_in_a_candle_or_counted_as_late(ticks: list[Tick]) -> None:
    builder = CandleBuilder("1m", 0, grace_s=GRACE_S)
    told: list[Built] = []
    used = []
    for tick in ticks:
        before = builder.late
        told += builder.add(tick.moment, tick.price, tick.volume, now=tick.arrives)
        if builder.late == before:
            used.append(tick)
    told += builder.advance(START + 86_400)
    assert closed(told) == by_hand(used, "1m")
    assert builder.late == len(ticks) - len(used)


@given(ticks_within(600, GRACE_S), st.lists(st.floats(START, START + 700), max_size=20))
def test_looking_at_the_clock_in_between_changes_nothing(ticks: list[Tick], looks: list[float]) -> None:
    builder = CandleBuilder("1m", 0, grace_s=GRACE_S)
    told: list[Built] = []
    events: list[tuple[float, Tick | None]] = [(tick.arrives, tick) for tick in ticks]
    for now, tick in sorted(events + [(look, None) for look in looks], key=lambda event: event[0]):
        if tick is None:
            told += builder.advance(now)
        else:
            told += builder.add(tick.moment, tick.price, tick.volume, now=now)
    told += builder.advance(START + 86_400)
    assert closed(told) == by_hand(ticks, "1m")


@given(ticks_within(600, GRACE_S))
def test_waking_only_when_something_is_due_misses_nothing(ticks: list[Tick]) -> None:
    builder = CandleBuilder("1m", 0, grace_s=GRACE_S)
    told: list[Built] = []
    for tick in ticks:
        while (due := builder.due_at()) is not None and due <= tick.arrives:
            news = builder.advance(due)
            assert news
            told += news
        assert builder.advance(tick.arrives) == []
        told += builder.add(tick.moment, tick.price, tick.volume, now=tick.arrives)
    while (due := builder.due_at()) is not None:
        news = builder.advance(due)
        assert news
        told += news
    assert closed(told) == by_hand(ticks, "1m")


def minute(number: float) -> float:
    return START + 60 * number


def values(told: Sequence[Built]) -> list[tuple[int, float, float, float, float, bool]]:
    """Minute, open, high, low, close, closed."""
    return [((candle.time - START) // 60, *candle[1:5], is_closed) for candle, is_closed, *_ in told]


def test_a_candle_grows_closes_after_the_grace_and_makes_way_for_the_next() -> None:
    builder = CandleBuilder("1m", START, grace_s=GRACE_S)
    assert values(builder.add(START, 5, now=START)) == [(0, 5, 5, 5, 5, False)]
    assert values(builder.add(START + 10, 7, now=START + 10)) == [(0, 5, 7, 5, 7, False)]
    assert values(builder.add(START + 20, 4, now=START + 20)) == [(0, 5, 7, 4, 4, False)]
    assert builder.due_at() == START + 62
    assert builder.advance(START + 61.9) == []
    assert builder.add(START + 61, 6, now=START + 61.9) == []
    assert values(builder.advance(START + 62)) == [(0, 5, 7, 4, 4, True), (1, 6, 6, 6, 6, False)]
    assert values(builder.add(START + 63, 8, now=START + 63)) == [(1, 6, 8, 6, 8, False)]


def test_a_state_that_had_to_be_widened_is_not_built_upon() -> None:
    builder = CandleBuilder("1m", START + 30, grace_s=GRACE_S)
    builder.add(START + 40, 5, now=START + 40)
    odd = widened(Candle(START, 4.0, 5.0, 4.0, 5.1))
    assert builder.complete(odd, START + 45, now=START + 45) == []
    good = Candle(START, 4.0, 5.0, 4.0, 5.0)
    assert values(builder.complete(good, START + 47, now=START + 47)) == [(0, 4, 5, 4, 5, False)]


def test_a_larger_candle_has_a_range_that_may_be_an_error_if_a_smaller_one_has() -> None:
    odd, good = widened(Candle(START, 4.0, 5.0, 4.0, 5.1)), Candle(START + 60, 4.0, 5.0, 4.0, 5.0)
    (larger,) = enlarge([odd, good], "1h", opens=lambda moment: START)
    assert (larger.high, is_widened(larger)) == (5.1, True)
    (larger,) = enlarge([good], "1h", opens=lambda moment: START)
    assert not is_widened(larger)


def test_a_late_tick_within_the_grace_counts_and_one_after_it_does_not() -> None:
    builder = CandleBuilder("1m", START, grace_s=GRACE_S)
    builder.add(START + 10, 5, now=START + 10)
    builder.add(START + 60, 6, now=START + 60)
    assert values(builder.add(START + 59, 9, now=START + 61)) == [(0, 5, 9, 5, 9, False)]
    assert values(builder.add(START + 5, 3, now=START + 61.5)) == [(0, 3, 9, 3, 9, False)]
    assert values(builder.advance(START + 62)) == [(0, 3, 9, 3, 9, True), (1, 6, 6, 6, 6, False)]
    assert builder.add(START + 58, 99, now=START + 62.5) == []
    assert builder.late == 1


def test_of_ticks_with_the_same_stamp_the_last_to_arrive_is_the_close() -> None:
    builder = CandleBuilder("1m", START)
    for price in (5, 9, 7):
        told = builder.add(START + 10, price, now=START + 11)
    assert values(told) == [(0, 5, 9, 5, 7, False)]


def test_a_first_tick_waits_while_ticks_of_the_silent_minute_before_may_come() -> None:
    builder = CandleBuilder("1m", START, grace_s=GRACE_S)
    builder.add(START, 5, now=START)
    builder.advance(START + 62)
    assert builder.add(START + 120, 6, now=START + 120.5) == []
    assert builder.due_at() == START + 122
    assert values(builder.add(START + 119, 7, now=START + 121)) == [(1, 7, 7, 7, 7, False)]
    assert values(builder.advance(START + 122)) == [(1, 7, 7, 7, 7, True), (2, 6, 6, 6, 6, False)]


def test_a_tick_of_a_minute_that_was_passed_over_is_late() -> None:
    builder = CandleBuilder("1m", START, grace_s=GRACE_S)
    builder.add(START, 5, now=START)
    assert values(builder.add(START + 120, 6, now=START + 123))[-1] == (2, 6, 6, 6, 6, False)
    assert builder.add(START + 90, 7, now=START + 124) == []
    assert builder.late == 1


def test_a_minute_without_ticks_has_no_candle() -> None:
    builder = CandleBuilder("1m", START)
    told = builder.add(START, 5, now=START) + builder.add(minute(3), 6, now=minute(3.5))
    assert [row[0] for row in values(told) if row[-1]] == [0]
    assert values(told)[-1] == (3, 6, 6, 6, 6, False)


def test_flat_candles_stand_for_minutes_without_ticks() -> None:
    builder = CandleBuilder("1m", START, flat=True)
    builder.add(START, 5, now=START)
    builder.add(START + 30, 4, now=START + 30)
    told = builder.add(minute(3), 6, now=minute(3.5))
    assert values(told) == [(0, 5, 5, 4, 4, True), (1, 4, 4, 4, 4, True), (2, 4, 4, 4, 4, True), (3, 6, 6, 6, 6, False)]
    assert values(builder.advance(minute(5) + 1)) == [(3, 6, 6, 6, 6, True), (4, 6, 6, 6, 6, True)]


def test_flat_candles_are_not_made_of_minutes_whose_ticks_were_missed() -> None:
    builder = CandleBuilder("1m", START, flat=True)
    builder.add(START, 5, now=START)
    builder.resume(minute(2.5))
    told = builder.add(minute(4), 6, now=minute(4.5))
    assert [(row[0], row[-1]) for row in values(told)] == [(0, True), (4, False)]
    assert [(row[0], row[-1]) for row in values(builder.advance(minute(6.5)))] == [(4, True), (5, True)]


def test_after_a_very_long_silence_flat_candles_end() -> None:
    builder = CandleBuilder("1m", START, flat=True)
    builder.add(START, 5, now=START)
    told = builder.advance(minute(10 * MOST_SILENT))
    assert len(told) == 1 + MOST_SILENT
    assert builder.due_at() is None


def open_in_first_ten_minutes(moment: int) -> bool:
    return (moment - START) % 3600 < 600


@pytest.mark.parametrize("flat", [False, True])
def test_outside_the_session_there_are_no_candles(flat: bool) -> None:
    builder = CandleBuilder("1m", START, flat=flat, is_open=open_in_first_ten_minutes)
    told = builder.add(minute(9.5), 5, now=minute(9.5))
    told += builder.add(minute(10), 6, now=minute(10))
    told += builder.add(minute(30), 7, now=minute(30))
    told += builder.add(minute(60), 8, now=minute(60) + 2)
    assert [(row[0], row[4], row[-1]) for row in values(told)] == [(9, 5, False), (9, 5, True), (60, 8, False)]
    assert builder.outside == 2


def test_an_hour_that_holds_the_end_of_the_session_takes_only_its_ticks() -> None:
    builder = CandleBuilder("1h", START, is_open=open_in_first_ten_minutes)
    builder.add(minute(9), 5, now=minute(9))
    builder.add(minute(11), 99, now=minute(11))
    assert closed(builder.advance(minute(61))) == [Candle(START, 5, 5, 5, 5)]


def test_a_first_candle_whose_beginning_was_not_seen_is_marked() -> None:
    builder = CandleBuilder("1m", START + 10)
    assert not builder.add(START + 20, 5, now=START + 20)[0].is_whole
    told = builder.advance(minute(1) + 1) + builder.add(minute(1), 6, now=minute(1) + 1)
    assert [(built.candle.time, built.is_closed, built.is_whole) for built in told] == [
        (START, True, False),
        (START + 60, False, True),
    ]


def test_the_providers_state_completes_a_candle() -> None:
    builder = CandleBuilder("1m", START + 10)
    builder.add(START + 20, 5, now=START + 20)
    told = builder.complete(Candle(START, 4, 8, 3, 7, 2), START + 15, now=START + 21)
    assert told == [Built(Candle(START, 4, 8, 3, 5, 2), is_closed=False, is_whole=True, stamp=START + 20)]
    told = builder.add(START + 5, 99, now=START + 22)
    assert told[0].candle.open == 4


def test_the_providers_state_from_before_the_first_tick_seen_completes_nothing() -> None:
    builder = CandleBuilder("1m", START + 10)
    builder.add(START + 20, 5, now=START + 20)
    told = builder.complete(Candle(START, 4, 8, 3, 7), START + 9, now=START + 21)
    assert [(built.candle, built.is_whole) for built in told] == [(Candle(START, 4, 8, 3, 5), False)]


def test_a_newer_state_of_the_provider_brings_its_close_and_no_volume_twice() -> None:
    builder = CandleBuilder("1m", START + 10)
    builder.add(START + 20, 5, 0.1, now=START + 20)
    builder.add(START + 40, 6, 0.2, now=START + 40)
    told = builder.complete(Candle(START, 4, 8, 3, 7, 1.1), START + 30, now=START + 41)
    assert told[0].candle == Candle(START, 4, 8, 3, 6, 1.3)
    told = builder.complete(Candle(START, 4, 8, 3, 7.5, 99), START + 45, now=START + 46)
    assert told[0].candle == Candle(START, 4, 8, 3, 7.5, 1.3)


def test_the_providers_state_alone_begins_a_candle() -> None:
    builder = CandleBuilder("1d", START)
    midnight = at("2026-01-14 00:00:00")
    told = builder.complete(Candle(midnight, 4, 8, 3, 7), START + 1, now=START + 2)
    assert told == [Built(Candle(midnight, 4, 8, 3, 7), is_closed=False, is_whole=True, stamp=START + 1)]


def test_after_a_break_the_candle_under_way_is_not_whole_any_more() -> None:
    builder = CandleBuilder("1m", START)
    assert builder.add(START, 5, now=START)[0].is_whole
    builder.resume(START + 40)
    told = builder.add(START + 41, 6, now=START + 41) + builder.advance(minute(1) + 1)
    assert [built.is_whole for built in told] == [False, False]


def test_final_values_from_elsewhere_end_a_candle_and_let_the_next_pass() -> None:
    builder = CandleBuilder("1m", START, grace_s=GRACE_S)
    builder.add(START, 5, now=START)
    builder.add(minute(1), 6, now=minute(1))
    told = builder.settle(Candle(START, 5, 5, 5, 5), now=minute(1) + 0.5)
    assert values(told) == [(1, 6, 6, 6, 6, False)]
    assert builder.add(START + 59, 9, now=minute(1) + 1) == []
    assert closed(builder.advance(minute(1) + 2)) == []
    assert builder.settle(Candle(START, 5, 5, 5, 5), now=minute(1) + 3) == []


def test_time_closes_nothing_where_others_say_when_a_candle_ends() -> None:
    builder = CandleBuilder("1m", START, closes=False)
    builder.add(START, 5, now=START)
    assert builder.due_at() is None
    assert builder.add(minute(1), 6, now=minute(2)) == []
    assert values(builder.settle(Candle(START, 5, 5, 5, 5), now=minute(2))) == [(1, 6, 6, 6, 6, False)]


def test_a_stamp_from_the_future_delays_nothing() -> None:
    builder = CandleBuilder("1m", START)
    builder.add(START, 5, now=START)
    assert builder.add(START + 10**6, 99, now=START + 1) == []
    assert values(builder.add(START + 2, 6, now=START + 2)) == [(0, 5, 6, 5, 6, False)]
    assert values(builder.advance(minute(1) + 1)) == [(0, 5, 6, 5, 6, True)]


def is_before_the_close_of_that_friday(moment: int) -> bool:
    return moment < at("2026-01-16 22:00:00")


def test_ticks_of_a_friday_evening_make_the_candles_that_a_database_makes_of_them() -> None:
    ticks = read_ticks(DATA / "friday_close.csv")
    candles = candles_by_builder(ticks, "1m", GRACE_S, is_before_the_close_of_that_friday)
    assert candles == read_candles(DATA / "friday_close_1m.csv")


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "4h", "1d", "1w", "1M"])
def test_ticks_in_order_make_the_candles_that_a_database_makes_of_them(interval: str) -> None:
    stamped = sorted(read_ticks(DATA / "friday_close.csv"), key=lambda tick: tick.stamp_ms)
    ticks = [tick._replace(arrived_ms=tick.stamp_ms) for tick in stamped]
    assert candles_by_builder(ticks, interval, GRACE_S) == candles_by_sql(ticks, interval)


# ---- from smaller candles ---------------------------------------------------------------------------------------

CHAINS = [
    ("1m", "5m", "1h"),
    ("1m", "3m", "15m"),
    ("5m", "15m", "4h"),
    ("1h", "4h", "1d"),
    ("1h", "1d", "1w"),
    ("4h", "1d", "1M"),
    ("30m", "2h", "8h"),
]
SECONDS = {"1m": 60, "5m": 300, "30m": 1800, "1h": 3600, "4h": 14_400}


def small_candles(length: int) -> st.SearchStrategy[list[Candle]]:
    """Candles on a grid with holes; prices and volumes as venues write them, with a few decimals."""
    values = st.tuples(st.lists(st.integers(1, 10**7), min_size=4, max_size=4), st.integers(0, 10**12))

    def candle(place: int, prices: list[int], volume: int) -> Candle:
        low, first, last, high = sorted(prices)
        price = [float(Decimal(p) / 10**5) for p in (first, high, low, last)]
        opened = START - START % 86_400 + place * length
        return Candle(opened, *price)._replace(volume=float(Decimal(volume) / 10**8))

    return st.dictionaries(st.integers(0, 400), values, max_size=60).map(
        lambda found: [candle(place, *found[place]) for place in sorted(found)]
    )


@given(st.sampled_from(CHAINS).flatmap(lambda chain: st.tuples(st.just(chain), small_candles(SECONDS[chain[0]]))))
def test_steps_in_between_change_nothing(case: tuple[tuple[str, str, str], list[Candle]]) -> None:
    (_, middle, large), candles = case
    assert enlarge(enlarge(candles, middle), large) == enlarge(candles, large)


@given(st.sampled_from(["5m", "1h", "1d", "1w", "1M"]), small_candles(60))
def test_larger_candles_are_what_their_parts_say(interval: str, candles: list[Candle]) -> None:
    parts = [
        Tick(candle.time + place, price, candle.volume if place == 3 else 0.0, candle.time)
        for candle in candles
        for place, price in enumerate((candle.open, candle.high, candle.low, candle.close))
    ]
    merged = enlarge(candles, interval)
    assert merged == by_hand(parts, interval)
    assert sum(Fraction(repr(one.volume)) for one in merged) == sum(Fraction(repr(one.volume)) for one in candles)


def test_ticks_make_the_same_large_candles_as_small_candles_do() -> None:
    ticks = [Tick(START + n * 7, 100 + n * 37 % 91, n * 37 % 11 / 10, START + n * 7) for n in range(3000)]
    minutes = closed(run(CandleBuilder("1m", 0), ticks))
    for interval in ("5m", "1h", "4h", "1d"):
        assert enlarge(minutes, interval) == closed(run(CandleBuilder(interval, 0), ticks))


def test_volumes_add_up_as_decimals() -> None:
    minutes = [Candle(START + 60 * n, 1, 1, 1, 1, volume) for n, volume in enumerate((0.1, 0.2, 0.3))]
    assert enlarge(minutes, "1h")[0].volume == 0.6


def test_a_larger_candle_that_began_before_the_known_time_is_left_out() -> None:
    minutes = [Candle(START + 60 * n, n, n, n, n) for n in range(2, 12)]
    assert [one.time - START for one in enlarge(minutes, "5m")] == [0, 300, 600]
    assert [one.time - START for one in enlarge(minutes, "5m", since=START + 120)] == [300, 600]
    assert [one.time - START for one in enlarge(minutes, "5m", since=START + 300)] == [300, 600]


def test_days_of_the_provider_are_used_where_it_has_its_own() -> None:
    hours = [Candle(at("2026-10-30 21:00:00") + 3600 * n, n, n, n, n, 1.0) for n in range(73)]
    days = enlarge(hours, "1d", opens=new_york_day)
    assert [(one.time, one.open, one.close, one.volume) for one in days] == [
        (at("2026-10-30 21:00:00"), 0, 23, 24.0),
        (at("2026-10-31 21:00:00"), 24, 48, 25.0),
        (at("2026-11-01 22:00:00"), 49, 72, 24.0),
    ]


@pytest.mark.parametrize("times", [(60, 0), (60, 60)])
def test_candles_out_of_order_are_refused(times: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="oldest first"):
        enlarge([Candle(time, 1, 1, 1, 1) for time in times], "5m")
