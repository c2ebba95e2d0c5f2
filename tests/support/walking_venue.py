"""A venue whose prices are a random walk: all its candles are made of the same trades. For the conformance check."""

import asyncio
import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, Self

import orjson
from aiohttp import WSMsgType, web

from relay.core.intervals import next_open, open_time

START = 1_772_620_817
"""2026-03-04 10:40:17 UTC, a Wednesday."""
SYMBOLS = ("AAA-BBB", "CCC-BBB")
INTERVALS = ("1m", "5m", "1h", "1d", "1w", "1M")
PAGE = 500
_DAY_S = 86_400
_YOUNG_S, _DENSE_S, _FUTURE_S = 240 * _DAY_S, 2 * _DAY_S, 3 * 3600
"""So long ago trading began, once an hour, and became busy; and so long it goes on."""


class Trade(NamedTuple):
    at: float
    price: float
    amount: float


class Row(NamedTuple):
    """A candle, and its turnover in the quote currency."""

    opened: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    turnover: float

    def with_trade(self, trade: Trade) -> "Row":
        return Row(
            self.opened,
            self.open,
            max(self.high, trade.price),
            min(self.low, trade.price),
            trade.price,
            round(self.volume + trade.amount, 6),
            round(self.turnover + trade.amount * trade.price, 6),
        )


class Market:
    """The trades of one symbol, one every `every_s`, none within the `pauses`."""

    def __init__(self, symbol: str, every_s: float, pauses: tuple[tuple[float, float], ...]) -> None:
        rng = random.Random(symbol)
        at, price, self.trades = START - _YOUNG_S + 100.0, 100.0, list[Trade]()
        while at < START + _FUTURE_S:
            price = round(price * (1 + rng.gauss(0, 0.002)) + (100 - price) * 0.002, 2)
            if not any(begins <= at < ends for begins, ends in pauses):
                self.trades.append(Trade(at, price, round(rng.uniform(0.1, 2), 3)))
            at += rng.uniform(0.5, 1.5) * (3600 if at < START - _DENSE_S else every_s)
        self.times = [trade.at for trade in self.trades]
        # Here and not when it is asked: the event loop is watched then.
        self._after = {interval: list(self._rows_after(interval)) for interval in INTERVALS}
        self._rows = {interval: {row.opened: row for row in rows} for interval, rows in self._after.items()}
        self._opened = {interval: list(rows) for interval, rows in self._rows.items()}

    def _rows_after(self, interval: str) -> Iterator[Row]:
        """Yield the candle of each trade as it is after that."""
        row, end = None, 0
        for trade in self.trades:
            if row is None or trade.at >= end:
                opened = open_time(interval, int(trade.at))
                row = Row(opened, trade.price, trade.price, trade.price, trade.price, 0.0, 0.0)
                end = next_open(interval, opened)
            row = row.with_trade(trade)
            yield row

    def rows(self, interval: str) -> dict[int, Row]:
        """Return all candles of an interval as they are in the end."""
        return self._rows[interval]

    def row(self, interval: str, opened: int, now: float) -> Row | None:
        """Return a candle as it is now, None if nothing was traded in it yet."""
        if next_open(interval, opened) <= now:
            return self._rows[interval].get(opened)
        traded = bisect_right(self.times, now)
        row = self._after[interval][traded - 1] if traded else None
        return row if row is not None and row.opened == opened else None

    def between(self, interval: str, first: float, end: float, count: int, *, are_last: bool, now: float) -> list[Row]:
        """Return candles of a range as they are now."""
        opened = self._opened[interval]
        found = opened[bisect_left(opened, first) : bisect_left(opened, min(end, now + 0.001))]
        if found and self.row(interval, found[-1], now) is None:
            found.pop()
        found = found[-count:] if are_last else found[:count]
        rows = [self.row(interval, one, now) for one in found]
        return [row for row in rows if row is not None]


def in_json(value: object) -> str:
    return orjson.dumps(value).decode()


@cache
def market(symbol: str, every_s: float, pauses: tuple[tuple[float, float], ...]) -> Market:
    return Market(symbol, every_s, pauses)


