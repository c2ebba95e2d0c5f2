"""What ccxt says that it can do with an exchange: live candles and how, intervals, candles of an answer; pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""Those that a relay knows; ccxt has the same names for them, and more."""
_UNKNOWN_PAGE = 100
"""Our choice where ccxt does not say how many candles an answer has: fewer than any exchange that says it gives."""
_KINDS = ("spot", "swap", "future")
MARKET_TYPES = _KINDS
"""Types of markets that have candles, in the words of ccxt; `swap` are perpetual contracts."""


class Capabilities(NamedTuple):
    """What can be had of an exchange."""

    name: str
    """What people call it."""
    intervals: tuple[str, ...]
    page: int
    """How many candles one answer has at most."""
    is_live: bool
    """Whether candles come over a WebSocket; else they are polled."""
    is_batched: bool
    """Whether one message subscribes to several streams."""
    request_s: float
    """Seconds between two requests, of a request that costs 1."""
    market_types: tuple[str, ...]

    def types(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """Return which types of markets are listed: those that are wanted, else spot, or all where there is no spot."""
        if wanted:
            return tuple(wanted)
        return ("spot",) if "spot" in self.market_types else self.market_types or MARKET_TYPES


def capabilities_of(exchange: Any) -> Capabilities:
    """Read what an exchange of ccxt says of itself."""
    has, frames = exchange.has, exchange.timeframes or {}
    return Capabilities(
        name=str(exchange.name),
        intervals=tuple(one for one in INTERVALS if frames.get(one) is not None),
        page=_page_of(exchange.features or {}),
        is_live=has.get("watchOHLCV") is True or has.get("watchOHLCVForSymbols") is True,
        is_batched=has.get("watchOHLCVForSymbols") is True,
        request_s=max(0.0, float(exchange.rateLimit)) / 1000,
        market_types=tuple(kind for kind in _KINDS if has.get(kind)),
    )


def _page_of(features: dict[str, Any]) -> int:
    """Return the smallest number that is said for any type of market."""
    spot, swap, future = (features.get(kind) or {} for kind in _KINDS)
    kinds = (spot, *(part for kind in (swap, future) for part in (kind.get("linear"), kind.get("inverse"))))
    said = [((kind or {}).get("fetchOHLCV") or {}).get("limit") for kind in kinds]
    known = [int(limit) for limit in said if limit]
    return min(known) if known else _UNKNOWN_PAGE
