"""The table of streams and subscribers; every method is a plain function, so nothing can come between two steps.

An update is encoded once here, for all subscribers of its stream; `relay.fanout` takes the frame from there.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from relay.core.clock import Clock
from relay.core.intake import Intake
from relay.core.model import PriceUpdate, StreamKey
from relay.protocol import frames
from relay.protocol.client_requests import PLAIN, SubscribeOptions, UpdateForm
from relay.protocol.positions import ToldRevision
from relay.protocol.server_messages import StreamState
from relay.streams.fanout import FANOUT_LIMITS, Fanout, FanoutLimits
from relay.streams.gaps import SeriesGap
from relay.streams.outbox import Outbox
from relay.streams.slow_consumers import SLOW_CONSUMER_LIMITS, SlowConsumerLimits
from relay.streams.subscriptions import (
    CONNECTING,
    COUNTED,
    NO_FLOOR,
    Attachment,
    Channel,
    Feeder,
    Follower,
    Stream,
    Subscriber,
    Wire,
)

_NOTHING = (0,) * len(COUNTED)


class Hub:
    """Maps streams to subscribers and tells them the updates.

    `on_closed(stream, update, after)` is called for every closed candle that is told: `after` is the open time of the
    closed candle told before it, None where something may be missing between. It must not block. It returns the number
    of the revision if the candle was revised, by which clients ask for what follows. `most_kept` is for outboxes. What
    comes over `intake` is held back while it could not be written. `revision` returns the number of the newest revision
    that was told.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        flush_s: float = 0.02,
        on_closed: Callable[[Stream, PriceUpdate, int | None], int | None] | None = None,
        limits: SlowConsumerLimits = SLOW_CONSUMER_LIMITS,
        fanout: FanoutLimits = FANOUT_LIMITS,
        intake: Intake | None = None,
        revision: Callable[[], ToldRevision] = lambda: ToldRevision(0),
    ) -> None:
        self.streams: dict[tuple[str, StreamKey], Stream] = {}
        self.subscribers: dict[Subscriber, None] = {}
        self.fanout = Fanout(clock, flush_s, self._disconnect, limits, fanout, intake, revision)
        self.updates_in = 0
        self.most_kept = limits.most_kept_bytes
        self._clock = clock
        self._on_closed = on_closed
        self._numbers = 0
        # Of streams that were removed, to go on from if they come back: their last `seq`, and what they counted.
        self._seqs: dict[tuple[str, StreamKey], int] = {}
        self._removed: dict[str, tuple[int, ...]] = {}
        self._told: Counter[str] = Counter()

    def of_provider(self, provider: str) -> list[Stream]:
        """Return a provider's streams."""
        return [stream for stream in self.streams.values() if stream.provider == provider]

    def removed_counts(self, provider: str) -> dict[str, int]:
        """Return the sums over a provider's streams that were removed; `told` counts updates sent on."""
        counts = dict(zip(COUNTED, self._removed.get(provider, _NOTHING), strict=True))
        return {**counts, "told": self._told[provider]}

    # -- subscribers and streams -------------------------------------------------------------------

    def join(
        self,
        outbox: Outbox,
        on_slow: Callable[[Subscriber, str], None],
        *,
        wire: Wire = Wire.FRAMES,
        descriptor: int | None = None,
    ) -> Subscriber:
        """Add a client connection. `on_slow` is called once when it does not take its closed candles.

        `wire` is the form in which it is sent its frames. `descriptor` is the one of the transport's socket, if what is
        written to the one is sent by the other as it is; before it is closed the client leaves, or `lose_socket` is
        called.
        """
        self._numbers += 1
        subscriber = Subscriber(self._numbers, outbox, on_slow, wire, descriptor)
        self.subscribers[subscriber] = None
        return subscriber

    def lose_socket(self, subscriber: Subscriber) -> None:
        """Know that a client connection is closed now: its transport says so, its descriptor may be another's."""
        subscriber.descriptor = None
        if subscriber.group is not None:
            subscriber.group.sockets = None

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a client connection with all its subscriptions. Harmless when it already left."""
        if subscriber in self.subscribers:
            del self.subscribers[subscriber]
            self.fanout.forget(subscriber)
            for stream, channel in list(subscriber.subscriptions.items()):
                self._end(subscriber, stream, channel)

    def _disconnect(self, subscriber: Subscriber, reason: str) -> None:
        if subscriber in self.subscribers:
            self.leave(subscriber)
            subscriber.on_slow(subscriber, reason)

    def stream(self, provider: str, key: StreamKey, name: str, feeder: Feeder) -> Stream:
        """Return the stream, made if there is none yet."""
        identity = (provider, key)
        stream = self.streams.get(identity)
        if stream is None:
            seq = self._seqs.pop(identity, 0)
            self._told[provider] -= seq
            stream = Stream(provider, key, name, feeder, seq)
            self.streams[identity] = stream
        return stream

    def remove(self, stream: Stream) -> None:
        """Forget a stream that nobody wants; its count of updates goes on if it comes back."""
        if not stream.is_wanted and self.streams.get((stream.provider, stream.key)) is stream:
            self._seqs[(stream.provider, stream.key)] = stream.seq
            self._told[stream.provider] += stream.seq
            before = self._removed.get(stream.provider, _NOTHING)
            self._removed[stream.provider] = tuple(map(sum, zip(before, stream.counts(), strict=True)))
            # What was answered with what it knew holds no longer.
            stream.status = CONNECTING
            del self.streams[(stream.provider, stream.key)]

    def subscribe(
        self,
        subscriber: Subscriber,
        stream: Stream,
        options: SubscribeOptions = PLAIN,
        *,
        floor: int = NO_FLOOR,
        begin: int = 0,
        attachment: Attachment | None = None,
    ) -> bool:
        """Let the subscriber have the stream's updates from now on; return False if it only changed its options.

        It has the candles that opened up to `floor`, and is told of those only what is revised; of what opened before
        `begin` it has nothing, and is told nothing. A later call may lower that. It takes the place of an `attachment`,
        with which the stream was wanted already.
        """
        old = subscriber.subscriptions.get(stream)
        if old is not None:
            begin = old.begins[subscriber] = min(begin, old.begins[subscriber])
            if old.options == options and old.held is None:
                return False
        self.fanout.isolate(subscriber)
        if old is not None:
            # What its throttle holds is the newest state, and comes before whatever this subscription brings.
            if old.held is not None and not options.closed_only:
                self.fanout.send(subscriber, old.held)
            for frame, time in old.behind:
                if begin <= time:
                    self.fanout.send(subscriber, frame)
            floor = old.floor
            self._leave_channel(subscriber, old)
        channel = stream.channel_for(options, floor)
        channel.begins[subscriber] = begin
        subscriber.subscriptions[stream] = channel
        self.fanout.enter(subscriber, channel)
        if attachment is not None:
            stream.attachments.pop(attachment, None)
        elif old is None:
            stream.feeder.wanted(stream)
        return old is None

    def unsubscribe(self, subscriber: Subscriber, stream: Stream) -> bool:
        """End a subscription; return False if there was none."""
        channel = subscriber.subscriptions.get(stream)
        if channel is None:
            return False
        self.fanout.isolate(subscriber)
        self._end(subscriber, stream, channel)
        return True

    def _end(self, subscriber: Subscriber, stream: Stream, channel: Channel) -> None:
        self._leave_channel(subscriber, channel)
        del subscriber.subscriptions[stream]
        subscriber.pending -= {stream}
        subscriber.outbox.forget(stream)
        if not stream.is_wanted:
            stream.feeder.unwanted(stream)

    def note_pending(self, subscriber: Subscriber, stream: Stream, *, is_pending: bool) -> None:
        """Note whether a past is still to come that takes the place of what a subscriber of events has of a stream."""
        if subscriber.wire is Wire.EVENTS and is_pending != (stream in subscriber.pending):
            self.fanout.isolate(subscriber)
            subscriber.pending ^= {stream}

    def attach(self, stream: Stream, *, polled_by: str = "") -> Attachment:
        """Want a stream, and keep what it tells from now on for somebody who subscribes later; see `detach`.

        For programs that poll it nothing is kept.
        """
        attachment = Attachment(stream, polled_by)
        stream.attachments[attachment] = None
        stream.feeder.wanted(stream)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """End what `attach` began. Harmless when it has ended."""
        stream = attachment.stream
        if attachment in stream.attachments:
            del stream.attachments[attachment]
            if not stream.is_wanted:
                stream.feeder.unwanted(stream)

    def follow(self, stream: Stream, follower: Follower) -> None:
        """Want a stream, and let the follower hear all that it tells from now on, until `unfollow`."""
        stream.followers[follower] = None
        stream.feeder.wanted(stream)

    def unfollow(self, stream: Stream, follower: Follower) -> None:
        """End what `follow` began. Harmless when it has ended."""
        if follower in stream.followers:
            del stream.followers[follower]
            if not stream.is_wanted:
                stream.feeder.unwanted(stream)

    def _leave_channel(self, subscriber: Subscriber, channel: Channel) -> None:
        self.fanout.leave(subscriber, channel)
        del channel.begins[subscriber]
        if not channel.begins:
            channel.close()
            del channel.stream.channels[channel]

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
        fanout, deliver = self.fanout, self.fanout.deliver
        for update in updates:
            stream.seq += 1
            is_closed, is_revised, revision = update.is_closed, update.is_revised, None
            if not is_revised:
                time = update.candle.time
                stream.told_to = max(stream.told_to, time if is_closed else time - 1)
            if is_closed and self._on_closed is not None:
                revision = self._on_closed(stream, update, stream.series.told_before(update))
            frame = frames.price_update(stream.name, stream.key.interval, update, stream.seq, revision)
            last = stream.series.last
            if not is_revised or (last is not None and update.candle.time == last.time and not update.is_of_extras):
                stream.last_frame = frame
                stream.last_frame_is_closed = is_closed
            if is_closed and not is_revised and len(stream.series.closed) == 1:
                # It may have closed before anybody subscribed; who is told of it hears of its revisions, too.
                stream.begin_by(update.candle.time)
            if is_closed and stream.attachments:
                for attachment in stream.attachments:
                    if attachment.polled_by:
                        continue
                    attachment.closed[update.candle.time] = update.candle
                    if is_revised:
                        attachment.revised.add(update.candle.time)
            extended: bytes | None = None
            foreign: dict[UpdateForm, bytes | None] | None = None
            for channel in stream.channels:
                if channel.is_plain and not is_revised:
                    deliver(channel, frame, is_closed)
                    continue
                sent = frame
                if channel.form is not None:
                    foreign = {} if foreign is None else foreign
                    self._tell_in_form(channel, channel.form, update, foreign)
                    continue
                if channel.is_extended:
                    sent = extended = extended or frames.extended(frame, update.candle)
                elif update.is_of_extras:
                    continue
                if is_revised:
                    channel.revise(sent, update.candle.time, fanout, revision or 0)
                elif channel.passes(sent, update, fanout):
                    deliver(channel, sent, is_closed)
            if stream.followers:
                for follower in [*stream.followers]:
                    follower.take(update)

    def _tell_in_form(
        self, channel: Channel, form: UpdateForm, update: PriceUpdate, made: dict[UpdateForm, bytes | None]
    ) -> None:
        """Send an update in the form of another protocol; `made` keeps what is written once for all."""
        if update.is_revised:
            return
        if form not in made:
            made[form] = form.frame(update, int(channel.stream.feeder.clock.now() * 1000))
        frame = made[form]
        if frame is not None and channel.passes(frame, update, self.fanout):
            self.fanout.deliver(channel, frame, update.is_closed)

    def tell_after_gaps(self, stream: Stream, updates: Iterable[PriceUpdate], reason: str) -> list[SeriesGap]:
        """Send updates that the series made of an answer, and before them the gaps that it left; return those."""
        gaps = stream.series.gaps.drain()
        for gap in gaps:
            stream.gap_count += 1
            self.announce(stream, stream.gap_frame(gap, reason))
            for follower in [*stream.followers]:
                follower.lose(gap)
        self.tell(stream, updates)
        return gaps

    def send(self, subscriber: Subscriber, frame: bytes, *, frames: int = 1) -> None:
        """Send one subscriber a frame, or several joined, after all that it was told before; nothing once it left."""
        if subscriber in self.subscribers:
            self.fanout.send(subscriber, frame, frames)

    def set_state(self, stream: Stream, status: StreamState, message: str = "") -> None:
        """Change a stream's state and tell its subscribers, if it is a change."""
        if (stream.status, stream.message) == (status, message):
            return
        stream.status, stream.message = status, message
        self.announce(stream, stream.state_frame())
        for follower in [*stream.followers]:
            follower.note_state()

    def announce(self, stream: Stream, frame: bytes) -> None:
        """Send a message about the stream to all its subscribers who speak the relay's own protocol."""
        for channel in list(stream.channels):
            if channel.form is None:
                self.fanout.deliver(channel, frame, None)

    def close(self) -> None:
        """Stop the timers; nothing is sent any more."""
        self.fanout.close()
        for stream in self.streams.values():
            for channel in stream.channels:
                channel.close()
