"""Which provider serves a symbol: known from the lists that providers give, never guessed from how it is spelt."""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from relay.core.errors import READMIT_S, RESTART_S, Code, RequestError
from relay.core.model import Instrument, StreamKey
from relay.core.near_names import did_you_mean
from relay.instruments.listing import Standing
from relay.instruments.saved_list import WAITS, ListWaits, OnList, SavedList, take_no_notice
from relay.instruments.spellings import other_spellings, typing_errors
from relay.plugins.provider import Provider
from relay.protocol.fields import WHERE_SYMBOLS_ARE, shown
from relay.protocol.symbol_names import whole_symbol
from relay.storage.documents import Documents

_MOST_SUGGESTED = 2


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
    the process runs. It belongs to nobody while the list of an earlier provider that could have it is missing. The same
    symbol at another provider is reached, and named on the wire, as `provider:SYMBOL`. `on_list` takes the symbols that
    a provider lists, before a new one can be asked for; it must not raise. Who names a provider that is `switched_off`
    is told so.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        documents: Documents,
        *,
        waits: ListWaits = WAITS,
        on_list: OnList = take_no_notice,
        switched_off: Collection[str] = (),
    ) -> None:
        self._switched_off = frozenset(switched_off)
        self._providers = {provider.name: provider for provider in providers}
        self.version = 0
        """Another one when anything but the extras of an instrument may be different."""
        self.lists_taken = 0
        self._owners: dict[str, str] = {}
        # What was told by its long name while nobody knew whose the bare one is: that name stays.
        self._long: set[tuple[str, str]] = set()
        self._kept = {
            provider.name: SavedList(provider, documents, self._note_answer, on_list, waits=waits)
            for provider in providers
            if provider.lists_instruments
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._settle_s = waits.settle_s
        self._patience_ends = 0.0

    async def start(self) -> None:
        """Recall the lists of an earlier run, and begin to load and refresh them; `close` ends that."""
        for kept in self._kept.values():
            await kept.recall()
        self._patience_ends = asyncio.get_running_loop().time() + self._settle_s
        for name, kept in self._kept.items():
            self._tasks.append(asyncio.create_task(kept.keep(), name=f"instruments of {name}"))

    async def close(self) -> None:
        """Stop refreshing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def keep_again(self) -> None:
        """Store all lists in another database than before."""
        for kept in self._kept.values():
            await kept.keep_again()

    def ask_anew(self, name: str) -> None:
        """Ask a provider for its list now, whatever it answered before: its settings changed."""
        if name in self._kept:
            self._kept[name].ask_anew()

    def _note_answer(self, is_visible: bool) -> None:
        self.lists_taken += 1
        self.version += is_visible

    # -- asking -------------------------------------------------------------------------------------------------------

    async def settled(self, pin: str | None = None, symbol: str | None = None) -> None:
        """Wait until the lists that decide about a symbol (without one: all lists) were asked for once.

        Nobody waits for that any more when the relay runs for some seconds: a provider that hangs holds up no other.
        Lists that lack a symbol are asked for once more, within limits, and what they answer quickly is waited for.
        """
        if symbol is None:
            await self._first_answers([kept for name, kept in self._kept.items() if pin in (None, name)])
            return
        pin, symbol = self._understood(pin, symbol)
        while unsettled := [kept for kept in self._lacking(pin, symbol) if not kept.settled.is_set()]:
            if not await self._first_answers(unsettled[:1]):
                break
        lacking = self._lacking(pin, symbol)
        for kept in lacking:
            kept.look()
        for kept in lacking:
            await kept.answer()
            if not self._lacking(pin, symbol):
                break
        if pin is not None and symbol not in self._owners:
            # They have to do with what the stream is called.
            for kept in self._decide(symbol)[1]:
                await kept.answer()

    def is_settled(self, pin: str | None, symbol: str) -> bool:
        """Whether `settled` has nothing to do for a symbol, as for nearly all."""
        pin, symbol = self._understood(pin, symbol)
        is_owned = pin is None or symbol in self._owners
        return not self._lacking(pin, symbol) and (is_owned or not self._decide(symbol)[1])

    async def _first_answers(self, lists: Iterable[SavedList]) -> bool:
        """Wait for the first answers of lists; return False if that was given up."""
        try:
            async with asyncio.timeout_at(self._patience_ends):
                for kept in lists:
                    if not kept.settled.is_set():
                        await kept.settled.wait()
        except TimeoutError:
            return False
        return True

    def _understood(self, pin: str | None, symbol: str) -> tuple[str | None, str]:
        """Return pin and symbol; the colon belongs to the symbol where no provider is called like the pin."""
        is_name = pin is None or pin in self._providers or pin in self._switched_off
        return (pin, symbol) if is_name else (None, whole_symbol(pin, symbol))

    def _has(self, name: str, symbol: str) -> bool:
        return name in self._kept and symbol in self._kept[name].listing.instruments

    def _lacking(self, pin: str | None, symbol: str) -> list[SavedList]:
        """Return the lists that would have to have a symbol, and have not; nearly always none."""
        if pin is None:
            pin = self._owners.get(symbol)
        if pin is not None:
            return [] if pin not in self._kept or self._has(pin, symbol) else [self._kept[pin]]
        owner, missing = self._decide(symbol)
        return list(self._kept.values()) if owner is None else missing

    def _decide(self, symbol: str) -> tuple[str | None, list[SavedList]]:
        """Return who a bare symbol belongs to, as far as is known, and the missing lists that could say otherwise.

        A list that is missing cannot have an instrument of an asset class that its provider does not bring. One of a
        provider without its key is not waited for: nobody knows whether there will ever be one.
        """
        missing = [kept for kept in self._kept.values() if not (kept.listing.is_known or kept.provider.lacks_key)]
        order = list(self._providers)
        holder = next((name for name in order if self._has(name, symbol)), None)
        if holder is None:
            fallback = self._first_open()
            return None if fallback is None else fallback.name, missing
        asset_class = self._kept[holder].listing.instruments[symbol].asset_class
        earlier = order[: order.index(holder)]
        return holder, [
            kept
            for kept in missing
            if kept.provider.name in earlier and asset_class in kept.provider.info.asset_classes
        ]

    def standing(self, provider: str, symbol: str) -> Standing:
        """Return what a provider's list says of a symbol in upper case."""
        kept = self._kept.get(provider)
        return "unknown" if kept is None else kept.listing.standing(symbol)

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
        """Return why a provider's list could not be had lately."""
        return self._kept[name].problem if name in self._kept else None

    @property
    def asset_classes(self) -> list[str]:
        """The asset classes that providers bring, sorted."""
        return sorted({name for provider in self._providers.values() for name in provider.info.asset_classes})

    def check_asset_class(self, asset_class: str | None) -> None:
        """Refuse an asset class that nobody has; None is all. Raises `RequestError`."""
        known = self.asset_classes
        if asset_class is not None and asset_class not in known:
            raise RequestError(
                Code.INVALID_REQUEST, f"unknown asset_class {shown(asset_class)}; use one of {', '.join(known)}"
            )

    @property
    def listing(self) -> list[str]:
        """The names of the providers that list instruments, sorted."""
        return sorted(self._kept)

    def check_provider(self, name: str | None) -> None:
        """Refuse a provider that there is not, or that lists nothing; None is all. Raises `RequestError`."""
        if name is None or name in self._kept:
            return
        known = ", ".join(self.listing) or "none, since no provider lists instruments"
        if name in self._switched_off:
            text = f"the provider {name} is switched off in this relay; use one of {known}"
        else:
            text = f"unknown provider {shown(name)}; use one of {known}{did_you_mean(name[:40], self._kept)}"
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

    def name_of(self, provider: Provider, symbol: str) -> str:
        """Return the canonical name of a provider's symbol: bare if it belongs to this provider, else pinned."""
        is_bare = (
            self._owner(symbol) == provider.name
            and (provider.name, symbol) not in self._long
            # Alone, `KRAKEN:XBTUSD` of another provider would be read as a symbol of Kraken.
            and (":" not in symbol or symbol.partition(":")[0].lower() not in self._providers)
        )
        return symbol if is_bare else f"{provider.name}:{symbol}"

    def _owner(self, symbol: str) -> str | None:
        """Return who a bare symbol belongs to: whoever it was resolved to before, else who has it for certain."""
        fixed = self._owners.get(symbol)
        if fixed is not None:
            return fixed
        owner, missing = self._decide(symbol)
        return None if missing else owner

    def resolve(self, pin: str | None, symbol: str, interval: str) -> Target:
        """Return what a client's name stands for. Raises `RequestError` (unknown_symbol, unsupported_interval,
        provider_unavailable).
        """
        asked = symbol if pin is None else f"{pin}:{symbol}"
        pin, symbol = self._understood(pin, symbol)
        try:
            provider = self._provider_of(pin, symbol)
            kept = self._kept.get(provider.name)
            instrument = None if kept is None else kept.listing.instruments.get(symbol)
            intervals = (instrument.intervals if instrument else None) or provider.info.intervals
            if interval not in intervals:
                raise RequestError(
                    Code.UNSUPPORTED_INTERVAL,
                    f"{provider.info.title} has no interval {interval} for {shown(symbol)}; "
                    f"use one of {' '.join(intervals)}",
                )
            if provider.refusal is not None:
                raise _refused(provider)
        except RequestError as error:
            error.symbol, error.interval = asked, interval
            raise
        if instrument is not None:
            # From now on clients know the stream by this name.
            owner = self._owner(symbol)
            if owner is None:
                self._long.add((provider.name, symbol))
            else:
                self._owners[symbol] = owner
        own_spelling = instrument.symbol if instrument else symbol
        return Target(provider, StreamKey(own_spelling, interval), self.name_of(provider, symbol))

    def _provider_of(self, pin: str | None, symbol: str) -> Provider:
        if pin is not None and pin not in self._providers:
            raise RequestError(
                Code.UNKNOWN_SYMBOL,
                f"unknown symbol {shown(symbol)}: the provider {pin} is switched off in this relay; enabled providers "
                f"are {', '.join(self._providers)}",
            )
        if pin is not None:
            kept = self._kept.get(pin)
            if kept is None or self._has(pin, symbol):
                return self._providers[pin]
            if not kept.listing.is_known:
                raise (
                    _refused(kept.provider)
                    if kept.provider.lacks_key
                    else self._undecided(symbol, None, [kept], is_pinned=True)
                )
            raise RequestError(
                Code.UNKNOWN_SYMBOL,
                f"unknown symbol {shown(symbol)}: {kept.provider.info.title} does not list it"
                f"{self._suggestion(symbol, [kept])}",
            )
        owner = self._owners.get(symbol)
        if owner is None:
            owner, missing = self._decide(symbol)
            if missing:
                raise self._undecided(symbol, owner, missing)
        if owner is not None and (owner not in self._kept or self._has(owner, symbol)):
            return self._providers[owner]
        # Its owner lists it no longer; somebody else may.
        for name, kept in self._kept.items():
            if self._has(name, symbol):
                return kept.provider
        for kept in self._kept.values():
            if kept.provider.lacks_key and not kept.listing.is_known:
                raise _refused(kept.provider)
        raise RequestError(
            Code.UNKNOWN_SYMBOL,
            f"unknown symbol {shown(symbol)}: no provider lists it{self._suggestion(symbol, self._kept.values())}",
        )

    def _suggestion(self, symbol: str, lists: Collection[SavedList]) -> str:
        """Return the end of a sentence: what may be meant by a symbol that none of the lists has, or where to look."""
        found: dict[str, None] = {}
        # A letter is hardly wrong in what is a symbol in another spelling, or with another provider.
        for spellings, among in (
            (other_spellings, lists),
            (other_spellings, self._kept.values()),
            (typing_errors, lists),
        ):
            for spelling in spellings(symbol):
                for kept in among:
                    instrument = kept.listing.instruments.get(spelling)
                    if instrument is not None:
                        found[self.name_of(kept.provider, instrument.symbol)] = None
                if len(found) >= _MOST_SUGGESTED:
                    break
            if found:
                return f"; did you mean {' or '.join([*found][:_MOST_SUGGESTED])}?"
        return f"; {WHERE_SYMBOLS_ARE}"

    def _first_open(self) -> Provider | None:
        """Return the first provider that takes any symbol, because it gives no list."""
        return next((provider for provider in self._providers.values() if not provider.lists_instruments), None)

    def _undecided(
        self, symbol: str, holder: str | None, missing: Sequence[SavedList], *, is_pinned: bool = False
    ) -> RequestError:
        """Say which lists are missing to decide about a symbol, and how to do without them."""
        *others, last = (kept.provider.info.title for kept in missing)
        titles = f"{', '.join(others)} and {last}" if others else last
        lists, that, verb = ("list", "that", "is") if len(missing) == 1 else ("lists", "those", "are")
        reasons = "; ".join(dict.fromkeys(kept.problem or "it is still being loaded" for kept in missing))
        if holder is not None and self._has(holder, symbol):
            title = self._providers[holder].info.title
            text = (
                f"{shown(symbol)} may be a symbol of {titles}, but {that} symbol {lists} {verb} not loaded yet "
                f"({reasons}); to use {title}, write {holder}:{symbol}"
            )
        else:
            text = f"the symbol {lists} of {titles} {verb} not loaded yet ({reasons})"
            if not is_pinned and len(self._providers) > len(missing):
                text += f", and no other list has {shown(symbol)}; to use another provider, write PROVIDER:SYMBOL"
        return RequestError(Code.PROVIDER_UNAVAILABLE, text, retry_after=min(kept.asks_in_s for kept in missing))


def _refused(provider: Provider) -> RequestError:
    return RequestError(
        Code.PROVIDER_UNAVAILABLE,
        provider.refusal or f"{provider.info.title} refuses the relay",
        retry_after=RESTART_S if provider.lacks_key else READMIT_S,
    )
