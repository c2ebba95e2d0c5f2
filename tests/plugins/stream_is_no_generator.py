"""Misbehaves: `async def` around a `return`."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="stream_is_no_generator",
        api=2,
        title="Stream is no generator",
        asset_classes=("demo",),
        intervals=("1m",),
    )


@hookimpl
async def relay_stream(watchlist):
    return None
