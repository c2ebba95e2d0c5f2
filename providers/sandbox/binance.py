"""A stand-in for Binance spot: kline streams and the public REST calls, on real loopback sockets."""

import asyncio
import time
from collections.abc import Iterable, Sequence

import orjson
from aiohttp import web

from providers.sandbox.binance_rest import BinanceRest
from providers.sandbox.binance_rows import parse_stream
from providers.sandbox.binance_streams import Closings, KlineStreams
from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection
from providers.sandbox.listings import Pair
from providers.sandbox.market import Market
from providers.sandbox.standin import StandIn

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_MOST_STREAMS = 1024
_MOST_CONNECTS = 300
_CONNECTS_WITHIN_S = 300.0


class BinanceStandIn(StandIn):
    """Behave like Binance spot does today; see `faults` for how it can be made not to.

    `pace_s` are the real seconds between two events of an open candle. `closings` is "all" (each subscribed stream
    gets its closing event 5 ms after the candle) or "traded" (only after trades, and late, as in 2021).
    """

    name = "binance"

    def __init__(
        self,
        market: Market | None = None,
        clock: SandboxClock | None = None,
        *,
        pace_s: float = 2.0,
        closings: Closings = "all",
        weight_limit: int = 6000,
        ban_after: int = 10,
        ban_s: float = 120.0,
        messages_per_second: int | None = 5,
        connects_enforced: bool = False,
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
        self.connects_enforced = connects_enforced
        self.rest = BinanceRest(self.market, self.clock, weight_limit=weight_limit, ban_after=ban_after, ban_s=ban_s)
        self.streams = KlineStreams(self.market, self.clock, self.faults, pace_s=pace_s, closings=closings)

    # ---- what tests and the sandbox tell it ---------------------------------------------------------------------

    def add_symbols(self, symbols: Iterable[Pair | str]) -> None:
        """List more pairs, as `Pair` or as bare names with invented properties."""
        self.market.add_symbols(symbols)

    def set_status(self, symbol: str, status: str) -> None:
        """Change a pair's trading status (TRADING, HALT, BREAK …); unless it trades its streams fall silent."""
        self.market.crypto[symbol] = self.market.crypto[symbol]._replace(status=status)

    def hide(self, symbol: str, start: float, end: float) -> None:
        """Make the market of a span (Unix seconds) not exist, as in an outage: no candles, no events, no volume."""
        self.market.hide(symbol, round(start * 1000), round(end * 1000))

    def serve_rows(self, symbol: str, interval: str, rows: Sequence[Sequence[object]]) -> None:
        """Answer klines of a symbol and interval from these raw 12-element rows instead of the market."""
        if symbol not in self.market.crypto:
            self.market.add_symbols([symbol])
        self.rest.serve_rows(symbol, interval, rows)

    def inject(self, stream: str, /, **fields: object) -> None:
        """Send an event on a stream now: the forming candle, with the `k` fields given here put over it.

        It is sent even while the stream is muted. `E` sets the event time. With `t` the event starts from the true
        candle that opens then, so a closed candle is revised by `inject("btcusdt@kline_1m", t=…, c="1.0")`.
        """
        self.streams.inject(stream, fields)

    def announce_shutdown(self, close_after_s: float | None = None) -> None:
        """Send `serverShutdown` on every connection; with a time, close them all that much later."""
        stamp = self.now_ms()
        raw = orjson.dumps({"e": "serverShutdown", "E": stamp})
        wrapped = orjson.dumps({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": stamp}})
        for connection in self._open.values():
            connection.send(wrapped if connection.combined else raw)
        if close_after_s is not None:
            numbers = list(self._open)
            self._spawn(self._close_later(numbers, close_after_s))

    async def _close_later(self, numbers: list[int], seconds: float) -> None:
        await asyncio.sleep(seconds)
        for number in numbers:
            if (connection := self._open.get(number)) is not None:
                connection.close(1001, "Server shutdown")

    # ---- connections --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._spawn(self.streams.run())

    def _is_stream_path(self, request: web.Request) -> bool:
        path = request.path
        return path in ("/ws", "/stream") or path.startswith(("/ws/", "/stream/"))

    def _admit(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400)
        recent = [connect for connect in self.connect_log if connect.time > time.monotonic() - _CONNECTS_WITHIN_S]
        if self.connects_enforced and len(recent) >= _MOST_CONNECTS:
            return web.Response(status=429)
        return None

    def _opened(self, connection: Connection) -> None:
        request = connection.request
        connection.combined = request.path.startswith("/stream")
        connection.microseconds = request.query.get("timeUnit", "") in ("MICROSECOND", "microsecond")
        names: list[str] = []
        if connection.combined:
            names = [name for name in request.query.get("streams", "").split("/") if name]
        elif request.path.startswith("/ws/"):
            names = [name for name in request.path[4:].split("/") if parse_stream(name) is not None]
        self._subscribe(connection, [name for name in names if parse_stream(name) is not None])
        if names:
            self.subscribed_first(connection)

    def _closed(self, connection: Connection) -> None:
        for name in connection.subscriptions:
            self.streams.leave(name, connection)

    def _subscribe(self, connection: Connection, names: Iterable[str]) -> bool:
        added = [name for name in dict.fromkeys(names) if name not in connection.subscriptions]
        if len(connection.subscriptions) + len(added) > _MOST_STREAMS:
            return False
        for name in added:
            connection.subscribe(name)
            self.streams.join(name, connection)
        return True

    # ---- control messages ---------------------------------------------------------------------------------------

    def _received(self, connection: Connection, text: str) -> None:
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            where = f"line {error.lineno} column {error.colno}"
            self._fail(connection, 3, f"Invalid JSON: expected value at {where}", None)
            return
        if not isinstance(request, dict):
            self._fail(connection, 2, "Invalid request: request must be an object", None)
            return
        identity = request.get("id")
        if not _is_id(identity):
            self._fail(connection, 2, "Invalid request: request ID must be an integer, a short string or null", None)
            return
        if "method" not in request:
            self._fail(connection, 2, "Invalid request: missing field `method`", identity)
            return
        method, params = request["method"], request.get("params")
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            self._change(connection, method, params, identity)
        elif method == "LIST_SUBSCRIPTIONS":
            if params:
                self._fail(connection, 2, "Invalid request: too many parameters", identity)
            else:
                self._succeed(connection, list(connection.subscriptions), identity)
        elif method in ("SET_PROPERTY", "GET_PROPERTY"):
            self._property(connection, method, params, identity)
        else:
            names = ", ".join(f"`{name}`" for name in _METHODS)
            message = f"Invalid request: unknown variant `{method}`, expected one of {names}"
            self._fail(connection, 2, message, identity)

    def _change(self, connection: Connection, method: str, params: object, identity: object) -> None:
        if not isinstance(params, list) or not params:
            self._fail(connection, 2, "Invalid request: missing field `params`", identity)
            return
        if not all(isinstance(name, str) and parse_stream(name) is not None for name in params):
            self._fail(connection, 2, "Invalid request: invalid stream", identity)
            return
        if method == "SUBSCRIBE":
            refusal = self.faults.subscription_refusal()
            if refusal is not None:
                self._fail(connection, 2, refusal, identity)
                return
            if not self._subscribe(connection, params):
                message = f"Invalid request: too many streams, at most {_MOST_STREAMS} on a connection"
                self._fail(connection, 2, message, identity)
                return
        else:
            for name in params:
                if connection.subscriptions.pop(name, self) is None:
                    self.streams.leave(name, connection)
        self._succeed(connection, None, identity)
        if method == "SUBSCRIBE":
            self.subscribed_first(connection)

    def _property(self, connection: Connection, method: str, params: object, identity: object) -> None:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            self._fail(connection, 2, "Invalid request: property name must be a string", identity)
        elif len(params) > wanted:
            self._fail(connection, 2, "Invalid request: too many parameters", identity)
        elif params[0] != "combined":
            self._fail(connection, 0, "Unknown property", identity)
        elif method == "GET_PROPERTY":
            self._succeed(connection, connection.combined, identity)
        elif len(params) < 2 or not isinstance(params[1], bool):
            self._fail(connection, 1, "Invalid value type: expected Boolean", identity)
        else:
            connection.combined = params[1]
            self._succeed(connection, None, identity)

    def _succeed(self, connection: Connection, result: object, identity: object) -> None:
        connection.send(orjson.dumps({"result": result, "id": identity}))

    def _fail(self, connection: Connection, code: int, message: str, identity: object) -> None:
        connection.send(orjson.dumps({"error": {"code": code, "msg": message}, "id": identity}))

    # ---- REST ---------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> tuple[web.Response, int]:
        return self.rest.answer(request)


def _is_id(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    # The vendor's own client sends UUIDs with hyphens, so these pass.
    return isinstance(value, str) and len(value) <= 36 and all(c.isalnum() or c in "-_" for c in value)
