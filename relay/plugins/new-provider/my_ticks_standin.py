"""A stand-in for My Ticks with made-up trades; change it with the provider. As a program it serves."""

import asyncio
import time
from typing import Any, Self

from aiohttp import WSMsgType, web

STEPS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
SYMBOLS = ("AAA-BBB", "CCC-BBB")
PAGE = 500
EACH_S = 2
"""How many trades there are in a second; they have numbers since 1970."""
SIZE = 0.5


def price(number: int) -> float:
    """Return the price of a trade; it rises all day."""
    return 100 + number % (86_400 * EACH_S) / 2000


def row(opened: int, step: int) -> dict[str, float]:
    """Return the candle of the trades of that time up to now, and the time of the last one."""
    first, until = opened * EACH_S, min((opened + step) * EACH_S, int(time.time() * EACH_S) + 1)
    low, high, volume = price(first), price(until - 1), (until - first) * SIZE
    last_ms = (until - 1) * 1000 // EACH_S
    candle = {"time": opened, "open": low, "high": high, "low": low, "close": high, "volume": volume}
    return {**candle, "until_ms": last_ms}


class MyTicksStandIn:
    """Use it with `async with`; `settings` are those of the provider."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._began = int(time.time()) // 86_400 * 86_400 - 20 * 86_400
        app = web.Application()
        app.add_routes(
            [web.get("/ws", self._serve), web.get("/candles", self._candles), web.get("/symbols", self._symbols)]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.settings = {"ws_url": f"ws://{host}:{port}/ws", "rest_url": f"http://{host}:{port}"}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _symbols(self, request: web.Request) -> web.Response:
        return web.json_response(SYMBOLS)

    async def _candles(self, request: web.Request) -> web.Response:
        if request.query["symbol"] not in SYMBOLS:
            return web.json_response({"error": "unknown symbol"}, status=404)
        step = STEPS[request.query["interval"]]
        first = max(self._began, -(-int(request.query["from"]) // step) * step)
        times = range(first, min(int(request.query["to"]), int(time.time()) + 1), step)
        return web.json_response([row(opened, step) for opened in times[:PAGE]])

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        carried: dict[str, int] = {}
        sender = asyncio.create_task(self._send(socket, carried))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, carried, message.json())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def _answer(self, socket: web.WebSocketResponse, carried: dict[str, int], message: dict[str, Any]) -> None:
        now = time.time()
        head = {"time_ms": int(now * 1000)}
        if message["op"] == "ping":
            await socket.send_json({"type": "pong", **head})
            return
        for symbol in message["symbols"]:
            if symbol not in SYMBOLS:
                reason = f"there is no {symbol}"
                await socket.send_json({"type": "refused", "symbol": symbol, "reason": reason, **head})
            elif message["op"] == "subscribe":
                # The number of the last trade that is not sent.
                carried.setdefault(symbol, int(now * EACH_S))
                await socket.send_json({"type": "subscribed", "symbol": symbol, **head})
            else:
                carried.pop(symbol, None)

    async def _send(self, socket: web.WebSocketResponse, carried: dict[str, int]) -> None:
        while True:
            last = int(time.time() * EACH_S)
            for symbol, before in list(carried.items()):
                for number in range(before + 1, last + 1):
                    trade = {"price": price(number), "size": SIZE, "time_ms": number * 1000 // EACH_S}
                    await socket.send_json({"type": "trade", "symbol": symbol, **trade})
                if symbol in carried:
                    carried[symbol] = last
            await asyncio.sleep(0.1)


async def main() -> None:
    async with MyTicksStandIn(8700) as venue:
        print(f"serving {venue.settings['rest_url']}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
