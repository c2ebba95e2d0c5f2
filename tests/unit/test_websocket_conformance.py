"""What a conformance suite asks of a WebSocket server, of both readers: whole, byte by byte, and cut anywhere."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiohttp import EofStream, WebSocketError, WSMessage, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import WebSocketReader

from relay.core.rate_limits import TokenBucket
from relay.network.websocket_frames import FrameCounter
from relay.protocol import frames
from relay.web.ws.aiohttp_connection import received_of
from relay.web.ws.messages import MessageKind, MessageParser, Received
from tests.support.websocket_cases import BINARY_READ, CASES, CLOSE, PING, PONG, Case, client_frame

Read = Callable[[Case, Sequence[bytes]], Awaitable[list[object]]]


def told(received: Received) -> object:
    """Return a message as the cases write it."""
    match received.kind:
        case MessageKind.TEXT:
            return received.text
        case MessageKind.BINARY:
            return BINARY_READ
        case MessageKind.PING:
            return PING, received.body
        case MessageKind.PONG:
            return (PONG,)
        case MessageKind.CLOSE:
            return CLOSE, received.code
        case MessageKind.FAULT:
            return received.code


async def read_directly(case: Case, parts: Sequence[bytes]) -> list[object]:
    parser = MessageParser(is_compressed=case.is_compressed)
    counter = FrameCounter(parser, TokenBucket(1, 1_000_000), lambda: None)
    found: list[object] = []
    for part in parts:
        counter.feed_data(part)
        found += map(told, parser.drain())
    return found


async def read_by_aiohttp(case: Case, parts: Sequence[bytes]) -> list[object]:
    loop = asyncio.get_running_loop()
    queue = WebSocketDataQueue(BaseProtocol(loop), 1 << 20, loop=loop)
    reader = WebSocketReader(queue, frames.MESSAGE_BYTES + 1, compress=case.is_compressed, decode_text=True)
    for part in parts:
        if reader.feed_data(part)[0]:
            break
    else:
        reader.feed_eof()
    found: list[object] = []
    while True:
        try:
            message = await queue.read()
        except EofStream:
            return found
        except (WebSocketError, zlib.error) as error:
            message = WSMessage(WSMsgType.ERROR, error, None)
        assert isinstance(message, WSMessage)
        received = received_of(message)
        assert received is not None
        found.append(told(received))
        if received.kind is MessageKind.FAULT:
            return found


READERS = {"direct": read_directly, "aiohttp": read_by_aiohttp}


@pytest.mark.parametrize("reader", READERS)
async def test_reader_makes_of_bytes_what_it_should(reader: str) -> None:
    read = READERS[reader]
    wrong = []
    for case in CASES:
        expected = case.messages
        if reader == "aiohttp" and case.by_aiohttp is not None:
            expected = case.by_aiohttp
        data = case.sent
        cuts = [[data[:cut], data[cut:]] for cut in range(0, len(data), max(1, len(data) // 60))]
        for parts in ([data], [bytes([byte]) for byte in data], *cuts):
            found = tuple(await read(case, parts))
            if found != expected:
                wrong.append((case.name, [len(part) for part in parts], found, expected))
                break
    assert wrong == []


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
async def test_control_frame_that_says_it_is_compressed_is_refused(opcode: int) -> None:
    # Versions of aiohttp differ.
    case = Case("", client_frame(opcode, reserved=4), (1002,), is_compressed=True)
    assert await read_directly(case, [case.sent]) == [1002]
