"""The simulated Binance spot: kline streams and the public REST calls, on real loopback sockets."""

from collections.abc import Iterable

import orjson
from aiohttp import web

from providers.sandbox.binance_books import BookStreams
from providers.sandbox.binance_klines import in_microseconds, parse_stream
from providers.sandbox.binance_rest import BinanceRest
from providers.sandbox.binance_streams import KlineStreams
from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection
from providers.sandbox.exchange import SimulatedExchange
from providers.sandbox.market import Market

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_MOST_STREAMS = 1024
"""web-socket-streams.md, "Websocket Limits"."""


class SimulatedBinance(SimulatedExchange):
    """Behave like Binance spot does today. `pace_s` are the real seconds between two events of an open candle."""

    name = "binance"
    rest_type = BinanceRest
    streams_type = KlineStreams
    has_books = True

    def __init__(
        self,
        market: Market,
        clock: SandboxClock,
        *,
        pace_s: float = 2.0,
        weight_limit: int = 6000,
        ban_after: int = 10,
        ban_s: float = 120.0,
        messages_per_second: int | None = 5,
        ping_every_s: float = 20.0,
        pong_within_s: float = 60.0,
        connection_life_s: float = 24 * 3600.0,
    ) -> None:
        super().__init__(market, clock)
        self.messages_per_second = messages_per_second
        self.largest_frame = 4096
        self.ping_every_s = ping_every_s
        self.pong_within_s = pong_within_s
        self.connection_life_s = connection_life_s
        self.rest = self.rest_type(market, clock, weight_limit=weight_limit, ban_after=ban_after, ban_s=ban_s)
        self.streams = self.streams_type(market, clock, self.send_event, pace_s=pace_s)
        self.books = BookStreams(self.rest.tickers.book, self.send_book)

    # ---- connections --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._spawn(self.streams.run())
        self._spawn(self.books.run())

    def stream_path(self, request: web.Request) -> str:
        """Give the path of a request without what stands before `/ws` and `/stream`."""
        return request.path

    def is_name(self, name: str) -> bool:
        """Tell whether a stream can be called so."""
        return parse_stream(name) is not None

    def _is_stream_path(self, request: web.Request) -> bool:
        path = self.stream_path(request)
        return path in ("/ws", "/stream") or path.startswith(("/ws/", "/stream/"))

    def _refusal(self, request: web.Request) -> web.Response | None:
        return None if request.headers.get("Upgrade", "").lower() == "websocket" else web.Response(status=400)

    def opened(self, connection: Connection) -> None:
        request, path = connection.request, self.stream_path(connection.request)
        connection.combined = path.startswith("/stream")
        connection.microseconds = request.query.get("timeUnit", "") in ("MICROSECOND", "microsecond")
        names: list[str] = []
        if connection.combined:
            names = [name for name in request.query.get("streams", "").split("/") if name]
        elif path.startswith("/ws/"):
            names = path[4:].split("/")
        # Some programs connect with a number, which names no stream.
        self._subscribe(connection, [name for name in names if not name.isdigit() and self.is_name(name)])

    def _closed(self, connection: Connection) -> None:
        for name in connection.subscriptions:
            self._leave(name, connection)

    def _leave(self, name: str, connection: Connection) -> None:
        self.streams.leave(name, connection.number)
        self.books.leave(name, connection.number)

    def _subscribe(self, connection: Connection, names: Iterable[str]) -> bool:
        added = [name for name in dict.fromkeys(names) if name not in connection.subscriptions]
        if len(connection.subscriptions) + len(added) > _MOST_STREAMS:
            return False
        for name in added:
            connection.subscriptions[name] = None
            self.streams.join(name, connection.number)
            if self.has_books:
                self.books.join(name, connection.number)
        return True

    def send_event(self, stream: str, event: dict[str, object]) -> None:
        """Send a kline event of a stream to its listeners."""
        self._send(stream, event)

    def send_book(self, stream: str, book: dict[str, object]) -> None:
        """Send an order book to the listeners of a stream."""
        self._send(stream, book)

    def _send(self, stream: str, event: dict[str, object]) -> None:
        """Send an event to the listeners of a stream, encoded once for all that want it in the same form."""
        frames: dict[tuple[bool, bool], bytes] = {}
        for connection in self.listeners(stream):
            shape = (connection.combined, connection.microseconds)
            if shape not in frames:
                frames[shape] = frame(connection, stream, event)
            connection.send(frames[shape])

    # ---- control messages ---------------------------------------------------------------------------------------

    def received(self, connection: Connection, text: str) -> None:
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            where = f"line {error.lineno} column {error.colno}"
            self.fail(connection, 3, f"Invalid JSON: expected value at {where}", None)
            return
        if not isinstance(request, dict):
            self.fail(connection, 2, "Invalid request: request must be an object", None)
            return
        identity = request.get("id")
        if not _is_id(identity):
            self.fail(connection, 2, "Invalid request: request ID must be an integer, a short string or null", None)
            return
        if "method" not in request:
            self.fail(connection, 2, "Invalid request: missing field `method`", identity)
            return
        method, params = request["method"], request.get("params")
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            self.change(connection, method, params, identity)
        elif method == "LIST_SUBSCRIPTIONS":
            if params:
                self.fail(connection, 2, "Invalid request: too many parameters", identity)
            else:
                self._succeed(connection, list(connection.subscriptions), identity)
        elif method in ("SET_PROPERTY", "GET_PROPERTY"):
            self._property(connection, method, params, identity)
        else:
            names = ", ".join(f"`{name}`" for name in _METHODS)
            message = f"Invalid request: unknown variant `{method}`, expected one of {names}"
            self.fail(connection, 2, message, identity)

    def change(self, connection: Connection, method: str, params: object, identity: object) -> None:
        """Subscribe or unsubscribe, and answer."""
        if not isinstance(params, list) or not params:
            self.fail(connection, 2, "Invalid request: missing field `params`", identity)
            return
        if not all(isinstance(name, str) and self.is_name(name) for name in params):
            self.fail(connection, 2, "Invalid request: invalid stream", identity)
            return
        if method == "SUBSCRIBE":
            if not self._subscribe(connection, params):
                self.refuse_more(connection, identity)
                return
        else:
            for name in params:
                if connection.subscriptions.pop(name, self) is None:
                    self._leave(name, connection)
        self._succeed(connection, None, identity)

    def refuse_more(self, connection: Connection, identity: object) -> None:
        """Refuse more streams than a connection may have."""
        message = f"Invalid request: too many streams, at most {_MOST_STREAMS} on a connection"
        self.fail(connection, 2, message, identity)

    def _property(self, connection: Connection, method: str, params: object, identity: object) -> None:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            self.fail(connection, 2, "Invalid request: property name must be a string", identity)
        elif len(params) > wanted:
            self.fail(connection, 2, "Invalid request: too many parameters", identity)
        elif params[0] != "combined":
            self.fail(connection, 0, "Unknown property", identity)
        elif method == "GET_PROPERTY":
            self._succeed(connection, connection.combined, identity)
        elif len(params) < 2 or not isinstance(params[1], bool):
            self.fail(connection, 1, "Invalid value type: expected Boolean", identity)
        else:
            connection.combined = params[1]
            self._succeed(connection, None, identity)

    def _succeed(self, connection: Connection, result: object, identity: object) -> None:
        connection.send(orjson.dumps({"result": result, "id": identity}))

    def fail(self, connection: Connection, code: int, message: str, identity: object) -> None:
        """Answer a request with an error."""
        connection.send(orjson.dumps({"error": {"code": code, "msg": message}, "id": identity}))

    # ---- REST ---------------------------------------------------------------------------------------------------

    def _rest_answer(self, request: web.Request) -> web.Response:
        return self.rest.answer(request)


def frame(connection: Connection, stream: str, event: dict[str, object]) -> bytes:
    """Encode an event in the form that a connection asked for."""
    content = in_microseconds(event) if connection.microseconds else event
    return orjson.dumps({"stream": stream, "data": content} if connection.combined else content)


def _is_id(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    # The vendor's own client sends UUIDs with hyphens, so these pass.
    return isinstance(value, str) and len(value) <= 36 and all(c.isalnum() or c in "-_" for c in value)
