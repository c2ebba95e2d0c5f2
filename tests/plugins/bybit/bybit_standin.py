"""A stand-in for Bybit on loopback: two pairs with made-up prices, over real sockets, in the formats of v5. It is rude.

It refuses a whole request for one topic that it does not have, ends connections that send no ping, repeats what it
said, is late with the last state of a candle, answers refusals with status 200, and sends nonsense if it is told to.
"""

import asyncio
import time
from contextlib import suppress
from email.utils import formatdate

from aiohttp import WSMsgType, web

DAY_S = 86_400
NAMES = ("1", "3", "5", "15", "30", "60", "120", "240", "360", "720", "D", "W", "M")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MOST = 1000
LISTED_S = 30 * DAY_S
"""How long ago trading began."""
PATIENCE_S = 30.0
"""So long a connection may stay without a ping."""
LATE_S = 0.3
"""So long after its end a candle is confirmed."""


def length(name):
    """Return the seconds of a candle; months have 30 days here."""
    return {"D": DAY_S, "W": 7 * DAY_S, "M": 30 * DAY_S}.get(name) or int(name) * 60


def opened_at(name, moment):
    """Return when the candle of a moment opened: weeks on Mondays, months on the first."""
    if name == "M":
        date = time.gmtime(moment)
        return int(moment) // DAY_S * DAY_S - (date.tm_mday - 1) * DAY_S
    shift = 4 * DAY_S if name == "W" else 0
    return (int(moment) - shift) // length(name) * length(name) + shift


def next_opening(name, opened):
    return opened + length(name) if name != "M" else opened_at("M", opened + 32 * DAY_S)


def pair(symbol, status="Trading"):
    lots = {"basePrecision": "0.000001", "quotePrecision": "0.00000001", "minOrderQty": "0.000048"}
    own = {"symbol": symbol, "baseCoin": symbol.removesuffix("USDT"), "quoteCoin": "USDT", "status": status}
    return {**own, "innovation": "0", "lotSizeFilter": lots, "priceFilter": {"tickSize": "0.01"}}


