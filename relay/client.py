"""Client of a running relay: streams that survive lost connections, and the REST routes; nothing about terminals.

    async with RelayClient("http://127.0.0.1:8000") as client:
        await client.subscribe("BTCUSDT@1m", bars=100)
        async for message in client:
            match message:
                case Snapshot(candles=candles): ...
                case Update(candle=candle, is_closed=True): ...

What the relay promises for one connection, the client keeps across connections: every closed candle once and in order.

    ClientError
    ├── Unreachable      nothing answers at the address
    ├── Refused          the relay answered with an error (problem+json), or refused the connection
    ├── Disconnected     the relay closed the connection for good (4001, 4003)
    └── BadReply         the answer is not one of a relay
"""

import asyncio
import contextlib
import math
import os
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

import aiohttp
import orjson
from yarl import URL

from relay.errors import CloseCode, Code, RelayError
from relay.model import Candle, StreamKey
from relay.version import VERSION

DEFAULT_URL = "http://127.0.0.1:8000"

_ROUTES = "api/v1/market-data"
_STREAMS_PER_REQUEST = 100
# The relay takes frames up to 4,096 bytes; this leaves room for the options around the names.
_NAME_BYTES_PER_REQUEST = 3500
_LARGEST_MESSAGE = 64 * 1024 * 1024
_HEARTBEAT_S = 20.0
_HANDSHAKE_S = 10.0
# Refusals of a stream that worked before which may end by themselves, for instance while a relay starts.
_PASSING = {Code.PROVIDER_UNAVAILABLE, Code.RATE_LIMITED, Code.TOO_MANY_SUBSCRIPTIONS, Code.INTERNAL}
_FOR_GOOD = {CloseCode.TOO_MANY_INVALID, CloseCode.TOKEN_REVOKED}
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 31 * 86_400}


# -- errors ---------------------------------------------------------------------------------------------------------


class ClientError(RelayError):
    """The relay cannot be used; the message is one line for people and carries no token."""


class Unreachable(ClientError):
    """Nothing answers at the address, or not in time."""


