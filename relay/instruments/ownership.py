"""Whose a symbol is, from what providers list and what they said of single symbols; pure.

A bare symbol belongs to the first provider, in the order given, that lists it; it stays with that provider while the
process runs. It belongs to nobody while the list of an earlier provider that could have it is missing.
"""

from collections.abc import Mapping

from relay.core.model import Instrument
from relay.instruments.lookups import Lookups
from relay.instruments.saved_list import SavedList
from relay.plugins.provider import Provider

_FUTURE = "future"
"""The asset class of contracts."""


class Ownership:
    """Who has which symbol, by the lists and lookups of providers as they are now."""

    def __init__(
        self, providers: Mapping[str, Provider], lists: Mapping[str, SavedList], lookups: Mapping[str, Lookups]
    ) -> None:
        self._providers = providers
        self._lists = lists
        self._lookups = lookups
        self._owners: dict[str, str] = {}
        # What was told by its long name while nobody knew whose the bare one is: that name stays.
        self._long: set[tuple[str, str]] = set()

    def is_listed(self, name: str, symbol: str) -> bool:
        """Whether a provider's list has a symbol."""
        return name in self._lists and symbol in self._lists[name].listing.instruments

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

    def owner(self, symbol: str) -> str | None:
        """Return who a bare symbol belongs to: whoever it was resolved to before, else who has it for certain."""
        fixed = self._owners.get(symbol)
        if fixed is not None:
            return fixed
        owner, missing = self.decide(symbol)
        return None if missing else owner

    def decide(self, symbol: str) -> tuple[str | None, list[SavedList]]:
        """Return who a bare symbol belongs to, as far as is known, and the missing lists that could say otherwise.

        A list that is missing cannot have an instrument of an asset class that its provider does not bring; but futures
        are called like what they are on, so any earlier list may have such a symbol. A list of a provider without its
        key is not waited for: nobody knows whether there will ever be one.
        """
        missing = [kept for kept in self._lists.values() if not (kept.listing.is_known or kept.provider.lacks_key)]
        order = list(self._providers)
        # A list is known without a question: what a provider said of one symbol takes it from no list.
        listed = next((name for name in order if self.is_listed(name, symbol)), None)
        holder = listed or next((name for name in self._lookups if self._lookups[name].get(symbol) is not None), None)
        instrument = None if holder is None else self.instrument(holder, symbol)
        if holder is None or instrument is None:
            return next(filter(self.is_open, order), None), missing
        asset_class = instrument.asset_class
        earlier = order[: order.index(holder)]
        return holder, [
            kept
            for kept in missing
            if kept.provider.name in earlier
            and (asset_class == _FUTURE or asset_class in kept.provider.info.asset_classes)
        ]

    def lacking(self, pin: str | None, symbol: str) -> list[SavedList]:
        """Return the lists that would have to have a symbol, and have not; nearly always none."""
        if pin is None:
            pin = self._owners.get(symbol)
        if pin is not None:
            return [] if pin not in self._lists or self.has(pin, symbol) else [self._lists[pin]]
        owner, missing = self.decide(symbol)
        return list(self._lists.values()) if owner is None else missing

    def to_ask(self, pin: str | None, symbol: str) -> list[Lookups]:
        """Return which providers are to be asked for a symbol, in turn; nearly always none."""
        if not self._lookups:
            return []
        pin = self._owners.get(symbol) if pin is None else pin
        if pin is not None:
            return [] if pin not in self._lookups or self.is_listed(pin, symbol) else [self._lookups[pin]]
        if any(self.is_listed(name, symbol) for name in self._lists) or self.decide(symbol)[1]:
            return []
        return [*self._lookups.values()]

    def fix(self, provider: Provider, symbol: str) -> None:
        """Take note that clients know a provider's symbol from now on by the name that it has now."""
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
