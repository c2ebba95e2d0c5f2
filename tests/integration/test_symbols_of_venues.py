"""Symbols as venues write them, everywhere a symbol goes: requests, streams, addresses, lists, the store, logs."""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import STORE
from relay.client import RelayClient, Update
from relay.storage.inspect import forget
from tests.conftest import StartRelay

SYMBOLS = (
    "^GSPC", "ES=F", "M&M.NS", "NQ1!", "BRK.B", "EUR/USD", "1000PEPEUSDT", "BTC/USDT:USDT", "BTC/USDT:USDT-261225",
    "X:BTCUSD", "EURUSD+", "US30#", "$SPX", ".DJI", "#AAPL", "/ES", "BAC$B", "币安-A",
    "OTHER:EURUSD",
)  # fmt: skip
MINUTE = 60


class Venue:
    """Lists `SYMBOLS`; each has a candle a minute, of which the volume says which symbol it is."""

    __name__ = "venue"
    name = "venue"
    symbols: Sequence[str] = SYMBOLS

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name=self.name,
            api=API_VERSION,
            title=self.name,
            asset_classes=("any",),
            intervals=("1m",),
            is_utc_grid=True,
        )

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> Any:
        seen = 0
        while True:
            for key in watchlist.streams:
                opened = int(time.time()) // MINUTE * MINUTE
                yield PriceUpdate(key, Candle(opened, 1.0, 1.0, 1.0, 1.0, float(self.symbols.index(key.symbol))))
            seen = await watchlist.changed(seen)

    @hookimpl
    async def relay_candles(self, symbol: str, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        last = end // MINUTE
        first = max(last - limit, -(-(start or 0) // MINUTE))
        volume = float(self.symbols.index(symbol))
        return [Candle(MINUTE * number, 1.0, 1.0, 1.0, 1.0, volume) for number in range(first, last)]

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        return [Instrument(symbol, "any", "B", "Q") for symbol in self.symbols]


class Other(Venue):
    """Another provider, after which a symbol of the first one is named."""

    __name__ = "other"
    name = "other"
    symbols = ("EURUSD",)


def name_of(symbol: str) -> str:
    """How the relay calls a symbol: alone, one is Twelve Data's, and one would be read as one of `other`."""
    return f"venue:{symbol}" if symbol in ("EUR/USD", "OTHER:EURUSD") else symbol


async def test_each_symbol_is_listed_streamed_and_asked_for_by_its_name(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Venue(), Other()))
    names = sorted([*map(name_of, SYMBOLS), "EURUSD"])
    assert (await relay.get("symbols", asset_class="any")).body == names
    rows = (await relay.get("instruments", asset_class="any")).body
    assert sorted(row["symbol"] for row in rows) == names
    client = await relay.connect()
    for symbol in SYMBOLS:
        name = name_of(symbol)
        for asked in (name.lower(), f"venue:{symbol}"):
            await client.ask("subscribe", streams=[f"{asked}@1m"], id=asked)
            confirmed = await client.until_type("subscription", id=asked)
            assert confirmed["symbol"] == name
            answer = await relay.get(f"history?symbol={quote(asked, safe='')}&interval=1m&limit=3")
            assert answer.body["symbol"] == name
            assert {candle["volume"] for candle in answer.body["candles"]} == {float(SYMBOLS.index(symbol))}
    await client.close()
    status = (await relay.get("status")).body
    assert {row["symbol"] for row in status["streams"]} == set(map(name_of, SYMBOLS))
    assert (await relay.get("/metrics")).status == 200


async def test_the_client_follows_and_asks_for_each_symbol(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Venue(), Other()))
    waiting = {f"venue:{symbol}" for symbol in SYMBOLS}
    async with RelayClient(relay.url) as client, asyncio.timeout(20):
        for symbol in SYMBOLS:
            history = await client.history(f"venue:{symbol}", "1m", limit=2)
            assert (history.symbol, history.candles[0].volume) == (name_of(symbol), float(SYMBOLS.index(symbol)))
        await client.subscribe(*(f"{name}@1m" for name in waiting))
        async for message in client:
            if isinstance(message, Update):
                symbol = message.key.symbol
                waiting.discard(symbol if symbol.startswith("venue:") else f"venue:{symbol}")
                if not waiting:
                    break


async def test_what_is_stored_is_found_by_the_symbol_again(
    relay_with: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    database = str(tmp_path / "relay.db")
    relay = await relay_with(builtin=(*BUILTIN, Venue(), Other()), database=database)
    for symbol in SYMBOLS:
        assert (await relay.get("history", symbol=f"venue:{symbol}", interval="1m", limit=3)).status == 200
    assert {key.symbol for _, key in await relay.app[STORE].streams()} == set(SYMBOLS)
    await relay.close()
    assert all(record.getMessage().isprintable() for record in caplog.records if record.name.startswith("relay"))
    for symbol in SYMBOLS:
        (gone,) = forget(database, [f"venue:{symbol}@1m"])
        assert gone.key.symbol == symbol


@pytest.mark.parametrize(
    ("query", "advice"),
    [
        ("symbol=EURUSD+&interval=1m", "in an address + is written %2B"),
        ("symbol=M&M.NS&interval=1m", "an & that belongs to the value of symbol is written %26"),
        ("symbol=BTC,ETH&interval=1m", "',' cannot be in one"),
        ("symbol=BTC%252FUSDT&interval=1m", "'%' cannot be in one"),
    ],
)
async def test_a_sign_that_is_not_escaped_is_named(relay_with: StartRelay, query: str, advice: str) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Venue()))
    answer = await relay.get(f"history?{query}")
    assert answer.status in (400, 404)
    assert advice in answer.body["detail"]
