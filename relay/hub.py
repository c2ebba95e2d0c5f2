"""Streams, subscribers and last values; every method is a plain function, so nothing can come between two steps.

An update is encoded once. Subscribers with the same set of subscriptions form a group: what a group gets within one
flush is joined once and the same bytes go to every member's transport.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from relay import wire
from relay.clock import Clock, ProviderClock
from relay.errors import OutboxFull
from relay.measures import WRITE_BOUNDS_S, Histogram
from relay.messages import StreamState
from relay.model import PriceUpdate, StreamKey
from relay.outbox import HIGH_WATER, Line, Outbox
from relay.requests import PLAIN, Options
from relay.series import Series

CONNECTING: Final = "connecting"
CONNECTED: Final = "connected"

COUNTED = ("merged", "gaps", "backfilled", "revised", "duplicate", "late")
"""What streams count; the sums over streams go on when one is removed."""
_NOTHING = (0,) * len(COUNTED)

LAGGARD_TICK_S = 0.05
LAGGARD_PATIENCE_S = 30.0


class Feeder(Protocol):
    """Who fills a stream: the supervisor of its provider."""

    clock: ProviderClock
    has_history: bool

    def wanted(self, stream: "Stream") -> None:
        """Learn that a stream has its first subscriber."""

    def unwanted(self, stream: "Stream") -> None:
        """Learn that a stream lost its last subscriber."""


@dataclass(eq=False, slots=True)
class Group:
    """Subscribers with exactly the same subscriptions, and the frames they are to be sent with the next flush."""

    channels: frozenset["Channel"]
    is_compressed: bool
    members: dict["Subscriber", Line] = field(default_factory=dict)
    pending: list[bytes] = field(default_factory=list)


class Channel:
    """One stream with one set of options: its groups, its lagging subscribers, and the open candle a throttle holds."""

    __slots__ = ("_next_at", "_timer", "groups", "held", "is_plain", "laggards", "options", "stream", "users")

    def __init__(self, stream: "Stream", options: Options) -> None:
        self.stream = stream
        self.options = options
        self.is_plain = options == PLAIN
        self.groups: dict[Group, None] = {}
        self.laggards: dict[Subscriber, None] = {}
        self.users = 0
        self.held: bytes | None = None
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def throttle(self, frame: bytes, is_closed: bool, hub: "Hub") -> bool:
        """Return whether the frame passes now; an open candle that does not is sent when its time comes."""
        if is_closed:
            self.held = None
            return True
        if self.options.closed_only:
            return False
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._next_at:
            self._next_at = now + self.options.throttle_ms / 1000
            self.held = None
            return True
        if self.held is not None:
            self.stream.conflated += 1
        self.held = frame
        if self._timer is None:
            self._timer = loop.call_at(self._next_at, self._release, hub)
        return False

    def _release(self, hub: "Hub") -> None:
        self._timer = None
        if self.held is not None:
            frame, self.held = self.held, None
            self._next_at = asyncio.get_running_loop().time() + self.options.throttle_ms / 1000
            hub.deliver(self, frame, is_closed=False)

    def close(self) -> None:
        """Forget the held frame and its timer."""
        self.held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Stream:
    """One symbol at one interval of one provider: its series, its state, who gets it; clients call it `name`."""

    __slots__ = (
        "channels",
        "conflated",
        "events",
        "feeder",
        "gap_count",
        "key",
        "lag_ms",
        "last_frame",
        "last_frame_is_closed",
        "message",
        "name",
        "provider",
        "reconnects",
        "seq",
        "series",
        "status",
        "subscribers",
        "updated_at",
    )

    def __init__(self, provider: str, key: StreamKey, name: str, feeder: Feeder, seq: int) -> None:
        self.provider = provider
        self.key = key
        self.name = name
        self.feeder = feeder
        self.series = Series(key, feeder.clock.now() if feeder.has_history else None)
        self.status: StreamState = CONNECTING
        self.message = "the upstream is being opened"
        self.channels: dict[Options, Channel] = {}
        self.subscribers: dict[Subscriber, None] = {}
        self.seq = seq
        self.last_frame: bytes | None = None
        self.last_frame_is_closed = False
        self.updated_at: float | None = None
        self.lag_ms: float | None = None
        self.conflated = 0
        self.gap_count = 0
        self.reconnects = 0
        self.events: list[tuple[float, str]] = []

    def counts(self) -> tuple[int, ...]:
        """Return what the stream has counted so far, in the order of `COUNTED`."""
        series = self.series
        return self.conflated, self.gap_count, series.backfilled, series.revised, series.duplicates, series.late

    def state_frame(self) -> bytes:
        """Encode the state as clients see it."""
        return wire.stream_status(self.name, self.key.interval, self.status, self.message)

    def last_frame_for(self, options: Options) -> bytes | None:
        """Return the frame of the last known candle, if these options want it."""
        return None if options.closed_only and not self.last_frame_is_closed else self.last_frame


class Subscriber:
    """One client connection: its outbox and its subscriptions."""

    __slots__ = ("group", "id", "is_compressed", "on_slow", "outbox", "subscriptions")

    def __init__(
        self, number: int, outbox: Outbox, on_slow: Callable[["Subscriber", str], None], is_compressed: bool
    ) -> None:
        self.id = number
        self.is_compressed = is_compressed
        self.outbox = outbox
        self.on_slow = on_slow
        self.subscriptions: dict[Stream, Channel] = {}
        self.group: Group | None = None


class Hub:
    """Maps streams to subscribers and delivers updates.

    `on_closed(stream, update, after)` is called for every closed candle that is told: `after` is the open time of the
    closed candle told before it, None where something may be missing between. It must not block.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        flush_s: float = 0.02,
        on_closed: Callable[[Stream, PriceUpdate, int | None], None] | None = None,
    ) -> None:
        self.streams: dict[tuple[str, StreamKey], Stream] = {}
        self.subscribers: dict[Subscriber, None] = {}
        self._clock = clock
        self._flush_s = flush_s
        self._on_closed = on_closed
        self._groups: dict[tuple[frozenset[Channel], bool], Group] = {}
        self._ungrouped: dict[Subscriber, None] = {}
        self._dirty: list[Group] = []
        self._flush_handle: asyncio.Handle | None = None
        self._flushed_at = 0.0
        self._seqs: dict[tuple[str, StreamKey], int] = {}
        self._laggards: dict[Subscriber, None] = {}
        self._laggard_timer: asyncio.TimerHandle | None = None
        self._numbers = 0
        self._pending_since = 0.0
        self._removed: dict[str, tuple[int, ...]] = {}
        self.updates_in = 0
        self.frames_out = 0
        self.writes_out = 0
        self.bytes_out = 0
        self.write_delay = Histogram(WRITE_BOUNDS_S)

    @property
    def groups(self) -> list[Group]:
        """The groups of subscribers that are served together now."""
        return list(self._groups.values())

    @property
    def lagging(self) -> int:
        """How many subscribers do not keep up now."""
        return len(self._laggards)

    def of_provider(self, provider: str) -> list[Stream]:
        """Return a provider's streams."""
        return [stream for stream in self.streams.values() if stream.provider == provider]

    def counts(self, provider: str) -> dict[str, int]:
        """Return the sums over a provider's streams, those that were removed included; `told` counts updates sent on.

        Walks all streams: for a scrape or a status, not for every update.
        """
        streams = self.of_provider(provider)
        rows = [self._removed.get(provider, _NOTHING), *(stream.counts() for stream in streams)]
        counts = dict(zip(COUNTED, map(sum, zip(*rows, strict=True)), strict=True))
        counts["told"] = sum(seq for (name, _), seq in self._seqs.items() if name == provider)
        counts["told"] += sum(stream.seq for stream in streams)
        return counts

    # -- subscribers and streams -------------------------------------------------------------------

    def join(
        self, outbox: Outbox, on_slow: Callable[[Subscriber, str], None], *, is_compressed: bool = False
    ) -> Subscriber:
        """Add a client connection. `on_slow` is called once when it does not take its closed candles.

        `is_compressed` says that it agreed to permessage-deflate with the full window.
        """
        self._numbers += 1
        subscriber = Subscriber(self._numbers, outbox, on_slow, is_compressed)
        self.subscribers[subscriber] = None
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a client connection with all its subscriptions. Harmless when it already left."""
        for stream in list(subscriber.subscriptions):
            self.unsubscribe(subscriber, stream)
        self._ungroup(subscriber)
        self._ungrouped.pop(subscriber, None)
        self._laggards.pop(subscriber, None)
        self.subscribers.pop(subscriber, None)

    def stream(self, provider: str, key: StreamKey, name: str, feeder: Feeder) -> Stream:
        """Return the stream, made if there is none yet."""
        identity = (provider, key)
        stream = self.streams.get(identity)
        if stream is None:
            stream = Stream(provider, key, name, feeder, self._seqs.pop(identity, 0))
            self.streams[identity] = stream
        return stream

    def remove(self, stream: Stream) -> None:
        """Forget a stream that nobody subscribes to; its count of updates goes on if it comes back."""
        if not stream.subscribers and self.streams.get((stream.provider, stream.key)) is stream:
            self._seqs[(stream.provider, stream.key)] = stream.seq
            before = self._removed.get(stream.provider, _NOTHING)
            self._removed[stream.provider] = tuple(map(sum, zip(before, stream.counts(), strict=True)))
            del self.streams[(stream.provider, stream.key)]

    def subscribe(self, subscriber: Subscriber, stream: Stream, options: Options = PLAIN) -> bool:
        """Let the subscriber have the stream's updates from now on; return False if it only changed its options."""
        old = subscriber.subscriptions.get(stream)
        if old is not None and old.options == options:
            return False
        self._ungroup(subscriber)
        if old is not None:
            # What its throttle holds is the newest state, and nobody may send it later.
            if old.held is not None and not options.closed_only:
                self.send(subscriber, old.held)
            self._leave_channel(subscriber, old)
        channel = stream.channels.get(options)
        if channel is None:
            channel = stream.channels[options] = Channel(stream, options)
        channel.users += 1
        subscriber.subscriptions[stream] = channel
        stream.subscribers[subscriber] = None
        if subscriber.outbox.is_lagging:
            channel.laggards[subscriber] = None
        if old is None and len(stream.subscribers) == 1:
            stream.feeder.wanted(stream)
        return old is None

    def unsubscribe(self, subscriber: Subscriber, stream: Stream) -> bool:
        """End a subscription; return False if there was none."""
        channel = subscriber.subscriptions.get(stream)
        if channel is None:
            return False
        self._ungroup(subscriber)
        del subscriber.subscriptions[stream]
        self._leave_channel(subscriber, channel)
        subscriber.outbox.forget(stream)
        del stream.subscribers[subscriber]
        if not stream.subscribers:
            stream.feeder.unwanted(stream)
        return True

    def _leave_channel(self, subscriber: Subscriber, channel: Channel) -> None:
        channel.laggards.pop(subscriber, None)
        channel.users -= 1
        if not channel.users:
            channel.close()
            del channel.stream.channels[channel.options]

    # -- groups ------------------------------------------------------------------------------------

    def _ungroup(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of its group until the next update; what it was to be sent leaves now."""
        group = subscriber.group
        if group is not None:
            self._flush_group(group)
            subscriber.group = None
            group.members.pop(subscriber, None)
            if not group.members:
                self._groups.pop((group.channels, group.is_compressed), None)
                for channel in group.channels:
                    channel.groups.pop(group, None)
        if not subscriber.outbox.is_lagging:
            self._ungrouped[subscriber] = None

    def _regroup(self) -> None:
        for subscriber in list(self._ungrouped):
            if subscriber.subscriptions and not subscriber.outbox.is_lagging:
                channels = frozenset(subscriber.subscriptions.values())
                identity = (channels, subscriber.is_compressed)
                group = self._groups.get(identity)
                if group is not None and group.pending:
                    # It was told before this subscriber came.
                    self._flush_group(group)
                    group = self._groups.get(identity)
                if group is None:
                    group = self._groups[identity] = Group(*identity)
                    for channel in channels:
                        channel.groups[group] = None
                group.members[subscriber] = subscriber.outbox.line
                subscriber.group = group
        self._ungrouped.clear()

    # -- updates -----------------------------------------------------------------------------------

    def publish(self, stream: Stream, update: PriceUpdate) -> None:
        """Take one update of a provider and tell the stream's subscribers what its series makes of it."""
        self.updates_in += 1
        told = stream.series.accept(update)
        if told:
            self.tell(stream, told)

    def tell(self, stream: Stream, updates: Iterable[PriceUpdate]) -> None:
        """Send updates that the stream's series let pass."""
        stream.updated_at = self._clock.monotonic()
        for update in updates:
            stream.seq += 1
            frame = wire.price_update(stream.name, stream.key.interval, update, stream.seq)
            is_closed, is_revised = update.is_closed, update.is_revised
            if is_closed and self._on_closed is not None:
                self._on_closed(stream, update, stream.series.told_before(update))
            last = stream.series.last
            if not is_revised or (last is not None and update.candle.time == last.time):
                stream.last_frame = frame
                stream.last_frame_is_closed = is_closed
            for channel in stream.channels.values():
                # A revision speaks of another candle: it takes nothing away from the open one that waits.
                if channel.is_plain or is_revised or channel.throttle(frame, is_closed, self):
                    self.deliver(channel, frame, is_closed=None if is_revised else is_closed)

    def deliver(self, channel: Channel, frame: bytes, *, is_closed: bool | None) -> None:
        """Put a frame into the next flush of everybody on this channel; `is_closed` None: it is no candle."""
        if self._ungrouped:
            self._regroup()
        dirty = self._dirty
        deflated: bytes | None = None
        for group in channel.groups:
            if not group.pending:
                dirty.append(group)
            if group.is_compressed:
                deflated = deflated or wire.deflate(frame)
                group.pending.append(deflated)
            else:
                group.pending.append(frame)
        for subscriber in channel.laggards:
            try:
                if is_closed is None:
                    subscriber.outbox.send(frame)
                elif subscriber.outbox.put(channel.stream, frame, is_closed=is_closed):
                    channel.stream.conflated += 1
            except OutboxFull as error:
                self._cut_soon(subscriber, str(error))
        if dirty and self._flush_handle is None:
            self._plan_flush()

    def _plan_flush(self) -> None:
        """Flush at once after a quiet moment, else when `flush_s` has passed since the last flush."""
        loop = asyncio.get_running_loop()
        due = self._flushed_at + self._flush_s
        self._pending_since = now = loop.time()
        if now >= due:
            self._flush_handle = loop.call_soon(self.flush)
        else:
            self._flush_handle = loop.call_at(due, self.flush)

    def flush(self) -> None:
        """Write what is pending: one write a subscriber."""
        is_planned = self._flush_handle is not None
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        dirty, self._dirty = self._dirty, []
        for group in dirty:
            self._flush_group(group)
        self._flushed_at = asyncio.get_running_loop().time()
        if is_planned:
            self.write_delay.observe(self._flushed_at - self._pending_since)

    def _flush_group(self, group: Group) -> None:
        pending = group.pending
        if not pending:
            return
        group.pending = []
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        count = len(group.members)
        self.frames_out += len(pending) * count
        self.writes_out += count
        self.bytes_out += len(data) * count
        lagging = []
        # `Outbox.write` without its calls: this loop is where a burst's own time goes.
        for subscriber, (write, waiting) in group.members.items():
            try:
                write(data)
            except RuntimeError:
                # uvloop: the connection is gone, and its end is on the way to us.
                continue
            if waiting() > HIGH_WATER:
                lagging.append(subscriber)
        for subscriber in lagging:
            self._start_lagging(subscriber)

    def send(self, subscriber: Subscriber, frame: bytes, *, frames: int = 1) -> None:
        """Send one subscriber a frame, or several joined, after everything that was published to it before."""
        if subscriber.group is not None:
            self._flush_group(subscriber.group)
        was_lagging = subscriber.outbox.is_lagging
        if not was_lagging:
            self.frames_out += frames
            self.writes_out += 1
            self.bytes_out += len(frame)
        try:
            keeps_up = subscriber.outbox.send(frame)
        except OutboxFull as error:
            self._cut_soon(subscriber, str(error))
            return
        if not keeps_up and not was_lagging:
            self._start_lagging(subscriber)

    def set_state(self, stream: Stream, status: StreamState, message: str = "") -> None:
        """Change a stream's state and tell its subscribers, if it is a change."""
        if (stream.status, stream.message) == (status, message):
            return
        stream.status, stream.message = status, message
        self.announce(stream, stream.state_frame())

    def announce(self, stream: Stream, frame: bytes) -> None:
        """Send a message about the stream to all its subscribers, whatever their options."""
        for channel in list(stream.channels.values()):
            self.deliver(channel, frame, is_closed=None)

    # -- lagging subscribers -----------------------------------------------------------------------

    def _start_lagging(self, subscriber: Subscriber) -> None:
        if subscriber not in self.subscribers:
            return
        self._ungroup(subscriber)
        self._ungrouped.pop(subscriber, None)
        subscriber.outbox.is_lagging = True
        subscriber.outbox.progress_at = self._clock.monotonic()
        self._laggards[subscriber] = None
        for channel in subscriber.subscriptions.values():
            channel.laggards[subscriber] = None
        if self._laggard_timer is None:
            self._laggard_timer = asyncio.get_running_loop().call_later(LAGGARD_TICK_S, self._drain_laggards)

    def _drain_laggards(self) -> None:
        self._laggard_timer = None
        now = self._clock.monotonic()
        for subscriber in list(self._laggards):
            outbox = subscriber.outbox
            frames, bytes_ = outbox.drained_frames, outbox.drained_bytes
            has_caught_up = outbox.drain(now)
            self.frames_out += outbox.drained_frames - frames
            self.bytes_out += outbox.drained_bytes - bytes_
            if has_caught_up:
                del self._laggards[subscriber]
                for channel in subscriber.subscriptions.values():
                    channel.laggards.pop(subscriber, None)
                self._ungrouped[subscriber] = None
            elif now - outbox.progress_at > LAGGARD_PATIENCE_S:
                self._cut(subscriber, f"nothing was read for {LAGGARD_PATIENCE_S:g} s")
        if self._laggards:
            self._laggard_timer = asyncio.get_running_loop().call_later(LAGGARD_TICK_S, self._drain_laggards)

    def _cut_soon(self, subscriber: Subscriber, reason: str) -> None:
        # Not now: the caller is in the middle of walking the tables that leaving changes.
        asyncio.get_running_loop().call_soon(self._cut, subscriber, reason)

    def _cut(self, subscriber: Subscriber, reason: str) -> None:
        if subscriber in self.subscribers:
            self.leave(subscriber)
            subscriber.on_slow(subscriber, reason)

    def close(self) -> None:
        """Stop the timers; nothing is sent any more."""
        for handle in (self._flush_handle, self._laggard_timer):
            if handle is not None:
                handle.cancel()
        self._flush_handle = self._laggard_timer = None
        for stream in self.streams.values():
            for channel in stream.channels.values():
                channel.close()

    def by_name(self, streams: Sequence[Stream]) -> list[str]:
        """Return stream names as clients write them, sorted."""
        return sorted(f"{stream.name}@{stream.key.interval}" for stream in streams)
