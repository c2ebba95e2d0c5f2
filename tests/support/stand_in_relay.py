"""The clients' side of a relay on loopback, for tests of the client: few streams, no providers, faults on demand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from socket import socket as Listener
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from relay.core.model import Candle, StreamKey
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.free_ports import free_port

STEP = {"1s": 1, "1m": 60, "1h": 3600, "1d": 86_400}


class StandInRelay:
    """Serves `markets`; `tick` and `close_candle` move them. What clients sent is in `requests` and `headers`."""

    def __init__(self) -> None:
        self.markets: dict[StreamKey, list[Candle]] = {}
        self.names: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.frame_sizes: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.queries: list[dict[str, str]] = []
        self.token = ""
        self.status: Any = {"version": "0.1.0", "uptime_s": 12.5}
        # Faults. `refuse` holds (error code, extra fields) by stream name, `handshake` a status for the next upgrades.
        self.refuse: dict[str, tuple[str, dict[str, Any]]] = {}
        self.handshake: int | None = None
        self.heartbeat_s = 20.0  # who does not answer a ping in half of it is dropped
        self.gate: asyncio.Event | None = None  # handshakes wait for it
        self.handshake_headers: dict[str, str] = {}
        self.problem: web.Response | None = None
        self.replays = 0
        self.is_complete = True
        self.gaps: list[tuple[int, int]] = []
        self.snapshot_fields: dict[str, Any] = {}
        self.is_mute = False
        self.sends_hello_time: int | None = None
        self.seq = 0
        self.attempts = 0
        self.connections = 0
        self.port = free_port()
        self._clients: dict[web.WebSocketResponse, dict[StreamKey, dict[str, Any]]] = {}
        self._transports: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._listeners: tuple[Listener, ...] = ()

    @property
    def clients(self) -> int:
        """How many are connected now."""
        return len(self._clients)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        routes = "/api/v1/market-data"
        app.router.add_get(f"{routes}/ws", self._socket)
        for name in ("history", "symbols", "instruments", "status"):
            app.router.add_get(f"{routes}/{name}", getattr(self, f"_{name}"))
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        assert isinstance(site._server, asyncio.Server)
        self._listeners = site._server.sockets

    async def stop(self, code: int = WSCloseCode.GOING_AWAY, reason: str = "server shutdown") -> None:
        """Close all clients and the port; `start` opens the same port again."""
        # In Python 3.11 a connection being accepted while its asyncio server closes is left open with nobody behind
        # it, so accepting ends first.
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        self._listeners = ()
        for _ in range(3):
            await asyncio.sleep(0)
        await self.drop(code, reason)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def drop(self, code: int, reason: str = "") -> None:
        for socket in list(self._clients):
            await socket.close(code=code, message=reason.encode())

    async def ping(self) -> None:
        for socket in list(self._clients):
            await socket.ping()

    def cut(self) -> None:
        """Lose all connections without a closing handshake."""
        for transport in self._transports.values():
            transport.abort()

    # -- the market -------------------------------------------------------------------------------------------------

    def open_market(self, name: str, start: int = 1_764_000_000, closed: int = 3) -> StreamKey:
        """Serve a stream with some closed candles and an open one, which is the last."""
        symbol, _, interval = name.rpartition("@")
        key = StreamKey(symbol, interval)
        self.markets[key] = [_candle(start + n * STEP[interval], 100.0 + n) for n in range(closed + 1)]
        return key

    async def tick(self, key: StreamKey, close: float) -> None:
        candle = self.markets[key][-1]
        high, low = max(candle.high, close), min(candle.low, close)
        self.markets[key][-1] = candle._replace(high=high, low=low, close=close, volume=candle.volume + 1)
        await self._publish(key, self.markets[key][-1], is_closed=False)

    async def close_candle(self, key: StreamKey) -> Candle:
        """Close the open candle and open the next one."""
        candles = self.markets[key]
        closed = candles[-1]
        candles.append(_candle(closed.time + STEP[key.interval], closed.close))
        await self._publish(key, closed, is_closed=True)
        await self._publish(key, candles[-1], is_closed=False)
        return closed

    async def _publish(self, key: StreamKey, candle: Candle, *, is_closed: bool, **marks: bool) -> None:
        self.seq += 1
        if self.is_mute:
            return
        for socket, streams in list(self._clients.items()):
            if key in streams and (is_closed or not streams[key].get("closed_only")):
                await _send(socket, self.update(key, candle, is_closed=is_closed, **marks))

    def update(self, key: StreamKey, candle: Candle, *, is_closed: bool, **marks: bool) -> dict[str, Any]:
        names = {"type": "price_update", "symbol": key.symbol, "interval": key.interval}
        state = {"candle": candle._asdict(), "is_closed": is_closed, "seq": self.seq, "ts_event": candle.time * 1000}
        return {**names, **state, **marks}

    async def say(self, message: dict[str, Any] | str) -> None:
        """Send anything to all clients."""
        for socket in list(self._clients):
            with contextlib.suppress(ConnectionError):
                await (socket.send_str(message) if isinstance(message, str) else _send(socket, message))

    async def wait_for_requests(self, count: int) -> None:
        async with asyncio.timeout(LONGEST_WAIT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    # -- protocol.md, section 3 -------------------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.attempts += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem_json(401, "unauthorized", "a valid token is needed")
        if self.handshake is not None:
            return web.Response(status=self.handshake, headers=self.handshake_headers)
        # A client that nobody iterates does not answer a close; tests need not wait for it.
        socket = web.WebSocketResponse(heartbeat=self.heartbeat_s, timeout=0.05)
        await socket.prepare(request)
        assert request.transport is not None
        self._transports[socket] = request.transport
        self.connections += 1
        self._clients[socket] = {}
        hello = {"type": "status", "status": "connected", "message": "welcome", "epoch": "e1"}
        now = self.sends_hello_time or 1_764_000_200
        await _send(socket, {**hello, "server_time": now, "limits": {"streams": 200, "message_bytes": 4096}})
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self.frame_sizes.append(len(frame.data.encode()))
                    await self._answer(socket, frame.json())
        except ConnectionError:
            pass
        finally:
            del self._clients[socket], self._transports[socket]
        return socket

    async def _answer(self, socket: web.WebSocketResponse, request: dict[str, Any]) -> None:
        names = request.get("streams") or [f"{request['symbol']}@{request['interval']}"]
        for name in names:
            symbol, _, interval = name.rpartition("@")
            symbol = symbol.upper().rpartition(":")[2]
            key = StreamKey(symbol, interval if interval.endswith("M") else interval.lower())
            wire = {"symbol": symbol, "interval": key.interval}
            if "id" in request:
                wire["id"] = request["id"]
            if request["action"] == "unsubscribe" and key not in self._clients[socket]:
                await _send(socket, {"type": "error", "code": "not_subscribed", "message": f"no {symbol}", **wire})
                continue
            if name in self.refuse or key not in self.markets:
                code, extra = self.refuse.get(name, ("unknown_symbol", {}))
                await _send(socket, {"type": "error", "code": code, "message": f"no {symbol}", **wire, **extra})
                continue
            await _send(socket, {"type": "subscription", "action": request["action"], "status": "ok", **wire})
            if request["action"] == "unsubscribe":
                self._clients[socket].pop(key, None)
                continue
            self._clients[socket][key] = request
            await self._send_past(socket, key, request)
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    async def _send_past(self, socket: web.WebSocketResponse, key: StreamKey, request: dict[str, Any]) -> None:
        candles = self.markets[key]
        closed_only = bool(request.get("closed_only"))
        bars, since = request.get("bars"), request.get("since")
        if bars is None and since is None:
            if not closed_only:
                await _send(socket, self.update(key, candles[-1], is_closed=False))
            return
        chosen = candles[:-1] if closed_only else candles
        if since is not None:
            first = next((n for n, candle in enumerate(chosen) if candle.time > since), len(chosen))
            chosen = chosen[max(0, first - self.replays) :]
        if bars is not None:
            chosen = chosen[len(chosen) - bars :] if bars < len(chosen) else chosen
        for start, end in self.gaps:
            gap = {"symbol": key.symbol, "interval": key.interval, "from": start, "to": end, "reason": "lost"}
            await _send(socket, {"type": "gap", **gap})
        past = {"candles": [candle._asdict() for candle in chosen], "last_is_closed": closed_only, "seq": self.seq}
        names = {"symbol": key.symbol, "interval": key.interval}
        await _send(socket, {"type": "snapshot", **names, **past, "complete": self.is_complete, **self.snapshot_fields})

    # -- protocol.md, section 4 -------------------------------------------------------------------------------------

    def _checked(self, request: web.Request) -> web.Response | None:
        self.headers.append(dict(request.headers))
        self.queries.append(dict(request.query))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem_json(401, "unauthorized", "a valid token is needed")
        return self.problem

    async def _history(self, request: web.Request) -> web.Response:
        if refused := self._checked(request):
            return refused
        key = StreamKey(request.query["symbol"].upper(), request.query["interval"])
        if key not in self.markets:
            return problem_json(404, "unknown_symbol", f"unknown symbol '{key.symbol}'; see …/symbols")
        all_of_them = self.markets[key]
        end = int(request.query.get("end_time", str(all_of_them[-1].time)))
        candles = [c for c in all_of_them if c.time <= end][-int(request.query.get("limit", "500")) :]
        names = {"symbol": key.symbol, "interval": key.interval}
        last_is_closed = end < all_of_them[-1].time
        return web.json_response({**names, "candles": [c._asdict() for c in candles], "last_is_closed": last_is_closed})

    async def _symbols(self, request: web.Request) -> web.Response:
        return self._checked(request) or web.json_response(sorted({key.symbol for key in self.markets}))

    async def _instruments(self, request: web.Request) -> web.Response:
        detail = {"provider": "demo", "asset_class": "crypto", "base": "BTC", "quote": "USDT", "intervals": ["1m"]}
        items = [
            {"symbol": key.symbol, **detail, "attribution": "Demo", "name": self.names.get(key.symbol)}
            for key in self.markets
        ]
        return self._checked(request) or web.json_response(items)

    async def _status(self, request: web.Request) -> web.Response:
        return self._checked(request) or web.json_response(self.status)


def _candle(time: int, price: float) -> Candle:
    return Candle(time=time, open=price, high=price + 1, low=price - 1, close=price + 0.5, volume=10.0)


async def _send(socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError):
        if not socket.closed:
            await socket.send_json(message)


def problem_json(status: int, code: str, detail: str, **headers: str) -> web.Response:
    """Return an answer as protocol.md section 4 has it for errors."""
    body = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail, "code": code}
    return web.json_response(body, status=status, headers=headers, content_type="application/problem+json")


@contextlib.asynccontextmanager
async def serving(start: int) -> AsyncIterator[StandInRelay]:
    """Serve `BTCUSDT@1m`: three closed candles from `start` on, and the open one."""
    relay = StandInRelay()
    relay.open_market("BTCUSDT@1m", start, closed=3)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()
