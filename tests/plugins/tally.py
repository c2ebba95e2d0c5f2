"""A provider as a class, with every hook: its candles count the seconds since an hour ago, its history agrees."""

import asyncio
import time

from relay import Budget, Candle, Instrument, PriceUpdate, ProviderInfo, Setting, hookimpl


class Tally:
    made = 0

    def __init__(self):
        type(self).made += 1
        self.first = int(time.time()) - 3600
        self.asked = 0
        self.memory = None

    @hookimpl
    def relay_provider(self):
        return ProviderInfo(
            name="tally",
            api=2,
            title="Tally",
            asset_classes=("demo",),
            intervals=("1s",),
            settings=(Setting("step", "int", 1, "How much a second adds", least=1, most=1000),),
            close_grace_s=0.5,
        )

    def candle(self, opened, step):
        value = float((opened - self.first) * step)
        return Candle(opened, value, value, value, value, 1.0)

    @hookimpl
    async def relay_stream(self, watchlist, settings):
        opened = int(time.time())
        while True:
            for key in watchlist.streams:
                if key.symbol == "TALLY":
                    yield PriceUpdate(key, self.candle(opened, settings["step"]))
                else:
                    watchlist.reject(key, f"there is no {key.symbol}")
            await watchlist.changed(watchlist.version, timeout_s=opened + 1 - time.time())
            if time.time() >= opened + 1:
                for key in watchlist.streams:
                    if key.symbol == "TALLY":
                        yield PriceUpdate(key, self.candle(opened, settings["step"]), is_closed=True)
                opened += 1

    @hookimpl
    async def relay_candles(self, symbol, start, end, limit, settings):
        self.asked += 1
        if self.memory is not None:
            await self.memory.save(self.asked)
        await asyncio.sleep(0)
        if symbol != "TALLY":
            return []
        end = min(end, int(time.time()) + 1)
        if start is None:
            start = max(self.first, end - limit)
        times = range(max(start, self.first), end)[:limit]
        return [self.candle(opened, settings["step"]) for opened in times]

    @hookimpl
    async def relay_instruments(self):
        return [Instrument("TALLY", "demo", "TAL", "LY")]

    @hookimpl
    async def relay_past_changes(self, since):
        return []

    @hookimpl
    def relay_memory(self, memory):
        self.memory = memory
        self.asked = memory.value or 0

    @hookimpl
    def relay_budgets(self):
        return [Budget("questions", 1000, self.asked, time.time() + 60)]
