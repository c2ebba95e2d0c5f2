"""Broken: wants to be told what nobody tells."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="unknown_argument", api=2, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist, loop):
    yield
