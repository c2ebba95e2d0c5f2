"""What stands between the socket and aiohttp: slices, one a round, and an end."""

import asyncio
import itertools
from typing import cast

import pytest
from aiohttp import web

from relay.config.settings import Config
from relay.network.read_slices import SLICE_BYTES
from relay.web.access.access import Access
from relay.web.access.http_connections import HttpConnections
from relay.web.inlet import LEAST_READ_BYTES, OVER_LIMIT_BURST, REQUEST_BYTES, Inlet
from tests.conftest import StartRelay
from tests.support.conditions import eventually


class Socket:
    """Stands where the transport does."""

    def __init__(self) -> None:
        self.is_reading = True
        self.is_closed = False
        self.is_aborted = False
        self.unread = self.looks = self.taken_at_each_look = 0

    def get_extra_info(self, name: str) -> object:
        return None

    def get_write_buffer_size(self) -> int:
        if not self.is_aborted:
            self.looks += 1
        self.unread = max(0, self.unread - self.taken_at_each_look)
        return self.unread

    def write(self, data: bytes) -> None: ...

    def writelines(self, parts: list[bytes]) -> None: ...

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class Inner:
    """Stands where aiohttp does; holds its inlet after every slice if told to."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.inlet: Inlet | None = None
        self.holds = False
        self.has_ended = False

    def connection_made(self, transport: object) -> None: ...

    def connection_lost(self, error: Exception | None) -> None:
        self.has_ended = True

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def data_received(self, data: bytes) -> None:
        self.got.append(bytes(data))
        if self.holds and self.inlet is not None:
            self.inlet.hold()


class Line:
    """An inlet between both."""

    def __init__(self, **options: float) -> None:
        self.inner, self.socket = Inner(), Socket()
        self.http = HttpConnections(Access(Config()))
        self.inlet = Inlet(cast(web.RequestHandler, self.inner), self.http, **options)
        self.inner.inlet = self.inlet
        self.inlet.connection_made(cast(asyncio.BaseTransport, self.socket))


@pytest.fixture
async def line() -> Line:
    return Line()


LARGE = bytes(range(256)) * (SLICE_BYTES // 256) * 3 + b"the end"


async def test_large_read_is_handed_on_a_slice_a_round_and_nothing_is_read_meanwhile(line: Line) -> None:
    line.inlet.data_received(LARGE)
    seen = []
    while not line.socket.is_reading:
        seen.append(len(line.inner.got))
        await asyncio.sleep(0)
    assert seen[:1] == [0]
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1
    assert [len(part) for part in line.inner.got] == [SLICE_BYTES] * 3 + [7]
    assert b"".join(line.inner.got) == LARGE


async def test_small_read_is_handed_on_at_once(line: Line) -> None:
    line.inlet.data_received(b"GET")
    assert (line.inner.got, line.socket.is_reading) == ([b"GET"], True)


async def test_what_comes_late_keeps_its_place(line: Line) -> None:
    line.inlet.data_received(LARGE)
    await asyncio.sleep(0)
    line.inlet.data_received(b"more")
    await eventually(lambda: line.socket.is_reading)
    assert b"".join(line.inner.got) == LARGE + b"more"


async def test_nothing_is_handed_on_while_aiohttp_has_enough(line: Line) -> None:
    line.inner.holds = True
    line.inlet.data_received(LARGE)
    for count in (1, 2, 3, 4):
        for _ in range(10):
            await asyncio.sleep(0)
        assert (len(line.inner.got), line.socket.is_reading) == (count, False)
        line.inlet.release()
    await eventually(lambda: line.socket.is_reading)
    assert b"".join(line.inner.got) == LARGE


async def test_request_that_does_not_end_ends_the_connection(line: Line) -> None:
    for _ in range(REQUEST_BYTES // SLICE_BYTES):
        line.inlet.data_received(b"x" * SLICE_BYTES)
    assert not line.socket.is_closed
    line.inlet.data_received(b"x")
    assert (line.socket.is_closed, len(line.inner.got)) == (True, REQUEST_BYTES // SLICE_BYTES)


async def test_each_request_that_is_complete_makes_room_for_the_next(line: Line) -> None:
    for _ in range(2 * REQUEST_BYTES // SLICE_BYTES):
        line.inlet.data_received(b"x" * SLICE_BYTES)
        line.inlet.greet()
    assert not line.socket.is_closed


async def test_after_the_end_some_is_read_and_forgotten_and_then_nothing(line: Line) -> None:
    line.inlet.stop(10)
    line.inlet.data_received(b"12345")
    assert line.socket.is_reading
    line.inlet.greet()
    line.inlet.release()
    line.inlet.data_received(b"67890")
    assert (line.socket.is_reading, line.inner.got) == (False, [])
    line.inlet.release()
    assert not line.socket.is_reading


@pytest.mark.parametrize("most", [None, 0, 10])
async def test_the_end_of_the_connection_is_passed_on_at_once(line: Line, most: int | None) -> None:
    line.inlet.data_received(LARGE)
    line.inlet.hold()
    if most is not None:
        line.inlet.stop(most)
        line.inlet.hold()
    line.inlet.connection_lost(None)
    assert line.inner.has_ended


async def test_answer_that_nobody_reads_ends_the_connection() -> None:
    line = Line(unread_s=0.01)
    line.inlet.pause_writing()
    line.inlet.resume_writing()
    await asyncio.sleep(0.05)
    assert not line.socket.is_aborted
    line.inlet.pause_writing()
    await eventually(lambda: line.socket.is_aborted)


async def test_answer_that_is_read_slowly_does_not_end_the_connection_as_long_as_it_is_read() -> None:
    line = Line(unread_s=0.001)
    line.socket.unread = 9 * LEAST_READ_BYTES
    line.socket.taken_at_each_look = LEAST_READ_BYTES
    line.inlet.pause_writing()
    await eventually(lambda: line.socket.unread == 0)
    # Of the ninth look nothing was left to be taken.
    assert line.socket.looks >= 9
    await eventually(lambda: line.socket.is_aborted)


async def test_websocket_that_does_not_read_is_left_to_its_own_patience() -> None:
    line = Line(unread_s=0.01)
    line.inlet.begin_websocket()
    line.inlet.pause_writing()
    await asyncio.sleep(0.05)
    assert not line.socket.is_aborted


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Ask for the symbols; return the head of the answer."""
    writer.write(b"GET /api/v1/market-data/symbols HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().lower().splitlines()[1:] if line)
    await reader.readexactly(int(fields["content-length"]))
    return head


async def test_client_that_goes_on_above_the_rate_is_answered_429_and_then_cut(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second_per_address=0.1)
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    heads = [await get(reader, writer) for _ in range(1 + OVER_LIMIT_BURST)]
    assert {head[:12] for head in heads[1:]} == {b"HTTP/1.1 429"}
    assert not any(b"Connection: close" in head for head in heads)
    assert b"Connection: close" in await get(reader, writer)
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("body", ["chunked", "endless"])
async def test_request_with_a_body_is_answered_and_the_body_not_waited_for(relay_with: StartRelay, body: str) -> None:
    relay = await relay_with()
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    how = "Transfer-Encoding: chunked" if body == "chunked" else "Content-Length: 1000000000"
    writer.write(f"POST /healthz HTTP/1.1\r\nHost: localhost\r\n{how}\r\n\r\n".encode())
    writer.write(b"5\r\nabcde\r\n" * 100_000)
    async with asyncio.timeout(30):
        got = await reader.read()
    assert got.startswith(b"HTTP/1.1 405")
    assert got.count(b"HTTP/1.1") == 1
    writer.close()


async def test_small_body_leaves_the_connection_open(relay_with: StartRelay) -> None:
    relay = await relay_with()
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(2):
        writer.write(request)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 405")
        await reader.readuntil(b"}")
    writer.close()
