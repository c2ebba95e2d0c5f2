"""Frames of every kind count, and floods of them are refused; a client has a reader only while something is in it."""

import asyncio
import dataclasses
import itertools
import zlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import CloseCode
from relay.core.rate_limits import TokenBucket
from relay.network.read_slices import SLICE_BYTES
from relay.network.websocket_frames import FrameCounter
from relay.web.access.access import LEAST_FRAMES
from relay.web.work_budget import WorkBudget
from relay.web.ws.direct_connection import DirectConnection
from relay.web.ws.frame_reader import RecentReaders
from relay.web.ws.inbox_connection import MOST_WAITING
from relay.web.ws.leaving import Leaving
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.raw_socket import HANDSHAKE, masked
from tests.support.running_relay import Running
from tests.support.websocket_cases import PONG, TEXT, client_frame

REFUSED = b"\xf0\x00"
REFUSED = b"\xf0\x00"


class Recorder:
    """Stands where the reader does."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""


def frame(size: int) -> bytes:
    # Its content looks like heads.
    body = (b"\x81" * 4 + b"\x81\x05" * size)[: size + 4]
    if size < 126:
        return bytes((0x81, 0x80 | size)) + body
    if size < 1 << 16:
        return b"\x81\xfe" + size.to_bytes(2, "big") + body
    return b"\x81\xff" + size.to_bytes(8, "big") + body


def passed(data: bytes, cuts: list[int]) -> tuple[bytes, bool]:
    """Return what the reader gets when the data come in pieces, and whether all are whole frames then."""
    recorder = Recorder()
    counter = FrameCounter(recorder, TokenBucket(1, 1_000_000), lambda: None)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        counter.feed_data(data[start:end])
    return recorder.data, counter.is_between_frames


def test_all_else_is_the_readers_concern() -> None:
    recorder = Recorder()
    counter = FrameCounter(recorder, TokenBucket(1, 1_000_000), lambda: None)
    counter.feed_data(b"\x81\x80abcd")
    assert counter.data == recorder.data == b"\x81\x80abcd"
    assert not hasattr(counter, "other")


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_reserved_bits_in_a_continuation_are_refused_before_any_reader_sees_them(reserved: int, size: int) -> None:
    recorder = Recorder()
    counter = FrameCounter(recorder, TokenBucket(1, 1_000_000), lambda: None)
    good = client_frame(TEXT, b"{", final=False, reserved=4) + client_frame(0x9, b"here")
    data = good + client_frame(0, b"}", reserved=reserved) + client_frame(TEXT)
    for start in range(0, len(data), size):
        if recorder.data != good + REFUSED:
            counter.feed_data(data[start : start + size])
    assert recorder.data == good + REFUSED
    assert not counter.is_flooded


sizes = st.lists(st.sampled_from([0, 1, 2, 17, 125, 126, 127, 4096, 65_535, 65_536]), max_size=5)


@given(sizes=sizes, cuts=st.lists(st.integers(0, 1 << 20), max_size=20))
def test_frames_pass_as_they_are_however_they_are_cut(sizes: list[int], cuts: list[int]) -> None:
    data = b"".join(frame(size) for size in sizes)
    assert passed(data, cuts) == (data, True)
    assert passed(data[:300], list(range(300)))[0] == data[:300]
    assert passed(data[:-1], cuts)[1] == (not data)


# -- a reader for what comes -----------------------------------------------------------------------


class Line:
    """A client down to its bytes, and the relay's end of its connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: DirectConnection
    ) -> None:
        self.reader, self.writer, self.connection = reader, writer, connection

    async def next(self) -> tuple[int, bytes]:
        """Return the next frame: its first byte and what it holds."""
        async with asyncio.timeout(30):
            first, size = await self.reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            return first, await self.reader.readexactly(size)

    async def pong(self) -> object:
        """Read on to the next answer; return its id."""
        while True:
            message = orjson.loads((await self.next())[1])
            if message["type"] == "pong":
                return message.get("id")


async def line_of(relay: Running, sent: bytes = b"", *, handshake: bytes = HANDSHAKE) -> Line:
    """Connect, with so much right behind the handshake, and read the greeting."""
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    known = set(relay.clients.connections)
    writer.write(handshake + sent)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    (connection,) = set(relay.clients.connections) - known
    assert isinstance(connection, DirectConnection)
    line = Line(reader, writer, connection)
    assert b'"connected"' in (await line.next())[1]
    return line


def ping(number: int) -> bytes:
    return masked(b'{"action":"ping","id":%d}' % number)


def is_silent(connection: DirectConnection) -> bool:
    return connection._inbox is None and connection._tasks is None


