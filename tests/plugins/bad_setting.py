"""Broken: a setting of a kind that does not exist."""

from relay import ProviderInfo, Setting, hookimpl


@hookimpl
def relay_provider():
    settings = (Setting("depth", "integer", 5),)
    return ProviderInfo("bad_setting", 2, "x", ("demo",), ("1m",), settings=settings)


@hookimpl
async def relay_stream(watchlist):
    yield
