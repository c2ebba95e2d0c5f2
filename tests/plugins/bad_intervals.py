"""Broken: minutes are spelt 1m here."""

from relay import API_VERSION, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="bad_intervals", api=API_VERSION, title="x", asset_classes=("demo",), intervals=("1min", "1h", "7m")
    )


@hookimpl
async def relay_stream(watchlist):
    yield
