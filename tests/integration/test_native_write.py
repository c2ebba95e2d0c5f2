"""The native write: what it sends, what it leaves to transports, and that no socket gets what is for another."""

import asyncio
import random
import socket
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any, cast

import pytest
import uvloop

from relay.core.clock import Clock
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.streams.fanout import FanoutLimits
from relay.streams.group_write import NativeWriter, TransportWriter, descriptor_of, native_send_all, new_writer
from relay.streams.groups import GatherLimits
from relay.streams.hub import Hub
from relay.streams.outbox import HIGH_WATER, Outbox
from relay.streams.subscriptions import Stream, Subscriber
from tests.support.conditions import eventually
from tests.support.feeder import Feeder
from tests.support.native_build import built_send_all
from tests.support.raw_socket import parsed


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair()
    with first, second:
        first.setblocking(False)
        second.setblocking(False)
        yield first, second


def test_all_sockets_get_what_is_at_their_place(pair: tuple[socket.socket, socket.socket]) -> None:
    first, second = pair
    data = [b"a" * 1000, b"b", b"c" * 10]
    assert built_send_all()(data, [[first.fileno()], [second.fileno()], [first.fileno()]]) is None
    assert first.recv(5000) == b"b"
    assert second.recv(5000) == b"a" * 1000 + b"c" * 10
    assert built_send_all()([b"d", b"e"], [[first.fileno(), second.fileno()], []]) is None
    assert first.recv(5000) == second.recv(5000) == b"d"
    assert built_send_all()([], []) is None


def test_who_takes_less_is_named_with_how_much_it_took(pair: tuple[socket.socket, socket.socket]) -> None:
    first, second = pair
    with socket.socket() as unconnected:
        closed = socket.socket()
        number = closed.fileno()
        closed.close()
        large = bytes(10_000_000)
        descriptors = [[first.fileno(), second.fileno()], [first.fileno()], [unconnected.fileno(), number]]
        found = built_send_all()([large, b"b", b"c"], descriptors)
        assert found is not None
        assert [(index, place) for index, place, _ in found] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
        assert 0 < found[0][2] < len(large)
        assert 0 < found[1][2] < len(large)
        assert [sent for _, _, sent in found[2:]] == [0, 0, 0]
        got = 0
        while got < found[0][2]:
            got += len(second.recv(1 << 20))
    second.close()
    assert built_send_all()([b"x"], [[first.fileno()]]) == [(0, 0, 0)]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ([b"x"],),
        ([b"x"], []),
        ([b"x"], ([1],)),
        (b"x", [[1]]),
        ([b"x"], [1]),
        ([b"x"], [(1,)]),
        ([b"x"], [["1"]]),
        (["x"], [[1]]),
        ([b""], [[2**70]]),
    ],
)
def test_what_makes_no_sense_is_an_error(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, OverflowError)):
        built_send_all()(*arguments)


def test_without_the_native_call_transports_are_written() -> None:
    assert type(new_writer(None)) is TransportWriter
    assert type(new_writer(built_send_all())) is NativeWriter


def test_a_build_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "relay.streams._native_write", ModuleType("of_an_earlier_version"))
    assert native_send_all() is None


class Told:
    """A transport that says of itself what it is told to."""

    def __init__(self, **extra: object) -> None:
        self._extra = extra

    def get_extra_info(self, name: str, /) -> object:
        return self._extra.get(name)


def test_only_a_socket_without_tls_is_written_past_its_transport(pair: tuple[socket.socket, socket.socket]) -> None:
    assert descriptor_of(Told(socket=pair[0])) == pair[0].fileno()
    assert descriptor_of(Told(socket=pair[0], ssl_object=object())) is None
    assert descriptor_of(Told()) is None
    pair[1].close()
    assert descriptor_of(Told(socket=pair[1])) is None


class ServedEnd(asyncio.Protocol):
    """The server's end of a connection, which has one stream; it leaves the hub `late` turns after it was lost."""

    def __init__(self, hub: Hub, stream: Stream, late: int) -> None:
        self._hub = hub
        self._stream = stream
        self._late = late

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        descriptor = descriptor_of(transport)
        self.subscriber = self._hub.join(Outbox(self.transport), self._on_slow, descriptor=descriptor)
        self._hub.subscribe(self.subscriber, self._stream)

    def _on_slow(self, _: Subscriber, reason: str) -> None:
        raise AssertionError(reason)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late:
            self._hub.lose_socket(self.subscriber)
        self._leave(self._late)

    def _leave(self, late: int) -> None:
        if late:
            asyncio.get_running_loop().call_soon(self._leave, late - 1)
        else:
            self._hub.leave(self.subscriber)


