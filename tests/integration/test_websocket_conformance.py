"""What a conformance suite asks of a WebSocket server, over a socket: what is answered, and the close code."""

import asyncio

import orjson
import pytest

from tests.conftest import StartRelay
from tests.support.raw_socket import HANDSHAKE
from tests.support.websocket_cases import CASES, CLOSE, PING, PONG, TEXT, Case, client_frame

COMPRESSED = HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
LAST = client_frame(TEXT, b'{"action":"ping","id":"the last"}')


def answers_to(case: Case, way: str) -> list[object]:
    """Return what has to come: the `id` or the code of each answer, the body of each pong, and how it ends."""
    messages = case.messages if way != "aiohttp" or case.by_aiohttp is None else case.by_aiohttp
    expected: list[object] = []
    for message in messages:
        if isinstance(message, int):
            return [*expected, (CLOSE, message)]
        if isinstance(message, str):
            try:
                expected.append(orjson.loads(message)["id"])
            except orjson.JSONDecodeError:
                expected.append("invalid_json")
            except KeyError:
                expected.append("invalid_request")
        elif isinstance(message, tuple) and message[0] == CLOSE:
            return [*expected, (CLOSE, 1000)]
        elif isinstance(message, tuple) and message[0] == PING:
            expected.append((PONG, message[1]))
        elif message != (PONG,):
            expected.append("invalid_request")
    return [*expected, "the last"]


async def next_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    return first & 0x0F, await reader.readexactly(size)


async def answers(reader: asyncio.StreamReader) -> list[object]:
    found: list[object] = []
    async with asyncio.timeout(30):
        while True:
            opcode, body = await next_frame(reader)
            if opcode == CLOSE:
                return [*found, (CLOSE, int.from_bytes(body[:2], "big"))]
            if opcode == PONG:
                found.append((PONG, body))
            else:
                message = orjson.loads(body)
                found.append(message.get("code") or message["id"])
                if found[-1] == "the last":
                    return found


@pytest.mark.parametrize("is_dripping", [False, True], ids=["whole", "byte by byte"])
async def test_relay_answers_what_it_should_and_closes_with_the_code_that_it_should(
    relay_with: StartRelay, way: str, is_dripping: bool
) -> None:
    relay = await relay_with(compression=True)
    host, port = relay.url.removeprefix("http://").split(":")
    wrong = []
    # So many single bytes are no flood yet. Who sends more after a close frame may not see the answer.
    short = [case for case in CASES[::7] if len(case.sent) < 200 and "after a close" not in case.name]
    for case in short if is_dripping else CASES:
        expected = answers_to(case, way)
        if expected == ["the last"] and case.name.startswith("the beginning"):
            # It waits for the rest.
            continue
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(COMPRESSED if case.is_compressed else HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        await next_frame(reader)
        sent = case.sent + (LAST if expected[-1] == "the last" else b"")
        for part in [bytes([byte]) for byte in sent] if is_dripping else [sent]:
            writer.write(part)
            await asyncio.sleep(0)
        try:
            found = await answers(reader)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as error:
            found = [error]
        if found != expected:
            wrong.append((case.name, expected, found))
        writer.close()
    assert wrong == []
