"""Misbehaves: tells its key wherever it can."""

import asyncio

from relay import ProviderInfo, ProviderUnavailable, RateLimited, Setting, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="leaks_key",
        api=2,
        title="Leaks its key",
        asset_classes=("demo",),
        intervals=("1m",),
        settings=(Setting("api_key", "secret"), Setting("how", "text", "raise")),
        needs_key="api_key",
    )


@hookimpl
async def relay_stream(watchlist, settings):
    key = settings["api_key"].reveal()
    how = settings["how"]
    first = watchlist.streams[0]
    watchlist.skip(f"bad message for {key}")
    watchlist.pause(first, "throttled", f"{key} has no credits left")
    if how == "reject":
        watchlist.reject(first, f"not allowed for {key}")
        await asyncio.Event().wait()
    if how == "limit":
        raise RateLimited(f"too many requests with {key}", 0.01)
    if how == "own":
        try:
            raise ValueError(f"secret {key}")
        except ValueError as error:
            raise ProviderUnavailable(f"GET /prices?apikey={key} failed") from error
    raise ValueError(f"GET /prices?apikey={key} failed")
    yield


@hookimpl
async def relay_candles(session, settings):
    # The address that cannot be reached is in aiohttp's error.
    async with session.get("http://127.0.0.1:1/", params={"apikey": settings["api_key"].reveal()}) as answer:
        return await answer.json()


@hookimpl
def relay_budgets(settings):
    raise ValueError(settings["api_key"].reveal())
