"""Subscribers that do not keep up: what they are to be sent waits in their outboxes and follows as they read."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.errors import OutboxFull
from relay.streams.outbox import MOST_KEPT
from relay.streams.subscriptions import Channel, Subscriber


class SlowConsumerLimits(NamedTuple):
    """How often a slow consumer is looked at, how long it may read nothing, and how much is kept for it."""

    drain_every_s: float = 0.05
    patience_s: float = 30.0
    most_kept_bytes: int = MOST_KEPT
    """As in `Outbox`."""
    drains_a_turn: int = 500
    """So many are looked at in one turn of the event loop."""


SLOW_CONSUMER_LIMITS = SlowConsumerLimits()


def _as_it_is(subscriber: Subscriber, frame: bytes, is_closed: bool | None) -> bytes:
    return frame


class SlowConsumers:
    """Drains lagging subscribers a little at a time; no other subscriber waits for them.

    `caught_up` is called when one has all it was to be sent, `disconnect` when one reads nothing for too long or too
    much piles up for it. `form_of` returns a frame as a subscriber is sent it.
    """

    def __init__(
        self,
        clock: Clock,
        caught_up: Callable[[Subscriber], None],
        disconnect: Callable[[Subscriber, str], None],
        limits: SlowConsumerLimits = SLOW_CONSUMER_LIMITS,
        form_of: Callable[[Subscriber, bytes, bool | None], bytes] = _as_it_is,
    ) -> None:
        self._form_of = form_of
        self._clock = clock
        self._limits = limits
        self._caught_up = caught_up
        self._disconnect = disconnect
        self._subscribers: dict[Subscriber, None] = {}
        self._timer: asyncio.Handle | None = None
        self.frames_out = 0
        self.bytes_out = 0

    def __len__(self) -> int:
        return len(self._subscribers)

    def start(self, subscriber: Subscriber) -> None:
        """Take a subscriber in; from now on it is sent nothing but through here."""
        outbox = subscriber.outbox
        outbox.is_lagging = True
        outbox.progress_at = self._clock.monotonic()
        self._subscribers[subscriber] = None
        for channel in subscriber.subscriptions.values():
            channel.slow_consumers[subscriber] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limits.drain_every_s, self._drain, [])

    def forget(self, subscriber: Subscriber) -> None:
        """Let go of one that left all its channels. Harmless when it does not lag."""
        self._subscribers.pop(subscriber, None)

    def put(self, channel: Channel, frame: bytes, is_closed: bool | None) -> None:
        """Leave a frame for those who lag on a channel; `is_closed` as in `Outlet`."""
        for subscriber in channel.slow_consumers:
            sent = self._form_of(subscriber, frame, is_closed)
            try:
                if is_closed is None:
                    subscriber.outbox.send(sent)
                elif subscriber.outbox.put(channel.stream, sent, is_closed=is_closed):
                    channel.stream.conflated += 1
            except OutboxFull as error:
                self._cut_soon(subscriber, str(error))

    def send(self, subscriber: Subscriber, frame: bytes) -> None:
        """Leave a frame for one of them, after all that waits for it."""
        try:
            subscriber.outbox.send(frame)
        except OutboxFull as error:
            self._cut_soon(subscriber, str(error))

    def _drain(self, left: list[Subscriber]) -> None:
        """Drain some of those who lag; `left` are those of this round whose turn is still to come, none: it begins."""
        loop, limits, now = asyncio.get_running_loop(), self._limits, self._clock.monotonic()
        left = left or list(self._subscribers)[::-1]
        for _ in range(min(len(left), limits.drains_a_turn)):
            subscriber = left.pop()
            if subscriber in self._subscribers:
                self._drain_one(subscriber, now)
        self._timer = None
        if left:
            self._timer = loop.call_soon(self._drain, left)
        elif self._subscribers:
            self._timer = loop.call_later(limits.drain_every_s, self._drain, [])

    def _drain_one(self, subscriber: Subscriber, now: float) -> None:
        outbox = subscriber.outbox
        frames, bytes_ = outbox.drained_frames, outbox.drained_bytes
        has_caught_up = outbox.drain(now)
        self.frames_out += outbox.drained_frames - frames
        self.bytes_out += outbox.drained_bytes - bytes_
        if has_caught_up:
            del self._subscribers[subscriber]
            for channel in subscriber.subscriptions.values():
                channel.slow_consumers.pop(subscriber, None)
            self._caught_up(subscriber)
        elif now - outbox.progress_at > self._limits.patience_s:
            self._disconnect(subscriber, f"it read nothing for {self._limits.patience_s:g} s")

    def _cut_soon(self, subscriber: Subscriber, reason: str) -> None:
        # Not now: the caller is in the middle of walking the tables that leaving changes.
        asyncio.get_running_loop().call_soon(self._disconnect, subscriber, reason)

    def close(self) -> None:
        """Stop the timer; nothing is drained any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