class Served:
    """Both ends of a connection."""

    def __init__(self, mine: socket.socket, end: ServedEnd, stream: Stream) -> None:
        self.mine = mine
        self.end = end
        self.stream = stream
        self.seq = stream.seq
        self.got = b""

    def read(self) -> None:
        """Read what came and check it: the next updates of its stream, and nothing else."""
        while True:
            try:
                part = self.mine.recv(1 << 16)
            except (BlockingIOError, ConnectionError):
                break
            if not part:
                break
            self.got += part
        whole = self.got.rfind(b"\x81")
        for message in parsed(self.got):
            assert message["symbol"] == self.stream.name
            assert message["seq"] == self.seq + 1
            self.seq += 1
        assert whole <= 0 or self.seq
        self.got = b""

    def vanish(self, how: int) -> None:
        """End the connection: from this side or that one, at once or when all was sent."""
        if how == 0:
            self.mine.close()
        elif how == 1:
            self.end.transport.abort()
        elif how == 2:
            self.end.transport.close()
        else:
            self.mine.shutdown(socket.SHUT_RDWR)


class Crowd:
    """Clients of a hub with real sockets, each with one of a few streams: what is for another is seen by its symbol."""

    def __init__(self, seed: int, late: int) -> None:
        limits = FanoutLimits(7, GatherLimits(0, 20), built_send_all())
        self.hub = Hub(Clock(), flush_s=0, fanout=limits)
        names = [f"{letter}{number}" for letter in "ABC" for number in range(4)]
        self.streams = [self.hub.stream("p", StreamKey(name, "1m"), name, Feeder()) for name in names]
        self.random = random.Random(seed)
        self.clients: list[Served] = []
        self._late = late
        self._number = 0

    async def come(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            theirs, mine = socket.socketpair()
            mine.setblocking(False)
            stream = self.random.choice(self.streams)
            _, end = await loop.connect_accepted_socket(partial(ServedEnd, self.hub, stream, self._late), theirs)
            self.clients.append(Served(mine, end, stream))

    def publish(self) -> None:
        for stream in self.streams:
            self._number += 1
            candle = Candle(60 * self._number, 1.0, 1.0, 1.0, 1.0, 0.0)
            self.hub.tell(stream, [PriceUpdate(stream.key, candle, is_closed=True)])

    async def play(self, count: int) -> None:
        """Let so many clients vanish while they are written to, and others take the numbers of their sockets."""
        try:
            await self.come(40)
            await self._vanish(count)
            for client in self.clients:
                client.read()
                assert client.seq == client.stream.seq
        finally:
            await self.end()

    async def end(self) -> None:
        for client in self.clients:
            client.mine.close()
            client.end.transport.abort()
        await eventually(lambda: not self.hub.subscribers)
        await asyncio.sleep(0)
        self.hub.close()

    async def _vanish(self, count: int) -> None:
        gone = 0
        while gone < count:
            self.publish()
            for _ in range(self.random.randrange(6)):
                # Each turn writes to seven of them.
                await asyncio.sleep(0)
            leaving = [self.clients.pop(self.random.randrange(len(self.clients))) for _ in range(10)]
            try:
                for client in leaving:
                    client.read()
                    client.vanish(self.random.randrange(4))
                gone += len(leaving)
                await self.come(10)
            finally:
                for client in leaving:
                    client.mine.close()
        for _ in range(100):
            await asyncio.sleep(0)


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("late", [0, 3], ids=["left at once", "left later"])
@pytest.mark.timeout(600)
def test_clients_that_vanish_during_a_flush_leave_no_socket_to_others(
    loop: str, late: int, request: pytest.FixtureRequest
) -> None:
    count: int = request.config.getoption("--vanish")
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(Crowd(late, late).play(count))


@pytest.mark.parametrize("loop", LOOPS)
def test_what_waits_in_a_transport_is_not_overtaken(loop: str) -> None:
    async def play() -> None:
        crowd = Crowd(1, 0)
        await crowd.come(1)
        try:
            await stall(crowd, *crowd.clients)
        finally:
            await crowd.end()

    async def stall(crowd: Crowd, client: Served) -> None:
        for _ in range(3000):
            if client.end.transport.get_write_buffer_size() > HIGH_WATER // 2:
                break
            crowd.publish()
            crowd.hub.fanout.flush()
        assert not crowd.hub.fanout.lagging
        for _ in range(30):
            assert client.end.transport.get_write_buffer_size()
            # Now the socket has room, of which the transport does not know yet.
            client.read()
            crowd.publish()
            crowd.hub.fanout.flush()
        async with asyncio.timeout(30):
            while client.seq < client.stream.seq:
                client.read()
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(play())
