"""A provider that logs an event, with fields that JSON does not have and with some that are not its to give."""

import logging

from relay import ProviderInfo, Secret, event, hookimpl

log = logging.getLogger("logs_plugin")


@hookimpl
def relay_provider():
    return ProviderInfo(name="logs", api=2, title="Logs", asset_classes=("demo",), intervals=("1m",))


@hookimpl
async def relay_stream(watchlist):
    for key in watchlist.streams:
        fields = {"symbols": (key.symbol,), "key": Secret("open-sesame"), "many": 1 << 70, "time": 0, "level": "none"}
        log.warning("%s begins", key, extra=event("stream_begun", provider="logs", stream=str(key), **fields))
    logging.getLogger("some_library").info("connected")
    while True:
        await watchlist.changed(watchlist.version)
    yield
