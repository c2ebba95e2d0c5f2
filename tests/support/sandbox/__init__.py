"""The simulated exchanges of the sandbox as tests need them: they misbehave on order, and keep what they were asked."""

from datetime import UTC, date, datetime
from typing import Literal

from providers.sandbox import SimulatedExchanges
from tests.support.sandbox.binance import BinanceStandIn
from tests.support.sandbox.binance_usdm import BinanceUsdmStandIn
from tests.support.sandbox.clock import StagedClock
from tests.support.sandbox.faults import GARBAGE, Faults
from tests.support.sandbox.market import StagedContractMarket, StagedMarket
from tests.support.sandbox.twelve_data import TwelveDataStandIn

__all__ = [
    "GARBAGE",
    "BinanceStandIn",
    "BinanceUsdmStandIn",
    "Faults",
    "Sandbox",
    "StagedClock",
    "StagedContractMarket",
    "StagedMarket",
    "TwelveDataStandIn",
]


class Sandbox(SimulatedExchanges):
    """The stand-ins on one clock; with `forex_always_open` the currency pairs move on weekends too.

    With `futures` there are those of Binance, on a market of their own; else a relay here does not know of them.
    """

    binance: BinanceStandIn
    twelve_data: TwelveDataStandIn

    def __init__(
        self,
        *,
        seed: int | str = 1,
        speed: float = 1.0,
        offset_s: float = 0.0,
        extra_symbols: int = 0,
        forex_always_open: bool = False,
        pace_s: float = 2.0,
        closings: Literal["all", "traded"] = "all",
        futures: bool = False,
    ) -> None:
        self.clock = StagedClock(speed, offset_s)
        self.market = StagedMarket(seed, extra_symbols=extra_symbols, forex_always_open=forex_always_open)
        contracts = StagedContractMarket(seed, today=self.today, extra_symbols=extra_symbols) if futures else None
        super().__init__(
            BinanceStandIn(self.market, self.clock, pace_s=pace_s, closings=closings),
            TwelveDataStandIn(
                self.market, self.clock, credits_per_minute=610, credits_per_day=100_000, stream_symbols=500
            ),
            None if contracts is None else BinanceUsdmStandIn(contracts, self.clock, pace_s=pace_s),
        )

    @property
    def today(self) -> date:
        """Give the day that the clock shows."""
        return datetime.fromtimestamp(self.clock.now(), UTC).date()

    @property
    def futures(self) -> BinanceUsdmStandIn:
        """Give the stand-in for futures, which this sandbox has."""
        assert isinstance(self.binance_usdm, BinanceUsdmStandIn)
        return self.binance_usdm
