"""A place for one feed of a provider: opened again when it ends, replaced when it grows old or mute."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from relay.core.backoff import RetryBackoff
from relay.core.clock import Clock
from relay.core.counted import counted
from relay.core.errors import AuthenticationFailed, Flooded, RateLimited, log_text
from relay.core.model import StreamKey
from relay.plugins.provider import Provider
from relay.supervision.attempts import Attempts
from relay.supervision.backfill import Backfill
from relay.supervision.feed import Feed
from relay.supervision.liveness import Remedy
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.timing import FEED_TIMING, FeedTiming
from relay.telemetry.events import event

log = logging.getLogger(__name__)

HURRY_S = 1.0
"""Feeds of a provider that is back are opened within this."""
REFUSED_AGAIN_S = 300.0
"""A key that is refused while feeds with the one before go on is tried again so late, or when it changes."""
UNANSWERED_S = (30.0, 300.0)
"""A stream that its provider neither takes, refuses nor delivers is asked for again after so long: it doubles."""
UNREPORTED_S = (300.0, 3600.0)
"""The same where a feed reports no answers: its stream may only be quiet."""
MOST_RETRY_S = 3600.0
"""A feed that lost a stream alone, and says when it tries it again, is believed for so long at most."""

OnLose = Callable[[StreamKey, str, float], None]
NewFeed = Callable[[Mapping[StreamKey, SupervisedStream], Callable[[str], None], OnLose], Feed]
"""Opens a feed for these streams, which may change.

