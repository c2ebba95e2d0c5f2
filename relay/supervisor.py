"""The feeds of one provider: open, pump, back off, backfill, rotate, watch for silence."""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple, cast

from relay import wire
from relay.clock import Clock
from relay.ending import end_task
from relay.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    StoreError,
)
from relay.events import event
from relay.history import History
from relay.hub import Hub
from relay.intervals import length_s, next_open
from relay.liveness import Liveness
from relay.measures import LAG_BOUNDS_S, Histogram
from relay.messages import StreamState
from relay.model import Candle, PriceUpdate, ProviderInfo, StreamKey
from relay.provider import Provider
from relay.series import Missing
from relay.stream import CONNECTED, CONNECTING, Stream
from relay.watchlist import Watchlist

log = logging.getLogger(__name__)

RECONNECTING: Final = "reconnecting"
BACKFILLING: Final = "backfilling"
STALE: Final = "stale"
ERROR: Final = "error"

LEAST_WAIT_S = 1.0
MOST_WAIT_S = 30.0
TICK_S = 1.0
FILLS_AT_A_TIME = 8
FILL_PATIENCE_S = 20.0
"""Live updates wait this long for history that fails; then a gap is told and repaired later."""
FILL_PAGE = 5000
LAG_WAIT_S = 0.5
REPAIR_EVERY_S = 15.0
FUTURE_S = 60.0
PAST_S = 45 * 86_400.0
"""A candle that opened longer ago cannot be news: the longest interval is a month."""
CONNECTS = 250
CONNECTS_WINDOW_S = 300.0
READY_TIMEOUT_S = 20.0
KEPT_EVENTS = 20
LIVE = "live"
LATE_S = 20.0
"""A poll that a feed announced may be so late, since it waits for an answer, before silence counts."""
MOST_CAUSES = 100

CAUSES = (
    *("closed", "lost", "unavailable", "timeout", "rate_limited", "bad_answer", "failed"),
    *("rotation", "announced", "silent"),
)
"""Why a feed is opened anew, in one word: it ended (first line), or it was replaced before it did (second)."""


class Planned(NamedTuple):
    """When a polled stream is asked for next, by the monotonic clock, and how often it is."""

    at: float
    every_s: float | None


class Backoff:
    """Waits between attempts: doubling from 1 s to 30 s, with jitter, from the start again once data flowed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.attempt = 0

    def next_s(self) -> float:
        """Return how long to wait before the next attempt."""
        most: float = min(MOST_WAIT_S, 2.0 ** (self.attempt + 1))
        self.attempt += 1
        return self._rng.uniform(max(LEAST_WAIT_S, most / 2), most)

    def reset(self) -> None:
        """Begin anew."""
        self.attempt = 0


class Feed:
    """One upstream connection or polling loop with its own watchlist. `ready` is set once all its streams are live."""

    def __init__(self, number: int, on_kill: Callable[[], object]) -> None:
        self.number = number
        self._on_kill = on_kill
        self.watchlist = Watchlist()
        self.live: set[StreamKey] = set()
        self.ready = asyncio.Event()
        self.has_delivered = False
        self.cause = "the upstream closed the connection"
        self.error: ProviderError | None = None
        self.task: asyncio.Task[None] | None = None

    def check_ready(self) -> None:
        """Set `ready` when nothing on the watchlist is missing any more."""
        if all(key in self.live for key in self.watchlist.streams):
            self.ready.set()

    async def stop(self) -> None:
        """End the feed and wait until it has let go of its connection."""
        if self.task is not None:
            await end_task(self.task, on_kill=self._on_kill)


class Slot:
    """A place for one feed: the streams it carries, and at most two feeds while one replaces the other."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.keys: dict[StreamKey, None] = {}
        self.feeds: list[Feed] = []
        self.task: asyncio.Task[None] | None = None
        self.replace_cause: str | None = None
        self.replace_kind = "rotation"
        self.replace = asyncio.Event()

    def has_room(self, key: StreamKey, info: ProviderInfo) -> bool:
        """Say whether one more stream may share this connection; a slot is never without a stream."""
        if info.one_interval_per_feed and next(iter(self.keys)).interval != key.interval:
            return False
        return len(self.keys) < info.streams_per_feed

    def is_live(self, key: StreamKey) -> bool:
        """Say whether some feed of this slot delivers the stream."""
        return any(key in feed.live for feed in self.feeds)