async def test_silent_client_has_no_task_and_aiohttp_nothing_of_it(relay: Running) -> None:
    tasks = len(asyncio.all_tasks())
    lines = [await line_of(relay) for _ in range(20)]
    for line in lines:
        line.writer.write(masked(b'{"action":"subscribe","streams":["BTCUSDT@1m"]}'))
        while b'"price_update"' not in (await line.next())[1]:
            pass
        await eventually(partial(is_silent, line.connection))
    # The stand-in and the feed of the stream have some.
    await eventually(lambda: len(asyncio.all_tasks()) < tasks + 15)
    server = relay._runner.server
    assert server is not None
    await eventually(lambda: server.connections == [])
    for line in lines:
        line.writer.close()


@pytest.mark.parametrize("count", [1, 50, 3000])
async def test_what_comes_with_the_handshake_is_answered(relay_with: StartRelay, count: int) -> None:
    relay = await relay_with(max_requests_per_second=10_000.0)
    sent = b"".join(map(ping, range(count)))
    assert count < 3000 or len(sent) > 4 * SLICE_BYTES
    line = await line_of(relay, sent + ping(count)[:9])
    assert [await line.pong() for _ in range(count)] == [*range(count)]
    line.writer.write(ping(count)[9:])
    assert await line.pong() == count
    line.writer.close()


async def have_readers(lines: list[Line], first: int) -> list[bool]:
    """Have all but the first say something in turn; return who has a reader then."""
    for line in lines[first:]:
        line.writer.write(ping(1))
        await line.pong()
    return [line.connection._reader is not None for line in lines]


async def test_only_those_who_said_something_last_have_readers(relay: Running) -> None:
    relay.clients.context.recent_readers = RecentReaders(2)
    lines = [await line_of(relay) for _ in range(5)]
    assert await have_readers(lines, 5) == [False] * 5
    assert await have_readers(lines, 0) == [False, False, False, True, True]
    lines[0].writer.write(ping(2))
    assert await lines[0].pong() == 2
    assert await have_readers(lines, 5) == [True, False, False, False, True]
    for line in lines:
        line.writer.close()
    await eventually(lambda: relay.clients.context.recent_readers._have == {})


@pytest.mark.parametrize("cut", [1, 3, 9])
async def test_half_a_frame_is_kept_however_many_others_say_something(relay: Running, cut: int) -> None:
    relay.clients.context.recent_readers = RecentReaders(2)
    lines = [await line_of(relay) for _ in range(5)]
    lines[0].writer.write(ping(cut)[:cut])
    await eventually(lambda: lines[0].connection._reader is not None)
    assert await have_readers(lines, 1) == [True, False, False, True, True]
    lines[0].writer.write(ping(cut)[cut:])
    assert await lines[0].pong() == cut
    assert await have_readers(lines, 1) == [False, False, False, True, True]
    for line in lines:
        line.writer.close()


async def test_half_a_message_is_kept_over_whole_frames(relay: Running) -> None:
    relay.clients.context.recent_readers = RecentReaders(1)
    line, other = await line_of(relay), await line_of(relay)
    line.writer.write(client_frame(TEXT, b'{"action":', final=False))
    await eventually(lambda: line.connection._reader is not None)
    assert await have_readers([line, other], 1) == [True, True]
    line.writer.write(client_frame(0x9, b"here") + client_frame(0, b'"ping","id":7}'))
    assert await line.next() == (0x80 | PONG, b"here")
    assert await line.pong() == 7
    line.writer.close()
    other.writer.close()


async def test_compressed_messages_may_build_on_each_other(relay_with: StartRelay) -> None:
    relay = await relay_with(compression=True)
    relay.clients.context.recent_readers = RecentReaders(1)
    other = await line_of(relay)
    offer = b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    line = await line_of(relay, handshake=HANDSHAKE.replace(b"\r\n\r\n", offer))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    sizes = []
    for _ in range(3):
        # What it holds again and again is said once.
        packed = packer.compress(b'{"action":"ping","id":"0123456789abcdefghijklmnopqrstuvwxyz"}')
        packed += packer.flush(zlib.Z_SYNC_FLUSH)
        sizes.append(len(packed))
        line.writer.write(client_frame(TEXT, packed[:-4], reserved=4))
        assert await line.pong() == "0123456789abcdefghijklmnopqrstuvwxyz"
        assert await have_readers([line, other], 1) == [True, True]
    assert sizes[1] < sizes[0] / 2
    line.writer.close()
    other.writer.close()


