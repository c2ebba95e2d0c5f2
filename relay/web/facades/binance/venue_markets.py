"""The two markets of Binance that are served: whose candles they are, and where."""

import time
from collections.abc import Callable
from typing import NamedTuple

from relay.plugins.provider import Provider

HeadersNow = Callable[[], dict[str, str]]
"""Gives the headers that go with every answer, as they are when it leaves."""


class VenueMarket(NamedTuple):
    """A market: the name of the provider that has its candles, and the `root` of its REST paths.

    One answer has at most `most_rows` klines, and `default_rows` where a request does not say. It weighs
    `klines_weight`, and the list of instruments `info_weight`.
    """

    provider: str
    root: str
    most_rows: int
    default_rows: int = 500
    klines_weight: int = 2
    info_weight: int = 20


SPOT = VenueMarket("binance", "/api/v3", 1000)
"""rest-api.md: `limit` defaults to 500 and is at most 1000."""
USDM = VenueMarket("binance_usdm", "/fapi/v1", 1500, klines_weight=5, info_weight=1)
"""USD-M futures, "Kline/Candlestick Data": `limit` defaults to 500 and is at most 1500; so many weigh 5."""
MARKETS = (SPOT, USDM)
STATUSES = ("TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY")
"""enums.md, "Symbol status"."""
COIN_ROOT = "/dapi/v1"
"""Of coin-margined futures, of which the relay has none: programs load the lists of all markets."""
USDM_STREAMS = "/market"
"""What stands before the paths of streams of USD-M futures, since 2026-04."""
ROUNDED_S = 1.5
"""So much may be between two clocks that agree: the relay knows the venue's by a header in whole seconds."""


def now_ms(provider: Provider | None) -> int:
    """Return the time of a market in Unix milliseconds: that of this machine, unless it is known to be another one."""
    wall = time.time()
    known = wall if provider is None else provider.clock.now()
    return int((wall if abs(known - wall) <= ROUNDED_S else known) * 1000)
