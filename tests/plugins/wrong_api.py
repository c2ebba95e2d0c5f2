"""Broken: written for a relay that does not exist yet."""

from relay import API_VERSION, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="wrong_api", api=API_VERSION + 1, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    yield
