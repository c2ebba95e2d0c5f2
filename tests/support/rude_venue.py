"""A venue of a test's own on a real socket that hangs, drips, is late or refuses, and its plugin; prices go on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import aiohttp
from aiohttp import web

from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from tests.support.loopback_server import loopback_server

MINUTE = 1_764_000_000
"""The open time of the newest candle; the relay's clock has to stand within it, as the venue's does."""
HEAD = {"Date": formatdate(MINUTE + 30, usegmt=True)}
BAD_MANNERS = ("hangs", "drips", "late", "refuses")
LATE_S = 20.0
DRIP_S = 0.5

Manner = Callable[[Mapping[str, str]], str]
"""Says of a request, by its query, how it is answered: `well`, or in one of the `BAD_MANNERS`."""


class RudeVenue:
    """Has a candle for each minute up to `MINUTE`, and any symbol but those that begin with NO."""

    def __init__(self) -> None:
        self.candles: Manner = lambda query: "well"
        self.lookups: Manner = lambda query: "well"
        self.asked: list[str] = []
        """The symbols that somebody looked up, in the order in which the questions came."""
        self.candles_asked = 0
        """So many requests for candles came."""
        self.takes_s = 0.0
        """So long each answer takes that comes well."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        query = request.query
        if request.path == "/instrument":
            self.asked.append(query["symbol"])
            return await self._send(request, self.lookups(query), {"found": not query["symbol"].startswith("NO")})
        self.candles_asked += 1
        start, end, limit = (int(query[name]) for name in ("start", "end", "limit"))
        times = range(max(-(-start // 60) * 60, MINUTE - 86_400 * 7), min(end, MINUTE + 60), 60)
        rows = [*times[:limit]] if start else [*times[-limit:]]
        return await self._send(request, self.candles(query), {"times": rows})

    async def _send(self, request: web.Request, manner: str, body: Mapping[str, Any]) -> web.StreamResponse:
        if manner == "hangs":
            await asyncio.Event().wait()
        elif manner == "drips":
            response = web.StreamResponse(headers={**HEAD, "Content-Type": "application/json"})
            await response.prepare(request)
            while True:
                await response.write(b" ")
                await asyncio.sleep(DRIP_S)
        elif manner == "late":
            await asyncio.sleep(LATE_S)
        elif manner == "well":
            await asyncio.sleep(self.takes_s)
        elif manner == "refuses":
            return web.json_response({"error": "busy"}, status=503, headers=HEAD)
        return web.json_response(body, headers=HEAD)


class RudePlugin:
    """Speaks to a `RudeVenue`, and delivers the newest candle of each stream once a second by itself."""

    __name__ = "rude"
    price = 1.0
    """Of all candles of the past."""

    def __init__(self, address: str, *, name: str = "rude", candles_per_call: int = 1000) -> None:
        self.__name__ = self.name = name
        self._url = f"http://{address}"
        self._page = candles_per_call

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name=self.name,
            api=(API_VERSION, 1),
            title=self.name.title(),
            asset_classes=("stocks",),
            intervals=("1m",),
            candles_per_call=self._page,
            history_has_open=True,
        )

    async def _ask(self, session: aiohttp.ClientSession, path: str, **query: Any) -> Any:
        # As one that sets no limit of its own: the relay has one.
        unlimited = aiohttp.ClientTimeout(total=None)
        async with session.get(f"{self._url}/{path}", params=query, timeout=unlimited) as response:
            response.raise_for_status()
            return await response.json()

    @hookimpl
    async def relay_instrument(self, symbol: str, session: aiohttp.ClientSession) -> Instrument | None:
        answer = await self._ask(session, "instrument", symbol=symbol)
        return Instrument(symbol, "stocks", symbol, "USD") if answer["found"] else None

    @hookimpl
    async def relay_candles(
        self, symbol: str, start: int | None, end: int, limit: int, session: aiohttp.ClientSession
    ) -> list[Candle]:
        answer = await self._ask(session, "candles", symbol=symbol, start=start or 0, end=end, limit=limit)
        return [Candle(time, self.price, self.price, self.price, self.price, 1.0) for time in answer["times"]]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        count = 0
        while True:
            count += 1
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(MINUTE, 1.0, 1.0 + count, 1.0, 1.0 + count, 1.0))
            await asyncio.sleep(1.0)


@asynccontextmanager
async def rude_venue() -> AsyncIterator[tuple[RudeVenue, str]]:
    """Run a venue; yields it and its `HOST:PORT`."""
    venue, app = RudeVenue(), web.Application()
    app.router.add_get("/{what}", venue.answer)
    async with loopback_server(app) as address:
        yield venue, address
