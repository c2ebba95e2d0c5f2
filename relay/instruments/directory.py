"""Which provider serves a symbol: known from the lists that providers give, never guessed from how it is spelt."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from relay.core.derived_intervals import Derivation
from relay.core.errors import Code, RequestError
from relay.core.intervals import INTERVALS
from relay.core.model import Instrument, StreamKey
from relay.core.near_names import did_you_mean
from relay.core.rate_limits import FairQuota
from relay.instruments.derivations import derivable, derivation_of, intervals_of, is_available
from relay.instruments.listing import Standing
from relay.instruments.lookups import NOBODY, Lookups
from relay.instruments.ownership import Ownership
from relay.instruments.saved_list import WAITS, ListWaits, OnList, SavedList, take_no_notice
from relay.instruments.unresolved import refused, suggestion, unanswered, undecided, unknown
from relay.plugins.provider import Provider
from relay.protocol.fields import shown
from relay.protocol.symbol_names import whole_symbol
from relay.storage.documents import Documents

MOST_SETTLING = 2000
"""So many symbols of one provider, and so many without one, are waited for at a time, whoever asks for them."""


class Target(NamedTuple):
    """What a client's name stands for. `name` is the canonical spelling of the symbol on the wire."""

    provider: Provider
    key: StreamKey
    name: str


class Meant(NamedTuple):
    """Whose instrument a client's name stands for, at any interval; `instrument` None: its provider lists nothing.

    `symbol` is the provider's own spelling.
    """

    provider: Provider
    instrument: Instrument | None
    symbol: str

    @property
    def id(self) -> str:
        """What always means this instrument."""
        return f"{self.provider.name}:{self.symbol.upper()}"

    @property
    def intervals(self) -> tuple[str, ...]:
        """The intervals that there are candles of, from the provider or built, from short to long."""
        known = {
            *intervals_of(self.provider, self.instrument),
            *derivable(self.provider, self.symbol, self.instrument),
        }
        return tuple(one for one in INTERVALS if one in known)


class Named(Protocol):
    """A provider, as far as it is known by its name."""

    @property
    def name(self) -> str: ...


class _WaitedFor(NamedTuple):
    # What is done for a symbol, and the clients that wait for it.
    task: asyncio.Task[None]
    clients: list[str]


class Listed(NamedTuple):
    """An instrument and the provider that lists it."""

    provider: Provider
    instrument: Instrument

    @property
    def intervals(self) -> tuple[str, ...]:
        """The intervals it can be had at."""
        return self.instrument.intervals or self.provider.info.intervals

    @property
    def derived_intervals(self) -> tuple[str, ...]:
        """The intervals that the relay builds of those."""
        return tuple(derivable(self.provider, self.instrument.symbol, self.instrument))


