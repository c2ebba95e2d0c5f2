"""Pasts that one provider changed: forgotten at once, asked for anew, and told to those who have them."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Generator, Iterable
from contextlib import suppress
from typing import TypeVar

from relay.core.clock import Clock
from relay.core.errors import ProviderError, ProviderUnavailable, RateLimited, StoreError
from relay.core.intervals import next_open
from relay.core.model import StreamKey, extend, parted
from relay.core.past_change import PastChange
from relay.core.spans import FOREVER, merge_spans
from relay.history.requests import HistoryRequest, PastCandles
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.streams.hub import Hub
from relay.streams.outdated import change_past, set_apart
from relay.streams.subscriptions import Stream, Subscriber
from relay.telemetry.events import event

log = logging.getLogger(__name__)
K = TypeVar("K")
V = TypeVar("V")

STEP_S = 1.0
MOST_WAIT_S = 30.0
"""The longest pause between two attempts to get the past of a stream anew."""
MOST_UNSURE_S = 300.0
"""The longest pause before it is asked for what an answer left out although it may be there."""
LEAST_WAIT_S = 0.1
QUIET_S = 60.0
"""Changes of one past within so long are one to the log, and are followed with growing pauses."""
AT_A_TIME = 4
PAGE = 5000
A_TURN = 100
_MOST_REMEMBERED = 4096


class _Lacking:
    # Who needs more of the past of a stream than that remembers, and whether it changed once more.
    def __init__(self) -> None:
        self.deep: dict[Subscriber, None] = {}
        self.is_more = asyncio.Event()


class PastChanges:
    """Takes what a provider says to have changed. `count` is how often it did."""

    def __init__(self, provider: Provider, hub: Hub, history: HistoryService, clock: Clock) -> None:
        self.count = 0
        self._provider = provider
        self._hub = hub
        self._history = history
        self._clock = clock
        # Streams whose past is asked for anew.
        self._restated: dict[Stream, _Lacking] = {}
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()
        # When a past was restated last, and how long the next one waits.
        self._pauses: dict[StreamKey, tuple[float, float]] = {}
        self._logged: dict[str, float] = {}
        self._writing: asyncio.Task[None] | None = None
        self._unwritten: asyncio.Future[None] | None = None

    def take(self, change: PastChange) -> Awaitable[None]:
        """Forget what changed, everywhere, before this returns; what follows is done later.

        Awaited, what is returned waits until the next run knows it as well, however long nothing can be written.
        """
        self.count += 1
        self._log(change)
        if self._unwritten is None:
            self._unwritten = asyncio.get_running_loop().create_future()
        written = Written(self._unwritten)
        try:
            self._history.change_past(self._provider, change)
        except StoreError:
            # The relay ends. Whoever waits goes on waiting, and says it again in the next run.
            return written
        for stream, deep in change_past(self._hub, self._provider.name, change).items():
            if not self._provider.has_history:
                stream.outdated = None
                continue
            lacking = self._restated.get(stream)
            if lacking is None:
                lacking = self._restated[stream] = _Lacking()
                self._start(self._restate(stream, lacking), f"restate {self._provider.name} {stream.key}")
            lacking.deep |= dict.fromkeys(deep)
            lacking.is_more.set()
        if self._writing is None or self._writing.done():
            self._writing = self._start(self._write(), f"past of {self._provider.name}")
        return written

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _log(self, change: PastChange) -> None:
        now = self._clock.monotonic()
        if now < self._logged.get(change.symbol, now):
            return
        _keep(self._logged, change.symbol, now + QUIET_S)
        name, (key, before, after, one_interval, _) = self._provider.name, change
        log.info(
            "%s changed the history of %s%s; the stored candles are deleted and requested again when they are needed",
            name,
            key if one_interval else key.symbol,
            "" if after is None and before is None else f" from {after or 0} to {'now' if before is None else before}",
            extra=event("past_invalidated", provider=name, symbol=change.symbol, after=after, before=before),
        )

    async def _write(self) -> None:
        """Have what was forgotten written, and answer who waits for that."""
        while (unwritten := self._unwritten) is not None:
            self._unwritten = None
            wait_s = STEP_S
            while True:
                try:
                    await self._history.written()
                    break
                except StoreError:
                    await asyncio.sleep(wait_s)
                    wait_s = min(MOST_WAIT_S, 2 * wait_s)
            unwritten.set_result(None)

    # -- the streams -------------------------------------------------------------------------------

    async def _restate(self, stream: Stream, lacking: _Lacking) -> None:
        """Get the past of a stream anew, however long that takes, and have it told."""
        history, provider, series = self._history, self._provider, stream.series
        identity = (stream.provider, stream.key)
        wait_s = STEP_S
        try:
            await self._pause(stream.key)
            while self._hub.streams.get(identity) is stream:
                seen, asked_at = history.look(), provider.clock.now()
                lacking.is_more.clear()
                try:
                    async with self._places:
                        past = await self._fetch(stream)
                except RateLimited as error:
                    await asyncio.sleep(max(LEAST_WAIT_S, error.retry_after))
                    continue
                except (ProviderError, StoreError) as error:
                    about = event("past_not_restated", provider=stream.provider, stream=str(stream.key))
                    log.debug("the history of %s is not available again yet: %s", stream.key, error, extra=about)
                    await asyncio.sleep(wait_s)
                    wait_s = min(MOST_WAIT_S, 2 * wait_s)
                    continue
                if not seen.is_same(stream.provider, stream.key.symbol):
                    continue
                if self._may_lag(stream, past, asked_at):
                    await asyncio.sleep(STEP_S)
                    continue
                await _renew(stream, self._tell(stream, lacking, past, asked_at))
                if not (series.void & series.closed.keys() or lacking.is_more.is_set()):
                    return
                # What the answer left out may be there, as with every answer.
                with suppress(TimeoutError):
                    await asyncio.wait_for(lacking.is_more.wait(), wait_s)
                wait_s = min(MOST_UNSURE_S, 2 * wait_s)
        finally:
            self._restated.pop(stream, None)

    async def _pause(self, key: StreamKey) -> None:
        """Wait longer each time that a past changes soon after it was told."""
        now = self._clock.monotonic()
        done_at, wait_s = self._pauses.get(key, (now - QUIET_S, 0.0))
        wait_s = 0.0 if now - done_at >= QUIET_S else min(MOST_WAIT_S, max(STEP_S, 2 * wait_s))
        _keep(self._pauses, key, (now + wait_s, wait_s))
        if wait_s:
            await asyncio.sleep(wait_s)

    async def _fetch(self, stream: Stream) -> PastCandles:
        """Ask for what the stream remembers of the past that changed, at least for a little before its end.

        Raises `ProviderError` and `StoreError`.
        """
        series = stream.series
        times = sorted(series.void & series.closed.keys())
        before = FOREVER if stream.outdated is None else stream.outdated.end
        start, end, most = (times[0], times[-1], PAGE) if times else (None, before - 1, 2)
        past = await self._history.candles(
            HistoryRequest(self._provider, stream.key, start, end, most, must_be_new=True, extended=True)
        )
        if not past.is_complete and not past.unreadable:
            raise ProviderUnavailable("the answer was not complete")
        return past

    def _may_lag(self, stream: Stream, past: PastCandles, asked_at: float) -> bool:
        """Say whether what the stream told last may only be late in the provider's history."""
        newest = max(stream.series.void & stream.series.closed.keys(), default=None)
        if newest is None or any(candle.time == newest for candle in past.candles[-2:]):
            return False
        return asked_at < next_open(stream.key.interval, newest) + self._provider.info.close_grace_s

    def _tell(self, stream: Stream, lacking: _Lacking, past: PastCandles, asked_at: float) -> Iterable[Subscriber]:
        """Have the stream tell its part as revised; return who is to get a snapshot."""
        closed, _ = parted(past.candles, past.last_is_closed)
        # What is known is worth nothing any more, so that one that had to be widened replaces it too.
        usable = [extend(candle, candle.extras) for candle in closed]
        unsure = merge_spans([*past.unreadable, *past.doubted])
        renewed, lacking.deep = lacking.deep, {}
        if stream.outdated is not None:
            # The stream may have forgotten some meanwhile.
            renewed |= dict.fromkeys(set_apart(stream, stream.outdated))
        told, has_gone = stream.series.restate(usable, asked_at, unsure)
        stream.outdated = None
        self._hub.tell(stream, told)
        if has_gone:
            renewed |= dict.fromkeys(subscriber for channel in stream.channels for subscriber in channel.begins)
        return renewed


async def _renew(stream: Stream, subscribers: Iterable[Subscriber]) -> None:
    """Have subscribers sent the past of a stream, a few in each turn of the event loop."""
    for number, subscriber in enumerate(subscribers):
        if number % A_TURN == A_TURN - 1:
            await asyncio.sleep(0)
        if stream in subscriber.subscriptions:
            subscriber.on_renewed(stream)


class Written:
    """Awaited, waits for something for which others may wait, too."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done

    def __await__(self) -> Generator[object, None, None]:
        return asyncio.shield(self._done).__await__()


def _keep(memory: dict[K, V], key: K, value: V) -> None:
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > _MOST_REMEMBERED:
        del memory[next(iter(memory))]
