"""A provider that cannot list its instruments, in a relay: clients find what it has, and are told what is not known."""

from collections.abc import AsyncIterator
from typing import Any

from providers import BUILTIN
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.core.clock import Clock
from tests.conftest import StartRelay

MINUTE = 1_764_000_000
CLOCK = Clock(lambda: MINUTE + 30.0)


class Warehouse:
    """Has every symbol of up to four letters, and says so when it is asked for one."""

    __name__ = "warehouse"

    def __init__(self) -> None:
        self.asked: list[str] = []

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="warehouse", api=(API_VERSION, 1), title="Warehouse", asset_classes=("stocks",), intervals=("1m",)
        )

    @hookimpl
    async def relay_instrument(self, symbol: str) -> Instrument | None:
        self.asked.append(symbol)
        return Instrument(symbol, "stocks", symbol, "USD", name=f"{symbol} Inc.") if len(symbol) <= 4 else None

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        while True:
            version = watchlist.version
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(MINUTE, 1.0, 1.0, 1.0, 1.0))
            await watchlist.changed(version)


async def test_symbol_is_found_when_a_client_names_it_and_listed_from_then_on(relay_with: StartRelay) -> None:
    warehouse = Warehouse()
    relay = await relay_with(builtin=(*BUILTIN, warehouse), clock=CLOCK)
    assert (await relay.get("symbols", asset_class="stocks")).body == []
    client = await relay.connect()
    await client.subscribe("AAPL@1m", "MSFT@1m", "IBM@1m")
    assert (await client.update(symbol="AAPL"))["candle"]["close"] == 1.0
    await client.ask("subscribe", streams=["TOOLONG@1m"])
    error = await client.error()
    assert (error["code"], error["symbol"]) == ("unknown_symbol", "TOOLONG")
    assert sorted(warehouse.asked) == ["AAPL", "IBM", "MSFT", "TOOLONG"]
    assert (await relay.get("symbols", asset_class="stocks")).body == ["AAPL", "IBM", "MSFT"]
    rows: Any = (await relay.get("instruments", q="apple", provider="warehouse")).body
    assert rows == []
    # A search asks nobody; a symbol of one provider that somebody names is asked for.
    (row,) = (await relay.get("instruments", q="warehouse:ORCL")).body
    assert (row["id"], row["name"]) == ("warehouse:ORCL", "ORCL Inc.")
    assert (await relay.get("instruments", q="warehouse:TOOLONG")).body == []
    assert sorted(warehouse.asked) == ["AAPL", "IBM", "MSFT", "ORCL", "TOOLONG"]
    (status,) = (one for one in (await relay.get("status")).body["providers"] if one["name"] == "warehouse")
    assert (status["instruments"], status["instruments_complete"]) == (4, False)
