"""Which provider serves a symbol: known from the lists that providers give, never guessed from how it is spelt."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import orjson

from relay.errors import RESTART_S, BadAnswer, Code, ProviderError, RateLimited, RequestError, StoreError
from relay.events import event
from relay.fields import shown
from relay.model import Instrument, StreamKey
from relay.plugins.provider import Provider
from relay.storage.documents import Documents

log = logging.getLogger(__name__)

SETTLE_TIMEOUT_S = 10.0
RETRY_S = (2.0, 5.0, 15.0, 60.0, 120.0, 300.0, 900.0)
"""Waits before a list is asked for again: ever longer, since a list may cost credits that streams need."""


class Target(NamedTuple):
    """What a client's name stands for. `name` is the canonical spelling of the symbol on the wire."""

    provider: Provider
    key: StreamKey
    name: str


class Listed(NamedTuple):
    """An instrument and the provider that lists it."""

    provider: Provider
    instrument: Instrument

    @property
    def intervals(self) -> tuple[str, ...]:
        """The intervals it can be had at."""
        return self.instrument.intervals or self.provider.info.intervals


class Directory:
    """The instruments of all providers, refreshed in the background and remembered across restarts.

    A bare symbol belongs to the first provider, in the order given, that lists it; it stays with that provider while
    the process runs. The same symbol at another provider is reached, and named on the wire, as `provider:SYMBOL`.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        documents: Documents,
        *,
        on_delisted: Callable[[Provider, set[str]], None] = lambda provider, symbols: None,
    ) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._documents = documents
        self._on_delisted = on_delisted
        self.version = 0
        self._listed: dict[str, dict[str, Instrument]] = {}
        self._owners: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self._asks_at: dict[str, float] = {}
        self._settled: dict[str, asyncio.Event] = {
            provider.name: asyncio.Event() for provider in providers if provider.lists_instruments
        }
        self._wakes = {name: asyncio.Event() for name in self._settled}
        self._tasks: list[asyncio.Task[None]] = []
        self._patience_ends = 0.0

    def start(self) -> None:
        """Begin to load and refresh the lists; `close` ends that."""
        self._patience_ends = asyncio.get_running_loop().time() + SETTLE_TIMEOUT_S
        for name in self._settled:
            self._tasks.append(asyncio.create_task(self._keep(self._providers[name]), name=f"instruments of {name}"))

    async def close(self) -> None:
        """Stop refreshing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def ask_anew(self, name: str) -> None:
        """Ask a provider for its list now, whatever it answered before: its settings changed."""
        if name in self._wakes:
            self._wakes[name].set()

    # -- loading ------------------------------------------------------------------------------------------------------

    async def _keep(self, provider: Provider) -> None:
        failures = 0
        while True:
            try:
                instruments = await provider.instruments()
                self._take(provider, instruments)
            except ProviderError as error:
                wait = RETRY_S[min(failures, len(RETRY_S) - 1)]
                if isinstance(error, RateLimited):
                    wait = max(wait, error.retry_after)
                failures += 1
                if failures == 1:
                    about = event("symbols_missing", provider=provider.name, reason=str(error))
                    log.warning("the symbol list of %s cannot be had (%s); retrying", provider.name, error, extra=about)
                    await self._recall(provider)
                self._problems[provider.name] = str(error)
            else:
                wait, failures = provider.info.instruments_ttl_s, 0
                self._problems.pop(provider.name, None)
                await self._remember(provider, instruments)
            self._asks_at[provider.name] = asyncio.get_running_loop().time() + wait
            self._settled[provider.name].set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wakes[provider.name].wait()
            self._wakes[provider.name].clear()

    def _take(self, provider: Provider, instruments: Iterable[Instrument]) -> None:
        old = self._listed.get(provider.name, {})
        try:
            new = {instrument.symbol.upper(): instrument for instrument in instruments}
        except AttributeError:
            raise BadAnswer(f"provider {provider.name}: a symbol in its list is no text") from None
        self._listed[provider.name] = new
        self.version += 1
        gone = old.keys() - new.keys()
        if gone:
            self._on_delisted(provider, gone)

    async def _remember(self, provider: Provider, instruments: Sequence[Instrument]) -> None:
        try:
            # As plain rows: orjson takes no named tuples.
            rows = orjson.dumps([tuple(instrument) for instrument in instruments])
            await self._documents.put(f"instruments:{provider.name}", rows)
        except (StoreError, TypeError) as error:
            about = event("symbols_not_stored", provider=provider.name)
            log.debug("the symbol list of %s was not stored: %s", provider.name, error, extra=about)

    async def _recall(self, provider: Provider) -> None:
        """Fall back on the list of an earlier run."""
        try:
            document = await self._documents.get(f"instruments:{provider.name}")
            rows = orjson.loads(document.body) if document else []
            instruments = [
                Instrument(row[0], row[1], row[2], row[3], tuple(row[4]) if row[4] else None) for row in rows
            ]
            if instruments and provider.name not in self._listed:
                self._take(provider, instruments)
        except (StoreError, BadAnswer, ValueError, TypeError, LookupError) as error:
            about = event("symbols_not_recalled", provider=provider.name)
            log.debug("there is no symbol list of %s from an earlier run: %s", provider.name, error, extra=about)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def settled(self, pin: str | None = None, symbol: str | None = None) -> None:
        """Wait until the lists that decide about a symbol (without one: all lists) were asked for once.

        Nobody waits any more when the relay runs for some seconds: a provider that hangs holds up no other.
        """
        if symbol is not None and pin is not None and pin not in self._providers:
            pin, symbol = None, f"{pin}:{symbol}".upper()
        if self._is_settled(pin, symbol):
            return
        try:
            async with asyncio.timeout_at(self._patience_ends):
                for name, settled in self._settled.items():
                    if pin in (None, name):
                        await settled.wait()
                        if symbol is not None and symbol in self._listed.get(name, ()):
                            return
        except TimeoutError:
            return

    def _is_settled(self, pin: str | None, symbol: str | None) -> bool:
        """Say whether there is nothing to wait for, which is nearly always so."""
        for name, settled in self._settled.items():
            if pin in (None, name):
                if not settled.is_set():
                    return asyncio.get_running_loop().time() >= self._patience_ends
                if symbol is not None and symbol in self._listed.get(name, ()):
                    return True
        return True

    def problem(self, name: str) -> str | None:
        """Return why a provider's list could not be had lately."""
        return self._problems.get(name)

    @property
    def asset_classes(self) -> list[str]:
        """The asset classes that providers bring, sorted."""
        return sorted({name for provider in self._providers.values() for name in provider.info.asset_classes})

    def listed(self, asset_class: str | None = None) -> list[Listed]:
        """Return all instruments, sorted by symbol. Raises `RequestError` for an asset class nobody has."""
        known = self.asset_classes
        if asset_class is not None and asset_class not in known:
            raise RequestError(
                Code.INVALID_REQUEST, f"unknown asset_class {shown(asset_class)}; use one of {', '.join(known)}"
            )
        found = [
            Listed(self._providers[name], instrument)
            for name, instruments in self._listed.items()
            for instrument in instruments.values()
            if asset_class is None or instrument.asset_class == asset_class
        ]
        return sorted(found, key=lambda listed: (listed.instrument.symbol, listed.provider.name))

    def name_of(self, provider: Provider, symbol: str) -> str:
        """Return the canonical name of a provider's symbol: bare if it belongs to this provider, else pinned."""
        return symbol if self._owner(symbol) == provider.name else f"{provider.name}:{symbol}"

    def _owner(self, symbol: str) -> str | None:
        """Return who a bare symbol belongs to: whoever it was resolved to before, else the first that lists it."""
        owner = self._owners.get(symbol)
        if owner is None:
            for name in self._providers:
                if symbol in self._listed.get(name, ()):
                    return name
        if owner is None and (fallback := self._first_open()) is not None:
            owner = fallback.name
        return owner

    def resolve(self, pin: str | None, symbol: str, interval: str) -> Target:
        """Return what a client's name stands for. Raises `RequestError` (unknown_symbol, unsupported_interval,
        provider_unavailable).
        """
        asked = symbol if pin is None else f"{pin}:{symbol}"
        if pin is not None and pin not in self._providers:
            # No provider is called so: the colon belongs to the symbol.
            pin, symbol = None, asked.upper()
        try:
            provider = self._provider_of(pin, symbol)
            instrument = self._listed.get(provider.name, {}).get(symbol)
            intervals = (instrument.intervals if instrument else None) or provider.info.intervals
            if interval not in intervals:
                raise RequestError(
                    Code.UNSUPPORTED_INTERVAL,
                    f"{provider.info.title} has no interval {interval} for {shown(symbol)}; "
                    f"use one of {' '.join(intervals)}",
                )
            if provider.refusal is not None:
                raise _refused(provider.refusal)
        except RequestError as error:
            error.symbol, error.interval = asked, interval
            raise
        if instrument is not None and (owner := self._owner(symbol)) is not None:
            # From now on clients know the stream by this name.
            self._owners[symbol] = owner
        own_spelling = instrument.symbol if instrument else symbol
        return Target(provider, StreamKey(own_spelling, interval), self.name_of(provider, symbol))

    def _provider_of(self, pin: str | None, symbol: str) -> Provider:
        if pin is not None:
            provider = self._providers[pin]
            if not provider.lists_instruments or symbol in self._listed.get(pin, ()):
                return provider
            self._complain_if_unlisted([provider])
            raise RequestError(
                Code.UNKNOWN_SYMBOL,
                f"unknown symbol {shown(symbol)}: {provider.info.title} does not list it; "
                "GET /api/v1/market-data/symbols lists those that can be had",
            )
        owner = self._owner(symbol)
        if owner is not None and (symbol in self._listed.get(owner, ()) or owner not in self._settled):
            return self._providers[owner]
        # Its owner lists it no longer; somebody else may.
        for name, instruments in self._listed.items():
            if symbol in instruments:
                return self._providers[name]
        self._complain_if_unlisted(self._providers.values())
        raise RequestError(
            Code.UNKNOWN_SYMBOL,
            f"unknown symbol {shown(symbol)}; GET /api/v1/market-data/symbols lists those that can be had",
        )

    def _first_open(self) -> Provider | None:
        """Return the first provider that takes any symbol, because it gives no list."""
        return next((provider for provider in self._providers.values() if not provider.lists_instruments), None)

    def _complain_if_unlisted(self, providers: Iterable[Provider]) -> None:
        for provider in providers:
            if provider.lists_instruments and provider.name not in self._listed:
                if provider.refusal is not None:
                    raise _refused(provider.refusal)
                reason = self._problems.get(provider.name, "it is still being loaded")
                raise RequestError(
                    Code.PROVIDER_UNAVAILABLE,
                    f"the symbol list of {provider.info.title} is not there yet: {reason}",
                    retry_after=self._asked_again_in_s(provider.name),
                )

    def _asked_again_in_s(self, name: str) -> float:
        """Return in how many seconds there may be a list; at least a moment, since the answer takes one."""
        asks_at = self._asks_at.get(name)
        left_s = 0.0 if asks_at is None else asks_at - asyncio.get_running_loop().time()
        return max(left_s, RETRY_S[0])


def _refused(reason: str) -> RequestError:
    return RequestError(Code.PROVIDER_UNAVAILABLE, reason, retry_after=RESTART_S)