class WalkingVenue:
    """Serves it; use it with `async with`. Answers and messages are late by `delay_s`. A pause ends its candles.

    REST has the final volume of a candle `settles_s` after its end.
    """

    def __init__(
        self,
        every_s: float = 7.0,
        pauses: Iterable[tuple[float, float]] = (),
        delay_s: float = 0.0,
        settles_s: float = 0.0,
    ) -> None:
        self._every_s = every_s
        self.pauses = tuple(pauses)
        self.delay_s = delay_s
        self.settles_s = settles_s
        app = web.Application()
        app.add_routes(
            [web.get("/ws", self._serve), web.get("/candles", self._candles), web.get("/symbols", self._symbols)]
        )
        self.market(SYMBOLS[0])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    def market(self, symbol: str) -> Market:
        """Return the trades of a symbol; those of the first one are there from the start."""
        return market(symbol, self._every_s, self.pauses)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.settings: dict[str, object] = {"ws_url": f"ws://{host}:{port}/ws", "rest_url": f"http://{host}:{port}"}
        if self.pauses:
            ((begins, ends),) = self.pauses
            self.settings |= {"closed_from": int(begins), "closed_until": int(ends)}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _symbols(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        return web.json_response(SYMBOLS)

    async def _candles(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        query = request.query
        if query["symbol"] not in SYMBOLS or query["interval"] not in INTERVALS:
            return web.json_response({"error": "unknown"}, status=404 if query["symbol"] not in SYMBOLS else 400)
        first, end, count = float(query.get("from", 0)), float(query["to"]), min(PAGE, int(query["count"]))
        rows = self.market(query["symbol"]).between(
            query["interval"], first, end, count, are_last="from" not in query, now=time.time()
        )
        at = time.time()
        rows = [
            row._replace(volume=row.volume / 2)
            if next_open(query["interval"], row.opened)
            <= at
            < next_open(query["interval"], row.opened) + self.settles_s
            else row
            for row in rows
        ]
        return web.json_response([[row.opened * 1000, *row[1:]] for row in rows], dumps=in_json)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        wanted: dict[tuple[str, str], Row | None] = {}
        sender = asyncio.create_task(self._send(socket, wanted))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._answer(socket, wanted, message.json())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def _answer(
        self, socket: web.WebSocketResponse, wanted: dict[tuple[str, str], Row | None], message: dict[str, Any]
    ) -> None:
        if message["op"] == "ping":
            await socket.send_json({"type": "pong"})
            return
        for symbol, interval in message["streams"]:
            named = {"symbol": symbol, "interval": interval}
            if symbol not in SYMBOLS or interval not in INTERVALS:
                await socket.send_json({"type": "refused", "reason": f"no stream {symbol} {interval}", **named})
            elif message["op"] == "subscribe":
                wanted[symbol, interval] = None
                await socket.send_json({"type": "subscribed", **named})
            else:
                wanted.pop((symbol, interval), None)

    async def _send(self, socket: web.WebSocketResponse, wanted: dict[tuple[str, str], Row | None]) -> None:
        """Send what has changed, once a second; and each candle once more when it is over."""
        opened: dict[tuple[str, str], int] = {}
        ended: dict[tuple[str, str], int] = {}
        while True:
            at = time.time()
            messages = []
            for name, before in list(wanted.items()):
                symbol, interval = name
                looked, opened[name] = opened.get(name), open_time(interval, int(at))
                row = self.market(symbol).row(interval, opened[name], at)
                if before is None and looked not in (None, opened[name], ended.get(name)):
                    # All its trades came after the last look.
                    before = self.market(symbol).row(interval, looked, at)
                if before is not None and (opened[name] != before.opened or self._has_ended(before, interval, at)):
                    final = self.market(symbol).row(interval, before.opened, at)
                    messages.append(self._message(symbol, interval, final or before, at, is_final=True))
                    ended[name] = before.opened
                    wanted[name] = before = None
                if row is not None and row != before and not self._has_ended(row, interval, at):
                    messages.append(self._message(symbol, interval, row, at))
                    wanted[name] = row
            await asyncio.sleep(self.delay_s)
            for message in messages:
                await socket.send_json(message)
            await asyncio.sleep(1.0)

    def _has_ended(self, row: Row, interval: str, at: float) -> bool:
        """Say whether a pause that lasts longer than a candle has ended it."""
        return any(begins <= at < ends and next_open(interval, row.opened) <= ends for begins, ends in self.pauses)

    def _message(self, symbol: str, interval: str, row: Row, at: float, *, is_final: bool = False) -> dict[str, Any]:
        day = self.market(symbol).row("1d", open_time("1d", int(at)), at)
        return {
            "type": "candle",
            "symbol": symbol,
            "interval": interval,
            "sent_ms": int(at * 1000),
            "row": [row.opened * 1000, *row[1:]],
            "final": is_final,
            "day_volume": 0.0 if day is None else day.volume,
        }
