"""How one client comes to its streams and leaves them: what it may have, in which order it is told, and what waits."""

import asyncio
import logging
from collections.abc import Callable

from relay import requests, wire
from relay.directory import Target
from relay.errors import Code, RequestError
from relay.events import event
from relay.fields import shown
from relay.model import StreamKey
from relay.ranges import Past as Answer
from relay.stream import Stream, Subscriber
from relay.web.access import Caller
from relay.web.joining import Identity, Joining, Rows
from relay.web.parts import Parts

log = logging.getLogger(__name__)


class Subscribing:
    """The streams of one client, and the subscriptions that still wait for their past.

    There is one for each connection: what few clients need is made when it is needed.
    """

    __slots__ = ("_caller", "_parts", "_rows", "_since", "_subscriber", "_turns", "_waiting")

    def __init__(self, parts: Parts, subscriber: Subscriber, caller: Caller) -> None:
        self._parts = parts
        self._subscriber = subscriber
        self._caller = caller
        # From which open time on the client has the candles of a stream.
        self._since: dict[Stream, int] = {}
        self._waiting: dict[Identity, Joining] | None = None
        # One snapshot at a time of each provider: they are large, and a provider that hangs holds up no other.
        self._turns: dict[str, asyncio.Lock] | None = None
        self._rows: Rows | None = None

    def set_limits(self) -> None:
        """Go by the limits that are in force now."""
        if self._rows is not None:
            self._rows.set_limit()

    # -- joining -----------------------------------------------------------------------------------

    def subscribe(self, target: Target, request: requests.Request) -> Joining | None:
        """Join a stream; return what `join_with_past` has to be called with if it wants its past first.

        A request for a stream that waits already is answered with the one that waits. Raises `RequestError`.
        """
        joining = Joining(target, request)
        waiting = self._waiting.get(joining.identity) if self._waiting else None
        if waiting is not None:
            waiting.replace(request)
            return None
        self._check_room(target)
        if request.past == requests.Past():
            self._join(joining, None)
            return None
        if self._waiting is None:
            self._waiting = {}
        self._waiting[joining.identity] = joining
        return joining

    async def join_with_past(self, joining: Joining) -> None:
        """Fetch the past, then join: the snapshot ends exactly where the live updates begin. Raises `RequestError`."""
        parts = self._parts
        if self._turns is None:
            self._turns = {}
        if self._rows is None:
            self._rows = Rows(parts.access, self._caller)
        try:
            async with self._turns.setdefault(joining.target.provider.name, asyncio.Lock()):
                answer = await joining.fetch(parts.hub, parts.history, self._subscriber, self._rows)
                if self._waits_no_more(joining):
                    self._check_room(joining.target)
                    self._join(joining, answer)
        finally:
            self._waits_no_more(joining)

    def _waits_no_more(self, joining: Joining) -> bool:
        """Return whether it did wait until now: the client may have left the stream meanwhile."""
        if self._waiting is None or self._waiting.get(joining.identity) is not joining:
            return False
        del self._waiting[joining.identity]
        return True

    def _check_room(self, target: Target) -> None:
        hub, access = self._parts.hub, self._parts.access
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
        return self._parts.hub.streams.get((target.provider.name, target.key))

    def _join(self, joining: Joining, answer: Answer | None) -> None:
        """Confirm, tell the state, send the past or the last known candle, and let the updates follow."""
        hub, subscriber, target = self._parts.hub, self._subscriber, joining.target
        if subscriber not in hub.subscribers:
            return
        supervisor = self._parts.supervisors[target.provider.name]
        if self._find(target) is None:
            self._parts.access.shares.opened(joining.identity, self._caller.owner, hub.streams)
        stream = hub.stream(target.provider.name, target.key, target.name, supervisor)
        is_new = stream not in subscriber.subscriptions
        before = None if is_new else self._since.get(stream)
        # The cut comes before the subscription: what a new stream tells of the past is in the snapshot already.
        past = None if answer is None else joining.cut(hub, stream, answer, before)
        hub.subscribe(subscriber, stream, joining.options)
        self._note("subscribes to", stream)
        if past is not None and past.candles:
            self._since[stream] = past.candles[0].time
        elif is_new:
            last = stream.series.last
            self._since[stream] = last.time if last is not None else int(supervisor.clock.now())
        frames = joining.frames(stream, past, is_new=is_new)
        hub.send(subscriber, wire.join(frames), frames=len(frames))

    def _note(self, verb: str, stream: Stream) -> None:
        if log.isEnabledFor(logging.DEBUG):
            number, name = self._subscriber.id, stream.label
            about = event("client_stream", client=number, stream=name, action=verb)
            log.debug("client %d %s %s", number, verb, name, extra=about)

    # -- leaving -----------------------------------------------------------------------------------

    def unsubscribe(self, request_id: str | int | None, pin: str | None, symbol: str, interval: str) -> None:
        """Leave a stream, also one that waits for its past. Raises `RequestError` (not_subscribed)."""
        hub, subscriber = self._parts.hub, self._subscriber
        # By any of its names: the provider's list may have changed since.
        fits = _names(pin, symbol, interval)
        stream = next((one for one in subscriber.subscriptions if fits(one.name, one.provider, one.key)), None)
        waiting = (self._waiting or {}).values()
        joining = next((one for one in waiting if fits(one.target.name, *one.identity)), None)
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
            self._waits_no_more(joining)
            name, provider = joining.target.name, joining.target.provider.name
            for waiting_id in joining.ids:
                frame = wire.subscription("subscribe", name, interval, waiting_id, provider=provider)
                hub.send(subscriber, frame)
        if stream is not None:
            name, provider = stream.name, stream.provider
            hub.unsubscribe(subscriber, stream)
            self._note("leaves", stream)
            self._since.pop(stream, None)
        hub.send(subscriber, wire.subscription("unsubscribe", name, interval, request_id, provider=provider))


def _names(pin: str | None, symbol: str, interval: str) -> Callable[[str, str, StreamKey], bool]:
    """Return whether a client's name means a stream, given what the stream is called, its provider and its key."""
    whole = (symbol if pin is None else f"{pin}:{symbol}").upper()

    def fits(name: str, provider: str, key: StreamKey) -> bool:
        return key.interval == interval and (
            name.upper() == whole or (provider == pin and key.symbol.upper() == symbol)
        )

    return fits
