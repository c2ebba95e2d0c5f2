"""Candles of a symbol that are away while it is checked, and those set aside for good as another instrument's."""

import logging

from relay.core.clock import Clock
from relay.history.identity import Verdict
from relay.history.symbol_check import Identity, SymbolCheck
from relay.storage.set_aside import CHECKING, aside_name, mark_of
from relay.storage.store import Store
from relay.telemetry.events import event

log = logging.getLogger(__name__)


class AsideCandles:
    """Takes candles away, gives them back, sets them aside; `names` are those of what is set aside, by provider.

    All of it raises `StoreError`, and then nothing is changed.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self.names: dict[Identity, None] = {}
        self._store = store
        self._clock = clock

    async def take_away(self, check: SymbolCheck) -> None:
        if not check.is_aside:
            name, symbol = check.identity
            await self._store.removals.set_aside(name, symbol, aside_name(symbol, CHECKING))
            check.is_aside = True
            about = event("instrument_doubted", provider=name, symbol=symbol)
            log.info("%s of %s may name another instrument now; checking the stored candles", symbol, name, extra=about)

    async def give_back(self, check: SymbolCheck) -> None:
        name, symbol = check.identity
        if check.is_aside:
            await self._store.removals.take_back(name, aside_name(symbol, CHECKING), symbol)
            check.is_aside = False
            about = event("instrument_same", provider=name, symbol=symbol)
            log.info("%s of %s names the same instrument as before", symbol, name, extra=about)

    async def set_aside(self, check: SymbolCheck, verdict: Verdict) -> None:
        name, symbol = check.identity
        kept_as = aside_name(symbol, mark_of(self._clock.wall()))
        count = await self._store.removals.set_aside(name, aside_name(symbol, CHECKING), kept_as, verdict.begins)
        self.names[name, kept_as] = None
        log.warning(
            "%s of %s names another instrument than before: its %d stored candles are set aside as %s; "
            "relay store shows them, relay store --forget deletes them",
            symbol,
            name,
            count,
            kept_as,
            extra=event("instrument_changed", provider=name, symbol=symbol, kept_as=kept_as, candles=count),
        )
