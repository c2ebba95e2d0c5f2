"""Broken: wants to be told what nobody tells."""

from relay import API_VERSION, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="unknown_argument", api=API_VERSION, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist, loop):
    yield