class Gate:
    """Lets no work begin before it is open."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    def try_acquire(self) -> bool:
        return self.opened.is_set()

    async def acquire(self) -> None:
        await self.opened.wait()


async def test_request_that_can_be_answered_at_once_takes_no_task(
    relay: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await line_of(relay)
    requests = [
        b'{"action":"subscribe","streams":["BTCUSDT@1m","EUR/USD@1h"]}',
        b'{"action":"list"}',
        b"no JSON",
        b'{"action":"unsubscribe","symbol":"BTCUSDT","interval":"1m"}',
        b'{"action":"ping","id":1}',
    ]

    # The lists of the providers are waited for.
    line.writer.write(b"".join(map(masked, requests)))
    assert await line.pong() == 1

    def spawn(connection: DirectConnection, work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError(work)

    with monkeypatch.context() as patched:
        patched.setattr(DirectConnection, "spawn", spawn)
        line.writer.write(b"".join(map(masked, requests)))
        assert await line.pong() == 1
    assert is_silent(line.connection)
    line.writer.close()


@pytest.mark.parametrize("count", [1, 3, 40])
async def test_requests_are_answered_in_order_while_one_waits_for_its_turn(relay: Running, count: int) -> None:
    line = await line_of(relay)
    names = b",".join(b'"BTCUSDT@%dm"' % minutes for minutes in (1, 3, 5, 15, 30))
    ask = b'{"action":"subscribe","streams":[%s],"id":%d}'
    leave = b'{"action":"unsubscribe","streams":[%s],"id":%d}'
    sent = [(ask, leave)[number % 2] % (names, number) for number in range(count)]
    line.writer.write(b"".join(map(masked, sent)) + ping(count))
    ids: list[int] = []
    while ids[-1:] != [count]:
        message = orjson.loads((await line.next())[1])
        if message["type"] in ("subscription", "error", "pong"):
            assert message["type"] != "error"
            ids.append(message["id"])
    assert ids == [number for number in range(count) for _ in range(5)] + [count]
    await eventually(lambda: is_silent(line.connection))
    line.writer.close()


class CountedBudget(WorkBudget):
    """Counts the pieces of work that began at once."""

    begun = 0

    def try_acquire(self) -> bool:
        self.begun += 1
        return super().try_acquire()


@pytest.mark.parametrize("streams", [1, 3])
async def test_request_and_its_first_stream_are_one_piece_of_work(relay: Running, streams: int) -> None:
    budget = relay.clients.context.work_budget = CountedBudget()
    line = await line_of(relay)
    names = b",".join(b'"BTCUSDT@%dm"' % minutes for minutes in (1, 3, 5)[:streams])
    line.writer.write(masked(b'{"action":"unsubscribe","streams":[%s]}' % names) + ping(1))
    assert await line.pong() == 1
    assert budget.begun == streams + 1
    line.writer.close()


async def test_no_more_is_read_of_a_client_while_much_of_it_waits(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second=1_000_000.0)
    gate = Gate()
    relay.clients.context.work_budget = cast(WorkBudget, gate)
    line = await line_of(relay)
    count = 20_000
    line.writer.write(b"".join(map(ping, range(count))))
    transport = line.connection._transport
    await eventually(lambda: not transport.is_reading())
    waiting = line.connection._inbox
    assert waiting is not None
    assert MOST_WAITING < len(waiting) < MOST_WAITING + SLICE_BYTES / len(ping(0))
    gate.opened.set()
    assert [await line.pong() for _ in range(count)] == [*range(count)]
    assert transport.is_reading()
    line.writer.close()


async def test_connection_that_is_lost_is_out_of_the_hub_at_once(relay: Running) -> None:
    line = await line_of(relay, masked(b'{"action":"subscribe","streams":["BTCUSDT@1s"]}'))
    while b'"price_update"' not in (await line.next())[1]:
        pass
    connection, hub = line.connection, relay.hub
    connection.connection_lost(None)
    assert connection.subscriber not in hub.subscribers
    assert not any(connection.subscriber in group.members for group in hub.fanout.groups)
    assert relay.clients.connections == {}
    assert relay.access.clients == 0
    # When it is lost indeed.
    connection._transport.abort()
    assert await line.reader.read() is not None
    line.writer.close()


class NotYet:
    """Keeps what ends connections until somebody has a turn for it."""

    def __init__(self) -> None:
        self.works: list[Callable[[], None]] = []

    def do(self, work: Callable[[], None]) -> None:
        self.works.append(work)


async def test_an_end_waits_for_its_turn_and_meanwhile_nobody_is_sent_what_is_for_another(relay: Running) -> None:
    not_yet = NotYet()
    relay.clients.context.leaving = cast(Leaving, not_yet)
    line = await line_of(relay, masked(b'{"action":"subscribe","streams":["BTCUSDT@1s"]}'))
    while b'"price_update"' not in (await line.next())[1]:
        pass
    connection, hub = line.connection, relay.hub
    subscriber, descriptor = connection.subscriber, connection.subscriber.descriptor
    assert descriptor is not None
    line.writer.close()
    await eventually(lambda: len(not_yet.works) == 1)
    # Until its turn comes the socket is open, and may be written to.
    assert not connection._transport.is_closing()
    assert subscriber.descriptor == descriptor
    not_yet.works.pop()()
    await eventually(lambda: len(not_yet.works) == 1)
    # Now it is closed, and its number may be another's.
    assert connection.subscriber.descriptor is None
    assert subscriber.group is not None
    assert subscriber.group.sockets is None
    assert subscriber in hub.subscribers
    hub.fanout.flush()
    not_yet.works.pop()()
    assert subscriber not in hub.subscribers
    assert relay.clients.connections == {}
    assert relay.access.clients == 0


async def test_limit_of_frames_changes_for_open_connections(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second=10_000.0)
    line = await line_of(relay, ping(0))
    assert await line.pong() == 0
    relay.access.reconfigure(dataclasses.replace(relay.access.config, max_requests_per_second=0.1))
    relay.clients.reconfigure()
    line.writer.write(client_frame(PONG) * (LEAST_FRAMES + 10))
    assert await line.next() == (0x88, int(CloseCode.RATE_LIMITED).to_bytes(2, "big") + b"rate limited")
    line.writer.close()


async def test_fault_of_the_relay_ends_one_request_and_not_the_connection(
    relay: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = await line_of(relay)

    def fail(connection: DirectConnection, *given: object) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(DirectConnection, "_on_invalid", fail)
        line.writer.write(client_frame(0x2))
        await eventually(lambda: "a request of client" in caplog.text)
    line.writer.write(ping(3))
    assert await line.pong() == 3
    line.writer.close()


async def test_handshake_with_a_body_is_refused(relay: Running) -> None:
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HANDSHAKE.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"hello")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert b"has no body" in await reader.readuntil(b"}")
    assert relay.access.clients == 0
    writer.close()


# -- too much --------------------------------------------------------------------------------------

EMPTY = {"continuation": "008000000000", "text": "818000000000", "binary": "828000000000", "close": "888000000000",
         "ping": "898000000000", "pong": "8a8000000000"}  # fmt: skip
LARGE = frame(4096)


def flooded_after(data: bytes, size: int, allowed: float, *, is_refused: bool = True) -> int | None:
    """Feed so many bytes at a time; return after how many bytes it was too much, None: it was not."""
    recorder, stops = Recorder(), [0]

    def stop() -> None:
        stops[0] += 1

    counter = FrameCounter(recorder, TokenBucket(1e-9, allowed), stop)
    for start in range(0, len(data), size):
        counter.feed_data(data[start : start + size])
        assert counter.is_flooded == bool(stops[0])
        if counter.is_flooded:
            before = len(recorder.data)
            counter.feed_data(b"\x8a\x80abcd" * 100)
            assert len(recorder.data) == before
            assert recorder.data.endswith(REFUSED) or not is_refused
            return start
    assert recorder.data == data
    return None


@pytest.mark.parametrize("kind", EMPTY)
def test_frames_of_every_kind_count(kind: str) -> None:
    one = bytes.fromhex(EMPTY[kind])
    # All their bytes together count as a seventh of a frame.
    assert flooded_after(one * 100, 6, 100.2) is None
    assert flooded_after(one * 101, 6, 100.2) == 600
    assert flooded_after(one * 101, 606, 100.2) == 0


def test_bytes_count_as_frames_do() -> None:
    assert flooded_after(LARGE * 40, len(LARGE), 100) is None
    assert flooded_after(LARGE * 60, len(LARGE), 100) is not None
    # However large a frame is, and however it comes.
    endless = b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4)
    assert flooded_after(endless + b"x" * 4096 * 60, 1024, 100) is None
    assert flooded_after(endless + b"x" * 4096 * 120, 1024, 100, is_refused=False) is not None


def test_byte_by_byte_costs_most() -> None:
    assert flooded_after(LARGE, 1, 100) == 50
    assert flooded_after(LARGE, 1, 9000) is None


def test_flood_in_the_middle_of_a_frame_is_refused_after_its_end() -> None:
    recorder = Recorder()
    counter = FrameCounter(recorder, TokenBucket(1e-9, 2), lambda: None)
    counter.feed_data(b"\x81\x85abcd12")
    counter.feed_data(b"3")
    assert counter.is_flooded
    assert recorder.data == b"\x81\x85abcd12\0\0\0" + REFUSED
