"""Connections of our own: read in slices, bounded in what is no content."""

import asyncio
import itertools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
import trustme
import uvloop
from aiohttp import web

from relay.core.intake import Intake
from relay.network.connector import (
    HEAD_BYTES,
    HELD_BYTES,
    SMALL_SLICE_BYTES,
    SPARE_BYTES,
    USELESS_BURST,
    Line,
    TooLarge,
    line_of,
)
from relay.network.http_sessions import CountedSocket, open_session
from tests.support.conditions import eventually
from tests.support.loopback_server import app_of, loopback_server


class Transport:
    """Stands where the transport does."""

    def __init__(self) -> None:
        self.is_reading = True
        self.is_aborted = False
        self.protocol: object = None

    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Inner:
    """Stands where aiohttp does."""

    connected = True

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.error: Exception | None = None
        self.has_ended = False

    def data_received(self, data: bytes) -> None:
        self.got.append(data)

    def eof_received(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.has_ended = True

    def set_exception(self, error: Exception) -> None:
        self.error = error


class Content:
    """Stands where the body of an answer does."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self.error: Exception | None = None
        self.ends: list[Callable[[], None]] = []

    def on_eof(self, callback: Callable[[], None]) -> None:
        self.ends.append(callback)

    def set_exception(self, error: Exception) -> None:
        self.error = error


class Reader:
    """Stands where the reader of a WebSocket does."""

    def __init__(self) -> None:
        self.frames = 0

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.frames += len(data) // 2
        return False, b""


class Case:
    """A line between both."""

    def __init__(self) -> None:
        self.inner, self.transport, self.content = Inner(), Transport(), Content()
        self.line = Line(self.inner, cast(asyncio.Transport, self.transport))
        self.line.begin()

    def answer(self, status: int = 200) -> None:
        self.line.answer(status, cast(aiohttp.StreamReader, self.content))

    def is_cut(self) -> bool:
        return self.transport.is_aborted

    def send(self, size: int) -> None:
        """Have so many bytes come, one small slice after the other, so that each is handed on at once."""
        for start in range(0, size, SMALL_SLICE_BYTES):
            self.line.data_received(b"x" * min(SMALL_SLICE_BYTES, size - start))


@pytest.fixture
async def case() -> Case:
    return Case()


async def test_a_read_is_handed_on_a_slice_a_round_and_nothing_is_read_meanwhile(case: Case) -> None:
    case.line.data_received(b"x" * (3 * SMALL_SLICE_BYTES + 7))
    seen = []
    while not case.transport.is_reading:
        seen.append(len(case.inner.got))
        await asyncio.sleep(0)
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1
    assert [len(part) for part in case.inner.got] == [SMALL_SLICE_BYTES] * 3 + [7]


async def test_the_end_comes_after_all_that_came_before(case: Case) -> None:
    """A server that answers and closes would else be cut short by what waits for its round."""
    case.line.data_received(b"x" * (2 * SMALL_SLICE_BYTES))
    case.line.hold()
    case.line.connection_lost(None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not case.inner.has_ended
    case.line.release()
    await eventually(lambda: case.inner.has_ended)
    assert sum(map(len, case.inner.got)) == 2 * SMALL_SLICE_BYTES


async def test_the_end_does_not_wait_for_who_wants_nothing_more(case: Case) -> None:
    case.line.data_received(b"x" * (2 * SMALL_SLICE_BYTES))
    case.line.hold()
    case.line.connection_lost(None)
    case.line.forget()
    await eventually(lambda: case.inner.has_ended)
    assert case.inner.got == []


async def test_what_comes_before_an_answer_has_a_bound(case: Case) -> None:
    case.send(HEAD_BYTES)
    assert not case.is_cut()
    case.send(1)
    assert case.is_cut()
    assert str(case.inner.error) == "the server sent more than 128 KiB before the answer"
    assert sum(map(len, case.inner.got)) == HEAD_BYTES


async def test_half_of_an_answer_may_be_no_content_and_some_more(case: Case) -> None:
    case.answer()
    case.send(SPARE_BYTES)
    for _ in range(100):
        case.content.total_bytes += 5000
        case.send(10_000)
    assert not case.is_cut()
    case.send(1)
    assert case.is_cut()
    assert str(case.content.error) == str(case.inner.error) == "more than half of the received data is not content"


async def test_what_nobody_asked_for_ends_a_connection_that_is_kept(case: Case) -> None:
    case.answer()
    case.content.ends[0]()
    case.send(1)
    assert case.is_cut()
    assert case.inner.got == []


async def test_the_next_request_has_the_same_bounds_again(case: Case) -> None:
    for _ in range(2):
        case.send(HEAD_BYTES)
        case.answer()
        case.content.ends[-1]()
        case.line.begin()
    assert not case.is_cut()


async def test_nothing_is_handed_on_once_aiohttp_has_left(case: Case) -> None:
    case.line.data_received(b"x" * (3 * SMALL_SLICE_BYTES))
    case.inner.connected = False
    await eventually(lambda: case.transport.is_reading)
    assert case.inner.got == []


FRAME = b"\x8a\x00"


def frames(case: Case, count: int) -> None:
    for _ in range(count // 100):
        assert case.line.frames is not None
        case.line.frames.feed_data(FRAME * 100)


async def test_frames_without_news_end_a_websocket(case: Case) -> None:
    case.answer(101)
    reader = Reader()
    case.line.guard(reader)
    frames(case, int(USELESS_BURST) - 1000)
    assert not case.is_cut()
    frames(case, 5000)
    assert case.is_cut()
    assert case.line.frames is not None
    assert case.line.frames.is_flooded
    assert reader.frames < USELESS_BURST + 1000


async def test_news_make_up_for_frames_that_are_none_but_never_for_more_than_may_come_at_once(case: Case) -> None:
    case.line.guard(Reader())
    for _ in range(50):
        frames(case, 10_000)
        case.line.news += 1000
    assert not case.is_cut()
    case.line.news += 100_000
    frames(case, 25_000)
    frames(case, 25_000)
    assert case.is_cut()


async def test_news_that_come_more_often_than_anybody_can_read_are_none(case: Case) -> None:
    case.line.guard(Reader())
    for _ in range(100):
        case.line.news += 10_000
        frames(case, 10_000)
    assert case.is_cut()


async def test_little_is_read_of_a_websocket_that_is_being_closed(case: Case) -> None:
    case.line.guard(Reader())
    case.line.part()
    frames(case, 4000)
    assert not case.is_cut()
    frames(case, 2000)
    assert case.is_cut()


# -- with aiohttp ----------------------------------------------------------------------------------


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that answers much, or speaks WebSocket."""

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade") == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data)
            return socket
        return web.Response(body=b"x" * 1_000_000)

    async with loopback_server(app_of(serve)) as host:
        yield f"http://{host}"


async def test_sessions_open_connections_with_a_line(url: str) -> None:
    async with open_session() as session:
        for _ in range(3):
            async with session.get(url) as answer:
                assert answer.connection is not None
                assert line_of(answer.connection.transport) is not None
                assert len(await answer.read()) == 1_000_000
        async with session.ws_connect(url) as socket:
            assert isinstance(socket, CountedSocket)
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello"
            # Each whole message counts as news where nobody judges them.
            assert socket.line is not None
            assert socket.line.news == 1
            assert isinstance(socket.line.frames, object)


Run = Callable[[Coroutine[Any, Any, None]], None]


def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server has for TLS, and what its clients have."""
    authority = trustme.CA()
    there, here = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(there)
    authority.configure_trust(here)
    return there, here


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_answer_arrives_whole_in_every_loop_also_when_the_server_closes(
    run: Run, is_secure: bool, framing: str
) -> None:
    body = bytes(range(256)) * 8000
    head = {
        "length": b"Content-Length: %d\r\nConnection: close" % len(body),
        "chunks": b"Transfer-Encoding: chunked\r\nConnection: close",
        "end": b"Connection: close",
    }[framing]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if framing == "chunks" else body)
        writer.close()

    async def ask() -> None:
        there, here = tls()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=there if is_secure else None)
        port = server.sockets[0].getsockname()[1]
        url = f"http{'s' if is_secure else ''}://127.0.0.1:{port}"
        async with server, open_session() as session, session.get(url, ssl=here) as answer:
            assert answer.connection is None or line_of(answer.connection.transport) is not None
            # Who reads slowly has the connection held.
            await asyncio.sleep(0.05)
            assert await answer.read() == body

    run(ask())


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve connections, which end with the context; give the address."""
    tasks: list[asyncio.Task[None]] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))
        await asyncio.wait(tasks[-1:])
        writer.transport.abort()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_answer_that_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in (b"first", b"next"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")

    async with serving(serve) as url, open_session() as session:
        async with session.get(url) as answer:
            assert await answer.text() == "first"
        await asyncio.sleep(0.2)
        async with session.get(url) as answer:
            assert await answer.text() == "first"


async def test_a_body_that_is_refused_raises_whoever_reads_it() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n1;")
        while not writer.transport.is_closing():
            writer.write(b"x" * 65536)
            await asyncio.sleep(0)

    async with serving(serve) as url, open_session() as session, session.get(url) as answer:
        with pytest.raises(TooLarge, match="not content"):
            async for _ in answer.content.iter_any():
                pass


async def test_a_closed_session_waits_for_nobody_to_end_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        # It does not read that the other side ends TLS.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst")
        await asyncio.Event().wait()

    there, here = tls()
    async with serving(serve, there) as url:
        async with open_session() as session:
            answer = await session.get(url, ssl=here)
            assert answer.connection is not None
            assert answer.connection.transport is not None
            sock = answer.connection.transport.get_extra_info("socket")
            answer.close()
            for _turn in range(5):
                await asyncio.sleep(0)
            assert sock.fileno() != -1
        await asyncio.sleep(0)
        assert sock.fileno() == -1


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_closed_session_with_tls_loses_nothing_that_was_sent_and_has_its_websocket_end_cleanly(run: Run) -> None:
    heard: list[object] = []
    has_ended = asyncio.Event()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        heard.extend([message.data async for message in socket])
        heard.append(socket.close_code)
        has_ended.set()
        return socket

    async def ask() -> None:
        there, here = tls()
        runner = web.AppRunner(app_of(serve))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=there).start()
        async with open_session() as session:
            socket = await session.ws_connect(f"https://127.0.0.1:{runner.addresses[0][1]}", ssl=here)
            line = cast(CountedSocket, socket).line
            assert line is not None
            await socket.send_str("last")
            await socket.close()
            # TLS has ended, the connection may not have.
            assert line.unread_bytes() == 0
        await has_ended.wait()
        await runner.cleanup()

    run(ask())
    assert heard == ["last", 1000]


