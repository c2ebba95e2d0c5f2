"""The stand-in for the USD-M futures of Binance."""

from datetime import UTC, datetime
from typing import Any

from providers.sandbox.binance_usdm import SimulatedBinanceUsdm
from providers.sandbox.binance_usdm_rest import BinanceUsdmRest
from tests.support.sandbox.binance import BinanceStandIn, PlayedRest
from tests.support.sandbox.clock import StagedClock
from tests.support.sandbox.market import StagedContractMarket


class PlayedUsdmRest(PlayedRest, BinanceUsdmRest):
    """The REST calls; of some contracts the klines are recorded ones."""


class BinanceUsdmStandIn(BinanceStandIn, SimulatedBinanceUsdm):
    """Behave like the USD-M futures of Binance do today, but for what `faults` are told.

    Without a `market` it has one with the contracts of the day that the clock shows.
    """

    rest_type = PlayedUsdmRest
    market: StagedContractMarket

    def __init__(
        self, market: StagedContractMarket | None = None, clock: StagedClock | None = None, **settings: Any
    ) -> None:
        clock = clock or StagedClock()
        today = datetime.fromtimestamp(clock.now(), UTC).date()
        super().__init__(market or StagedContractMarket(today=today), clock, **settings)
