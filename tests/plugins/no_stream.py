"""Broken: does not stream."""

from relay import API_VERSION, ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="no_stream", api=API_VERSION, title="x", asset_classes=("demo",), intervals=("1m",))
