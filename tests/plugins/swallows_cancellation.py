"""Misbehaves: takes every cancellation for a disturbance."""

import asyncio

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="swallows_cancellation",
        api=2,
        title="Swallows cancellation",
        asset_classes=("demo",),
        intervals=("1m",),
    )


@hookimpl
async def relay_stream(watchlist):
    watchlist.accept(watchlist.streams)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    yield
