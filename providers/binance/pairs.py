"""Binance's list of pairs."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from relay import BadAnswer, Instrument, decimal

EXCHANGE_INFO_WEIGHT = 20
"""rest-api.md, "Exchange information"."""
EXTRAS = "exchange_info"
"""Our own name of the extra that has an entry of exchangeInfo as Binance gave it, all its fields in their order."""
_MOST_PAIRS = 20_000
"""Our own bound: there were 3,710 in the list that was recorded."""
_MOST_EXTRAS = 16_000
"""Our own bound, in bytes of JSON, below what the relay keeps: recorded entries have 1,200 to 1,700."""
_LONGEST_STEP = 30
"""Our own bound, in characters: recorded steps have up to 10."""
_AT_A_TIME = 200
"""Our choice: so many take a millisecond or two; then updates have their turn."""


async def read_pairs(body: Any) -> list[Instrument]:
    """Return the pairs of an exchangeInfo; one that does not trade now is paused. Raises `BadAnswer`.

    What is no instrument is returned as it is: the relay leaves it out, and names it.
    """
    pairs = body.get("symbols") if isinstance(body, dict) else None
    if not isinstance(pairs, list):
        pairs = []
    if len(pairs) > _MOST_PAIRS:
        raise BadAnswer(f"exchangeInfo: the list has {len(pairs):,} pairs, more than the limit of {_MOST_PAIRS:,}")
    listed = []
    for pair in pairs:
        listed.append(_instrument(pair if isinstance(pair, dict) else {}))
        if not len(listed) % _AT_A_TIME:
            await asyncio.sleep(0)
    if not any(isinstance(one.symbol, str) and isinstance(one.base, str) for one in listed):
        raise BadAnswer("exchangeInfo: the list has no pairs")
    return listed


def _instrument(pair: Mapping[str, Any]) -> Instrument:
    symbol, base, quote, status = map(pair.get, ("symbol", "baseAsset", "quoteAsset", "status"))
    if isinstance(status, str):
        # enums.md, "Symbol status": TRADING, END_OF_DAY, HALT, BREAK, CANCEL_ONLY. A pair that left the venue is BREAK.
        status = "trading" if status == "TRADING" else "paused"
    given: dict[str, Any] = {"symbol": symbol, "base": base, "quote": quote, "status": status}
    return Instrument(
        **given,
        asset_class="crypto",
        # filters.md: a tick size or step size of 0 means that there is no such rule.
        price_step=_step(pair, "PRICE_FILTER", "tickSize"),
        volume_step=_step(pair, "LOT_SIZE", "stepSize"),
        session="24x7",
        extras=_extras(pair),
    )


def _extras(pair: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return all that Binance says of a pair, unless it is too large; None also for numbers that no JSON has."""
    try:
        return {EXTRAS: pair} if len(orjson.dumps(pair)) <= _MOST_EXTRAS else None
    except (TypeError, ValueError):
        return None


def _step(pair: Mapping[str, Any], kind: str, field: str) -> str | None:
    """Return the step that a filter names, as Binance writes it; None where there is none."""
    filters = pair.get("filters")
    for one in filters if isinstance(filters, list) else ():
        if isinstance(one, dict) and one.get("filterType") == kind:
            step = one.get(field)
            try:
                return str(step) if decimal(step) > 0 and len(str(step)) <= _LONGEST_STEP else None
            except ValueError:
                return None
    return None
