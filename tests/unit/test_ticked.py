from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.twelve_data.forex import ALWAYS, MONEY, Hours
from providers.twelve_data.polled import PolledStream
from providers.twelve_data.ticked import PATIENCE_S, TickedStream, have_confirmed
from relay import Candle, PriceUpdate, StreamKey
from relay.streams.series import Series
from tests.support.examples import examples
from tests.support.moments import at

START = at("2026-01-14 12:00:00")


class Driven:
    """A stream of EUR/USD whose ticks and polled candles come when a test says so; times count from 12:00:00."""

    def __init__(
        self, interval: str = "1m", *, start: int = START, hours: Hours = MONEY, polled_in: float = 4.0
    ) -> None:
        self.key = StreamKey("EUR/USD", interval)
        self.start = start
        self.polled_in = polled_in
        self.stream = TickedStream(self.key, hours, lambda: self.polled_in)

    def tick(self, second: float, price: float, *, came: float | None = None) -> list[tuple[float, ...]]:
        now = self.start + (second if came is None else came)
        return self._seen(self.stream.tick(self.start + second // 1, price, now))

    def look(self, second: float) -> list[tuple[float, ...]]:
        return self._seen(self.stream.advance(self.start + second))

    def polled(self, opened: int, *prices: float, now: float, is_closed: bool = False) -> list[tuple[float, ...]]:
        update = PriceUpdate(self.key, Candle(self.start + opened, *prices), is_closed)
        return self._seen(self.stream.confirm(update, self.start + now))

    def _seen(self, updates: Sequence[PriceUpdate]) -> list[tuple[float, ...]]:
        """Seconds of the open time, open, high, low, close, closed."""
        assert all(update.key == self.key and not update.candle.fault() for update in updates)
        return [(u.candle.time - self.start, *u.candle[1:5], u.is_closed) for u in updates]


@pytest.fixture
def stream() -> Driven:
    """Ticks come since 12:00:10, and the poll of 12:00:12 said 1.0 1.4 0.9 1.2 of the open candle."""
    driven = Driven()
    driven.stream.accept(START + 9)
    assert driven.polled(0, 1.0, 1.4, 0.9, 1.2, now=12.5) == [(0, 1.0, 1.4, 0.9, 1.2, False)]
    return driven


def test_ticks_go_on_from_the_polled_state_of_a_candle_whose_beginning_was_not_seen(stream: Driven) -> None:
    assert stream.tick(20, 1.3) == [(0, 1.0, 1.4, 0.9, 1.3, False)]
    assert stream.tick(30, 1.5) == [(0, 1.0, 1.5, 0.9, 1.5, False)]
    assert stream.tick(59, 1.1) == [(0, 1.0, 1.5, 0.9, 1.1, False)]
    assert stream.look(61.9) == []
    assert stream.look(62) == [(0, 1.0, 1.5, 0.9, 1.1, True)]


def test_without_a_polled_state_nothing_of_a_first_candle_is_told_until_there_is_one() -> None:
    driven = Driven()
    driven.stream.accept(START + 9)
    assert driven.tick(20, 1.3) == []
    assert driven.tick(21, 1.2) == []
    assert driven.polled(0, 1.0, 1.4, 0.9, 1.2, now=22) == [(0, 1.0, 1.4, 0.9, 1.2, False)]


def test_a_first_candle_is_told_as_it_is_when_no_poll_is_near() -> None:
    driven = Driven(polled_in=100.0)
    driven.stream.accept(START + 9)
    driven.tick(20, 1.3)
    assert driven.look(20.3) == [(0, 1.3, 1.3, 1.3, 1.3, False)]


def test_a_candle_not_seen_whole_is_closed_with_the_providers_values_only() -> None:
    driven = Driven()
    driven.polled(0, 1.0, 1.4, 0.9, 1.2, now=5)
    driven.stream.accept(START + 30)
    assert driven.tick(40, 1.3) == [(0, 1.0, 1.4, 0.9, 1.3, False)]
    assert driven.tick(61, 1.6) == []
    assert driven.look(63) == []
    assert driven.polled(0, 1.0, 1.8, 0.9, 1.3, now=64, is_closed=True) == [
        (0, 1.0, 1.8, 0.9, 1.3, True),
        (60, 1.6, 1.6, 1.6, 1.6, False),
    ]


def test_ticks_that_begin_within_a_candle_do_not_close_it() -> None:
    driven = Driven()
    driven.stream.accept(START + 30)
    driven.tick(40, 1.3)
    assert driven.look(61) == [(0, 1.3, 1.3, 1.3, 1.3, False)]
    assert driven.look(62) == []
    assert driven.look(62 + PATIENCE_S) == []
    assert driven.tick(83, 1.4) == [(60, 1.4, 1.4, 1.4, 1.4, False)]


def test_when_the_provider_is_not_asked_in_time_the_incomplete_candle_is_left_to_history() -> None:
    driven = Driven()
    driven.polled(0, 1.0, 1.4, 0.9, 1.2, now=5)
    driven.stream.accept(START + 30)
    driven.tick(61, 1.6)
    assert driven.look(62) == []
    assert driven.tick(70, 1.7) == []
    assert driven.look(62 + PATIENCE_S - 0.1) == []
    assert driven.look(62 + PATIENCE_S) == [(60, 1.6, 1.7, 1.6, 1.7, False)]


def test_a_confirmation_is_told_after_the_closing(stream: Driven) -> None:
    stream.tick(59, 1.1)
    assert stream.look(62) == [(0, 1.0, 1.4, 0.9, 1.1, True)]
    stream.tick(62, 1.2)
    assert stream.polled(0, 1.0, 1.4, 0.9, 1.05, now=65, is_closed=True) == [(0, 1.0, 1.4, 0.9, 1.05, True)]
    assert stream.polled(60, 1.1, 1.3, 1.1, 1.2, now=65) == [(60, 1.1, 1.3, 1.1, 1.2, False)]


def test_a_minute_without_ticks_is_asked_of_the_provider_before_later_candles_are_told(stream: Driven) -> None:
    stream.look(62)
    assert stream.tick(121, 1.6) == []
    assert stream.look(122.5) == []
    assert stream.polled(60, 1.2, 1.2, 1.2, 1.2, now=125, is_closed=True) == [
        (60, 1.2, 1.2, 1.2, 1.2, True),
        (120, 1.6, 1.6, 1.6, 1.6, False),
    ]


def test_a_minute_that_the_provider_does_not_have_either_is_passed_over(stream: Driven) -> None:
    stream.look(62)
    stream.tick(121, 1.6)
    assert stream.polled(120, 1.5, 1.7, 1.5, 1.6, now=125) == [(120, 1.5, 1.7, 1.5, 1.6, False)]


def test_a_late_tick_changes_nothing_that_was_closed(stream: Driven) -> None:
    stream.tick(59, 1.1)
    stream.look(62)
    stream.tick(62, 1.2)
    assert stream.tick(58, 9.9, came=63) == []
    assert stream.tick(63, 1.25) == [(60, 1.2, 1.25, 1.2, 1.25, False)]


def test_candles_that_closed_while_ticks_were_away_come_from_the_polls(stream: Driven) -> None:
    stream.tick(40, 1.3)
    stream.stream.lose()
    assert stream.look(70) == []
    assert stream.polled(0, 1.0, 1.4, 0.9, 1.25, now=64, is_closed=True) == [(0, 1.0, 1.4, 0.9, 1.25, True)]
    assert stream.polled(60, 1.25, 1.3, 1.2, 1.3, now=64) == [(60, 1.25, 1.3, 1.2, 1.3, False)]
    assert stream.polled(60, 1.25, 1.4, 1.2, 1.3, now=94) == [(60, 1.25, 1.4, 1.2, 1.3, False)]
    stream.stream.accept(START + 130)
    assert stream.tick(140, 1.5) == []
    assert stream.polled(60, 1.25, 1.45, 1.2, 1.4, now=145, is_closed=True) == [
        (60, 1.25, 1.45, 1.2, 1.4, True),
        (120, 1.5, 1.5, 1.5, 1.5, False),
    ]
    assert stream.polled(120, 1.4, 1.6, 1.4, 1.5, now=145) == [(120, 1.4, 1.6, 1.4, 1.5, False)]
    assert stream.look(182) == [(120, 1.4, 1.6, 1.4, 1.5, True)]


@pytest.mark.parametrize("market_hours", [MONEY, ALWAYS])
def test_after_the_session_ticks_make_no_candle(market_hours: Hours) -> None:
    driven = Driven(start=at("2026-01-16 21:59:00"), hours=market_hours)
    driven.stream.accept(driven.start - 2)
    driven.polled(0, 1.0, 1.0, 1.0, 1.0, now=2.5)
    driven.tick(50, 1.2)
    driven.tick(61, 1.9)
    told = [(0, 1.0, 1.2, 1.0, 1.2, True)]
    if market_hours is ALWAYS:
        told.append((60, 1.9, 1.9, 1.9, 1.9, False))
    assert driven.look(62) == told


def test_over_the_weekend_no_candle_is_waited_for() -> None:
    driven = Driven(start=at("2026-01-16 21:59:00"))
    driven.stream.accept(driven.start - 2)
    driven.polled(0, 1.0, 1.0, 1.0, 1.0, now=2.5)
    driven.look(62)
    sunday = at("2026-01-18 22:00:00") - driven.start
    driven.tick(sunday + 1, 1.5)
    assert driven.look(sunday + 2.5) == [(sunday, 1.5, 1.5, 1.5, 1.5, False)]


@pytest.mark.parametrize(("interval", "label"), [("2h", 3600), ("4h", -3600), ("8h", 7200)])
def test_longer_candles_open_where_the_provider_says(interval: str, label: int) -> None:
    driven = Driven(interval)
    driven.stream.accept(START - 20_000)
    assert driven.tick(7205, 1.3) == []
    driven.polled(label, 1.0, 1.4, 0.9, 1.2, now=7206)
    assert driven.tick(7210, 1.3) == [(label, 1.0, 1.4, 0.9, 1.3, False)]


@pytest.mark.parametrize("interval", ["1d", "1w", "1M"])
def test_a_day_is_moved_by_ticks_and_closed_by_the_provider(interval: str) -> None:
    midnight = {"1d": "2026-01-14", "1w": "2026-01-12", "1M": "2026-01-01"}[interval]
    driven = Driven(interval, start=at(midnight))
    driven.stream.accept(driven.start - 10)
    day = 86_400 * {"1d": 1, "1w": 7, "1M": 31}[interval]
    driven.polled(0, 1.0, 1.4, 0.9, 1.2, now=43_200)
    assert driven.tick(43_210, 1.5) == [(0, 1.0, 1.5, 0.9, 1.5, False)]
    assert driven.look(day + 60) == []
    assert driven.polled(0, 1.0, 1.6, 0.9, 1.1, now=day + 64, is_closed=True) == [(0, 1.0, 1.6, 0.9, 1.1, True)]


def truth(minute: int) -> Candle:
    """What the provider says of a minute; it differs from the ticks."""
    price = 1 + minute * 37 % 11 / 10
    return Candle(START + 60 * minute, price, price + 0.3, price - 0.3, price + 0.1)


EVENTS = st.lists(st.tuples(st.floats(0, 480), st.sampled_from(["tick", "tick", "tick", "poll", "lose", "accept"])))


@settings(max_examples=examples(15))
@given(EVENTS, st.sampled_from([1.0, 100.0]))
def test_whatever_comes_when_clients_get_every_candle_once_in_order_and_in_the_end_the_providers(
    events: list[tuple[float, str]], polled_in: float
) -> None:
    driven = Driven(polled_in=polled_in)
    polled = PolledStream()
    series = Series(driven.key, START)
    told: list[PriceUpdate] = []

    def take(updates: Iterable[PriceUpdate], now: float) -> None:
        for update in updates:
            told.extend(series.accept(update))
            while series.is_catching_up:
                # The relay asks history, which knows what is over.
                missing = series.missing(now)
                past = [truth(minute) for minute in range(-1, int(now - START) // 60)]
                end = None if missing is None else missing.end
                told.extend(series.fill(past if missing else (), end))

    def poll(now: float) -> None:
        newest = int(now - START) // 60
        rows = [truth(minute) for minute in range(-1, newest + 1)]
        for update in list(polled.take(driven.key, rows, now)):
            take(driven.stream.confirm(update, now), now)

    for second, kind in [*sorted(events), (490.0, "poll"), (560.0, "poll")]:
        now = START + second
        due = driven.stream.advance(now)
        for update in due:
            if update.is_closed:
                have_confirmed(polled, update)
        take(due, now)
        if kind == "tick":
            take(driven.stream.tick(START + second // 1, 1 + second % 1, now), now)
        elif kind == "poll":
            poll(now)
        elif kind == "lose":
            driven.stream.lose()
        else:
            driven.stream.accept(now)
    fresh = [update for update in told if not update.is_revised]
    assert [update.candle.time for update in fresh] == sorted(update.candle.time for update in fresh)
    closed = [update.candle.time for update in fresh if update.is_closed]
    assert closed == list(range(closed[0], closed[-1] + 60, 60)) if closed else True
    assert all(series.closed[time] == truth((time - START) // 60) for time in series.closed if time < START + 480)
    assert not series.gaps.left


def test_only_ticks_have_a_stamp() -> None:
    driven = Driven()
    driven.stream.accept(START - 5)
    polled = PriceUpdate(driven.key, Candle(START, 1, 1, 1, 1))
    assert [update.ts_event_ms for update in driven.stream.confirm(polled, START + 5)] == [None]
    assert [update.ts_event_ms for update in driven.stream.tick(START + 6, 2, START + 6.4)] == [(START + 6) * 1000]


@pytest.mark.parametrize(
    ("friday", "opens_h", "is_told"), [("2026-10-23 17:00:00", 52, True), ("2026-10-30 17:00:00", 53, False)]
)
def test_after_a_change_of_clocks_the_provider_says_where_long_candles_open(
    friday: str, opens_h: int, is_told: bool
) -> None:
    driven = Driven("4h", start=at(friday))
    driven.stream.accept(driven.start)
    driven.polled(0, 1.0, 1.4, 0.9, 1.2, now=4 * 3600 + 60.0, is_closed=True)
    opened = opens_h * 3600
    assert driven.tick(opened + 5, 1.3) == ([(opened, 1.3, 1.3, 1.3, 1.3, False)] if is_told else [])
    driven.polled(opened, 1.3, 1.3, 1.3, 1.3, now=opened + 8.0)
    assert driven.tick(opened + 10, 1.4)[-1] == (opened, 1.3, 1.4, 1.3, 1.4, False)
