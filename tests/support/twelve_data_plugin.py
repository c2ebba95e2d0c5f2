"""The provider of Twelve Data as the host calls it, with a time that goes on only when a test says so."""

from collections.abc import Sequence
from typing import Any

import aiohttp

from providers.twelve_data import TwelveDataProvider
from providers.twelve_data.polling import SeriesPolls
from providers.twelve_data.waits import WAITS, Waits
from relay import Clock, Memory, PriceUpdate, Secret, StreamKey
from tests.support.bound_provider import BoundProvider
from tests.support.moments import at
from tests.support.pump import Pump, keys
from tests.support.sandbox import StagedClock, TwelveDataStandIn

KEY = "hush-hush-0123456789"
EUR = StreamKey("EUR/USD", "1m")


class FakeTime(StagedClock):
    """The exchange's time, which goes on only when a test says so."""

    def __init__(self, start: str = "2026-01-14 12:00:20") -> None:
        super().__init__()
        self.at = float(at(start))

    def now(self) -> float:
        return self.at


class Plugin(BoundProvider):
    """The provider with a clock of its own that may differ from the exchange's."""

    provider: TwelveDataProvider

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        time: FakeTime,
        skew: float = 0.0,
        memory: Memory | None = None,
        waits: Waits = WAITS,
        **settings: object,
    ) -> None:
        self.time = time
        provider = TwelveDataProvider(Clock(wall=lambda: time.at + skew, monotonic=lambda: time.at - 1000.0), waits)
        if memory is not None:
            provider.relay_memory(memory=memory)
        defaults = {setting.name: setting.default for setting in provider.relay_provider().settings}
        super().__init__(provider, session, defaults | {"api_key": Secret(KEY), "rest_url": tuple(urls)} | settings)

    def feed(self, *names: str) -> "DrivenFeed":
        return DrivenFeed(self, keys(*names))


class DrivenFeed(Pump):
    """The steps of the polling loop, taken by a test instead of by time."""

    def __init__(self, plugin: Plugin, streams: Sequence[StreamKey]) -> None:
        super().__init__(lambda watchlist: self.polls.updates(), streams)
        self.time = plugin.time
        self.polled: list[float] = []
        self.polls: SeriesPolls = plugin.provider.polls(self.watchlist, plugin.session, plugin.settings)

    async def run(self, seconds: float) -> list[PriceUpdate]:
        """Let time pass; return what came meanwhile."""
        before = len(self.updates)
        end = self.time.at + seconds
        while self.time.at < end:
            self.updates += self.polls.note_wishes()
            poll, wait_s = self.polls.plan()
            if poll is None:
                assert wait_s > 0
                self.time.at = min(end, self.time.at + wait_s)
            else:
                self.polled.append(self.time.at)
                self.time.at += 0.2
                self.updates += self.polls.take(await self.polls.ask(poll))
        return self.updates[before:]


def asked(exchange: TwelveDataStandIn) -> list[Any]:
    """Return the calls that the exchange got, except those about the account."""
    return [call for call in exchange.requests if call.path != "/api_usage"]
