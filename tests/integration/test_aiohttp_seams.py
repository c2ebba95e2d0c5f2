"""Each name of aiohttp that the relay leans on is there and does what it is used for; and the relay without them."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web

from relay.network.aiohttp_client_seams import Seam
from relay.network.read_slices import SLICE_BYTES, HeldTransport, Slices
from relay.web import aiohttp_seams
from relay.web.aiohttp_seams import (
    HANDLER,
    LATE_HEAD,
    PAUSING,
    PORTION_BYTES,
    SEAMS,
    SENT,
    WRITING_PAST,
    Handler,
    _portions,
    adopt,
    release,
    send_past,
    tell_missing,
)
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Running

HISTORY = "/api/v1/market-data/history?symbol=BTCUSDT&interval=1m&limit=500"


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have the relay take names of aiohttp for missing."""
    seam: Seam = getattr(aiohttp_seams, name)
    monkeypatch.setattr(aiohttp_seams, name, seam._replace(names=(*seam.names, "no_longer_there")))


# -- the names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seam", [seam for seam in SEAMS if seam is not PAUSING], ids=lambda seam: seam.names[0])
def test_aiohttp_has_the_names(seam: Seam) -> None:
    assert seam.is_there
    assert not seam._replace(names=("no_longer_there",)).is_there


@pytest.fixture
def may_read() -> asyncio.Event:
    """Set when the handler is to read what it was sent."""
    return asyncio.Event()


@pytest.fixture
async def handler(may_read: asyncio.Event) -> web.RequestHandler:
    """A handler as aiohttp makes it."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await may_read.wait()
        await request.content.readany()
        return web.Response()

    return web.Server(answer)()


async def test_a_handler_may_be_given_another_class(handler: web.RequestHandler) -> None:
    assert Handler.__slots__ == ()
    assert adopt(handler)
    assert type(handler) is Handler


class Control(Slices):
    """Notes what it is told."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        super().__init__(inner)
        self.told: list[str] = []

    def hold(self) -> None:
        self.told.append("hold")

    def release(self) -> None:
        self.told.append("release")


class Pipe(asyncio.Transport):
    """A transport to nowhere of a connection with that protocol."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.is_paused = self.is_closed = False
        self.written: list[bytes] = []

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


@pytest.mark.parametrize("is_adopted", [True, False])
async def test_aiohttp_pauses_by_its_slices(
    handler: web.RequestHandler, may_read: asyncio.Event, is_adopted: bool
) -> None:
    if is_adopted and not PAUSING.is_there:
        pytest.skip("this aiohttp has no such names; the other way holds")
    if is_adopted:
        adopt(handler)
    control = Control(handler)
    pipe = Pipe(control)
    aiohttp_seams.connect(handler, pipe, control)
    assert isinstance(handler.transport, HeldTransport) is not is_adopted
    handler.data_received(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n")
    await asyncio.sleep(0)
    handler.data_received(bytes(1_000_000))
    await eventually(lambda: control.told == ["hold"])
    may_read.set()
    await eventually(lambda: "release" in control.told)
    assert not pipe.is_paused
    assert handler.transport is not None
    handler.transport.write(b"x")
    assert (pipe.written[-1], handler.transport.get_protocol()) == (b"x", control)
    handler.connection_lost(None)


async def test_handler_that_is_released_ends_and_leaves_the_connection_open() -> None:
    ended: list[asyncio.Task[Any] | None] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        ended.append(request.task)
        assert isinstance(request.protocol, Handler)
        release(request.protocol)
        return SENT

    server = web.Server(answer)
    handler = server()
    adopt(handler)
    control = Control(handler)
    pipe = Pipe(control)
    aiohttp_seams.connect(handler, pipe, control)
    assert server.connections == [handler]
    handler.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await eventually(lambda: ended)
    task = ended[0]
    assert task is not None
    await task
    await eventually(lambda: server.connections == [])
    assert (pipe.written, pipe.is_closed, handler.transport) == ([], False, None)
    # What comes later is for others.
    handler.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert len(ended) == 1


async def test_answer_to_a_handshake_waits_for_the_first_write(relay: Running) -> None:
    """Head and greeting in one read: by one write, since the client reads only then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(relay.url.rpartition(":")[2]))
    writer.write(
        b"GET /api/v1/market-data/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    first = await reader.read(1 << 16)
    assert first.startswith(b"HTTP/1.1 101 ")
    assert b'"type":"status"' in first.partition(b"\r\n\r\n")[2]
    writer.close()


# -- without them ----------------------------------------------------------------------------------


def test_what_is_missing_is_said_once_each_when_the_relay_starts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tell_missing([HANDLER, LATE_HEAD._replace(names=("gone", "lost"))])
    assert [record.getMessage() for record in caplog.records] == [
        f"this aiohttp's StreamResponse has no gone or lost: {LATE_HEAD.without}"
    ]


async def serves(relay: Running) -> None:
    """Use the relay as clients do: live, from memory over one connection, and with more than a slice at once."""
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", bars=5)
    assert (await client.update(symbol="BTCUSDT"))["candle"]["close"] > 0
    await client.send("nonsense")
    await client.error()
    await client.ask("ping", id=1)
    await client.answer(1)
    for _ in range(4):
        assert len((await relay.get(HISTORY)).body["candles"]) == 500
    await client.socket.close()
    await eventually(lambda: not relay.clients.connections)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(relay.url.rpartition(":")[2]))
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 4000 + b"\r\n\r\n"
    writer.write(request * (4 * SLICE_BYTES // len(request)))
    for _ in range(4 * SLICE_BYTES // len(request)):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}")
    writer.close()


@pytest.mark.parametrize("name", ["HANDLER", "PAUSING", "WRITING_PAST", "LATE_HEAD"])
async def test_relay_serves_without(name: str, relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, name)
    await serves(await relay_with())


async def test_relay_serves_where_a_handler_cannot_have_another_class(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch, handler: web.RequestHandler
) -> None:
    class OtherLayout(web.RequestHandler):
        __slots__ = ("more",)

    monkeypatch.setattr(aiohttp_seams, "Handler", OtherLayout)
    assert not adopt(handler)
    await serves(await relay_with())


async def test_answer_from_memory_is_written_past_aiohttp_or_by_it(
    relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bool] = []

    async def noted(request: web.Request, parts: Any) -> web.StreamResponse | None:
        answer = await send_past(request, parts)
        sent.append(answer is not None)
        return answer

    monkeypatch.setattr("relay.web.http.cached_body.send_past", noted)
    relay = await relay_with()
    past = [(await relay.get(HISTORY)).text for _ in range(3)][-1]
    assert sent
    assert all(sent)
    sent.clear()
    without(monkeypatch, "WRITING_PAST")
    assert (await relay.get(HISTORY)).text == past
    assert sent == [False]
    assert WRITING_PAST.is_there


@pytest.mark.parametrize("sizes", [[], [0, 3], [PORTION_BYTES, 1, 2 * PORTION_BYTES + 1]])
def test_large_answer_is_sent_in_portions_that_are_the_whole(sizes: list[int]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    portions = [b"".join(portion) for portion in _portions(parts)]
    assert b"".join(portions) == b"".join(parts)
    assert all(0 < len(portion) <= PORTION_BYTES for portion in portions)
