"""Broken: the name cannot be part of an environment variable."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="my-exchange", api=2, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    yield
