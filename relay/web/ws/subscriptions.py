"""How one client comes to its streams and leaves them: what it may have, in which order it is told, and what waits."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from relay.core.errors import Code, RequestError
from relay.history.joining import Joining, JoiningClient
from relay.history.past_fetch import NOT_GIVEN, CandleQuota, PastTurns
from relay.history.renewal import Renewal
from relay.instruments.directory import Target
from relay.protocol import client_requests, frames
from relay.protocol.fields import check_is_past, shown
from relay.streams.subscriptions import Stream, Subscriber
from relay.web.access.access import STREAMS_PER_CLIENT, Caller, HistoryQuota
from relay.web.ws.context import ConnectionContext

LEAST_RENEWED = 500
"""So many candles at least are sent to a client whose past of a stream is another one now."""


class UncountedCandles(NamedTuple):
    """The quota of candles for which a client did not ask."""

    client: str

    def check(self) -> None:
        """Allow all."""

    def spend(self, rows: int) -> None:
        """Count nothing."""


class ClientSubscriptions:
    """The streams of one client, and the subscriptions that still wait for their past.

    There is one for each connection: what few clients need is made when it is needed. `usual` is how many streams it
    may have where the configuration does not say.
    """

    __slots__ = ("_caller", "_client", "_context", "_quota", "_usual")

    def __init__(
        self, context: ConnectionContext, subscriber: Subscriber, caller: Caller, usual: int = STREAMS_PER_CLIENT
    ) -> None:
        self._context = context
        self._caller = caller
        self._usual = usual
        self._client = JoiningClient(
            context.hub, context.history, subscriber, turns=defaultdict(partial(PastTurns, context.past_waits))
        )
        self._quota: HistoryQuota | None = None

    def set_limits(self) -> None:
        """Go by the limits that are in force now."""
        if self._quota is not None:
            self._quota.set_limit()

    def close(self) -> None:
        """Let go of what still waits; the client is gone."""
        for joining in list(self._client.waiting.values()):
            joining.close()

    def labels(self) -> list[str]:
        """Return the client's streams as it writes them, sorted: those that were confirmed."""
        names = {joining.stream.label for joining in self._client.waiting.values() if joining.is_confirmed}
        return sorted(names | {stream.label for stream in self._client.subscriber.subscriptions})

    # -- joining -----------------------------------------------------------------------------------

    def subscribe(self, target: Target, request: client_requests.Request) -> Joining | None:
        """Join a stream; return what is to be `run` if it wants its past first. Raises `RequestError`.

        A request for a stream that waits already is answered with the one that waits.
        """
        identity = (target.provider.name, target.key)
        waiting = self._client.waiting.get(identity)
        if waiting is not None:
            waiting.replace(request)
            return None
        self._check_room(target)
        if request.past.since is not None:
            now = target.provider.clock.now()
            check_is_past("since", request.past.since, now, symbol=target.name, interval=target.key.interval)
        stream = self._opened(target)
        if request.past != client_requests.PastWanted():
            if self._quota is None:
                self._quota = HistoryQuota(self._context.access, self._caller)
            return Joining(self._client, self._quota, stream, target.provider, request)
        is_new = self._client.follow(stream, request.options)
        sent = [stream.confirmation(request.id, self._context.history.revision if is_new else None)]
        sent += stream.state_frames()
        if is_new and (last := stream.last_frame_for(request.options)) is not None:
            sent += [last, *_gaps_after(stream)]
        self._client.tell(sent)
        return None

    def renew(self, stream: Stream) -> Joining | None:
        """Return what is to be `run` so that the client has the past of a stream anew, which its provider changed.

        None if it waits for its past anyway, or has none.
        """
        client = self._client
        if stream not in client.subscriber.subscriptions or stream not in client.begins:
            return None
        return self._renewal(stream, LEAST_RENEWED, UncountedCandles(self._caller.client))

    def rest_of(self, joining: Joining) -> Joining | None:
        """Return what is to be `run` so that the client has what was missing of its past.

        None if the client has left the stream.
        """
        stream, past = joining.stream, joining.past_to_come
        if past is None or self._quota is None or stream not in self._client.subscriber.subscriptions:
            return None
        return self._renewal(stream, past.bars or 0, self._quota)

    def _renewal(self, stream: Stream, bars: int, quota: CandleQuota) -> Joining | None:
        client, provider = self._client, self._context.supervisors[stream.provider].provider
        if (stream.provider, stream.key) in client.waiting:
            return None
        options = client.subscriber.subscriptions[stream].options
        past = client_requests.PastWanted(bars, replaces=True)
        request = client_requests.Request("subscribe", None, options=options, past=past)
        return Renewal(client, quota, stream, provider, request)

    def _opened(self, target: Target) -> Stream:
        """Return a stream, opened for this client's address if there is none yet."""
        hub, identity = self._context.hub, (target.provider.name, target.key)
        if identity not in hub.streams:
            self._context.access.shares.opened(identity, self._caller.owner, hub.streams)
        return hub.stream(*identity, target.name, self._context.supervisors[target.provider.name])

    def follow(self, target: Target, options: client_requests.SubscribeOptions) -> Stream:
        """Join a stream without its past, and send nothing of what is known. Raises `RequestError`."""
        self._check_room(target)
        stream = self._opened(target)
        self._client.follow(stream, options)
        return stream

    def leave(self, stream: Stream) -> None:
        """Leave a stream, and send nothing. Harmless where the client has not got it."""
        if self._context.hub.unsubscribe(self._client.subscriber, stream):
            self._client.note("leaves", stream)
            self._client.begins.pop(stream, None)

    def _check_room(self, target: Target) -> None:
        hub, access = self._context.hub, self._context.access
        stream = hub.streams.get((target.provider.name, target.key))
        if stream is not None and stream in self._client.subscriber.subscriptions:
            return
        most, most_here = access.config.max_streams, access.most_streams(self._usual)
        fault = None
        if self._held() >= most_here:
            fault = f"this connection has {most_here} streams, the maximum; unsubscribe from some first"
        elif stream is None and len(hub.streams) >= most:
            fault = (
                f"the relay has {most} streams open, the maximum; you can subscribe to a stream that is open already"
            )
        elif stream is None and not access.shares.may_open(self._caller.owner, hub.streams, most):
            fault = (
                f"only {most - len(hub.streams)} of {most} streams are free, and clients of this address opened more "
                "than that; you can subscribe to a stream that is open already"
            )
        if fault is not None:
            raise RequestError(Code.TOO_MANY_SUBSCRIPTIONS, fault, symbol=target.name, interval=target.key.interval)

    def _held(self) -> int:
        """Return how many streams the client has or waits for."""
        subscriptions = self._client.subscriber.subscriptions
        if not self._client.waiting:
            return len(subscriptions)
        return len(self._client.waiting.keys() | {(stream.provider, stream.key) for stream in subscriptions})

    # -- leaving -----------------------------------------------------------------------------------

    def unsubscribe(self, request_id: str | int | None, pin: str | None, symbol: str, interval: str) -> None:
        """Leave a stream, also one that waits for its past. Raises `RequestError` (not_subscribed)."""
        hub, subscriber = self._context.hub, self._client.subscriber
        # By any of its names: the provider's list may have changed since, and a bare name stand for a longer one.
        for fits in (_names(pin, symbol, interval), _names(*self._context.directory.holder(pin, symbol), interval)):
            stream = next(filter(fits, subscriber.subscriptions), None)
            joining = next((one for one in self._client.waiting.values() if fits(one.stream)), None)
            if stream is not None or joining is not None:
                break
        else:
            name = symbol if pin is None else f"{pin}:{symbol}"
            raise RequestError(
                Code.NOT_SUBSCRIBED,
                f"not subscribed to {shown(f'{name}@{interval}')}; the action list shows your streams",
                symbol=name,
                interval=interval,
            )
        if joining is not None:
            name, provider = joining.stream.name, joining.stream.provider
            joining.leave()
        if stream is not None:
            name, provider = stream.name, stream.provider
            self.leave(stream)
        hub.send(subscriber, frames.subscription("unsubscribe", name, interval, request_id, provider=provider))


def _gaps_after(stream: Stream) -> list[bytes]:
    """Say what is missing right after the newest candle: it was told before this client came."""
    last = stream.series.last
    gaps = [gap for gap in stream.series.gaps.left if last is not None and gap.start > last.time]
    return [stream.gap_frame(gap, NOT_GIVEN) for gap in sorted(gaps)]


def _names(pin: str | None, symbol: str, interval: str) -> Callable[[Stream], bool]:
    """Return whether a client's name means a stream."""
    whole = (symbol if pin is None else f"{pin}:{symbol}").upper()

    def fits(stream: Stream) -> bool:
        is_pinned = stream.provider == pin and stream.key.symbol.upper() == symbol
        return stream.key.interval == interval and (stream.name.upper() == whole or is_pinned)

    return fits
