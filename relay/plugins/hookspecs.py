"""The hooks that a provider implements; what each means is in providers/README.md, one section a hook."""

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from typing import Any

import aiohttp
import pluggy

from relay.core.model import Budget, Candle, Instrument, OpenHours, PriceUpdate, ProviderInfo
from relay.core.saved_value import Memory
from relay.upstream.watchlist import Watchlist

PROJECT = "relay"
API_VERSION = 1
"""Raised when a hook or an argument is renamed, removed or changes its meaning; not when one is added."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Settings = Mapping[str, Any]

REQUIRED = ("relay_provider", "relay_stream")


@hookspec(firstresult=True)
def relay_provider() -> ProviderInfo | None:
    """Say who you are. Pure, no I/O, called once. Required."""


@hookspec(firstresult=True)
def relay_stream(
    watchlist: Watchlist, session: aiohttp.ClientSession, settings: Settings
) -> AsyncGenerator[PriceUpdate, None] | None:
    """Yield updates of all streams on the watchlist from ONE upstream connection or polling loop. Required.

    Return when the upstream closes, raise when it fails; never retry, never sleep before reconnecting, never swallow
    `CancelledError`: the host waits, backfills, rotates and watches for silence.
    """


@hookspec(firstresult=True)
def relay_candles(
    symbol: str,
    interval: str,
    start: int | None,
    end: int,
    limit: int,
    session: aiohttp.ClientSession,
    settings: Settings,
) -> Awaitable[Sequence[Candle]] | None:
    """Return candles with `start` ≤ open time < `end`, oldest first, at most `limit`. Optional.

    With a `start`: the first `limit` from it. With `start` None: the last `limit` before `end`. The candle that is
    still open is included where the range reaches it. An empty list means: there are none.
    """


@hookspec(firstresult=True)
def relay_instruments(session: aiohttp.ClientSession, settings: Settings) -> Awaitable[Sequence[Instrument]] | None:
    """Return what can be streamed now. Optional: without it any symbol is accepted when pinned to the provider."""


@hookspec(firstresult=True)
def relay_budgets(settings: Settings) -> Sequence[Budget] | None:
    """Return how much of the provider's limits is used. Pure, no I/O. Optional."""


@hookspec(firstresult=True)
def relay_memory(memory: Memory, settings: Settings) -> None:
    """Take a place for what has to be known after a restart. Called once, before any call but the first. Optional."""


@hookspec(firstresult=True)
def relay_hours(symbol: str, moment: int, settings: Settings) -> OpenHours | None:
    """Return the hours of trading that hold a moment, else the next ones; None: always. Pure, no I/O. Optional."""


HOOKS = (relay_provider, relay_stream, relay_candles, relay_instruments, relay_budgets, relay_memory, relay_hours)
