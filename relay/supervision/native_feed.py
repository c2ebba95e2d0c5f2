"""Follows what a venue's own streams say, on one connection beside the feeds of candles, while anybody wants it."""

import asyncio
import logging
import random
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

from relay.core.backoff import RetryBackoff
from relay.core.clock import Clock
from relay.core.errors import AuthenticationFailed, BadAnswer, ProviderError, RateLimited, log_text
from relay.core.model import StreamKey
from relay.plugins.provider import Provider
from relay.supervision.attempts import Attempts
from relay.supervision.feed import FeedCounters
from relay.telemetry.events import event
from relay.upstream.watchlist import Watchlist

log = logging.getLogger(__name__)

MOST_FOLLOWED = 200
"""Our own choice: so many streams with ten messages a second each take about a tenth of a processor."""
REFUSED_AGAIN_S = 300.0
"""What the provider refused is followed again after so long."""
LATER_S = (1.0, 2.0)
"""After a wait it connects so late: feeds of candles come first."""
SILENT_S = (30.0, 300.0)
"""A stream that says nothing for so long is subscribed anew; it doubles."""


class NativeNews(NamedTuple):
    """What a stream said last, and when that came, by the loop's time."""

    content: Any
    at: float


class NativeFeed:
    """Keeps the newest of what the venue's own streams say. While a connection is away nothing is kept for long.

    Attempts to connect are counted with those of the feeds of candles, which come first: this one takes no place that
    is among their last half.
    """

    def __init__(
        self, provider: Provider, attempts: Attempts, counters: FeedCounters, clock: Clock, rng: random.Random
    ) -> None:
        self._provider = provider
        self._attempts = attempts
        self._counters = counters
        self._clock = clock
        self._rng = rng
        self._backoff = RetryBackoff(rng)
        self._wanted: dict[StreamKey, None] = {}
        self._heard: dict[StreamKey, NativeNews] = {}
        self._refused_until: dict[StreamKey, float] = {}
        # By stream, when it is subscribed anew, and the pause that leads to it.
        self._silent: dict[StreamKey, tuple[float, float]] = {}
        self._watchlist: Watchlist | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._is_wished = asyncio.Event()
        self._is_closed = False
        self._pausing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a connection runs now."""
        return self._watchlist is not None

    @property
    def is_pausing(self) -> bool:
        """Whether the last attempt to connect failed, and the next one is still to come."""
        return self._pausing is not None and self._pausing is self._task

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, nor is ending."""
        return self._task is None and not self._ending

    def follow(self, key: StreamKey) -> bool:
        """Follow a stream; return False if it is refused, or there is no room. Whoever follows it lets it go once."""
        now = asyncio.get_running_loop().time()
        room = min(MOST_FOLLOWED, self._provider.info.streams_per_feed)
        if self._is_closed or len(self._wanted) >= room or self._refused_until.get(key, 0.0) > now:
            return False
        self._refused_until.pop(key, None)
        self._wanted[key] = None
        self._silent[key] = now + SILENT_S[0], SILENT_S[0]
        if self._watchlist is not None:
            self._watchlist.add(key)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"native feed of {self._provider.name}")
        return True

    def let_go(self, key: StreamKey) -> None:
        """Follow a stream no longer; the connection ends with the last one."""
        self._forget(key)
        if not self._wanted:
            # Its watchlist is never empty: a plugin could go round for ever then, and nobody else's turn would come.
            self._stop()
        elif self._watchlist is not None:
            self._watchlist.remove(key)

    def _forget(self, key: StreamKey) -> None:
        for known in (self._wanted, self._heard, self._silent):
            known.pop(key, None)

    def newest(self, key: StreamKey) -> NativeNews | None:
        """Return what a stream said last; one that is followed and silent for long is subscribed anew."""
        heard, now = self._heard.get(key), asyncio.get_running_loop().time()
        silent = self._silent.get(key)
        if silent is not None and now >= silent[0]:
            pause_s = min(2 * silent[1], SILENT_S[1])
            self._silent[key] = now + pause_s, pause_s
            if self._watchlist is not None and (heard is None or now - heard.at >= SILENT_S[0]):
                self._watchlist.remove(key)
                self._watchlist.add(key)
        return heard

    def renew(self) -> None:
        """Connect anew, with the provider's present settings."""
        self._stop()
        if self._wanted and not self._is_closed:
            self._task = asyncio.create_task(self._run(), name=f"native feed of {self._provider.name}")

    def hurry(self) -> None:
        """Connect now instead of after a pause, unless the provider said for how long to wait."""
        self._is_wished.set()

    # -- the connection ----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            # What is asked for in the same moment joins before it opens.
            await asyncio.sleep(0)
            failure = await self._follow_all()
            said = "the provider closed the connection" if failure is None else log_text(failure)
            is_barred = isinstance(failure, RateLimited | AuthenticationFailed)
            wait_s = self._backoff.next_s()
            if isinstance(failure, RateLimited):
                wait_s = failure.retry_after
            elif isinstance(failure, AuthenticationFailed):
                wait_s = REFUSED_AGAIN_S
            log.warning(
                "the feed of answers of %s ended: %s; next attempt in %.1f s",
                self._provider.name,
                said,
                wait_s,
                extra=event("native_feed_ended", provider=self._provider.name, reason=said, wait_s=round(wait_s, 1)),
            )
            self._pausing = asyncio.current_task()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    # It may have come back during the attempt, which failed for what was before.
                    await (asyncio.sleep(wait_s) if is_barred else self._is_wished.wait())
            self._is_wished.clear()
            self._pausing = None

    async def _follow_all(self) -> ProviderError | None:
        """Follow the streams until the connection ends; return why it failed."""
        later_s = self._rng.uniform(*LATER_S)
        while True:
            if (wait := self._provider.feed_waits.left()) is not None:
                self._pausing = asyncio.current_task()
                await asyncio.sleep(wait.left_s + later_s)
            elif not self._attempts.has_spare(self._clock.monotonic()):
                await asyncio.sleep(1.0)
            else:
                break
        self._pausing = None
        self._attempts.reserve(self._clock.monotonic())
        self._watchlist = watchlist = Watchlist(
            self._wanted,
            on_reject=self._refuse,
            on_skip=lambda reason: self._counters.skip(self._provider.conceal(reason)),
        )
        name, now = self._provider.name, asyncio.get_running_loop().time
        about = event("native_feed_opened", provider=name, streams=len(self._wanted))
        log.info("the feed of answers of %s opens for %d of them", name, len(self._wanted), extra=about)
        try:
            async with aclosing(self._provider.native_stream(watchlist)) as updates:
                async for key, content in updates:
                    if self._watchlist is not watchlist:
                        # It is being ended.
                        continue
                    self._heard[key] = NativeNews(content, now())
                    self._backoff.reset()
                    self._is_wished.clear()
        except ProviderError as error:
            return error
        except Exception as error:
            # No plugin's: those are judged before they come here. The next attempt comes all the same.
            about = event("native_feed_broken", provider=name)
            log.exception("the feed of answers of %s failed", name, extra=about)
            return BadAnswer(f"the relay failed ({type(error).__name__})")
        finally:
            if self._watchlist is watchlist:
                self._watchlist = None
        return None

    def _refuse(self, key: StreamKey, error: ProviderError) -> None:
        again_at = asyncio.get_running_loop().time() + REFUSED_AGAIN_S
        self._refused_until[key], self._silent[key] = again_at, (again_at, REFUSED_AGAIN_S)
        self._heard.pop(key, None)
        log.info(
            "%s refused to send %s, so it is asked for it: %s",
            self._provider.name,
            key,
            log_text(error),
            extra=event("native_stream_refused", provider=self._provider.name, stream=str(key)),
        )

    def _stop(self) -> None:
        task, self._task, self._watchlist = self._task, None, None
        self._heard.clear()
        if task is not None:
            ending = asyncio.create_task(self._provider.end_feed(task), name=f"end of {task.get_name()}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End all of it."""
        self._is_closed = True
        self._stop()
        await asyncio.gather(*self._ending, return_exceptions=True)
