"""Stored candles that carry nothing beside prices and volume are asked for once, when somebody wants them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import orjson
import pytest

from relay.core.clock import Clock, ProviderClock
from relay.core.errors import ProviderError, ProviderUnavailable, RateLimited
from relay.core.model import EXTRA_FIELDS, Budget, Candle, ExtendedCandle, ProviderInfo, StreamKey
from relay.core.past_change import PastChange
from relay.core.spans import Span
from relay.core.trading_hours import TradingHours
from relay.history.final_candles import News
from relay.history.requests import HistoryRequest
from relay.history.service import HistoryService
from relay.storage.chunks import joined
from relay.storage.store import Store

KEY = StreamKey("X", "1m")
NOW = 1_764_000_000.0
FIRST = int(NOW) - 60_000


def full(time: int, trades: int = 3) -> ExtendedCandle:
    return ExtendedCandle(time, 1.0, 2.0, 0.5, 1.5, 10.0, quote_volume=15.0, trades=trades)


class Source:
    """A provider with history whose candles carry more; those in `bare` do not, and `failure` is raised once it is."""

    name = "p"
    has_history = True

    def __init__(self) -> None:
        self.now = NOW
        self.local = Clock(wall=lambda: self.now, monotonic=lambda: self.now)
        self.clock = ProviderClock(self.local)
        self.info = ProviderInfo("p", 1, "P", ("demo",), ("1m",), candles_per_call=100, candle_extras=EXTRA_FIELDS)
        self.asked: list[tuple[int | None, int]] = []
        self.bare: set[int] = set()
        self.changed: dict[int, Candle] = {}
        self.failure: ProviderError | None = None
        self.on_call: Callable[[], None] = lambda: None

    def budgets(self) -> Sequence[Budget]:
        return ()

    def market(self, symbol: str) -> TradingHours:
        return TradingHours()

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        self.asked.append((start, end))
        self.on_call()
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        assert start is not None
        times = range(start + -start % 60, min(end, int(self.now)), 60)
        found = [self.changed.get(time, full(time)) for time in times][:limit]
        return [Candle(*one) if one.time in self.bare else one for one in found]


class Bench:
    """History over a store that holds 1,000 candles of an earlier version."""

    def __init__(self, source: Source, store: Store) -> None:
        self.source = source
        self.store = store
        self.history = HistoryService(store, source.local)
        self.news: list[News] = []
        self.history.calls.on_news = self.news.append

    async def trades(
        self, number: int = 0, limit: int = 50, *, encoded: bool, extended: bool = True
    ) -> list[int | None]:
        """Return the number of trades of some candles as a client gets them."""
        asked = HistoryRequest(
            self.source, KEY, FIRST + 60 * number, None, limit, client="c", extended=extended, needs_extras=extended
        )
        if not encoded:
            return [candle.trades for candle in (await self.history.candles(asked)).candles]
        text = joined((await self.history.text(asked)).chunks).text
        return [row.get("trades") for row in orjson.loads(b"[%b]" % text)]


@pytest.fixture(name="bench")
async def _bench() -> AsyncIterator[Bench]:
    source = Source()
    store = await Store.open(":memory:", source.local)
    await store.add("p", KEY, [Candle(*full(FIRST + 60 * n)) for n in range(900)], Span(0, FIRST + 60 * 900))
    bench = Bench(source, store)
    yield bench
    await bench.history.close()
    await store.close()


def page(first: int, last: int) -> tuple[int, int]:
    return FIRST + 60 * first, FIRST + 60 * last


@pytest.mark.parametrize("encoded", [True, False])
async def test_what_is_stored_without_extras_is_asked_for_once(bench: Bench, encoded: bool) -> None:
    assert await bench.trades(encoded=encoded, extended=False) == [None] * 50
    assert bench.source.asked == []
    for _ in range(3):
        assert await bench.trades(encoded=encoded) == [3] * 50
        assert bench.source.asked == [page(0, 50)]
    assert await bench.trades(encoded=not encoded) == [3] * 50
    # Only what lacks them.
    assert await bench.trades(40, 20, encoded=encoded) == [3] * 20
    assert bench.source.asked == [page(0, 50), page(50, 60)]
    assert [news.changed for news in bench.news] == [[], []]
    assert [candle.trades for candle in await bench.store.read("p", KEY, 0, FIRST + 3600, extended=True)] == [3] * 60


@pytest.mark.parametrize("encoded", [True, False])
async def test_a_long_range_is_asked_for_page_by_page(bench: Bench, encoded: bool) -> None:
    assert await bench.trades(0, 250, encoded=encoded) == [3] * 250
    assert sorted(bench.source.asked) == [page(0, 98), page(98, 196), page(196, 250)]


@pytest.mark.parametrize("encoded", [True, False])
async def test_what_the_provider_does_not_give_after_all_is_not_asked_for_on_each_request(
    bench: Bench, encoded: bool
) -> None:
    bench.source.bare = {FIRST + 60}
    for _ in range(3):
        assert await bench.trades(0, 3, encoded=encoded) == [3, None, 3]
    assert bench.source.asked == [page(0, 3)]


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize(
    ("failure", "pause_s"), [(ProviderUnavailable("down"), 60), (RateLimited("budget", 100.0), 100)]
)
async def test_until_the_provider_answers_it_is_null_and_asked_again_after_a_while(
    bench: Bench, encoded: bool, failure: ProviderError, pause_s: int
) -> None:
    bench.source.failure = failure
    for _ in range(3):
        assert await bench.trades(0, 3, encoded=encoded) == [None] * 3
        bench.source.now += pause_s / 4
    assert len(bench.source.asked) == 1
    bench.source.failure = None
    bench.source.now += pause_s
    for _ in range(2):
        assert await bench.trades(0, 3, encoded=encoded) == [3] * 3
    assert len(bench.source.asked) == 2


async def test_requests_at_once_share_the_call(bench: Bench) -> None:
    found = await asyncio.gather(*(bench.trades(encoded=n % 2 == 0) for n in range(6)))
    assert found == [[3] * 50] * 6
    assert bench.source.asked == [page(0, 50)]


async def test_a_provider_without_extras_is_not_asked(bench: Bench) -> None:
    bench.source.info = bench.source.info._replace(candle_extras=())
    for encoded in (True, False):
        assert await bench.trades(encoded=encoded) == [None] * 50
    assert bench.source.asked == []


async def test_other_values_that_come_along_are_a_revision_and_other_extras_one_of_those(bench: Bench) -> None:
    bench.store.put_extras("p", KEY, [full(FIRST + 60, 3), full(FIRST + 240, 3)])
    changed = ExtendedCandle(FIRST + 120, 1.0, 2.0, 0.5, 1.75, 10.0, trades=5)
    bench.source.changed = {FIRST + 60: full(FIRST + 60, 4), FIRST + 120: changed}
    bench.source.bare = {FIRST + 240}
    assert await bench.trades(0, 6, encoded=False) == [3, 4, 5, 3, 3, 3]
    assert await bench.trades(0, 6, encoded=True) == [3, 4, 5, 3, 3, 3]
    assert bench.source.asked == [page(0, 6)]
    (news,) = bench.news
    assert ([*news.changed], [*news.found]) == ([changed], [])
    assert [(candle.time, candle.trades) for candle in news.refined] == [(FIRST + 60, 4)]
    assert [candle.time for candle in news.filled] == [FIRST, FIRST + 180, FIRST + 300]
    assert bench.history.calls.differed["p"] == 2


async def test_another_past_is_asked_for_again(bench: Bench) -> None:
    assert await bench.trades(0, 3, encoded=True) == [3] * 3
    bench.store.removals.void("p", PastChange(KEY))
    await bench.store.add("p", KEY, [Candle(*full(FIRST + 60 * n)) for n in range(3)], Span(0, FIRST + 180))
    assert await bench.trades(0, 3, encoded=True) == [3] * 3
    assert bench.source.asked == [page(0, 3)] * 2


@pytest.mark.parametrize("encoded", [True, False])
async def test_a_past_that_changes_while_extras_are_asked_for_is_asked_for_again(bench: Bench, encoded: bool) -> None:
    def change() -> None:
        bench.source.on_call = lambda: None
        bench.source.changed = {FIRST + 60 * n: full(FIRST + 60 * n, trades=7) for n in range(900)}
        bench.history.change_past(bench.source, PastChange(KEY))

    bench.source.on_call = change
    # Not those that were stored before it, which carry nothing.
    assert await bench.trades(0, 5, encoded=encoded) == [7] * 5


@pytest.mark.parametrize("encoded", [True, False])
async def test_a_past_that_never_stays_the_same_is_refused_after_some_attempts(bench: Bench, encoded: bool) -> None:
    bench.store.removals.void("p", PastChange(KEY))
    bench.source.on_call = lambda: bench.history.change_past(bench.source, PastChange(KEY))
    with pytest.raises(ProviderUnavailable, match="P changes the history of X again and again"):
        await bench.trades(0, 5, encoded=encoded)
    assert 5 <= len(bench.source.asked) <= 30
