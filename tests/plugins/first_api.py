"""Written for the first provider API, and as its guide said: it still loads."""

import asyncio

from relay import Candle, Instrument, PriceUpdate, ProviderInfo, Secret, Setting, hookimpl


class FirstApi:
    @hookimpl
    def relay_provider(self):
        settings = (
            Setting("api_key", help="The key", is_secret=True),
            Setting("depth", "int", 3, "How deep", least=1),
        )
        return ProviderInfo("first_api", 1, "First API", ("demo",), ("1m",), settings=settings, needs_key="api_key")

    @hookimpl
    async def relay_stream(self, watchlist, session, settings):
        assert isinstance(settings["api_key"], Secret)
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(60, 1.0, 1.0, 1.0, 1.0), is_closed=True)
        await asyncio.Event().wait()

    @hookimpl
    async def relay_candles(self, symbol, start, end, limit, settings):
        return [Candle(60, 1.0, 1.0, 1.0, float(settings["depth"]))]

    @hookimpl
    async def relay_instruments(self):
        return [Instrument("X", "demo", "X", "Y")]


plugin = FirstApi()
