"""Lookups of symbols take turns between the clients of the facades as between all others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import orjson
import pytest

from relay import Instrument, hookimpl
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.rude_venue import MINUTE, RudePlugin, RudeVenue, rude_venue
from tests.support.running_relay import Running

GREEDY, MODEST = "greedy-token-of-this-test", "modest-token-of-this-test"
MANY = 40
"""So many questions of the greedy client that others would wait for them longer than anybody waits for an answer."""


class ListingVenuePlugin(RudePlugin):
    """Has a list, which lacks what is asked for here."""

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument("LISTED", "stocks", "LISTED", "USD")]


@pytest.fixture
async def venue() -> AsyncIterator[tuple[RudeVenue, str]]:
    async with rude_venue() as running:
        yield running


async def by_klines(relay: Running, session: aiohttp.ClientSession) -> None:
    await _get(relay, session, "api/v3/klines?symbol=AAPL&interval=1m")


async def by_instruments(relay: Running, session: aiohttp.ClientSession) -> None:
    await _get(relay, session, "api/v3/exchangeInfo?symbol=AAPL")


async def by_what_is_passed_on(relay: Running, session: aiohttp.ClientSession) -> None:
    await _get(relay, session, "api/v3/ticker/24hr?symbol=AAPL")


async def by_websocket(relay: Running, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"{relay.url}/t/{MODEST}/ws") as socket:
        await socket.send_str(orjson.dumps({"method": "SUBSCRIBE", "params": ["aapl@kline_1m"], "id": 1}).decode())
        await socket.receive()


async def by_a_chart(relay: Running, session: aiohttp.ClientSession) -> None:
    await _get(relay, session, f"udf/history?symbol=binance:AAPL&resolution=1&from={MINUTE - 600}&to={MINUTE}")


async def by_details_for_a_chart(relay: Running, session: aiohttp.ClientSession) -> None:
    await _get(relay, session, "udf/symbols?symbol=binance:AAPL")


async def by_quotes(relay: Running, session: aiohttp.ClientSession) -> None:
    await _get(relay, session, "udf/quotes?symbols=binance:AAPL")


async def by_search(relay: Running, session: aiohttp.ClientSession) -> None:
    await _get(relay, session, "udf/search?query=binance:AAPL&limit=5")


async def _get(relay: Running, session: aiohttp.ClientSession, route: str, token: str = MODEST) -> None:
    async with session.get(f"{relay.url}/t/{token}/{route}") as answer:
        await answer.read()


WAYS = [
    by_klines,
    by_instruments,
    by_what_is_passed_on,
    by_websocket,
    by_a_chart,
    by_details_for_a_chart,
    by_quotes,
    by_search,
]


@pytest.mark.parametrize("ask", WAYS)
async def test_a_program_that_asks_for_many_unknown_names_holds_up_no_other(
    relay_with: StartRelay,
    venue: tuple[RudeVenue, str],
    ask: Callable[[Running, aiohttp.ClientSession], Awaitable[None]],
) -> None:
    rude, address = venue
    rude.takes_s = 0.5
    plugin = ListingVenuePlugin(address, name="binance")
    relay = await relay_with(builtin=[plugin], with_stand_ins=False, tokens={"a": GREEDY, "b": MODEST})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        many = [
            asyncio.create_task(_get(relay, session, f"api/v3/klines?symbol=NO{number}&interval=1m", GREEDY))
            for number in range(MANY)
        ]
        await eventually(lambda: len(rude.asked) >= 4)
        await ask(relay, session)
        assert "AAPL" in rude.asked[:20]
        await asyncio.gather(*many)
