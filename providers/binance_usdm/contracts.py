"""One entry of the list of contracts: perpetual ones, and those that are delivered on a day."""

from collections.abc import Mapping
from typing import Any

from providers.binance_markets.instruments import common_fields
from relay import Instrument

_NO_DELIVERY_MS = 4_133_404_800_000
"""2100-12-25: the recorded lists have it, or some seconds more, as the delivery of what is never delivered."""


def contract_of(entry: Mapping[str, Any]) -> Instrument:
    """Return the contract that an entry of exchangeInfo describes.

    A perpetual contract expires as well once its last day is known: then it has a delivery date like others.
    """
    listed, delivered = _seconds(entry.get("onboardDate")), _seconds(entry.get("deliveryDate"))
    if delivered is not None and (delivered * 1000 >= _NO_DELIVERY_MS or delivered <= (listed or 0)):
        delivered = None
    return Instrument(asset_class="future", listed_at=listed, expires_at=delivered, **common_fields(entry))


def _seconds(moment_ms: object) -> int | None:
    """Return a time in Unix seconds; None for what is no time in milliseconds."""
    return moment_ms // 1000 if type(moment_ms) is int and moment_ms > 0 else None
