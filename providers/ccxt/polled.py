"""Live candles of an exchange that ccxt cannot stream: its newest candles, asked for again and again."""

import time
from collections.abc import AsyncGenerator

import aiohttp

from providers.ccxt.rows import FinalStates
from providers.ccxt.venue import Venue
from relay import Candle, PriceUpdate, StreamKey, UnknownSymbol, Watchlist, open_time

_ROWS = 3
"""Our choice: the open candle, the one that may have closed since the last poll, and one for a slow clock."""


async def polled(
    venue: Venue, watchlist: Watchlist, session: aiohttp.ClientSession, poll_s: float
) -> AsyncGenerator[PriceUpdate, None]:
    """Yield updates of all streams of a watchlist, one request for each of them in each round.

    Requests are as far apart as ccxt says; a round is never shorter than `poll_s` seconds. Raises `ProviderError`.
    """
    known: dict[StreamKey, FinalStates] = {}
    while True:
        version = watchlist.version
        began = time.monotonic()
        for key in watchlist.to_poll():
            if key not in watchlist:
                continue
            closing = known.setdefault(key, FinalStates(key, hears_all=False))
            try:
                candles = await newest_of(venue, session, key)
            except UnknownSymbol as error:
                watchlist.reject(key, error)
                continue
            watchlist.accept((key,))
            for update in closing.take(candles):
                yield update
            say_polled(watchlist, key, max(poll_s, len(watchlist) * venue.capabilities.request_s))
        for key in [key for key in known if key not in watchlist]:
            del known[key]
        left_s = poll_s - (time.monotonic() - began)
        await watchlist.changed(version, timeout_s=max(0.0, left_s))


async def newest_of(venue: Venue, session: aiohttp.ClientSession, key: StreamKey) -> list[Candle]:
    """Ask for the open candle of a stream and those before it. Raises `ProviderError`."""
    first = open_time(key.interval, int(time.time()))
    for _ in range(_ROWS - 1):
        first = open_time(key.interval, first - 1)
    return await venue.rows(session, key.symbol, key.interval, first, _ROWS)


def say_polled(watchlist: Watchlist, key: StreamKey, round_s: float) -> None:
    """Say when the next poll of a stream is, to the relay and to clients."""
    watchlist.remark(key, f"polled by ccxt every {round_s:g} s, best effort")
    watchlist.expect(key, round_s, round_s)
