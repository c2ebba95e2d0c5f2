"""A provider that asks to wait is not called before: to ask may prolong a ban."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from relay import API_VERSION, Budget, Candle, PriceUpdate, ProviderInfo, RateLimited, Setting, StreamKey, hookimpl
from relay.testing import open_provider

A, B = StreamKey("A", "1m"), StreamKey("B", "1m")
NOTHING: tuple[PriceUpdate, ...] = ()


class Banned:
    """A venue that bans whoever asked too often."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: RateLimited | None = RateLimited("the venue bans this address", 60.0)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        settings = (Setting("key", "text", "one"),)
        return ProviderInfo("banned", (API_VERSION, 1), "Banned", ("demo",), ("1m",), settings=settings)

    @hookimpl
    async def relay_stream(self) -> AsyncIterator[PriceUpdate]:
        for one in NOTHING:
            yield one

    @hookimpl
    async def relay_candles(self, symbol: str) -> list[Candle]:
        self.asked.append(symbol)
        if self.error is not None:
            raise self.error
        return []

    @hookimpl
    async def relay_past_changes(self) -> list[Any]:
        self.asked.append("changes")
        return []


class Counting(Banned):
    """One that says how much of its limits is used, and knows when it may ask again."""

    @hookimpl
    def relay_budgets(self, settings: Mapping[str, Any]) -> list[Budget]:
        return [Budget("weight", 100, 50, 0)]


async def test_history_is_not_asked_for_before_the_wait_is_over() -> None:
    plugin = Banned()
    async with open_provider(plugin) as provider:
        with pytest.raises(RateLimited):
            await provider.candles(A, None, 60, 1)
        await asyncio.sleep(20)
        with pytest.raises(RateLimited, match="the venue bans this address") as caught:
            await provider.candles(B, None, 60, 1)
        assert caught.value.retry_after == pytest.approx(40.0)
        # Another hook may be another limit.
        assert await provider.past_changes(None) == []
        await asyncio.sleep(41)
        plugin.error = None
        assert await provider.candles(B, None, 60, 1) == []
    assert plugin.asked == ["A", "changes", "B"]


async def test_other_settings_end_the_wait_and_who_counts_its_budget_is_asked() -> None:
    plugin, counting = Banned(), Counting()
    async with open_provider(plugin) as provider, open_provider(counting) as other:
        for one in (provider, other):
            with pytest.raises(RateLimited):
                await one.candles(A, None, 60, 1)
        provider.reconfigure({"key": "two"})
        plugin.error = counting.error = None
        assert await provider.candles(B, None, 60, 1) == []
        assert await other.candles(B, None, 60, 1) == []
