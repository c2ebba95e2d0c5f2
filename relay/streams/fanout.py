"""From one frame to many sockets: what waits for whom, and how it is written: one write for each subscriber and flush.

Subscribers with the same set of channels form a group: what a group gets within one flush is joined once and the same
bytes go to every member's transport. When that is done `relay.streams.flush_schedule` decides.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.intake import Intake
from relay.protocol import event_stream, frames
from relay.protocol.positions import ToldRevision
from relay.streams.event_positions import position_of
from relay.streams.flush_schedule import FlushSchedule
from relay.streams.group_write import SendAll, native_send_all, new_writer
from relay.streams.groups import GATHER_LIMITS, GatherLimits, Groups
from relay.streams.outbox import Transport
from relay.streams.slow_consumers import SLOW_CONSUMER_LIMITS, SlowConsumerLimits, SlowConsumers
from relay.streams.subscriptions import Channel, Group, Subscriber, Wire
from relay.telemetry.histogram import WRITE_BOUNDS_S, Histogram


class FanoutLimits(NamedTuple):
    """How much of its work the fan-out does in one turn of the event loop, and by what it writes."""

    writes_a_turn: int = 1_000
    """About 10 ms."""
    gather: GatherLimits = GATHER_LIMITS
    send_all: SendAll | None = native_send_all()
    """The native write, if there is one."""


FANOUT_LIMITS = FanoutLimits()


class Fanout:
    """Delivers the frames of channels to their subscribers. Never waits, and no method can be interleaved.

    `disconnect` is called with a subscriber, and the reason, that does not take what must arrive: it has to leave.
    `revision` returns the number of the newest revision that was told.
    """

    def __init__(
        self,
        clock: Clock,
        flush_s: float,
        disconnect: Callable[[Subscriber, str], None],
        slow_consumers: SlowConsumerLimits = SLOW_CONSUMER_LIMITS,
        limits: FanoutLimits = FANOUT_LIMITS,
        intake: Intake | None = None,
        revision: Callable[[], ToldRevision] = lambda: ToldRevision(0),
    ) -> None:
        self._revision = revision
        self._limits = limits
        self._writer = new_writer(limits.send_all)
        self._groups = Groups(self._settle, limits.gather)
        self._slow_consumers = SlowConsumers(
            clock, self._groups.isolate, disconnect, slow_consumers, form_of=self._event
        )
        self._schedule = FlushSchedule(flush_s, self.flush, self._most_writes, intake)
        self._dirty: dict[Channel, None] = {}
        # What a flush has still to write: groups, and members of one group with the frames that they are to be sent.
        self._queue: list[Group] = []
        self._part: dict[Subscriber, Transport] = {}
        self._part_frames: list[bytes] = []
        self._next_slice: asyncio.Handle | None = None
        self._frames_out = 0
        self._bytes_out = 0
        self.writes_out = 0
        self.write_delay = Histogram(WRITE_BOUNDS_S)

    @property
    def groups(self) -> list[Group]:
        """The groups of subscribers that are served together now."""
        return self._groups.all

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

    # -- who is served -----------------------------------------------------------------------------

    def isolate(self, subscriber: Subscriber) -> None:
        """Prepare a change of a subscriber's subscriptions; what it shared with others leaves now."""
        if not subscriber.outbox.is_lagging:
            self._groups.isolate(subscriber)

    def enter(self, subscriber: Subscriber, channel: Channel) -> None:
        """Serve a subscriber a channel more."""
        if subscriber.outbox.is_lagging:
            channel.slow_consumers[subscriber] = None
        else:
            self._groups.enter(subscriber, channel)

    def leave(self, subscriber: Subscriber, channel: Channel) -> None:
        """Serve a subscriber a channel less."""
        channel.slow_consumers.pop(subscriber, None)
        self._groups.leave(subscriber, channel)

    def forget(self, subscriber: Subscriber) -> None:
        """Serve a subscriber nothing any more; what it was to be sent leaves now. Before it leaves its channels."""
        self._settle(subscriber)
        self._groups.dissolve(subscriber)
        self._slow_consumers.forget(subscriber)

    # -- frames ------------------------------------------------------------------------------------

    def deliver(self, channel: Channel, frame: bytes, is_closed: bool | None, /) -> None:
        """Put a frame into the next flush of everybody on this channel; `is_closed` as in `Outlet`."""
        for pending in channel.groups.values():
            pending.append(frame)
        if channel.deflated_groups:
            deflated = frames.deflate(frame)
            for pending in channel.deflated_groups.values():
                pending.append(deflated)
        if channel.event_groups:
            event = event_stream.event(frame)
            for group, pending in channel.event_groups.items():
                # Events of open candles leave clients where they are, and are the same bytes for all.
                pending.append(event if is_closed is False else self._positioned(next(iter(group.members)), event))
        if channel.slow_consumers:
            self._slow_consumers.put(channel, frame, is_closed)
        if channel.groups or channel.deflated_groups or channel.event_groups:
            self._dirty[channel] = None
            self._schedule.note()

    def revise(self, channel: Channel, frame: bytes, time: int, /) -> None:
        """Send the revision of a candle to those on this channel who have it; who came later was never told of it."""
        begins = channel.begins
        if max(begins.values()) <= time:
            self.deliver(channel, frame, None)
            return
        for subscriber in [one for one, begin in begins.items() if begin <= time]:
            self.send(subscriber, frame)

    def send(self, subscriber: Subscriber, frame: bytes, frames: int = 1) -> None:
        """Send one subscriber a frame, or several joined, after everything that was delivered to it before."""
        if subscriber.wire is Wire.EVENTS:
            frame = self._positioned(subscriber, event_stream.events(frame))
        if subscriber.outbox.is_lagging:
            self._slow_consumers.send(subscriber, frame)
            return
        owed = self._owed(subscriber)
        self._write(subscriber, b"".join((*owed, frame)) if owed else frame, len(owed) + frames)

    def _event(self, subscriber: Subscriber, frame: bytes, is_closed: bool | None) -> bytes:
        """Return a frame as one subscriber is sent it; `is_closed` as in `Outlet`."""
        if subscriber.wire is not Wire.EVENTS:
            return frame
        event = event_stream.event(frame)
        return event if is_closed is False else self._positioned(subscriber, event)

    def _positioned(self, subscriber: Subscriber, events: bytes) -> bytes:
        """Have the last of some events say where the subscriber is once it has read them."""
        return event_stream.positioned(events, position_of(subscriber, self._revision()))

    def count_sent(self, frame: bytes) -> None:
        """Count a frame that somebody else writes to a client."""
        self._count(1, 1, len(frame))

    def _count(self, writes: int, frames: int, size: int) -> None:
        """Count writes of so many frames, and so many bytes, each."""
        self.writes_out += writes
        self._frames_out += writes * frames
        self._bytes_out += writes * size

    # -- writing to one ----------------------------------------------------------------------------

    def _owed(self, subscriber: Subscriber) -> list[bytes]:
        """Take the frames that a subscriber's group, or a flush that is under way, still has for it."""
        group, owed = subscriber.group, []
        if self._part.pop(subscriber, None) is not None:
            owed += self._part_frames
        if group is not None and group.pending:
            owed += group.pending[group.ahead.get(subscriber, 0) :]
            if len(group.members) == 1:
                group.pending.clear()
                group.ahead.clear()
            else:
                group.ahead[subscriber] = len(group.pending)
        return owed

    def _settle(self, subscriber: Subscriber) -> None:
        """Write a subscriber now what its group has for it."""
        owed = self._owed(subscriber)
        if owed:
            self._write(subscriber, b"".join(owed), len(owed))

    def _write(self, subscriber: Subscriber, data: bytes, frames: int) -> None:
        self._count(1, frames, len(data))
        if subscriber.group is not None:
            # Some of it may wait in the transport.
            subscriber.group.sockets = None
        if not subscriber.outbox.write(data):
            self._start_lagging(subscriber)

    def _start_lagging(self, subscriber: Subscriber) -> None:
        owed = self._owed(subscriber)
        self._groups.dissolve(subscriber)
        self._slow_consumers.start(subscriber)
        for frame in owed:
            self._slow_consumers.send(subscriber, frame)

    # -- writing to all ----------------------------------------------------------------------------

    def _most_writes(self) -> int:
        """Return to how many subscribers a flush would write now, counting some more than once."""
        return sum(len(channel.begins) for channel in self._dirty)

    def flush(self) -> None:
        """Write what is pending: one write a subscriber, so many in a turn of the event loop as the limits say."""
        if self._next_slice is not None or not self._dirty:
            return
        self._schedule.begin()
        channels, self._dirty = self._dirty, {}
        self._queue = self._groups.of(channels)[::-1]
        self._write_slice()

    def _write_slice(self) -> None:
        """Write as much as one turn of the event loop may; each group's frames are joined once."""
        self._next_slice = None
        queue, left = self._queue, self._limits.writes_a_turn
        writes = frames = size = 0
        try:
            while left > 0 and (queue or self._part):
                if self._part:
                    left -= self._write_part(left)
                    continue
                group = queue.pop()
                pending, count = group.pending, len(group.members)
                if not pending:
                    continue
                if group.ahead or count > left:
                    left -= self._divide(group)
                    continue
                data = pending[0] if len(pending) == 1 else b"".join(pending)
                left -= count
                writes += count
                frames += count * len(pending)
                size += count * len(data)
                pending.clear()
                self._writer.write(group, data)
        finally:
            self.writes_out += writes
            self._frames_out += frames
            self._bytes_out += size
            try:
                for subscriber in self._writer.finish():
                    self._start_lagging(subscriber)
            finally:
                self._go_on()

    def _go_on(self) -> None:
        """Write the rest in the next turn, or end the flush."""
        if self._part or self._queue:
            self._next_slice = asyncio.get_running_loop().call_soon(self._write_slice)
        else:
            self.write_delay.observe(self._schedule.finish(is_more=bool(self._dirty)))

    def _divide(self, group: Group) -> int:
        """Leave all members of a group to `_write_part` but those who have some of the frames; return their number."""
        pending, ahead = group.pending[:], group.ahead.copy()
        group.pending.clear()
        group.ahead.clear()
        self._part_frames = pending
        self._part = {one: transport for one, transport in group.members.items() if one not in ahead}
        for subscriber, count in ahead.items():
            if count < len(pending):
                self._write(subscriber, b"".join(pending[count:]), len(pending) - count)
        return len(ahead)

    def _write_part(self, most: int) -> int:
        """Write so many members of a divided group; return how many it were."""
        data = b"".join(self._part_frames)
        members = dict(islice(self._part.items(), most))
        for subscriber in members:
            del self._part[subscriber]
        self._count(len(members), len(self._part_frames), len(data))
        self._writer.write_to(members, data)
        return len(members)

    def close(self) -> None:
        """Stop the timers; nothing is sent any more."""
        self._schedule.close()
        self._groups.close()
        if self._next_slice is not None:
            self._next_slice.cancel()
            self._next_slice = None
        self._slow_consumers.close()
