"""Upstreams that flood: each is cut with its reason, and others go on meanwhile; a market that is busy is not cut."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import suppress
from urllib.parse import quote

import aiohttp
import pytest

from providers import BUILTIN
from relay import (
    API_VERSION,
    BadAnswer,
    Hosts,
    Instrument,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    StreamKey,
    Watchlist,
    ask_rest,
    hookimpl,
    websocket_feed,
)
from relay.client import BadReply, Lost, RelayClient
from relay.core.errors import Flooded
from relay.network.http_sessions import open_session
from relay.upstream.codec import Decoded
from tests.conftest import StartRelay
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.hostile_upstream import BODIES, FRAMES, HEADS, UPDATE, UPGRADES, frame, hostile, upgraded
from tests.support.plain_codec import PlainCodec
from tests.support.pump import Pump

A = StreamKey("A", "1m")
REFUSED = {"headers", "header", "reason", "trailers"}
"""aiohttp has a bound of its own for these."""


@pytest.fixture(scope="module")
def address() -> Iterable[str]:
    with hostile() as address:
        yield address


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


class Turns:
    """Counts the turns of the event loop, and what is done in one of them."""

    def __init__(self) -> None:
        self.count = 0
        self.most_in_one = 0
        self._now = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1
            self._now = 0

    def note(self) -> None:
        self._now += 1
        self.most_in_one = max(self.most_in_one, self._now)


class CountingCodec(PlainCodec):
    """Counts how many messages are read in a turn."""

    def __init__(self, url: str, turns: Turns) -> None:
        super().__init__(url)
        self.turns = turns

    def decode(self, raw: str | bytes) -> Iterable[Decoded]:
        self.turns.note()
        return super().decode(raw)


def pump(session: aiohttp.ClientSession, address: str, kind: str, turns: Turns) -> Pump:
    codec = CountingCodec(f"ws://{address}/{quote(kind)}", turns)
    return Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [A])


@pytest.mark.parametrize("kind", FRAMES)
async def test_feed_that_floods_is_ended_with_the_reason_and_others_have_turns(
    session: aiohttp.ClientSession, address: str, kind: str
) -> None:
    turns = Turns()
    counting = asyncio.create_task(turns.run())
    async with pump(session, address, kind, turns) as feed:
        error = await feed.end()
    counting.cancel()
    assert isinstance(error, Flooded)
    assert str(error) == "too many frames without content arrived; the connection was closed"
    assert turns.most_in_one <= 100
    assert turns.count >= 5


@pytest.mark.parametrize(("kind", "count"), [("news", 60_000), ("news in ten", 6000)])
async def test_busy_market_is_not_cut_and_others_have_turns(
    session: aiohttp.ClientSession, address: str, kind: str, count: int
) -> None:
    turns = Turns()
    counting = asyncio.create_task(turns.run())
    async with pump(session, address, kind, turns) as feed:
        await feed.until(lambda: len(feed.updates) >= count or feed.has_ended)
        assert feed.error is None
        assert not feed.has_ended
    counting.cancel()
    assert turns.most_in_one <= 100
    assert turns.count > count / 200


class Talker:
    """An upstream that goes on sending after it was asked to close, and counts what it sends from then on."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._server.getsockname()[1]}"
        self.sent = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._server, self._server.accept()[0] as connection, suppress(OSError):
            connection.sendall(upgraded(connection.recv(65536)))
            more = frame(0x81, UPDATE + b" " * 60_000) * 10
            while True:
                connection.sendall(more)
                self.sent += len(more)


async def test_feed_that_goes_on_sending_is_not_read_on_while_it_is_closed(session: aiohttp.ClientSession) -> None:
    talker = Talker()
    feed = websocket_feed(session, PlainCodec(talker.url), Watchlist([A]))
    await anext(feed)
    before = talker.sent
    await feed.aclose()
    # What the socket holds is not read either, so that it is only a bound.
    await asyncio.to_thread(talker.thread.join)
    assert talker.sent - before < 64_000_000


