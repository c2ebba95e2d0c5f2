"""A provider that refuses, lists nonsense or is away for a moment: whoever stays subscribed is served afterwards."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import orjson
import pytest

from providers import BUILTIN
from providers.binance import BinanceProvider
from providers.twelve_data import TwelveDataProvider
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import DIRECTORY, STORE, RelayLimits
from relay.instruments.saved_list import ListWaits
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.running_relay import Reader, Running
from tests.support.sandbox import Sandbox
from tests.support.transports import Transport

StartRelay = Callable[..., Awaitable[Running]]

LIST = "/api/v3/exchangeInfo"
QUICKLY = RelayLimits(lists=ListWaits(soon_s=0.2, soon_part=36_000, retry_s=(0.2,)))
"""How soon a list is asked for again here."""


def listing(status: str, *symbols: str) -> bytes:
    """Return a list of Binance's with these symbols, all of one status."""
    pairs = [{"symbol": one, "status": status, "baseAsset": one[:3], "quoteAsset": one[3:]} for one in symbols]
    return orjson.dumps({"timezone": "UTC", "symbols": pairs})


MAINTENANCE = listing("BREAK", "BTCUSDT", "ETHUSDT", "BNBUSDT")
TEST_PAIR = listing("TRADING", "123456")


async def state(client: Reader, status: str, symbol: str = "BTCUSDT") -> str:
    message: str = (await client.seen("status", symbol=symbol, status=status))["message"]
    return message


# -- refused for a moment --------------------------------------------------------------------------


