"""A client that moves from one relay to another, both real: what it is told of the past that they do not share."""

import asyncio
import time
from typing import Any

from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.client import Lost, Outdated, RelayClient, Update
from tests.conftest import StartRelay
from tests.support.client_readings import closed_times


class Venue:
    """Closes a candle each second, of which it can revise one."""

    __name__ = "venue"

    def __init__(self) -> None:
        self.began = int(time.time())
        self.revised: int | None = None

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="venue", api=API_VERSION, title="A venue", asset_classes=("demo",), intervals=("1s",),
            close_grace_s=0.5,
        )  # fmt: skip

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument("X", "demo", "X", "USD")]

    @hookimpl
    async def relay_candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        times = range(max(self.began - 60, start or 0), min(end, int(time.time()) + 1))
        return [self._candle(opened) for opened in (times[-limit:] if start is None else times[:limit])]

    def _candle(self, opened: int) -> Candle:
        price = 2.0 if opened == self.revised else 1.0
        return Candle(opened, price, price, price, price, 1.0)

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> Any:
        opened = int(time.time())
        is_told = False
        while True:
            await watchlist.changed(watchlist.version, timeout_s=0.05)
            if self.revised is not None and not is_told:
                is_told = True
                for key in watchlist.streams:
                    yield PriceUpdate(key, self._candle(self.revised), is_closed=True)
            while time.time() >= opened + 1:
                for key in watchlist.streams:
                    yield PriceUpdate(key, self._candle(opened), is_closed=True)
                opened += 1


async def test_what_only_the_next_relay_revised_is_told_and_what_it_cannot_know_as_well(relay_with: StartRelay) -> None:
    venues = [Venue(), Venue()]
    relays = [await relay_with(builtin=(venue,), with_stand_ins=False) for venue in venues]
    bystander = await relays[1].connect()
    await bystander.subscribe("X@1s")
    for _ in range(2):
        await bystander.update(is_closed=True)
    urls = [relay.url for relay in relays]
    async with RelayClient(urls, in_order=True, backoff_s=(0.05, 0.2), waits_for_relay=True) as client:
        await client.subscribe("X@1s", bars=5)
        messages: list[Any] = []
        async with asyncio.timeout(60):
            async for message in client:
                messages.append(message)
                if len(closed_times(messages)) >= 9:
                    break
            at = closed_times(messages)[-3]
            venues[1].revised = at
            await bystander.update(revised=True)
            await relays[0].close()
            after: list[Any] = []
            async for message in client:
                after.append(message)
                if len(closed_times(after)) >= 3:
                    break
    assert any(isinstance(message, Lost) for message in after)
    assert client.url.port == int(urls[1].rpartition(":")[2])
    told = [one for one in after if isinstance(one, Update) and one.is_revised]
    assert [(one.candle.time, one.candle.close) for one in told] == [(at, 2.0)]
    assert [type(one) for one in after if isinstance(one, Outdated)] == [Outdated]
    times = closed_times([*messages, *after])
    assert times == list(range(times[0], times[0] + len(times)))
