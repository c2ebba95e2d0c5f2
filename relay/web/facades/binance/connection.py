"""A client that speaks Binance's WebSocket protocol: its requests in order, its streams by their names there.

web-socket-streams.md in https://github.com/binance/binance-spot-api-docs, "Live Subscribing/Unsubscribing to streams",
has requests, answers and errors; that clients get errors nested is from recordings.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import orjson
from aiohttp import web

from relay.core.errors import CloseCode, Code, RequestError
from relay.core.rate_limits import TokenBucket
from relay.protocol import frames
from relay.protocol.client_requests import SubscribeOptions
from relay.protocol.fields import shown
from relay.streams.subscriptions import Stream
from relay.web.facades.binance.kline_events import KLINE_EVENTS
from relay.web.facades.binance.lacking_texts import recorded_intervals, why_no_texts
from relay.web.facades.binance.stream_names import NameKind, StreamName, stream_name
from relay.web.facades.binance.venue_markets import SPOT, USDM, USDM_STREAMS, VenueMarket, no_provider
from relay.web.facades.facade import without_token
from relay.web.ws.aiohttp_connection import AiohttpConnection
from relay.web.ws.connection import INVALID_BURST, INVALID_RATE, STREAMS_PER_REQUEST, Connection, Rest
from relay.web.ws.direct_connection import DirectConnection

MESSAGE_BYTES = 64 * 1024
"""Room for the names of all streams that a connection may have: programs send 350 and more in one message."""
STREAMS = 1024
"""web-socket-streams.md, "Websocket Limits": so many streams may one connection have."""
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_COUNTED_AS = {"SUBSCRIBE": "subscribe", "UNSUBSCRIBE": "unsubscribe", "LIST_SUBSCRIPTIONS": "list"}
UNKNOWN_PROPERTY, NO_BOOLEAN, INVALID, NO_JSON = 0, 1, 2, 3
_LONGEST_ID = 36
_KLINES_ONLY = "Invalid request: this relay has klines in UTC only, streams such as btcusdt@kline_1m, and not {}"


class VenueFault(Exception):
    """What a client asked cannot be done; `code` and text are Binance's where it would say the same."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BinanceConnection(Connection):
    """One client, whatever reads its frames. `_names` are its streams by name; None is one without any updates.

    `_market` is that of the streams, `_form` says how their events are written.
    """

    _names: dict[str, Stream | None]
    _market: VenueMarket
    _form: tuple[bool, bool]
    message_bytes: ClassVar[int] = MESSAGE_BYTES
    usual_streams: ClassVar[int] = STREAMS

    def begin(self, request: web.Request) -> Rest | None:
        """Subscribe to the streams that the address names."""
        path = without_token(request.path)
        self._market = USDM if path.startswith(USDM_STREAMS) else SPOT
        path = path.removeprefix(USDM_STREAMS)
        unit = request.query.get("timeUnit", "")
        is_combined = path.startswith("/stream")
        self._form = (is_combined, unit in ("MICROSECOND", "microsecond"))
        self._names = {}
        given = request.query.get("streams", "") if is_combined else path.partition("/ws/")[2]
        # Some programs connect with a number, which names no stream.
        names = [name for name in given.split("/") if "@" in name or name.startswith("!")]
        if not names:
            return None
        names = [*dict.fromkeys(names)]
        self._spend_on(len(names))
        return partial(self._subscribe_later, names, None, is_asked=False)

    def _spend_on(self, streams: int) -> None:
        if more := streams // STREAMS_PER_REQUEST:
            self._requests.spend(more)

    # -- requests ----------------------------------------------------------------------------------

    def _on_text(self, text: str) -> Rest | None:
        if self._is_too_big(text):
            self.end(CloseCode.TOO_BIG, "message too big")
            return None
        identity: object = None
        try:
            request = _parsed(text)
            identity = _identity_of(request)
            method, params = _method_of(request), request.get("params")
            if method in _COUNTED_AS:
                self._all_of_them.requests[_COUNTED_AS[method]] += 1
            if method == "SUBSCRIBE":
                names = [name for name in self._names_in(params, are_repeated=True) if name not in self._names]
                return partial(self._subscribe_later, names, identity)
            self._say({"result": self._result(method, params), "id": identity})
        except VenueFault as fault:
            self._count_invalid()
            self._answer_fault(fault, identity)
        return None

    def _result(self, method: str, params: object) -> object:
        """Do at once what a request other than SUBSCRIBE wants. Raises `VenueFault`."""
        if method == "UNSUBSCRIBE":
            self._leave(self._names_in(params))
            return None
        if method == "LIST_SUBSCRIPTIONS":
            if params:
                raise VenueFault(INVALID, "Invalid request: too many parameters")
            return [*self._names]
        return self._property(method, params)

    def _property(self, method: str, params: object) -> object:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            raise VenueFault(INVALID, "Invalid request: property name must be a string")
        if len(params) > wanted:
            raise VenueFault(INVALID, "Invalid request: too many parameters")
        if params[0] != "combined":
            raise VenueFault(UNKNOWN_PROPERTY, "Unknown property")
        if method == "GET_PROPERTY":
            return self._form[0]
        if len(params) < wanted or not isinstance(params[1], bool):
            raise VenueFault(NO_BOOLEAN, "Invalid value type: expected Boolean")
        if self._form[0] != params[1]:
            self._form = (params[1], self._form[1])
            self._spend_on(len(self._names))
            for stream in {stream: None for stream in self._names.values() if stream is not None}:
                self._context.hub.subscribe(self.subscriber, stream, self._options)
        return None

    def _names_in(self, params: object, *, are_repeated: bool = False) -> list[str]:
        """Return the stream names of a request, each once, and count them. Raises `VenueFault` for what is none.

        Those that the client has cost nothing if they `are_repeated`: programs name all of them for each stream more.
        """
        if not isinstance(params, list) or not params:
            raise VenueFault(INVALID, "Invalid request: missing field `params`")
        others = [name for name in params if not (isinstance(name, str) and name in self._names)]
        self._spend_on(len(others if are_repeated else params))
        for name in others:
            if stream_name(name).kind is NameKind.NOTHING:
                raise VenueFault(INVALID, "Invalid request: invalid stream")
        return [*dict.fromkeys(params)]

    def _leave(self, names: Iterable[str]) -> None:
        left = {self._names.pop(name, None) for name in names}
        for stream in left.difference(self._names.values()):
            if stream is not None:
                self._subscribing.leave(stream)

    @property
    def _options(self) -> SubscribeOptions:
        return SubscribeOptions(form=KLINE_EVENTS[self._form])

    # -- subscribing -------------------------------------------------------------------------------

    async def _subscribe_later(self, names: Sequence[str], identity: object, *, is_asked: bool = True) -> None:
        try:
            await self._subscribe(names)
            if is_asked:
                self._say({"result": None, "id": identity})
        except VenueFault as fault:
            self._answer_fault(fault, identity)
        except Exception:  # noqa: BLE001  a fault of ours ends one request, never the connection
            self._on_failure()

    async def _subscribe(self, names: Sequence[str]) -> None:
        """Join streams: all of them, or none where one cannot be had. Raises `VenueFault`."""
        wanted = {name: stream_name(name) for name in names if name not in self._names}
        for name, parsed in wanted.items():
            if parsed.kind is NameKind.OTHER:
                raise VenueFault(INVALID, _KLINES_ONLY.format(shown(name)))
        self._check_room(len(wanted))
        joined: list[str] = []
        try:
            for name, parsed in wanted.items():
                await self._context.work_budget.acquire()
                self._names[name] = await self._stream_of(parsed)
                joined.append(name)
        except RequestError as error:
            self._leave(joined)
            raise VenueFault(INVALID, f"Invalid request: {error.message}") from None

    async def _stream_of(self, parsed: StreamName) -> Stream | None:
        """Join a stream; None where nobody lists it: then it is silent, as there. Raises `RequestError`."""
        provider, directory = self._market.provider, self._context.directory
        if provider not in self._context.supervisors:
            raise RequestError(Code.PROVIDER_UNAVAILABLE, no_provider(self._market))
        if not parsed.symbol:
            return None
        await directory.settled(provider, parsed.symbol, [self.caller.client])
        source = self._context.supervisors[provider].provider
        info = source.info
        instrument = directory.instrument(provider, parsed.symbol)
        if instrument is not None and (why := why_no_texts(source, instrument)):
            raise RequestError(Code.UNSUPPORTED_INTERVAL, why)
        intervals = () if instrument is None else instrument.intervals or info.intervals
        if parsed.interval not in intervals:
            if info.is_recorded:
                # Binance may have it: there it would not be silent.
                why = recorded_intervals(parsed.symbol, intervals) if intervals else "this recording does not have it"
                raise RequestError(Code.UNSUPPORTED_INTERVAL, why)
            return None
        if self._is_ended:
            return None
        target = directory.resolve(provider, parsed.symbol, parsed.interval)
        return self._subscribing.follow(target, self._options)

    def _check_room(self, count: int) -> None:
        """Refuse more names than a client may have streams, also such without a stream. Raises `VenueFault`."""
        most = self._context.access.most_streams(self.usual_streams)
        if len(self._names) + count > most:
            said = f"this connection has {len(self._names)} streams, and may have {most}; {count} more are too many"
            raise VenueFault(INVALID, f"Invalid request: {said}")

    # -- answers -----------------------------------------------------------------------------------

    def _say(self, message: dict[str, Any]) -> None:
        self._send(frames.frame(orjson.dumps(message)))

    def _answer_fault(self, fault: VenueFault, identity: object) -> None:
        self._say({"error": {"code": fault.code, "msg": str(fault)}, "id": identity})

    def _count_invalid(self) -> None:
        self._all_of_them.requests["invalid"] += 1
        if self._invalid is None:
            self._invalid = TokenBucket(INVALID_RATE, INVALID_BURST)
        if not self._invalid.try_acquire():
            self.end(CloseCode.TOO_MANY_INVALID, "too many invalid messages")

    def _on_invalid(self, error: RequestError, request_id: str | int | None) -> None:
        self._answer_fault(VenueFault(INVALID, f"Invalid request: {error.message}"), request_id)
        self._count_invalid()

    def _refuse(self, error: RequestError, *request_ids: str | int | None) -> None:
        super()._refuse(error)
        for request_id in request_ids or (None,):
            self._answer_fault(VenueFault(INVALID, f"Invalid request: {error.message}"), request_id)


