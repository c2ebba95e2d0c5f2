"""Misbehaves: its stream is over before it began."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="stream_ends", api=2, title="Stream ends", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    return
    yield
