"""What is known of a stream, and who gets it: streams, channels, groups and subscribers, the nodes of one table.

They refer to each other, so they are together; `relay.hub` links streams and subscribers, `relay.fanout` forms groups.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from relay.core.clock import STEP_S, ProviderClock
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.periods import Periods
from relay.core.spans import Span
from relay.protocol import frames
from relay.protocol.client_requests import PLAIN, SubscribeOptions
from relay.protocol.positions import Position
from relay.protocol.server_messages import StreamState
from relay.streams.gaps import SeriesGap
from relay.streams.outbox import Outbox, Transport
from relay.streams.series import Series

CONNECTING: Final = "connecting"
CONNECTED: Final = "connected"

NO_FLOOR: Final = -1

COUNTED = ("conflated", "gaps", "backfilled", "revised", "duplicate", "late")
"""What streams count."""


def _ignore(stream: "Stream") -> None:
    """Leave a subscriber with what it has of a stream."""


class Wire(Enum):
    """In which form the frames of the hub are sent to a subscriber."""

    FRAMES = auto()
    """As they are: on a WebSocket."""
    DEFLATED = auto()
    """Compressed, where the client agreed to permessage-deflate with the full window."""
    EVENTS = auto()
    """As Server-Sent Events."""


class Feeder(Protocol):
    """Who fills a stream: the supervisor of its provider."""

    clock: ProviderClock
    has_history: bool
    close_grace_s: float

    def wanted(self, stream: "Stream") -> None:
        """Learn that a stream has one more subscriber."""

    def unwanted(self, stream: "Stream") -> None:
        """Learn that a stream lost its last subscriber."""


class Follower(Protocol):
    """Hears all that a stream tells, in order, as long as `Hub.follow` holds; the stream is wanted meanwhile."""

    def take(self, update: PriceUpdate) -> None:
        """Take an update that was told."""

    def lose(self, gap: SeriesGap) -> None:
        """Take a gap that was told."""

    def note_state(self) -> None:
        """Learn that the state of the stream is another one."""

    def begin_anew(self) -> None:
        """Learn that what the stream told is not its past any more."""


class Stream:
    """One symbol at one interval of one provider: its series, its state, who gets it; clients call it `name`.

    One that the relay builds has the stream of shorter candles as its `base`, which make its `periods`, and nothing of
    it is stored. `revision` is then the number up to which revisions of those were told.
    """

    __slots__ = (
        "attachments",
        "base",
        "began_at",
        "channels",
        "conflated",
        "events",
        "feeder",
        "followers",
        "gap_count",
        "key",
        "lag_ms",
        "last_frame",
        "last_frame_is_closed",
        "message",
        "name",
        "outdated",
        "periods",
        "provider",
        "reconnects",
        "revision",
        "seq",
        "series",
        "status",
        "told_to",
        "updated_at",
    )

    def __init__(self, provider: str, key: StreamKey, name: str, feeder: Feeder, seq: int) -> None:
        self.provider = provider
        self.key = key
        self.name = name
        self.feeder = feeder
        self.series = Series(key, feeder.clock.now() if feeder.has_history else None)
        self.began_at = feeder.clock.monotonic()
        self.status: StreamState = CONNECTING
        self.message = "connecting to the provider"
        self.channels: dict[Channel, None] = {}
        self.attachments: dict[Attachment, None] = {}
        self.followers: dict[Follower, None] = {}
        self.base: Stream | None = None
        self.periods: Periods | None = None
        self.revision: int | None = None
        self.seq = seq
        self.last_frame: bytes | None = None
        self.last_frame_is_closed = False
        # Up to this open time every subscriber was told what closed, or that it is missing; `NO_FLOOR`: unknown.
        self.told_to = NO_FLOOR
        self.updated_at: float | None = None
        self.lag_ms: float | None = None
        self.conflated = 0
        self.gap_count = 0
        self.reconnects = 0
        # Which candles subscribers were told to be other ones now, until they were told which.
        self.outdated: Span | None = None
        self.events: list[tuple[float, str]] = []

    def reckon_promise(self) -> None:
        """Take what the provider's time was when the stream began, before anything of it is told.

        Nobody may have known it then.
        """
        series = self.series
        if series.last is None and series.promised_at is not None:
            began_at = self.feeder.clock.at_best(series.promised_at, self.began_at)
            if abs(began_at - series.promised_at) > STEP_S:
                series.promised_at = began_at

    @property
    def label(self) -> str:
        """The stream as clients write it: `BTCUSDT@1m`."""
        return f"{self.name}@{self.key.interval}"

    @property
    def subscriber_count(self) -> int:
        """How many subscribers the stream has."""
        return sum(len(channel.begins) for channel in self.channels)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody subscribes to the stream, or is about to."""
        return bool(self.channels or self.attachments or self.followers)

    def channel_for(self, options: SubscribeOptions, floor: int) -> "Channel":
        """Return the channel that a new subscriber joins, made if there is none.

        Not one that holds an open candle back: the new subscriber is told that one at once, and must not be again.
        """
        for channel in self.channels:
            if channel.options == options and channel.floor == floor and channel.held is None:
                return channel
        channel = Channel(self, options, floor)
        self.channels[channel] = None
        return channel

    def begin_by(self, time: int) -> None:
        """Note that all subscribers have candles from an open time on."""
        for channel in self.channels:
            channel.begins |= {subscriber: min(begin, time) for subscriber, begin in channel.begins.items()}

    def counts(self) -> tuple[int, ...]:
        """Return what the stream has counted so far, in the order of `COUNTED`."""
        series = self.series
        return self.conflated, self.gap_count, series.backfilled, series.revised, series.duplicates, series.late

    def state_frame(self) -> bytes:
        """Encode the state as clients see it."""
        return frames.stream_status(self.name, self.key.interval, self.status, self.message)

    def state_frames(self) -> list[bytes]:
        """Encode the state as a new subscriber sees it, who takes it that a stream is live."""
        return [] if self.status == CONNECTED else [self.state_frame()]

    def confirmation(self, request_id: str | int | None, revision: int | None = None) -> bytes:
        """Encode that a request to subscribe is accepted."""
        name, interval = self.name, self.key.interval
        return frames.subscription("subscribe", name, interval, request_id, provider=self.provider, revision=revision)

    def gap_frame(self, gap: SeriesGap, reason: str) -> bytes:
        """Encode that closed candles of the stream are missing."""
        return frames.gap(self.name, self.key.interval, gap.start, gap.end, reason)

    def outdated_frame(self, span: Span) -> bytes:
        """Encode that the candles that open in a span have other values now, as far as there are any by now."""
        before = min(span.end, int(self.feeder.clock.now()) + 1)
        reason = "the provider changed its history"
        return frames.outdated(self.name, self.key.interval, min(span.start, before), before, reason)

    def last_frame_for(self, options: SubscribeOptions) -> bytes | None:
        """Return the frame of the last known candle, if these options want it."""
        if options.closed_only and not self.last_frame_is_closed:
            return None
        if not options.extended or self.last_frame is None:
            return self.last_frame
        said, last = frames.candle_of(self.last_frame), self.series.last
        known = last if last == said else self.series.closed.get(said.time)
        return frames.extended(self.last_frame, known if known is not None and known == said else said)


