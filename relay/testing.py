"""Checks a provider from its author's side: one line in pytest, and the parts of it for tests of your own.

from relay.testing import check_provider

async def test_conformance():
    await check_provider("my_exchange.py", symbol="BTCUSD", interval="1m", settings={"rest_url": "http://…"})
"""

import asyncio
import logging
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from itertools import pairwise
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from relay.clock import Clock, ProviderClock
from relay.config import Config, provider_settings
from relay.errors import ProviderError
from relay.intervals import length_s, next_open
from relay.model import Candle, Instrument, PriceUpdate, StreamKey
from relay.plugins import PluginHost, Provider, end_task, new_session
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


@asynccontextmanager
async def open_provider(
    plugin: object, settings: Mapping[str, object] | None = None, *, clock: Clock | None = None
) -> AsyncIterator[Provider]:
    """Load one plugin and bind it as a relay does, with a session and its settings as its table gives them.

    `plugin` is a module, a class, an object, or a text as in the setting `plugins`. Raises `DoesNotConform` with the
    reason for which a relay would refuse it, `ConfigError` for its settings.
    """
    host = PluginHost()
    if isinstance(plugin, str):
        host.load((), [plugin], installed=False)
    else:
        host.load([plugin], installed=False)
    if host.failures:
        raise DoesNotConform(host.failures[0].source, [host.failures[0].error])
    if not host.loaded:
        raise DoesNotConform(str(plugin), ["it only wraps hooks of others: there is no provider to check"])
    (loaded,) = host.loaded.values()
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
            on_accept=self._on_accept,
            on_reject=self._on_reject,
            on_skip=self.skipped.append,
            on_closing=self.closing.append,
            on_pause=self._on_pause,
        )
        self._provider = provider
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
            await end_task(self._task)

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

    async def cancel(self, *, between_updates: bool = False) -> str | None:
        """End the feed as a relay does; return what was wrong with how it ended.

        It is cancelled while it waits, or, `between_updates`, closed where it yields.
        """
        task = self._task
        if task is None or task.done():
            return None
        if between_updates:
            self._is_holding = True
            await self.until(lambda: self._is_held, END_S)
        task.cancel()
        await asyncio.wait((task,), timeout=END_S)
        how = "closed" if between_updates else "cancelled"
        if not task.done():
            await end_task(task)
            return f"relay_stream did not end within {END_S:g} s after it was {how}; let CancelledError pass"
        if task.cancelled():
            return None
        if self.error is not None:
            return f"relay_stream raised {_shown(self.error)} when it was {how}; let CancelledError pass"
        return "relay_stream swallowed CancelledError; let it pass"


def _shown(error: BaseException) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -- the check -------------------------------------------------------------------------------------


async def check_provider(
    plugin: object,
    *,
    symbol: str,
    interval: str,
    settings: Mapping[str, object] | None = None,
    other: StreamKey | None = None,
    unknown_symbol: str = UNKNOWN_SYMBOL,
    timeout_s: float = 10.0,
    clock: Clock | None = None,
) -> Report:
    """Check a provider against an upstream that works, and raise `DoesNotConform` with all that is wrong.

    `symbol` and `interval` name a stream that moves now and has a past. `other` is a second one, for the watchlist;
    by default the same symbol at another interval, else another symbol. Each wait for the upstream ends after
    `timeout_s`. Returns what was checked, and what could not be and why.
    """
    async with open_provider(plugin, settings, clock=clock) as provider:
        check = _Check(provider, StreamKey(symbol, interval), other, unknown_symbol, timeout_s)
        await check.run()
    if check.faults:
        raise DoesNotConform(provider.name, check.faults)
    return Report(tuple(check.checked), tuple(check.unchecked))


