"""Binance's list of pairs."""

from collections.abc import Mapping
from typing import Any

from relay import BadAnswer, Instrument

EXCHANGE_INFO_WEIGHT = 20
"""rest-api.md, "Exchange information"."""
_MOST_PAIRS = 20_000
"""Our own bound: there were 3,710 in the list that was recorded."""


def read_pairs(body: Any) -> list[Instrument]:
    """Return the pairs of an exchangeInfo; one that does not trade now is paused. Raises `BadAnswer`."""
    pairs = body.get("symbols") if isinstance(body, dict) else None
    if not isinstance(pairs, list):
        pairs = []
    if len(pairs) > _MOST_PAIRS:
        raise BadAnswer(f"exchangeInfo: the list has {len(pairs):,} pairs, more than the limit of {_MOST_PAIRS:,}")
    listed = [_instrument(pair if isinstance(pair, dict) else {}) for pair in pairs]
    if not any(isinstance(one.symbol, str) and isinstance(one.base, str) for one in listed):
        raise BadAnswer("exchangeInfo: the list has no pairs")
    return listed


def _instrument(pair: Mapping[str, Any]) -> Instrument:
    """Return one entry of exchangeInfo as it is: the relay leaves out, and names, what is no instrument."""
    symbol, base, quote, status = map(pair.get, ("symbol", "baseAsset", "quoteAsset", "status"))
    if isinstance(status, str):
        status = "trading" if status == "TRADING" else "paused"
    given: Any = (symbol, "crypto", base, quote, None, status)
    return Instrument(*given)