class Attachment:
    """What a stream tells while somebody who will subscribe waits for its past: the closed candles, by open time.

    `revised` are the open times of those that were revised. The stream is wanted as long as it is there. Whoever makes
    one lets go of it with `Hub.detach`. One for programs that poll, named by `polled_by`, keeps nothing.
    """

    __slots__ = ("closed", "polled_by", "revised", "stream")

    def __init__(self, stream: Stream, polled_by: str = "") -> None:
        self.stream = stream
        self.polled_by = polled_by
        self.closed: dict[int, Candle] = {}
        self.revised: set[int] = set()


class Outlet(Protocol):
    """Sends what comes out of a channel to its subscribers."""

    def deliver(self, channel: "Channel", frame: bytes, is_closed: bool | None, /) -> None:
        """Send a frame to all of them; `is_closed` None: it is no candle, or one that replaces none."""

    def revise(self, channel: "Channel", frame: bytes, time: int, /) -> None:
        """Send the revision of the candle of an open time to those who have the candle."""


class Channel:
    """One stream with one set of options: its groups, its lagging subscribers, and the open candle a throttle holds.

    It is in the stream's `channels` from its first subscriber to its last. There are several with the same options
    where somebody joined while a throttle held a candle, or has candles up to an open time (`floor`) that the stream
    has not reached yet. `begins` has its subscribers, each with the open time from which on it has candles. `groups`,
    `deflated_groups` and `event_groups` have its groups, each with the frames that wait for it.
    """

    __slots__ = (
        "_next_at",
        "_timer",
        "begins",
        "behind",
        "behind_from",
        "deflated_groups",
        "event_groups",
        "floor",
        "form",
        "groups",
        "held",
        "is_extended",
        "is_plain",
        "options",
        "slow_consumers",
        "stream",
    )  # fmt: skip

    def __init__(self, stream: Stream, options: SubscribeOptions, floor: int = NO_FLOOR) -> None:
        self.stream = stream
        self.options = options
        self.floor = floor
        self.form = options.form
        self.is_extended = options.extended
        self.is_plain = options == PLAIN and floor == NO_FLOOR
        self.begins: dict[Subscriber, int] = {}
        # Revisions that wait for the held candle, so that `seq` never goes back, of which open times they are, and
        # the number of the first of them.
        self.behind: list[tuple[bytes, int]] = []
        self.behind_from = 0
        self.groups: dict[Group, list[bytes]] = {}
        self.deflated_groups: dict[Group, list[bytes]] = {}
        self.event_groups: dict[Group, list[bytes]] = {}
        self.slow_consumers: dict[Subscriber, None] = {}
        self.held: bytes | None = None
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        if options.throttle_ms and stream.last_frame is not None and not stream.last_frame_is_closed:
            # Its first subscriber is sent the last known candle, and that is an update as well.
            self._next_at = asyncio.get_running_loop().time() + options.throttle_ms / 1000

    def passes(self, frame: bytes, update: PriceUpdate, outlet: Outlet) -> bool:
        """Return whether a frame passes now; one that does not was told, is not wanted, or is delivered in its time."""
        return update.candle.time > self.floor and self._throttle(frame, update.is_closed, outlet)

    def revise(self, frame: bytes, time: int, outlet: Outlet, number: int = 0) -> None:
        """Send the revision of a candle; it is of another one than the open candle that waits, and follows that."""
        if self.held is None:
            outlet.revise(self, frame, time)
        else:
            if not self.behind:
                self.behind_from = number
            self.behind.append((frame, time))

    def _let_go(self, outlet: Outlet) -> None:
        """Hold nothing any more: something newer takes the place of the candle, and what waited for it is sent."""
        self.held = None
        behind, self.behind = self.behind, []
        for frame, time in behind:
            outlet.revise(self, frame, time)

    def _throttle(self, frame: bytes, is_closed: bool, outlet: Outlet) -> bool:
        if is_closed:
            self._let_go(outlet)
            return True
        if self.options.closed_only:
            return False
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._next_at:
            self._next_at = now + self.options.throttle_ms / 1000
            self._let_go(outlet)
            return True
        if self.held is not None:
            self.stream.conflated += 1
            self._let_go(outlet)
        self.held = frame
        if self._timer is None:
            self._timer = loop.call_at(self._next_at, self._release, outlet)
        return False

    def _release(self, outlet: Outlet) -> None:
        self._timer = None
        if self.held is not None:
            self._next_at = asyncio.get_running_loop().time() + self.options.throttle_ms / 1000
            outlet.deliver(self, self.held, False)
            self._let_go(outlet)

    def close(self) -> None:
        """Forget the held frame and its timer."""
        self.held, self.behind = None, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GroupSockets(NamedTuple):
    """How a group is written natively: which subscribers have which descriptors; `others` are written as always."""

    subscribers: "list[Subscriber]"
    descriptors: list[int]
    others: "dict[Subscriber, Transport]"