# -- held back -------------------------------------------------------------------------------------


class Held:
    """A WebSocket over a real socket, and what was read of it when."""

    def __init__(self, theirs: socket.socket, inner: Inner, line: Line) -> None:
        self.theirs = theirs
        self.inner = inner
        self.line = line

    @property
    def read(self) -> int:
        return sum(map(len, self.inner.got))

    async def end(self) -> None:
        self.theirs.close()
        await eventually(lambda: self.inner.has_ended)
        # The transport closes its socket after that.
        await turn()


async def held(intake: Intake, kind: type[Line] = Line) -> Held:
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    mine, _ = listener.accept()
    listener.close()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, mine)
    inner = Inner()
    line = kind(inner, transport, intake)
    line.guard(Reader())
    return Held(theirs, inner, line)


async def turn() -> None:
    """Let the loop look at its sockets often enough to read what there is."""
    for _ in range(10):
        await asyncio.sleep(0.002)


async def _reads_in_one_go() -> None:
    intake = Intake()
    one = await held(intake)
    one.theirs.send(b"a" * 100)
    await eventually(lambda: one.read == 100)
    intake.hold()
    for count in range(1, 6):
        one.theirs.send(b"b" * 100)
        await turn()
        assert one.read == 100
        assert one.line.unread_bytes() == intake.unread_bytes() == 100 * count
    assert intake.release()
    await eventually(lambda: one.read == 600)
    assert one.inner.got[-1] == b"b" * 500
    assert not intake.unread_bytes()
    await one.end()