The first function hears when the provider announces its end, the other one of streams that are lost alone.
"""


class ReplacementReason(NamedTuple):
    """Why a feed is to be replaced: in one word of `CAUSES`, and in a sentence."""

    cause: str
    reason: str


class Loss(NamedTuple):
    """Why the last feed ended, when the next is opened by the monotonic clock, and whether the provider said when."""

    reason: str
    opens_at: float
    is_barred: bool = False


ROTATION = ReplacementReason("rotation", "rotation before the provider's limit")
SETTINGS = ReplacementReason("settings", "the settings changed")


class FeedSlot:
    """Carries streams with one feed, and with two while one replaces the other; it ends with its last stream.

    `on_refuse` is called for each stream when the provider refuses the relay itself: its key.
    """

    def __init__(
        self,
        provider: Provider,
        backfill: Backfill,
        attempts: Attempts,
        clock: Clock,
        rng: random.Random,
        new_feed: NewFeed,
        on_refuse: Callable[[SupervisedStream, str, str], None],
        *,
        timing: FeedTiming = FEED_TIMING,
    ) -> None:
        self._provider = provider
        self._backfill = backfill
        self._attempts = attempts
        self._backoff = RetryBackoff(rng)
        self._clock = clock
        self._rng = rng
        self._new_feed = new_feed
        self._on_refuse = on_refuse
        self._ready_timeout_s = timing.ready_timeout_s
        self._supervised: dict[StreamKey, SupervisedStream] = {}
        self._feeds: list[Feed] = []
        self._loss: Loss | None = None
        self._is_lost = False
        # The provider came back while a feed was being opened, which may fail for what was before.
        self._is_back = False
        self._replacement: ReplacementReason | None = None
        self._is_wished = asyncio.Event()
        self._is_hurried = asyncio.Event()
        # Of streams that wait for an answer: when they are asked for again, and the pause that led to it.
        self._unanswered: dict[StreamKey, tuple[float, float]] = {}
        # Of streams that the newest feed lost alone: until when it is to try them again by itself.
        self._retried_at: dict[StreamKey, float] = {}
        self.task = asyncio.create_task(self._run(), name=f"slot of {provider.name}")

    @property
    def is_empty(self) -> bool:
        """Whether the last stream was removed."""
        return not self._supervised

    @property
    def open_feeds(self) -> int:
        """How many feeds run here now."""
        return len(self._feeds)

    # -- streams -----------------------------------------------------------------------------------

    def has_room(self, key: StreamKey) -> bool:
        """Say whether one more stream may share this feed."""
        info = self._provider.info
        if info.one_interval_per_feed and next(iter(self._supervised)).interval != key.interval:
            return False
        return len(self._supervised) < info.streams_per_feed

    def add(self, supervised: SupervisedStream) -> None:
        """Carry one more stream."""
        key = supervised.stream.key
        self._supervised[key] = supervised
        for feed in self._feeds:
            feed.add(key)
        self._tell_loss([supervised])

    def remove(self, key: StreamKey) -> None:
        """Carry a stream no longer. Whoever removes the last one cancels `task`.

        No feed finds its watchlist empty, as a plugin that only waits between updates would go round for ever then,
        and nobody else's turn would come.
        """
        del self._supervised[key]
        self._retried_at.pop(key, None)
        if not self.is_empty:
            for feed in self._feeds:
                feed.remove(key)

    def renew(self) -> None:
        """Replace the feed by one with the settings of now, or open that at once if the next one is waited for."""
        self._ask_replacement(SETTINGS)

    def hurry(self) -> None:
        """Open the next feed within a second: the provider is back, and did not say for how long to wait.

        One that is being opened is waited for, and then the next, if it fails, is opened as soon.
        """
        self._is_back = bool(self._feeds) and not any(one.has_delivered or one.has_answered for one in self._feeds)
        if self._loss is not None and not self._loss.is_barred and not self._feeds:
            # Not all at the same moment.
            asyncio.get_running_loop().call_later(self._hurry_s(), self._is_hurried.set)

    def _hurry_s(self) -> float:
        return self._rng.uniform(0.0, HURRY_S)

    def takes_comeback(self) -> bool:
        """Say once that a feed delivers here after the one before it was lost."""
        is_back = self._is_lost and any(feed.has_delivered for feed in self._feeds)
        self._is_lost = self._is_lost and not is_back
        return is_back

    def check_silence(self, now: float) -> None:
        """Do something about streams that went silent: subscribe them anew, then replace the feed.

        One that the provider never answered about is subscribed anew as well, unless its feed reports no answers.
        """
        self._check_answers(now)
        for key, supervised in self._supervised.items():
            match supervised.check_silence(now):
                case Remedy.RESUBSCRIBE:
                    for feed in self._feeds:
                        feed.resubscribe(key)
                case Remedy.REPLACE_FEED:
                    self._ask_replacement(ReplacementReason("silent", f"{key} went silent"))

    def _check_answers(self, now: float) -> None:
        if not self._feeds:
            self._unanswered.clear()
            return
        feed = self._feeds[-1]
        waiting = [
            key
            for key, supervised in self._supervised.items()
            # Nearly all are live; what asks for the hours comes last.
            if not (
                any(other.is_live(key) for other in self._feeds)
                or now < self._retried_at.get(key, 0.0)
                or supervised.is_planned(now)
                or supervised.is_closed_for(0.0)
            )
        ]
        least_s, most_s = UNANSWERED_S if feed.has_answered or not feed.has_delivered else UNREPORTED_S
        self._unanswered = {key: self._unanswered.get(key, (now + least_s, least_s)) for key in waiting}
        for key, (at, pause_s) in self._unanswered.items():
            if now >= at:
                pause_s = min(2 * pause_s, most_s)
                self._unanswered[key] = now + pause_s, pause_s
                self._supervised[key].note("requested again, because the provider did not answer")
                feed.resubscribe(key)

    # -- the life of feeds -------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep one feed open: reopen what is lost after a wait, replace what grows old before it ends."""
        try:
            # The other streams of the same request join the first feed before it opens.
            await asyncio.sleep(0)
            feed = await self._open()
            while True:
                replacement = await self._until_wish_or_end(feed)
                if replacement is not None:
                    feed = await self._replace(feed, replacement)
                    continue
                wait_s = self._after_end(feed)
                if wait_s is None:
                    return
                self._is_hurried.clear()
                hurried = asyncio.create_task(self._is_hurried.wait())
                try:
                    await self._wait(wait_s, hurried)
                finally:
                    hurried.cancel()
                feed = await self._open()
        finally:
            await asyncio.gather(*(feed.stop() for feed in self._feeds))
            self._feeds.clear()

    async def _open(self) -> Feed:
        await self._be_admitted()
        return self._open_now()

    async def _be_admitted(self, *ends: asyncio.Task[Any]) -> bool:
        """Wait until a feed may be opened; return False if one of `ends` is over before that.

        It may not while the provider wants no new feed, whoever was told so. Other settings end that wait, since the
        provider forgets it with those of before.
        """
        now = asyncio.get_running_loop().time
        place_at: float | None = None
        # Not all at the same moment.
        later_s = self._hurry_s()
        while not any(end.done() for end in ends):
            if (wait := self._provider.feeds_wait()) is not None:
                wait_s = wait.left_s + later_s
                if not self._feeds:
                    self._loss = Loss(wait.why, self._clock.monotonic() + wait_s, is_barred=True)
                    self._tell_loss(self._supervised.values())
            else:
                if place_at is None:
                    place_at = now() + self._attempts.reserve(self._clock.monotonic())
                wait_s = place_at - now()
                # A timer may be early by less.
                if wait_s < 0.001:
                    return True
                self._plan_opening(self._clock.monotonic() + wait_s)
            await self._wait(wait_s, *ends)
        return False

    def _open_now(self) -> Feed:
        self._plan_opening(0.0)
        self._retried_at.clear()
        feed = self._new_feed(
            self._supervised,
            lambda reason: self._ask_replacement(ReplacementReason("announced", reason)),
            self._lose_stream,
        )
        self._feeds.append(feed)
        log.info(
            "feed %s %d opens for %s",
            self._provider.name,
            feed.number,
            counted(len(self._supervised), "stream"),
            extra=self._about("feed_opened", feed, streams=len(self._supervised)),
        )
        return feed

    def _plan_opening(self, at: float) -> None:
        """Note when the next feed is opened."""
        if self._loss is not None:
            self._loss = Loss(self._loss.reason, at)
            self._tell_loss(self._supervised.values())

    def _tell_loss(self, streams: Iterable[SupervisedStream]) -> None:
        """Tell streams that no feed carries why, and when the next attempt is."""
        if self._loss is not None and not self._feeds:
            reason, opens_at, is_barred = self._loss
            for supervised in streams:
                supervised.lose(reason, max(0.0, opens_at - self._clock.monotonic()), is_barred=is_barred)

    def _ask_replacement(self, replacement: ReplacementReason) -> None:
        if self._replacement is None:
            self._replacement = replacement
            self._is_wished.set()

    def _is_current(self, feed: Feed) -> bool:
        """Say whether a feed runs with the provider's present settings: what it says of others concerns it alone."""
        return feed.settings is self._provider.settings

    async def _wait(self, seconds: float, *ends: asyncio.Task[Any]) -> None:
        """Wait before the next feed opens, but not any longer once there are other settings, or one of `ends`."""
        wished = asyncio.create_task(self._is_wished.wait())
        try:
            await asyncio.wait({wished, *ends}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wished.cancel()
        self._forget_wish()

    def _forget_wish(self) -> None:
        self._replacement = None
        self._is_wished.clear()

    async def _until_wish_or_end(self, feed: Feed) -> ReplacementReason | None:
        """Wait until the feed has to be replaced, and return why, or until it ends."""
        if not self._is_current(feed) and not feed.task.done():
            # They changed while it was opened.
            return SETTINGS
        life = self._provider.info.feed_life_s
        rotate_s = None if life is None else life * self._rng.uniform(0.85, 0.95)
        wished = asyncio.create_task(self._is_wished.wait())
        try:
            await asyncio.wait({feed.task, wished}, timeout=rotate_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wished.cancel()
        return None if feed.task.done() else self._replacement or ROTATION

    async def _replace(self, old: Feed, replacement: ReplacementReason) -> Feed:
        """Open a second feed and close the old one only when the new one delivers; return the one that is left."""
        self._forget_wish()
        about = self._about("feed_replaced", old, cause=replacement.cause, reason=replacement.reason)
        log.info("feed %s %d is being replaced: %s", self._provider.name, old.number, replacement.reason, extra=about)
        self._attempts.count_again(replacement.cause, replacement.reason)
        is_told = False
        while await self._be_admitted(old.task):
            new = self._open_now()
            ready = asyncio.create_task(new.ready.wait())
            try:
                await asyncio.wait(
                    {new.task, ready, old.task}, timeout=self._ready_timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                ready.cancel()
            if not new.task.done() and (new.ready.is_set() or old.task.done()):
                await old.stop()
                self._remove_feed(old)
                self._forget_wish()
                return new
            await new.stop()
            self._remove_feed(new)
            wait_s = self._backoff.next_s()
            if isinstance(new.error, RateLimited):
                wait_s = max(wait_s, new.error.retry_after)
            elif isinstance(new.error, AuthenticationFailed):
                wait_s = REFUSED_AGAIN_S
            if new.error is not None and not is_told:
                is_told = True
                about = self._about("feed_kept", old, reason=new.reason)
                log.warning(
                    "feed %s %d continues, because its replacement failed: %s",
                    self._provider.name,
                    old.number,
                    new.log_reason,
                    extra=about,
                )
            await self._wait(wait_s, old.task)
        return old

    def _remove_feed(self, feed: Feed, wait_s: float = 0.0) -> None:
        """Tell the streams that this feed does not deliver them any more, and when the next attempt is."""
        self._feeds.remove(feed)
        is_barred = isinstance(feed.error, RateLimited) and wait_s > 0
        self._loss = Loss(feed.reason, self._clock.monotonic() + wait_s, is_barred)
        for key, supervised in self._supervised.items():
            if not any(other.is_live(key) for other in self._feeds):
                self._backfill.cancel(supervised)
                supervised.lose(feed.reason, wait_s, is_barred=is_barred)

    def _lose_stream(self, key: StreamKey, reason: str, wait_s: float) -> None:
        """Tell one stream that its feed lost it alone, unless another feed delivers it."""
        supervised = self._supervised.get(key)
        if supervised is not None:
            self._retried_at[key] = self._clock.monotonic() + min(wait_s, MOST_RETRY_S)
        if supervised is not None and not any(other.is_live(key) for other in self._feeds):
            self._backfill.cancel(supervised)
            supervised.lose(reason, wait_s)

    def _after_end(self, feed: Feed) -> float | None:
        """Return how long to wait before the next feed, None when there is none."""
        self._forget_wish()
        error = feed.error
        if isinstance(error, AuthenticationFailed) and self._is_current(feed):
            self._remove_feed(feed)
            self._provider.refusal = str(error)
            about = self._about("feed_refused", feed, reason=str(error))
            log.error(
                "feed %s %d ended, because the provider refuses the relay: %s",
                self._provider.name,
                feed.number,
                feed.log_reason,
                extra=about,
            )
            for supervised in list(self._supervised.values()):
                self._on_refuse(supervised, str(error), log_text(error))
            return None
        if feed.has_delivered and not isinstance(error, Flooded):
            self._backoff.reset()
        wait_s = error.retry_after if isinstance(error, RateLimited) else self._backoff.next_s()
        if self._is_back and not (isinstance(error, RateLimited) or feed.has_delivered):
            wait_s = min(wait_s, self._hurry_s())
        self._is_back = False
        if not self._is_current(feed):
            wait_s = 0.0
        self._remove_feed(feed, wait_s)
        self._is_lost = True
        self._attempts.count_again(feed.cause, feed.reason)
        log.warning(
            "feed %s %d ended: %s; next attempt in %.1f s",
            self._provider.name,
            feed.number,
            feed.log_reason,
            wait_s,
            extra=self._about("feed_ended", feed, cause=feed.cause, reason=feed.reason, wait_s=round(wait_s, 1)),
        )
        return wait_s

    def _about(self, name: str, feed: Feed, **fields: object) -> dict[str, dict[str, object]]:
        return event(name, provider=self._provider.name, feed=feed.number, **fields)
