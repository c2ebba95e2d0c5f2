"""A feed that is run and watched outside a relay."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import NamedTuple, Self

from relay.core.errors import Killed, ProviderError, log_text
from relay.core.intervals import next_open
from relay.core.model import PriceUpdate, StreamKey
from relay.core.past_change import PastChange
from relay.core.trading_hours import TradingHours
from relay.plugins.provider import Provider
from relay.testing.findings import FaultName, Finding, candle_text, fault_of_update, utc
from relay.testing.tolerances import TOLERANCES, Tolerances
from relay.upstream.watchlist import Done, Watchlist

MOST_CHANGES = 20
"""A check does not last long enough for so many changes of one past."""


class Arrival(NamedTuple):
    """An update and when it came: `at` is the provider's time in Unix seconds."""

    update: PriceUpdate
    at: float


class WatchedFeed:
    """Runs one feed against a watchlist of its own and keeps all that it says; an async context manager.

    `tolerances` say how long it may take to end when it is cancelled, and how far clocks may differ.

    Unlike in a relay nothing is left out: `faults` says what is wrong with an update, beside it being in `updates`.
    """

    def __init__(
        self, provider: Provider, streams: Iterable[StreamKey], *, tolerances: Tolerances = TOLERANCES
    ) -> None:
        self.updates: list[PriceUpdate] = []
        self.arrivals: list[Arrival] = []
        self.faults: list[Finding] = []
        self.accepted: list[StreamKey] = []
        self.rejected: dict[StreamKey, str] = {}
        self.lost: dict[StreamKey, ProviderError] = {}
        self.paused: dict[StreamKey, str] = {}
        self.planned: dict[StreamKey, float] = {}
        self.skipped: list[str] = []
        self.closing: list[str] = []
        self.changes: Counter[str] = Counter()
        self.error: BaseException | None = None
        self.has_ended = False
        self.watchlist = Watchlist(
            streams,
            on_accept=self._on_accept,
            on_reject=self._on_reject,
            on_lose=self._on_lose,
            on_skip=self.skipped.append,
            on_closing=self.closing.append,
            on_pause=self._on_pause,
            on_expect=self._on_expect,
            on_invalidate=self._on_invalidate,
        )
        self._provider = provider
        self._end_s = tolerances.end_s
        self._clock_s = tolerances.clock_s
        self._markets: dict[str, TradingHours] = {}
        self._closed: dict[StreamKey, set[int]] = defaultdict(set)
        self._opened: dict[StreamKey, dict[int, None]] = defaultdict(dict)
        self._last: dict[StreamKey, PriceUpdate] = {}
        self._heard: Counter[StreamKey] = Counter()
        self._news = asyncio.Event()
        self._is_holding = False
        self._is_held = False
        self._task: asyncio.Task[None] | None = None

    def _on_accept(self, key: StreamKey) -> None:
        self.accepted.append(key)
        self._news.set()

    def _on_reject(self, key: StreamKey, error: ProviderError) -> None:
        self.rejected[key] = str(error)
        self._news.set()

    def _on_lose(self, key: StreamKey, error: ProviderError, retry_in_s: float) -> None:
        self.lost[key] = error
        self._news.set()

    def _on_pause(self, key: StreamKey, status: str, message: str) -> None:
        self.paused[key] = f"{status}: {message}"
        self._news.set()

    def _on_expect(self, key: StreamKey, in_s: float, every_s: float | None) -> None:
        self.planned[key] = in_s

    def _on_invalidate(self, change: PastChange) -> Awaitable[None]:
        self.changes[change.symbol] += 1
        if self.changes[change.symbol] == MOST_CHANGES:
            said = f"relay_stream reported {MOST_CHANGES} times that the past of {change.symbol} changed"
            self.faults.append(Finding(FaultName.CHANGES_PAST, said, "once for each split or correction"))
        self._news.set()
        return Done()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"feed of {self._provider.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None and not self._task.done():
            await self._provider.end_feed(self._task)

    async def _run(self) -> None:
        try:
            async with aclosing(self._provider.open_feed(self.watchlist)) as updates:
                async for update in updates:
                    self._take(update)
                    # A feed that never waits must not keep the test from running.
                    await asyncio.sleep(0)
                    if self._is_holding:
                        self._is_held = True
                        self._news.set()
                        await asyncio.Event().wait()
        except (asyncio.CancelledError, GeneratorExit, Killed):
            raise
        except BaseException as error:  # noqa: BLE001 - it is what the test wants to see
            self.error = error
        finally:
            self.has_ended = True
            self._news.set()

    def _take(self, update: PriceUpdate) -> None:
        self._news.set()
        sentence = self._provider.border.fault_of_update(update, self.watchlist)
        if sentence is not None:
            self.faults.append(Finding(fault_of_update(sentence), f"relay_stream: {sentence}"))
            return
        fault = self._fault_in_time(update)
        if fault is not None:
            self.faults.append(fault)
        key, candle = update.key, update.candle
        self.updates.append(update)
        self.arrivals.append(Arrival(update, self._provider.clock.now()))
        self.paused.pop(key, None)
        self.lost.pop(key, None)
        self._heard[key] += 1
        self._opened[key][candle.time] = None
        if update.is_closed:
            self._closed[key].add(candle.time)
        before = self._last.get(key)
        if before is None or candle.time >= before.candle.time:
            self._last[key] = update

    def _fault_in_time(self, update: PriceUpdate) -> Finding | None:
        clock, (key, candle, is_closed, stamp_ms, *_) = self._provider.clock, update
        late_s = 0.0 if stamp_ms is None else clock.observe(stamp_ms / 1000, key.symbol)
        now, opened = clock.now(), candle.time
        what = f"relay_stream: {key}: the candle of {utc(opened)}"
        if opened > now + self._clock_s:
            return Finding(
                FaultName.OPENS_IN_FUTURE,
                f"{what} opens in the future: it is {utc(now)}",
                "`time` is the open time in Unix seconds",
            )
        if stamp_ms is not None and (late_s < -60 or stamp_ms < (opened - 60) * 1000):
            sent = f"{what} was sent at {utc(now)} with ts_event_ms {stamp_ms}, which is {utc(stamp_ms / 1000)}"
            return Finding(FaultName.STAMP_OFF, sent, "the venue's time of the update, in UTC milliseconds")
        before, was_closed = self._last.get(key), opened in self._closed[key]
        if is_closed:
            if self.market(key.symbol).closes_early(
                key.interval, opened, now, slack_s=self._clock_s, is_utc_grid=self._provider.info.is_utc_grid
            ):
                end = next_open(key.interval, opened)
                return Finding(
                    FaultName.CLOSES_EARLY,
                    f"{what} is closed at {utc(now)}",
                    f"it is open until {utc(end)}",
                    candle_text(candle),
                )
            # What opened before the first one is of a snapshot.
            is_seen = opened >= min(self._opened[key], default=opened)
            if before is not None and opened < before.candle.time and is_seen and not was_closed:
                return Finding(FaultName.CLOSES_LATE, f"{what} is closed after an update of {utc(before.candle.time)}")
            return None
        if before is not None and opened < before.candle.time:
            return Finding(
                FaultName.GOES_BACK,
                f"{what} came as open after one of {utc(before.candle.time)}",
                "times never go back",
            )
        if was_closed:
            return Finding(FaultName.REOPENS, f"{what} is open again after it was closed")
        return None

    def market(self, symbol: str) -> TradingHours:
        """Return the hours of a symbol, by `relay_hours`."""
        found = self._markets.get(symbol)
        if found is None:
            found = self._markets[symbol] = self._provider.market(symbol)
        return found

    def count(self, key: StreamKey) -> int:
        """Return how many updates of a stream came."""
        return self._heard[key]

    def last(self, key: StreamKey) -> PriceUpdate | None:
        """Return the newest update of a stream."""
        return self._last.get(key)

    def closed(self, key: StreamKey) -> dict[int, list[Arrival]]:
        """Return what came as closed of a stream, by the open time, in the order of arrival."""
        found: dict[int, list[Arrival]] = {}
        for arrival in self.arrivals:
            if arrival.update.key == key and arrival.update.is_closed:
                found.setdefault(arrival.update.candle.time, []).append(arrival)
        return found

    def times(self, key: StreamKey) -> list[int]:
        """Return the open times of the candles of a stream, in the order in which they began."""
        return list(self._opened[key])

    async def until(self, holds: Callable[[], object], timeout_s: float) -> bool:
        """Wait until something holds, the feed ends or the time is over; return whether it holds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not holds() and not self.has_ended:
                    self._news.clear()
                    await self._news.wait()
        return bool(holds())

    async def cancel(self, *, between_updates: bool = False) -> Finding | None:
        """End the feed as a relay does; return what was wrong with how it ended.

        It is cancelled while it waits, or, `between_updates`, closed where it yields.
        """
        task = self._task
        if task is None or task.done():
            return None
        if between_updates:
            self._is_holding = True
            await self.until(lambda: self._is_held, self._end_s)
        task.cancel()
        await asyncio.wait((task,), timeout=self._end_s)
        how = "closed" if between_updates else "cancelled"
        if not task.done():
            await self._provider.end_feed(task)
            return Finding(
                FaultName.DOES_NOT_END,
                f"relay_stream did not end within {self._end_s:g} s after it was {how}; let CancelledError pass",
            )
        if task.cancelled():
            return None
        if self.error is not None:
            said = f"relay_stream raised {shown(self.error)} when it was {how}; let CancelledError pass"
            return Finding(FaultName.SWALLOWS_CANCELLATION, said)
        return Finding(FaultName.SWALLOWS_CANCELLATION, "relay_stream swallowed CancelledError; let it pass")


def shown(error: BaseException) -> str:
    """Return an error as one line, with what it keeps from clients: authors read it."""
    text = " ".join(log_text(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
