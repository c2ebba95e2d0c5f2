"""Broken: the name of a hook is misspelt."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="unknown_hook", api=2, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    yield


@hookimpl
async def relay_candels(symbol):
    return []