async def test_a_subscription_that_binance_refuses_once_is_live_a_moment_later(
    relay: Running, sandbox: Sandbox, over: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sandbox.binance.faults.refuse_subscriptions(1, "busy")
    client = await over.subscriber(relay, "BTCUSDT@1m")
    message = await state(client, "error")
    assert message.startswith(
        "Binance refused BTCUSDT@1m: the provider refused the stream: busy; the next attempt is at 20"
    )
    await client.update(symbol="BTCUSDT")
    await eventually(lambda: "BTCUSDT@1m is no longer in error" in caplog.text)
    assert caplog.text.count("BTCUSDT@1m is in error") == 1


@pytest.mark.parametrize(
    ("status", "body", "content_type", "is_about_the_symbol"),
    [
        (403, "<!DOCTYPE html><title>wait</title><p>checking your browser</p>", "text/html", False),
        (404, '{"code":404,"message":"symbol not found","status":"error"}', "application/json", True),
        (403, '{"code":403,"message":"not in your plan","status":"error"}', "application/json", True),
    ],
)
async def test_a_poll_that_is_refused_for_a_while_is_followed_by_prices(
    relay: Running, sandbox: Sandbox, status: int, body: str, content_type: str, is_about_the_symbol: bool
) -> None:
    sandbox.twelve_data.faults.answer_rest(status, body, content_type=content_type, path="/time_series")
    client = await relay.connect()
    await client.subscribe("EUR/USD@1m")
    asked = len(sandbox.twelve_data.requests)
    await eventually(lambda: len(sandbox.twelve_data.requests) > asked + 1)
    if is_about_the_symbol:
        assert "the next attempt is at" in await state(client, "error", "EUR/USD")
    assert not client.updates
    sandbox.twelve_data.faults.answer_rest_normally()
    await client.update(symbol="EUR/USD")


async def test_streams_that_wait_for_a_limit_are_one_line_in_the_log(
    relay: Running, sandbox: Sandbox, over: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    spent = '{"code":429,"message":"You have run out of API credits for the current minute.","status":"error"}'
    sandbox.twelve_data.faults.answer_rest(429, spent, path="/time_series")
    client = await over.subscriber(relay, "EUR/USD@1m", "USD/JPY@1m")
    said = await state(client, "throttled", "EUR/USD")
    await eventually(lambda: "streams of twelve_data wait: " in caplog.text)
    assert caplog.text.count("streams of twelve_data wait: ") == 1
    assert said.partition(";")[0] in caplog.text


# -- a list of one moment --------------------------------------------------------------------------


class Hasty(BinanceProvider):
    """Binance whose list is looked at every second."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(instruments_ttl_s=1.0)


async def test_a_relay_that_starts_in_maintenance_serves_what_trades_again(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    sandbox.binance.faults.answer_rest(200, MAINTENANCE, path=LIST, times=1)
    relay = await relay_with(limits=QUICKLY)
    rows = (await relay.get("instruments", asset_class="crypto")).body
    assert {row["symbol"]: row["status"] for row in rows} == dict.fromkeys(("BTCUSDT", "ETHUSDT", "BNBUSDT"), "paused")
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    assert await state(client, "market_closed") == "Binance has paused trading in BTCUSDT until the next price"
    await client.update(symbol="BTCUSDT")
    assert await state(client, "connected") == "live"
    await eventually(lambda: relay.app[DIRECTORY].standing("binance", "BTCUSDT") == "trading")
    await client.subscribe("DOGEUSDT@1m")


async def test_a_relay_that_starts_while_only_a_test_pair_trades_knows_the_others_a_moment_later(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    sandbox.binance.faults.answer_rest(200, TEST_PAIR, path=LIST)
    relay = await relay_with(limits=QUICKLY)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m")
    assert (answer.status, answer.body["code"]) == (503, "provider_unavailable")
    assert "Binance is not loaded yet (it has 1 entries, fewer than 10)" in answer.body["detail"]
    assert int(answer.headers["Retry-After"]) <= 6
    sandbox.binance.faults.answer_rest_normally()
    client = await relay.connect()
    await eventually(lambda: relay.app[DIRECTORY].standing("binance", "BTCUSDT") == "trading")
    await client.subscribe("BTCUSDT@1m")
    await client.update(symbol="BTCUSDT")


async def test_a_list_of_a_moment_ends_no_stream_and_is_not_remembered(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(builtin=(Hasty, TwelveDataProvider), limits=QUICKLY)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    await client.update(symbol="BTCUSDT")
    listed = len((await relay.get("symbols", asset_class="crypto")).body)
    asked = calls(sandbox)
    sandbox.binance.faults.answer_rest(200, TEST_PAIR, path=LIST)
    await eventually(lambda: calls(sandbox) >= asked + 4)
    client.received.clear()
    await client.update(symbol="BTCUSDT")
    assert (await relay.get("history", symbol="ETHUSDT", interval="1m")).status == 200
    assert len((await relay.get("symbols", asset_class="crypto")).body) == listed + 1
    document = await relay.app[STORE].documents.get("instruments:binance")
    assert document is not None
    assert len(orjson.loads(document.body)) == listed + 1
    assert not [message for message in client.received if message["type"] == "status"]


def calls(sandbox: Sandbox) -> int:
    """Return how often Binance's list was asked for."""
    return sum(call.path == LIST for call in sandbox.binance.requests)


@pytest.mark.real_time  # It asks without a pause, so no time would pass.
async def test_a_symbol_that_is_listed_a_moment_later_is_found_by_who_asks_for_it(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(limits=QUICKLY)
    await relay.get("symbols")
    answer = await relay.get("history", symbol="NEWUSDT", interval="1m")
    assert (answer.status, answer.body["code"]) == (404, "unknown_symbol")
    sandbox.binance.add_symbols(["NEWUSDT"])

    async def status() -> int:
        return (await relay.get("history", symbol="NEWUSDT", interval="1m", limit=2)).status

    async with asyncio.timeout(LONGEST_WAIT_S):
        while await status() == 404:
            await relay.get("symbols")
    assert await status() == 200
    assert calls(sandbox) <= 3


# -- a provider that is away -----------------------------------------------------------------------


class Other:
    """A provider of the same symbols at other prices."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("other", API_VERSION, "Other", ("crypto",), ("1m",), close_grace_s=0.0)

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        version = -1
        while True:
            version = await watchlist.changed(version)
            watchlist.accept(watchlist.streams)
            for update in list[PriceUpdate]():
                yield update

    @hookimpl
    async def relay_candles(self, start: int | None, end: int) -> Sequence[Candle]:
        first = end // 60 * 60 - 60
        return [Candle(first, 1.0, 1.0, 1.0, 1.0, 1.0)] if (start or 0) <= first else []

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        return [Instrument("BTCUSDT", "crypto", "BTC", "USDT")]


async def test_while_binance_was_never_reached_its_symbols_are_nobody_elses(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    sandbox.binance.faults.answer_rest(503, "{}")
    relay = await relay_with(builtin=(*BUILTIN, Other()), limits=QUICKLY)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m")
    assert (answer.status, answer.body["code"]) == (503, "provider_unavailable")
    assert answer.body["detail"].endswith("; to use Other, write other:BTCUSDT")
    assert int(answer.headers["Retry-After"]) >= 1
    client = await relay.connect()
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", id=1)
    refused = await client.answer(1)
    assert (refused["code"], refused["symbol"]) == ("provider_unavailable", "BTCUSDT")
    # What only Twelve Data can have, and what is pinned, needs no list of Binance's.
    await client.ask("subscribe", symbol="EUR/USD", interval="1m", bars=2, id=2)
    assert (await client.answer(2))["provider"] == "twelve_data"
    assert (await client.until_type("snapshot"))["provider"] == "twelve_data"
    await client.ask("subscribe", symbol="other:BTCUSDT", interval="1m", bars=2, id=3)
    confirmed = await client.answer(3)
    assert (confirmed["symbol"], confirmed["provider"]) == ("other:BTCUSDT", "other")
    history = (await relay.get("history", symbol="other:BTCUSDT", interval="1m", limit=1)).body
    assert (history["symbol"], history["provider"]) == ("other:BTCUSDT", "other")
    sandbox.binance.faults.answer_rest_normally()
    await eventually(lambda: relay.app[DIRECTORY].standing("binance", "BTCUSDT") == "trading")
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=2, id=4)
    assert (await client.answer(4))["provider"] == "binance"
    snapshot = await client.until_type("snapshot", symbol="BTCUSDT")
    assert snapshot["provider"] == "binance"
    assert (await relay.get("history", symbol="BTCUSDT", interval="1m", limit=2)).body["provider"] == "binance"
    await client.ask("unsubscribe", symbol="other:BTCUSDT", interval="1m", id=5)
    assert (await client.answer(5))["provider"] == "other"
