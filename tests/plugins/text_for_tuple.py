"""Broken: a comma is missing."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="text_for_tuple", api=2, title="x", asset_classes=("demo"), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    yield
