"""Broken: does not stream."""

from relay import ProviderInfo, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(name="no_stream", api=2, title="x", asset_classes=("demo",), intervals=("1m",))
