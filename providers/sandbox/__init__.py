"""Simulated exchanges on loopback, with made-up prices: what `relay serve --sandbox` talks to.

Nothing here imports from `relay`: a simulated exchange shares no code with what it is for. Faults, and the record of
what was asked, are added by the tests.
"""

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from providers.sandbox.binance import SimulatedBinance
from providers.sandbox.binance_usdm import SimulatedBinanceUsdm
from providers.sandbox.clock import SandboxClock
from providers.sandbox.contracts import ContractMarket
from providers.sandbox.market import Market
from providers.sandbox.twelve_data import SimulatedTwelveData

__all__ = [
    "ContractMarket",
    "Market",
    "SandboxClock",
    "SimulatedBinance",
    "SimulatedBinanceUsdm",
    "SimulatedExchanges",
    "SimulatedTwelveData",
    "demo",
]


class SimulatedExchanges:
    """All exchanges, or all but the futures; an async context manager."""

    def __init__(
        self,
        binance: SimulatedBinance,
        twelve_data: SimulatedTwelveData,
        binance_usdm: SimulatedBinanceUsdm | None = None,
    ) -> None:
        self.binance = binance
        self.twelve_data = twelve_data
        self.binance_usdm = binance_usdm

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.binance)
            await stack.enter_async_context(self.twelve_data)
            if self.binance_usdm is not None:
                await stack.enter_async_context(self.binance_usdm)
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    def provider_settings(self) -> dict[str, dict[str, object]]:
        """Give the settings, by provider name, that point the relay's providers at the exchanges."""
        futures = self.binance_usdm
        return {
            "binance": {"ws_url": self.binance.ws_url, "rest_url": self.binance.rest_url},
            "twelve_data": {
                "rest_url": self.twelve_data.rest_url,
                "ws_url": self.twelve_data.ws_url,
                "api_key": self.twelve_data.api_key,
                "credits_per_minute": self.twelve_data.rest.credits.per_minute,
                "credits_per_day": self.twelve_data.rest.credits.per_day,
            },
            **({"binance_usdm": {"ws_url": futures.ws_url, "rest_url": futures.rest_url}} if futures else {}),
        }


def demo(*, forex_always_open: bool = False) -> SimulatedExchanges:
    """Make exchanges with a large plan of Twelve Data; contracts are a market of their own.

    Currency pairs rest at weekends, or never.
    """
    market, clock = Market(forex_always_open=forex_always_open), SandboxClock()
    return SimulatedExchanges(
        SimulatedBinance(market, clock),
        SimulatedTwelveData(market, clock, credits_per_minute=610, credits_per_day=100_000, stream_symbols=500),
        SimulatedBinanceUsdm(ContractMarket(today=datetime.fromtimestamp(clock.now(), UTC).date()), clock),
    )
