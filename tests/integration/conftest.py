"""The time of the tests with sockets; fixtures of those of Twelve Data: its provider against the stand-in."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.support.own_time import OwnTimeLoop
from tests.support.sandbox import TwelveDataStandIn
from tests.support.twelve_data_plugin import KEY, FakeTime, Plugin


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def exchange(time: FakeTime) -> AsyncIterator[TwelveDataStandIn]:
    async with TwelveDataStandIn(clock=time, api_key=KEY) as exchange:
        yield exchange


@pytest.fixture
def plugin(exchange: TwelveDataStandIn, session: aiohttp.ClientSession, time: FakeTime) -> Plugin:
    return Plugin(session, [exchange.rest_url], time)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let time jump to what is due next: no test depends on the machine but those with the marker `real_time`."""
    if item.get_closest_marker("real_time") is not None:
        return {"real time": asyncio.new_event_loop}
    return {"own time": OwnTimeLoop}
