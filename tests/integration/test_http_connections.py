"""Connections over HTTP: how many there may be, and how much of their answers may wait unread."""

import asyncio
import resource
import socket
from typing import Any

import pytest

from relay.app import NEWCOMERS, RelayLimits
from relay.config.parsers import networks
from relay.config.settings import Config
from relay.core.errors import RequestError
from relay.web.access.access import Access
from relay.web.access.http_connections import KEPT_FILES, LEAST_PER_ADDRESS, HttpConnections
from tests.conftest import StartRelay
from tests.support.conditions import eventually


class Held:
    """Stands where an inlet does."""

    def __init__(self) -> None:
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True


def connections(
    *, most_files: int = resource.RLIM_INFINITY, most_unread_bytes: int = 100, **settings: Any
) -> HttpConnections:
    return HttpConnections(Access(Config(**settings)), most_files=most_files, most_unread_bytes=most_unread_bytes)


def refused(found: HttpConnections, count: int, peer: str) -> list[RequestError]:
    answers = [found.came(Held(), peer) for _ in range(count)]
    return [answer for answer in answers if answer is not None]


def test_address_has_as_many_as_it_may_have_websockets_and_a_hundred_at_least() -> None:
    found = connections(max_clients_per_address=150)
    assert not refused(found, 150, "192.0.2.1")
    (answer,) = refused(found, 1, "192.0.2.1")
    assert str(answer) == "too many connections from one address; at most 150 over HTTP are allowed"
    assert not refused(found, 150, "192.0.2.2")
    assert len(refused(connections(max_clients_per_address=1), LEAST_PER_ADDRESS + 7, "192.0.2.1")) == 7


def test_network_of_ipv6_is_one_address() -> None:
    found = connections(max_clients_per_address=100)
    assert not refused(found, 100, "2001:db8::1")
    assert refused(found, 1, "2001:db8::2")


def test_trusted_proxy_has_as_many_as_there_may_be() -> None:
    found = connections(max_clients=300, max_clients_per_address=100, trusted_proxies=networks(["192.0.2.1"]))
    assert not refused(found, 300, "192.0.2.1")
    (answer,) = refused(found, 1, "192.0.2.1")
    assert str(answer) == "the relay is full; try again later"


def test_last_files_of_the_process_are_for_no_client_and_half_of_the_others_for_one_address() -> None:
    found = connections(most_files=KEPT_FILES + 20)
    assert len(refused(found, 12, "192.0.2.1")) == 2
    found._access.clients = 6
    # The two that were refused are not gone yet.
    assert len(refused(found, 5, "192.0.2.2")) == 2


def test_connection_that_ended_makes_room_and_ends_once() -> None:
    found = connections(max_clients_per_address=100)
    first = Held()
    found.came(first, "192.0.2.1")
    assert not refused(found, 99, "192.0.2.1")
    found.left(first)
    found.left(first)
    assert len(refused(found, 2, "192.0.2.1")) == 1


def test_who_holds_most_of_what_waits_is_cut_the_oldest_first() -> None:
    found = connections(most_unread_bytes=100)
    good, *bad = [Held() for _ in range(4)]
    found.came(good, "192.0.2.1")
    for one in bad:
        found.came(one, "192.0.2.2")
    found.waits(good, 40)
    found.waits(bad[0], 30)
    found.waits(bad[1], 30)
    assert not any(one.is_cut for one in (good, *bad))
    found.waits(bad[2], 30)
    assert [one.is_cut for one in (good, *bad)] == [False, True, False, False]
    found.reads(bad[1])
    found.left(bad[2])
    found.waits(good, 100)
    assert not good.is_cut
    found.waits(good, 101)
    assert good.is_cut


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_connection_too_many_is_answered_and_websockets_count_for_themselves(
    relay_with: StartRelay, first: bytes
) -> None:
    relay = await relay_with(max_clients_per_address=LEAST_PER_ADDRESS)
    client = await relay.connect()
    host, port = relay.url.removeprefix("http://").split(":")
    http = relay.app[NEWCOMERS].http
    await eventually(lambda: not len(http))
    writers = []
    for _ in range(LEAST_PER_ADDRESS):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(first)
        writers.append(writer)
    await eventually(lambda: len(http) == LEAST_PER_ADDRESS)
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(30):
        got = await reader.read()
    assert got.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After: 10" in got
    assert b"too many connections from one address; at most 100 over HTTP are allowed" in got
    await client.subscribe("BTCUSDT@1s")
    await client.update()
    for one in (writer, *writers):
        one.close()
    await eventually(lambda: not len(http))
    assert (await relay.get("symbols")).status == 200


async def test_answers_that_nobody_reads_are_cut_and_another_address_is_served(relay_with: StartRelay) -> None:
    relay = await relay_with(limits=RelayLimits(most_unread_bytes=1_000_000))
    http = relay.app[NEWCOMERS].http
    request = (
        b"GET /api/v1/market-data/history?symbol=BTCUSDT&interval=1m&limit=5000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    host, port = relay.url.removeprefix("http://").split(":")
    assert (await relay.get("history", symbol="BTCUSDT", interval="1m", limit=5000)).status == 200
    sockets = []
    for _ in range(10):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        one.bind(("127.0.0.2", 0))
        one.connect((host, int(port)))
        # Many answers wait in the kernel first.
        one.sendall(request * 20)
        sockets.append(one)
    await eventually(lambda: len(http) < 10)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=5000)
    assert len(answer.body["candles"]) == 5000
    for one in sockets:
        one.close()
