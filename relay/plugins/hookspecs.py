"""The hooks that a provider implements; what each means is in providers/README.md, one section a hook.

`session` is the provider's own and stays open; `settings` holds its settings by name, checked, as they are now. What a
hook raises as `ProviderError` reaches clients, but for its `detail`, which is logged; anything else is logged with its
traceback, and clients learn its type.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import pluggy

from relay.core.model import (
    Budget,
    Candle,
    Instrument,
    NativeAnswer,
    NativeLive,
    NativeUpdate,
    OpenHours,
    PriceUpdate,
    ProviderInfo,
)
from relay.core.past_change import PastChange
from relay.core.saved_value import Memory
from relay.core.trading_calendar import TradingCalendar
from relay.upstream.watchlist import Watchlist

PROJECT = "relay"
API_VERSION = 2
"""Raised when a hook or an argument is renamed, removed or changes its meaning; not when one is added."""
API_MINOR = 1
"""Raised when a hook, an argument, a field or a helper is added; 0 again when `API_VERSION` is raised."""
SINCE = {
    "relay_instrument": 1,
    "relay_past_changes": 1,
    "relay_native": 1,
    "relay_native_live": 1,
    "relay_native_stream": 1,
    "relay_clock": 1,
    "relay_close": 1,
    "relay_origins": 1,
    "relay_share": 1,
}
"""The minor number with which a hook came, where that is not 0."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function, or a method, as an implementation of the hook that has its name."""

Settings = Mapping[str, Any]


@hookspec(firstresult=True)
def relay_provider(settings: Settings) -> ProviderInfo | None:
    """Describe the provider, as its `settings` are. Pure, no I/O, for equal settings the same. Required.

    A plugin whose answer depends on settings is called first before they are read: each of them is None then, and only
    name, api and the declared settings of the answer count. Then it is called for each of its instances.
    Raise nothing: the plugin, or the instance, would not be loaded.
    """


@hookspec(firstresult=True)
def relay_stream(
    watchlist: Watchlist, session: aiohttp.ClientSession, settings: Settings
) -> AsyncGenerator[PriceUpdate, None] | None:
    """Yield updates of all streams on the watchlist from ONE upstream connection or polling loop. Required.

    `watchlist` changes while the feed runs, and accepts reports about its streams. Return when the upstream closes.
    Raise a `ProviderError` when it fails, or do not catch the error of aiohttp; never retry, never sleep before
    reconnecting, never catch `CancelledError`: the host waits, backfills, rotates and watches for silence. Connect with
    `session`, as `settings` say.
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
    """Return candles of a stream with `start` ≤ open time < `end`, oldest first, at most `limit`. Optional.

    The stream is of `symbol` at `interval`. Times are Unix seconds; `limit` counts candles, 5,000 at most. With a
    `start`: the first `limit` from it. With `start` None: the last `limit` before `end`. An open candle is included if
    the range reaches it. An empty list means that there are no candles. Request them with `session`, as `settings` say.

    Raise `UnknownSymbol` for a symbol that the venue does not have, `RateLimited` with the seconds to wait, and other
    `ProviderError` for failures.
    """


@hookspec(firstresult=True)
def relay_instruments(session: aiohttp.ClientSession, settings: Settings) -> Awaitable[Sequence[Instrument]] | None:
    """Return all instruments, requested with `session`, as `settings` say. Raise `ProviderError` if it fails.

    Optional: without it, and without `relay_instrument`, any symbol is accepted when pinned to the provider.
    """


@hookspec(firstresult=True)
def relay_instrument(
    symbol: str, session: aiohttp.ClientSession, settings: Settings
) -> Awaitable[Instrument | None] | None:
    """Return what `symbol` denotes, None if the venue does not have it. Optional, for venues that cannot list all.

    `symbol` is in upper case, as clients may have written it; the answer has the venue's own spelling. Called when a
    client asks for a symbol that is not known, with `session`, as `settings` say. The answer is kept. Raise
    `UnknownSymbol` instead of returning None if that is easier, `RateLimited` with the seconds to wait, and other
    `ProviderError` if the venue cannot be asked.
    """


@hookspec(firstresult=True)
def relay_budgets(settings: Settings) -> Sequence[Budget] | None:
    """Return how much of the provider's limits is used, by `settings`. Pure, no I/O. Optional. Raise nothing."""


@hookspec(firstresult=True)
def relay_memory(memory: Memory, settings: Settings) -> None:
    """Take `memory`, the place for data that is needed after a restart. Optional.

    Called with the `settings` of the start, after `relay_provider` and before any other hook. If several relays share
    the provider it is called again, with the same place, whenever another one saved something: that is the value then,
    and this relay may be the next to use it. Raise nothing: the provider would continue without its memory.
    """