class _Lines(logging.Handler):
    """Keeps what is logged: the host says there what it had to mend."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def text(self) -> str:
        formatter = logging.Formatter()
        return "\n".join(map(formatter.format, self.records))


# A task inherits it from whoever creates it.
_checking: ContextVar["_Check | None"] = ContextVar("_checking", default=None)


class _Check:
    """One run of all checks on one provider."""

    def __init__(
        self, provider: Provider, key: StreamKey, other: StreamKey | None, unknown_symbol: str, timeout_s: float
    ) -> None:
        self.provider = provider
        self.key = key
        self.other = other
        self.unknown = StreamKey(unknown_symbol, key.interval)
        self.timeout_s = timeout_s
        self.faults: list[str] = []
        self.checked: list[str] = []
        self.unchecked: list[str] = []
        self.instruments: Sequence[Instrument] = ()
        self.newest: PriceUpdate | None = None
        self._texts: list[str] = []
        self._blocked_s = 0.0
        self._made: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    async def run(self) -> None:
        """Run the checks one after the other; a fault in one does not keep the others from running."""
        lines = _Lines()
        logger = logging.getLogger()
        logger.addHandler(lines)
        pulse = asyncio.create_task(self._feel_pulse(), name="pulse")
        token = _checking.set(self)
        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        loop.set_task_factory(self._task_factory(factory))
        try:
            for name, part in self._parts():
                before = len(self.faults)
                try:
                    await part()
                except ProviderError as error:
                    self._blame(f"{name}: {_shown(error)}")
                await self._look_for_leftovers(name)
                if len(self.faults) == before and not (self.unchecked and self.unchecked[-1].startswith(f"{name}: ")):
                    self.checked.append(name)
        finally:
            loop.set_task_factory(factory)
            _checking.reset(token)
            pulse.cancel()
            await asyncio.gather(pulse, return_exceptions=True)
            logger.removeHandler(lines)
        self._judge_lines(lines)

    def _task_factory(self, inner: Any) -> Any:
        """Remember the tasks that come from the check and the provider; a stand-in in the same loop has its own."""

        def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
            task = inner(loop, work, **options) if inner else asyncio.Task(work, loop=loop, **options)
            if _checking.get() is self:
                self._made.add(task)
            return task

        return make

    def _parts(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        yield "relay_provider is pure", self._check_info
        yield "instruments", self._check_instruments
        yield "stream", self._check_stream
        yield "a second feed, closed between updates", self._check_second_feed
        yield "unknown symbol in a stream", self._check_unknown_stream
        yield "history", self._check_history
        yield "unknown symbol in history", self._check_unknown_history
        yield "cancelled history", self._check_cancelled_history
        yield "budgets", self._check_budgets

    def _blame(self, fault: str) -> None:
        fault = self.provider.conceal(fault)
        if fault not in self.faults:
            self.faults.append(fault)

    async def _feel_pulse(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            self._blocked_s = max(self._blocked_s, time.monotonic() - began - 0.05)

    async def _look_for_leftovers(self, name: str) -> None:
        deadline = time.monotonic() + SETTLE_S
        while left := [task for task in self._made if not task.done()]:
            if time.monotonic() > deadline:
                names = ", ".join(sorted(task.get_name() for task in left))
                self._blame(f"{name}: left {len(left)} tasks running ({names[:200]}); whoever creates a task ends it")
                for task in left:
                    await end_task(task)
                break
            await asyncio.sleep(0.01)
        if self.provider.session.closed:
            self._blame(f"{name}: closed the session, which is the host's")
        while held := getattr(self.provider.session.connector, "_acquired", ()):
            if time.monotonic() > deadline:
                self._blame(f"{name}: left {len(held)} connections open; use `async with` for answers and sockets")
                break
            await asyncio.sleep(0.01)

    def _judge_lines(self, lines: _Lines) -> None:
        if self._blocked_s > BLOCKED_S:
            self._blame(f"blocked the event loop for {self._blocked_s:.1f} s: nothing else runs in that time")
        for record in lines.records:
            message = record.getMessage()
            if record.name == "relay.plugins" and record.levelno >= logging.WARNING:
                self._blame(message.splitlines()[0])
        everything = "\n".join([lines.text(), *self._texts])
        for name, value in self.provider.settings.items():
            if isinstance(value, Secret) and value and value.reveal() in everything:
                self._blame(f"the secret {name} shows in a log line or in a text that clients see")

    # -- who it is ---------------------------------------------------------------------------------

    async def _check_info(self) -> None:
        info, said = self.provider.info, self.provider.said_again()
        if said._replace(settings=()) != info._replace(settings=()):
            self._blame("relay_provider says something else when it is called again")
        if self.key.interval not in info.intervals:
            self._blame(f"{self.key.interval} is not among the intervals of relay_provider: {' '.join(info.intervals)}")

    async def _check_instruments(self) -> None:
        provider = self.provider
        if not provider.lists_instruments:
            self.unchecked.append("instruments: relay_instruments is not implemented")
            return
        self.instruments = await provider.instruments()
        symbols = [instrument.symbol for instrument in self.instruments]
        if not symbols:
            self._blame("relay_instruments returned an empty list")
        elif self.key.symbol not in symbols:
            self._blame(f"relay_instruments does not list {self.key.symbol}")
        twice = [symbol for symbol, count in Counter(symbol.upper() for symbol in symbols).items() if count > 1]
        if twice:
            self._blame(f"relay_instruments lists {twice[0]} more than once; symbols differ in more than case")
        if self.unknown.symbol in symbols:
            self._blame(f"relay_instruments lists {self.unknown.symbol}; give the check another unknown_symbol")

    def _second_stream(self) -> StreamKey | None:
        if self.other is not None:
            return self.other
        symbol, interval = self.key
        own = next((one.intervals for one in self.instruments if one.symbol == symbol), None)
        for name in own or self.provider.info.intervals:
            if name != interval:
                return StreamKey(symbol, name)
        for one in self.instruments:
            if one.symbol != symbol and interval in (one.intervals or (interval,)):
                return StreamKey(one.symbol, interval)
        return None if self.provider.lists_instruments else StreamKey("OTHER", interval)

    # -- streams -----------------------------------------------------------------------------------

    async def _opened(self, feed: WatchedFeed, key: StreamKey) -> bool:
        """Wait for the first update of a stream that was asked for; say what came instead."""
        if await feed.until(lambda: feed.count(key) or key in feed.paused or key in feed.rejected, self.timeout_s):
            if key in feed.rejected:
                self._blame(f"relay_stream rejected {key}: {feed.rejected[key]}")
            elif not feed.count(key):
                self.unchecked.append(f"stream: {key} rests ({feed.paused[key]}); check when it moves")
            return bool(feed.count(key))
        if not self._ended_early(feed):
            self._blame(f"relay_stream yielded nothing for {key} within {self.timeout_s:g} s")
        return False

    def _ended_early(self, feed: WatchedFeed) -> bool:
        if feed.error is not None:
            self._blame(f"relay_stream raised {_shown(feed.error)}")
        elif feed.has_ended:
            self._blame("relay_stream ended by itself while streams were wanted")
        return feed.has_ended

    def _judge(self, feed: WatchedFeed) -> None:
        for fault in dict.fromkeys(feed.faults[:_SHOWN]):
            self._blame(f"relay_stream: {fault}")
        if feed.skipped:
            self._blame(f"relay_stream skipped {len(feed.skipped)} messages, the first: {feed.skipped[0]}")
        self._texts += [*feed.skipped, *feed.closing, *feed.rejected.values(), *feed.paused.values()]
        if feed.error is not None:
            self._texts.append(str(feed.error))

    async def _check_stream(self) -> None:
        async with WatchedFeed(self.provider, [self.key]) as feed:
            if await self._opened(feed, self.key):
                await self._check_closing(feed)
                await self._check_watchlist(feed)
                self.newest = feed.last(self.key)
            ended = self._ended_early(feed)
            fault = await feed.cancel()
            if fault is not None and not ended:
                self._blame(fault)
        self._judge(feed)

    async def _check_closing(self, feed: WatchedFeed) -> None:
        key, info = self.key, self.provider.info
        if length_s(key.interval) + info.close_grace_s > self.timeout_s:
            self.unchecked.append(f"closing: a candle of {key.interval} takes longer than timeout_s")
            return

        def times() -> list[int]:
            return list(dict.fromkeys(update.candle.time for update in feed.updates if update.key == key))

        # The first one may have been joined in its middle: the second is followed from its beginning.
        if not await feed.until(lambda: len(times()) >= 3, self.timeout_s + 2 * length_s(key.interval)):
            self._blame(f"relay_stream went on to no further candle of {key} within {self.timeout_s:g} s")
            return
        second = times()[1]
        is_closed = any(u.is_closed and u.candle.time == second for u in feed.updates if u.key == key)
        if not is_closed and not self.provider.has_history:
            self._blame(f"the candle of {key} at {second} was never closed, and there is no relay_candles to ask")
        self.checked.append("closing")

    async def _check_watchlist(self, feed: WatchedFeed) -> None:
        second = self._second_stream()
        if second is None:
            self.unchecked.append("watchlist: there is no second stream; name one as `other`")
            return
        feed.watchlist.add(second)

        def is_noticed() -> bool:
            return bool(
                feed.count(second) or second in feed.accepted or second in feed.rejected or second in feed.paused
            )

        if not await feed.until(is_noticed, self.timeout_s):
            self._blame(f"relay_stream does not follow the watchlist: nothing of {second} after it was added")
        feed.watchlist.remove(second)
        deadline = time.monotonic() + self.timeout_s
        # The request to end it may have to wait for its turn at the venue.
        while await self._goes_on(feed, second):
            if time.monotonic() > deadline:
                self._blame(f"relay_stream does not follow the watchlist: {second} goes on after it was removed")
                break
        self.checked.append("watchlist")

    async def _goes_on(self, feed: WatchedFeed, key: StreamKey) -> bool:
        before = feed.count(key)
        return await feed.until(lambda: feed.count(key) > before, 2 * SETTLE_S)

    async def _check_second_feed(self) -> None:
        async with WatchedFeed(self.provider, [self.key]) as feed:
            if await self._opened(feed, self.key):
                fault = await feed.cancel(between_updates=True)
                if fault is not None:
                    self._blame(fault)
        self._judge(feed)

    async def _check_unknown_stream(self) -> None:
        if not self.provider.lists_instruments:
            self.unchecked.append("unknown symbol in a stream: without relay_instruments no symbol is unknown")
            return
        async with WatchedFeed(self.provider, [self.key, self.unknown]) as feed:
            if await self._opened(feed, self.key):
                await feed.until(lambda: self.unknown in feed.rejected, SETTLE_S)
                before = feed.count(self.key)
                if feed.count(self.unknown):
                    self._blame(f"relay_stream yields updates of {self.unknown}, which there is not")
                if not await feed.until(lambda: feed.count(self.key) > before, self.timeout_s):
                    self._blame(f"relay_stream stops serving {self.key} when it is asked for {self.unknown} too")
            self._ended_early(feed)
        feed.skipped.clear()
        self._judge(feed)

    # -- history -----------------------------------------------------------------------------------

    async def _ask(self, start: int | None, end: int, limit: int) -> list[Candle]:
        """Ask history, and judge what holds for every answer."""
        candles = list(await self.provider.candles(self.key, start, end, limit))
        asked = f"relay_candles(start={start}, end={end}, limit={limit})"
        for candle in candles:
            if (fault := fault_of_candle(candle)) is not None:
                self._blame(f"{asked} has a candle at {candle.time}: {fault}")
                break
        times = [candle.time for candle in candles]
        if any(a >= b for a, b in pairwise(times)):
            self._blame(f"{asked} is not in order of time, oldest first, each open time once")
        if len(times) > limit:
            self._blame(f"{asked} returned {len(times)} candles, more than the limit")
        if times and (max(times) >= end or (start is not None and min(times) < start)):
            outside = next(at for at in times if at >= end or (start is not None and at < start))
            self._blame(f"{asked} returned {outside}, which is outside: start ≤ open time < end")
        return candles

    async def _check_history(self) -> None:
        provider, key = self.provider, self.key
        if not provider.has_history:
            self.unchecked.append("history: relay_candles is not implemented")
            return
        grace_s = provider.info.close_grace_s
        present = next_open(key.interval, int(provider.clock.now())) + length_s(key.interval)
        newest = await self._ask(None, present, 8 + int(grace_s // length_s(key.interval)))
        settled = provider.clock.now() - grace_s
        known = [candle for candle in newest if next_open(key.interval, candle.time) <= settled][-6:]
        if len(known) < 5:
            self._blame(f"relay_candles has only {len(known)} closed candles of {key}: 5 are needed for the check")
            return
        a, b, c, d, e = known[:5]
        cases: list[tuple[str, int | None, int, int, list[Candle]]] = [
            ("`start` is included, `end` is not", a.time, d.time, 100, [a, b, c]),
            ("with a `start` the first `limit` from it", a.time, e.time + 1, 2, [a, b]),
            ("with a `start` and a limit of one the first", b.time, e.time + 1, 1, [b]),
            ("without a `start` the last `limit` before `end`", None, e.time, 2, [c, d]),
            ("without a `start` and with a limit of one the last", None, d.time, 1, [c]),
            ("`start` and `end` between open times", a.time + 1, c.time + 1, 100, [b, c]),
            ("an empty range is an empty list", c.time, c.time, 100, []),
            ("a range after the newest candle is an empty list", present + 31_622_400, present + 31_708_800, 100, []),
        ]
        for meaning, start, end, limit, wanted in cases:
            found = await self._ask(start, end, limit)
            if [candle.time for candle in found] != [candle.time for candle in wanted]:
                self._blame(
                    f"relay_candles(start={start}, end={end}, limit={limit}) returned the open times "
                    f"{_times(found)}, not {_times(wanted)}: {meaning}"
                )
            elif found != wanted:
                self._blame(f"relay_candles returned other values for the same closed candles of {key}")
        await self._ask(0, 86_400, 10)
        deep = await self._ask(None, e.time + 1, _DEEP)
        if not deep or deep[-1].time != e.time:
            self._blame(f"relay_candles with a limit of {_DEEP} does not end with the candle before `end`")
        await self._check_present(present)

    async def _check_present(self, present: int) -> None:
        """The open candle belongs to history where the range reaches it."""
        if self.newest is None:
            return
        wanted = self.newest.candle.time
        deadline = time.monotonic() + self.provider.info.close_grace_s
        while True:
            found = await self._ask(None, present, 1)
            if found and found[-1].time >= wanted:
                return
            if time.monotonic() > deadline:
                self._blame(
                    f"relay_candles up to now ends with {_times(found)}, but the stream already had {wanted}: "
                    "the open candle belongs to the answer"
                )
                return
            await asyncio.sleep(0.5)

    async def _check_unknown_history(self) -> None:
        provider = self.provider
        if not provider.has_history or not provider.lists_instruments:
            self.unchecked.append("unknown symbol in history: needs relay_candles and relay_instruments")
            return
        end = int(provider.clock.now())
        try:
            candles = await provider.candles(self.unknown, None, end, 5)
        except ProviderError as error:
            self._texts.append(str(error))
            if str(error).startswith(f"provider {provider.name} failed"):
                self._blame(f"relay_candles of an unknown symbol: {error}; raise UnknownSymbol or return no candles")
        else:
            if candles:
                self._blame(f"relay_candles returned candles of {self.unknown.symbol}, which there is not")

    async def _check_cancelled_history(self) -> None:
        if not self.provider.has_history:
            self.unchecked.append("cancelled history: relay_candles is not implemented")
            return
        for turns in (1, 5):
            asking = asyncio.create_task(self._ask(None, int(self.provider.clock.now()), 5))
            for _ in range(turns):
                await asyncio.sleep(0)
            # The host kills what does not end and says so in its log, which is judged at the end.
            await end_task(asking)

    async def _check_budgets(self) -> None:
        began = time.monotonic()
        for budget in self.provider.budgets():
            if budget.limit < 0 or budget.used < 0:
                self._blame(f"the budget {budget.name!r} has negative numbers")
        if time.monotonic() - began > 0.1:
            self._blame("relay_budgets took more than 0.1 s; it is asked often and must do no I/O")


def _times(candles: Sequence[Candle]) -> str:
    shown = ", ".join(str(candle.time) for candle in candles[:_SHOWN])
    return f"[{shown}{', …' if len(candles) > _SHOWN else ''}]"
