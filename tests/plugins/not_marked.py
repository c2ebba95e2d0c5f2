"""Broken: the decorators were forgotten."""

from relay import ProviderInfo


def relay_provider():
    return ProviderInfo(name="not_marked", api=2, title="x", asset_classes=("demo",), intervals=("1m",))


async def relay_stream(watchlist):
    yield
