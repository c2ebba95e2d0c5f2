"""Stand-ins for both exchanges on loopback: what `relay serve --sandbox` talks to and what the tests make misbehave.

Nothing here imports from `relay`: a stand-in shares no code with what it tests.
"""

from types import TracebackType
from typing import Self

from providers.sandbox.binance import BinanceStandIn
from providers.sandbox.binance_streams import Closings
from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection
from providers.sandbox.faults import GARBAGE, Connect, ControlMessage, Faults, RestCall, until
from providers.sandbox.listings import Pair
from providers.sandbox.market import Market, Part, UnknownSymbol
from providers.sandbox.standin import StandIn
from providers.sandbox.twelve_data import TwelveDataStandIn

__all__ = [
    "GARBAGE",
    "BinanceStandIn",
    "Connect",
    "Connection",
    "ControlMessage",
    "Faults",
    "Market",
    "Pair",
    "Part",
    "RestCall",
    "Sandbox",
    "SandboxClock",
    "StandIn",
    "TwelveDataStandIn",
    "UnknownSymbol",
    "until",
]


class Sandbox:
    """Both stand-ins on one market and one clock; an async context manager, or `start` and `close`.

    With `forex_always_open` the currency pairs move on weekends too.
    """

    def __init__(
        self,
        *,
        seed: int | str = 1,
        speed: float = 1.0,
        offset_s: float = 0.0,
        extra_symbols: int = 0,
        forex_always_open: bool = False,
        pace_s: float = 2.0,
        closings: Closings = "all",
        api_key: str = "sandbox-key",
        credits_per_minute: int = 610,
        credits_per_day: int = 100_000,
    ) -> None:
        self.clock = SandboxClock(speed, offset_s)
        self.market = Market(seed, extra_symbols=extra_symbols, forex_always_open=forex_always_open)
        self.binance = BinanceStandIn(self.market, self.clock, pace_s=pace_s, closings=closings)
        self.twelve_data = TwelveDataStandIn(
            self.market,
            self.clock,
            api_key=api_key,
            credits_per_minute=credits_per_minute,
            credits_per_day=credits_per_day,
            stream_symbols=500,
        )

    async def start(self, host: str = "127.0.0.1") -> None:
        """Listen on free ports of a loopback address."""
        await self.binance.start(host)
        try:
            await self.twelve_data.start(host)
        except BaseException:
            await self.binance.close()
            raise

    async def close(self) -> None:
        """Cut all connections and stop listening."""
        await self.twelve_data.close()
        await self.binance.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def provider_settings(self) -> dict[str, dict[str, object]]:
        """Give the settings, by provider name, that point the relay's providers at the stand-ins."""
        return {
            "binance": {"ws_url": self.binance.ws_url, "rest_url": self.binance.rest_url},
            "twelve_data": {
                "rest_url": self.twelve_data.rest_url,
                "ws_url": self.twelve_data.ws_url,
                "api_key": self.twelve_data.api_key,
                "credits_per_minute": self.twelve_data.rest.credits.per_minute,
                "credits_per_day": self.twelve_data.rest.credits.per_day,
            },
        }
