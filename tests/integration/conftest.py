"""Fixtures of the tests of Twelve Data: its provider against the stand-in, at a time of their own."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

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