async def _reads_what_is_much() -> None:
    intake = Intake()
    one = await held(intake)
    intake.hold()
    one.theirs.send(b"a" * (HELD_BYTES + 1))
    await eventually(lambda: one.read == HELD_BYTES + 1)
    intake.release()
    await one.end()


async def _sees_the_end() -> None:
    intake = Intake()
    first, second = await held(intake), await held(intake)
    intake.hold()
    second.theirs.send(b"a" * 100)
    second.theirs.close()
    first.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    first.theirs.close()
    await eventually(lambda: first.inner.has_ended and second.inner.has_ended)
    assert second.read == 100
    # They are no longer among those that are held, whoever has their numbers now.
    assert not intake.unread_bytes()
    assert first.line.unread_bytes() == 0
    first.line.hold_back(False)
    assert not intake.release()
    await turn()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("play", [_reads_in_one_go, _reads_what_is_much, _sees_the_end])
def test_a_websocket_is_held_back_in_the_kernel(
    loop: Callable[[], asyncio.AbstractEventLoop], play: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


class Unable:
    """A socket whose kernel knows nothing of this."""

    def setsockopt(self, *_: object) -> None:
        raise OSError

    def fileno(self) -> int:
        return -1


class UnableLine(Line):
    __slots__ = ()

    def _socket(self) -> Any:
        return Unable()


async def test_where_the_kernel_cannot_hold_back_everything_is_read_as_always() -> None:
    intake = Intake()
    one = await held(intake, UnableLine)
    intake.hold()
    one.theirs.send(b"a" * 100)
    await eventually(lambda: one.read == 100)
    assert not intake.release()
    await one.end()


async def test_websockets_of_a_session_are_held_back_and_answers_are_not() -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/answer":
            return web.Response(body=b"{}")
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    intake = Intake()
    async with loopback_server(app_of(serve)) as url, open_session(intake=intake) as session:
        async with session.ws_connect(f"ws://{url}") as ws:
            intake.hold()
            await ws.send_str("one")
            await eventually(lambda: intake.unread_bytes() == 5)
            async with session.get(f"http://{url}/answer") as answer:
                assert await answer.read() == b"{}"
            assert intake.unread_bytes() == 5
            intake.release()
            assert (await ws.receive()).data == "one"
        await eventually(lambda: not intake._taps)
