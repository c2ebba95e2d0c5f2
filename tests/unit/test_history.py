"""History: exact answers, nothing known is asked again, and one provider call for all who want the same."""

import asyncio
import bisect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.clock import Clock, ProviderClock
from relay.core.derived_intervals import Derivation
from relay.core.errors import BadAnswer, ProviderError, ProviderUnavailable, RateLimited, StoreError
from relay.core.intervals import length_s, next_open
from relay.core.model import Budget, Candle, OpenHours, ProviderInfo, StreamKey, unreadable, widened
from relay.core.periods import Periods
from relay.core.spans import Span
from relay.core.trading_hours import TradingHours
from relay.history.doubts import EMPTY_PAUSES_S
from relay.history.final_candles import News
from relay.history.known_answers import EncodedCandles
from relay.history.live_edge import LiveEdge
from relay.history.requests import MAX_CALLS, HistoryRequest, PageRequest, PastCandles
from relay.history.service import HistoryService
from relay.storage.chunks import decode
from relay.storage.store import Store
from tests.support.conditions import eventually
from tests.support.examples import examples
from tests.support.virtual_time import run

KEY = StreamKey(symbol="BTCUSDT", interval="1m")
START = 1_700_000_040  # a whole minute
GRACE_S = 5


def final(time: int) -> Candle:
    return Candle(time=time, open=1.0, high=3.0, low=1.0, close=2.0 + (time % 977) / 1000, volume=7.0)


def unfinished(time: int) -> Candle:
    return final(time)._replace(close=1.0, volume=1.0)


def minute(number: int) -> int:
    return START + 60 * number


def finals(*numbers: int) -> tuple[Candle, ...]:
    return tuple(final(minute(number)) for number in numbers)


class FakeProvider:
    """Knows the candles of one stream and shows those that have opened by its time; `lag_s` holds new ones back.

    Of closed ones, those in `left_out` are missing from its answers, and those in `spoilt` have values that make no
    sense; `changed` ones differ from `final`.
    """

    def __init__(
        self, times: Sequence[int], now: float, *, fresh_s: float = 1.0, page: int = 5000, at_once: int = 4
    ) -> None:
        self.name = "fake"
        self.info = ProviderInfo(
            "fake",
            1,
            "Fake",
            ("demo",),
            ("1m",),
            close_grace_s=GRACE_S,
            fresh_s=fresh_s,
            candles_per_call=page,
            calls_at_once=at_once,
        )
        self.has_history = True
        self.times = sorted(times)
        self.now = now
        self.local_clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)
        self.clock = ProviderClock(self.local_clock)
        self.interval = "1m"
        self.calls: list[tuple[int | None, int, int]] = []
        self.fetched: Counter[int] = Counter()  # by open time; those that were known to be closed
        self.failures: list[ProviderError | None] = []
        self.shown = 0
        self.running = self.most_running = 0
        self.both = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.takes_s: tuple[int, int] = (0, 0)
        self.lag_s = 0
        self.left_out: set[int] = set()
        self.spoilt: set[int] = set()
        self.changed: dict[int, Candle] = {}
        self.omitted: Counter[int] = Counter()
        self.budget: list[Budget] = []
        self.hours = TradingHours()
        self.is_second_look: Callable[[int | None, int], bool] = lambda start, end: False
        self.answers: list[tuple[float, int, float]] = []  # when it was asked, how many it saw, when that arrived

    def budgets(self) -> Sequence[Budget]:
        return self.budget

    def market(self, symbol: str) -> TradingHours:
        return self.hours

    def visible(self) -> list[int]:
        latest = bisect.bisect_right(self.times, self.now - self.lag_s)
        due = bisect.bisect_right(self.times, self.now - 60 - GRACE_S)
        self.shown = max(self.shown, latest, due)
        return self.times[: self.shown]

    def show(self, times: Sequence[int]) -> list[Candle]:
        last = self.visible()[-1] if self.visible() else None
        return [
            unfinished(time)
            if time == last and next_open(self.interval, time) + GRACE_S > self.now
            else unreadable(time)
            if time in self.spoilt
            else self.changed.get(time, final(time))
            for time in times
        ]

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        assert limit <= self.info.candles_per_call
        asked_at = self.now
        self.calls.append((start, end, limit))
        self.running += 1
        if self.running == 2:
            self.both.set()
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(start, end, limit, asked_at)
        finally:
            self.running -= 1

    async def _answer(self, start: int | None, end: int, limit: int, asked_at: float) -> Sequence[Candle]:
        self.entered.set()
        self.now += self.takes_s[0]
        failure = self.failures.pop(0) if self.failures else None
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if failure is not None:
            raise failure
        inside = [time for time in self.visible() if (start or 0) <= time < end and time not in self.left_out]
        self.omitted.update(time for time in self.visible() if (start or 0) <= time < end and time in self.left_out)
        seen = (asked_at, self.shown)
        rows = self.show(inside[-limit:] if start is None else inside[:limit])
        for index, row in enumerate(rows):
            if row.fault() is not None or self.is_second_look(start, end):
                continue
            # What opened only while the answer was under way may be a provider's whose time is wrong.
            is_followed = index < len(rows) - 1 and row.time <= asked_at
            if is_followed or next_open(self.interval, row.time) + GRACE_S <= asked_at:
                self.fetched[row.time] += 1
        self.now += self.takes_s[1]
        self.answers.append((*seen, self.now))
        return rows


class Bench:
    def __init__(self, provider: FakeProvider, store: Store) -> None:
        self.provider = provider
        self.store = store
        self.history = HistoryService(store, provider.local_clock)

    async def ask(self, *, start: int | None = None, end: int | None = None, limit: int = 500) -> PastCandles:
        asked = HistoryRequest(self.provider, KEY, start=start, end=end, limit=limit)
        return (await self.history.candles(asked))._replace(asked_at=None)


BenchT = TypeVar("BenchT", bound=Bench)


