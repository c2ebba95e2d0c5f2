"""The lists of instruments that Binance gives, and what their entries have in common."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from relay import BadAnswer, Instrument, decimal

EXTRAS = "exchange_info"
"""Our own name of the extra that has an entry of exchangeInfo as Binance gave it, all its fields in their order."""
_MOST_SYMBOLS = 20_000
"""Our own bound: there were 3,710 in the list of spot that was recorded."""
_MOST_EXTRAS = 16_000
"""Our own bound, in bytes of JSON, below what the relay keeps: recorded entries have 1,200 to 1,700."""
_LONGEST_STEP = 30
"""Our own bound, in characters: recorded steps have up to 10."""
_AT_A_TIME = 200
"""Our choice: so many take a millisecond or two; then updates have their turn."""


async def read_list(body: Any, instrument: Callable[[Mapping[str, Any]], Instrument]) -> list[Instrument]:
    """Return what an exchangeInfo lists; one that does not trade now is paused. Raises `BadAnswer`.

    What is no instrument is returned as it is: the relay leaves it out, and names it.
    """
    symbols = body.get("symbols") if isinstance(body, dict) else None
    if not isinstance(symbols, list):
        symbols = []
    if len(symbols) > _MOST_SYMBOLS:
        raise BadAnswer(f"exchangeInfo: the list has {len(symbols):,} pairs, more than the limit of {_MOST_SYMBOLS:,}")
    listed = []
    for entry in symbols:
        listed.append(instrument(entry if isinstance(entry, dict) else {}))
        if not len(listed) % _AT_A_TIME:
            await asyncio.sleep(0)
    if not any(isinstance(one.symbol, str) and isinstance(one.base, str) for one in listed):
        raise BadAnswer("exchangeInfo: the list has no pairs")
    return listed


def common_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an `Instrument` that entries of all markets give in the same way."""
    symbol, base, quote, status = map(entry.get, ("symbol", "baseAsset", "quoteAsset", "status"))
    if isinstance(status, str):
        # enums.md, "Symbol status": TRADING, END_OF_DAY, HALT, BREAK, CANCEL_ONLY. A pair that left the venue is BREAK.
        # "ENUM definitions" of futures: PENDING_TRADING, TRADING, PRE_DELIVERING, DELIVERING, DELIVERED, PRE_SETTLE,
        # SETTLING, CLOSE.
        status = "trading" if status == "TRADING" else "paused"
    return {
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "status": status,
        # filters.md: a tick size or step size of 0 means that there is no such rule.
        "price_step": _step(entry, "PRICE_FILTER", "tickSize"),
        "volume_step": _step(entry, "LOT_SIZE", "stepSize"),
        "session": "24x7",
        "extras": _extras(entry),
    }


def _extras(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return all that Binance says of a symbol, unless it is too large; None also for numbers that no JSON has."""
    try:
        return {EXTRAS: entry} if len(orjson.dumps(entry)) <= _MOST_EXTRAS else None
    except (TypeError, ValueError):
        return None


def _step(entry: Mapping[str, Any], kind: str, field: str) -> str | None:
    """Return the step that a filter names, as Binance writes it; None where there is none."""
    filters = entry.get("filters")
    for one in filters if isinstance(filters, list) else ():
        if isinstance(one, dict) and one.get("filterType") == kind:
            step = one.get(field)
            try:
                return str(step) if decimal(step) > 0 and len(str(step)) <= _LONGEST_STEP else None
            except ValueError:
                return None
    return None
