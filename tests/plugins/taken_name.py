"""Broken: its configuration table would be the relay's own key."""

from relay import API_VERSION, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="tokens", api=API_VERSION, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    yield