@hookspec(firstresult=True)
def relay_hours(symbol: str, moment: int, settings: Settings) -> TradingCalendar | OpenHours | None:
    """Return the calendar of `symbol`, or the hours that hold `moment`, else the next ones; None: always. Optional.

    Return the same calendar each time: it is made once. `moment` is in Unix seconds. Pure, no I/O, by `settings`. Raise
    nothing: the market would count as open.
    """


@hookspec(firstresult=True)
def relay_past_changes(
    since: int | None, session: aiohttp.ClientSession, settings: Settings
) -> Awaitable[Sequence[PastChange]] | None:
    """Return what changed of the past, such as splits that were announced `since` then, or None: of late. Optional.

    Called at the start and every `instruments_ttl_s`, with streams or without; `since` is when it was called last, in
    Unix seconds, also by an earlier run. What was returned before may be returned again. Request it with `session`, as
    `settings` say. Raise a `ProviderError` if that fails.
    """


@hookspec(firstresult=True)
def relay_clock(settings: Settings) -> Callable[[], float] | None:
    """Return a function that says what time it is at the provider; None: the relay finds that out. Optional.

    Called once with the `settings` of the start. The function returns Unix seconds, at once and without I/O, and never
    goes back; the relay judges by it which candles are over. It is for a provider whose time is not the real one, such
    as a replay. Raise nothing: the relay would find out the time itself.
    """


@hookspec(firstresult=True)
def relay_close(session: aiohttp.ClientSession, settings: Settings) -> Awaitable[None] | None:
    """Let go of what was made with these `settings`: clients of libraries, connections, files. Optional.

    Called once for each settings, when the last feed and the last call with them have ended: at the shutdown of the
    relay, and when other settings have replaced them. `session` still works; do not close it. It may take 2 seconds.
    Raise nothing: it is logged, and the relay goes on.
    """


@hookspec(firstresult=True)
def relay_native(
    path: str, query: Mapping[str, str], session: aiohttp.ClientSession, settings: Settings
) -> Awaitable[NativeAnswer] | None:
    """Return the venue's own answer to a GET of `path` with `query`, for programs that speak its protocol. Optional.

    Only market data that needs no key, from a list of your own. Spend your budget for it, request it with `session`, as
    `settings` say, and return refusals of the venue as they are. Raise `RateLimited` with the seconds to wait,
    `BadAnswer` for a path that is not on the list, and other `ProviderError` for failures.
    """


@hookspec(firstresult=True)
def relay_native_live(path: str, query: Mapping[str, str], settings: Settings) -> NativeLive | None:
    """Return the stream of `relay_native_stream` that has the answer to a GET of `path` with `query`; None: none has.

    Optional. Pure, no I/O, by `settings`. Called for each such request. Raise nothing: the venue would be asked.
    """


@hookspec(firstresult=True)
def relay_native_stream(
    watchlist: Watchlist, session: aiohttp.ClientSession, settings: Settings
) -> AsyncGenerator[NativeUpdate, None] | None:
    """Yield what the venue's own streams on the watchlist say, from ONE connection, with which no candle comes.

    Optional. Its keys are those of `relay_native_live`: what is asked for again and again is put on the `watchlist`.
    All else is as with `relay_stream`: connect with `session`, as `settings` say, return when the upstream closes.
    Raise a `ProviderError` when it fails. While nothing comes of a stream the venue is asked by `relay_native`.
    """


@hookspec(firstresult=True)
def relay_origins(settings: Settings) -> Sequence[str] | None:
    """Return a mark of this instance and those of the relays that its candles come through. Optional.

    For a provider that asks other relays, as `settings` say: the status of each has all marks, so that one that finds
    its own there knows that it asks itself. A mark is a text that no other instance has; at most 64 of them. Pure, no
    I/O, called for each request of the status. Raise nothing.
    """


@hookspec(firstresult=True)
def relay_share(parts: int, settings: Settings) -> None:
    """Spend from now on one of `parts` equal parts of the provider's limits; 1 is all. Optional.

    Called when several relays that share the provider cannot reach each other, and each spends by itself, and again
    when that ends. Pure, no I/O, by `settings`. Raise nothing: the provider would spend all of it.
    """


HOOKS = (
    relay_provider,
    relay_stream,
    relay_candles,
    relay_instruments,
    relay_instrument,
    relay_budgets,
    relay_memory,
    relay_hours,
    relay_past_changes,
    relay_clock,
    relay_close,
    relay_native,
    relay_native_live,
    relay_native_stream,
    relay_origins,
    relay_share,
)
