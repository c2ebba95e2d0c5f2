"""The codec of another relay's WebSocket: its protocol of clients in, values out; states of streams are reported."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from providers.relay.candles import read_candle
from relay import (
    Accepted,
    Candle,
    FeedCodec,
    Hosts,
    PastChange,
    PriceUpdate,
    ProviderUnavailable,
    Rejected,
    Secret,
    StreamKey,
    Watchlist,
)

CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]

WS = "/api/v1/market-data/ws"
_FRAME_BYTES = 4000
"""A relay takes frames of 4,096 bytes from a client: README.md, "WebSocket"."""
_LONGEST_STORE = 40
"""Our choice: what another relay may call its database; 16 characters today."""
_OPTIONS_BYTES = 200
"""Our choice: room for the options beside the names."""
_RETRY_S = 5.0
"""Our choice: the other relay tells when a stream is live again, so nothing is tried here."""
_OPENS_S = 2.0
"""Our choice: so long a stream that the other relay has to open first is no stream that is lost."""
_PASSING = {"connecting", "reconnecting", "backfilling", "stale", "error"}
_PAUSED = {"market_closed", "throttled"}


class Resumes:
    """How far each stream came with one relay, over its connections: the last closed candle, the last revision.

    Each relay counts revisions of its own, so there is one of these for each address, and each number is kept with
    the store that it is of: several relays may share an address.
    """

    def __init__(self) -> None:
        self.closed: dict[StreamKey, int] = {}
        self.revisions: dict[StreamKey, tuple[int, str | None]] = {}

    def options(self, key: StreamKey) -> dict[str, int | str]:
        """Return what brings the revisions that were missed, beside the newest candle; the host asks for the rest."""
        closed, known = self.closed.get(key), self.revisions.get(key)
        if closed is None or known is None:
            return {}
        revision, store = known
        options: dict[str, int | str] = {"since": closed, "revision": revision, "bars": 1}
        return options if store is None else {**options, "store": store}

    def forget(self, key: StreamKey) -> None:
        """Begin anew with a stream."""
        self.closed.pop(key, None)
        self.revisions.pop(key, None)


class RelayCodec(FeedCodec):
    """All streams of a watchlist on one connection to another relay; it reports their states to the watchlist."""

    messages_per_second = 10
    """Our choice: a relay allows a client 50 requests a second (`max_requests_per_second`)."""
    keys_per_message = 100
    """A relay takes so many streams in a request: README.md, "WebSocket"; `_FRAME_BYTES` bounds it too."""

    def __init__(
        self,
        hosts: Hosts,
        token: Secret | None,
        resumes: Mapping[str, Resumes],
        watchlist: Watchlist,
        call_later: CallLater,
    ) -> None:
        self._hosts = hosts
        self._host = hosts.current
        self._token = token
        self._resumes = resumes[self._host]
        self._watchlist = watchlist
        self._asked: dict[int, set[StreamKey]] = {}
        self._call_later = call_later
        self._states: dict[StreamKey, tuple[str, str]] = {}
        self._opening: dict[StreamKey, asyncio.TimerHandle] = {}
        self._since: dict[StreamKey, int] = {}
        self._last_id = 0
        self._store: str | None = None

    @property
    def url(self) -> str:
        """The WebSocket of the relay that is tried now."""
        return self._host.replace("http", "ws", 1) + WS

    @property
    def headers(self) -> Mapping[str, str]:
        """The token, if there is one."""
        return {} if self._token is None else {"Authorization": f"Bearer {self._token.reveal()}"}

    def connect_failed(self, status: int | None) -> None:
        """Go on at the next relay."""
        self._hosts.failed(self._host)

    def subscribe(self, keys: Sequence[StreamKey]) -> Iterator[str]:
        """Ask for streams, those that go on from the same place together."""
        groups: dict[tuple[tuple[str, int | str], ...], list[StreamKey]] = {}
        for key in keys:
            options = self._resumes.options(key)
            groups.setdefault(tuple(options.items()), []).append(key)
            self._forget_state(key)
            self._since[key] = int(options.get("since", 0))
        for options_of, group in groups.items():
            yield from self._requests("subscribe", group, {**dict(options_of), "extended": True})
            if not options_of:
                # History gives older candles than the stream: their revisions are wanted, too.
                yield from self._requests("subscribe", group, {"since": 0, "bars": 0, "extended": True})

    def unsubscribe(self, keys: Sequence[StreamKey]) -> Iterator[str]:
        """End streams. Nobody follows them, so a later subscription begins anew."""
        for key in keys:
            self._resumes.forget(key)
            self._forget_state(key)
        yield from self._requests("unsubscribe", keys, {})

    def _requests(self, action: str, keys: Sequence[StreamKey], options: Mapping[str, Any]) -> Iterator[str]:
        batch: list[StreamKey] = []
        size = 0
        for key in keys:
            length = len(orjson.dumps(str(key))) + 1
            if batch and size + length > _FRAME_BYTES - _OPTIONS_BYTES:
                yield self._request(action, batch, options)
                batch, size = [], 0
            batch.append(key)
            size += length
        yield self._request(action, batch, options)

    def _request(self, action: str, keys: Sequence[StreamKey], options: Mapping[str, Any]) -> str:
        self._last_id += 1
        if action == "subscribe":
            self._asked[self._last_id] = set(keys)
        wire = {"action": action, "streams": [str(key) for key in keys], "id": self._last_id, **options}
        return orjson.dumps(wire).decode()

    def report_again(self, key: StreamKey) -> None:
        """Report what a stream lacks still after an update of it, which counts as a sign that it is live."""
        if key in self._states and key not in self._opening and self._states[key][0] != "backfilling":
            self._report(key)

    def close(self) -> None:
        """Report nothing any more."""
        for key in [*self._opening]:
            self._forget_state(key)

    # -- what comes --------------------------------------------------------------------------------

    def decode(self, raw: str | bytes) -> Iterable[PriceUpdate | Accepted | Rejected | PastChange]:
        """Return what a message says of candles and streams; others mean nothing here."""
        wire = orjson.loads(raw)
        kind = wire["type"]
        if kind == "price_update":
            return (self._update(_key(wire), wire),)
        if kind == "snapshot":
            return tuple(self._snapshot(_key(wire), wire))
        if kind == "subscription" and wire["action"] == "subscribe":
            return self._confirmed(_key(wire), wire)
        if kind == "status" and "symbol" in wire:
            self._take_state(_key(wire), wire["status"], str(wire.get("message") or ""))
        elif kind == "status":
            store = wire.get("store")
            self._store = store if isinstance(store, str) and 0 < len(store) <= _LONGEST_STORE else None
        if kind == "error":
            return self._refused(wire)
        if kind == "outdated":
            # It is said of one stream; what changed is the symbol's, at each interval.
            return (PastChange(_key(wire), before=int(wire["before"]), after=int(wire.get("from") or 0) or None),)
        return ()

    def _update(self, key: StreamKey, wire: Mapping[str, Any]) -> PriceUpdate:
        candle, is_closed = read_candle(wire["candle"]), wire["is_closed"]
        if type(is_closed) is not bool:
            raise TypeError("is_closed is neither true nor false")
        is_late = "revised" in wire or "backfilled" in wire
        self._note(key, candle, is_closed=is_closed, revision=wire.get("revision"))
        # What is told late was not said by the provider just now.
        return PriceUpdate(key, candle, is_closed, None if is_late else wire.get("ts_event"))

    def _snapshot(self, key: StreamKey, wire: Mapping[str, Any]) -> Iterator[PriceUpdate | PastChange]:
        since = self._since.get(key, 0)
        if wire.get("revisions_known") is False:
            # Which of the candles that are known here are other ones now the other relay cannot say.
            yield PastChange(key, before=since + 1, one_interval=True)
        # The newest candle alone: what lies before is asked of history.
        for candle in wire["candles"][-1:]:
            found, is_closed = read_candle(candle), wire["last_is_closed"] is True
            self._note(key, found, is_closed=is_closed, revision=wire.get("revision"))
            yield PriceUpdate(key, found, is_closed)
        for candle in wire.get("revised") or ():
            yield PriceUpdate(key, read_candle(candle), is_closed=True)

    def _note(self, key: StreamKey, candle: Candle, *, is_closed: bool, revision: object) -> None:
        if is_closed:
            closed = self._resumes.closed
            closed[key] = max(candle.time, closed.get(key, 0))
        if isinstance(revision, int):
            self._resumes.revisions[key] = revision, self._store

    def _confirmed(self, key: StreamKey, wire: Mapping[str, Any]) -> Sequence[Accepted]:
        self._asked.get(wire.get("id") or 0, set()).discard(key)
        if isinstance(wire.get("revision"), int):
            self._resumes.revisions[key] = wire["revision"], self._store
        return (Accepted((key,)),)

    def _refused(self, wire: Mapping[str, Any]) -> Sequence[Rejected]:
        """Return which streams an error is about; one that names none is about all of its request."""
        asked = self._asked.get(wire.get("id") or 0, set())
        keys = {_key(wire)} if wire.get("symbol") and wire.get("interval") else set(asked)
        asked -= keys
        reason = f"the other relay refused the stream: {wire.get('message')}"
        return tuple(Rejected((key,), reason) for key in sorted(keys))

    def _take_state(self, key: StreamKey, status: str, message: str) -> None:
        was_told = key in self._states and key not in self._opening
        self._forget_state(key)
        if status == "connecting":
            self._states[key] = status, message
            self._opening[key] = self._call_later(_OPENS_S, lambda: self._report(key))
        elif status in _PASSING or status in _PAUSED:
            self._states[key] = status, message
            self._report(key)
        elif was_told:
            self._watchlist.accept((key,))

    def _forget_state(self, key: StreamKey) -> None:
        self._states.pop(key, None)
        if (timer := self._opening.pop(key, None)) is not None:
            timer.cancel()

    def _report(self, key: StreamKey) -> None:
        status, message = self._states[key]
        self._opening.pop(key, None)
        if status in _PAUSED:
            self._watchlist.pause(key, status, message)
        else:
            words = f"at the other relay the stream is {status}{f': {message}' if message else ''}"
            self._watchlist.lose(key, ProviderUnavailable(words), _RETRY_S)


def _key(wire: Mapping[str, Any]) -> StreamKey:
    return StreamKey(wire["symbol"], wire["interval"])