@asynccontextmanager
async def bench_of(provider: FakeProvider, kind: Callable[[FakeProvider, Store], BenchT]) -> AsyncIterator[BenchT]:
    store = await Store.open(":memory:", provider.local_clock)
    bench = kind(provider, store)
    try:
        yield bench
    finally:
        await bench.history.close()
        await store.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Minutes 0 to 999 of a stream; the clock stands 30 s into minute 600."""
    provider = FakeProvider([minute(n) for n in range(1000)], minute(600) + 30)
    async with bench_of(provider, Bench) as opened:
        yield opened


# What comes back


@pytest.mark.parametrize(
    ("cache_bytes", "limit", "extended", "source"),
    [
        (1 << 20, 50, False, "cache"),
        (1 << 20, 50, True, "store"),
        (1 << 20, 1025, False, "store"),
        (0, 50, False, "store"),
    ],
)
async def test_a_few_plain_candles_that_were_read_come_from_memory(
    cache_bytes: int, limit: int, extended: bool, source: str
) -> None:
    provider = FakeProvider([minute(n) for n in range(1000)], minute(600) + 30)
    store = await Store.open(":memory:", provider.local_clock, cache_bytes=cache_bytes)
    history = HistoryService(store, provider.local_clock)
    asked = HistoryRequest(provider, KEY, start=None, end=minute(599), limit=limit, extended=extended)
    fetched = await history.candles(asked)
    assert await history.candles(asked) == fetched
    before = history.served.copy()
    assert await history.candles(asked) == fetched
    assert history.served - before == {source: 1}
    await history.close()
    await store.close()


async def test_last_candles_end_with_the_open_one(bench: Bench) -> None:
    past = await bench.ask(limit=3)
    assert past == PastCandles((*finals(598, 599), unfinished(minute(600))), last_is_closed=False, is_complete=True)


async def test_first_candles_from_a_start(bench: Bench) -> None:
    assert await bench.ask(start=minute(10), limit=3) == PastCandles(finals(10, 11, 12), True, True)


async def test_both_ends_are_inclusive(bench: Bench) -> None:
    assert (await bench.ask(start=minute(10), end=minute(12))).candles == finals(10, 11, 12)
    assert (await bench.ask(start=minute(10) + 1, end=minute(12) - 1)).candles == finals(11)
    assert (await bench.ask(end=minute(12), limit=2)).candles == finals(11, 12)


async def test_end_that_cuts_before_the_open_candle_leaves_it_out(bench: Bench) -> None:
    past = await bench.ask(end=minute(600) - 1, limit=2)
    assert past == PastCandles(finals(598, 599), True, True)


async def test_range_before_the_first_candle_is_complete_and_empty(bench: Bench) -> None:
    # That there is none is not believed yet.
    nothing = PastCandles((), True, True, doubted=(Span(0, START),))
    assert await bench.ask(start=0, end=START - 1) == nothing
    assert await bench.ask(end=START - 1) == nothing
    assert len(bench.provider.calls) == 1


async def test_range_in_the_future_is_empty(bench: Bench) -> None:
    assert await bench.ask(start=minute(10_000)) == PastCandles((), True, True)
    assert bench.provider.calls == []


async def test_candle_closes_by_the_provider_clock(bench: Bench) -> None:
    bench.provider.times = [minute(n) for n in range(601)]
    bench.provider.now = minute(601)
    past = await bench.ask(limit=1)
    assert (past.candles[-1].time, past.last_is_closed) == (minute(600), True)


async def test_month_closes_with_the_calendar() -> None:
    february, march = 1_769_904_000, 1_772_323_200
    provider = FakeProvider([february], march - 1)
    provider.interval = "1M"
    key = StreamKey("BTCUSDT", "1M")
    async with bench_of(provider, Bench) as bench:
        assert not (
            await bench.history.candles(HistoryRequest(provider, key, start=None, end=None, limit=5))
        ).last_is_closed
        provider.now = march + GRACE_S
        past = await bench.history.candles(HistoryRequest(provider, key, start=None, end=None, limit=5))
        assert past == PastCandles((final(february),), True, True, asked_at=past.asked_at)


# What is asked


async def test_known_range_is_not_asked_again(bench: Bench) -> None:
    await bench.ask(start=minute(10), end=minute(50))
    bench.provider.calls.clear()
    assert (await bench.ask(start=minute(20), end=minute(30))).candles == finals(*range(20, 31))
    assert (await bench.ask(end=minute(50), limit=5)).candles == finals(46, 47, 48, 49, 50)
    assert bench.provider.calls == []


async def test_closed_hours_are_not_asked_for(bench: Bench) -> None:
    """The market closes before minute 600 and opens with minute 1200."""
    provider = bench.provider
    provider.hours = TradingHours(
        lambda moment: OpenHours(0, minute(600)) if moment < minute(600) else OpenHours(minute(1200), minute(1800))
    )
    provider.times = [minute(n) for n in range(600)]
    provider.now = minute(600) + GRACE_S + 1
    newest = PastCandles(finals(598, 599), True, True)
    assert await bench.ask(limit=2) == newest
    assert len(provider.calls) == 1
    for n in (601, 700, 900, 1190):
        provider.now = minute(n)
        assert await bench.ask(limit=2) == newest
        assert (await bench.history.text(HistoryRequest(provider, KEY, start=None, end=None, limit=2))).chunk.times
        assert await bench.ask(start=minute(n - 1), end=minute(n)) == PastCandles((), True, True)
    assert len(provider.calls) == 1
    # What spans trading that is not known is asked for, closed hours and all.
    await bench.ask(start=minute(100), end=minute(1190))
    assert len(provider.calls) == 2
    provider.now = minute(1200) + 1
    await bench.ask(limit=2)
    assert len(provider.calls) == 3


async def test_the_last_candle_before_closed_hours_is_over_with_the_trading_in_it(bench: Bench) -> None:
    provider = bench.provider
    closes = minute(599) + 20
    provider.hours = TradingHours(
        lambda moment: OpenHours(0, closes) if moment < closes else OpenHours(minute(1200), minute(1800))
    )
    provider.times = [minute(n) for n in range(600)]
    provider.now = closes - 1
    assert not (await bench.ask(limit=1)).last_is_closed
    provider.now = closes + 1
    assert (await bench.ask(limit=1)).last_is_closed


async def test_only_the_missing_part_is_fetched(bench: Bench) -> None:
    await bench.ask(start=minute(10), end=minute(20))
    await bench.ask(start=minute(30), end=minute(40))
    past = await bench.ask(start=minute(0), end=minute(50))
    assert past.candles == finals(*range(51))
    assert set(bench.provider.fetched.values()) == {1}


async def test_scrolling_back_fetches_each_candle_once(bench: Bench) -> None:
    end = None
    seen: list[Candle] = []
    for _ in range(8):
        past = await bench.ask(end=end, limit=100)
        seen[:0] = past.candles
        end = seen[0].time - 1
    assert [candle.time for candle in seen] == [minute(n) for n in range(601)]
    assert set(bench.provider.fetched.values()) == {1}
    calls = len(bench.provider.calls)
    assert (await bench.ask(end=minute(2), limit=500)).candles == finals(0, 1, 2)
    assert len(bench.provider.calls) == calls


async def test_last_candles_reach_over_an_earlier_span_without_refetching_it(bench: Bench) -> None:
    await bench.ask(start=minute(500), end=minute(520))
    past = await bench.ask(end=minute(560), limit=100)
    assert past.candles == finals(*range(461, 561))
    assert set(bench.provider.fetched.values()) == {1}


async def test_time_passing_costs_one_call_for_what_is_new(bench: Bench) -> None:
    await bench.ask(limit=100)
    bench.provider.now = minute(610) + 30
    bench.provider.calls.clear()
    past = await bench.ask(limit=100)
    assert [candle.time for candle in past.candles] == [minute(n) for n in range(511, 611)]
    assert len(bench.provider.calls) == 1
    assert bench.provider.fetched[minute(600)] == 1
    assert set(bench.provider.fetched.values()) == {1}


async def test_weekend_is_believed_and_stepped_over() -> None:
    weekend = set(range(1000, 3900))
    provider = FakeProvider([minute(n) for n in range(5000) if n not in weekend], minute(4000) + 30)
    async with bench_of(provider, Bench) as bench:
        await bench.ask(end=minute(999), limit=50)
        provider.calls.clear()
        past = await bench.ask(limit=200)
        assert [candle.time for candle in past.candles] == [minute(n) for n in [*range(901, 1000), *range(3900, 4001)]]
        assert len(provider.calls) <= 4
        assert set(provider.fetched.values()) == {1}
        provider.calls.clear()
        assert (await bench.ask(end=minute(3899), limit=1)).candles == finals(999)
        assert (await bench.ask(start=minute(1000), end=minute(3899))).candles == ()
        assert provider.calls == []


async def test_outage_of_years_between_two_spans_ends(bench: Bench) -> None:
    bench.provider.times = [START + 60 * n for n in [*range(100), *range(2_000_000, 2_000_100)]]
    bench.provider.now = minute(2_000_099) + 30
    await bench.ask(start=START, end=minute(50))
    past = await bench.ask(limit=200)
    assert len(past.candles) == 200
    assert past.is_complete
    assert set(bench.provider.fetched.values()) == {1}


async def test_the_last_candles_of_what_went_away_long_ago_are_found_in_a_few_calls() -> None:
    # A little of its beginning is known, and far more than a page lies between.
    provider = FakeProvider([minute(n) for n in range(60_000)], minute(200_000), page=1000)
    async with bench_of(provider, Bench) as bench:
        await bench.ask(start=START, end=minute(50))
        provider.calls.clear()
        past = await bench.ask(limit=2500)
        assert past.candles == finals(*range(57_500, 60_000))
        assert past.is_complete
        assert len(provider.calls) <= 15
        assert set(provider.fetched.values()) == {1}


async def test_closed_market_is_asked_for_the_present_only() -> None:
    provider = FakeProvider([minute(n) for n in range(100)], minute(1000))
    async with bench_of(provider, Bench) as bench:
        # One answer is not enough to believe that none follows.
        tail = Span(minute(100), minute(999) + 1)
        assert await bench.ask(limit=10) == PastCandles(finals(*range(90, 100)), True, True, doubted=(tail,))
        provider.now = minute(1100)
        assert (await bench.ask(limit=10)).candles == finals(*range(90, 100))
        assert set(provider.fetched.values()) == {1}


async def test_candle_that_shows_late_is_not_taken_for_missing(bench: Bench) -> None:
    bench.provider.now = minute(600) + 1
    bench.provider.lag_s = 64
    assert [candle.time for candle in (await bench.ask(limit=2)).candles] == [minute(597), minute(598)]
    bench.provider.now = minute(600) + 7
    past = await bench.ask(limit=3)
    assert past.candles == finals(597, 598, 599)


async def test_many_small_answers_end_with_an_incomplete_past() -> None:
    class OneByOne(FakeProvider):
        async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
            rows = await super().candles(key, start, end, limit)
            return [*rows[:1]] * limit  # says that there is more

    provider = OneByOne([minute(n) for n in range(1000)], minute(600) + 30)
    async with bench_of(provider, Bench) as bench:
        past = await bench.ask(start=START, limit=500)
        assert len(provider.calls) == MAX_CALLS
        assert past == PastCandles(finals(*range(MAX_CALLS)), True, False)
        text = await bench.history.text(HistoryRequest(provider, KEY, start=START, end=None, limit=500))
        assert (len(text.chunk.times), text.is_whole) == (2 * MAX_CALLS, False)
        provider.has_history = False
        text = await bench.history.text(HistoryRequest(provider, KEY, start=START, end=None, limit=500))
        assert (len(text.chunk.times), text.is_whole) == (2 * MAX_CALLS, True)


async def test_an_answer_that_is_full_of_what_was_not_asked_for_is_bad() -> None:
    class First(FakeProvider):
        async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
            rows = await super().candles(key, start, end, limit)
            return [*rows[:1]] * limit

    provider = First([minute(n) for n in range(1000)], minute(600) + 30)
    provider.info = provider.info._replace(candles_back=3)
    async with bench_of(provider, Bench) as bench:
        with pytest.raises(BadAnswer, match="Fake sent only candles before the requested ones"):
            await bench.ask(start=START, limit=500)


async def test_a_change_that_two_answers_show_at_once_is_told_once(bench: Bench) -> None:
    await bench.ask(start=minute(10), end=minute(19))
    finals_of, now = bench.history.calls.finals, bench.provider.now
    known = await finals_of.known(bench.provider, KEY, PageRequest(minute(10), minute(20), 10, None, False))
    changed = final(minute(14))._replace(close=2.5)
    span, times = Span(minute(20), minute(20)), [minute(14)]
    compared = finals_of.compare(bench.provider, KEY, known, [changed], now)
    seen = bench.store.look()
    takes = [
        finals_of.take(bench.provider, KEY, span, known, compared, [changed], times, now, now, seen) for _ in range(2)
    ]
    told = [news.changed for news in await asyncio.gather(*takes) if news is not None]
    assert told == [[changed]]


# The present


async def test_present_is_fresh_for_a_second(bench: Bench) -> None:
    await bench.ask(limit=5)
    bench.provider.now += 0.9
    await bench.ask(limit=5)
    await bench.ask(start=minute(597))
    await bench.ask(end=minute(600), limit=2)
    assert len(bench.provider.calls) == 1
    bench.provider.now += 0.2
    await bench.ask(limit=5)
    assert len(bench.provider.calls) == 2


@pytest.mark.parametrize("takes_s", [20, 90, 110])
async def test_a_request_does_not_run_after_the_present_while_candles_open_before_each_answer(
    bench: Bench, takes_s: int
) -> None:
    """As with second candles of a provider that takes a second and a half."""
    for _ in range(20):
        bench.provider.takes_s = (0, 0)
        await bench.ask(limit=5)
        bench.provider.now += 65
        asked, bench.provider.takes_s = len(bench.provider.calls), (takes_s, 0)
        assert (await bench.ask(limit=50)).is_complete
        assert len(bench.provider.calls) - asked <= 4


async def test_live_candle_replaces_the_open_one_of_the_last_answer(bench: Bench) -> None:
    await bench.ask(limit=5)
    bench.store.put_closed("fake", KEY, final(minute(600)), after=minute(599))
    past = await bench.ask(limit=2)
    assert past == PastCandles(finals(599, 600), True, True)


async def test_lost_live_candle_is_fetched_before_later_ones(bench: Bench) -> None:
    await bench.ask(limit=5)
    bench.provider.now = minute(602) + 0.5
    bench.store.put_closed("fake", KEY, final(minute(601)), after=None)
    past = await bench.ask(limit=4)
    assert past == PastCandles((*finals(599, 600, 601), unfinished(minute(602))), False, True)


async def test_live_stream_saves_the_call(bench: Bench) -> None:
    await bench.ask(limit=5)
    bench.provider.now += 10
    now = LiveEdge(since=minute(599) + 1, candle=unfinished(minute(600)), is_closed=False)
    bench.provider.calls.clear()
    past = await bench.history.candles(
        HistoryRequest(bench.provider, KEY, start=None, end=None, limit=3, live=lambda: now)
    )
    assert past == PastCandles((*finals(598, 599), unfinished(minute(600))), False, True, asked_at=past.asked_at)
    assert bench.provider.calls == []


@pytest.mark.parametrize("start", [None, minute(590)])
async def test_open_candle_that_closes_while_the_provider_answers_stays_open_or_gets_its_final_values(
    bench: Bench, start: int | None
) -> None:
    now = LiveEdge(since=minute(599) + 1, candle=unfinished(minute(600)), is_closed=False)
    bench.provider.gate = asyncio.Event()
    request = asyncio.create_task(
        bench.history.candles(HistoryRequest(bench.provider, KEY, start=start, end=None, limit=20, live=lambda: now))
    )
    await bench.provider.entered.wait()
    # The live stream goes on: what the request has read of minute 600 is not final, whoever closes it meanwhile.
    bench.provider.now = minute(601) + 1
    bench.store.put_closed("fake", KEY, final(minute(600)), after=minute(599))
    bench.provider.gate.set()
    past = await request
    times = [candle.time for candle in past.candles]
    assert times[-1] == minute(600)
    assert past.candles[-1] == (final(minute(600)) if past.last_is_closed else unfinished(minute(600)))


async def test_live_stream_that_just_began_is_joined_to_the_past_once(bench: Bench) -> None:
    await bench.ask(end=minute(599), limit=5)
    bench.provider.calls.clear()
    now = LiveEdge(since=minute(600), candle=unfinished(minute(600)), is_closed=False)
    for _ in range(3):
        bench.provider.now += 3
        past = await bench.history.candles(
            HistoryRequest(bench.provider, KEY, start=None, end=None, limit=3, live=lambda: now)
        )
        assert past == PastCandles((*finals(598, 599), unfinished(minute(600))), False, True, asked_at=past.asked_at)
    assert len(bench.provider.calls) == 1


async def test_candle_that_may_still_change_is_asked_for_once_a_second_beside_a_live_stream(bench: Bench) -> None:
    bench.provider.now = minute(601) + 0.5
    now = LiveEdge(minute(601), unfinished(minute(601)), is_closed=False, is_current=lambda: True)
    for _ in range(3):
        past = await bench.history.candles(
            HistoryRequest(bench.provider, KEY, start=None, end=None, limit=3, live=lambda: now)
        )
        assert past.candles == (*finals(599, 600), unfinished(minute(601)))
        text = await bench.history.text(
            HistoryRequest(bench.provider, KEY, start=None, end=None, limit=3, live=lambda: now)
        )
        assert tuple(decode(text.chunk)) == past.candles
        assert text.is_current()
    bench.provider.now += 0.9
    assert text.is_current()
    bench.provider.now += 0.1
    assert not text.is_current()
    assert len(bench.provider.calls) == 1
    for _ in range(3):
        bench.provider.now += 6
        past = await bench.history.candles(
            HistoryRequest(bench.provider, KEY, start=None, end=None, limit=3, live=lambda: now)
        )
        assert past.candles == (*finals(599, 600), unfinished(minute(601)))
    assert len(bench.provider.calls) == 2


async def test_backfill_can_refuse_a_fresh_answer(bench: Bench) -> None:
    bench.provider.now = minute(601) - 0.1
    await bench.ask(limit=2)
    bench.provider.now = minute(601) + 0.1
    assert (await bench.ask(limit=2)).candles[-1] == unfinished(minute(600))
    past = await bench.history.candles(
        HistoryRequest(bench.provider, KEY, start=None, end=None, limit=2, must_be_new=True)
    )
    assert past.candles == (*finals(600), unfinished(minute(601)))


async def test_backfill_does_not_share_a_call_from_before(bench: Bench) -> None:
    bench.provider.gate = asyncio.Event()
    earlier = asyncio.create_task(bench.ask(limit=2))
    await bench.provider.entered.wait()
    bench.provider.now += 1
    later = asyncio.create_task(
        bench.history.candles(HistoryRequest(bench.provider, KEY, start=None, end=None, limit=2, must_be_new=True))
    )
    await bench.store.documents.get("")
    bench.provider.gate.set()
    assert (await earlier)._replace(asked_at=None) == (await later)._replace(asked_at=None)
    assert len(bench.provider.calls) == 2


async def test_clock_ahead_does_not_close_candles_or_cover_the_future() -> None:
    provider = FakeProvider([minute(n) for n in range(1000)], minute(600) + 30)
    provider.clock = ProviderClock(Clock(wall=lambda: provider.now + 3600, monotonic=lambda: provider.now))

    class Stamps(FakeProvider):
        async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
            rows = await super().candles(key, start, end, limit)
            self.clock.observe(self.now)
            return rows

    provider.__class__ = Stamps
    async with bench_of(provider, Bench) as bench:
        assert not (await bench.ask(limit=5)).last_is_closed
        provider.now = minute(605) + 30
        past = await bench.ask(limit=5)
        assert past.candles == (*finals(601, 602, 603, 604), unfinished(minute(605)))


async def test_clock_behind_does_not_hide_the_newest() -> None:
    class Stamps(FakeProvider):
        async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
            rows = await super().candles(key, start, end, limit)
            self.clock.observe(self.now)
            return rows

    provider = Stamps([minute(n) for n in range(1000)], minute(600) + 30)
    provider.clock = ProviderClock(Clock(wall=lambda: provider.now - 3600, monotonic=lambda: provider.now))
    async with bench_of(provider, Bench) as bench:
        past = await bench.ask(limit=5)
        assert past.candles == (*finals(596, 597, 598, 599), unfinished(minute(600)))


@pytest.mark.parametrize("off_s", [-7200, 7200])
async def test_a_date_that_contradicts_the_machine_hides_no_candle(bench: Bench, off_s: int) -> None:
    provider = bench.provider
    provider.clock.observe(provider.now + off_s)

    async def text(start: int | None, end: int | None, limit: int) -> tuple[list[int], bool]:
        found = await bench.history.text(
            HistoryRequest(provider, KEY, start=start, end=end, limit=limit, live=lambda: None)
        )
        return [(time - minute(0)) // 60 for time in found.chunk.times], found.last_is_closed

    past = await bench.ask(limit=3)
    assert past == PastCandles((*finals(598, 599), unfinished(minute(600))), last_is_closed=False, is_complete=True)
    assert await text(None, None, 3) == ([598, 599, 600], False)
    assert await text(minute(590), None, 50) == ([*range(590, 601)], False)
    assert await text(minute(590), minute(595), 50) == ([*range(590, 596)], True)
    assert await text(None, minute(595), 2) == ([594, 595], True)
    assert len(provider.calls) <= 10


# Many requests


async def test_equal_requests_at_the_same_time_share_one_call(bench: Bench) -> None:
    pasts = await asyncio.gather(*(bench.ask(limit=50) for _ in range(100)))
    assert len(set(pasts)) == 1
    assert len(bench.provider.calls) == 1


async def test_overlapping_requests_at_the_same_time_fetch_nothing_twice(bench: Bench) -> None:
    pasts = await asyncio.gather(*(bench.ask(start=minute(n), limit=100) for n in range(0, 200, 10)))
    assert [past.candles for past in pasts] == [finals(*range(n, n + 100)) for n in range(0, 200, 10)]
    assert set(bench.provider.fetched.values()) == {1}


async def test_cancelled_request_does_not_cancel_the_call_for_others(bench: Bench) -> None:
    bench.provider.gate = asyncio.Event()
    first = asyncio.create_task(bench.ask(limit=5))
    await bench.provider.entered.wait()
    second = asyncio.create_task(bench.ask(limit=5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()
    bench.provider.gate.set()
    assert len((await second).candles) == 5
    assert len(bench.provider.calls) == 1


async def test_call_of_a_cancelled_request_is_kept(bench: Bench) -> None:
    bench.provider.gate = asyncio.Event()
    request = asyncio.create_task(bench.ask(start=START, end=minute(9)))
    await bench.provider.entered.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    bench.provider.gate.set()
    assert (await bench.ask(start=START, end=minute(9))).candles == finals(*range(10))
    assert len(bench.provider.calls) == 1


def has_asked_or_ended(provider: FakeProvider, calls: int, request: asyncio.Task[EncodedCandles]) -> bool:
    return len(provider.calls) > calls or request.done()


@pytest.mark.parametrize("interval", ["1m", "5m"])
async def test_a_request_that_is_given_up_at_every_call_gets_further_each_time_until_it_is_whole(interval: str) -> None:
    provider = FakeProvider([minute(n) for n in range(1000)], minute(600) + 30, page=100, at_once=1)
    key = StreamKey("BTCUSDT", interval)
    whole = HistoryRequest(provider, key, None, minute(599), 500 * 60 // length_s(interval))
    gave_up = 0
    async with bench_of(provider, Bench) as bench:
        history, provider.gate = bench.history, asyncio.Event()
        if interval != "1m":
            built = Derivation("1m", Periods(interval, "1m", is_utc_grid=True))
            history.derivation_of = lambda source, key: built if key.interval == interval else None
        while not (request := asyncio.create_task(history.text(whole))).done():
            calls = len(provider.calls)
            await eventually(partial(has_asked_or_ended, provider, calls, request))
            if request.done():
                break
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            gave_up += 1
            provider.gate.set()
            await eventually(lambda: not history.calls.tasks())
            provider.gate.clear()
        text = request.result()
        assert (len(text.chunk.times), text.is_whole) == (whole.limit, True)
    assert gave_up == len(provider.calls) > 3
    assert set(provider.fetched.values()) == {1}


async def test_close_ends_calls_under_way(bench: Bench) -> None:
    bench.provider.gate = asyncio.Event()
    request = asyncio.create_task(bench.ask(limit=5))
    await bench.provider.entered.wait()
    await bench.history.close()
    with pytest.raises(ProviderUnavailable, match="shutting down"):
        await request
    with pytest.raises(ProviderUnavailable, match="shutting down"):
        await bench.ask(limit=5)


# Pages


@asynccontextmanager
async def paged(page: int, *, at_once: int = 4, now: int = 600) -> AsyncIterator[Bench]:
    provider = FakeProvider([minute(n) for n in range(1000)], minute(now) + 30, page=page, at_once=at_once)
    async with bench_of(provider, Bench) as opened:
        yield opened


async def test_a_long_range_takes_as_few_pages_as_there_are_and_several_at_a_time() -> None:
    async with paged(100) as bench:
        past = await bench.ask(start=minute(0), limit=500)
        assert past == PastCandles(finals(*range(500)), True, True)
        assert len(bench.provider.calls) == 5
        assert bench.provider.most_running == 4
        assert set(bench.provider.fetched.values()) == {1}


async def test_the_last_candles_come_in_pages_as_well() -> None:
    async with paged(100) as bench:
        past = await bench.ask(end=minute(499), limit=500)
        assert past == PastCandles(finals(*range(500)), True, True)
        assert len(bench.provider.calls) == 5
        assert bench.provider.most_running == 4


async def test_no_more_calls_run_at_once_than_the_provider_takes() -> None:
    async with paged(100, at_once=2) as bench:
        await asyncio.gather(bench.ask(start=minute(0), limit=400), bench.ask(end=minute(590), limit=10))
        assert bench.provider.most_running <= 4  # two for clients, and two for live streams, which these are
        bench.provider.most_running = 0
        past = await bench.history.text(
            HistoryRequest(
                bench.provider, KEY, start=minute(0), end=minute(599), limit=600, live=lambda: None, client="somebody"
            )
        )
        assert len(past.chunk.times) == 600
        assert bench.provider.most_running <= 2


async def test_missing_spans_that_need_several_pages_are_fetched_at_once() -> None:
    async with paged(100) as bench:
        for n in (100, 200, 300):
            await bench.ask(start=minute(n), end=minute(n + 40))
        bench.provider.calls.clear()
        past = await bench.ask(start=minute(100), end=minute(340))
        assert past.candles == finals(*range(100, 341))
        assert sorted(bench.provider.calls) == [
            (minute(140) + 1, minute(200), 100),
            (minute(240) + 1, minute(300), 100),
        ]
        assert bench.provider.most_running == 2


async def test_missing_spans_that_one_page_can_hold_are_one_call_for_who_wants_that() -> None:
    async with paged(100) as bench:
        for n in (100, 110, 120, 130):
            await bench.ask(start=minute(n), end=minute(n + 5))
        bench.provider.calls.clear()
        asked = HistoryRequest(bench.provider, KEY, minute(100), minute(135), 500, joins_gaps=True)
        assert (await bench.history.candles(asked)).candles == finals(*range(100, 136))
        assert bench.provider.calls == [(minute(105) + 1, minute(130), 100)]


async def test_for_others_nothing_is_fetched_twice_however_small_the_missing_spans_are() -> None:
    async with paged(100) as bench:
        for n in (100, 110, 120, 130):
            await bench.ask(start=minute(n), end=minute(n + 5))
        assert (await bench.ask(start=minute(100), end=minute(135))).candles == finals(*range(100, 136))
        assert set(bench.provider.fetched.values()) == {1}


async def test_pages_at_a_time_stop_where_the_market_began() -> None:
    async with paged(100) as bench:
        past = await bench.ask(end=minute(250), limit=900)
        assert past == PastCandles(finals(*range(251)), True, True)
        assert len(bench.provider.calls) <= 10


async def test_a_market_with_holes_is_not_asked_page_by_page() -> None:
    provider = FakeProvider([minute(n) for n in range(3000) if n % 600 < 30], minute(2990), page=100)
    async with bench_of(provider, Bench) as bench:
        past = await bench.ask(end=minute(2989), limit=150)
        assert len(past.candles) == 150
        assert len(provider.calls) == 2


async def test_pages_before_an_error_need_not_be_fetched_again() -> None:
    async with paged(100, at_once=1) as bench:
        bench.provider.failures = [None, None, ProviderUnavailable("down")]
        with pytest.raises(ProviderUnavailable):
            await bench.ask(start=minute(0), limit=500)
        bench.provider.failures = []
        assert await bench.ask(start=minute(0), limit=500) == PastCandles(finals(*range(500)), True, True)
        assert set(bench.provider.fetched.values()) == {1}


async def test_requests_for_different_ranges_do_not_wait_for_each_other(bench: Bench) -> None:
    bench.provider.gate = asyncio.Event()
    first = asyncio.create_task(bench.ask(start=minute(0), end=minute(9)))
    second = asyncio.create_task(bench.ask(start=minute(100), end=minute(109)))
    await bench.provider.both.wait()
    bench.provider.gate.set()
    assert (await first, await second) == (
        PastCandles(finals(*range(10)), True, True),
        PastCandles(finals(*range(100, 110)), True, True),
    )


# Encoded


async def test_encoded_answer_knows_whether_it_is_current(bench: Bench) -> None:
    async def text(end: int | None, live: LiveEdge | None = None) -> EncodedCandles:
        return await bench.history.text(
            HistoryRequest(bench.provider, KEY, start=None, end=end, limit=3, live=lambda: live)
        )

    assert not (await text(minute(500))).is_current()  # made while it was fetched
    past = await text(minute(500))
    assert past.is_current()
    await text(None)
    assert not past.is_current()  # something was written since
    past, present = await text(minute(500)), await text(None)
    assert (present.last_is_closed, past.is_current(), present.is_current()) == (False, True, True)
    is_silent = False
    edge = LiveEdge(minute(599) + 1, unfinished(minute(600)), is_closed=False, is_current=lambda: not is_silent)
    live, past_of_live = await text(None, edge), await text(minute(500), edge)
    assert (live.last_is_closed, live.is_current(), past_of_live.is_current()) == (False, True, True)
    assert decode(live.chunk) == [*finals(598, 599), unfinished(minute(600))]
    bench.provider.now += 1.0
    # What the provider said of the present was fresh for so long.
    assert (past.is_current(), present.is_current(), live.is_current()) == (True, False, True)
    is_silent = True
    assert (past_of_live.is_current(), live.is_current()) == (True, False)
    bench.store.put_closed("fake", KEY, final(minute(599)), after=None)
    assert not past.is_current()
    assert dict(bench.history.served) == {"provider": 2, "cache": 5}


# Faults


async def test_provider_error_reaches_the_request_and_every_sharer(bench: Bench) -> None:
    bench.provider.failures = [RateLimited("slow down", 7.0)]
    bench.provider.gate = asyncio.Event()
    requests = [asyncio.create_task(bench.ask(limit=5)) for _ in range(3)]
    await bench.provider.entered.wait()
    await bench.store.documents.get("")  # behind the reads of the requests
    bench.provider.gate.set()
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert [str(result) for result in results] == ["slow down"] * 3
    assert len(bench.provider.calls) == 1
    assert len((await bench.ask(limit=5)).candles) == 5


async def test_pages_before_an_error_are_kept(bench: Bench) -> None:
    await bench.ask(start=minute(100), end=minute(110))
    bench.provider.failures = [None, ProviderUnavailable("down")]
    with pytest.raises(ProviderUnavailable):
        await bench.ask(start=minute(0), end=minute(200))
    bench.provider.calls.clear()
    assert (await bench.ask(start=minute(0), end=minute(110))).candles == finals(*range(111))
    assert bench.provider.calls == []


async def test_what_is_stored_comes_without_a_call_with_what_is_known_of_it() -> None:
    # Between 12 and 20 the market is closed.
    times = [minute(n) for n in (*range(10, 13), *range(20, 30))]
    provider = FakeProvider(times, minute(600))
    async with bench_of(provider, Bench) as bench:
        await bench.ask(start=minute(10), end=minute(21))
        await bench.ask(start=minute(25), end=minute(27))
        calls = len(provider.calls)
        past = await bench.history.stored(
            HistoryRequest(provider, KEY, start=None, end=None, limit=100, live=lambda: None)
        )
        assert past.candles == finals(10, 11, 12, 20, 21, 25, 26, 27)
        assert not past.is_complete
        assert past.known == (Span(minute(10), minute(21) + 1), Span(minute(25), minute(27) + 1))
        # What lies before the first of the candles is known, but not in the answer.
        few = await bench.history.stored(
            HistoryRequest(provider, KEY, start=None, end=None, limit=5, live=lambda: None)
        )
        assert few.candles == finals(20, 21, 25, 26, 27)
        assert few.known == (Span(minute(20), minute(21) + 1), Span(minute(25), minute(27) + 1))
        assert len(provider.calls) == calls


async def test_known_range_is_answered_while_the_provider_fails(bench: Bench) -> None:
    await bench.ask(start=minute(100), end=minute(110))
    bench.provider.failures = [ProviderUnavailable("down")] * 5
    assert (await bench.ask(start=minute(100), end=minute(110))).is_complete
    with pytest.raises(ProviderUnavailable):
        await bench.ask(start=minute(100), end=minute(111))


async def test_messy_answer_is_cleaned(bench: Bench) -> None:
    class Messy(FakeProvider):
        async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
            rows = list(await super().candles(key, start, end, limit))
            broken = rows[2]._replace(high=0.0)
            not_a_number = rows[3]._replace(close=float("nan"))
            outside = [rows[0]._replace(time=0), rows[0]._replace(time=end)]
            return [*outside, rows[1]._replace(close=1.5), *reversed(rows[4:]), not_a_number, broken, rows[1], rows[0]]

    bench.provider.__class__ = Messy
    past = await bench.ask(start=minute(10), end=minute(19))
    assert past.candles == finals(10, 11, 14, 15, 16, 17, 18, 19)
    assert past.unreadable == (Span(minute(12), minute(13)), Span(minute(13), minute(14)))
    assert bench.history.calls.dropped == 2


async def test_provider_without_history_gives_what_the_store_has(bench: Bench) -> None:
    bench.provider.has_history = False
    for n in (5, 6, 7):
        bench.store.put_closed("fake", KEY, final(minute(n)), after=None)
    assert await bench.ask(limit=2) == PastCandles(finals(6, 7), True, False)
    assert await bench.ask(start=minute(6)) == PastCandles(finals(6, 7), True, False)
    assert bench.provider.calls == []


async def test_answers_are_right_while_the_disk_is_full(bench: Bench) -> None:
    await bench.store._database.connection.execute_fetchall("PRAGMA max_page_count = 1")
    past = await bench.ask(start=minute(0), limit=500)
    assert past == PastCandles(finals(*range(500)), True, True)
    assert str(bench.store.problem) == "the disk is full"
    assert (await bench.ask(limit=300)).candles[:-1] == finals(*range(301, 600))
    assert set(bench.provider.fetched.values()) == {1}
    await bench.store._database.connection.execute_fetchall("PRAGMA max_page_count = 100000")


async def test_unreadable_store_is_an_error(bench: Bench) -> None:
    await bench.store.close()
    with pytest.raises(StoreError):
        await bench.ask(limit=5)


# What an answer leaves out


async def test_a_row_that_cannot_be_read_is_left_out_and_named(bench: Bench) -> None:
    bench.provider.spoilt = {minute(14)}
    past = await bench.ask(start=minute(10), end=minute(19))
    assert past.candles == finals(10, 11, 12, 13, 15, 16, 17, 18, 19)
    assert (past.is_complete, past.unreadable) == (False, (Span(minute(14), minute(15)),))


async def test_for_a_row_that_cannot_be_read_an_older_one_comes(bench: Bench) -> None:
    bench.provider.spoilt = {minute(300)}
    past = await bench.ask(end=minute(599), limit=500)
    assert past.candles == finals(*range(99, 300), *range(301, 600))
    assert past.unreadable == (Span(minute(300), minute(301)),)
    assert (await bench.ask(start=minute(299), limit=2)).candles == finals(299, 301)
    assert len(bench.provider.calls) == 2


async def test_a_row_that_cannot_be_read_costs_no_call_until_it_is_asked_for_again(bench: Bench) -> None:
    bench.provider.spoilt = {minute(14)}
    first = await bench.ask(start=minute(10), end=minute(19))
    for _ in range(5):
        assert await bench.ask(start=minute(10), end=minute(19)) == first
    assert (await bench.ask(end=minute(19), limit=3)).is_complete
    assert len(bench.provider.calls) == 1
    bench.provider.now += 5
    assert await bench.ask(start=minute(10), end=minute(19)) == first
    assert await bench.ask(start=minute(10), end=minute(19)) == first
    assert bench.provider.calls[1:] == [(minute(14), minute(14) + 1, 2)]


async def test_a_row_that_can_be_read_later_is_stored(bench: Bench) -> None:
    bench.provider.spoilt = {minute(14)}
    await bench.ask(start=minute(10), end=minute(19))
    bench.provider.spoilt.clear()
    bench.provider.now += 5
    assert await bench.ask(start=minute(10), end=minute(19)) == PastCandles(finals(*range(10, 20)), True, True)
    assert await bench.ask(start=minute(10), end=minute(19)) == PastCandles(finals(*range(10, 20)), True, True)
    assert len(bench.provider.calls) == 2
    assert set(bench.provider.fetched.values()) == {1}
    assert bench.history.calls.doubts.of(("fake", KEY)) == ()


async def test_rows_in_a_row_that_cannot_be_read_are_one_question(bench: Bench) -> None:
    bench.provider.spoilt = {minute(n) for n in range(20, 40)}
    assert len((await bench.ask(start=minute(10), end=minute(49))).candles) == 20
    bench.provider.spoilt = {minute(25)}
    bench.provider.now += 5
    assert (await bench.ask(start=minute(10), end=minute(49))).candles == finals(*range(10, 25), *range(26, 50))
    assert len(bench.provider.calls) == 2


async def test_the_newest_row_that_cannot_be_read_is_named_and_asked_for_again(bench: Bench) -> None:
    bench.provider.now = minute(600) + 4
    bench.provider.spoilt = {minute(599)}
    past = await bench.ask(limit=3)
    assert (past.candles, past.last_is_closed) == ((*finals(597, 598), unfinished(minute(600))), False)
    assert past.unreadable == (Span(minute(599), minute(600)),)
    bench.provider.spoilt.clear()
    bench.provider.now += 5
    assert (await bench.ask(limit=3)).candles == (*finals(598, 599), unfinished(minute(600)))


@pytest.mark.parametrize(
    "torn", [lambda row: unreadable(row.time), lambda row: widened(row._replace(close=row.high * 1.01))]
)
async def test_an_open_row_that_cannot_be_read_or_had_to_be_widened_is_left_out(
    bench: Bench, torn: Callable[[Candle], Candle]
) -> None:
    class Torn(FakeProvider):
        def show(self, times: Sequence[int]) -> list[Candle]:
            return [torn(row) if row.time == minute(600) else row for row in super().show(times)]

    bench.provider.__class__ = Torn
    assert await bench.ask(limit=3) == PastCandles(finals(597, 598, 599), True, True)


async def test_what_is_known_of_the_past_leaves_out_what_cannot_be_read(bench: Bench) -> None:
    bench.provider.spoilt = {minute(14)}
    await bench.ask(start=minute(10), end=minute(19))
    past = await bench.history.stored(
        HistoryRequest(bench.provider, KEY, start=None, end=None, limit=100, live=lambda: None)
    )
    assert past.candles == finals(10, 11, 12, 13, 15, 16, 17, 18, 19)
    assert past.known == (Span(minute(10), minute(14)), Span(minute(14) + 1, minute(19) + 1))


async def test_an_empty_answer_is_believed_for_a_while_only(bench: Bench) -> None:
    bench.provider.left_out = {minute(n) for n in range(600)}
    for _ in range(3):
        past = await bench.ask(start=minute(10), end=minute(59))
        assert past == PastCandles((), True, True, doubted=(Span(minute(10), minute(59) + 1),))
    assert len(bench.provider.calls) == 1
    bench.provider.left_out.clear()
    bench.provider.now += 30
    assert (await bench.ask(start=minute(10), end=minute(59))).candles == finals(*range(10, 60))
    assert len(bench.provider.calls) == 2


async def test_the_beginning_of_history_is_believed_after_four_answers(bench: Bench) -> None:
    bench.provider.left_out = {minute(n) for n in range(500)}
    for pause_s in (0, 30, 300, 1800, 7200):
        bench.provider.now += pause_s
        for _ in range(3):
            past = await bench.ask(end=minute(599), limit=500)
            assert past == PastCandles(finals(*range(500, 600)), True, True)
    assert len(bench.provider.calls) == 4
    bench.provider.left_out.clear()
    assert (await bench.ask(end=minute(599), limit=500)).candles == finals(*range(500, 600))


async def test_an_answer_with_too_few_rows_does_not_hide_the_older_ones(bench: Bench) -> None:
    bench.provider.left_out = {minute(n) for n in range(500)}
    assert len((await bench.ask(end=minute(599), limit=500)).candles) == 100
    bench.provider.left_out.clear()
    bench.provider.now += 30
    assert (await bench.ask(end=minute(599), limit=500)).candles == finals(*range(100, 600))
    assert set(bench.provider.fetched.values()) == {1}


async def test_a_hole_between_rows_is_asked_for_again_by_itself(bench: Bench) -> None:
    bench.provider.left_out = {minute(14)}
    past = await bench.ask(start=minute(10), end=minute(19))
    hole = Span(minute(14), minute(15))
    assert past == PastCandles(finals(10, 11, 12, 13, *range(15, 20)), True, True, doubted=(hole,))
    bench.provider.left_out.clear()
    bench.provider.now += 30
    assert (await bench.ask(start=minute(10), end=minute(19))).candles == finals(*range(10, 20))
    assert bench.provider.calls[1:] == [(minute(14), minute(15), 3)]


@pytest.mark.parametrize(("start", "known"), [(minute(17), (17, 560)), (None, (10, 600))])
async def test_what_is_stored_while_a_request_goes_on_is_in_its_answer(
    bench: Bench, start: int | None, known: tuple[int, int]
) -> None:
    for first, end in ((known[0], 18), (19, known[1])):
        await bench.store.add("fake", KEY, finals(*range(first, end)), Span(minute(first), minute(end)))
    bench.provider.left_out.add(minute(18))
    await bench.ask(start=minute(18), end=minute(19) - 1)
    # The walk comes past minute 18, which is in doubt, and goes on to what nobody has asked for yet.
    bench.provider.entered.clear()
    bench.provider.gate = asyncio.Event()
    request = asyncio.create_task(bench.ask(start=start, end=minute(599), limit=595))
    await bench.provider.entered.wait()
    await bench.store.add("fake", KEY, finals(18), Span(minute(18), minute(19)))
    bench.provider.gate.set()
    past = await request
    assert minute(18) in [candle.time for candle in past.candles]
    assert past.doubted == ()


async def test_an_answer_without_a_candle_makes_no_short_past_complete(bench: Bench) -> None:
    times, bench.provider.times = bench.provider.times, []
    live = LiveEdge(since=minute(599) + 1, candle=unfinished(minute(600)), is_closed=False)
    asked = HistoryRequest(bench.provider, KEY, start=None, end=None, limit=5, live=lambda: live)
    for _ in range(2):
        past = await bench.history.candles(asked)
        assert (past.candles, past.doubted) == ((unfinished(minute(600)),), (Span(0, minute(599) + 1),))
        assert (await bench.history.text(asked)).doubted == past.doubted
    # Where it has some, it says where they begin.
    bench.provider.times = times
    bench.provider.now += EMPTY_PAUSES_S[0]
    assert (await bench.history.candles(asked)).doubted == ()
    async with bench_of(FakeProvider([minute(598), minute(599), minute(600)], minute(600) + 30), Bench) as young:
        past = await young.ask(limit=5)
        assert (past.candles, past.doubted) == ((*finals(598, 599), unfinished(minute(600))), ())


async def test_it_is_believed_that_none_follows_when_four_answers_agree(bench: Bench) -> None:
    bench.provider.times = [minute(n) for n in range(100)]
    for pause_s in EMPTY_PAUSES_S:
        assert (await bench.ask(limit=10)).doubted[0].start == minute(100)
        bench.provider.now += pause_s
    assert (await bench.ask(limit=10)).doubted == ()


async def test_a_hole_that_only_an_answer_of_this_moment_has_is_doubted_as_well(bench: Bench) -> None:
    bench.provider.left_out = {minute(599)}
    past = await bench.ask(limit=3)
    hole = Span(minute(599), minute(600))
    assert past == PastCandles((*finals(597, 598), unfinished(minute(600))), False, True, doubted=(hole,))
    text = await bench.history.text(HistoryRequest(bench.provider, KEY, None, None, 3))
    assert (len(bench.provider.calls), text.doubted) == (1, (hole,))
    # The live stream vouches for it that there is none, and nobody else: not where each interval has a candle.
    live = LiveEdge(minute(598) + 1, unfinished(minute(600)))
    past = await bench.history.candles(HistoryRequest(bench.provider, KEY, None, None, 3, live=lambda: live))
    assert past.doubted == ()
    bench.provider.info = bench.provider.info._replace(has_every_candle=True)
    stored = await bench.history.stored(HistoryRequest(bench.provider, KEY, None, None, 3))
    assert (stored.candles, stored.known) == (past.candles, (Span(minute(597), minute(599)),))


async def test_a_machine_and_a_symbol_that_are_ahead_together_close_nothing_and_cover_no_future(bench: Bench) -> None:
    provider = bench.provider
    provider.clock = clock = ProviderClock(Clock(wall=lambda: provider.now + 7200, monotonic=lambda: provider.now))
    clock.observe(provider.now)
    clock.observe(provider.now + 7200, "WRONG")
    answer = provider.candles

    async def answer_with_date(key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        rows = await answer(key, start, end, limit)
        clock.observe(provider.now)
        return rows

    provider.candles = answer_with_date  # type: ignore[method-assign]
    for pause_s in (*EMPTY_PAUSES_S, 0.0):
        past = await bench.ask(limit=5)
        assert past.candles[-1] == unfinished(minute(600 + int(provider.now - minute(600)) // 60))
        assert not past.last_is_closed
        assert (await bench.store.spans("fake", KEY, 0, 1 << 40))[-1].end <= provider.now
        provider.now += pause_s


async def test_what_an_answer_lacks_at_its_end_is_doubted_where_each_interval_has_a_candle(bench: Bench) -> None:
    provider = bench.provider

    async def doubted(start: int | None = None, end: int | None = None) -> tuple[Span, ...]:
        # From the provider, then from memory.
        found = [await bench.history.text(HistoryRequest(provider, KEY, start, end, 5)) for _ in range(2)]
        assert found[0].doubted == found[1].doubted
        return found[0].doubted

    provider.left_out = {minute(598), minute(599), minute(600)}
    assert await doubted() == ()
    provider.info = provider.info._replace(has_every_candle=True)
    # Up to what is over by now; the open candle, and all that is not asked for, is missed by nobody.
    lacked = (Span(minute(598), minute(599) + 31),)
    assert await doubted() == await doubted(minute(595)) == await doubted(end=minute(620)) == lacked
    assert await doubted(end=minute(597)) == await doubted(minute(594), minute(597)) == ()
    assert await doubted(minute(601)) == ()
    # What has stood still for so long was halted, or is away.
    provider.now += 1200 * 60
    assert await doubted() == ()


@pytest.mark.parametrize("count", [0, 600])
async def test_an_instrument_that_stands_still_lacks_nothing_however_often_and_how_it_is_asked_for(
    bench: Bench, count: int
) -> None:
    provider, began_at = bench.provider, bench.provider.now
    provider.info = provider.info._replace(has_every_candle=True)
    provider.times = provider.times[:count]

    async def doubted(start: int | None, end: int | None) -> bool:
        return bool((await bench.history.text(HistoryRequest(provider, KEY, start, end, 5))).doubted)

    while provider.now < began_at + 7200:
        present = [(None, None), (None, int(provider.now)), (minute(600), None), (minute(600), int(provider.now))]
        found = [await doubted(start, end) for start, end in present]
        if provider.now >= began_at + 3600:
            assert not any(found)
        elif began_at + 60 <= provider.now < began_at + 1800:
            assert all(found)
        provider.now += 61
    # What was asked for up to an open time is another matter.
    assert await doubted(None, minute(700))


async def test_whoever_takes_no_older_answer_asks_for_what_one_left_out(bench: Bench) -> None:
    bench.provider.left_out = {minute(14)}
    await bench.ask(start=minute(10), end=minute(19))
    bench.provider.left_out.clear()
    bench.provider.now += 1

    async def ask(*, must_be_new: bool) -> PastCandles:
        asked = HistoryRequest(bench.provider, KEY, minute(10), minute(19), 20, must_be_new=must_be_new)
        return await bench.history.candles(asked)

    assert len((await ask(must_be_new=False)).candles) == 9
    assert (await ask(must_be_new=True)).candles == finals(*range(10, 20))


async def test_many_holes_between_rows_are_asked_for_again_together(bench: Bench) -> None:
    bench.provider.left_out = {minute(n) for n in range(12, 60, 2)}
    assert len((await bench.ask(start=minute(10), end=minute(69))).candles) == 36
    bench.provider.left_out = {minute(20)}
    for pause_s in (0, 30, 300, 1800, 7200):
        bench.provider.now += pause_s
        for _ in range(3):
            past = await bench.ask(start=minute(10), end=minute(69))
        assert past.candles == finals(*range(10, 20), *range(21, 70)) or not pause_s
    assert bench.provider.calls[1:] == [(minute(12), minute(59), 49)] * 3


async def test_a_request_is_answered_although_what_is_in_doubt_cannot_be_asked_for(bench: Bench) -> None:
    bench.provider.spoilt = {minute(14)}
    first = await bench.ask(start=minute(10), end=minute(19))
    bench.provider.now += 5
    bench.provider.failures = [RateLimited("slow down", 60.0)]
    assert await bench.ask(start=minute(10), end=minute(19)) == first
    assert await bench.ask(start=minute(10), end=minute(19)) == first
    assert len(bench.provider.calls) == 2


async def test_what_is_in_doubt_is_asked_for_again_from_the_first_half_of_a_budget(bench: Bench) -> None:
    bench.provider.left_out = {minute(12), minute(14), minute(16)}
    bench.provider.spoilt = {minute(18)}
    await bench.ask(start=minute(10), end=minute(19))
    for used, asked in ((8, [18]), (4, [18]), (2, [18, 16]), (0, [18, 16, 14, 12])):
        bench.provider.now += 4000
        bench.provider.calls.clear()
        bench.provider.budget = [Budget("credits", 8, used, bench.provider.now + 60)]
        assert len((await bench.ask(start=minute(10), end=minute(19))).candles) == 6
        assert [start for start, _, _ in bench.provider.calls] == [minute(number) for number in asked]


async def test_an_answer_with_something_in_doubt_is_kept_until_it_is_asked_for_again(bench: Bench) -> None:
    async def text() -> EncodedCandles:
        return await bench.history.text(
            HistoryRequest(bench.provider, KEY, start=minute(10), end=minute(19), limit=500, live=lambda: None)
        )

    bench.provider.left_out = {minute(14)}
    await text()
    known = await text()
    bench.provider.left_out.clear()
    bench.provider.now += 29
    assert known.is_current()
    bench.provider.now += 1
    assert not known.is_current()
    assert decode((await text()).chunk) == [*finals(*range(10, 20))]
    whole = await text()
    bench.provider.now += 4000
    assert whole.is_current()


async def test_what_the_live_stream_tells_does_not_end_a_doubt(bench: Bench) -> None:
    bench.provider.left_out = {minute(14)}
    await bench.ask(start=minute(10), end=minute(15))
    bench.history.keep("fake", KEY, final(minute(16)), minute(13))
    bench.provider.left_out.clear()
    bench.provider.now += 30
    assert (await bench.ask(start=minute(10), end=minute(16))).candles == finals(*range(10, 17))


async def test_what_the_live_stream_told_of_a_doubt_is_not_fetched_again(bench: Bench) -> None:
    bench.provider.left_out = {minute(n) for n in range(10, 18)}
    await bench.ask(start=minute(5), end=minute(17))
    bench.history.keep("fake", KEY, final(minute(12)), None)
    bench.history.keep("fake", KEY, final(minute(13)), minute(12))
    bench.history.keep("fake", KEY, final(minute(17)), None)
    bench.provider.calls.clear()
    bench.provider.left_out.clear()
    bench.provider.now += 30
    assert (await bench.ask(start=minute(5), end=minute(17))).candles == finals(*range(5, 18))
    # Between two open times that follow each other there is nothing to ask for.
    assert [(start, end) for start, end, _ in bench.provider.calls] == [
        (minute(13) + 1, minute(17)),
        (minute(10), minute(12)),
    ]


async def test_a_candle_that_comes_after_all_is_news(bench: Bench) -> None:
    told: list[News] = []
    bench.history.calls.on_news = told.append
    bench.provider.left_out = {minute(14)}
    await bench.ask(start=minute(10), end=minute(19))
    assert told == []
    bench.provider.left_out.clear()
    bench.provider.now += 30
    await bench.ask(start=minute(10), end=minute(19))
    assert told == [News("fake", KEY, [], [*finals(14)], bench.provider.now)]


# What history says of candles that are known


def back(bench: Bench, candles: int = 3) -> list[News]:
    """Let questions reach back into what is known, and return where the news of it arrives."""
    told: list[News] = []
    bench.provider.info = bench.provider.info._replace(candles_back=candles)
    bench.history.calls.on_news = told.append
    return told


async def test_known_candles_before_a_question_are_compared_and_put_right(bench: Bench) -> None:
    told = back(bench)
    live = final(minute(19))._replace(close=1.5)
    await bench.store.add("fake", KEY, [*finals(17, 18), live], Span(minute(17), minute(20)))
    await bench.ask(start=minute(17), end=minute(29))
    assert (await bench.ask(start=minute(17), end=minute(29))).candles == finals(*range(17, 30))
    assert bench.provider.calls == [(minute(17), minute(29) + 1, 500)]
    assert told == [News("fake", KEY, [final(minute(19))], [], bench.provider.now)]
    assert await bench.store.read("fake", KEY, minute(17), minute(20)) == [*finals(17, 18, 19)]
    assert (bench.history.calls.compared["fake"], bench.history.calls.differed["fake"]) == (3, 1)


async def test_a_question_reaches_back_only_into_what_is_known_and_within_a_page(bench: Bench) -> None:
    back(bench)
    await bench.store.add("fake", KEY, finals(18, 19), Span(minute(18), minute(20)))
    await bench.ask(start=minute(20), end=minute(29))
    assert bench.provider.calls == [(minute(18), minute(29) + 1, 502)]
    bench.provider.info = bench.provider.info._replace(candles_per_call=50)
    await bench.ask(start=minute(30), end=minute(100), limit=50)
    assert bench.provider.calls[1:] == [(minute(30), minute(100) + 1, 50)]


async def test_what_the_stream_told_while_history_was_asked_stands(bench: Bench) -> None:
    told = back(bench)
    await bench.store.add("fake", KEY, finals(17, 18, 19), Span(minute(17), minute(20)))
    bench.provider.changed[minute(18)] = final(minute(18))._replace(volume=9.0)
    bench.provider.gate = asyncio.Event()
    request = asyncio.create_task(bench.ask(start=minute(17), end=minute(29)))
    await bench.provider.entered.wait()
    newer, fresh = final(minute(18))._replace(volume=11.0), final(minute(25))._replace(volume=12.0)
    bench.store.put_closed("fake", KEY, newer, None)
    bench.store.put_closed("fake", KEY, fresh, None)
    bench.provider.gate.set()
    await request
    assert told == []
    kept = {row.time: row for row in await bench.store.read("fake", KEY, minute(17), minute(30))}
    assert (kept[minute(18)], kept[minute(25)]) == (newer, fresh)


async def test_what_was_given_before_it_settled_is_compared_when_it_has(bench: Bench) -> None:
    told: list[News] = []
    bench.history.calls.on_news = told.append
    given = [final(minute(17)), final(minute(18))._replace(close=1.5)]
    bench.history.calls.finals.note_given(bench.provider, KEY, given)
    for _ in range(2):
        await bench.ask(start=minute(17), end=minute(29))
    assert told == [News("fake", KEY, [final(minute(18))], [], bench.provider.now)]


def lifted(number: int) -> Candle:
    """Return what becomes of a row whose close is above its high."""
    return widened(final(minute(number))._replace(close=3.1))


async def test_a_row_that_had_to_be_widened_puts_nothing_right(bench: Bench) -> None:
    told = back(bench)
    await bench.store.add("fake", KEY, finals(17, 18, 19), Span(minute(17), minute(20)))
    bench.provider.changed[minute(18)] = lifted(18)
    assert (await bench.ask(start=minute(17), end=minute(29))).candles == finals(*range(17, 30))
    assert told == []
    assert await bench.store.read("fake", KEY, minute(17), minute(20)) == [*finals(17, 18, 19)]
    assert (bench.history.calls.compared["fake"], bench.history.calls.differed["fake"]) == (2, 0)


async def test_a_comparison_with_a_row_that_had_to_be_widened_is_made_again(bench: Bench) -> None:
    told = back(bench)
    live = final(minute(18))._replace(close=1.5)
    await bench.store.add("fake", KEY, [*finals(17), live, *finals(19)], Span(minute(17), minute(20)))
    bench.provider.changed[minute(18)] = lifted(18)
    await bench.ask(start=minute(17), end=minute(29))
    bench.provider.changed.clear()
    bench.provider.now += EMPTY_PAUSES_S[0]
    assert (await bench.ask(start=minute(17), end=minute(29))).candles == finals(*range(17, 30))
    assert told == [News("fake", KEY, [*finals(18)], [], bench.provider.now)]


async def test_a_row_that_had_to_be_widened_is_served_and_asked_for_again(bench: Bench) -> None:
    told: list[News] = []
    bench.history.calls.on_news = told.append
    bench.provider.changed[minute(18)] = lifted(18)
    for _ in range(2):
        past = await bench.ask(start=minute(17), end=minute(19))
        assert past == PastCandles((final(minute(17)), lifted(18), final(minute(19))), True, True)
    assert len(bench.provider.calls) == 1
    bench.provider.changed.clear()
    bench.provider.now += EMPTY_PAUSES_S[0]
    assert (await bench.ask(start=minute(17), end=minute(19))).candles == finals(17, 18, 19)
    assert told == [News("fake", KEY, [*finals(18)], [], bench.provider.now)]


async def test_a_row_that_is_always_to_be_widened_is_believed_when_four_answers_had_it(bench: Bench) -> None:
    bench.provider.changed[minute(18)] = lifted(18)
    for pause_s in (*EMPTY_PAUSES_S, 86_400.0, 86_400.0):
        await bench.ask(start=minute(17), end=minute(19))
        bench.provider.now += pause_s
    assert len(bench.provider.calls) == 1 + len(EMPTY_PAUSES_S)
    assert bench.history.calls.doubts.count("fake") == 0
    assert await bench.store.spans("fake", KEY, 0, minute(30)) == [Span(minute(17), minute(19) + 1)]


@pytest.mark.parametrize("comes_from_history", [True, False])
async def test_a_candle_that_had_to_be_widened_is_asked_for_again_by_the_next_run(
    bench: Bench, comes_from_history: bool
) -> None:
    if comes_from_history:
        bench.provider.changed[minute(18)] = lifted(18)
        await bench.ask(start=minute(17), end=minute(19))
    else:
        bench.history.keep("fake", KEY, final(minute(17)), None)
        bench.history.keep("fake", KEY, lifted(18), minute(17))
        bench.history.keep("fake", KEY, final(minute(19)), minute(18))
        past = await bench.ask(start=minute(17), end=minute(19))
        assert (past.candles[1], bench.provider.calls) == (lifted(18), [])
    told: list[News] = []
    again = Bench(bench.provider, bench.store)
    again.history.calls.on_news = told.append
    bench.provider.changed.clear()
    bench.provider.calls.clear()
    for _ in range(2):
        assert (await again.ask(start=minute(17), end=minute(19))).candles == finals(17, 18, 19)
    assert [call[:2] for call in bench.provider.calls] == [(minute(18), minute(18) + 1)]
    assert told == [News("fake", KEY, [*finals(18)], [], bench.provider.now)]
    await again.history.close()


async def test_what_was_given_stands_where_the_row_had_to_be_widened(bench: Bench) -> None:
    told: list[News] = []
    bench.history.calls.on_news = told.append
    bench.history.calls.finals.note_given(bench.provider, KEY, finals(18))
    bench.provider.changed[minute(18)] = lifted(18)
    await bench.ask(start=minute(17), end=minute(29))
    assert told == []
    assert await bench.store.read("fake", KEY, minute(17), minute(20)) == [*finals(17, 18, 19)]


async def test_what_was_given_is_no_news_of_what_the_stream_told_since(bench: Bench) -> None:
    told = back(bench)
    bench.history.calls.finals.note_given(bench.provider, KEY, [final(minute(18))._replace(close=1.5)])
    await bench.store.add("fake", KEY, finals(17, 18, 19), Span(minute(17), minute(20)))
    bench.provider.changed[minute(18)] = lifted(18)
    assert (await bench.ask(start=minute(17), end=minute(29))).candles == finals(*range(17, 30))
    assert told == []


@pytest.mark.parametrize("is_same", [False, True])
async def test_candles_that_are_far_from_few_stored_ones_are_taken_if_they_are_the_same_instruments(
    bench: Bench, is_same: bool
) -> None:
    news, told = back(bench), []

    async def find_out(*what: object) -> bool:
        told.append(what)
        return is_same

    bench.history.calls.on_disagreement = find_out
    other = [final(minute(n))._replace(open=80.0, high=82.0, low=79.0, close=81.0) for n in (17, 18, 19)]
    await bench.store.add("fake", KEY, other, Span(minute(17), minute(20)))
    await bench.ask(start=minute(17), end=minute(29))
    assert told == [("fake", KEY, minute(19))]
    assert [one.changed for one in news] == ([[*finals(17, 18, 19)]] if is_same else [])
    stored = await bench.store.read("fake", KEY, minute(17), minute(30))
    assert stored == ([*finals(*range(17, 30))] if is_same else other)


@pytest.mark.parametrize("answers", [1, 2])
async def test_an_answer_that_is_far_from_what_is_known_is_used_if_the_next_one_says_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    news, far = back(bench), {"left": 0}
    answer = bench.provider.candles

    async def answer_of_another(key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        rows = await answer(key, start, end, limit)
        far["left"] -= 1
        return rows if far["left"] < 0 else [row._replace(open=80.0, high=82.0, low=79.0, close=81.0) for row in rows]

    async def find_out(*_: object) -> bool:
        return True

    monkeypatch.setattr(bench.provider, "candles", answer_of_another)
    bench.history.calls.on_disagreement = find_out
    await bench.ask(start=minute(10), end=minute(20) - 1)
    bench.provider.calls.clear()
    far["left"] = answers
    past = await bench.ask(start=minute(20), end=minute(29))
    assert bench.provider.calls == 2 * [(minute(17), minute(29) + 1, 503)]
    stored = await bench.store.read("fake", KEY, minute(10), minute(30))
    if answers == 1:
        assert (past.candles, stored, news) == (finals(*range(20, 30)), [*finals(*range(10, 30))], [])
    else:
        assert [one.close for one in past.candles] == 10 * [81.0]
        assert [one.close == 81.0 for one in stored] == 7 * [False] + 13 * [True]
        assert [[candle.time for candle in one.changed] for one in news] == [[minute(n) for n in (17, 18, 19)]]


async def test_a_candle_that_was_believed_not_to_exist_is_found(bench: Bench) -> None:
    told = back(bench)
    await bench.store.add("fake", KEY, finals(17, 19), Span(minute(17), minute(20)))
    await bench.ask(start=minute(20), end=minute(29))
    assert told == [News("fake", KEY, [], [*finals(18)], bench.provider.now)]
    assert await bench.store.read("fake", KEY, minute(17), minute(20)) == [*finals(17, 18, 19)]


# Anything


class World(Bench):
    """Checks each answer against what the provider could have shown while it was asked."""

    def __init__(self, provider: FakeProvider, store: Store) -> None:
        super().__init__(provider, store)
        self.live: set[int] = set()
        self.live_at = 0
        self.provider.is_second_look = lambda start, end: any(
            doubt.is_sparse and doubt.span == (start, end) for doubt in self.history.calls.doubts.of(("fake", KEY))
        )
        self.was_spoilt: set[int] = set()
        self.was_left_out: set[int] = set()

    def known(self, shown: int) -> list[int]:
        return sorted({*self.provider.times[:shown], *self.live})

    def live_now(self) -> LiveEdge | None:
        last = self.provider.times[self.live_at - 1] if self.live_at else None
        following = (
            self.provider.times[self.live_at] if self.live_at < len(self.provider.times) else self.provider.now + 1
        )
        if last is None or last not in self.live or following + 60 <= self.provider.now:
            return None
        is_open = following <= self.provider.now
        return LiveEdge(last + 1, unfinished(int(following)) if is_open else None)

    async def check(self, start: int | None, end: int | None, limit: int, *, with_live: bool = False) -> None:
        began, shown_before, live_before = self.provider.now, len(self.provider.visible()), set(self.live)
        for asked_at, shown, arrived_at in self.provider.answers:
            if self.provider.now - arrived_at < self.provider.info.fresh_s:
                began, shown_before = min(began, asked_at), min(shown_before, shown)
        live = self.live_now() if with_live else None
        try:
            if limit % 2:
                text = await self.history.text(
                    HistoryRequest(
                        self.provider, KEY, start=start, end=end, limit=limit, live=lambda: live, client=str(limit % 4)
                    )
                )
                past = PastCandles(tuple(decode(text.chunk)), text.last_is_closed, True)
            else:
                past = await self.history.candles(
                    HistoryRequest(
                        self.provider,
                        KEY,
                        start=start,
                        end=end,
                        limit=limit,
                        live=lambda: live,
                        must_be_new=limit % 5 == 0,
                    )
                )
        except ProviderUnavailable:
            return
        assert past.is_complete or past.unreadable
        open_times = {live.candle.time} if live is not None and live.candle is not None else set()
        times = [candle.time for candle in past.candles]
        possible, everything = [], []
        for shown in range(shown_before, len(self.provider.visible()) + 1):
            inside = [
                t
                for t in sorted({*self.known(shown), *open_times})
                if (start or 0) <= t <= (self.provider.now if end is None else end)
            ]
            everything.append(inside)
            possible.append(inside[-limit:] if start is None else inside[:limit])
        doubtful = self.was_spoilt | self.was_left_out
        if doubtful:
            assert any(could_be(times, all_of, limit, start is None, doubtful) for all_of in everything)
            assert not {lost.start for lost in past.unreadable} - self.was_spoilt
        else:
            assert times in possible, (times, possible)
        for index, candle in enumerate(past.candles):
            is_last = index == len(times) - 1
            if candle.time in live_before or candle.time + 60 + GRACE_S <= began:
                assert candle == final(candle.time)
            assert candle in (final(candle.time), unfinished(candle.time))
            if is_last and not past.last_is_closed:
                assert candle.time + 60 > began
                assert candle.time not in live_before
            if is_last and past.last_is_closed and candle.time not in self.live:
                assert candle.time + 60 <= self.provider.now or candle == final(candle.time)
        assert all(count == 1 for count in self.provider.fetched.values()), self.provider.fetched

    async def recover(self) -> None:
        """Check that what could not be read, and what was left out for a while, is there once the provider gives it."""
        provider = self.provider
        provider.failures, provider.left_out, provider.spoilt, provider.takes_s = [], set(), set(), (0, 0)
        provider.now += 86_400
        everything = set(self.known(len(provider.visible())))
        for _ in range(20):
            provider.now += 3600
            past = await self.ask(start=0, limit=500)
            if past.is_complete and everything <= {candle.time for candle in past.candles}:
                break
        provider.now += 20 * 3600
        past = await self.ask(start=0, limit=500)
        assert past.is_complete
        missing = everything - {candle.time for candle in past.candles}
        assert not missing - self.was_left_out
        assert not {time for time in missing if provider.omitted[time] <= len(EMPTY_PAUSES_S)}

    def deliver(self, lost: frozenset[int]) -> None:
        """Let the live stream close what is due, except the `lost` ones."""
        provider = self.provider
        while self.live_at < len(provider.times) and provider.times[self.live_at] + 60 <= provider.now:
            time = provider.times[self.live_at]
            if self.live_at not in lost:
                before = provider.times[self.live_at - 1] if self.live_at else None
                self.history.keep("fake", KEY, final(time), before if before in self.live else None)
                self.live.add(time)
                # Once put, a fetch counts as the second one.
                provider.fetched[time] = max(provider.fetched[time], 1)
            self.live_at += 1


def could_be(found: list[int], inside: list[int], limit: int, is_newest: bool, doubtful: set[int]) -> bool:
    """Say whether an answer has all that is inside a range, up to its limit, but some of what is doubtful."""
    certain = [time for time in inside if time not in doubtful]
    if len(found) >= limit:
        certain = [time for time in certain if (time >= found[0] if is_newest else time <= found[-1])]
    return len(found) <= limit and {*certain} <= {*found} <= {*inside}


MINUTES = 120


class Asked(NamedTuple):
    start: int | None
    end: int | None
    limit: int


class Action(NamedTuple):
    """What happens to a world next; as a value, so that a failing example prints it."""

    do: Callable[..., Awaitable[None]]
    what: object


async def asking(world: World, several: Sequence[Asked]) -> None:
    if len(several) > 1:
        calls = (world.ask(start=start, end=end, limit=limit) for start, end, limit in several)
        await asyncio.gather(*calls, return_exceptions=True)
    for start, end, limit in several:
        await world.check(start, end, limit)


async def asking_live(world: World, asked: Asked) -> None:
    await world.check(*asked, with_live=True)


async def cancelling(world: World, asked: Asked) -> None:
    world.provider.gate = asyncio.Event()
    request = asyncio.create_task(world.ask(start=asked.start, end=asked.end, limit=asked.limit))
    entered = asyncio.create_task(world.provider.entered.wait())
    await asyncio.wait((request, entered), return_when=asyncio.FIRST_COMPLETED)
    request.cancel()
    entered.cancel()
    world.provider.gate.set()
    world.provider.gate = None
    await asyncio.gather(request, entered, *world.history.calls.tasks(), return_exceptions=True)
    world.provider.entered.clear()


async def waiting(world: World, seconds: int) -> None:
    world.provider.now += seconds


async def delivering(world: World, lost: frozenset[int]) -> None:
    # A call that waits for its turn since a request failed was made before.
    await asyncio.gather(*world.history.calls.tasks(), return_exceptions=True)
    world.deliver(lost)


async def failing(world: World, calls: int) -> None:
    world.provider.failures = [None] * calls + [ProviderUnavailable("down")]


async def spoiling(world: World, numbers: frozenset[int]) -> None:
    world.provider.spoilt = {minute(number) for number in numbers}
    world.was_spoilt |= world.provider.spoilt


async def leaving_out(world: World, numbers: frozenset[int]) -> None:
    world.provider.left_out = {minute(number) for number in numbers}
    world.was_left_out |= world.provider.left_out


async def lagging(world: World, seconds: int) -> None:
    world.provider.lag_s = seconds


async def slowing(world: World, seconds: tuple[int, int]) -> None:
    world.provider.takes_s = seconds


def acts(do: Callable[..., Awaitable[None]], what: st.SearchStrategy[object]) -> st.SearchStrategy[Action]:
    return what.map(partial(Action, do))


moments = st.one_of(
    st.none(), st.integers(-2, MINUTES + 5).map(minute), st.integers(0, 60 * MINUTES).map(START.__add__)
)
asked = st.builds(Asked, moments, moments, st.integers(1, 40))
newest = st.integers(1, 40).map(lambda limit: Asked(None, None, limit))
actions: st.SearchStrategy[Action] = st.one_of(
    acts(asking, asked.map(lambda one: [one])),
    acts(asking, newest.map(lambda one: [one])),
    acts(asking, st.lists(asked, min_size=2, max_size=4)),
    acts(asking_live, asked),
    acts(asking_live, newest),
    acts(cancelling, asked),
    acts(waiting, st.sampled_from([1, 2, 5, 7, 30, 58, 60, 65, 66, 600, 1800])),
    acts(delivering, st.frozensets(st.integers(0, MINUTES), max_size=6)),
    acts(failing, st.integers(0, 3)),
    acts(spoiling, st.frozensets(st.integers(0, MINUTES), max_size=4)),
    acts(
        leaving_out,
        st.one_of(
            st.frozensets(st.integers(0, MINUTES), max_size=4), st.just(frozenset(range(60))), st.just(frozenset[int]())
        ),
    ),
    acts(lagging, st.sampled_from([0, 3, 30, 64])),
    acts(slowing, st.sampled_from([(0, 0), (0, 2), (2, 0), (31, 40)])),
)


async def play(times: Sequence[int], now: int, page: int, at_once: int, script: Sequence[Action]) -> None:
    provider = FakeProvider(times, now, page=page, at_once=at_once)
    async with bench_of(provider, World) as world:
        for action in script:
            await action.do(world, action.what)
        await world.recover()


@settings(max_examples=examples(65))
@given(
    numbers=st.frozensets(st.integers(0, MINUTES), max_size=60).map(
        lambda holes: [n for n in range(MINUTES) if n not in holes]
    ),
    now=st.integers(0, 60 * MINUTES),
    page=st.sampled_from([5000, 5000, 4, 7, 20]),
    at_once=st.integers(1, 4),
    script=st.lists(actions, min_size=2, max_size=14),
)
def test_answers_equal_the_truth_and_no_closed_candle_is_fetched_twice(
    numbers: list[int], now: int, page: int, at_once: int, script: list[Action]
) -> None:
    run(lambda _: play([minute(n) for n in numbers], START + now, page, at_once, script))