class DirectBinanceConnection(BinanceConnection, DirectConnection):
    """One whose frames the relay reads itself."""


class AiohttpBinanceConnection(BinanceConnection, AiohttpConnection):
    """One whose frames aiohttp reads."""


def _parsed(text: str) -> dict[str, Any]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise VenueFault(NO_JSON, f"Invalid JSON: expected value at {where}") from None
    if not isinstance(request, dict):
        raise VenueFault(INVALID, "Invalid request: request must be an object")
    return request


def _identity_of(request: dict[str, Any]) -> object:
    identity = request.get("id")
    is_number = type(identity) is int and -(2**63) <= identity < 2**63
    # Binance's own client sends UUIDs with hyphens.
    is_text = (
        isinstance(identity, str)
        and len(identity) <= _LONGEST_ID
        and all(one.isalnum() or one in "-_" for one in identity)
    )
    if identity is None or is_number or is_text:
        return identity
    raise VenueFault(INVALID, "Invalid request: request ID must be an integer, a short string or null")


def _method_of(request: dict[str, Any]) -> str:
    if "method" not in request:
        raise VenueFault(INVALID, "Invalid request: missing field `method`")
    method = request["method"]
    if method not in METHODS:
        said, names = shown(method).strip("'"), ", ".join(f"`{name}`" for name in METHODS)
        raise VenueFault(INVALID, f"Invalid request: unknown variant `{said}`, expected one of {names}")
    return str(method)