@pytest.mark.parametrize("kind", [*HEADS, *BODIES])
async def test_answer_that_floods_is_a_bad_answer_and_others_have_turns(
    session: aiohttp.ClientSession, address: str, kind: str
) -> None:
    turns = Turns()
    counting = asyncio.create_task(turns.run())
    with pytest.raises(ProviderUnavailable if kind in REFUSED else BadAnswer) as caught:
        await ask_rest(session, Hosts([f"http://{address}"]), f"/{quote(kind)}", timeout_s=LONGEST_WAIT_S)
    counting.cancel()
    words = {
        **dict.fromkeys(HEADS, "the server sent more than 128 KiB before the answer"),
        **dict.fromkeys(BODIES, "more than half of the received data is not content"),
        **dict.fromkeys(REFUSED, "the connection was lost: "),
        "body": "the answer is larger than 16 MiB after decompression",
        "arrays": "the answer has more than 1,000,000 values",
    }
    assert str(caught.value).startswith(words[kind])


@pytest.mark.parametrize("kind", UPGRADES)
async def test_upgrade_that_floods_is_a_bad_answer(session: aiohttp.ClientSession, address: str, kind: str) -> None:
    codec = PlainCodec(f"ws://{address}/{kind}")
    async with Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [A]) as feed:
        error = await feed.end()
    assert isinstance(error, BadAnswer)
    assert str(error) == "the connection was not opened: the server sent more than 128 KiB before the answer"
    assert codec.failures == [None]


@pytest.fixture(params=["its own", "given"])
async def lent(request: pytest.FixtureRequest) -> AsyncIterator[aiohttp.ClientSession | None]:
    """The session that a client is given, if it is."""
    if request.param == "its own":
        yield None
        return
    async with aiohttp.ClientSession() as own:
        yield own


@pytest.mark.parametrize("kind", ["interim", "blocks"])
async def test_client_of_a_relay_that_floods_is_told(
    address: str, kind: str, lent: aiohttp.ClientSession | None
) -> None:
    async with RelayClient(f"http://{address}/{kind}/", session=lent) as client:
        with pytest.raises(BadReply):
            await client.symbols()


@pytest.mark.parametrize("kind", ["continuations", "binaries", "pings", "pongs"])
async def test_client_of_a_relay_that_floods_leaves_it(
    address: str, kind: str, lent: aiohttp.ClientSession | None
) -> None:
    async with RelayClient(f"http://{address}/{quote(kind)}/", session=lent) as client:
        for _ in range(2):
            message = await anext(client)
            assert isinstance(message, Lost)
            assert message.reason == "connection to the relay lost (the relay sent too many messages without content)"


class Hostile:
    """A provider whose exchange floods."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opened = 0

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("hostile", API_VERSION, "Hostile", ("demo",), ("1m",))

    @hookimpl
    def relay_stream(self, watchlist: Watchlist, session: aiohttp.ClientSession) -> AsyncGenerator[PriceUpdate, None]:
        self.opened += 1
        return websocket_feed(session, PlainCodec(self.url), watchlist)

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument("A", "demo", "A", "B")]


@pytest.mark.parametrize("kind", ["pings", "interim"])
async def test_clients_hear_prices_while_another_exchange_floods_again_and_again(
    relay_with: StartRelay, address: str, kind: str
) -> None:
    plugin = Hostile(f"ws://{address}/{kind}")
    relay = await relay_with(builtin=[*BUILTIN, plugin])
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    await client.update(symbol="BTCUSDT")
    await client.subscribe("A@1m")
    why = "too many frames without content" if kind == "pings" else "128 KiB before the answer"
    await client.until(lambda said: said["type"] == "status" and said.get("symbol") == "A" and why in said["message"])
    while plugin.opened < 3:
        await client.update(symbol="BTCUSDT", is_closed=True)