class Bybit:
    """Use it with `async with`. `skip(seconds)` moves its clock on; `refusal` is what REST answers instead, a code."""

    def __init__(self, pace_s=0.25):
        self.pace_s = pace_s
        self.ahead_s = 0.0
        self.refusal = None
        self.status = 200
        self.asked = []
        self.messages = []
        self.sends_nonsense = False
        self.ended = 0
        self.began = int(time.time()) // DAY_S * DAY_S - LISTED_S
        self._moved = asyncio.Event()
        app = web.Application()
        app.add_routes(
            [
                web.get("/v5/public/spot", self._serve),
                web.get("/v5/market/kline", self._kline),
                web.get("/v5/market/instruments-info", self._instruments),
            ]
        )
        app.on_response_prepare.append(self._date)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def __aenter__(self):
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.settings = {"ws_url": f"ws://{host}:{port}/v5/public/spot", "rest_url": f"http://{host}:{port}"}
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    def now(self):
        return time.time() + self.ahead_s

    def skip(self, seconds):
        self.ahead_s += seconds
        self._moved.set()

    def values(self, opened, name):
        """Return open, high, low, close, volume, turnover: a trade each second, at prices that rise all day long."""
        end = min(next_opening(name, opened), int(self.now()) + 1)
        begin = max(opened, self.began)
        prices = [100 + at % DAY_S / 1000 for at in (begin, end - 1)]
        is_over_midnight = begin // DAY_S != (end - 1) // DAY_S
        high, low = (100 + (DAY_S - 1) / 1000, 100.0) if is_over_midnight else (prices[1], prices[0])
        volume = (end - begin) / 10
        found = (prices[0], high, low, prices[1], volume, volume * (high + low) / 2)
        return [f"{value:.3f}" for value in found]

    async def _date(self, _, response):
        response.headers["Date"] = formatdate(self.now(), usegmt=True)

    # -- REST ------------------------------------------------------------------------------------------

    def _answer(self, result, code=0, text="OK"):
        stamp_ms = int(self.now() * 1000)
        body = {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}, "time": stamp_ms}
        return web.json_response(body, status=self.status)

    async def _instruments(self, request):
        if self.refusal is not None:
            return self._answer({}, *self.refusal)
        assert request.query["category"] == "spot"
        rows = [*map(pair, SYMBOLS), pair("OLDUSDT", "Closed")]
        return self._answer({"category": "spot", "list": rows})

    async def _kline(self, request):
        query = dict(request.query)
        self.asked.append(query)
        if self.refusal is not None:
            return self._answer({}, *self.refusal)
        name, symbol = query["interval"], query["symbol"]
        if name not in NAMES or query.get("category") != "spot":
            return self._answer({}, 10_001, "Invalid period!")
        if symbol not in SYMBOLS:
            return self._answer({}, 10_001, "Not supported symbols")
        limit = int(query.get("limit", "200"))
        if not 1 <= limit <= MOST:
            return self._answer({}, 10_001, "limit is invalid")
        start = int(query["start"]) / 1000
        # Without an end it is that of the first `limit` candles.
        end = int(query["end"]) / 1000 if "end" in query else start + limit * length(name) - 1
        end = min(end, self.now())
        rows, opened = [], opened_at(name, end)
        # Newest first, and no more than the limit, also where the range holds more.
        while opened >= max(start, opened_at(name, self.began)) and len(rows) < limit:
            rows.append([str(opened * 1000), *self.values(opened, name)])
            opened = opened_at(name, opened - 1)
        return self._answer({"category": "spot", "symbol": symbol, "list": rows})

    # -- WebSocket -------------------------------------------------------------------------------------

    async def _serve(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        topics, pinged = {}, [time.time()]
        sender = asyncio.create_task(self._send(socket, topics, pinged))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(socket, topics, pinged, message.json())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def _take(self, socket, topics, pinged, message):
        self.messages.append(message)
        op, args = message["op"], message.get("args", [])
        own = {"conn_id": "2324d924", "req_id": message.get("req_id", ""), "op": op}
        if op == "ping":
            pinged[0] = time.time()
            await socket.send_json({"success": True, "ret_msg": "pong", **own})
            return
        fault = ""
        if len(args) > 10:
            fault = "args size >10"
        elif op == "subscribe":
            for topic in args:
                kind, name, symbol = topic.split(".", 2)
                if kind != "kline" or name not in NAMES or symbol not in SYMBOLS:
                    fault = f"error:handler not found,topic:{topic}"
                elif topic in topics:
                    fault = f"error:already subscribed,topic:{topic}"
        if fault:
            await socket.send_json({"success": False, "ret_msg": fault, **own})
            return
        if op == "unsubscribe":
            for topic in args:
                topics.pop(topic, None)
        else:
            topics.update(dict.fromkeys(args))
        await socket.send_json({"success": True, "ret_msg": op, **own})

    async def _send(self, socket, topics, pinged):
        told = {}
        while True:
            if time.time() - pinged[0] > PATIENCE_S:
                self.ended += 1
                await socket.close()
                return
            for topic in list(topics):
                _, name, _ = topic.split(".", 2)
                opened = opened_at(name, self.now() - LATE_S)
                before = told.get(topic, opened)
                if before < opened:
                    # The last state comes a little after the end; and it comes twice.
                    for _ in range(2):
                        await self._tell(socket, topic, before, is_over=True)
                told[topic] = opened
                await self._tell(socket, topic, opened, is_over=False)
            for text in ("not json", '{"topic":"kline.1.BTCUSDT","type":"snapshot"}') if self.sends_nonsense else ():
                await socket.send_str(text)
            self._moved.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), self.pace_s)

    async def _tell(self, socket, topic, opened, *, is_over):
        _, name, _ = topic.split(".", 2)
        stamp_ms = int(self.now() * 1000)
        names = ("open", "high", "low", "close", "volume", "turnover")
        values = dict(zip(names, self.values(opened, name), strict=True))
        own = {"start": opened * 1000, "end": next_opening(name, opened) * 1000 - 1, "interval": name}
        row = {**own, **values, "confirm": is_over, "timestamp": stamp_ms}
        await socket.send_json({"topic": topic, "type": "snapshot", "ts": stamp_ms, "data": [row]})
