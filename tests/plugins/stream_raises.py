"""Misbehaves: its stream fails at once, each time."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="stream_raises", api=2, title="Stream raises", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    raise KeyError("close")
    yield
