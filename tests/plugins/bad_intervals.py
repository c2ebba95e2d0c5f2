"""Broken: minutes are spelt 1m here."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="bad_intervals", api=2, title="x", asset_classes=("demo",), intervals=("1min", "1h", "7m"))


@hookimpl
async def relay_stream(watchlist):
    yield
