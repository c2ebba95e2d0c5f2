"""The size of messages: what is taken, and what the client still reads when it sent too much."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from relay.web.ws.socket import Socket
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Closed, Running, WsClient

pytestmark = pytest.mark.usefixtures("way")


def ping_of(size: int) -> str:
    text = '{"action":"ping","id":"%s"}'
    return text % ("x" * (size - len(text) + 2))


async def test_message_of_4096_bytes_is_taken(client: WsClient) -> None:
    await client.send_text(ping_of(4096))
    assert (await client.next())["type"] == "pong"


@pytest.mark.parametrize("size", [4097, 5000, 70_000, 3_000_000])
async def test_larger_message_closes_the_connection_with_1009(client: WsClient, bystander: WsClient, size: int) -> None:
    with pytest.raises(Closed) as closed:  # noqa: PT012  the send itself may meet the closed connection
        with contextlib.suppress(ConnectionError):
            await client.send_text(ping_of(size))
        await client.next()
    assert (closed.value.code, closed.value.reason) == (1009, "message too big")


async def test_size_counts_bytes_not_letters(client: WsClient) -> None:
    text = '{"action":"ping","id":"%s"}' % ("é" * 2040)
    assert len(text) < 4096 < len(text.encode())
    await client.send_text(text)
    assert (await client.closing()).code == 1009


async def test_fragments_are_counted_together(client: WsClient) -> None:
    writer = client.socket._writer
    body = ping_of(5000).encode()
    transport = writer.transport
    assert isinstance(transport, asyncio.WriteTransport)
    mask = bytes(4)
    transport.write(b"\x01\xfe" + (3000).to_bytes(2, "big") + mask + body[:3000])
    transport.write(b"\x80\xfe" + (2000).to_bytes(2, "big") + mask + body[3000:])
    assert (await client.closing()).code == 1009


async def test_compressed_messages_are_measured_as_they_are_unpacked(relay_with: StartRelay) -> None:
    relay = await relay_with(compression=True)
    client = await relay.connect(compress=15)
    await client.send_text(ping_of(4096))
    assert (await client.next())["type"] == "pong"
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    for size in (4097, 1_000_000):
        client = await relay.connect(compress=15)
        await client.send_text(ping_of(size))
        assert (await client.closing()).code == 1009


async def test_greeting_leaves_in_one_write_with_the_answer_to_the_handshake(
    relay: Running, client: WsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(client.socket._writer.transport)
    write, written = kind.write, []

    def note(transport: asyncio.WriteTransport, data: bytes) -> None:
        written.append(bytes(data))
        write(transport, data)

    monkeypatch.setattr(kind, "write", note)
    await relay.connect()
    answer = next(data for data in written if data.startswith(b"HTTP/1.1 101 "))
    assert b'"status":"connected"' in answer


async def test_client_is_greeted_where_aiohttp_sends_the_answer_at_once(
    relay: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Socket, "_send_headers_immediately", True)
    client = await relay.connect(hello=False)
    assert (await client.next())["status"] == "connected"
    await client.subscribe("BTCUSDT@1m")
    await client.update()


async def test_client_that_is_gone_before_it_is_greeted_is_told_from_one_that_is_there(
    aiohttp_client: Callable[[web.Application], Awaitable[TestClient[Any, Any]]],
) -> None:
    opened: list[object] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        socket = Socket(compress=False)
        opened.append(await socket.open(request, b"\x81\x02{}"))
        return socket

    app = web.Application()
    app.add_routes([web.get("/", serve)])
    client = await aiohttp_client(app)
    with pytest.raises(aiohttp.ClientError):
        await client.ws_connect("/")
    await eventually(lambda: opened)
    assert opened == [None]