class Supervisor:
    """Keeps the streams of one provider fed. A failure here never reaches another provider."""

    def __init__(
        self,
        provider: Provider,
        hub: Hub,
        history: History,
        clock: Clock,
        *,
        linger_s: float,
        rng: random.Random | None = None,
        backoff: Callable[[random.Random], Backoff] = Backoff,
    ) -> None:
        self.provider = provider
        self.clock = provider.clock
        self.has_history = provider.has_history
        self.reconnects: Counter[str] = Counter()
        self.reconnect_kinds: Counter[str] = Counter()
        self.updates = 0
        self.lag = Histogram(LAG_BOUNDS_S)
        self.connects = 0
        self.skipped = 0
        self.last_skip: str | None = None
        self.backfills = 0
        self.longest_recovery_s = 0.0
        self._hub = hub
        self._history = history
        self._machine_clock = clock
        self._linger_s = linger_s
        self._rng = rng or random.Random()
        self._new_backoff = backoff
        self._streams: dict[StreamKey, Stream] = {}
        self._slot_of: dict[StreamKey, Slot] = {}
        self._slots: dict[int, Slot] = {}
        self._lingering: dict[StreamKey, asyncio.TimerHandle] = {}
        self._fills: dict[Stream, asyncio.Task[None]] = {}
        self._fill_places = asyncio.Semaphore(FILLS_AT_A_TIME)
        self._liveness: dict[Stream, Liveness] = {}
        self._received: Counter[Stream] = Counter()
        self._next_check: dict[Stream, float] = {}
        self._planned: dict[StreamKey, Planned] = {}
        self._remarks: dict[StreamKey, str] = {}
        self._connect_times: deque[float] = deque()
        self._ending: set[asyncio.Task[None]] = set()
        self._repairs: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._numbers = 0
        self._is_closing = False

    @property
    def open_feeds(self) -> int:
        """How many upstream connections or polling loops run now."""
        return sum(len(slot.feeds) for slot in self._slots.values())

    # -- demand ------------------------------------------------------------------------------------

    def wanted(self, stream: Stream) -> None:
        """Carry a stream upstream, or go on carrying it if it was lingering."""
        handle = self._lingering.pop(stream.key, None)
        if handle is not None:
            handle.cancel()
        if stream.key in self._streams or self._is_closing:
            return
        self._streams[stream.key] = stream
        slot = next((slot for slot in self._slots.values() if slot.has_room(stream.key, self.provider.info)), None)
        if slot is None:
            slot = self._open_slot()
        slot.keys[stream.key] = None
        self._slot_of[stream.key] = slot
        self._liveness[stream] = Liveness(stream.key.interval, self._machine_clock.monotonic())
        for feed in slot.feeds:
            feed.watchlist.add(stream.key)
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick_forever(), name=f"watch {self.provider.name}")

    def unwanted(self, stream: Stream) -> None:
        """Stop carrying a stream when it has been without subscribers for the linger time."""
        if self._is_closing or self._streams.get(stream.key) is not stream:
            self._hub.remove(stream)
            return
        loop = asyncio.get_running_loop()
        self._lingering[stream.key] = loop.call_later(self._linger_s, self._drop, stream)

    def _drop(self, stream: Stream) -> None:
        self._lingering.pop(stream.key, None)
        self._forget(stream)
        self._hub.remove(stream)

    def _forget(self, stream: Stream) -> None:
        """Take a stream off its feed; close the feed when it was the last one."""
        if self._streams.pop(stream.key, None) is None:
            return
        fill = self._fills.pop(stream, None)
        if fill is not None:
            fill.cancel()
        self._liveness.pop(stream, None)
        self._received.pop(stream, None)
        self._next_check.pop(stream, None)
        self._planned.pop(stream.key, None)
        self._remarks.pop(stream.key, None)
        slot = self._slot_of.pop(stream.key)
        slot.keys.pop(stream.key, None)
        for feed in slot.feeds:
            feed.watchlist.remove(stream.key)
            feed.live.discard(stream.key)
        if not slot.keys:
            del self._slots[slot.number]
            if slot.task is not None:
                self._end(slot.task)

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def refuse(self, stream: Stream, reason: str) -> None:
        """Give a stream up for good: its subscribers see the state `error`; subscribing again later tries again."""
        self._note(stream, f"error: {reason}")
        self._forget(stream)
        self._hub.set_state(stream, ERROR, reason)

    def delist(self, symbols: set[str]) -> None:
        """End the streams of symbols that the provider no longer lists."""
        for stream in list(self._streams.values()):
            if stream.key.symbol.upper() in symbols:
                self.refuse(stream, f"{self.provider.info.title} no longer lists {stream.key.symbol}")

    async def close(self) -> None:
        """End all feeds and everything that was started for them."""
        self._is_closing = True
        for handle in self._lingering.values():
            handle.cancel()
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        tasks += [*self._fills.values(), *self._ending, *self._repairs]
        if self._ticker is not None:
            tasks.append(self._ticker)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- feeds -------------------------------------------------------------------------------------

    def _open_slot(self) -> Slot:
        self._numbers += 1
        slot = Slot(self._numbers)
        self._slots[slot.number] = slot
        slot.task = asyncio.create_task(self._run(slot), name=f"feed {self.provider.name} {slot.number}")
        return slot

    async def _run(self, slot: Slot) -> None:
        """Keep one feed open: reopen what is lost after a wait, replace what grows old before it ends."""
        backoff = self._new_backoff(self._rng)
        try:
            # The other streams of the same request join the first feed before it opens.
            await asyncio.sleep(0)
            feed = await self._start(slot)
            while True:
                if await self._watch(slot, feed):
                    feed = await self._replace(slot, feed, backoff)
                    continue
                wait_s = self._after_end(slot, feed, backoff)
                if wait_s is None:
                    return
                await asyncio.sleep(wait_s)
                feed = await self._start(slot)
        finally:
            await asyncio.gather(*(feed.stop() for feed in slot.feeds))
            slot.feeds.clear()

    async def _start(self, slot: Slot) -> Feed:
        await self._connect_turn()
        self._numbers += 1
        feed = Feed(self._numbers, self.provider.note_kill)
        feed.watchlist = Watchlist(
            slot.keys,
            on_accept=lambda key: self._on_accept(feed, key),
            on_reject=lambda key, reason: self._on_reject(feed, key, reason),
            on_skip=self._on_skip,
            on_closing=lambda reason: self._ask_replacement(slot, reason, "announced"),
            on_pause=lambda key, status, message: self._on_pause(feed, key, status, message),
            on_expect=self._on_expect,
            on_remark=self._on_remark,
        )
        slot.feeds.append(feed)
        feed.task = asyncio.create_task(self._pump(slot, feed), name=f"pump {self.provider.name} {feed.number}")
        self.connects += 1
        log.info(
            "feed %s %d opens for %d streams",
            self.provider.name,
            feed.number,
            len(slot.keys),
            extra=event("feed_opened", provider=self.provider.name, feed=feed.number, streams=len(slot.keys)),
        )
        return feed

    async def _connect_turn(self) -> None:
        """Hold connection attempts below 300 in 5 minutes, the tightest limit of a known venue."""
        now = self._machine_clock.monotonic()
        while self._connect_times and self._connect_times[0] < now - CONNECTS_WINDOW_S:
            self._connect_times.popleft()
        if len(self._connect_times) >= CONNECTS:
            await asyncio.sleep(self._connect_times[0] + CONNECTS_WINDOW_S - now)
        self._connect_times.append(self._machine_clock.monotonic())

    async def _watch(self, slot: Slot, feed: Feed) -> bool:
        """Wait until the feed ends (False) or has to be replaced (True)."""
        life = self.provider.info.feed_life_s
        rotate_s = None if life is None else life * self._rng.uniform(0.85, 0.95)
        replace = asyncio.create_task(slot.replace.wait())
        assert feed.task is not None
        try:
            done, _ = await asyncio.wait({feed.task, replace}, timeout=rotate_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            replace.cancel()
        if feed.task in done:
            return False
        if replace not in done:
            slot.replace_cause = "rotation before the provider's limit"
            slot.replace_kind = "rotation"
        return True

    def _ask_replacement(self, slot: Slot, cause: str, kind: str) -> None:
        if not slot.replace.is_set():
            slot.replace_cause = cause
            slot.replace_kind = kind
            slot.replace.set()

    async def _replace(self, slot: Slot, old: Feed, backoff: Backoff) -> Feed:
        """Open a second feed and close the old one only when the new one delivers; return the one that is left."""
        cause = slot.replace_cause or "asked for"
        slot.replace.clear()
        about = event(
            "feed_replaced", provider=self.provider.name, feed=old.number, cause=slot.replace_kind, reason=cause
        )
        log.info("feed %s %d is being replaced: %s", self.provider.name, old.number, cause, extra=about)
        self._count_reconnect(cause, slot.replace_kind)
        assert old.task is not None
        while not old.task.done():
            new = await self._start(slot)
            assert new.task is not None
            ready = asyncio.create_task(new.ready.wait())
            try:
                await asyncio.wait(
                    {new.task, ready, old.task}, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                ready.cancel()
            if not new.task.done() and (new.ready.is_set() or old.task.done()):
                await old.stop()
                self._remove(slot, old)
                slot.replace.clear()
                return new
            await new.stop()
            self._remove(slot, new)
            wait_s = backoff.next_s()
            if isinstance(new.error, RateLimited):
                wait_s = max(wait_s, new.error.retry_after)
            await asyncio.wait({old.task}, timeout=wait_s)
        return old

    def _remove(self, slot: Slot, feed: Feed) -> None:
        if feed in slot.feeds:
            slot.feeds.remove(feed)
        feed.live.clear()
        self._mark_lost(slot, feed)

    def _after_end(self, slot: Slot, feed: Feed, backoff: Backoff) -> float | None:
        """Tell the streams that their feed ended; return how long to wait, None when there is no next time."""
        self._remove(slot, feed)
        slot.replace.clear()
        for key in slot.keys:
            if (stream := self._streams.get(key)) is not None and stream.status == CONNECTING:
                self._hub.set_state(stream, CONNECTING, f"{feed.cause}; the next attempt is under way")
        error = feed.error
        if isinstance(error, AuthenticationFailed):
            self.provider.refusal = str(error)
            about = event("feed_refused", provider=self.provider.name, feed=feed.number, reason=str(error))
            log.error("feed %s %d ended for good: %s", self.provider.name, feed.number, error, extra=about)
            for key in list(slot.keys):
                self.refuse(self._streams[key], str(error))
            return None
        if feed.has_delivered:
            backoff.reset()
        wait_s = error.retry_after if isinstance(error, RateLimited) else backoff.next_s()
        self._count_reconnect(feed.cause, _kind_of(feed))
        log.warning(
            "feed %s %d ended: %s; next attempt in %.1f s",
            self.provider.name,
            feed.number,
            feed.cause,
            wait_s,
            extra=event(
                "feed_ended",
                provider=self.provider.name,
                feed=feed.number,
                cause=_kind_of(feed),
                reason=feed.cause,
                wait_s=round(wait_s, 1),
            ),
        )
        return wait_s

    def _count_reconnect(self, cause: str, kind: str) -> None:
        """Count by sentence, of which there may be many, and by kind."""
        self.reconnect_kinds[kind] += 1
        is_known = cause in self.reconnects or len(self.reconnects) < MOST_CAUSES
        self.reconnects[cause if is_known else "other causes"] += 1

    def _mark_lost(self, slot: Slot, feed: Feed) -> None:
        for key in slot.keys:
            stream = self._streams.get(key)
            if stream is not None and not slot.is_live(key) and stream.status not in (CONNECTING, ERROR):
                if stream.status != RECONNECTING:
                    stream.reconnects += 1
                    self._note(stream, f"lost: {feed.cause}")
                fill = self._fills.pop(stream, None)
                if fill is not None:
                    fill.cancel()
                self._hub.set_state(stream, RECONNECTING, f"{feed.cause}; the next attempt is under way")

    async def _pump(self, slot: Slot, feed: Feed) -> None:
        """Carry updates from the provider to the hub; the only loop on the way of an update."""
        hub, clock, streams, received = self._hub, self.provider.clock, self._streams, self._received
        try:
            async with aclosing(self.provider.stream(feed.watchlist)) as updates:
                async for update in updates:
                    stream = streams.get(update.key)
                    if stream is None or update.key not in slot.keys:
                        continue
                    stamp_ms = update.ts_event_ms
                    if stamp_ms is not None:
                        clock.observe(stamp_ms / 1000)
                        stream.lag_ms = lag_ms = clock.now() * 1000 - stamp_ms
                        self.lag.observe(lag_ms / 1000)
                    ahead_s = update.candle.time - clock.now()
                    if not -PAST_S < ahead_s < FUTURE_S:
                        self._on_skip(f"{update.key} has a candle from another time: {update.candle.time}")
                        continue
                    received[stream] += 1
                    self.updates += 1
                    feed.has_delivered = True
                    if update.key not in feed.live:
                        self._on_accept(feed, update.key)
                    hub.publish(stream, update)
                    if stream.series.is_catching_up:
                        if stream not in self._fills:
                            self._start_fill(stream)
                    elif stream.status != CONNECTED:
                        self._go_live(stream)
        except ProviderError as error:
            feed.error = error
            feed.cause = str(error)

    # -- what feeds report -------------------------------------------------------------------------

    def _on_skip(self, reason: str) -> None:
        self.skipped += 1
        self.last_skip = reason[:200]
        if self.skipped == 1:
            log.warning(
                "%s sent a message that makes no sense (counted from now on): %s",
                self.provider.name,
                reason[:200],
                extra=event("message_skipped", provider=self.provider.name),
            )

    def _on_reject(self, feed: Feed, key: StreamKey, reason: str) -> None:
        stream = self._streams.get(key)
        if stream is not None:
            self.refuse(stream, f"{self.provider.info.title} refused {key}: {reason}")
        feed.check_ready()

    def _on_pause(self, feed: Feed, key: StreamKey, status: str, message: str) -> None:
        stream = self._streams.get(key)
        feed.live.add(key)
        feed.check_ready()
        if stream is not None:
            # A watchlist lets no other through than its PAUSES.
            self._hub.set_state(stream, cast(StreamState, status), message)

    def _on_expect(self, key: StreamKey, in_s: float, every_s: float | None) -> None:
        if key in self._streams:
            self._planned[key] = Planned(self._machine_clock.monotonic() + in_s, every_s)

    def _on_remark(self, key: StreamKey, message: str) -> None:
        """Keep what a feed says about how a stream is live, and show it if the stream is."""
        stream = self._streams.get(key)
        if stream is None or self._remarks.get(key, LIVE) == (message or LIVE):
            return
        self._remarks[key] = message or LIVE
        if stream.status == CONNECTED:
            self._hub.set_state(stream, CONNECTED, self._remarks[key])

    def _is_planned(self, key: StreamKey, now: float) -> bool:
        """Say whether a feed that polls will ask for a stream by itself; only a poll that is late makes a doubt."""
        planned = self._planned.get(key)
        return planned is not None and now < planned.at + LATE_S

    def planned(self, key: StreamKey) -> Planned | None:
        """Return when a polled stream is asked for next, if its feed said so."""
        return self._planned.get(key)

    def _on_accept(self, feed: Feed, key: StreamKey) -> None:
        """A feed delivers a stream from now on: live at once, unless candles may have closed unseen meanwhile."""
        feed.live.add(key)
        feed.check_ready()
        stream = self._streams.get(key)
        # Only data ends staleness: a provider may accept a stream and stay mute.
        if stream is None or stream.status in (CONNECTED, STALE) or stream in self._fills:
            return
        self._liveness[stream].restart(self._machine_clock.monotonic())
        series = stream.series
        due_at = series.due_at()
        if series.is_catching_up:
            self._start_fill(stream)
        elif (
            self.has_history
            and due_at is not None
            and self.clock.now() >= due_at
            and not self._is_planned(key, self._machine_clock.monotonic())
        ):
            series.catch_up()
            self._start_fill(stream)
        else:
            self._go_live(stream)

    def _go_live(self, stream: Stream) -> None:
        if stream.status != CONNECTED:
            self._hub.set_state(stream, CONNECTED, self._remarks.get(stream.key, LIVE))

    def _note(self, stream: Stream, event: str) -> None:
        stream.events.append((self._machine_clock.wall(), event))
        del stream.events[:-KEPT_EVENTS]

    # -- backfill ----------------------------------------------------------------------------------

    def _start_fill(self, stream: Stream) -> None:
        self._hub.set_state(stream, BACKFILLING, "what was missed is being fetched")
        task = asyncio.create_task(self._fill(stream), name=f"backfill {stream.key}")
        self._fills[stream] = task
        task.add_done_callback(lambda done: self._fill_done(stream, done))

    def _fill_done(self, stream: Stream, task: asyncio.Task[None]) -> None:
        if self._fills.get(stream) is task:
            del self._fills[stream]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("backfill of %s failed", stream.key, exc_info=error, extra=_about("backfill_failed", stream))

    async def _fill(self, stream: Stream) -> None:
        """Fetch what is missing before the live updates that wait, and let them follow."""
        series, hub = stream.series, self._hub
        started = self._machine_clock.monotonic()
        attempt, failure = 0, ""
        retry_at = 0.0
        waiting_since: float | None = None
        while series.is_catching_up:
            missing = series.missing(self.clock.now())
            if missing is None:
                hub.tell(stream, series.fill((), None))
                continue
            now = self._machine_clock.monotonic()
            if missing.end is None:
                waiting_since = None
            elif waiting_since is None:
                waiting_since = now
            if not self.has_history:
                failure = f"{self.provider.info.title} has no history"
                retry_at = now + MOST_WAIT_S
            if failure and waiting_since is not None and max(now, retry_at) > waiting_since + FILL_PATIENCE_S:
                self._tell(stream, series.give_up(), failure)
                continue
            if retry_at > now:
                # In short steps, since a live update that has to wait for this may come meanwhile.
                await asyncio.sleep(min(retry_at - now, TICK_S))
                continue
            try:
                closed, forming, until = await self._fetch(stream.key, missing)
            except (ProviderError, StoreError) as error:
                attempt += 1
                wait_s = min(MOST_WAIT_S, 2.0 ** (attempt - 1)) * self._rng.uniform(0.5, 1)
                if isinstance(error, RateLimited):
                    wait_s = max(wait_s, error.retry_after)
                failure = str(error)
                retry_at = self._machine_clock.monotonic() + wait_s
                hub.set_state(stream, BACKFILLING, f"what was missed cannot be fetched yet: {error}")
                continue
            failure = ""
            if self._may_lag(stream.key, missing, closed):
                await asyncio.sleep(LAG_WAIT_S)
                continue
            backfilled = series.backfilled
            self._tell(stream, series.fill(closed, until, forming), "the provider does not have it")
            self.backfills += 1
            if series.backfilled > backfilled:
                self._note(stream, f"backfilled {series.backfilled - backfilled} candles")
        self.longest_recovery_s = max(self.longest_recovery_s, self._machine_clock.monotonic() - started)
        slot = self._slot_of.get(stream.key)
        if slot is None or not slot.is_live(stream.key):
            return
        if self._liveness[stream].warnings:
            self._show_stale(stream)
        else:
            self._go_live(stream)

    async def _fetch(self, key: StreamKey, missing: Missing) -> tuple[list[Candle], Candle | None, int | None]:
        """Ask history; return the closed candles, the open one if it was reached, and the end that is answered for."""
        async with self._fill_places:
            past = await self._history.candles(
                self.provider,
                key,
                start=max(0, missing.start),
                end=None if missing.end is None else missing.end - 1,
                limit=FILL_PAGE,
                # What closed a moment ago is just what is missing.
                must_be_new=True,
            )
        if not past.is_complete:
            raise ProviderUnavailable("the answer was not complete")
        closed = list(past.candles)
        forming = closed.pop() if closed and not past.last_is_closed else None
        until = missing.end
        if len(past.candles) == FILL_PAGE:
            until = past.candles[-1].time + 1
        return closed, forming, until

    def _may_lag(self, key: StreamKey, missing: Missing, closed: list[Candle]) -> bool:
        """Say whether the newest missing candle may only be late in the provider's history: worth asking again."""
        end = missing.end
        if end is None or self.clock.now() >= end + self.provider.info.close_grace_s:
            return False
        return not closed or next_open(key.interval, closed[-1].time) < end

    def _tell(self, stream: Stream, updates: Sequence[PriceUpdate], reason: str) -> None:
        """Tell what a series made of an answer, and before it the gaps that it leaves."""
        for gap in stream.series.take_gaps():
            stream.gap_count += 1
            self._note(stream, f"gap {gap.start} to {gap.end}: {reason}")
            about = _about("gap", stream, start=gap.start, end=gap.end, reason=reason)
            log.warning("%s has a gap from %d to %d: %s", stream.key, gap.start, gap.end, reason, extra=about)
            self._hub.announce(stream, wire.gap(stream.name, stream.key.interval, gap.start, gap.end, reason))
        self._hub.tell(stream, updates)

    async def _repair(self) -> None:
        """Try once to close the oldest gap of each stream."""
        for stream in list(self._streams.values()):
            if not stream.series.gaps or stream.status != CONNECTED:
                continue
            gap = stream.series.gaps[0]
            missing = Missing(gap.start, gap.end)
            try:
                closed, _, until = await self._fetch(stream.key, missing)
            except (ProviderError, StoreError) as error:
                log.debug("gap of %s stays: %s", stream.key, error, extra=_about("gap_stays", stream))
                continue
            if self._streams.get(stream.key) is stream and not self._may_lag(stream.key, missing, closed):
                self._tell(stream, stream.series.repair(gap, closed, until), "")
                self._note(stream, f"repaired gap {gap.start} to {gap.end}")

    # -- watching ----------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        repair_at = self._machine_clock.monotonic() + REPAIR_EVERY_S
        while True:
            await asyncio.sleep(TICK_S)
            now = self._machine_clock.monotonic()
            for stream in list(self._streams.values()):
                self._check_silence(stream, now)
                self._check_close(stream, now)
            if now >= repair_at and self.has_history and not self._repairs:
                repair_at = now + REPAIR_EVERY_S
                task = asyncio.create_task(self._repair(), name=f"repair {self.provider.name}")
                self._repairs.add(task)
                task.add_done_callback(self._repairs.discard)

    def _check_silence(self, stream: Stream, now: float) -> None:
        """A stream that is silent beyond its habit is stale: resubscribe it first, then replace its connection."""
        liveness = self._liveness[stream]
        is_planned = stream.status != STALE and self._is_planned(stream.key, now)
        if stream.status not in (CONNECTED, STALE, BACKFILLING) or is_planned:
            liveness.restart(now)
            return
        over_s = liveness.tick(now, self._received[stream])
        if over_s is None or stream.status == BACKFILLING:
            return
        if liveness.warnings == 0:
            liveness.warnings = 1
            self._note(stream, "stale")
            self._show_stale(stream)
            for feed in self._slot_of[stream.key].feeds:
                feed.watchlist.remove(stream.key)
                feed.watchlist.add(stream.key)
        elif over_s > liveness.patience_s * (2**liveness.warnings - 1):
            liveness.warnings = min(liveness.warnings + 1, 8)
            self._ask_replacement(self._slot_of[stream.key], f"{stream.key} went silent", "silent")

    def _show_stale(self, stream: Stream) -> None:
        heard_at = self._liveness[stream].heard_at
        self._hub.set_state(stream, STALE, f"no data for {self._machine_clock.monotonic() - heard_at:.0f} s")

    def _check_close(self, stream: Stream, now: float) -> None:
        """Ask history for a candle whose interval is over when the feed did not close it."""
        series = stream.series
        if stream.status not in (CONNECTED, STALE) or series.is_catching_up or not self.has_history:
            return
        if self._is_planned(stream.key, now):
            return
        interval = stream.key.interval
        due_at = series.due_at()
        if due_at is None:
            due_at = next_open(interval, int(series.promised_at or self.clock.now()))
        if self.clock.now() < due_at + self.provider.info.close_grace_s or now < self._next_check.get(stream, 0):
            return
        self._next_check[stream] = now + max(30.0, min(length_s(interval), 3600))
        series.catch_up()
        self._start_fill(stream)


def _about(name: str, stream: Stream, **fields: object) -> dict[str, dict[str, object]]:
    return event(name, provider=stream.provider, stream=str(stream.key), **fields)


def _kind_of(feed: Feed) -> str:
    """Return one of `CAUSES` for how a feed ended."""
    match feed.error:
        case None:
            return "closed"
        case RateLimited():
            return "rate_limited"
        case ProviderTimeout():
            return "timeout"
        case ProviderUnavailable():
            return "lost" if feed.has_delivered else "unavailable"
        case BadAnswer():
            return "bad_answer"
        case _:
            return "failed"