@dataclass(eq=False, slots=True)
class Group:
    """Subscribers with exactly the same subscriptions, and the frames they are to be sent with the next flush.

    `channels` are None for a group of one, whose subscriptions may change. `ahead` has members that were sent some of
    the frames already, and how many. `pending` stays the same list for as long as there is the group. `sockets` are
    None where they have to be looked up.
    """

    wire: Wire
    channels: frozenset[Channel] | None = None
    members: dict["Subscriber", Transport] = field(default_factory=dict)
    pending: list[bytes] = field(default_factory=list)
    ahead: dict["Subscriber", int] = field(default_factory=dict)
    sockets: GroupSockets | None = None


class Subscriber:
    """One client connection: its outbox and its subscriptions.

    `descriptor` is the one of its socket, None where nothing may be written to that but through the transport.

    `on_renewed` is called with a stream of which it is to be sent its past anew. `resumed` is where it was in streams
    that it resumes, until it has them. `pending` are streams of which it has less than it asked for: a past is still to
    come that takes the place of what it has.
    """

    __slots__ = (
        "descriptor",
        "group",
        "id",
        "on_renewed",
        "on_slow",
        "outbox",
        "pending",
        "resumed",
        "subscriptions",
        "wire",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        outbox: Outbox,
        on_slow: Callable[["Subscriber", str], None],
        wire: Wire,
        descriptor: int | None,
    ) -> None:
        self.id = number
        self.descriptor = descriptor
        self.wire = wire
        self.resumed: Position | None = None
        self.pending: frozenset[Stream] = frozenset()
        self.outbox = outbox
        self.on_slow = on_slow
        self.on_renewed: Callable[[Stream], None] = _ignore
        self.subscriptions: dict[Stream, Channel] = {}
        self.group: Group | None = None