class Directory:
    """The instruments of all providers, refreshed in the background and remembered across restarts.

    A symbol whose owner is another provider is reached, and named on the wire, as `provider:SYMBOL`. Providers that
    answer for one symbol at a time are asked for one that no list has, one after the other. `on_list` takes the symbols
    that a provider lists, before a new one can be asked for; it must not raise. Who names a provider that is
    `switched_off` is told so. At most `most_settling` symbols of a provider are waited for at a time.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        documents: Documents,
        *,
        waits: ListWaits = WAITS,
        on_list: OnList = take_no_notice,
        switched_off: Collection[str] = (),
        most_settling: int = MOST_SETTLING,
    ) -> None:
        self._most_settling = most_settling
        self._switched_off = frozenset(switched_off)
        self._providers = {provider.name: provider for provider in providers}
        self.version = 0
        """Another one when anything but the extras of an instrument may be different."""
        self.lists_taken = 0
        self._kept = {
            provider.name: SavedList(provider, documents, partial(self._note_answer, provider), on_list, waits=waits)
            for provider in providers
            if provider.lists_instruments
        }
        self._lookups = {
            provider.name: Lookups(provider, documents, partial(self._note_answer, provider))
            for provider in providers
            if provider.looks_up_instruments
        }
        self._ownership = Ownership(self._providers, self._kept, self._lookups)
        self.name_of = self._ownership.name_of
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: defaultdict[str | None, dict[str, _WaitedFor]] = defaultdict(dict)
        self._quotas: defaultdict[str | None, FairQuota[str, str]] = defaultdict(FairQuota)
        self._settle_s = waits.settle_s
        self._patience_ends = 0.0

    async def start(self) -> None:
        """Recall the lists of an earlier run, and begin to load and refresh them; `close` ends that."""
        for kept in self._kept.values():
            await kept.recall()
        for lookups in self._lookups.values():
            await lookups.recall()
        self._patience_ends = asyncio.get_running_loop().time() + self._settle_s
        for name, kept in self._kept.items():
            self._tasks.append(asyncio.create_task(kept.keep(), name=f"instruments of {name}"))

    async def close(self) -> None:
        """Stop refreshing."""
        tasks = [*self._tasks, *(one.task for some in self._settling.values() for one in some.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *map(Lookups.close, self._lookups.values()), return_exceptions=True)
        self._tasks.clear()

    async def keep_again(self) -> None:
        """Store all lists in another database than before."""
        for kept in self._kept.values():
            await kept.keep_again()
        for lookups in self._lookups.values():
            await lookups.save()

    def ask_anew(self, name: str) -> None:
        """Ask a provider for its list now, whatever it answered before: its settings changed."""
        for sources in (self._kept, self._lookups):
            if name in sources:
                sources[name].ask_anew()

    def _note_answer(self, provider: Provider, is_visible: bool) -> None:
        self.lists_taken += 1
        self.version += is_visible
        # Also if nothing is new but extras: what is kept must not be the list of before.
        provider.hours.note_instruments(*self._ownership.instruments_of(provider.name))

    # -- asking -------------------------------------------------------------------------------------------------------

    async def lists_settled(self, pin: str | None = None) -> None:
        """Wait until the list of a provider, without one all lists, were asked for once, as long as `settled` does."""
        self._note_use(pin)
        lists = [kept for name, kept in self._kept.items() if pin in (None, name)]
        await self._first_answers(lists)
        for kept in lists if pin is not None else ():
            if not kept.listing.is_known:
                kept.look()
                await kept.answer()

    async def settled(self, pin: str | None, symbol: str, clients: Sequence[str]) -> None:
        """Wait until the lists that decide about a symbol were asked for once.

        `clients` are those who want to know it: questions for one symbol take turns among clients.

        Nobody waits for that any more when the relay runs for some seconds: a provider that hangs holds up no other.
        A list of an earlier run is taken for the present one where there is no answer to the first question soon.
        Lists that lack a symbol are asked for once more, within limits, and what they answer quickly is waited for.
        """
        self._note_use(pin)
        pin, symbol = self._understood(pin, symbol)
        while unsettled := [kept for kept in self._ownership.lacking(pin, symbol) if not kept.settled.is_set()]:
            # Of those that an earlier run left a list of, another one may have it meanwhile.
            unsettled.sort(key=lambda kept: kept.listing.is_known)
            if not await self._first_answers(unsettled[:1]):
                break
        has_name = self._ownership.has_name(pin, symbol)
        if not has_name:
            for kept in self._ownership.unconfirmed(symbol):
                await kept.answer()
        for lookups in self._ownership.to_ask(pin, symbol):
            await lookups.ask(symbol, clients)
            if lookups.get(symbol) is not None:
                break
        lacking = self._ownership.lacking(pin, symbol)
        for kept in lacking:
            kept.look()
        for kept in lacking:
            await kept.answer()
            if not self._ownership.lacking(pin, symbol):
                break
        if pin is not None and not has_name:
            # They have to do with what the stream is called.
            for kept in self._ownership.decide(symbol)[1]:
                await kept.answer()

    def is_settled(self, pin: str | None, symbol: str) -> bool:
        """Whether `settled` has nothing to do for a symbol, as for nearly all."""
        pin, symbol = self._understood(pin, symbol)
        if self._ownership.lacking(pin, symbol):
            return False
        if not self._ownership.has_name(pin, symbol):
            is_undecided = pin is not None and self._ownership.decide(symbol)[1]
            if is_undecided or self._ownership.unconfirmed(symbol):
                return False
        for lookups in self._ownership.to_ask(pin, symbol):
            if not lookups.is_settled(symbol):
                return False
            if lookups.get(symbol) is not None:
                lookups.begin(symbol, NOBODY)
                break
        return True

    def settling(self, pin: str | None, symbol: str, client: str) -> asyncio.Task[None]:
        """Return what `settled` does for a symbol, once for all who wait for it at a time; not to be cancelled.

        Raises `RequestError` while too many other symbols are waited for, or the client waits for more than are free.
        """
        pin, symbol = self._understood(pin, symbol)
        settling, quota = self._settling[pin], self._quotas[pin]
        known = settling.get(symbol)
        if known is not None:
            if client not in known.clients:
                known.clients.append(client)
                for lookups in self._ownership.to_ask(pin, symbol):
                    lookups.hasten(symbol, client)
            return known.task
        if not quota.may_open(client, settling, self._most_settling):
            raise RequestError(
                Code.PROVIDER_UNAVAILABLE,
                f"{len(settling)} other symbols that no list has are waited for; ask again",
                retry_after=self._settle_s,
            )
        quota.opened(symbol, client, settling)
        clients = [client]
        task = asyncio.create_task(self.settled(pin, symbol, clients), name="settling of a symbol")
        settling[symbol] = _WaitedFor(task, clients)
        task.add_done_callback(lambda _: settling.pop(symbol, None))
        return task

    def holder(self, pin: str | None, symbol: str) -> tuple[str | None, str]:
        """Return whose a client's name is, None as long as that is not certain, and the symbol in it."""
        pin, symbol = self._understood(pin, symbol)
        if pin is None:
            # Before that an earlier provider may still say that it has it.
            is_settled = self.is_settled(None, symbol)
            pin = self._ownership.owner(symbol) if is_settled else self._ownership.fixed(symbol)
        return pin, symbol

    async def _first_answers(self, lists: Iterable[SavedList]) -> bool:
        """Wait for the first answers of lists; return False if that was given up."""
        try:
            async with asyncio.timeout_at(self._patience_ends):
                for kept in lists:
                    if kept.settled.is_set():
                        continue
                    await (kept.settled.wait() if kept.is_wanted else kept.answer())
        except TimeoutError:
            return False
        return True

    def _note_use(self, name: str | None) -> None:
        """Take note that somebody named a provider: what its list lacks is missed from now on."""
        if name in self._kept:
            self._kept[name].is_wanted = True

    def _understood(self, pin: str | None, symbol: str) -> tuple[str | None, str]:
        """Return pin and symbol; the colon belongs to the symbol where no provider is called like the pin."""
        is_name = pin is None or pin in self._providers or pin in self._switched_off
        return (pin, symbol) if is_name else (None, whole_symbol(pin, symbol))

    def standing(self, provider: str, symbol: str) -> Standing:
        """Return what a provider's list says of a symbol in upper case."""
        if provider in self._kept and (found := self._kept[provider].listing.standing(symbol)) != "unknown":
            return found
        return self._lookups[provider].standing(symbol) if provider in self._lookups else "unknown"

    def of_provider(self, name: str) -> list[Instrument]:
        """Return what a provider lists, in its order. Raises `RequestError` while nobody knows."""
        self._check_is_known(name)
        return [*self._kept[name].listing.instruments.values()]

    def instrument(self, name: str, symbol: str) -> Instrument | None:
        """Return what a provider lists by a symbol in upper case. Raises `RequestError` while nobody knows."""
        self._check_is_known(name)
        return self._kept[name].listing.instruments.get(symbol)

    def _check_is_known(self, name: str) -> None:
        kept = self._kept[name]
        if not kept.listing.is_known:
            said = f"the symbol list of {kept.provider.info.title} is not loaded yet"
            raise RequestError(Code.PROVIDER_UNAVAILABLE, said, retry_after=kept.asks_in_s)

    def problem(self, name: str) -> str | None:
        """Return why a provider's list could not be had lately, if anybody misses it."""
        kept = self._kept.get(name)
        sources = (kept if kept is not None and kept.is_wanted else None, self._lookups.get(name))
        return next((one.problem for one in sources if one is not None and one.problem), None)

    @property
    def asset_classes(self) -> list[str]:
        """The asset classes that providers bring, sorted."""
        return sorted({name for provider in self._providers.values() for name in provider.info.asset_classes})

    def check_asset_class(self, asset_class: str | None) -> None:
        """Refuse an asset class that nobody has; None is all. Raises `RequestError`."""
        known = self.asset_classes
        if asset_class is None:
            return
        if asset_class not in known:
            raise RequestError(
                Code.INVALID_REQUEST, f"unknown asset_class {shown(asset_class)}; use one of {', '.join(known)}"
            )
        for name, kept in self._kept.items():
            if asset_class in kept.provider.info.asset_classes:
                self._note_use(name)

    @property
    def listing(self) -> list[str]:
        """The names of the providers of which instruments are known, sorted."""
        return sorted({*self._kept, *self._lookups})

    def check_provider(self, name: str | None) -> None:
        """Refuse a provider that there is not, or that lists nothing; None is all. Raises `RequestError`."""
        if name is None or name in self._kept or name in self._lookups:
            self._note_use(name)
            return
        known = ", ".join(self.listing) or "none, since no provider lists instruments"
        if name in self._switched_off:
            text = f"the provider {name} is switched off in this relay; use one of {known}"
        else:
            text = f"unknown provider {shown(name)}; use one of {known}{did_you_mean(name[:40], self.listing)}"
        raise RequestError(Code.INVALID_REQUEST, text)

    @property
    def state(self) -> tuple[object, ...]:
        """What is another value once there are other instruments, or other names of them."""
        return self.version, *(kept.provider.lacks_key for kept in self._kept.values())

    def everything(self) -> Iterator[Listed]:
        """Yield all instruments, provider by provider; lists may change meanwhile."""
        for kept in self._kept.values():
            for instrument in [*kept.listing.instruments.values()]:
                yield Listed(kept.provider, instrument)
        for name, lookups in self._lookups.items():
            for symbol, instrument in lookups.instruments.items():
                if not self._ownership.is_listed(name, symbol):
                    yield Listed(lookups.provider, instrument)

    def known_of(self, name: str) -> int:
        """Return how many instruments of a provider are known; some may count twice if it also lists its own."""
        listed = len(self._kept[name].listing.instruments) if name in self._kept else 0
        return listed + (len(self._lookups[name].instruments) if name in self._lookups else 0)

    def derivation(self, source: Named, key: StreamKey) -> Derivation | None:
        """Return how the candles of a provider's stream are built, None if it has them or nobody can."""
        provider = self._providers.get(source.name)
        if provider is None:
            return None
        return derivation_of(provider, key, self._listed(source.name, key.symbol))

    def _listed(self, name: str, symbol: str) -> Instrument | None:
        """Return what is known of an instrument by its provider's own spelling."""
        return self._ownership.instrument(name, symbol) or self._ownership.instrument(name, symbol.upper())

    def resolve(self, pin: str | None, symbol: str, interval: str) -> Target:
        """Return what a client's name stands for. Raises `RequestError` (unknown_symbol, unsupported_interval,
        provider_unavailable).
        """
        asked = symbol if pin is None else f"{pin}:{symbol}"
        pin, symbol = self._understood(pin, symbol)
        try:
            meant = self._meant(pin, symbol)
            provider, instrument, own_spelling = meant
            if not is_available(provider, symbol, interval, instrument):
                raise RequestError(
                    Code.UNSUPPORTED_INTERVAL,
                    f"{provider.info.title} has no interval {interval} for {shown(symbol)}; "
                    f"use one of {' '.join(meant.intervals)}",
                )
            if provider.refusal is not None:
                raise refused(provider)
        except RequestError as error:
            error.symbol, error.interval = asked, interval
            raise
        if instrument is not None:
            self._ownership.fix(provider, symbol)
        return Target(provider, StreamKey(own_spelling, interval), self.name_of(provider, symbol))

    def meant(self, pin: str | None, symbol: str) -> Meant:
        """Return whose instrument a name stands for. Raises `RequestError`, also of a provider that refuses."""
        found = self._meant(*self._understood(pin, symbol))
        if found.provider.refusal is not None:
            raise refused(found.provider)
        return found

    def _meant(self, pin: str | None, symbol: str) -> Meant:
        provider = self._provider_of(pin, symbol)
        instrument = self._ownership.instrument(provider.name, symbol)
        return Meant(provider, instrument, instrument.symbol if instrument else symbol)

    def _provider_of(self, pin: str | None, symbol: str) -> Provider:
        if pin is not None and pin not in self._providers:
            raise RequestError(
                Code.UNKNOWN_SYMBOL,
                f"unknown symbol {shown(symbol)}: the provider {pin} is switched off in this relay; enabled providers "
                f"are {', '.join(self._providers)}",
            )
        if pin is not None:
            return self._pinned(pin, symbol)
        owner = self._ownership.fixed(symbol)
        if owner is None:
            owner, missing = self._ownership.decide(symbol)
            if missing:
                holder = self._providers[owner] if owner is not None and self._ownership.has(owner, symbol) else None
                raise undecided(symbol, holder, missing, has_others=len(self._providers) > len(missing))
            for lookups in () if owner is None else self._ownership.failed_before(owner, symbol):
                if (error := unanswered(symbol, lookups)) is not None:
                    raise error
        if owner is not None and self._ownership.has(owner, symbol):
            return self._providers[owner]
        # Its owner has it no longer, or it has none; somebody else may.
        for name in (*self._kept, *self._lookups):
            if self._ownership.has(name, symbol) and not self._providers[name].info.always_pinned:
                return self._providers[name]
        for lookups in self._lookups.values():
            if (error := unanswered(symbol, lookups)) is not None:
                raise error
        if owner is not None and self._ownership.is_open(owner):
            return self._providers[owner]
        for kept in self._kept.values():
            if kept.provider.lacks_key and not kept.listing.is_known:
                raise refused(kept.provider)
        raise self._unknown(symbol, "no provider lists it", (*self._kept, *self._lookups))

    def _pinned(self, pin: str, symbol: str) -> Provider:
        self._note_use(pin)
        provider, kept, lookups = self._providers[pin], self._kept.get(pin), self._lookups.get(pin)
        if self._ownership.is_open(pin) or self._ownership.has(pin, symbol):
            return provider
        if lookups is not None:
            raise unanswered(symbol, lookups) or self._unknown(symbol, f"{provider.info.title} does not have it", [pin])
        if kept is not None and not kept.listing.is_known:
            raise refused(provider) if provider.lacks_key else undecided(symbol, None, [kept], has_others=False)
        raise self._unknown(symbol, f"{provider.info.title} does not list it", [pin])

    def _unknown(self, symbol: str, why: str, among: Iterable[str]) -> RequestError:
        named = [self._providers[name] for name in among]
        everybody = [self._providers[name] for name in self._providers if name in self._kept or name in self._lookups]
        return unknown(symbol, why, suggestion(symbol, named, everybody, self._ownership.instrument, self.name_of))
