"""Shares of a venue that splits them, as a plugin: it polls, reports a split that the venue announces, and notes it."""

import asyncio
import itertools
import logging

from relay import (
    API_VERSION,
    Candle,
    Instrument,
    PastChange,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    Setting,
    StreamKey,
    event,
    hookimpl,
)

log = logging.getLogger("splitting")


class Splitting:
    """Asks the two servers of the venue in turn."""

    def __init__(self):
        self.memory = None
        self.turns = itertools.count()

    @hookimpl
    def relay_provider(self):
        return ProviderInfo(
            name="shares", api=API_VERSION, title="Shares", asset_classes=("demo",), intervals=("1s", "1m"),
            close_grace_s=0.5, candles_per_call=300, history_has_open=True,
            settings=(
                Setting("servers", "urls", ("http://127.0.0.1:1",)),
                Setting("settle_s", "float", 0.0),
            ),
        )  # fmt: skip

    @hookimpl
    def relay_memory(self, memory):
        self.memory = memory

    @hookimpl
    async def relay_instruments(self):
        return [Instrument("SHARE", "demo", "SHARE", "USD")]

    @hookimpl
    async def relay_stream(self, watchlist, session, settings):
        while True:
            await asyncio.sleep(0.1)
            splits = await self.ask(session, settings, "splits")
            if splits and splits[-1] != self.memory.value:
                written = watchlist.invalidate(StreamKey("SHARE", "1m"), splits[-1], settle_s=settings["settle_s"])
                log.info("reported", extra=event("reported"))
                await written
                await self.memory.save(splits[-1])
                log.info("written down", extra=event("written_down"))
            for key in watchlist.streams:
                for *values, is_over in await self.ask(session, settings, "candles", interval=key.interval, limit=2):
                    yield PriceUpdate(key, Candle(*values), bool(is_over))

    @hookimpl
    async def relay_candles(self, interval, start, end, limit, session, settings):
        asked = {"interval": interval, "end": end, "limit": limit, **({} if start is None else {"start": start})}
        return [Candle(*row[:6]) for row in await self.ask(session, settings, "history", **asked)]

    async def ask(self, session, settings, path, **query):
        servers = settings["servers"]
        # What is live comes from the first one.
        url = servers[next(self.turns) % len(servers) if path == "history" else 0]
        async with session.get(f"{url}/{path}", params={name: str(value) for name, value in query.items()}) as answer:
            if answer.status != 200:
                raise ProviderUnavailable("Shares is adjusting prices")
            return await answer.json()


class Announcing(Splitting):
    """Has the relay ask for splits, instead of reporting them by a stream."""

    @hookimpl
    async def relay_stream(self, watchlist, session, settings):
        while True:
            await asyncio.sleep(0.1)
            for key in watchlist.streams:
                for *values, is_over in await self.ask(session, settings, "candles", interval=key.interval, limit=2):
                    yield PriceUpdate(key, Candle(*values), bool(is_over))

    @hookimpl
    async def relay_past_changes(self, session, settings):
        return [PastChange(StreamKey("SHARE", "1m"), at) for at in await self.ask(session, settings, "splits")]
