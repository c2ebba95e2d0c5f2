"""How one client comes to its streams and leaves them: what it may have, in which order it is told, and what waits."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from relay.core.errors import Code, RateLimited, RequestError
from relay.core.intervals import length_s
from relay.core.model import StreamKey
from relay.history.joining import NOT_GIVEN, Joining
from relay.instruments.directory import Target
from relay.protocol import client_requests, frames
from relay.protocol.client_requests import SubscribeOptions
from relay.protocol.fields import shown
from relay.streams.subscriptions import CONNECTED, NO_FLOOR, Stream, Subscriber
from relay.supervision.stream_state import THROTTLED
from relay.telemetry.events import event
from relay.web.access.access import Caller
from relay.web.ws.context import ConnectionContext
from relay.web.ws.history_quota import HistoryQuota

LEAST_WAIT_S = 0.5

log = logging.getLogger(__name__)


class ClientSubscriptions:
    """The streams of one client, and the subscriptions that still wait for their past.

    There is one for each connection: what few clients need is made when it is needed.
    """

    __slots__ = ("_caller", "_context", "_fetches", "_rows", "_since", "_subscriber", "_waiting")

    def __init__(self, context: ConnectionContext, subscriber: Subscriber, caller: Caller) -> None:
        self._context = context
        self._subscriber = subscriber
        self._caller = caller
        # From which open time on the client has the candles of a stream.
        self._since: dict[Stream, int] = {}
        self._waiting: dict[tuple[str, StreamKey], Joining] | None = None
        # One snapshot at a time of each provider: they are large, and a provider that hangs holds up no other.
        self._fetches: dict[str, asyncio.Lock] | None = None
        self._rows: HistoryQuota | None = None

    def set_limits(self) -> None:
        """Go by the limits that are in force now."""
        if self._rows is not None:
            self._rows.set_limit()

    def close(self) -> None:
        """Let go of what still waits; the client is gone."""
        for joining in list((self._waiting or {}).values()):
            self._waits_no_more(joining)

    def labels(self) -> list[str]:
        """Return the client's streams as it writes them, sorted: those that were confirmed."""
        waiting = (self._waiting or {}).values()
        names = {joining.stream.label for joining in waiting if joining.is_confirmed}
        return sorted(names | {stream.label for stream in self._subscriber.subscriptions})

    # -- joining -----------------------------------------------------------------------------------

    def subscribe(self, target: Target, request: client_requests.Request) -> Joining | None:
        """Join a stream; return what `join_with_past` has to be called with if it wants its past first.

        A request for a stream that waits already is answered with the one that waits. Raises `RequestError`.
        """
        identity = (target.provider.name, target.key)
        waiting = self._waiting.get(identity) if self._waiting else None
        if waiting is not None:
            waiting.replace(request)
            if waiting.is_confirmed:
                self._send([self._confirmation(waiting.stream, request.id)])
            return None
        self._check_room(target)
        hub = self._context.hub
        if identity not in hub.streams:
            self._context.access.shares.opened(identity, self._caller.owner, hub.streams)
        stream = hub.stream(*identity, target.name, self._context.supervisors[target.provider.name])
        if request.past == client_requests.PastWanted():
            is_new = self._join(stream, request.options)
            revision = self._context.history.revision if is_new else None
            sent = [self._confirmation(stream, request.id, revision), *_state(stream)]
            if is_new and (last := stream.last_frame_for(request.options)) is not None:
                sent += [last, *self._gaps_after(stream)]
            self._send(sent)
            return None
        if self._waiting is None:
            self._waiting = {}
        joining = self._waiting[identity] = Joining(hub, stream, target.provider, request)
        return joining

    async def join_with_past(self, joining: Joining) -> None:
        """Fetch the past, then join: the snapshot ends exactly where the live updates begin. Raises `RequestError`."""
        context, subscriber = self._context, self._subscriber
        if self._fetches is None:
            self._fetches = {}
        if self._rows is None:
            self._rows = HistoryQuota(context.access, self._caller)
        fetch = self._fetches.setdefault(joining.stream.provider, asyncio.Lock())
        try:
            while self._waits(joining):
                try:
                    async with fetch:
                        # Snapshots are large, and must not pile up before a slow reader.
                        while subscriber.outbox.is_lagging and subscriber in context.hub.subscribers:  # noqa: ASYNC110
                            await asyncio.sleep(0.05)
                        await joining.fetch(context.history, self._rows)
                        if self._waits(joining):
                            self._join_with_snapshot(joining)
                        return
                except RateLimited as error:
                    self._confirm_waiting(joining, error)
                    await asyncio.sleep(max(error.retry_after, LEAST_WAIT_S))
                    joining.note_wait(max(error.retry_after, LEAST_WAIT_S))
        except RequestError as error:
            error.symbol, error.interval = joining.stream.name, joining.stream.key.interval
            raise
        finally:
            self._waits_no_more(joining)

    def _waits(self, joining: Joining) -> bool:
        """Say whether it waits still: the client may have left the stream meanwhile."""
        return self._waiting is not None and self._waiting.get(joining.identity) is joining

    def _waits_no_more(self, joining: Joining) -> None:
        if self._waiting is not None and self._waits(joining):
            del self._waiting[joining.identity]
        joining.close()

    def _confirm_waiting(self, joining: Joining, error: RateLimited) -> None:
        """Confirm a subscription whose past has to wait for the provider's budget, and say so."""
        if not self._waits(joining):
            return
        stream = joining.stream
        sent = []
        if not joining.is_confirmed:
            joining.confirm()
            sent = [self._confirmation(stream, request_id) for request_id in joining.ids]
        message = f"the past follows in {error.retry_after:.0f} s: {error}"
        sent.append(frames.stream_status(stream.name, stream.key.interval, THROTTLED, message))
        self._send(sent)

    def _join_with_snapshot(self, joining: Joining) -> None:
        """Confirm, tell the state, send the past, and let the updates follow."""
        stream = joining.stream
        is_new = stream not in self._subscriber.subscriptions
        # The splice comes before the subscription: what a stream tells of the past is in the snapshot already.
        snapshot = joining.splice(None if is_new else self._since.get(stream))
        joining.note_given(snapshot, self._context.history)
        self._join(stream, joining.options, joining.floor(), joining.has_from(snapshot))
        begin = joining.begins_at(snapshot)
        if begin is not None:
            self._since[stream] = min(begin, self._since[stream])
        name, interval = stream.name, stream.key.interval
        if joining.is_confirmed:
            sent = [stream.state_frame()]
        else:
            sent = [*(self._confirmation(stream, request_id) for request_id in joining.ids), *_state(stream)]
        sent += [frames.gap(name, interval, gap.start, gap.end, joining.gap_reason) for gap in snapshot.gaps]
        sent.append(
            frames.snapshot(
                name,
                interval,
                snapshot.candles,
                last_is_closed=snapshot.last_is_closed,
                complete=snapshot.is_complete,
                seq=stream.seq,
                provider=stream.provider,
                revision=self._context.history.revision,
                revised=snapshot.revised,
                revisions_known=snapshot.revisions_known,
            )
        )
        self._send(sent)

    def _join(
        self, stream: Stream, options: SubscribeOptions, floor: int = NO_FLOOR, has_from: int | None = None
    ) -> bool:
        """Let the client have the stream's updates; say whether it had none before."""
        is_new = stream not in self._subscriber.subscriptions
        clock = stream.feeder.clock
        told_from = stream.series.told_from(clock.now())
        # Before the first update a clock that is ahead may have set when the stream began.
        begin = min(told_from, int(clock.certain()) - length_s(stream.key.interval) + 1)
        if has_from is not None:
            begin = min(begin, has_from)
        self._context.hub.subscribe(self._subscriber, stream, options, floor=floor, begin=begin)
        self._note("subscribes to", stream)
        if is_new:
            self._since[stream] = told_from
        return is_new

    def _gaps_after(self, stream: Stream) -> list[bytes]:
        """Say what is missing right after the newest candle: it was told before this client came."""
        last = stream.series.last
        gaps = [gap for gap in stream.series.gaps.left if last is not None and gap.start > last.time]
        return [frames.gap(stream.name, stream.key.interval, gap.start, gap.end, NOT_GIVEN) for gap in sorted(gaps)]

    def _send(self, sent: Sequence[bytes]) -> None:
        self._context.hub.send(self._subscriber, frames.join(sent), frames=len(sent))

    def _confirmation(self, stream: Stream, request_id: str | int | None, revision: int | None = None) -> bytes:
        name, interval = stream.name, stream.key.interval
        return frames.subscription("subscribe", name, interval, request_id, provider=stream.provider, revision=revision)

    def _check_room(self, target: Target) -> None:
        hub, access = self._context.hub, self._context.access
        stream = self._find(target)
        if stream is not None and stream in self._subscriber.subscriptions:
            return
        most, most_here = access.config.max_streams, access.config.max_streams_per_client
        fault = None
        if self._held() >= most_here:
            fault = f"this connection has {most_here} streams, which is the most; unsubscribe some"
        elif stream is None and len(hub.streams) >= most:
            fault = f"the relay carries {most} streams, which is the most"
        elif stream is None and not access.shares.may_open(self._caller.owner, hub.streams, most):
            fault = (
                f"of {most} streams {most - len(hub.streams)} are left, and clients of this address opened more than "
                "that; streams that the relay carries already can be had"
            )
        if fault is not None:
            raise RequestError(Code.TOO_MANY_SUBSCRIPTIONS, fault, symbol=target.name, interval=target.key.interval)

    def _held(self) -> int:
        """Return how many streams the client has or waits for."""
        subscriptions = self._subscriber.subscriptions
        if not self._waiting:
            return len(subscriptions)
        return len(self._waiting.keys() | {(stream.provider, stream.key) for stream in subscriptions})

    def _find(self, target: Target) -> Stream | None:
        return self._context.hub.streams.get((target.provider.name, target.key))

    def _note(self, verb: str, stream: Stream) -> None:
        if log.isEnabledFor(logging.DEBUG):
            number, name = self._subscriber.id, stream.label
            about = event("client_stream", client=number, stream=name, action=verb)
            log.debug("client %d %s %s", number, verb, name, extra=about)

    # -- leaving -----------------------------------------------------------------------------------

    def unsubscribe(self, request_id: str | int | None, pin: str | None, symbol: str, interval: str) -> None:
        """Leave a stream, also one that waits for its past. Raises `RequestError` (not_subscribed)."""
        hub, subscriber = self._context.hub, self._subscriber
        # By any of its names: the provider's list may have changed since.
        fits = _names(pin, symbol, interval)
        stream = next((one for one in subscriber.subscriptions if fits(one.name, one.provider, one.key)), None)
        waiting = (self._waiting or {}).values()
        joining = next((one for one in waiting if fits(one.stream.name, *one.identity)), None)
        if stream is None and joining is None:
            name = symbol if pin is None else f"{pin}:{symbol}"
            raise RequestError(
                Code.NOT_SUBSCRIBED,
                f"not subscribed to {shown(f'{name}@{interval}')}; list shows what is",
                symbol=name,
                interval=interval,
            )
        if joining is not None:
            # Its requests are answered too: the stream was accepted, and is left before it began.
            name, provider = joining.stream.name, joining.stream.provider
            if not joining.is_confirmed:
                self._send([self._confirmation(joining.stream, waiting_id) for waiting_id in joining.ids])
            self._waits_no_more(joining)
        if stream is not None:
            name, provider = stream.name, stream.provider
            hub.unsubscribe(subscriber, stream)
            self._note("leaves", stream)
            self._since.pop(stream, None)
        hub.send(subscriber, frames.subscription("unsubscribe", name, interval, request_id, provider=provider))


def _state(stream: Stream) -> list[bytes]:
    return [] if stream.status == CONNECTED else [stream.state_frame()]


def _names(pin: str | None, symbol: str, interval: str) -> Callable[[str, str, StreamKey], bool]:
    """Return whether a client's name means a stream, given what the stream is called, its provider and its key."""
    whole = (symbol if pin is None else f"{pin}:{symbol}").upper()

    def fits(name: str, provider: str, key: StreamKey) -> bool:
        return key.interval == interval and (
            name.upper() == whole or (provider == pin and key.symbol.upper() == symbol)
        )

    return fits
