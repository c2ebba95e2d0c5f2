"""Broken: the decorators were forgotten."""

from relay import API_VERSION, ProviderInfo


def relay_provider():
    return ProviderInfo(name="not_marked", api=API_VERSION, title="x", asset_classes=("demo",), intervals=("1m",))


async def relay_stream(watchlist):
    yield
