"""A feed of one task for each stream, for venues and libraries with a call or an iterator for each of them."""

import asyncio
import inspect
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from relay.core.backoff import RetryBackoff
from relay.core.errors import (
    AuthenticationFailed,
    Killed,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)
from relay.core.model import PriceUpdate, StreamKey
from relay.telemetry.events import event
from relay.upstream.rate_limit import Pace
from relay.upstream.rest import NETWORK_ERRORS, network_failure
from relay.upstream.watchlist import FeedHost, Watchlist

log = logging.getLogger(__name__)

Follow = Callable[[StreamKey], AsyncIterable[PriceUpdate]]

START_S = 10.0
"""A stream without an update counts as started after so long: a quiet market must not hold up others."""
_MOST_WAITING = 100
"""So many updates wait for the relay, of all streams; then those who bring more wait."""


async def each_stream(
    watchlist: Watchlist,
    follow: Follow,
    *,
    starts_at_once: int = 10,
    starts_per_second: int = 10,
) -> AsyncGenerator[PriceUpdate, None]:
    """Yield the updates of all streams of the watchlist, each of which a task of its own follows.

    `follow(key)` returns an async generator, or another async iterable, of the updates of one stream. It is called when
    the stream comes onto the watchlist, and again when it fails or ends: after 1 to 2 seconds, then ever later, 30
    seconds at most; after an update from the start again. Meanwhile that stream is `reconnecting`, the others go on. A
    stream that leaves the watchlist is cancelled. At most `starts_at_once` streams have begun and brought no update
    yet, for 10 seconds; at most `starts_per_second` begin in a second.

    What `follow` raises concerns its stream only, and so does a mistake in it, which is logged with the stream.
    `UnknownSymbol` rejects the stream. `AuthenticationFailed` and `RateLimited` concern the whole provider: they end
    all streams and are raised here. Raises `ValueError` for limits below 1.
    """
    if min(starts_at_once, starts_per_second) < 1:
        raise ValueError(f"starts_at_once is {starts_at_once} and starts_per_second {starts_per_second}; at least 1")
    tasks = _StreamTasks(watchlist, follow, starts_at_once, starts_per_second)
    try:
        tasks.start()
        while True:
            found = await tasks.updates.get()
            if isinstance(found, PriceUpdate):
                yield found
            else:
                tasks.report(found)
    finally:
        await tasks.close()


class _Failed(NamedTuple):
    """A stream ended, wanted since that version of the watchlist; without `retry_in_s` it is not begun again.

    It waits behind the updates of the stream: else the last one would tell that the stream is live again.
    """

    key: StreamKey
    since: int
    error: ProviderError
    retry_in_s: float | None


class _Followed(NamedTuple):
    """A stream's task, and at which version of the watchlist the stream was wanted."""

    since: int
    task: asyncio.Task[None]


