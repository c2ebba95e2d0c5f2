"""One entry of Binance's list of pairs."""

from collections.abc import Mapping
from typing import Any

from providers.binance_markets.instruments import common_fields
from relay import Instrument


def pair_of(entry: Mapping[str, Any]) -> Instrument:
    """Return the pair that an entry of exchangeInfo describes."""
    return Instrument(asset_class="crypto", **common_fields(entry))
