"""Calls itself binance: it takes the place of the built-in provider."""

import asyncio

from relay import Instrument, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="binance", api=2, title="Another Binance", asset_classes=("crypto",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    watchlist.accept(watchlist.streams)
    await asyncio.Event().wait()
    yield


@hookimpl
async def relay_instruments():
    return [Instrument("ONLYHERE", "crypto", "ONLY", "HERE")]
