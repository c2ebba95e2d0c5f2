"""Broken: says who it is in a form of its own."""

from relay import hookimpl


@hookimpl
def relay_provider():
    return {"name": "nonsense", "api": 1}


@hookimpl
async def relay_stream(watchlist):
    yield
