"""Whose a symbol is, from what providers list and what they said of single symbols; pure.

A bare symbol belongs to the first provider, in the order given, that lists it; it stays with that provider while the
process runs. It belongs to nobody while the list of an earlier provider is missing that could have a symbol of this
name, whatever it denotes there. Who is always pinned has no bare symbols, and is waited for by nobody.
"""

import re
from collections.abc import Mapping

from relay.core.model import Instrument
from relay.instruments.lookups import Lookups
from relay.instruments.saved_list import SavedList
from relay.plugins.provider import Provider


class Ownership:
    """Who has which symbol, by the lists and lookups of providers as they are now."""

    def __init__(
        self, providers: Mapping[str, Provider], lists: Mapping[str, SavedList], lookups: Mapping[str, Lookups]
    ) -> None:
        self._providers = providers
        self._lists = lists
        self._lookups = lookups
        # Of whom bare symbols are, in their order.
        self._order = [name for name, provider in providers.items() if not provider.info.always_pinned]
        self._forms = {
            name: re.compile(form) for name, provider in providers.items() if (form := provider.info.symbol_form)
        }
        self._owners: dict[str, str] = {}
        # What was told by its long name while nobody knew whose the bare one is: that name stays.
        self._long: set[tuple[str, str]] = set()

    def is_listed(self, name: str, symbol: str) -> bool:
        """Whether a provider's list has a symbol."""
        return name in self._lists and symbol in self._lists[name].listing.instruments

    def instruments_of(self, name: str) -> list[Mapping[str, Instrument]]:
        """Return what is known of a provider's instruments, by symbol: its list, then what it said of single ones."""
        listed = [self._lists[name].listing.instruments] if name in self._lists else []
        return listed + ([self._lookups[name].instruments] if name in self._lookups else [])

    def instrument(self, name: str, symbol: str) -> Instrument | None:
        """Return what a symbol denotes at a provider, by its list or by what it said of that symbol."""
        # Asked several times a second for each stream.
        kept = self._lists.get(name)
        instrument = None if kept is None else kept.listing.instruments.get(symbol)
        if instrument is not None:
            return instrument
        return self._lookups[name].get(symbol) if name in self._lookups else None

    def has(self, name: str, symbol: str) -> bool:
        """Whether a provider has a symbol, as far as is known."""
        return self.instrument(name, symbol) is not None

    def is_open(self, name: str) -> bool:
        """Whether a provider takes any symbol, because it says of none what it is."""
        return name not in self._lists and name not in self._lookups

    def fixed(self, symbol: str) -> str | None:
        """Return who a bare symbol was resolved to before: it stays with that provider."""
        return self._owners.get(symbol)

    def has_name(self, pin: str | None, symbol: str) -> bool:
        """Whether it is certain what a symbol is called, and whose it is, whatever lists come."""
        return symbol in self._owners or (pin is not None and pin in self._providers and pin not in self._order)

    def owner(self, symbol: str) -> str | None:
        """Return who a bare symbol belongs to: whoever it was resolved to before, else who has it for certain."""
        fixed = self._owners.get(symbol)
        if fixed is not None:
            return fixed
        owner, missing = self.decide(symbol)
        return None if missing or owner is None or self.failed_before(owner, symbol) else owner

    def decide(self, symbol: str) -> tuple[str | None, list[SavedList]]:
        """Return who a bare symbol belongs to, as far as is known, and the missing lists that could say otherwise.

        A list that is missing cannot have what does not fit the form of its provider's symbols. That of a provider
        without its key is not waited for: nobody knows whether there will ever be one.
        """
        owner, is_listed = self._holder(symbol)
        if owner is None:
            owner = next((name for name in self._order if self.is_open(name) and self._may_have(name, symbol)), None)
        return owner, [
            kept
            for kept in self._before(owner if is_listed else None, symbol)
            if not (kept.listing.is_known or kept.provider.lacks_key)
        ]

    def unconfirmed(self, symbol: str) -> list[SavedList]:
        """Return the lists of an earlier run that nobody has confirmed yet, and that could say whose a symbol is.

        What is new in them since is not known.
        """
        owner, is_listed = self._holder(symbol)
        return [
            kept
            for kept in self._before(owner if is_listed else None, symbol)
            if kept.listing.is_known and not kept.settled.is_set()
        ]

    def failed_before(self, owner: str, symbol: str) -> list[Lookups]:
        """Return the providers that come before the one that said it has a symbol, and could not be asked for it."""
        if owner not in self._lookups or self.is_listed(owner, symbol):
            return []
        names = [name for name in self._lookups if name in self._order]
        earlier = names[: names.index(owner)] if owner in names else names
        return [
            lookups
            for lookups in map(self._lookups.__getitem__, earlier)
            if (missing := lookups.missing(symbol)) is not None and not missing.is_known
        ]

    def _holder(self, symbol: str) -> tuple[str | None, bool]:
        """Return who has a bare symbol, as far as is known, and whether by a list.

        A list is known without a question: what a provider said of one symbol takes it from no list.
        """
        for name in self._order:
            if self.is_listed(name, symbol):
                return name, True
        asked = (name for name in self._order if name in self._lookups)
        return next((name for name in asked if self._lookups[name].get(symbol) is not None), None), False

    def _before(self, lister: str | None, symbol: str) -> list[SavedList]:
        """Return the lists that come before that of `lister`, or all if no list has the symbol: those that may."""
        found = []
        for name in self._order:
            if name == lister:
                break
            if name in self._lists and self._may_have(name, symbol):
                found.append(self._lists[name])
        return found

    def _may_have(self, name: str, symbol: str) -> bool:
        form = self._forms.get(name)
        return form is None or form.fullmatch(symbol) is not None

    def lacking(self, pin: str | None, symbol: str) -> list[SavedList]:
        """Return the lists that would have to have a symbol, and have not; nearly always none."""
        if pin is None:
            pin = self._owners.get(symbol)
        if pin is not None:
            return [] if pin not in self._lists or self.has(pin, symbol) else [self._lists[pin]]
        owner, missing = self.decide(symbol)
        # Also those that cannot have it may have what is meant.
        return [self._lists[name] for name in self._order if name in self._lists] if owner is None else missing

    def to_ask(self, pin: str | None, symbol: str) -> list[Lookups]:
        """Return which providers are to be asked for a symbol, in turn; nearly always none."""
        if not self._lookups:
            return []
        pin = self._owners.get(symbol) if pin is None else pin
        if pin is not None:
            return [] if pin not in self._lookups or self.is_listed(pin, symbol) else [self._lookups[pin]]
        if self._holder(symbol)[1] or self.decide(symbol)[1]:
            return []
        return [self._lookups[name] for name in self._order if name in self._lookups and self._may_have(name, symbol)]

    def fix(self, provider: Provider, symbol: str) -> None:
        """Take note that clients know a provider's symbol from now on by the name that it has now."""
        if provider.name not in self._order:
            return
        owner = self.owner(symbol)
        if owner is None:
            self._long.add((provider.name, symbol))
        else:
            self._owners[symbol] = owner

    def name_of(self, provider: Provider, symbol: str) -> str:
        """Return the canonical name of a provider's symbol: bare if it belongs to this provider, else pinned."""
        is_bare = (
            self.owner(symbol) == provider.name
            and (provider.name, symbol) not in self._long
            # Alone, `KRAKEN:XBTUSD` of another provider would be read as a symbol of Kraken.
            and (":" not in symbol or symbol.partition(":")[0].lower() not in self._providers)
        )
        return symbol if is_bare else f"{provider.name}:{symbol}"
