"""The simulated Twelve Data, currency pairs only: REST and the price WebSocket, on real loopback sockets."""

import asyncio
import time

import orjson
from aiohttp import web

from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection
from providers.sandbox.exchange import SimulatedExchange
from providers.sandbox.listings import Pair
from providers.sandbox.market import Market
from providers.sandbox.twelve_data_rest import TwelveDataRest

_STREAM_PATH = "/v1/quotes/price"


class SimulatedTwelveData(SimulatedExchange):
    """Behave like Twelve Data does for forex and metals; the defaults are the free plan's limits.

    Every `tick_every_s` the newest `most_ticks` of each pair are sent.
    """

    name = "twelve_data"
    rest_type = TwelveDataRest
    pings = False

    def __init__(
        self,
        market: Market,
        clock: SandboxClock,
        *,
        api_key: str = "sandbox-key",
        credits_per_minute: int = 8,
        credits_per_day: int = 800,
        stream_symbols: int = 8,
        stream_connections: int = 3,
        heartbeat_within_s: float = 60.0,
        tick_every_s: float = 0.25,
        most_ticks: int = 50,
    ) -> None:
        super().__init__(market, clock)
        self.stream_symbols = stream_symbols
        self.stream_connections = stream_connections
        self.heartbeat_within_s = heartbeat_within_s
        self.tick_every_s = tick_every_s
        self.most_ticks = most_ticks
        self.pong_within_s = heartbeat_within_s
        self.rest = self.rest_type(
            market, clock, api_key=api_key, credits_per_minute=credits_per_minute, credits_per_day=credits_per_day
        )

    @property
    def ws_url(self) -> str:
        """Give the whole address of the price WebSocket, as the relay's setting has it."""
        return super().ws_url + _STREAM_PATH

    @property
    def api_key(self) -> str:
        """Give the key that is accepted."""
        return self.rest.api_key

    # ---- connections --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._spawn(self._tick())

    def _is_stream_path(self, request: web.Request) -> bool:
        return request.path == _STREAM_PATH

    def _refusal(self, request: web.Request) -> web.Response | None:
        if not self.rest.knows_key(request):
            return web.Response(status=401)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400)
        return None

    def opened(self, connection: Connection) -> None:
        others = [one for one in self._open.values() if one is not connection]
        if len(others) >= self.stream_connections:
            others[0].close(1008, "Too many connections")

    def _closed(self, connection: Connection) -> None:
        connection.subscriptions.clear()

    def _gives_up_on(self, connection: Connection, now: float) -> bool:
        return now - connection.ponged >= self.heartbeat_within_s

    def received(self, connection: Connection, text: str) -> None:
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        action = request.get("action") if isinstance(request, dict) else None
        # Any request shows that the client lives; protocol pings do not.
        connection.ponged = time.monotonic()
        if action == "heartbeat":
            self.say(connection, {"event": "heartbeat", "status": "ok"})
        elif action == "reset":
            connection.subscriptions.clear()
            self.say(connection, {"event": "reset-status", "status": "ok"})
        elif action in ("subscribe", "unsubscribe"):
            params = request.get("params")
            wanted = _wanted(params.get("symbols") if isinstance(params, dict) else None)
            self.change(connection, action, wanted)
        else:
            self.say(
                connection,
                {"event": "error", "status": "error", "messages": ["Unknown or missing action in the request"]},
            )

    def change(self, connection: Connection, action: str, wanted: list[str]) -> None:
        """Subscribe or unsubscribe, and answer."""
        success: list[dict[str, str]] = []
        fails: list[dict[str, str]] = []
        for symbol in wanted:
            pair = self.market.forex.get(symbol.upper())
            if pair is None:
                fails.append({"symbol": symbol})
            elif action == "unsubscribe":
                connection.subscriptions.pop(pair.symbol, None)
                success.append(_entry(pair))
            elif pair.symbol not in connection.subscriptions and self._symbols_taken() >= self.stream_symbols:
                fails.append({"symbol": symbol, "message": "The limit of symbols of your plan is reached"})
            else:
                connection.subscriptions[pair.symbol] = None
                success.append(_entry(pair))
        status = "error" if not success else "warning" if fails else "ok"
        answer: dict[str, object] = {"event": f"{action}-status", "status": status}
        for name, entries in (("success", success), ("fails", fails)):
            if entries:
                answer[name] = entries
        self.say(connection, answer)

    def _symbols_taken(self) -> int:
        return sum(len(connection.subscriptions) for connection in self._open.values())

    def say(self, connection: Connection, message: dict[str, object]) -> None:
        """Answer a request."""
        connection.send(orjson.dumps(message))

    # ---- ticks --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Send the market's ticks as they happen, for ever."""
        before = self.now_ms()
        while True:
            await asyncio.sleep(self.tick_every_s)
            now = self.now_ms()
            for symbol in {name for connection in self._open.values() for name in connection.subscriptions}:
                self._send_ticks(symbol, before, now)
            before = now

    def _send_ticks(self, symbol: str, start: int, end: int) -> None:
        pair = self.market.forex[symbol]
        ticks = self.market.ticks(symbol, start, end)
        if not ticks and start // 60_000 != end // 60_000 and self._trickles(symbol, start, end):
            price = self.market.price_at(symbol, end)
            ticks = [(end, price + end // 60_000 % 3 * max(1, price // 90_000))]
        for at, price in ticks[-self.most_ticks :]:
            self.send_event(symbol, price_event(pair, price, at))

    def _trickles(self, symbol: str, start: int, end: int) -> bool:
        """Tell whether quotes near the last price come although the market is closed."""
        is_closed = not self.market.is_open(symbol, end)
        return is_closed and self.market.exists(symbol, start, end)

    def send_event(self, stream: str, event: dict[str, object]) -> None:
        """Send a price to its listeners."""
        raw = orjson.dumps(event)
        for connection in self.listeners(stream):
            connection.send(raw)

    # ---- REST ---------------------------------------------------------------------------------------------------

    def _rest_answer(self, request: web.Request) -> web.Response:
        return self.rest.answer(request)


def price_event(pair: Pair, price: int, at_ms: int) -> dict[str, object]:
    """Write one price as the WebSocket does."""
    scale = 10**pair.price_decimals
    spread = max(2, price // 40_000)
    return {
        "event": "price",
        "symbol": pair.symbol,
        "currency": pair.quote,
        "currency_base": pair.base_name,
        "currency_quote": pair.quote_name,
        "type": "Physical Currency",
        "timestamp": at_ms // 1000,
        "price": price / scale,
        "bid": (price - spread // 2) / scale,
        "ask": (price + spread - spread // 2) / scale,
    }


def _entry(pair: Pair) -> dict[str, str]:
    return {"symbol": pair.symbol, "exchange": "PHYSICAL CURRENCY", "type": "PHYSICAL_CURRENCY"}


def _wanted(symbols: object) -> list[str]:
    if isinstance(symbols, str):
        return [name.strip() for name in symbols.split(",") if name.strip()]
    if isinstance(symbols, list):
        names = [item.get("symbol") if isinstance(item, dict) else item for item in symbols]
        return [name for name in names if isinstance(name, str) and name]
    return []
