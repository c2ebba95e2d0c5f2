"""A feed that is run and watched outside a relay."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self

from relay.core.model import PriceUpdate, StreamKey
from relay.plugins.provider import Provider
from relay.testing.tolerances import TOLERANCES
from relay.upstream.watchlist import Watchlist


class WatchedFeed:
    """Runs one feed against a watchlist of its own and keeps all that it says; an async context manager.

    Cancelled, it may take `end_s` to end before that is blamed.

    Unlike in a relay nothing is left out: `faults` says what is wrong with an update, beside it being in `updates`.
    """

    def __init__(self, provider: Provider, streams: Iterable[StreamKey], *, end_s: float = TOLERANCES.end_s) -> None:
        self.updates: list[PriceUpdate] = []
        self.faults: list[str] = []
        self.accepted: list[StreamKey] = []
        self.rejected: dict[StreamKey, str] = {}
        self.paused: dict[StreamKey, str] = {}
        self.skipped: list[str] = []
        self.closing: list[str] = []
        self.error: BaseException | None = None
        self.has_ended = False
        self.watchlist = Watchlist(
            streams,
            on_accept=self._on_accept,
            on_reject=self._on_reject,
            on_skip=self.skipped.append,
            on_closing=self.closing.append,
            on_pause=self._on_pause,
        )
        self._provider = provider
        self._end_s = end_s
        self._last: dict[StreamKey, PriceUpdate] = {}
        self._heard: Counter[StreamKey] = Counter()
        self._news = asyncio.Event()
        self._is_holding = False
        self._is_held = False
        self._task: asyncio.Task[None] | None = None

    def _on_accept(self, key: StreamKey) -> None:
        self.accepted.append(key)
        self._news.set()

    def _on_reject(self, key: StreamKey, reason: str) -> None:
        self.rejected[key] = reason
        self._news.set()

    def _on_pause(self, key: StreamKey, status: str, message: str) -> None:
        self.paused[key] = f"{status}: {message}"
        self._news.set()

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
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - it is what the test wants to see
            self.error = error
        finally:
            self.has_ended = True
            self._news.set()

    def _take(self, update: PriceUpdate) -> None:
        self._news.set()
        fault = self._provider.border.fault_of_update(update, self.watchlist)
        if fault is not None:
            self.faults.append(fault)
            return
        self.updates.append(update)
        key, candle = update.key, update.candle
        self._heard[key] += 1
        fault = self._fault_in_time(update)
        if fault is not None:
            self.faults.append(f"{key}: {fault}")
        before = self._last.get(key)
        if before is None or candle.time >= before.candle.time:
            self._last[key] = update

    def _fault_in_time(self, update: PriceUpdate) -> str | None:
        clock, candle = self._provider.clock, update.candle
        if update.ts_event_ms is not None:
            clock.observe(update.ts_event_ms / 1000, update.key.symbol)
        if candle.time > clock.now() + 60:
            return f"the candle opens at {candle.time}, which is in the future; `time` is the open time in Unix seconds"
        before = self._last.get(update.key)
        if before is None or update.is_closed:
            return None
        if candle.time < before.candle.time:
            return f"an open candle of {candle.time} came after one of {before.candle.time}"
        if candle.time == before.candle.time and before.is_closed:
            return f"the candle of {candle.time} is open again after it was closed"
        return None

    def count(self, key: StreamKey) -> int:
        """Return how many updates of a stream came."""
        return self._heard[key]

    def last(self, key: StreamKey) -> PriceUpdate | None:
        """Return the newest update of a stream."""
        return self._last.get(key)

    async def until(self, holds: Callable[[], object], timeout_s: float) -> bool:
        """Wait until something holds, the feed ends or the time is over; return whether it holds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not holds() and not self.has_ended:
                    self._news.clear()
                    await self._news.wait()
        return bool(holds())

    async def cancel(self, *, between_updates: bool = False) -> str | None:
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
            return f"relay_stream did not end within {self._end_s:g} s after it was {how}; let CancelledError pass"
        if task.cancelled():
            return None
        if self.error is not None:
            return f"relay_stream raised {shown(self.error)} when it was {how}; let CancelledError pass"
        return "relay_stream swallowed CancelledError; let it pass"


def shown(error: BaseException) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