class _PlainHost:
    """Judges where no relay runs the feed, as in an author's own test."""

    name = "a provider"

    def conceal(self, text: str) -> str:
        """Return a text as it is."""
        return text

    def tell(self, text: str) -> str:
        """Return a text as it is."""
        return text

    def judge_stream(self, key: StreamKey, error: BaseException) -> ProviderError:
        """Return what a relay would tell of an error."""
        if isinstance(error, ProviderError):
            return error
        if isinstance(error, NETWORK_ERRORS):
            return network_failure(error)
        log.error("failed in the stream %s", key, exc_info=error, extra=event("stream_broken", stream=str(key)))
        return ProviderUnavailable(f"failed ({type(error).__name__} in the stream {key})")

    async def end_stream(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task and wait for its end."""
        task.cancel()
        await asyncio.wait((task,))


class _Start:
    """The place of a stream among those that begin, until it is released, at the latest after `START_S`."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._is_held = False
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "_Start":
        await self._places.acquire()
        self._is_held = True
        self._timer = asyncio.get_running_loop().call_later(START_S, self.release)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the next one begin."""
        if self._is_held:
            self._is_held = False
            self._places.release()
        if self._timer is not None:
            self._timer.cancel()


class _StreamTasks:
    """The tasks of one feed: started and ended as streams come and go. What they bring is in `updates`."""

    def __init__(self, watchlist: Watchlist, follow: Follow, starts_at_once: int, starts_per_second: int) -> None:
        self.updates: asyncio.Queue[PriceUpdate | _Failed] = asyncio.Queue(_MOST_WAITING)
        self._watchlist = watchlist
        self._host: FeedHost = watchlist.host or _PlainHost()
        self._follow = follow
        self._rng = random.Random()
        self._places = asyncio.Semaphore(starts_at_once)
        self._pace = Pace(starts_per_second, asyncio.get_running_loop().time)
        self._followed: dict[StreamKey, _Followed] = {}
        self._ending: dict[StreamKey, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the watchlist, until `close`."""
        self._watching = asyncio.create_task(self._watch(), name=f"streams of {self._host.name}")

    async def close(self) -> None:
        """End all tasks; each has as long as the host gives it. Being cancelled here does not cut that short."""
        closing = asyncio.create_task(self._close(), name=f"end of the streams of {self._host.name}")
        is_cancelled = False
        while not closing.done():
            try:
                await asyncio.wait((closing,))
            except asyncio.CancelledError:
                is_cancelled = True
        if is_cancelled:
            raise asyncio.CancelledError

    async def _close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        for key in [*self._followed]:
            self._end(key)
        if self._ending:
            await asyncio.wait(self._ending.values())

    def report(self, failed: _Failed) -> None:
        """Report that a stream failed. Raises its error if that concerns all streams."""
        if isinstance(failed.error, AuthenticationFailed | RateLimited):
            raise failed.error
        if self._watchlist.wanted_since(failed.key) != failed.since:
            return
        if failed.retry_in_s is None:
            self._watchlist.reject(failed.key, failed.error)
        else:
            self._watchlist.lose(failed.key, failed.error, failed.retry_in_s)

    async def _watch(self) -> None:
        version = -1
        while True:
            version = await self._watchlist.changed(version)
            for key, followed in [*self._followed.items()]:
                # One that left and came back is begun again, as on any other feed.
                if self._watchlist.wanted_since(key) != followed.since:
                    self._end(key)
            for key in self._watchlist.streams:
                if key not in self._followed:
                    since = self._watchlist.wanted_since(key)
                    task = asyncio.create_task(self._keep(key, since), name=f"stream {key} of {self._host.name}")
                    self._followed[key] = _Followed(since, task)

    def _end(self, key: StreamKey) -> None:
        before, task = self._ending.get(key), self._followed.pop(key).task
        ending = asyncio.create_task(self._end_after(before, task), name=f"end of {task.get_name()}")
        self._ending[key] = ending
        ending.add_done_callback(lambda _: self._forget(key, ending))

    async def _end_after(self, before: asyncio.Task[None] | None, task: asyncio.Task[None]) -> None:
        await self._host.end_stream(task)
        if before is not None:
            await asyncio.wait((before,))

    def _forget(self, key: StreamKey, ending: asyncio.Task[None]) -> None:
        if self._ending.get(key) is ending:
            del self._ending[key]

    async def _keep(self, key: StreamKey, since: int) -> None:
        """Follow one stream, again and again, until it is cancelled, or for good what it raised concerns all."""
        if (ending := self._ending.get(key)) is not None:
            await asyncio.wait((ending,))
        backoff = RetryBackoff(self._rng)
        while True:
            failure = await self._follow_once(key, backoff)
            is_over = isinstance(failure, AuthenticationFailed | RateLimited | UnknownSymbol)
            wait_s = 0.0 if is_over else backoff.next_s()
            await self.updates.put(_Failed(key, since, failure, None if is_over else wait_s))
            if is_over:
                return
            await asyncio.sleep(wait_s)

    async def _follow_once(self, key: StreamKey, backoff: RetryBackoff) -> ProviderError:
        """Follow a stream until it ends; return why."""
        task = asyncio.current_task()
        try:
            async with _Start(self._places) as start, AsyncExitStack() as closing:
                await self._pace.turn(reserve=0)
                updates = _iterable(self._follow(key))
                if (aclose := getattr(updates, "aclose", None)) is not None:
                    closing.push_async_callback(aclose)
                async for update in updates:
                    start.release()
                    backoff.reset()
                    await self.updates.put(update)
        except BaseException as error:
            # The host cancels or kills; else the plugin raised them itself.
            is_ended = task is None or task.cancelling()
            if is_ended and isinstance(error, asyncio.CancelledError | GeneratorExit | Killed):
                raise
            return self._host.judge_stream(key, error)
        return ProviderUnavailable(f"{key} ended")


def _iterable(found: Any) -> AsyncIterable[PriceUpdate]:
    if isinstance(found, AsyncIterable):
        return found
    if inspect.iscoroutine(found):
        found.close()
    raise TypeError(f"follow returned {type(found).__name__}, not an async iterator; it needs `yield`")
