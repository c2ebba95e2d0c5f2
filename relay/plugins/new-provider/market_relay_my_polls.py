"""Candles of My Polls for market-relay: a venue without a stream, which is asked again and again."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp
from relay import (
    Candle,
    Hosts,
    Instrument,
    PriceUpdate,
    ProviderInfo,
    Setting,
    StreamKey,
    UnknownSymbol,
    Watchlist,
    ask_rest,
    hookimpl,
    page_candles,
)

__version__ = "0.1"

INTERVALS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
PAGE = 500
"""How many candles the venue gives at once."""


def candles_of(rows: Sequence[Mapping[str, Any]]) -> list[Candle]:
    """Return the candles of an answer, oldest first."""
    names = ("open", "high", "low", "close", "volume")
    return sorted(Candle(int(row["time"]), *(float(row[name]) for name in names)) for row in rows)


async def ask(
    session: aiohttp.ClientSession, settings: Mapping[str, Any], symbol: str, interval: str, **more: int
) -> list[Candle]:
    """Ask the venue for candles."""
    params: dict[str, str | int] = {"symbol": symbol, "interval": interval, **more}
    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/candles", params=params)
    if answer.status == 404:
        raise UnknownSymbol(f"My Polls does not list {symbol}")
    if answer.status != 200:
        raise answer.error("")
    return candles_of(answer.body)


def updates(key: StreamKey, candles: Sequence[Candle], newest: int | None) -> list[PriceUpdate]:
    """Return what the last candles say, if `newest` is the open time of the one that was the last before."""
    # A newer candle exists, so the values of the one before are final now.
    closed = [PriceUpdate(key, candle, is_closed=True) for candle in candles[:-1] if candle.time == newest]
    return [*closed, *(PriceUpdate(key, candle) for candle in candles[-1:])]


@hookimpl
def relay_provider() -> ProviderInfo:
    return ProviderInfo(
        name="my_polls",
        api=2,
        title="My Polls",
        asset_classes=("crypto",),
        intervals=tuple(INTERVALS),
        settings=(
            Setting("rest_url", "urls", ("http://127.0.0.1:8700",), "Addresses of the REST server"),
            Setting("poll_seconds", "float", 5.0, "Time between two polls of a stream", least=0.1),
        ),
        history_has_open=True,
    )


@hookimpl
async def relay_stream(
    watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
) -> AsyncGenerator[PriceUpdate, None]:
    newest: dict[StreamKey, int] = {}
    while True:
        version = watchlist.version
        for key in watchlist.streams:
            try:
                candles = await ask(session, settings, key.symbol, key.interval, limit=2)
            except UnknownSymbol as error:
                watchlist.reject(key, error)
                continue
            for update in updates(key, candles, newest.get(key)):
                newest[key] = update.candle.time
                yield update
        await watchlist.changed(version, timeout_s=settings["poll_seconds"])


@hookimpl
async def relay_candles(
    symbol: str,
    interval: str,
    start: int | None,
    end: int,
    limit: int,
    session: aiohttp.ClientSession,
    settings: Mapping[str, Any],
) -> list[Candle]:
    names = {seconds: name for name, seconds in INTERVALS.items()}

    async def window(first: int, end: int, step_s: int) -> list[Candle]:
        return await ask(session, settings, symbol, names[step_s], **{"from": first, "to": end})

    step_s = INTERVALS[interval]
    coarse_s = INTERVALS["1d"] if step_s < INTERVALS["1d"] else None
    return await page_candles(
        window, start=start, end=end, limit=limit, step_s=step_s, page=PAGE, oldest=1_500_000_000, coarse_s=coarse_s
    )


@hookimpl
async def relay_instruments(session: aiohttp.ClientSession, settings: Mapping[str, Any]) -> list[Instrument]:
    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/symbols")
    if answer.status != 200:
        raise answer.error("the list of symbols")
    return [Instrument(symbol, "crypto", *symbol.split("-")) for symbol in answer.body]
