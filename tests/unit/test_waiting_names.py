"""Names in one client's requests that wait: in order for one stream, and beside each other for others."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from relay.core.clock import Clock
from relay.core.errors import RequestError
from relay.instruments.directory import Directory
from relay.protocol.client_requests import Request, parse_target
from relay.storage.store import Store
from relay.web.work_budget import WorkBudget
from relay.web.ws.waiting_names import MOST_WAITING, WaitingName, WaitingNames
from tests.unit.test_lookups import Shop, providers_of


class Client:
    """Asks for names by number, and keeps which were answered, in order, and with which fault."""

    def __init__(self, directory: Directory) -> None:
        self.told: list[int] = []
        self.faults: list[BaseException] = []
        self.idle = 0
        self.names = WaitingNames(self, WorkBudget())
        self._directory = directory
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, number: int, name: str, action: str = "subscribe") -> bool:
        """Let a name wait; say whether there was room."""
        pair = (name, "1m")
        return self.names.add(WaitingName(self._directory, Request(action, number), pair, parse_target(pair), "me"))

    def is_behind(self, name: str) -> bool:
        pair = (name, "1m")
        return self.names.is_behind(WaitingName(self._directory, Request("subscribe"), pair, parse_target(pair), "me"))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def answer_due(self, waiting: WaitingName) -> None:
        assert isinstance(waiting.request.id, int)
        self.told.append(waiting.request.id)
        if waiting.fault is not None:
            self.faults.append(waiting.fault)

    def none_waits(self) -> None:
        self.idle += 1


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def client_of(stack: AsyncExitStack, *shops: Shop, most_settling: int = 100) -> Client:
    session = await stack.enter_async_context(aiohttp.ClientSession())
    store = await Store.open(":memory:", Clock())
    stack.push_async_callback(store.close)
    directory = Directory(providers_of(session, *shops), store.documents, most_settling=most_settling)
    await directory.start()
    stack.push_async_callback(directory.close)
    return Client(directory)


def slow_and_quick() -> tuple[Shop, Shop]:
    slow, quick = Shop("A", "B", name="slow"), Shop("A", "Q", name="quick")
    slow.takes_s = 5.0
    return slow, quick


async def test_one_stream_has_its_order_and_others_do_not_wait(stack: AsyncExitStack) -> None:
    client = await client_of(stack, *slow_and_quick())
    for number, (name, action) in enumerate(
        [
            ("slow:A", "subscribe"),
            ("slow:A", "unsubscribe"),
            ("quick:A", "subscribe"),
            ("quick:Q", "subscribe"),
            ("slow:A", "subscribe"),
        ]
    ):
        assert client.ask(number, name, action)
    await asyncio.sleep(1.0)
    assert client.told == [2, 3]
    assert (client.is_behind("slow:A"), client.is_behind("quick:A"), client.is_behind("slow:B")) == (True, False, False)
    # Nobody knows yet whose that is.
    assert client.is_behind("A")
    await asyncio.sleep(5.0)
    assert (client.told, client.idle) == ([2, 3, 0, 1, 4], 1)
    assert not client.is_behind("slow:A")


async def test_there_is_room_again_when_one_is_answered(stack: AsyncExitStack) -> None:
    client = await client_of(stack, *slow_and_quick())
    assert all(client.ask(number, "slow:A") for number in range(MOST_WAITING))
    assert not client.ask(MOST_WAITING, "quick:Q")
    await client.names.room()
    assert client.ask(MOST_WAITING, "quick:Q")
    await asyncio.sleep(1.0)
    assert client.told == [*range(MOST_WAITING), MOST_WAITING]


async def test_a_client_that_is_gone_hears_nothing_more(stack: AsyncExitStack) -> None:
    client = await client_of(stack, *slow_and_quick())
    client.ask(1, "slow:A")
    client.ask(2, "slow:A")
    client.names.close()
    await asyncio.sleep(10.0)
    assert client.told == []


async def test_where_too_many_wait_for_providers_one_is_refused(stack: AsyncExitStack) -> None:
    client = await client_of(stack, *slow_and_quick(), most_settling=1)
    client.ask(1, "slow:A")
    client.ask(2, "slow:B")
    await asyncio.sleep(0.1)
    (fault,) = client.faults
    assert isinstance(fault, RequestError)
    assert (client.told, fault.symbol, fault.interval) == ([2], "slow:B", "1m")
