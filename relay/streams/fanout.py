"""From one frame to many sockets: who is served together, when it is written, and in one write for each subscriber.

Subscribers with the same set of channels form a group: what a group gets within one flush is joined once and the same
bytes go to every member's transport.
"""

import asyncio
from collections.abc import Callable

from relay.core.clock import Clock
from relay.protocol import frames
from relay.streams.outbox import HIGH_WATER, Transport
from relay.streams.slow_consumers import SLOW_CONSUMER_LIMITS, SlowConsumerLimits, SlowConsumers
from relay.streams.subscriptions import Channel, Group, Subscriber
from relay.telemetry.histogram import WRITE_BOUNDS_S, Histogram


class Fanout:
    """Delivers the frames of channels to their subscribers. Never waits, and no method can be interleaved.

    `disconnect` is called with a subscriber, and the reason, that does not take what must arrive: it has to leave.
    """

    def __init__(
        self,
        clock: Clock,
        flush_s: float,
        disconnect: Callable[[Subscriber, str], None],
        limits: SlowConsumerLimits = SLOW_CONSUMER_LIMITS,
    ) -> None:
        self._flush_s = flush_s
        self._groups: dict[tuple[frozenset[Channel], bool], Group] = {}
        self._ungrouped: dict[Subscriber, None] = {}
        self._slow_consumers = SlowConsumers(clock, self._caught_up, disconnect, limits)
        self._dirty: list[Group] = []
        self._flush_handle: asyncio.Handle | None = None
        self._flushed_at = 0.0
        self._pending_since = 0.0
        self._frames_out = 0
        self._bytes_out = 0
        self.writes_out = 0
        self.write_delay = Histogram(WRITE_BOUNDS_S)

    @property
    def groups(self) -> list[Group]:
        """The groups of subscribers that are served together now."""
        return list(self._groups.values())

    @property
    def lagging(self) -> int:
        """How many subscribers do not keep up now."""
        return len(self._slow_consumers)

    @property
    def frames_out(self) -> int:
        """How many frames were written."""
        return self._frames_out + self._slow_consumers.frames_out

    @property
    def bytes_out(self) -> int:
        """How many bytes were written."""
        return self._bytes_out + self._slow_consumers.bytes_out

    # -- groups ------------------------------------------------------------------------------------

    def ungroup(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of its group until the next update; what it was to be sent leaves now.

        To be called before its subscriptions change.
        """
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

    def forget(self, subscriber: Subscriber) -> None:
        """Let go of a subscriber that left all its channels."""
        self.ungroup(subscriber)
        self._ungrouped.pop(subscriber, None)
        self._slow_consumers.forget(subscriber)

    def _caught_up(self, subscriber: Subscriber) -> None:
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
                group.members[subscriber] = subscriber.outbox.transport
                subscriber.group = group
        self._ungrouped.clear()

    # -- frames ------------------------------------------------------------------------------------

    def deliver(self, channel: Channel, frame: bytes, is_closed: bool | None, /) -> None:
        """Put a frame into the next flush of everybody on this channel; `is_closed` as in `Outlet`."""
        if self._ungrouped:
            self._regroup()
        dirty = self._dirty
        deflated: bytes | None = None
        for group in channel.groups:
            pending = group.pending
            if not pending:
                dirty.append(group)
            if group.is_compressed:
                deflated = deflated or frames.deflate(frame)
                pending.append(deflated)
            else:
                pending.append(frame)
        if channel.slow_consumers:
            self._slow_consumers.put(channel, frame, is_closed)
        if dirty and self._flush_handle is None:
            self._plan_flush()

    def revise(self, channel: Channel, frame: bytes, time: int, /) -> None:
        """Send the revision of a candle to those on this channel who have it; who came later was never told of it."""
        begins = channel.begins
        if max(begins.values()) <= time:
            self.deliver(channel, frame, None)
            return
        for subscriber in [one for one, begin in begins.items() if begin <= time]:
            self.send(subscriber, frame)

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
        self._frames_out += len(pending) * count
        self.writes_out += count
        self._bytes_out += len(data) * count
        lagging: list[Transport] = []
        # `Outbox.write` without its calls, touching nothing but transports: this loop is where a burst's own time goes.
        for transport in group.members.values():
            try:
                transport.write(data)
            except RuntimeError:
                # uvloop: the connection is gone, and its end is on the way to us.
                continue
            if transport.get_write_buffer_size() > HIGH_WATER:
                lagging.append(transport)
        if lagging:
            for subscriber in [one for one, transport in group.members.items() if transport in lagging]:
                self._start_lagging(subscriber)

    def send(self, subscriber: Subscriber, frame: bytes, frames: int = 1) -> None:
        """Send one subscriber a frame, or several joined, after everything that was delivered to it before."""
        if subscriber.group is not None:
            self._flush_group(subscriber.group)
        if subscriber.outbox.is_lagging:
            self._slow_consumers.send(subscriber, frame)
            return
        self._frames_out += frames
        self.writes_out += 1
        self._bytes_out += len(frame)
        if not subscriber.outbox.write(frame):
            self._start_lagging(subscriber)

    def count_sent(self, frame: bytes) -> None:
        """Count a frame that somebody else writes to a client."""
        self._frames_out += 1
        self.writes_out += 1
        self._bytes_out += len(frame)

    def _start_lagging(self, subscriber: Subscriber) -> None:
        self.ungroup(subscriber)
        self._ungrouped.pop(subscriber, None)
        self._slow_consumers.start(subscriber)

    def close(self) -> None:
        """Stop the timers; nothing is sent any more."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._slow_consumers.close()
