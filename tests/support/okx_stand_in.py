"""A stand-in for OKX on loopback: two pairs and a contract with made-up prices, in the formats of its API v5."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from aiohttp import WSMsgType, web

DAY_S = 86_400
HONG_KONG_S = 8 * 3600
STEPS = {
    **{"1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1H": 3600, "2H": 7200, "4H": 14_400},
    **{"6H": 21_600, "12H": 43_200, "1D": DAY_S},
}
MOST = 300
"""v5, "Get candlesticks": `limit` is at most 300."""
LISTED_S = 30 * DAY_S


def _listed(symbol: str, kind: str = "SPOT", state: str = "live") -> dict[str, str]:
    base, quote, *_ = symbol.split("-")
    pair = {"baseCcy": base, "quoteCcy": quote} if kind == "SPOT" else {"uly": f"{base}-{quote}", "settleCcy": quote}
    contract = {} if kind == "SPOT" else {"ctType": "linear", "ctVal": "0.01", "ctValCcy": base, "ctMult": "1"}
    steps = {"tickSz": "0.1", "lotSz": "0.00000001", "minSz": "0.00001"}
    return {
        "instId": symbol,
        "instType": kind,
        "state": state,
        "listTime": "1548133413000",
        **pair,
        **contract,
        **steps,
    }


INSTRUMENTS = [
    _listed("BTC-USDT"),
    _listed("ETH-USDT"),
    _listed("OLD-USDT", state="suspend"),
    _listed("BTC-USDT-SWAP", "SWAP"),
]
STREAMED = ("BTC-USDT", "ETH-USDT", "BTC-USDT-SWAP")


class OkxStandIn:
    """Use it with `async with`. `messages` are what came over WebSockets, `asked` the requests for candles."""

    def __init__(self, pace_s: float = 0.5) -> None:
        self.pace_s = pace_s
        self.asked: list[dict[str, str]] = []
        self.messages: list[Any] = []
        self.began = int(time.time()) // DAY_S * DAY_S - LISTED_S
        self.settings: dict[str, str] = {}
        app = web.Application()
        app.add_routes(
            [
                web.get("/ws/v5/business", self._serve),
                web.get("/api/v5/market/candles", self._candles),
                web.get("/api/v5/market/history-candles", self._candles),
                web.get("/api/v5/public/instruments", self._instruments),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def __aenter__(self) -> "OkxStandIn":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.settings = {"ws_url": f"ws://{host}:{port}/ws/v5", "rest_url": f"http://{host}:{port}"}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def row(self, opened: int, step: int) -> list[str]:
        """Return a candle as OKX writes it: a trade each second, at prices that rise all day; the last is `confirm`."""
        now = int(time.time())
        until = min(opened + step, now + 1)
        first, last = 100 + opened % DAY_S / 1000, 100 + (until - 1) % DAY_S / 1000
        low, high = (100.0, 186.399) if opened // DAY_S != (until - 1) // DAY_S else (first, last)
        volume = (until - opened) / 10
        values = (first, high, low, last, volume, volume, volume * first)
        return [str(opened * 1000), *(f"{value:.6f}" for value in values), "1" if now >= opened + step else "0"]

    # -- REST ------------------------------------------------------------------------------------------

    async def _instruments(self, request: web.Request) -> web.Response:
        wanted = [one for one in INSTRUMENTS if one["instType"] == request.query["instType"]]
        return web.json_response({"code": "0", "msg": "", "data": wanted})

    async def _candles(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append(query)
        if query["instId"] not in {one["instId"] for one in INSTRUMENTS}:
            refusal = {"code": "51001", "msg": "Instrument ID or Spread ID doesn't exist.", "data": []}
            return web.json_response(refusal, status=400)
        step, shift = _step_of(query["bar"])
        # Both ends are left out; without `before` the answer ends with the newest one that is older than `after`.
        after, before = int(query.get("after", 2**53)), int(query.get("before", 0))
        newest = _opened(time.time(), step, shift)
        if after // 1000 <= newest:
            newest = _opened(-(-after // 1000) - 1, step, shift)
        limit = min(MOST, int(query.get("limit", 100)))
        oldest = max(self.began, before // 1000 + 1)
        rows = [self.row(opened, step) for opened in range(newest, oldest - 1, -step)]
        return web.json_response({"code": "0", "msg": "", "data": rows[:limit]})

    # -- WebSocket -------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        carried: dict[tuple[str, str], None] = {}
        sender = asyncio.create_task(self._send(socket, carried))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and message.data == "ping":
                    await socket.send_str("pong")
                elif message.type is WSMsgType.TEXT:
                    for answer in self._answers(message.json(), carried):
                        await socket.send_json(answer)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    def _answers(self, message: Any, carried: dict[tuple[str, str], None]) -> Iterator[dict[str, Any]]:
        self.messages.append(message)
        for arg in message["args"]:
            channel, symbol = arg["channel"], arg["instId"]
            if symbol not in STREAMED or channel.removeprefix("candle") not in STEPS:
                said = f"Wrong URL or channel:{channel},instId:{symbol} doesn't exist."
                yield {"event": "error", "code": "60018", "msg": said, "connId": "a4d3ae55"}
                continue
            yield {"event": message["op"], "arg": arg, "connId": "a4d3ae55"}
            if message["op"] == "subscribe":
                carried[channel, symbol] = None
                yield self._push(channel, symbol)
            else:
                carried.pop((channel, symbol), None)

    def _push(self, channel: str, symbol: str) -> dict[str, Any]:
        step, shift = _step_of(channel.removeprefix("candle"))
        row = self.row(_opened(time.time(), step, shift), step)
        return {"arg": {"channel": channel, "instId": symbol}, "data": [row]}

    async def _send(self, socket: web.WebSocketResponse, carried: dict[tuple[str, str], None]) -> None:
        while True:
            await asyncio.sleep(self.pace_s)
            for channel, symbol in [*carried]:
                await socket.send_json(self._push(channel, symbol))


def _step_of(bar: str) -> tuple[int, int]:
    """Return the seconds of a bar, and how far its day is shifted: from 6H on it is that of Hong Kong, without utc."""
    step = STEPS[bar.removesuffix("utc")]
    return step, HONG_KONG_S if step >= 21_600 and not bar.endswith("utc") else 0


def _opened(moment: float, step: int, shift: int) -> int:
    return (int(moment) + shift) // step * step - shift
