"""A market in which a test has outages, listings and delistings happen."""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from providers.sandbox.contracts import ContractMarket, perpetual
from providers.sandbox.listings import Pair, synthetic_pair
from providers.sandbox.market import Market, Splits, Tapes, UnknownSymbol, Walk
from providers.sandbox.parts import Part

_KEPT_PARTS = 20_000
"""So many stretches are kept: an exchange and whoever judges what became of its answers ask for the same ones."""


@lru_cache(maxsize=160)
def _walk(seed: int | str, forex_always_open: bool, pair: Pair) -> Walk:
    """Give the one walk of all that have this in common: more than the pairs of two sandboxes and their extra ones."""
    return Walk()


@lru_cache(maxsize=4)
def _pieces(seed: int | str, forex_always_open: bool) -> tuple[Splits, Tapes]:
    """Give what days were split into: what a day is says all of its parts."""
    return OrderedDict(), OrderedDict()


class StagedMarket(Market):
    """The market, but for what a test did to it. All of one seed walk through days, and split them, once."""

    def __init__(self, seed: int | str = 1, **settings: Any) -> None:
        super().__init__(seed, **settings)
        self._splits, self._tapes = _pieces(seed, self.forex_always_open)
        self._hidden: dict[str, list[tuple[int, int]]] = {}
        self._parts: dict[tuple[str, int, int], Part] = {}

    def add_symbols(self, pairs: Iterable[Pair | str]) -> None:
        """List more pairs; a bare name gets invented properties. A name with a slash is a currency pair."""
        self._parts.clear()
        for item in pairs:
            pair = synthetic_pair(item) if isinstance(item, str) else item
            if "/" in pair.symbol:
                base, _, quote = pair.symbol.partition("/")
                pair = pair._replace(base=base, quote=quote, session="forex", group=pair.group or "Exotic",
                                     base_name=pair.base_name or base, quote_name=pair.quote_name or quote)  # fmt: skip
                self.forex[pair.symbol] = pair
            else:
                self.crypto[pair.symbol] = pair

    def delist(self, symbol: str) -> Pair:
        """Take a crypto pair away with all its past; return it. Raises `UnknownSymbol`."""
        pair = self.crypto.pop(symbol, None)
        if pair is None:
            raise UnknownSymbol(symbol)
        self._parts.clear()
        return pair

    def list_other(self, pair: Pair, price: float, since_ms: int) -> None:
        """List another coin under the symbol of a pair that was delisted; nothing is known of it before `since_ms`."""
        symbol, since = pair.symbol, datetime.fromtimestamp(since_ms / 1000, UTC).date()
        self._parts.clear()
        self._walks.pop(symbol, None)
        self._hidden[symbol] = [(0, since_ms)]
        self.crypto[symbol] = pair._replace(price=price, listed=since, delisted=None, status="TRADING")

    def hide(self, symbol: str, start_ms: int, end_ms: int) -> None:
        """Make a stretch of a pair's market never have happened, as in an outage of the exchange."""
        self.pair(symbol)
        self._parts.clear()
        self._hidden.setdefault(symbol, []).append((start_ms, end_ms))
        self._hidden[symbol].sort()

    def walk(self, pair: Pair) -> Walk:
        """Go on where another market with the same pair has come to, whatever its status is."""
        always_open = self.forex_always_open and pair.session != "always"
        return _walk(self.seed, always_open, pair._replace(status="TRADING"))

    def spans(self, symbol: str, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
        """Give the parts of a stretch that are not hidden."""
        whole, hidden = super().spans(symbol, start_ms, end_ms), self._hidden.get(symbol)
        return [piece for start, end in whole for piece in _without(hidden, start, end)] if hidden else whole

    def span(self, symbol: str, start_ms: int, end_ms: int) -> Part:
        """Add up a stretch, or remember what it came to."""
        stretch = symbol, start_ms, end_ms
        part = self._parts.get(stretch)
        if part is None:
            part = super().span(symbol, start_ms, end_ms)
            if len(self._parts) >= _KEPT_PARTS:
                self._parts.clear()
            self._parts[stretch] = part
        return part


class StagedContractMarket(StagedMarket, ContractMarket):
    """The market of contracts, but for what a test did to it."""

    def add_symbols(self, pairs: Iterable[Pair | str]) -> None:
        """List more contracts; a bare name, and a pair without terms, is a perpetual one."""
        super().add_symbols(pairs)
        for symbol, pair in self.crypto.items():
            if pair.contract is None:
                self.crypto[symbol] = perpetual(pair)


def _without(hidden: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Give the parts of a stretch that are not among those that are hidden."""
    pieces = []
    for a, b in hidden:
        if b <= start or a >= end:
            continue
        if a > start:
            pieces.append((start, a))
        start = b
        if start >= end:
            break
    if start < end:
        pieces.append((start, end))
    return pieces
