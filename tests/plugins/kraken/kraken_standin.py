"""A stand-in for Kraken on loopback: two pairs with made-up prices, over real sockets, in Kraken's formats."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

from aiohttp import WSMsgType, web

MINUTES = (1, 5, 15, 30, 60, 240, 1440, 10_080, 21_600)
STEPS = {"pair_decimals": 3, "lot_decimals": 8, "tick_size": "0.001"}


def pair(altname, base, status="online", **more):
    return {"altname": altname, "base": base, "quote": "ZUSD", "status": status, **STEPS, **more}


PAIRS = {
    "XXBTZUSD": pair("XBTUSD", "XXBT", wsname="XBT/USD"),
    "XETHZUSD": pair("ETHUSD", "XETH", wsname="ETH/USD"),
    "OLDUSD": pair("OLDUSD", "OLD", "cancel_only", wsname="OLD/USD"),
    "XBTUSD.d": pair("XBTUSD.d", "XXBT"),
}
SYMBOLS = ("BTC/USD", "ETH/USD")
DAY_S = 86_400


def text_of(moment, digits=9):
    """Write a time as Kraken does."""
    fraction = f"{moment % 1:.{digits}f}"[1:]
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


class Kraken:
    """Use it with `async with`. `skip(seconds)` moves its clock on; `errors` are what REST answers instead.

    With a `status` REST answers that one, with `headers` and a text that is no JSON.
    """

    def __init__(self, pace_s=0.1):
        self.pace_s = pace_s
        self.ahead_s = 0.0
        self.pairs = dict(PAIRS)
        self.errors = []
        self.status = 200
        self.headers = {}
        self.asked = []
        self.messages = []
        self._moved = asyncio.Event()
        app = web.Application()
        app.add_routes(
            [
                web.get("/v2", self._serve),
                web.get("/0/public/OHLC", self._ohlc),
                web.get("/0/public/AssetPairs", self._pairs),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def __aenter__(self):
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.settings = {"ws_url": f"ws://{host}:{port}/v2", "rest_url": f"http://{host}:{port}"}
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    def now(self):
        return time.time() + self.ahead_s

    def skip(self, seconds):
        self.ahead_s += seconds
        self._moved.set()

    def candle(self, opened, minutes):
        """Return open, high, low, close, volume: a trade each second, at prices that rise from midnight to midnight."""
        until = min(opened + minutes * 60, int(self.now()) + 1)
        first, last = 100 + opened % DAY_S / 1000, 100 + (until - 1) % DAY_S / 1000
        is_over_midnight = opened // DAY_S != (until - 1) // DAY_S
        high, low = (100 + (DAY_S - 1) / 1000, 100.0) if is_over_midnight else (last, first)
        return first, high, low, last, (until - opened) / 10

    # -- REST ------------------------------------------------------------------------------------------

    async def _pairs(self, request):
        return web.json_response({"error": [], "result": self.pairs})

    async def _ohlc(self, request):
        self.asked.append(dict(request.query))
        if self.status != 200:
            return web.Response(status=self.status, headers=self.headers, text="<html>refused</html>")
        if self.errors:
            return web.json_response({"error": self.errors})
        pair, minutes = request.query["pair"], int(request.query.get("interval", "1"))
        name = next((name for name, entry in PAIRS.items() if pair in (name, entry["altname"])), None)
        if name is None:
            return web.json_response({"error": ["EQuery:Unknown asset pair"]})
        if minutes not in MINUTES:
            return web.json_response({"error": ["EGeneral:Invalid arguments"]})
        step = minutes * 60
        newest = int(self.now()) // step * step
        times = range(newest - 719 * step, newest + step, step)
        since = int(request.query.get("since", "0"))
        rows = [self._row(opened, minutes) for opened in times if opened >= since or opened == newest]
        return web.json_response({"error": [], "result": {name: rows, "last": newest - step}})

    def _row(self, opened, minutes):
        first, high, low, close, volume = self.candle(opened, minutes)
        return [opened, f"{first}", f"{high}", f"{low}", f"{close}", f"{first}", f"{volume}", 7]

    # -- WebSocket -------------------------------------------------------------------------------------

    async def _serve(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        status = {"version": "2.0.0", "system": "online", "api_version": "v2", "connection_id": 1}
        await socket.send_json({"channel": "status", "type": "update", "data": [status]})
        carried = {}
        sender = asyncio.create_task(self._send(socket, carried))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, carried, message.json())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def _answer(self, socket, carried, message):
        self.messages.append(message)
        method = message["method"]
        if method == "ping":
            await socket.send_json({"method": "pong", "time_in": text_of(self.now(), 6)})
            return
        params = message["params"]
        assert params["channel"] == "ohlc"
        minutes = params["interval"]
        for symbol in params["symbol"]:
            error = None
            if symbol not in SYMBOLS:
                error = f"Currency pair not supported {symbol}"
            elif method == "unsubscribe":
                error = None if carried.pop(symbol, None) == minutes else "Subscription Not Found"
            elif symbol in carried:
                error = "Already subscribed to one ohlc interval on this symbol"
            if error is not None:
                await socket.send_json({"error": error, "method": method, "success": False, "symbol": symbol})
                continue
            result = {"channel": "ohlc", "interval": minutes, "snapshot": True, "symbol": symbol}
            await socket.send_json({"method": method, "result": result, "success": True})
            if method == "subscribe":
                newest = int(self.now()) // (minutes * 60) * minutes * 60
                times = (newest - 2 * minutes * 60, newest - minutes * 60, newest)
                await self._tell(socket, "snapshot", [self._data(symbol, minutes, opened) for opened in times])
                carried[symbol] = minutes

    def _data(self, symbol, minutes, opened):
        values = dict(zip(("open", "high", "low", "close", "volume"), self.candle(opened, minutes), strict=True))
        begun, end = text_of(opened), text_of(opened + minutes * 60, 6)
        own = {"trades": 7, "vwap": values["open"], "interval_begin": begun, "interval": minutes, "timestamp": end}
        return {"symbol": symbol, **values, **own}

    async def _tell(self, socket, kind, rows):
        await socket.send_json({"channel": "ohlc", "type": kind, "timestamp": text_of(self.now()), "data": rows})

    async def _send(self, socket, carried):
        while True:
            for symbol, minutes in list(carried.items()):
                opened = int(self.now()) // (minutes * 60) * minutes * 60
                await self._tell(socket, "update", [self._data(symbol, minutes, opened)])
            if not carried:
                await socket.send_json({"channel": "heartbeat"})
            self._moved.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), self.pace_s)
