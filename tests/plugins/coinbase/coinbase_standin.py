"""A stand-in for Coinbase Advanced Trade on loopback: made-up prices, over real sockets, in Coinbase's formats."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

from aiohttp import WSMsgType, web

STEPS = {
    **{"ONE_MINUTE": 60, "FIVE_MINUTE": 300, "FIFTEEN_MINUTE": 900, "THIRTY_MINUTE": 1800},
    **{"ONE_HOUR": 3600, "TWO_HOUR": 7200, "SIX_HOUR": 21_600, "ONE_DAY": 86_400},
}
MOST = 350
LISTED_S = 30 * 86_400
"""How long ago trading began."""
SNAPSHOT = 100
DAY_S = 86_400


def product(name, status="online", alias=""):
    base, quote = name.split("-")
    own = {"base_currency_id": base, "quote_currency_id": quote, "product_type": "SPOT"}
    own |= {"base_increment": "0.00000001", "quote_increment": "0.01", "price_increment": "0.01"}
    own |= {"trading_disabled": status != "online"}
    return {"product_id": name, "status": status, "alias": alias, "is_disabled": False, **own}


PRODUCTS = [
    product("BTC-USD"),
    product("ETH-USD"),
    product("BTC-USDC", alias="BTC-USD"),
    product("OLD-USD", "delisted"),
]
NAMES = ("BTC-USD", "ETH-USD")


class Coinbase:
    """Use it with `async with`. `skip(seconds)` moves its clock on; `lose(count)` loses messages on every socket.

    Nothing was traded in `hole`, a range of times.
    """

    def __init__(self, pace_s=0.1):
        self.pace_s = pace_s
        self.ahead_s = 0.0
        self.asked = []
        self.messages = []
        self.began = int(time.time()) // 86_400 * 86_400 - LISTED_S
        self.hole = range(0)
        self._lost = 0
        self._moved = asyncio.Event()
        app = web.Application()
        path = "/api/v3/brokerage/market/products"
        app.add_routes(
            [
                web.get("/", self._serve),
                web.get(path, self._products),
                web.get(path + "/{name}/candles", self._candles),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def __aenter__(self):
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.settings = {"ws_url": f"ws://{host}:{port}/", "rest_url": f"http://{host}:{port}"}
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    def now(self):
        return time.time() + self.ahead_s

    def skip(self, seconds):
        self.ahead_s += seconds
        self._moved.set()

    def lose(self, count):
        self._lost = count

    def row(self, opened, step):
        """Return one candle: a trade each second, at prices that rise all day, so it grows until it is over."""
        until = min(opened + step, int(self.now()) + 1)
        first, last = 100 + opened % DAY_S / 1000, 100 + (until - 1) % DAY_S / 1000
        values = {"low": first, "high": last, "open": first, "close": last, "volume": (until - opened) / 10}
        return {"start": str(opened), **{name: f"{value}" for name, value in values.items()}}

    # -- REST ------------------------------------------------------------------------------------------

    async def _products(self, request):
        kind = request.query.get("product_type", "SPOT")
        found = [one for one in PRODUCTS if one["product_type"] == kind]
        return web.json_response({"products": found, "num_products": len(found), "pagination": None})

    async def _candles(self, request):
        self.asked.append(dict(request.query))
        name = request.match_info["name"]
        if name not in NAMES:
            body = {"error": "NOT_FOUND", "message": f"Product {name} not supported"}
            return web.json_response(body, status=404)
        start, end = int(request.query["start"]), int(request.query["end"])
        step = STEPS[request.query["granularity"]]
        if (end - start) // step + 1 > MOST:
            text = "start and end argument is invalid - number of candles requested should be less than 350"
            body = {"error": "INVALID_ARGUMENT", "error_details": text, "message": text}
            return web.json_response(body, status=400)
        first = max(self.began, -(-start // step) * step)
        times = range(first, min(end, int(self.now())) + 1, step)
        rows = [self.row(opened, step) for opened in times if opened not in self.hole]
        return web.json_response({"candles": rows[::-1]})

    # -- WebSocket -------------------------------------------------------------------------------------

    async def _serve(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        carried = {"heartbeats": {}, "candles": {}}
        numbers = iter(range(1_000_000_000))
        sender = asyncio.create_task(self._send(socket, carried, numbers))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, carried, numbers, message.json())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def _answer(self, socket, carried, numbers, message):
        self.messages.append(message)
        channel, names = message["channel"], message.get("product_ids", [])
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            await socket.send_json({"type": "error", "message": f"{unknown[0]} is not a valid product"})
            return
        if message["type"] == "unsubscribe":
            for name in names:
                carried[channel].pop(name, None)
        elif channel == "candles":
            newest = int(self.now()) // 300 * 300
            times = range(newest, newest - SNAPSHOT * 300, -300)
            rows = [{**self.row(opened, 300), "product_id": name} for name in names for opened in times]
            carried[channel].update(dict.fromkeys(names))
            await self._tell(socket, numbers, "candles", {"type": "snapshot", "candles": rows})
        else:
            carried[channel]["all"] = None
        shown = {name: list(streams) for name, streams in carried.items() if streams}
        await self._tell(socket, numbers, "subscriptions", {"subscriptions": shown})

    async def _tell(self, socket, numbers, channel, event):
        stamp = datetime.fromtimestamp(self.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        envelope = {"channel": channel, "client_id": "", "timestamp": stamp, "sequence_num": next(numbers)}
        await socket.send_json({**envelope, "events": [event]})

    async def _send(self, socket, carried, numbers):
        beats = iter(range(1_000_000_000))
        while True:
            for _ in range(self._lost):
                next(numbers)
            self._lost = 0
            newest = int(self.now()) // 300 * 300
            rows = [{**self.row(newest, 300), "product_id": name} for name in carried["candles"]]
            if rows:
                await self._tell(socket, numbers, "candles", {"type": "update", "candles": rows})
            if carried["heartbeats"]:
                event = {"current_time": f"{self.now()}", "heartbeat_counter": str(next(beats))}
                await self._tell(socket, numbers, "heartbeats", event)
            self._moved.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), self.pace_s)
