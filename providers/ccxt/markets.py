"""Markets of ccxt as instruments: symbols, steps of prices and amounts, ends of contracts; pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from relay import Instrument

DECIMAL_PLACES, TICK_SIZE = 2, 4
"""How an exchange states precision: ccxt, `base/decimal_to_precision.py`; 3 are significant digits, and no step."""
_CLASSES = {"spot": "crypto", "swap": "future", "future": "future"}


def asset_classes_of(types: Iterable[str]) -> tuple[str, ...]:
    """Return the asset classes of types of markets, each once."""
    return tuple(dict.fromkeys(_CLASSES[kind] for kind in types if kind in _CLASSES))


def is_wanted(market: Mapping[str, Any], types: Iterable[str]) -> bool:
    """Say whether a market is of one of these types."""
    return market.get("type") in set(types)


def read_instrument(market: Mapping[str, Any], precision_mode: int) -> Instrument:
    """Return a market as an instrument. Raises `LookupError` or `TypeError`; the relay judges the values."""
    precision = market.get("precision") or {}
    expiry = market.get("expiry") if market["type"] == "future" else None
    return Instrument(
        symbol=market["symbol"],
        asset_class=_CLASSES[market["type"]],
        base=market["base"],
        quote=market["quote"],
        # Not every exchange says it, and None means that it does not.
        status="paused" if market.get("active") is False else "trading",
        price_step=step_of(precision.get("price"), precision_mode),
        volume_step=step_of(precision.get("amount"), precision_mode),
        listed_at=_seconds(market.get("created")),
        expires_at=_seconds(expiry),
    )


def step_of(precision: Any, mode: int) -> str | None:
    """Return the smallest change as a decimal text, None if the exchange does not state one."""
    if precision is None or mode not in (DECIMAL_PLACES, TICK_SIZE):
        return None
    try:
        number = Decimal(str(precision))
        step = Decimal(1).scaleb(-int(number)) if mode == DECIMAL_PLACES else number
    except (InvalidOperation, ValueError, OverflowError):
        return None
    return f"{step:f}" if step.is_finite() and step > 0 else None


def _seconds(stamp_ms: Any) -> int | None:
    return int(stamp_ms) // 1000 if stamp_ms else None
