"""Broken: its configuration table would be the relay's own key."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="tokens", api=2, title="x", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    yield
