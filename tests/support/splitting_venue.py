"""A venue of shares that splits them: slow, refuses for a while after that, and its second server is late."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.support.loopback_server import app_of, loopback_server

PLUGIN = f"{Path(__file__).parents[1] / 'plugins' / 'splitting.py'}:Splitting"
ANNOUNCING = PLUGIN.replace(":Splitting", ":Announcing")
OLD = 4000.0
"""Prices from before the split are this or more, and those from after it are less."""
PAST = 900
LENGTH_S = {"1s": 1, "1m": 60}


class SplittingVenue:
    """`servers` are the addresses of both. After `split` the history refuses while `is_refusing`."""

    def __init__(self) -> None:
        self.servers: list[str] = []
        self.began = int(time.time()) // 60 * 60 - PAST * 60
        self.split_at: int | None = None
        self.is_refusing = False
        self.takes_s = 0.05
        self.late_until = 0.0
        self.asked_history = 0

    def split(self, *, late_s: float = 0.0) -> int:
        """Give a fourth of the price to all that opened before now; the second server for so long does not."""
        self.split_at = int(time.time())
        self.late_until = time.time() + late_s
        return self.split_at

    def row(self, opened: int, *, is_late: bool = False) -> list[float]:
        is_adjusted = self.split_at is not None and not (is_late and time.time() < self.late_until)
        is_before = self.split_at is None or opened < self.split_at
        price = (1000.0 + opened % 900) * (4.0 if is_before and not is_adjusted else 1.0)
        return [opened, price, price, price, price, 1.0]

    async def answer(self, number: int, request: web.Request) -> web.Response:
        if request.path == "/splits":
            return web.json_response([] if self.split_at is None else [self.split_at])
        query, step = request.query, LENGTH_S[request.query["interval"]]
        limit, now = int(query["limit"]), time.time()
        if request.path == "/candles":
            opened = [int(now) // step * step - step * back for back in range(limit)]
            return web.json_response([[*self.row(at), at + step <= now] for at in reversed(opened)])
        self.asked_history += 1
        start = int(query.get("start", self.began))
        times = range(-(-max(start, self.began) // step) * step, min(int(query["end"]), int(now) + 1), step)
        rows = [self.row(at, is_late=number == 1) for at in (times[:limit] if "start" in query else times[-limit:])]
        await asyncio.sleep(self.takes_s)
        if self.is_refusing:
            return web.json_response({"message": "adjusting prices"}, status=503)
        return web.json_response(rows)


@asynccontextmanager
async def splitting_venue() -> AsyncIterator[SplittingVenue]:
    """Serve both servers of a venue on loopback until the end."""
    venue = SplittingVenue()
    async with AsyncExitStack() as stack:
        for number in range(2):

            async def handle(request: web.Request, number: int = number) -> web.Response:
                return await venue.answer(number, request)

            venue.servers.append(f"http://{await stack.enter_async_context(loopback_server(app_of(handle)))}")
        yield venue
