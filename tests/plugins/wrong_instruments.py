"""Misbehaves: the setting `answer` says what is wrong with its list of instruments."""

import asyncio

from relay import Instrument, ProviderInfo, Setting, hookimpl


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="wrong_instruments",
        api=2,
        title="Wrong instruments",
        asset_classes=("demo",),
        intervals=("1m", "1h"),
        settings=(Setting("answer", "choice", "mixed", choices=("raises", "none", "texts", "mixed")),),
    )


@hookimpl
async def relay_stream(watchlist):
    watchlist.accept(watchlist.streams)
    await asyncio.Event().wait()
    yield


@hookimpl
async def relay_instruments(settings):
    if settings["answer"] == "raises":
        raise RuntimeError("no list today")
    if settings["answer"] == "none":
        return None
    if settings["answer"] == "texts":
        return ["ONE", "TWO"]
    return [
        None,
        Instrument("GOOD", "demo", "GO", "OD"),
        Instrument(None, "demo", "A", "B"),
        Instrument("", "demo", "A", "B"),
        Instrument("WITH SPACE", "demo", "A", "B"),
        Instrument("OTHERCLASS", "stars", "A", "B"),
        Instrument("NOBASE", "demo", None, "B"),
        Instrument("NOINTERVALS", "demo", "A", "B", ()),
        Instrument("ODDINTERVALS", "demo", "A", "B", ("5m",)),
        Instrument("GOODTOO", "demo", "A", "B", ("1h",)),
    ]
