"""A provider as the host calls it: keywords only, settings complete."""

from collections.abc import Sequence
from typing import Any

import aiohttp

from relay import Candle, Instrument
from tests.support.pump import Pump, keys


class BoundProvider:
    """A provider with its session and its settings, both of which may be replaced."""

    def __init__(self, provider: Any, session: aiohttp.ClientSession, settings: dict[str, Any]) -> None:
        self.provider = provider
        self.session = session
        self.settings = settings

    def pump(self, *names: str) -> Pump:
        return Pump(
            lambda watchlist: self.provider.relay_stream(
                watchlist=watchlist, session=self.session, settings=self.settings
            ),
            keys(*names),
        )

    async def candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        found: Sequence[Candle] = await self.provider.relay_candles(
            symbol=symbol,
            interval=interval,
            start=start,
            end=end,
            limit=limit,
            session=self.session,
            settings=self.settings,
        )
        return found

    async def times(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[int]:
        return [candle.time for candle in await self.candles(symbol, interval, start, end, limit)]

    async def instruments(self) -> Sequence[Instrument]:
        found: Sequence[Instrument] = await self.provider.relay_instruments(
            session=self.session, settings=self.settings
        )
        return found
