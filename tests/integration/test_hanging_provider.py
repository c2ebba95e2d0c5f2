"""A provider that does not say what a symbol is: meanwhile, the same client is answered about all others."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import RelayLimits
from relay.client import Failure, RelayClient, Update
from relay.core.clock import Clock
from relay.core.errors import CloseCode
from relay.web.facades.facade import FacadeTiming
from relay.web.ws.waiting_names import MOST_WAITING
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import PREFIX, Message, Running, WsClient
from tests.support.transports import Transport

MINUTE = 1_764_000_000
CLOCK = Clock(lambda: MINUTE + 30.0)
LOOKUP_S = 8.0
"""So long the relay waits for what a provider says of a symbol."""


class Mute:
    """Says nothing of a symbol until it `speaks`, then it has all but `NONE`; gives no candles until it `gives`."""

    __name__ = "mute"

    def __init__(self) -> None:
        self.speaks = asyncio.Event()
        self.gives = asyncio.Event()
        self.asked: list[str] = []

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="mute", api=(API_VERSION, 1), title="Mute", asset_classes=("stocks",), intervals=("1m", "1d")
        )

    @hookimpl
    async def relay_instrument(self, symbol: str) -> Instrument | None:
        self.asked.append(symbol)
        await self.speaks.wait()
        return None if symbol == "NONE" else Instrument(symbol, "stocks", symbol, "USD")

    @hookimpl
    async def relay_candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        await self.gives.wait()
        times = range(max(start or 0, MINUTE - 600), min(end, MINUTE + 60), 60)
        return [Candle(time, 1.0, 1.0, 1.0, 1.0) for time in times][-limit:]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        while True:
            version = watchlist.version
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(MINUTE, 1.0, 1.0, 1.0, 1.0))
            await watchlist.changed(version)


@pytest.fixture
def mute() -> Mute:
    return Mute()


@pytest.fixture
async def relay(relay_with: StartRelay, mute: Mute) -> Running:
    return await relay_with(builtin=(*BUILTIN, mute), clock=CLOCK)


async def _answers(client: WsClient, *ids: int) -> list[Message]:
    """Return the messages with these ids, in the order in which they come."""
    found: list[Message] = []
    while len(found) < len(ids):
        found.append(await client.until(lambda m: m.get("id") in ids))
    return found


def _said(messages: list[Message]) -> list[tuple[Any, ...]]:
    return [(one["id"], one.get("action", one.get("code", one["type"]))) for one in messages]


async def test_later_requests_are_answered_while_an_earlier_one_waits(relay: Running) -> None:
    client, began = await relay.connect(), asyncio.get_running_loop().time()
    await client.ask("subscribe", streams=["mute:AAPL@1m"], id=1)
    await client.ask("ping", id=2)
    await client.ask("subscribe", streams=["BTCUSDT@1m"], id=3)
    await client.ask("list", id=4)
    await client.ask("unsubscribe", streams=["BTCUSDT@1m"], id=5)
    assert _said(await _answers(client, 1, 2, 3, 4, 5)) == [
        (2, "pong"),
        (3, "subscribe"),
        (4, "subscriptions"),
        (5, "unsubscribe"),
        (1, "provider_unavailable"),
    ]
    assert asyncio.get_running_loop().time() - began >= LOOKUP_S


async def test_later_streams_of_one_request_are_joined_while_an_earlier_one_waits(
    relay: Running, over: Transport
) -> None:
    client = await over.reader(relay)
    await client.ask("subscribe", streams=["mute:AAPL@1m", "ETHUSDT@1m", "NOBODYS@1m", "BTCUSDT@1m"])
    kinds = ("subscription", "error")
    told = [(await client.until(lambda m: m["type"] in kinds))["symbol"] for _ in range(4)]
    assert told[:2] == ["ETHUSDT", "BTCUSDT"]
    # Nobody lists the last one: it may be a symbol of any provider.
    assert {*told[2:]} == {"mute:AAPL", "NOBODYS"}
    assert (await client.seen("price_update", symbol="BTCUSDT"))["candle"]


async def test_requests_about_one_stream_keep_their_order(relay: Running, mute: Mute) -> None:
    client = await relay.connect()
    await client.ask("subscribe", streams=["mute:AAPL@1m"], id=1)
    await client.ask("unsubscribe", streams=["mute:AAPL@1m"], id=2)
    await client.ask("unsubscribe", streams=["AAPL@1m"], id=3)
    await client.ask("subscribe", streams=["AAPL@1m"], closed_only=True, id=4)
    await client.ask("subscribe", streams=["mute:MSFT@1m"], id=5)
    await client.ask("ping", id=6)
    await client.answer(6)
    mute.speaks.set()
    found = _said(await _answers(client, 1, 2, 3, 4, 5))
    assert [one for one in found if one[0] != 5] == [
        (1, "subscribe"),
        (2, "unsubscribe"),
        (3, "not_subscribed"),
        (4, "subscribe"),
    ]
    await client.ask("list", id=7)
    assert (await client.answer(7))["streams"] == ["AAPL@1m", "MSFT@1m"]
    assert sorted(mute.asked) == ["AAPL", "MSFT"]


class Unlisted:
    """Has a list that does not come until it `lists`; then there is nothing in it that others have."""

    __name__ = "unlisted"

    def __init__(self) -> None:
        self.lists = asyncio.Event()

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("unlisted", API_VERSION, "Unlisted", ("stocks",), ("1m",))

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        await self.lists.wait()
        return [Instrument("OTHER", "stocks", "OTHER", "USD")]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        await asyncio.Event().wait()
        yield PriceUpdate(next(iter(watchlist.streams)), Candle(MINUTE, 1.0, 1.0, 1.0, 1.0))


async def test_a_stream_is_left_by_the_name_that_it_was_asked_for_by(relay_with: StartRelay, mute: Mute) -> None:
    mute.speaks.set()
    unlisted = Unlisted()
    relay = await relay_with(builtin=(unlisted, mute), clock=CLOCK, with_stand_ins=False)
    client = await relay.connect()
    # Nobody knows whose the bare name is, so the stream keeps the long one.
    await client.ask("subscribe", streams=["mute:AAPL@1m"], id=1)
    assert (await client.answer(1))["symbol"] == "mute:AAPL"
    await client.ask("unsubscribe", streams=["mute:AAPL@1m"], id=2)
    await client.answer(2)
    unlisted.lists.set()
    await asyncio.sleep(1.0)
    for number, past in enumerate(({}, {"bars": 5}), 3):
        await client.ask("subscribe", streams=["AAPL@1m"], **past, id=number)
        await client.ask("unsubscribe", streams=["AAPL@1m"], id=10 * number)
        told = await _answers(client, number, 10 * number)
        assert [(one["action"], one["symbol"]) for one in told] == [
            ("subscribe", "mute:AAPL"),
            ("unsubscribe", "mute:AAPL"),
        ]
    await client.ask("list", id=5)
    assert (await client.answer(5))["streams"] == []


async def test_a_symbol_of_the_same_name_elsewhere_waits_for_nobody(relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    await client.ask("subscribe", streams=["mute:BTCUSDT@1m"], id=1)
    await client.ask("unsubscribe", streams=["BTCUSDT@1m"], id=2)
    await client.ask("subscribe", streams=["binance:BTCUSDT@1m"], id=3)
    assert _said(await _answers(client, 1, 2, 3)) == [
        (2, "unsubscribe"),
        (3, "subscribe"),
        (1, "provider_unavailable"),
    ]


async def test_each_of_many_that_wait_has_its_own_answer(relay: Running, mute: Mute) -> None:
    client = await relay.connect()
    names = [f"mute:A{number}@1m" for number in range(30)]
    await client.ask("subscribe", streams=[*names, "mute:NONE@1m"], id=1)
    await client.ask("ping", id=2)
    await client.answer(2)
    mute.speaks.set()
    told = [await client.answer(1) for _ in range(31)]
    assert {one["symbol"] for one in told if one["type"] == "subscription"} == {f"A{number}" for number in range(30)}
    assert [one["code"] for one in told if one["type"] == "error"] == ["unknown_symbol"]


async def test_what_one_client_has_waiting_is_bounded(relay: Running) -> None:
    client = await relay.connect()
    for first in range(0, MOST_WAITING, 100):
        names = [f"mute:A{number}@1m" for number in range(first, min(first + 100, MOST_WAITING))]
        await client.ask("subscribe", streams=names, id=1)
    await client.ask("ping", id=2)
    await client.answer(2)
    # One more has no room until another is answered, and what comes after it comes after it.
    await client.ask("subscribe", streams=["mute:MORE@1m"], id=3)
    await client.ask("ping", id=4)
    assert (await client.next())["id"] == 1
    await client.answer(4)
    # Others have nothing to do with that.
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1m")


async def test_a_client_that_leaves_meanwhile_is_gone_at_once(relay: Running) -> None:
    client, began = await relay.connect(), asyncio.get_running_loop().time()
    await client.ask("subscribe", streams=["mute:AAPL@1m", "mute:MSFT@1m"], id=1)
    await client.ask("ping", id=2)
    await client.answer(2)
    await client.close()
    await eventually(lambda: not relay.clients.connections)
    assert asyncio.get_running_loop().time() - began < LOOKUP_S
    assert client.socket.close_code == 1000
    assert not relay.hub.streams


@pytest.mark.parametrize("leaves", ["vanishes", "closes"])
async def test_a_client_with_more_waiting_than_there_is_room_for_is_gone_at_once(
    relay_with: StartRelay, mute: Mute, way: str, leaves: str
) -> None:
    relay = await relay_with(builtin=(*BUILTIN, mute), clock=CLOCK)
    client, began = await relay.connect(), asyncio.get_running_loop().time()
    for number in range(2 * MOST_WAITING // 50):
        await client.ask("subscribe", streams=[f"mute:A{number}B{name}@1m" for name in range(50)])
    await client.ask("subscribe", streams=["BTCUSDT@1m"])
    await eventually(lambda: len(relay.clients.context.directory._settling["mute"]) == MOST_WAITING)
    if leaves == "closes":
        await client.close()
    else:
        client.vanish()
    await eventually(lambda: not relay.clients.connections)
    assert asyncio.get_running_loop().time() - began < LOOKUP_S
    assert not relay.hub.streams


async def test_pings_are_answered_while_there_is_no_room_for_what_a_client_asks(
    relay_with: StartRelay, mute: Mute, way: str
) -> None:
    relay = await relay_with(builtin=(*BUILTIN, mute), clock=CLOCK)
    url, began = f"{relay.url.replace('http://', 'ws://')}{PREFIX}/ws", asyncio.get_running_loop().time()
    async with aiohttp.ClientSession() as session, session.ws_connect(url, autoping=False) as ws:
        for number in range(2 * MOST_WAITING // 50):
            names = [f"mute:A{number}B{name}@1m" for name in range(50)]
            await ws.send_json({"action": "subscribe", "streams": names})
        await ws.ping(b"alive")
        while (await ws.receive()).type is not aiohttp.WSMsgType.PONG:
            pass
        assert asyncio.get_running_loop().time() - began < LOOKUP_S


async def test_of_a_client_that_is_sent_away_nothing_more_is_begun(relay: Running) -> None:
    client = await relay.connect()
    for number in range(2 * MOST_WAITING // 50):
        await client.ask("subscribe", streams=[f"mute:A{number}B{name}@1m" for name in range(50)])
    settling = relay.clients.context.directory._settling["mute"]
    await eventually(lambda: len(settling) == MOST_WAITING)
    (connection,) = relay.clients.connections
    connection.end(CloseCode.GOING_AWAY, "server shutdown")
    await asyncio.sleep(1.0)
    assert len(settling) == MOST_WAITING


async def test_the_client_has_the_streams_of_other_providers_meanwhile(relay: Running) -> None:
    async with RelayClient(relay.url) as client:
        # The last name is pinned and confirmed by another one; what it is said of is not mistaken.
        await client.subscribe("mute:ETHUSDT@1m", "BTCUSDT@1m", "binance:ETHUSDT@1m")
        told: set[str] = set()
        async for message in client:
            assert not isinstance(message, Failure)
            if isinstance(message, Update):
                told.add(str(message.key))
            if told >= {"BTCUSDT@1m", "ETHUSDT@1m"}:
                break
        async for message in client:
            if isinstance(message, Failure):
                assert (message.code, str(message.key)) == ("provider_unavailable", "MUTE:ETHUSDT@1m")
                break


async def _lines(relay: Running, symbols: str) -> list[Message]:
    """Return the answer of `history` of several symbols, with when each line came as `at`."""
    url = f"{relay.url}{PREFIX}/history?interval=1m&limit=1&format=ndjson&symbols={symbols}"
    found: list[Message] = []
    began = asyncio.get_running_loop().time()
    # Compression would keep lines back until there are more.
    headers = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200
        async for line in answer.content:
            found.append(orjson.loads(line) | {"at": asyncio.get_running_loop().time() - began})
    return found


@pytest.mark.parametrize("hangs_at", ["lookup", "candles"])
async def test_history_of_several_symbols_gives_those_of_other_providers_meanwhile(
    relay: Running, mute: Mute, hangs_at: str
) -> None:
    if hangs_at == "candles":
        mute.speaks.set()
    symbols = ",".join(["mute:AAPL", "BTCUSDT", *(f"mute:M{number}" for number in range(30)), "ETHUSDT", "EUR/USD"])
    found = await _lines(relay, symbols)
    assert [line["symbol"] for line in found[:3]] == ["BTCUSDT", "ETHUSDT", "EUR/USD"]
    assert max(line["at"] for line in found[:3]) < LOOKUP_S
    assert {line.get("code") for line in found[3:]} == {"provider_unavailable"}
    assert len(found) == 3 + 31


async def test_history_of_several_symbols_has_late_ones_last(relay: Running, mute: Mute) -> None:
    asyncio.get_running_loop().call_later(4.0, mute.speaks.set)
    mute.gives.set()
    found = await _lines(relay, "mute:AAPL,NONE,BTCUSDT,mute:NONE,ETHUSDT")
    assert [(line["symbol"], line.get("code")) for line in found[:2]] == [("BTCUSDT", None), ("ETHUSDT", None)]
    assert {(line["symbol"], line.get("code")) for line in found[2:]} == {
        ("AAPL", None),
        ("NONE", "unknown_symbol"),
        ("mute:NONE", "unknown_symbol"),
    }


async def test_a_client_that_leaves_a_history_of_several_symbols_leaves_nothing_behind(relay: Running) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.0):
            await _lines(relay, "mute:AAPL,BTCUSDT,mute:MSFT")
    await eventually(lambda: not [one for one in asyncio.all_tasks() - before if "_find" in repr(one.get_coro())])


async def test_rows_of_a_grid_come_while_another_one_waits(relay: Running) -> None:
    url = f"{relay.url.replace('http://', 'ws://')}/udf/rows_ws"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
        began = asyncio.get_running_loop().time()
        await ws.send_json({"params": {"symbol": ["mute:AAPL", "BTCUSDT"]}})
        assert (await ws.receive_json())["symbol"] == "BTCUSDT"
        # What the page does not name any more is not waited for.
        await ws.send_json({"params": {"symbol": ["ETHUSDT"]}})
        while (await ws.receive_json())["symbol"] != "ETHUSDT":
            pass
        assert asyncio.get_running_loop().time() - began < LOOKUP_S
        told = [(await ws.receive_json())["symbol"] for _ in range(60)]
        assert set(told) == {"ETHUSDT"}
        assert asyncio.get_running_loop().time() - began > LOOKUP_S


@pytest.mark.parametrize("hangs_at", ["lookup", "candles"])
@pytest.mark.parametrize("route", ["quotes?symbols=", "rows?symbol="])
async def test_quotes_come_while_many_of_another_provider_wait_and_those_when_asked_for_again(
    relay: Running, mute: Mute, route: str, hangs_at: str
) -> None:
    if hangs_at == "candles":
        mute.speaks.set()
    loop = asyncio.get_running_loop()
    asked = f"/udf/{route}{','.join([*(f'mute:M{number}' for number in range(20)), 'BTCUSDT', 'EUR/USD'])}"

    async def failed() -> list[bool]:
        body = (await relay.get(asked)).body
        rows = body if isinstance(body, list) else body["d"]
        return ["error" in (row.get("s"), *row) for row in rows]

    for _ in range(2):
        began = loop.time()
        assert await failed() == [True] * 20 + [False] * 2
        assert loop.time() - began < LOOKUP_S
    mute.speaks.set()
    mute.gives.set()
    assert await failed() == [False] * 22


async def test_a_quote_that_comes_late_is_waited_for_where_there_is_no_other(relay: Running, mute: Mute) -> None:
    asyncio.get_running_loop().call_later(4.0, mute.speaks.set)
    mute.gives.set()
    body = (await relay.get("/udf/quotes?symbols=mute:AAPL")).body
    assert [one["s"] for one in body["d"]] == ["ok"]


async def test_a_chart_waits_for_bars_that_come_late(relay_with: StartRelay, mute: Mute) -> None:
    limits = RelayLimits(facades=FacadeTiming(answer_s=0.1))
    relay = await relay_with(builtin=(*BUILTIN, mute), clock=CLOCK, limits=limits)
    mute.speaks.set()
    asyncio.get_running_loop().call_later(1.0, mute.gives.set)
    # After an error it may never ask again.
    answer = await relay.get(f"/udf/history?symbol=mute:AAPL&resolution=1&from={MINUTE - 600}&to={MINUTE}")
    assert answer.body["s"] == "ok"


@pytest.mark.parametrize("waits_for", ["lookup", "candles"])
async def test_a_client_that_the_relay_sends_away_takes_no_stream_afterwards(
    relay: Running, mute: Mute, waits_for: str
) -> None:
    if waits_for == "candles":
        mute.speaks.set()
    client = await relay.connect()
    (connection,) = relay.clients.connections
    await client.ask("subscribe", streams=["mute:AAPL@1m", "mute:MSFT@1m"], bars=5)
    await eventually(lambda: len(mute.asked) == 2 and (waits_for == "lookup" or len(relay.hub.streams) == 2))
    connection.end(CloseCode.GOING_AWAY, "server shutdown")
    mute.speaks.set()
    mute.gives.set()
    # It does not answer the close frame, so the connection is there for some more time.
    await asyncio.sleep(1.0)
    assert connection in relay.clients.connections
    await eventually(lambda: not relay.clients.connections)
    await eventually(lambda: not relay.hub.streams)


async def test_a_ping_frame_is_answered_while_a_facade_waits_for_a_list(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, UnlistedUsdm()))
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{relay.url}/market/ws", autoping=False) as ws:
        await ws.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 1})
        await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        await ws.ping(b"alive")
        assert (await ws.receive()).type is aiohttp.WSMsgType.PONG
        began = asyncio.get_running_loop().time()
        await ws.close()
        assert (ws.close_code, asyncio.get_running_loop().time() - began < 1.0) == (1000, True)
    await eventually(lambda: not relay.clients.connections)


class UnlistedUsdm:
    """Stands for Binance's futures, whose list does not come."""

    __name__ = "binance_usdm"

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="binance_usdm", api=(API_VERSION, 1), title="Futures", asset_classes=("crypto",), intervals=("1m",)
        )

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        await asyncio.Event().wait()
        return []

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        await asyncio.Event().wait()
        yield PriceUpdate(next(iter(watchlist.streams)), Candle(MINUTE, 1.0, 1.0, 1.0, 1.0))
