"""Servers that misbehave in every way: nothing but the client's own messages and errors comes of it."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import orjson
import pytest

from relay.client import BadReply, ClientClosed, ClientError, Connected, Lost, Message, RelayClient, Unreachable
from relay.client.decoding import Unreadable, decode
from tests.support.client_readings import QUICK, START
from tests.support.stand_in_relay import serving

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


@contextlib.asynccontextmanager
async def playing(play: Play) -> AsyncIterator[str]:
    """Run a server that does the same with each connection, once it has the request; yields its address."""
    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await play(reader, writer, await reader.readuntil(b"\r\n\r\n"))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def accept_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept_one, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        # The client is gone, and so are all connections once the last one is accepted.
        async with asyncio.timeout(30):
            await asyncio.sleep(0.01)
            await asyncio.gather(*served)


def accept(request: bytes) -> bytes:
    [key] = [line[19:].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")]
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"


def text(data: bytes) -> bytes:
    size = bytes((len(data),)) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
    return b"\x81" + size + data


HELLO = text(b'{"type":"status","status":"connected","server_time":1764000000,"epoch":"e"}')
FRAMES = {
    "nothing": b"",
    "half a frame": b"\x81\x7e\x01",
    "a reserved opcode": b"\x83\x01x",
    "reserved bits": b"\xf1\x01x",
    "a masked frame": b"\x81\x81\0\0\0\0x",
    "no UTF-8": b"\x81\x02\xff\xfe",
    "a length of 2^62": b"\x81\x7f" + struct.pack("!Q", 2**62),
    "a ping that is too long": b"\x89\x7e\x01\x00" + b"x" * 256,
    "a close of one byte": b"\x88\x01\x03",
    "a close with a code that is none": b"\x88\x02" + struct.pack("!H", 5),
    "a close whose reason is no UTF-8": b"\x88\x04" + struct.pack("!H", 1000) + b"\xff\xfe",
    "a continuation of nothing": b"\x80\x01x",
    "pings, then the end": b"\x89\x00" * 50,
    "no JSON": text(b"{"),
    "JSON that is nested too deep": text(b"[" * 5000),
    "no object": text(b"[1]"),
    "a candle of the year 10^30": text(
        b'{"type":"price_update","symbol":"A","interval":"1M","is_closed":true,"candle":'
        b'{"time":1e30,"open":1,"high":1,"low":1,"close":1}}'
    ),
    "a binary frame": b"\x82\x01x",
}


@pytest.mark.parametrize("aborts", [False, True])
@pytest.mark.parametrize("frames", FRAMES.values(), ids=FRAMES.keys())
async def test_faults_of_a_connection_are_losses(frames: bytes, aborts: bool) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(accept(request) + HELLO + frames)
        await writer.drain()
        if aborts:
            await asyncio.sleep(0.02)
            writer.transport.abort()

    async with playing(play) as url, RelayClient(url, backoff_s=QUICK, waits_for_relay=True) as client:
        await client.subscribe("A@1M")
        found: list[Message] = []
        async with asyncio.timeout(30):
            async for message in client:
                found.append(message)
                if sum(isinstance(message, Lost) for message in found) == 2:
                    break
    assert {type(message) for message in found} == {Connected, Lost}


HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
ANSWERS = {
    "nothing": b"",
    "no HTTP": b"\x16\x03\x01\x00\x05hello",
    "half a head": b"HTTP/1.1 200",
    "a status that is no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "a switch without proof": HEAD + b"\r\n",
    "a switch with the wrong proof": HEAD + b"Sec-WebSocket-Accept: AAAA\r\n\r\n",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n<p",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n[",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n[]",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a body that is no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    "half a gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"[]" * 500)[:20],
    "an encoding that nobody knows": b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\nabcd",
    "a redirect to nowhere": b"HTTP/1.1 302 Found\r\nLocation: http://[::/\r\nContent-Length: 0\r\n\r\n",
    "a redirect to another scheme": b"HTTP/1.1 302 Found\r\nLocation: file:///etc\r\nContent-Length: 0\r\n\r\n",
    "an error that is no problem": b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\nRetry-After: inf\r\n\r\n[1]",
}
CALLS: dict[str, Callable[[RelayClient], Awaitable[object]]] = {
    "iteration": lambda client: anext(client),
    "history": lambda client: client.history("BTCUSDT", "1m"),
    "status": lambda client: client.status(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_faults_of_an_answer_are_errors_of_the_client(
    answer: bytes, call: Callable[[RelayClient], Awaitable[object]]
) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(answer)
        await writer.drain()

    async with playing(play) as url, RelayClient(url, backoff_s=QUICK, timeout_s=5) as client:
        with pytest.raises(ClientError) as caught:
            await call(client)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"null", b"5", b"[null]", b"[5]", b"{}", b'{"symbol":1,"interval":2,"candles":[{"time":1e300}]}', b"[[]]"]
)
async def test_answers_of_other_shapes_are_told_apart(body: bytes) -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async with playing(play) as url, RelayClient(url) as client:
        for call in (client.history("BTCUSDT", "1m"), client.symbols(), client.instruments()):
            with pytest.raises(BadReply):
                await call


async def test_relay_that_falls_silent_is_lost_within_the_heartbeat() -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(accept(request) + HELLO)
        await reader.read()

    async with playing(play) as url, RelayClient(url, backoff_s=QUICK, heartbeat_s=0.1) as client:
        async with asyncio.timeout(30):
            assert [type(await anext(client)) for _ in range(3)] == [Connected, Lost, Connected]


async def test_session_that_was_closed_by_its_owner_is_named() -> None:
    async with serving(START) as relay, aiohttp.ClientSession() as session:
        client = RelayClient(relay.url, session=session, waits_for_relay=True)
        await session.close()
        with pytest.raises(ClientClosed, match="session"):
            await anext(client)
        with pytest.raises(ClientClosed, match="session"):
            async for _ in client:
                pass
        with pytest.raises(ClientClosed, match="session"):
            await client.symbols()
        await client.close()


async def test_host_that_cannot_be_looked_up_is_unreachable() -> None:
    async with RelayClient("http://nowhere.invalid") as client:
        with pytest.raises(Unreachable):
            await anext(client)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "gap", "from": -1, "to": 60},
        {"type": "gap", "from": 0, "to": 1e30},
        {"type": "status", "status": "connected", "server_time": 1e30},
        {"type": "error", "code": "rate_limited", "retry_after": "inf"},
    ],
)
def test_moments_and_waits_that_nothing_can_hold_are_unreadable(fields: dict[str, object]) -> None:
    wire = {**fields} if fields["type"] == "status" else {"symbol": "BTCUSDT", "interval": "1m", **fields}
    with pytest.raises(Unreadable):
        decode(orjson.dumps(wire).decode())
