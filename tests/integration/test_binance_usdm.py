"""The provider of USD-M futures against its stand-in; what it has in common with spot is in test_binance.py."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from providers.binance_markets.instruments import read_list
from providers.binance_usdm import BinanceUsdmProvider
from providers.binance_usdm.contracts import contract_of
from providers.binance_usdm.weights import WEIGHTS
from providers.sandbox.contracts import deliveries, moment_ms
from relay import Instrument, RateLimited, UnknownSymbol
from tests.support.bound_provider import BoundProvider
from tests.support.pump import keys
from tests.support.sandbox import BinanceUsdmStandIn, StagedClock, StagedContractMarket

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
QUARTER = "BTCUSDT_261225"


@pytest.fixture
async def exchange() -> AsyncIterator[BinanceUsdmStandIn]:
    """The contracts of 2026-11-30, a quarter of a minute before noon."""
    clock = StagedClock(offset_s=NOON.timestamp() - 15 - time.time())
    async with BinanceUsdmStandIn(StagedContractMarket(today=NOON.date()), clock, pace_s=0.5) as exchange:
        yield exchange


class Plugin(BoundProvider):
    """The provider at the addresses of a stand-in."""

    provider: BinanceUsdmProvider

    def __init__(self, session: aiohttp.ClientSession, exchange: BinanceUsdmStandIn) -> None:
        settings = {"ws_url": (exchange.ws_url,), "rest_url": (exchange.rest_url,)}
        super().__init__(BinanceUsdmProvider(), session, settings)


@pytest.fixture
def plugin(exchange: BinanceUsdmStandIn, session: aiohttp.ClientSession) -> Plugin:
    return Plugin(session, exchange)


async def test_streams_of_contracts_arrive_and_close(exchange: BinanceUsdmStandIn, plugin: Plugin) -> None:
    names = keys("BTCUSDT@1m", "TSLAUSDT@1m", "币安人生USDT@1m")
    async with plugin.pump("BTCUSDT@1m", "TSLAUSDT@1m", "币安人生USDT@1m") as feed:
        await feed.until(lambda: {update.key for update in feed.updates if update.is_closed} == {*names})
    assert sorted(feed.accepted) == sorted(names)
    assert [connect.path for connect in exchange.connect_log] == ["/market/stream"]
    assert feed.skipped == []
    closed = next(update for update in feed.updates if update.is_closed and update.key == names[0])
    (row,) = exchange.rest.klines(exchange.market.pair("BTCUSDT"), "1m", closed.candle.time * 1000, None, 1)
    assert list(closed.candle)[1:5] == [float(str(text)) for text in row[1:5]]
    assert (closed.candle.quote_volume, closed.candle.trades) == (float(str(row[7])), row[8])


async def test_contracts_are_listed_with_their_days(plugin: Plugin) -> None:
    named = {one.symbol: one._replace(extras=None) for one in await plugin.instruments()}
    assert named["BTCUSDT"] == Instrument(
        "BTCUSDT", "future", "BTC", "USDT", price_step="0.1", volume_step="0.001", session="24x7",
        listed_at=1_569_398_400,
    )  # fmt: skip
    assert named[QUARTER] == Instrument(
        QUARTER, "future", "BTC", "USDT", price_step="0.1", volume_step="0.001", session="24x7",
        listed_at=1_782_460_800, expires_at=1_798_185_600,
    )  # fmt: skip
    assert {one.symbol for one in named.values() if one.status == "paused"} == {"NKNUSDT"}
    assert named["NKNUSDT"].expires_at == 1_751_616_000
    assert {one.asset_class for one in named.values()} == {"future"}
    assert plugin.provider.relay_budgets()[0][1:3] == (2400, 1)


@pytest.mark.parametrize(
    ("given", "days"),
    [
        # Both are in recorded lists.
        ({"onboardDate": 1_569_398_400_000, "deliveryDate": 4_133_404_800_000}, (1_569_398_400, None)),
        ({"onboardDate": 1_569_398_400_000, "deliveryDate": 4_133_404_802_000}, (1_569_398_400, None)),
        ({"onboardDate": 1_623_830_400_000, "deliveryDate": 1_632_470_400_000}, (1_623_830_400, 1_632_470_400)),
        ({"onboardDate": 1_632_470_400_000, "deliveryDate": 1_623_830_400_000}, (1_632_470_400, None)),
        ({"onboardDate": 0, "deliveryDate": "1632470400000"}, (None, None)),
        ({"onboardDate": None, "deliveryDate": -1}, (None, None)),
        ({"onboardDate": True, "deliveryDate": 1.5e12}, (None, None)),
        ({}, (None, None)),
    ],
)
@pytest.mark.parametrize("status", ["PENDING_TRADING", "TRADING", "PRE_SETTLE", "SETTLING", "CLOSE"])
async def test_days_that_make_no_sense_are_left_out(
    given: dict[str, Any], days: tuple[int | None, int | None], status: str
) -> None:
    entry = {"symbol": "AUSDT", "baseAsset": "A", "quoteAsset": "USDT", "status": status, "contractType": "", **given}
    (one,) = await read_list({"symbols": [entry]}, contract_of)
    assert (one.listed_at, one.expires_at) == days
    assert one.status == ("trading" if status == "TRADING" else "paused")


async def test_3500_klines_take_three_pages_and_few_weigh_little(exchange: BinanceUsdmStandIn, plugin: Plugin) -> None:
    end = int(exchange.clock.now()) // 60 * 60
    times = await plugin.times("BTCUSDT", "1m", end - 3500 * 60, end, 3500)
    assert times == [*range(end - 3500 * 60, end, 60)]
    assert [call.query["limit"] for call in exchange.requests] == ["1500", "1500", "500"]
    assert plugin.provider.relay_budgets()[0].used == exchange.rest.weight_used == 25
    await plugin.times("BTCUSDT", "1m", None, end, 5)
    assert plugin.provider.relay_budgets()[0].used == exchange.rest.weight_used == 26


@pytest.mark.parametrize(
    ("call", "query", "weight"),
    [
        ("klines", {}, 5),
        ("klines", {"limit": "99"}, 1),
        ("klines", {"limit": "100"}, 2),
        ("klines", {"limit": "500"}, 5),
        ("klines", {"limit": "1001"}, 10),
        ("klines", {"limit": "x"}, 10),
        ("depth", {}, 10),
        ("depth", {"limit": "50"}, 2),
        ("depth", {"limit": "1000"}, 20),
        ("ticker/24hr", {"symbol": "BTCUSDT"}, 1),
        ("ticker/24hr", {}, 40),
        ("ticker/bookTicker", {}, 5),
    ],
)
def test_where_sources_differ_a_call_weighs_more(call: str, query: dict[str, str], weight: int) -> None:
    assert WEIGHTS[call](query) == weight


@pytest.mark.parametrize("whose", ["", " of IP(198.51.100.7)"])
async def test_the_words_of_futures_are_understood(exchange: BinanceUsdmStandIn, plugin: Plugin, whose: str) -> None:
    said = f"Too many requests; current limit{whose} is 1200 requests per minute. Please use the websocket."
    exchange.faults.answer_rest(429, f'{{"code":-1003,"msg":"{said}"}}', times=1)
    with pytest.raises(RateLimited) as caught:
        await plugin.instruments()
    # It says not how long: the minute in which weights are counted.
    assert caught.value.retry_after == 60.0
    assert "198.51.100.7" not in str(caught.value)
    assert plugin.provider.relay_budgets()[0].limit == 1200


async def test_a_ban_is_kept_to(exchange: BinanceUsdmStandIn, plugin: Plugin) -> None:
    exchange.rest.banned_until_ms = int(time.time() * 1000) + 600_000
    with pytest.raises(RateLimited) as caught:
        await plugin.instruments()
    assert 590 < caught.value.retry_after < 601
    with pytest.raises(RateLimited):
        await plugin.candles("BTCUSDT", "1m", None, int(time.time()), 1)
    assert len(exchange.requests) == 1


async def test_an_unknown_contract_is_said_by_the_exchange(plugin: Plugin) -> None:
    with pytest.raises(UnknownSymbol):
        await plugin.candles("BTCUSDT_200101", "1m", None, int(time.time()), 1)


async def test_a_contract_has_candles_until_it_is_delivered(session: aiohttp.ClientSession) -> None:
    delivered = moment_ms(next(deliveries(NOON.date()))) // 1000
    clock = StagedClock(offset_s=delivered - 20 - time.time())
    async with BinanceUsdmStandIn(StagedContractMarket(today=NOON.date()), clock, pace_s=0.5) as exchange:
        plugin = Plugin(session, exchange)
        async with plugin.pump(f"{QUARTER}@1m") as feed:
            last = delivered - 60
            await feed.until(lambda: any(one.is_closed and one.candle.time == last for one in feed.updates))
            await exchange.clock.sleep_until(delivered + 150)
        assert feed.updates[-1].candle.time == last
        times = await plugin.times(QUARTER, "1m", delivered - 180, delivered + 600, 20)
        assert times == [delivered - 180, delivered - 120, delivered - 60]
        named = {one.symbol: one for one in await plugin.instruments()}
        assert (named[QUARTER].status, named["BTCUSDT"].status) == ("paused", "trading")


def test_the_provider_says_who_it_is() -> None:
    info = BinanceUsdmProvider().relay_provider()
    assert (info.name, info.asset_classes, info.intervals[0]) == ("binance_usdm", ("future",), "1m")
    assert {setting.name: setting.default for setting in info.settings} == {
        "ws_url": ("wss://fstream.binance.com",),
        "rest_url": ("https://fapi.binance.com",),
    }
    assert info.candles_per_call == 1500