class Refused(ClientError):
    """The relay refused; `code` is one of the contract's or empty, `retry_after` (seconds) says when to come back."""

    def __init__(
        self, status: int, code: str, detail: str, *, title: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.retry_after = retry_after


class Disconnected(ClientError):
    """The relay closed the connection for good; connecting again as before would end the same way."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(f"the relay closed the connection for good: {reason or 'no reason given'} ({close_code})")
        self.close_code = close_code
        self.reason = reason


class BadReply(ClientError):
    """The answer is not one of a relay; the address may belong to another server."""


# -- messages -------------------------------------------------------------------------------------------------------
# `wire` is the message as it came, for those who pass it on; the client writes it where it takes a snapshot apart.


class Connected(NamedTuple):
    """A connection is open. `epoch` names one run of the relay: `seq` starts anew with it."""

    epoch: str
    server_time: int
    wire: Mapping[str, Any]


class Lost(NamedTuple):
    """The connection is lost; the next attempt follows in `retry_in_s` and the streams go on where they stopped."""

    reason: str
    close_code: int | None
    retry_in_s: float
    wire: Mapping[str, Any]


class Confirmed(NamedTuple):
    """The relay accepted a stream (or its end); `key` is its canonical name. Comes again after each reconnect."""

    key: StreamKey
    action: str
    wire: Mapping[str, Any]


class State(NamedTuple):
    """The state of a stream changed; a confirmed stream is `connected` until this says otherwise."""

    key: StreamKey
    status: str
    message: str
    wire: Mapping[str, Any]


class Snapshot(NamedTuple):
    """The past that `bars` or `since` asked for; once a subscription, what is missed later comes as `Update`."""

    key: StreamKey
    candles: tuple[Candle, ...]
    last_is_closed: bool
    is_complete: bool
    seq: int | None
    wire: Mapping[str, Any]


class Update(NamedTuple):
    """The newest known state of a stream's candle. Each closed candle comes once, except where it is revised."""

    key: StreamKey
    candle: Candle
    is_closed: bool
    is_backfilled: bool
    is_revised: bool
    ts_event_ms: int | None
    seq: int | None
    wire: Mapping[str, Any]


class Gap(NamedTuple):
    """Closed candles with `start` ≤ open time < `end` are missing and nobody could give them."""

    key: StreamKey
    start: int
    end: int
    reason: str
    wire: Mapping[str, Any]


class Failure(NamedTuple):
    """The relay refused a stream (or a request, `key` None). With `is_retried` the client asks again by itself."""

    code: str
    message: str
    key: StreamKey | None
    is_retried: bool
    wire: Mapping[str, Any]


Message: TypeAlias = Connected | Lost | Confirmed | State | Snapshot | Update | Gap | Failure


# -- answers of the REST routes -------------------------------------------------------------------------------------


class History(NamedTuple):
    """Candles, oldest first; the last one may be open. `wire` is the relay's answer."""

    symbol: str
    interval: str
    candles: tuple[Candle, ...]
    last_is_closed: bool
    wire: Mapping[str, Any]


class ListedInstrument(NamedTuple):
    """What a symbol denotes, and which provider serves it."""

    symbol: str
    provider: str
    asset_class: str
    base: str
    quote: str
    intervals: tuple[str, ...]
    attribution: str


# -- one stream -----------------------------------------------------------------------------------------------------


class _Options(NamedTuple):
    bars: int | None
    since: int | None
    throttle_ms: int | None
    closed_only: bool


class _Stream:
    """What was asked of one stream and how far it got; decides where to go on and what was seen already."""

    def __init__(self, key: StreamKey, options: _Options) -> None:
        self.asked = key
        self.options = options
        self.key: StreamKey | None = None
        self.last_closed: int | None = None
        self.last_open: int | None = None
        self.confirmed_at: int | None = None
        self.has_snapshot = False
        self.failures = 0
        # When the relay is to be asked for it, in monotonic time; infinity once it was.
        self.ask_at = math.inf

    @property
    def is_under_way(self) -> bool:
        return self.last_closed is not None or self.last_open is not None

    def resume_from(self) -> int | None:
        """Return `since` for the next subscribe, or None to ask as the first time."""
        if self.last_closed is not None:
            return self.last_closed
        if self.last_open is not None:
            return self.last_open - 1
        if self.confirmed_at is None or self.options.since is not None:
            return self.options.since
        if self.options.bars and not self.has_snapshot:
            return None
        # Nothing came yet, so what is owed begins with the candle that was open when the stream was confirmed.
        try:
            length_s = int(self.asked.interval[:-1]) * _UNIT_S[self.asked.interval[-1]]
        except (KeyError, ValueError):
            return None
        return max(0, self.confirmed_at - length_s)

    def request(self) -> dict[str, Any]:
        """Return the options of the next subscribe as the relay takes them."""
        bars, _, throttle_ms, closed_only = self.options
        since = self.resume_from()
        request: dict[str, Any] = {}
        if since is not None:
            request["since"] = since
        # Once something was delivered, `bars` would cut what was missed.
        if bars is not None and not self.is_under_way and not self.has_snapshot:
            request["bars"] = bars
        if throttle_ms is not None:
            request["throttle_ms"] = throttle_ms
        if closed_only:
            request["closed_only"] = True
        return request

    def accept(self, open_time: int, *, is_closed: bool, is_revised: bool) -> bool:
        """Say whether the application has still to see this candle, and remember it as seen."""
        if self.last_closed is not None and open_time <= self.last_closed:
            return is_revised
        if is_closed:
            self.last_closed = open_time
        elif self.last_open is not None and open_time < self.last_open:
            return False
        else:
            self.last_open = open_time
        return True


class _BadMessage(Exception):
    pass


# -- the client -----------------------------------------------------------------------------------------------------


class RelayClient:
    """A connection to one relay; an async context manager and an async iterator of `Message`.

    The WebSocket opens with the first iteration; REST alone never opens it. There is no task behind it: whoever
    iterates reads the socket. One who stops reading for long is disconnected by the relay and resumes with the next
    iteration. Before the first connection a failure is raised as `ClientError`, unless `waits_for_relay`; after it
    the client reconnects, waiting `backoff_s` (least, most) with jitter. Raises `Refused` for a token no longer
    valid and `Disconnected` on 4001 and 4003. A `session` given is used and not closed.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        session: aiohttp.ClientSession | None = None,
        waits_for_relay: bool = False,
        backoff_s: tuple[float, float] = (1.0, 30.0),
        timeout_s: float = 30.0,
        jitter: random.Random | None = None,
    ) -> None:
        self.url = parse_url(url)
        self._headers = {"User-Agent": f"market-relay/{VERSION}"}
        if token is not None:
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError("a token is one word of printable ASCII characters")
            self._headers["Authorization"] = f"Bearer {token}"
        self._session = session
        self._owns_session = session is None
        self._waits_for_relay = waits_for_relay
        self._least_wait_s, self._most_wait_s = backoff_s
        self._timeout_s = timeout_s
        self._jitter = jitter or random.Random()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._streams: dict[StreamKey, _Stream] = {}
        self._requests: dict[int, list[_Stream]] = {}
        self._last_id = 0
        self._ready: deque[Message] = deque()
        self._was_connected = False
        self._connected_at = 0.0
        self._server_ahead_s = time.time() - time.monotonic()
        self._failures = 0
        self._next_attempt = 0.0
        self._ended = asyncio.Event()

    @property
    def streams(self) -> tuple[StreamKey, ...]:
        """The streams subscribed to and not refused; canonical names where the relay confirmed them."""
        return tuple(self._streams)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; an iteration under way ends."""
        self._ended.set()
        await self._drop_socket()
        if self._owns_session and self._session is not None:
            await self._session.close()
            self._session = None

    # -- streams ----------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        *streams: str | StreamKey,
        bars: int | None = None,
        since: int | None = None,
        throttle_ms: int | None = None,
        closed_only: bool = False,
    ) -> None:
        """Follow streams (`BTCUSDT@1m`) from now on, through reconnects. The answers come with the iteration.

        Does not wait for them and opens no connection. A stream refused is told as `Failure` and forgotten. Subscribing
        again replaces the options; what was delivered is not delivered again. Raises ValueError on a malformed name.
        """
        options = _Options(bars, since, throttle_ms, closed_only)
        changed = []
        for key in map(parse_stream, streams):
            stream = self._find(key)
            if stream is None:
                stream = self._streams[key] = _Stream(key, options)
            else:
                stream.options = options
            changed.append(stream)
        if self._socket is not None:
            await self._ask(changed)

    async def unsubscribe(self, *streams: str | StreamKey) -> None:
        """Stop following streams; nothing of them comes after this returns, except the relay's confirmation."""
        ended = [stream for stream in map(self._find, map(parse_stream, streams)) if stream is not None]
        names = [stream.key or stream.asked for stream in ended]
        for name in names:
            self._streams.pop(name, None)
        self._ready = deque(message for message in self._ready if getattr(message, "key", None) not in names)
        for batch in _batches([stream.asked for stream in ended]):
            await self._send({"action": "unsubscribe", "streams": batch})

    def _find(self, key: StreamKey) -> _Stream | None:
        """Return the stream that goes by this name, the canonical one or the one it was asked by."""
        return self._streams.get(key) or next((s for s in self._streams.values() if s.asked == key), None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._ready:
            if self._ended.is_set():
                raise StopAsyncIteration
            if self._socket is None:
                await self._connect()
            else:
                await self._receive(self._socket)
        return self._ready.popleft()

    async def _connect(self) -> None:
        wait_s = self._next_attempt - time.monotonic()
        if wait_s > 0:
            try:
                await asyncio.wait_for(self._ended.wait(), wait_s)
            except TimeoutError:
                pass
            else:
                return
        scheme = {"http": "ws", "https": "wss"}[self.url.scheme]
        try:
            # A relay that accepts and then says nothing must not hold up the resume for long.
            async with asyncio.timeout(min(self._timeout_s, _HANDSHAKE_S)):
                socket = await self._http().ws_connect(
                    (self.url / _ROUTES / "ws").with_scheme(scheme),
                    headers=self._headers,
                    heartbeat=_HEARTBEAT_S,
                    max_msg_size=_LARGEST_MESSAGE,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        except aiohttp.WSServerHandshakeError as fault:
            refused = self._refusal(fault.status, fault.headers, b"")
            # A relay that starts, is full or shuts down takes clients later; one that refuses a token does not.
            if fault.status in {401, 403} or not (self._was_connected or self._waits_for_relay):
                raise refused from None
            self._plan_reconnect(str(refused), None, refused.retry_after or 0.0)
            return
        except (aiohttp.ClientError, OSError, TimeoutError) as fault:
            if not (self._was_connected or self._waits_for_relay):
                raise self._unreachable(fault) from None
            self._plan_reconnect(str(self._unreachable(fault)), None)
            return
        if self._ended.is_set():
            await socket.close()
            return
        self._socket = socket
        self._was_connected = True
        self._connected_at = time.monotonic()
        self._requests.clear()
        for stream in self._streams.values():
            stream.ask_at = 0.0

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        now = time.monotonic()
        await self._ask([stream for stream in self._streams.values() if stream.ask_at <= now])
        due_s = min((stream.ask_at for stream in self._streams.values()), default=math.inf) - time.monotonic()
        try:
            # aiohttp takes 0 for "no timeout", as it does None.
            frame = await socket.receive(None if due_s == math.inf else max(0.001, due_s))
        except TimeoutError:
            return
        if frame.type is aiohttp.WSMsgType.TEXT:
            try:
                self._take(orjson.loads(frame.data))
            except (_BadMessage, orjson.JSONDecodeError):
                # Skipping it could lose a closed candle; a new connection brings it again.
                await self._lose("the relay sent something unreadable", None)
        elif frame.type is not aiohttp.WSMsgType.BINARY:
            reason = str(frame.extra or "") if frame.type is aiohttp.WSMsgType.CLOSE else ""
            await self._lose(reason, socket.close_code)

    async def _lose(self, reason: str, close_code: int | None) -> None:
        if close_code is not None and close_code in _FOR_GOOD:
            await self.close()
            raise Disconnected(close_code, reason)
        if not self._ended.is_set():
            if time.monotonic() - self._connected_at >= self._most_wait_s:
                self._failures = 0
            # 4002 asks to come back later, so it waits the longest time at once.
            least_s = self._most_wait_s if close_code == CloseCode.RATE_LIMITED else 0.0
            lost = f"connection to the relay lost{f' ({reason})' if reason else ''}"
            self._plan_reconnect(lost, close_code, least_s)
        await self._drop_socket()

    def _plan_reconnect(self, reason: str, close_code: int | None, least_s: float = 0.0) -> None:
        wait_s = max(self._backoff(self._failures), least_s)
        self._failures += 1
        self._next_attempt = time.monotonic() + wait_s
        wire = {"type": "status", "status": "disconnected", "message": reason}
        self._ready.append(Lost(reason, close_code, wait_s, wire))

    def _backoff(self, failures: int) -> float:
        most_s = min(self._most_wait_s, self._least_wait_s * 2.0 ** min(failures + 1, 16))
        return self._jitter.uniform(self._least_wait_s, most_s)

    async def _drop_socket(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _ask(self, streams: Iterable[_Stream]) -> None:
        groups: dict[tuple[tuple[str, Any], ...], list[_Stream]] = {}
        for stream in streams:
            stream.ask_at = 0.0
            groups.setdefault(tuple(stream.request().items()), []).append(stream)
        for options, group in groups.items():
            # A name with a provider is confirmed under another one, so it goes alone and its id tells it.
            alone = [[stream] for stream in group if ":" in stream.asked.symbol]
            together = {str(stream.asked): stream for stream in group if ":" not in stream.asked.symbol}
            batches = [[together[name] for name in names] for names in _batches(together)]
            for batch in alone + batches:
                self._last_id += 1
                self._requests[self._last_id] = list(batch)
                names = [str(stream.asked) for stream in batch]
                await self._send({"action": "subscribe", "streams": names, "id": self._last_id, **dict(options)})
                for stream in batch:
                    stream.ask_at = math.inf

    async def _send(self, request: dict[str, Any]) -> None:
        socket = self._socket
        if socket is None or socket.closed:
            return
        # Where it fails, the iteration meets the lost connection and asks for everything again.
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, RuntimeError):
            await socket.send_str(orjson.dumps(request).decode())

    # -- messages of the relay --------------------------------------------------------------------------------------

    def _take(self, wire: Any) -> None:
        if not isinstance(wire, dict):
            raise _BadMessage
        try:
            match wire.get("type"):
                case "price_update":
                    self._take_update(wire)
                case "snapshot":
                    self._take_snapshot(wire)
                case "status" if wire.get("symbol") is not None:
                    if (stream := self._followed(wire)) and stream.key:
                        state = State(stream.key, str(wire["status"]), str(wire.get("message") or ""), wire)
                        self._ready.append(state)
                case "status" if wire.get("status") == "connected":
                    self._take_hello(wire)
                case "subscription":
                    self._take_confirmation(wire)
                case "gap":
                    if (stream := self._followed(wire)) and stream.key:
                        reason = str(wire.get("reason") or "")
                        self._ready.append(Gap(stream.key, int(wire["from"]), int(wire["to"]), reason, wire))
                case "error":
                    self._take_error(wire)
                case _:
                    pass
        except (KeyError, TypeError, ValueError) as fault:
            raise _BadMessage from fault

    def _followed(self, wire: dict[str, Any]) -> _Stream | None:
        return self._streams.get(StreamKey(wire["symbol"], wire["interval"]))

    def _take_hello(self, wire: dict[str, Any]) -> None:
        server_time = int(wire.get("server_time") or time.time())
        self._server_ahead_s = server_time - time.monotonic()
        self._ready.append(Connected(str(wire.get("epoch") or ""), server_time, wire))

    def _take_confirmation(self, wire: dict[str, Any]) -> None:
        key = StreamKey(wire["symbol"], wire["interval"])
        action = str(wire.get("action") or "")
        if action == "subscribe":
            stream = self._asked(wire)
            if stream is None or self._streams.get(stream.key or stream.asked) is not stream:
                return
            del self._streams[stream.key or stream.asked]
            known = self._streams.get(key)
            if known is not None and known is not stream:
                # Two spellings of one stream: the later request replaces the options, what was seen stays seen.
                known.options, stream = stream.options, known
            self._streams[key] = stream
            stream.key = key
            stream.failures = 0
            if stream.confirmed_at is None:
                stream.confirmed_at = int(time.monotonic() + self._server_ahead_s)
        self._ready.append(Confirmed(key, action, wire))

    def _take_error(self, wire: dict[str, Any]) -> None:
        code, text = str(wire.get("code") or ""), str(wire.get("message") or "")
        request_id = wire.get("id")
        if wire.get("symbol") is not None:
            stream = self._asked(wire)
            refused = [stream] if stream else []
        else:
            refused = self._requests.pop(request_id, []) if isinstance(request_id, int) else []
        refused = [stream for stream in refused if self._streams.get(stream.key or stream.asked) is stream]
        wait_s = float(wire.get("retry_after") or 0.0)
        if refused:
            wait_s = max(wait_s, self._backoff(refused[0].failures))
        for stream in refused:
            is_retried = code == Code.RATE_LIMITED or (stream.confirmed_at is not None and code in _PASSING)
            if is_retried:
                stream.ask_at = time.monotonic() + wait_s
                stream.failures += 1
            else:
                del self._streams[stream.key or stream.asked]
            self._ready.append(Failure(code, text, stream.key or stream.asked, is_retried, wire))
        if not refused:
            self._ready.append(Failure(code, text, None, False, wire))

    def _asked(self, wire: dict[str, Any]) -> _Stream | None:
        """Take the stream that an answer is about from its request; by name, or because it is the only one left."""
        request_id = wire.get("id")
        open_requests = self._requests.get(request_id, []) if isinstance(request_id, int) else []
        name = (str(wire.get("symbol")).casefold(), _folded(str(wire.get("interval") or "")))
        found = next(
            (s for s in open_requests if (s.asked.symbol.casefold(), _folded(s.asked.interval)) == name),
            open_requests[0] if len(open_requests) == 1 else None,
        )
        if found is not None:
            open_requests.remove(found)
            if not open_requests:
                del self._requests[request_id]  # type: ignore[arg-type]  # found only under an int
        return found

    def _take_snapshot(self, wire: dict[str, Any]) -> None:
        stream = self._followed(wire)
        if stream is None or stream.key is None:
            return
        candles = tuple(map(_candle, wire["candles"]))
        last_is_closed = bool(wire.get("last_is_closed"))
        is_complete = wire.get("complete") is not False
        seq = wire.get("seq")
        is_resumed = stream.is_under_way or stream.has_snapshot
        was_wanted = bool(stream.options.bars is not None or stream.options.since is not None)
        last_closed = stream.resume_from()
        fresh = [
            (candle, is_closed)
            for number, candle in enumerate(candles, 1)
            for is_closed in (number < len(candles) or last_is_closed,)
            if stream.accept(candle.time, is_closed=is_closed, is_revised=False)
        ]
        self._failures = 0
        if was_wanted and not is_resumed:
            stream.has_snapshot = True
            self._ready.append(Snapshot(stream.key, candles, last_is_closed, is_complete, seq, wire))
            return
        if not is_complete and last_closed is not None:
            start = last_closed + 1
            end = fresh[0][0].time if fresh else int(time.monotonic() + self._server_ahead_s)
            reason = "the relay could not give all that was missed while the connection was lost"
            names = {"symbol": stream.key.symbol, "interval": stream.key.interval}
            gap = {"type": "gap", **names, "from": start, "to": end, "reason": reason}
            self._ready.append(Gap(stream.key, start, max(start, end), reason, gap))
        for candle, is_closed in fresh:
            self._ready.append(_missed(stream.key, candle, is_closed=is_closed, seq=seq))

    def _take_update(self, wire: dict[str, Any]) -> None:
        stream = self._followed(wire)
        if stream is None or stream.key is None:
            return
        candle = _candle(wire["candle"])
        is_closed, is_revised = wire["is_closed"] is True, wire.get("revised") is True
        self._failures = 0
        if stream.accept(candle.time, is_closed=is_closed, is_revised=is_revised):
            is_backfilled = wire.get("backfilled") is True
            ts_event_ms, seq = wire.get("ts_event"), wire.get("seq")
            self._ready.append(Update(stream.key, candle, is_closed, is_backfilled, is_revised, ts_event_ms, seq, wire))

    # -- REST -------------------------------------------------------------------------------------------------------

    async def history(
        self,
        symbol: str,
        interval: str,
        *,
        start_time: int | None = None,
        end_time: int | None = None,
        limit: int | None = None,
    ) -> History:
        """Return candles; times are Unix seconds on open time, both inclusive. Raises `ClientError`."""
        asked = {"symbol": symbol, "interval": interval, "start_time": start_time, "end_time": end_time, "limit": limit}
        answer = await self._get("history", asked)
        try:
            candles = tuple(map(_candle, answer["candles"]))
            return History(answer["symbol"], answer["interval"], candles, bool(answer["last_is_closed"]), answer)
        except (KeyError, TypeError, ValueError):
            raise self._bad_reply() from None

    async def symbols(self, asset_class: str | None = None) -> list[str]:
        """Return what can be streamed, sorted. Raises `ClientError`."""
        answer = await self._get("symbols", {"asset_class": asset_class})
        if not isinstance(answer, list) or not all(isinstance(symbol, str) for symbol in answer):
            raise self._bad_reply()
        return answer

    async def instruments(self, asset_class: str | None = None) -> list[ListedInstrument]:
        """Return what can be streamed, with details. Raises `ClientError`."""
        answer = await self._get("instruments", {"asset_class": asset_class})
        try:
            return [
                ListedInstrument(
                    symbol=item["symbol"],
                    provider=item["provider"],
                    asset_class=item["asset_class"],
                    base=item["base"],
                    quote=item["quote"],
                    intervals=tuple(item["intervals"]),
                    attribution=item.get("attribution") or "",
                )
                for item in answer
            ]
        except (AttributeError, KeyError, TypeError):
            raise self._bad_reply() from None

    async def status(self) -> dict[str, Any]:
        """Return what the relay says about itself; keys may be missing and new ones come. Raises `ClientError`."""
        answer = await self._get("status", {})
        if not isinstance(answer, dict):
            raise self._bad_reply()
        return answer

    async def _get(self, route: str, asked: Mapping[str, str | int | None]) -> Any:
        params = {name: str(value) for name, value in asked.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        url = self.url / _ROUTES / route
        try:
            async with self._http().get(url, params=params, headers=self._headers, timeout=timeout) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as fault:
            raise self._unreachable(fault) from None
        if answer.status != 200:
            raise self._refusal(answer.status, answer.headers, body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise self._bad_reply() from None

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    # -- what went wrong --------------------------------------------------------------------------------------------

    def _unreachable(self, fault: BaseException) -> Unreachable:
        if isinstance(fault, TimeoutError):
            reason = "no answer in time"
        elif isinstance(fault, OSError) and fault.strerror:
            # aiohttp names the address again in its message; the system's own words are shorter.
            cause = fault.os_error if isinstance(fault, aiohttp.ClientConnectorError) else fault
            reason = _system_words(cause)
        else:
            reason = str(fault) or type(fault).__name__
        return Unreachable(f"no relay reached at {self.url}: {reason}")

    def _bad_reply(self) -> BadReply:
        return BadReply(f"the answer from {self.url} is not one of a relay; is the address right?")

    def _refusal(self, status: int, headers: Mapping[str, str] | None, body: bytes) -> Refused:
        problem: Any = None
        with contextlib.suppress(orjson.JSONDecodeError):
            problem = orjson.loads(body)
        if not isinstance(problem, dict):
            problem = {}
        try:
            retry_after = max(0.0, float((headers or {}).get("Retry-After", "")))
        except ValueError:
            retry_after = None
        title = str(problem.get("title") or "")
        words = {
            401: f"the relay at {self.url} wants a valid token",
            403: f"the relay at {self.url} does not allow this client",
            429: f"too many connections or requests for the relay at {self.url}",
            503: f"the relay at {self.url} is full, starting or shutting down",
        }.get(status, f"{self.url} answered with HTTP status {status}; is it the address of a relay?")
        detail = str(problem.get("detail") or title or words)
        return Refused(status, str(problem.get("code") or ""), detail, title=title, retry_after=retry_after)


def parse_url(text: str) -> URL:
    """Return the address of a relay: `http` or `https`, without user, query and fragment. Raises ValueError."""
    text = text.strip()
    url = URL(text if "://" in text else f"http://{text}")
    scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
    if scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{text!r} is not an address such as {DEFAULT_URL}")
    return url.with_scheme(scheme).with_user(None).with_query(None).with_fragment(None)


def parse_stream(name: str | StreamKey) -> StreamKey:
    """Split `BTCUSDT@1m`; whether there is such a stream only the relay knows. Raises ValueError."""
    if isinstance(name, StreamKey):
        return name
    symbol, _, interval = name.rpartition("@")
    if not symbol or not interval:
        raise ValueError(f"stream {name!r} is not of the form SYMBOL@INTERVAL, for example BTCUSDT@1m")
    return StreamKey(symbol.upper(), interval)


def _folded(interval: str) -> str:
    # 1m is a minute and 1M a month; all other letters mean the same in both cases.
    return interval if interval.endswith("M") else interval.lower()


def _batches(names: Iterable[StreamKey] | Mapping[str, Any]) -> list[list[str]]:
    batches: list[list[str]] = []
    size = _NAME_BYTES_PER_REQUEST
    for name in map(str, names):
        length = len(orjson.dumps(name)) + 1
        if size + length > _NAME_BYTES_PER_REQUEST or len(batches[-1]) == _STREAMS_PER_REQUEST:
            batches.append([])
            size = 0
        batches[-1].append(name)
        size += length
    return batches


def _candle(value: Any) -> Candle:
    return Candle(
        time=int(value["time"]),
        open=float(value["open"]),
        high=float(value["high"]),
        low=float(value["low"]),
        close=float(value["close"]),
        volume=float(value.get("volume") or 0.0),
    )


def _missed(key: StreamKey, candle: Candle, *, is_closed: bool, seq: int | None) -> Update:
    wire: dict[str, Any] = {
        "type": "price_update",
        "symbol": key.symbol,
        "interval": key.interval,
        "candle": candle._asdict(),
        "is_closed": is_closed,
        "seq": seq,
        "ts_event": None,
    }
    if is_closed:
        wire["backfilled"] = True
    return Update(key, candle, is_closed, is_closed, False, None, seq, wire)


def _system_words(fault: OSError) -> str:
    # Asyncio and aiohttp put the address into `strerror`, so the plain words are looked up again.
    if fault.errno is not None and fault.errno > 0:
        return os.strerror(fault.errno).lower()
    return fault.strerror or str(fault)
