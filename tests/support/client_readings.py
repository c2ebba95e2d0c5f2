"""What tests of the client read from it: messages up to one looked for, and the closed candles among them.

`relay` and `client` are fixtures, for modules that import them and name them in `__all__`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from relay.client import Message, RelayClient, Snapshot, Update
from relay.core.model import StreamKey
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.stand_in_relay import StandInRelay, serving

BTC = StreamKey("BTCUSDT", "1m")
START = 1_764_000_000
QUICK = (0.01, 0.05)


@pytest.fixture
async def relay() -> AsyncIterator[StandInRelay]:
    async with serving(START) as relay:
        yield relay


@pytest.fixture
async def client(relay: StandInRelay) -> AsyncIterator[RelayClient]:
    async with RelayClient(relay.url, backoff_s=QUICK) as client:
        yield client


async def until(client: RelayClient, is_last: Callable[[Message], bool]) -> list[Message]:
    """Collect messages up to the one looked for, that one included."""
    messages = []
    async with asyncio.timeout(LONGEST_WAIT_S):
        async for message in client:
            messages.append(message)
            if is_last(message):
                break
    return messages


def is_a(*kinds: type) -> Callable[[Message], bool]:
    return lambda message: isinstance(message, kinds)


def is_open_at(time: int) -> Callable[[Message], bool]:
    return lambda message: isinstance(message, Update) and not message.is_closed and message.candle.time == time


def closed_times(messages: list[Message]) -> list[int]:
    times: list[int] = []
    for message in messages:
        if isinstance(message, Snapshot):
            closed = message.candles if message.last_is_closed else message.candles[:-1]
            times += [candle.time for candle in closed]
        elif isinstance(message, Update) and message.is_closed and not message.is_revised:
            times.append(message.candle.time)
    return times
