"""A stand-in for My Exchange with made-up prices; change it with the provider. As a program it serves."""

import asyncio
import time
from typing import Any, Self

from aiohttp import WSMsgType, web

STEPS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
SYMBOLS = ("AAA-BBB", "CCC-BBB")
PAGE = 500


def row(opened: int, step: int) -> dict[str, float]:
    """Return the candle of that time, of a trade each second at prices that rise all day: it grows until it is over."""
    until = min(opened + step, int(time.time()) + 1)
    first, last = 100 + opened % 86_400 / 1000, 100 + (until - 1) % 86_400 / 1000
    return {"time": opened, "open": first, "high": last, "low": first, "close": last, "volume": float(until - opened)}


class StandIn:
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
        carried: dict[tuple[str, str], None] = {}
        sender = asyncio.create_task(self._send(socket, carried))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, carried, message.json())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def _answer(
        self, socket: web.WebSocketResponse, carried: dict[tuple[str, str], None], message: dict[str, Any]
    ) -> None:
        if message["op"] == "ping":
            await socket.send_json({"type": "pong"})
            return
        for stream in message["streams"]:
            name = (stream["symbol"], stream["interval"])
            if name[0] not in SYMBOLS:
                await socket.send_json({"type": "refused", "reason": f"there is no {name[0]}", **stream})
            elif message["op"] == "subscribe":
                carried[name] = None
                await socket.send_json({"type": "subscribed", **stream})
            else:
                carried.pop(name, None)

    async def _send(self, socket: web.WebSocketResponse, carried: dict[tuple[str, str], None]) -> None:
        while True:
            now = time.time()
            for symbol, interval in list(carried):
                step = STEPS[interval]
                opened = int(now) // step * step
                head = {"type": "candle", "symbol": symbol, "interval": interval, "sent_ms": int(now * 1000)}
                await socket.send_json({**head, **row(opened, step)})
            await asyncio.sleep(0.5)


async def main() -> None:
    async with StandIn(8700) as venue:
        print(f"serving {venue.settings['rest_url']}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
