"""A stand-in for My Polls with made-up prices; change it with the provider. As a program it serves."""

import asyncio
import time
from typing import Self

from aiohttp import web

STEPS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
SYMBOLS = ("AAA-BBB", "CCC-BBB")
PAGE = 500


def row(opened: int, step: int) -> dict[str, float]:
    """Return the candle of that time; the price rises all day, so it grows until it is over."""
    until = min(opened + step, int(time.time()) + 1)
    first, last = 100 + opened % 86_400 / 1000, 100 + (until - 1) % 86_400 / 1000
    return {"time": opened, "open": first, "high": last, "low": first, "close": last, "volume": float(until - opened)}


class MyPollsStandIn:
    """Use it with `async with`; `settings` are those of the provider."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._began = int(time.time()) // 86_400 * 86_400 - 20 * 86_400
        app = web.Application()
        app.add_routes([web.get("/candles", self._candles), web.get("/symbols", self._symbols)])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.settings: dict[str, object] = {"rest_url": f"http://{host}:{port}", "poll_seconds": 0.5}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _symbols(self, request: web.Request) -> web.Response:
        return web.json_response(SYMBOLS)

    async def _candles(self, request: web.Request) -> web.Response:
        if request.query["symbol"] not in SYMBOLS:
            return web.json_response({"error": "unknown symbol"}, status=404)
        step, now = STEPS[request.query["interval"]], int(time.time())
        first = max(self._began, -(-int(request.query.get("from", 0)) // step) * step)
        times = range(first, min(int(request.query.get("to", now + 1)), now + 1), step)
        times = times[:PAGE] if "from" in request.query else times[-int(request.query["limit"]) :]
        return web.json_response([row(opened, step) for opened in times])


async def main() -> None:
    async with MyPollsStandIn(8700) as venue:
        print(f"serving {venue.settings['rest_url']}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
