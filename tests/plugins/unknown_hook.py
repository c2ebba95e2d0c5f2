"""Broken: the name of a hook is misspelt."""

from relay import API_VERSION, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="unknown_hook", api=API_VERSION, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    yield


@hookimpl
async def relay_candels(symbol):
    return []
