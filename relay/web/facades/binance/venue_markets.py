"""The two markets of Binance that are served: whose candles they are, and where."""

import time
from collections.abc import Callable
from typing import NamedTuple

from relay.plugins.provider import Provider

HeadersNow = Callable[[], dict[str, str]]
"""Gives the headers that go with every answer, as they are when it leaves."""


class VenueMarket(NamedTuple):
    """A market: the name of the provider that has its candles, and the `root` of its REST paths.

    One answer has at most `most_rows` klines, and `default_rows` where a request does not say; more are cut, or with
    `refuses_more` refused. Klines weigh `klines_weight` by the limit that a request says, and the list of instruments
    `info_weight`; `info_head` goes before that list. With `is_plain` times are in milliseconds and days in UTC only,
    and symbols may be in lower case.
    """

    provider: str
    root: str
    most_rows: int
    klines_weight: Callable[[str | None], int]
    info_weight: int
    default_rows: int = 500
    refuses_more: bool = False
    is_plain: bool = False
    info_head: tuple[tuple[str, object], ...] = ()

    def spelt(self, symbol: str) -> str:
        """Return a symbol as the market lists it."""
        return symbol.upper() if self.is_plain else symbol


def _usdm_klines_weight(limit: str | None) -> int:
    rows = int(limit) if limit is not None and limit.isascii() and limit.isdigit() and len(limit) < 10 else 500
    return 1 if rows < 100 else 2 if rows < 500 else 5 if rows <= 1000 else 10


SPOT = VenueMarket("binance", "/api/v3", 1000, lambda limit: 2, 20)
"""rest-api.md: `limit` defaults to 500 and is at most 1000."""
USDM = VenueMarket(
    "binance_usdm",
    "/fapi/v1",
    1500,
    _usdm_klines_weight,
    1,
    refuses_more=True,
    is_plain=True,
    # The relay does not keep how assets are used as margin.
    info_head=(("futuresType", "U_MARGINED"), ("assets", ())),
)
"""USD-M futures, "Kline/Candlestick Data": `limit` defaults to 500 and is at most 1500; what weighs what.

https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api. That more rows are refused,
and lower case is not, was measured.
"""
MARKETS = (SPOT, USDM)
STATUSES = ("TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY")
"""enums.md, "Symbol status"."""
COIN_ROOT = "/dapi/v1"
"""Of coin-margined futures, of which the relay has none: programs load the lists of all markets."""
USDM_STREAMS = "/market"
"""What stands before the paths of streams of USD-M futures, since 2026-04."""


def no_provider(market: VenueMarket) -> str:
    """Say that a relay does not have a market."""
    return f"this relay has no candles of this market: no provider {market.provider}"


ROUNDED_S = 1.5
"""So much may be between two clocks that agree: the relay knows the venue's by a header in whole seconds."""


def now_ms(provider: Provider | None) -> int:
    """Return the time of a market in Unix milliseconds: that of this machine, unless it is known to be another one."""
    wall = time.time()
    known = wall if provider is None else provider.clock.now()
    return int((wall if abs(known - wall) <= ROUNDED_S else known) * 1000)
