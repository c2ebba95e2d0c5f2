"""Checks a provider from its author's side: one line in pytest, and the parts of it for tests of your own.

    from relay.testing import check_provider

    async def test_conformance():
        await check_provider("my_exchange.py", symbol="BTCUSD", interval="1m", settings={"rest_url": "http://…"})
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from relay.clock import Clock, ProviderClock
from relay.config import Config, provider_settings
from relay.errors import ProviderError, ProviderUnavailable
from relay.intervals import length_s, next_open
from relay.model import Candle, PriceUpdate, ProviderInfo, StreamKey
from relay.plugins import Loaded, PluginHost, Provider, end_task, new_session
from relay.sanity import fault_of_candle, fault_of_update
from relay.secret import Secret
from relay.watchlist import Watchlist

UNKNOWN_SYMBOL = "NOSUCHSYMBOL"
END_S = 5.0
"""How long a feed may take to end. The relay itself kills it sooner."""
SETTLE_S = 1.0
BLOCKED_S = 1.0
_ALIGNED_S = 900
_DEEP = 1500
_SHOWN = 5


class DoesNotConform(AssertionError):
    """What a provider does differs from what providers/README.md promises the relay; `faults` are the sentences."""

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        super().__init__(f"{name} does not conform:" + "".join(f"\n- {fault}" for fault in faults))
        self.faults = tuple(faults)


class Report(NamedTuple):
    """What was found in order, and what could not be checked and why."""

    checked: tuple[str, ...]
    unchecked: tuple[str, ...]


# -- parts -----------------------------------------------------------------------------------------


def load_provider(plugin: object) -> Loaded:
    """Load one plugin as a relay does: a module, a class, an object, or a text as in the setting `plugins`.

    Raises `DoesNotConform` with the reason for which a relay would refuse it.
    """
    host = PluginHost()
    return _load(host, plugin)


def _load(host: PluginHost, plugin: object) -> Loaded:
    # No entry points: what else is installed is none of this test's business.
    find: Callable[[], object] = lambda: plugin  # noqa: E731 - `_take` wants a function
    if isinstance(plugin, str):
        host.load_named([plugin])
    else:
        host.load_objects([plugin])
    del find
    if host.failures:
        raise DoesNotConform(host.failures[0].source, [host.failures[0].error])
    if not host.loaded:
        raise DoesNotConform(str(plugin), ["only wraps hooks of others: there is no provider to check"])
    return next(iter(host.loaded.values()))


@asynccontextmanager
async def open_provider(
    plugin: object, settings: Mapping[str, object] | None = None, *, clock: Clock | None = None
) -> AsyncIterator[Provider]:
    """Load a plugin and bind it with an HTTP session and its settings, given as its configuration table gives them."""
    host = PluginHost()
    loaded = _load(host, plugin)
    tables = MappingProxyType({loaded.info.name: dict(settings or {})})
    checked = provider_settings(Config(tables=tables), loaded.info)
    provider = host.bind(loaded, checked, ProviderClock(clock or Clock()))
    async with new_session(provider.clock) as session:
        provider.open(session)
        yield provider


class WatchedFeed:
    """Runs one feed against a watchlist of its own and keeps all that it says; an async context manager.

    Unlike in a relay nothing is left out: `faults` says what is wrong with an update, beside it being in `updates`.
    """

    def __init__(self, provider: Provider, streams: Iterable[StreamKey]) -> None:
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
            on_accept=lambda key: self._note(self.accepted.append(key)),
            on_reject=lambda key, reason: self._note(self.rejected.update({key: reason})),
            on_skip=lambda reason: self._note(self.skipped.append(reason)),
            on_closing=lambda reason: self._note(self.closing.append(reason)),
            on_pause=lambda key, status, message: self._note(self.paused.update({key: f"{status}: {message}"})),
        )
        self._provider = provider
        self._last: dict[StreamKey, PriceUpdate] = {}
        self._heard: Counter[StreamKey] = Counter()
        self._news = asyncio.Event()
        self._generator: AsyncGenerator[PriceUpdate, None] | None = None
        self._task: asyncio.Task[None] | None = None

    def _note(self, _: object) -> None:
        self._news.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"feed of {self._provider.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None and not self._task.done():
            await end_task(self._task)

    async def _run(self) -> None:
        try:
            self._generator = self._provider.open_feed(self.watchlist)
            async for update in self._generator:
                self._take(update)
                # As in a relay, nobody starves because a feed never waits.
                await asyncio.sleep(0)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is what the test wants to see
            self.error = error
        finally:
            self.has_ended = True
            self._news.set()

    def _take(self, update: PriceUpdate) -> None:
        self._news.set()
        fault = fault_of_update(update, self.watchlist)
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
        clock, candle, length = self._provider.clock, update.candle, length_s(update.key.interval)
        if update.ts_event_ms is not None:
            clock.observe(update.ts_event_ms / 1000)
        if candle.time > clock.now() + 60:
            return f"the candle opens at {candle.time}, which is in the future; `time` is the open time in Unix seconds"
        if length <= _ALIGNED_S and candle.time % length:
            return f"{candle.time} is no open time of {update.key.interval}: it is no multiple of {length} s"
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

    async def cancel(self) -> str | None:
        """End the feed as a relay does; return what was wrong with how it ended."""
        task = self._task
        if task is None or task.done():
            return None
        task.cancel()
        await asyncio.wait((task,), timeout=END_S)
        if not task.done():
            await end_task(task)
            return f"relay_stream did not end within {END_S:g} s of its cancellation; let CancelledError pass"
        if task.cancelled():
            return None
        if self.error is not None:
            return f"relay_stream raised {_shown(self.error)} when it was cancelled; let CancelledError pass"
        return "relay_stream swallowed CancelledError; let it pass"

    async def close(self) -> str | None:
        """Close the generator between two updates, as a relay does when it has seen enough; return what was wrong."""
        if self._task is None:
            return None
        generator = self._provider.open_feed(self.watchlist)
        fault: list[str] = []

        async def work() -> None:
            try:
                await anext(generator)
                await generator.aclose()
            except StopAsyncIteration:
                fault.append("relay_stream ended by itself while streams were wanted")
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it is what the test wants to see
                fault.append(f"relay_stream raised {_shown(error)} when it was closed")

        task = asyncio.create_task(work(), name=f"closing feed of {self._provider.name}")
        await asyncio.wait((task,), timeout=END_S)
        if not task.done():
            await end_task(task)
            return f"aclose() of relay_stream did not return within {END_S:g} s"
        return fault[0] if fault else None
