"""One upstream connection or polling loop of a provider: it carries updates to the hub and takes the feed's reports."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import cast

from relay.core.errors import BadAnswer, ProviderError, ProviderTimeout, ProviderUnavailable, RateLimited, log_text
from relay.core.intervals import next_open
from relay.core.model import PriceUpdate, StreamKey
from relay.core.past_change import PastChange
from relay.plugins.provider import Provider
from relay.protocol.server_messages import StreamState
from relay.streams.hub import Hub
from relay.streams.subscriptions import CONNECTED, Stream
from relay.supervision.backfill import Backfill
from relay.supervision.stream_facts import STALE
from relay.supervision.stream_state import SupervisedStream
from relay.telemetry.events import event
from relay.telemetry.histogram import LAG_BOUNDS_S, Histogram
from relay.upstream.watchlist import Watchlist

log = logging.getLogger(__name__)

OLDEST_S = -45 * 86_400.0
"""A candle that opened longer ago cannot be news: the longest interval is a month."""
LATE_S = 10.0
"""An update that was stamped so long ago says nothing of a candle that was over already: history is compared."""


class FeedCounters:
    """What came in over all feeds of one provider, in numbers."""

    def __init__(self, provider: str) -> None:
        self.updates = 0
        self.lag = Histogram(LAG_BOUNDS_S)
        self.skipped = 0
        self._provider = provider
        self._logged: set[str] = set()

    def skip(self, reason: str, what: str = "is invalid") -> None:
        """Count a message that is left out; only the first for each `what` is logged."""
        self.skipped += 1
        if what not in self._logged:
            self._logged.add(what)
            log.warning(
                "%s sent a message that %s (more of them are only counted): %s",
                self._provider,
                what,
                reason[:200],
                extra=event("message_skipped", provider=self._provider),
            )


class Feed:
    """Runs one `relay_stream` of the provider, from the start, with a watchlist of its own.

    `ready` is set once all its streams are live, or lost alone. Whoever changes `supervised` calls `add` and `remove`,
    too. `on_lose` is called when a stream is lost alone: with its key, why, and in how many seconds it is tried again.
    """

    def __init__(
        self,
        number: int,
        supervised: Mapping[StreamKey, SupervisedStream],
        provider: Provider,
        hub: Hub,
        backfill: Backfill,
        counters: FeedCounters,
        *,
        on_refuse: Callable[[SupervisedStream, str, str], None],
        on_closing: Callable[[str], None],
        on_lose: Callable[[StreamKey, str, float], None],
        on_past_change: Callable[[PastChange], Awaitable[None]],
    ) -> None:
        self.number = number
        self.ready = asyncio.Event()
        self.has_delivered = False
        self.has_answered = False
        self.has_closed = False
        self.reason = self.log_reason = "it was cancelled by its own plugin"
        self.error: ProviderError | None = None
        self.settings = provider.settings
        self._supervised = supervised
        self._provider = provider
        self._hub = hub
        self._backfill = backfill
        self._counters = counters
        self._on_refuse = on_refuse
        self._on_lose = on_lose
        self._live: set[StreamKey] = set()
        # Why streams are lost that the feed tries again by itself.
        self._lost: dict[StreamKey, str] = {}
        self._watchlist = Watchlist(
            supervised,
            on_accept=self._take_answer,
            on_reject=self._reject,
            on_lose=self._lose,
            on_skip=lambda reason: counters.skip(provider.conceal(reason)),
            on_closing=on_closing,
            on_pause=self._pause,
            on_expect=self._expect,
            on_remark=self._remark,
            on_invalidate=on_past_change,
            is_closed_for=self._is_closed_for,
        )
        self.task = asyncio.create_task(self._pump(), name=f"pump {provider.name} {number}")

    # -- the host's side ---------------------------------------------------------------------------

    def add(self, key: StreamKey) -> None:
        """Carry one more stream."""
        self._watchlist.add(key)

    def remove(self, key: StreamKey) -> None:
        """Carry a stream no longer."""
        self._watchlist.remove(key)
        self._live.discard(key)
        self._lost.pop(key, None)

    def resubscribe(self, key: StreamKey) -> None:
        """Ask the provider for a stream once more; it counts as live meanwhile."""
        self._watchlist.remove(key)
        self._watchlist.add(key)

    def is_live(self, key: StreamKey) -> bool:
        """Say whether this feed delivers the stream."""
        return key in self._live

    async def stop(self) -> None:
        """End the feed and wait until it has let go of its connection."""
        await self._provider.end_feed(self.task)

    @property
    def cause(self) -> str:
        """How the feed ended, as one of `CAUSES`."""
        match self.error:
            case None if self.has_closed:
                return "closed"
            case RateLimited():
                return "rate_limited"
            case ProviderTimeout():
                return "timeout"
            case ProviderUnavailable():
                return "lost" if self.has_delivered else "unavailable"
            case BadAnswer():
                return "bad_answer"
            case _:
                return "failed"

    # -- updates -----------------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Carry updates from the provider to the hub; the only loop on the way of an update."""
        hub, clock, carried_of, live, counters = (
            self._hub,
            self._provider.clock,
            self._supervised,
            self._live,
            self._counters,
        )
        is_utc_grid = self._provider.info.is_utc_grid
        try:
            async with aclosing(self._provider.stream(self._watchlist)) as updates:
                async for update in updates:
                    key = update.key
                    supervised = carried_of.get(key)
                    if supervised is None:
                        continue
                    stream = supervised.stream
                    stamp_ms = update.ts_event_ms
                    if stamp_ms is None:
                        now, earliest = clock.reach(), clock.now()
                        if stream.status == STALE and stream.series.is_repeat(update):
                            # It was said before the silence: that it is said again makes it no price of now.
                            if key not in live:
                                self._accept(key)
                            continue
                    else:
                        stamp_s = stamp_ms / 1000
                        lag_s = clock.observe(stamp_s, key.symbol)
                        now = earliest = stamp_s + lag_s
                        if lag_s >= 0:
                            stream.lag_ms = lag_s * 1000
                            counters.lag.observe(lag_s)
                            if (lag_s > LATE_S or stream.series.last is None) and self._is_old(stream, update, now):
                                counters.skip(f"{key}: the candle had ended already: {update.candle.time}")
                                if lag_s <= LATE_S and (told := self._of_settled(stream, update)):
                                    hub.tell(stream, told)
                                continue
                        elif lag_s < -clock.ahead_s:
                            self._stray(supervised, update, now)
                            continue
                    if not (update.candle.time - earliest > OLDEST_S and update.candle.time - now < clock.ahead_s):
                        self._stray(supervised, update, now)
                        continue
                    if update.is_closed and stream.series.market.closes_early(
                        key.interval, update.candle.time, now, slack_s=clock.ahead_s, is_utc_grid=is_utc_grid
                    ):
                        counters.skip(f"{key} at {update.candle.time}", "closes a candle before its end")
                        update = update._replace(is_closed=False)
                    supervised.received += 1
                    counters.updates += 1
                    self.has_delivered = True
                    if key not in live:
                        self._accept(key)
                    hub.publish(stream, update)
                    if stream.series.is_catching_up:
                        self._backfill.start(supervised)
                    if stream.status != CONNECTED:
                        supervised.hear()
            self.has_closed = True
            self.reason = self.log_reason = "the provider closed the connection"
        except ProviderError as error:
            self.error = error
            self.reason, self.log_reason = str(error), log_text(error)
        except Exception as error:
            # No plugin's: those are judged before they come here. The streams wait for the next feed all the same.
            self.reason = self.log_reason = f"the relay failed ({type(error).__name__})"
            about = event("feed_broken", provider=self._provider.name, feed=self.number)
            log.exception("feed %s %d failed", self._provider.name, self.number, extra=about)

    def _is_old(self, stream: Stream, update: PriceUpdate, now: float) -> bool:
        """Say whether a late update tells of a candle that is known, or was over while others were in time."""
        key, time, series = update.key, update.candle.time, stream.series
        stream.reckon_promise()
        if series.is_settled(time):
            return True
        is_over = next_open(key.interval, time) + LATE_S <= now
        return is_over and self._provider.clock.is_contradicted(key.symbol)

    def _of_settled(self, stream: Stream, update: PriceUpdate) -> Sequence[PriceUpdate]:
        """Return what is to be told of a candle that was over before anything of the stream was told."""
        series = stream.series
        return series.accept_settled(update) if update.is_closed and series.is_settled(update.candle.time) else ()

    def _stray(self, supervised: SupervisedStream, update: PriceUpdate, now: float) -> None:
        """Leave out an update of another time: it is no data, and no news about the time."""
        at_s = max(update.candle.time, (update.ts_event_ms or 0) / 1000)
        ahead_s = at_s - now
        if ahead_s > 0:
            supervised.note_stray(f"its updates are left out: their times are {ahead_s:.0f} s in the future")
            # What it misses comes from there, and the date of the answer says who is right.
            self._backfill.doubt(supervised)
            self._counters.skip(
                f"{update.key} is {ahead_s:.0f} s ahead of its provider's time", "has a time in the future"
            )
        else:
            self._counters.skip(f"{update.key} has a candle that is too old: {update.candle.time}")

    # -- what the provider reports -----------------------------------------------------------------
    # A plugin that cannot be ended may still report about streams that are carried elsewhere, or no more.

    def _note_live(self, key: StreamKey) -> None:
        self._live.add(key)
        if self._lost.pop(key, None) is not None and not self._lost:
            about = event("streams_back", provider=self._provider.name, feed=self.number)
            log.info("all streams of feed %s %d are delivered again", self._provider.name, self.number, extra=about)
        self._check_ready()

    def _check_ready(self) -> None:
        if all(key in self._live or key in self._lost for key in self._watchlist.streams):
            self.ready.set()

    def _lose(self, key: StreamKey, error: ProviderError, wait_s: float) -> None:
        if key not in self._supervised:
            return
        reason = str(error)
        self._live.discard(key)
        # A venue that is away loses all of them: one line is enough for the same reason.
        level = logging.DEBUG if reason in self._lost.values() else logging.WARNING
        self._lost[key] = reason
        log.log(
            level,
            "%s of feed %s %d is lost, others continue: %s; next attempt in %.1f s",
            key,
            self._provider.name,
            self.number,
            log_text(error),
            wait_s,
            extra=event("stream_lost", provider=self._provider.name, feed=self.number, stream=str(key), reason=reason),
        )
        self._on_lose(key, reason, wait_s)
        self._check_ready()

    def _take_answer(self, key: StreamKey) -> None:
        self.has_answered = True
        self._accept(key)

    def _accept(self, key: StreamKey) -> None:
        self._note_live(key)
        if (supervised := self._supervised.get(key)) is not None:
            self._backfill.resume(supervised)
            supervised.show()

    def _pause(self, key: StreamKey, status: str, message: str) -> None:
        self._note_live(key)
        if (supervised := self._supervised.get(key)) is not None:
            # A watchlist lets no other through than its PAUSES.
            supervised.rest(cast(StreamState, status), message)

    def _reject(self, key: StreamKey, error: ProviderError) -> None:
        if (supervised := self._supervised.get(key)) is not None:
            said = f"{self._provider.info.title} refused {key}"
            self._on_refuse(supervised, f"{said}: {error}", f"{said}: {log_text(error)}")
        self._check_ready()

    def _expect(self, key: StreamKey, in_s: float, every_s: float | None) -> None:
        if (supervised := self._supervised.get(key)) is not None:
            supervised.expect(in_s, every_s)

    def _is_closed_for(self, key: StreamKey, seconds: float) -> bool:
        supervised = self._supervised.get(key)
        return supervised is not None and supervised.is_closed_for(seconds)

    def _remark(self, key: StreamKey, message: str) -> None:
        if (supervised := self._supervised.get(key)) is not None:
            supervised.remark(message)
