"""The connection belongs to the client: whoever reads it, however slowly, there is one, with one backoff."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from relay.client import (
    ClientClosed,
    Connected,
    Disconnected,
    Lost,
    Message,
    Refused,
    RelayClient,
    Snapshot,
    Unreachable,
    Update,
)
from tests.support.client_readings import BTC, QUICK, START, client, closed_times, is_a, is_open_at, relay, until
from tests.support.conditions import eventually
from tests.support.stand_in_relay import StandInRelay

__all__ = ["client", "relay"]


async def read(client: RelayClient, messages: list[Message]) -> None:
    async for message in client:
        messages.append(message)


# -- who reads ------------------------------------------------------------------------------------------------------


async def test_readers_that_give_up_leave_the_attempt_alone(relay: StandInRelay, client: RelayClient) -> None:
    relay.gate = asyncio.Event()
    await client.subscribe("BTCUSDT@1m")
    for _ in range(15):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(client), 0.01)
    relay.gate.set()
    assert isinstance(await asyncio.wait_for(anext(client), 30), Connected)
    assert relay.attempts == 1


async def test_readers_share_one_connection_and_each_message_comes_to_one(
    relay: StandInRelay, client: RelayClient
) -> None:
    messages: list[Message] = []
    readers = [asyncio.create_task(read(client, messages)) for _ in range(3)]
    await client.subscribe("BTCUSDT@1m", bars=2)
    await eventually(lambda: any(isinstance(message, Snapshot) for message in messages))
    for number in range(1, 4):
        await relay.close_candle(BTC)
        last = START + 180 + 60 * number
        await eventually(lambda last=last: any(map(is_open_at(last), messages)))  # type: ignore[misc]
    assert closed_times(messages) == [START + 120, START + 180, START + 240, START + 300]
    assert (relay.attempts, relay.connections) == (1, 1)
    await client.close()
    async with asyncio.timeout(30):
        await asyncio.gather(*readers)


async def test_a_failure_is_raised_to_all_who_wait(relay: StandInRelay, client: RelayClient) -> None:
    relay.handshake = 401
    async with asyncio.timeout(30):
        found = await asyncio.gather(*(anext(client) for _ in range(3)), return_exceptions=True)
    assert [type(fault) for fault in found] == [Refused] * 3
    assert relay.attempts == 1


@pytest.mark.parametrize("status", [401, 503])
async def test_iterating_again_after_an_error_waits_for_the_backoff(relay: StandInRelay, status: int) -> None:
    relay.handshake = status
    async with RelayClient(relay.url, backoff_s=(0.05, 0.1)) as client:
        before = asyncio.get_running_loop().time()
        for _ in range(4):
            with pytest.raises(Refused):
                await anext(client)
        assert asyncio.get_running_loop().time() - before >= 3 * 0.05
        assert relay.attempts == 4
        relay.handshake = None
        assert isinstance(await anext(client), Connected)


async def test_iterating_again_waits_as_long_as_the_relay_says(relay: StandInRelay, client: RelayClient) -> None:
    relay.handshake, relay.handshake_headers = 503, {"Retry-After": "0.3"}
    with pytest.raises(Refused):
        await anext(client)
    before = asyncio.get_running_loop().time()
    with pytest.raises(Refused):
        await anext(client)
    assert asyncio.get_running_loop().time() - before >= 0.29


async def test_an_error_that_came_while_nobody_read_is_raised_behind_what_came_before(
    relay: StandInRelay, client: RelayClient
) -> None:
    await client.subscribe("BTCUSDT@1m", bars=2)
    messages = await until(client, is_a(Snapshot))
    await relay.close_candle(BTC)
    await relay.drop(4001, "too many invalid messages")
    await eventually(lambda: client._keeper is not None and client._keeper.done())
    with pytest.raises(Disconnected):
        await read(client, messages)
    assert closed_times(messages) == [START + 120, START + 180]
    with pytest.raises(ClientClosed):
        await anext(client)
    assert relay.attempts == 1


# -- who reads slowly -----------------------------------------------------------------------------------------------


async def test_reader_that_pauses_longer_than_any_heartbeat_loses_nothing(relay: StandInRelay) -> None:
    relay.heartbeat_s = 0.1
    async with RelayClient(relay.url, backoff_s=QUICK) as client:
        await client.subscribe("BTCUSDT@1m", bars=2)
        messages = await until(client, is_a(Snapshot))
        await asyncio.sleep(0.5)
        await relay.close_candle(BTC)
        messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START + 120, START + 180]
    assert relay.connections == 1


async def test_connection_that_ends_behind_an_unread_ping_is_lost_and_resumed(
    relay: StandInRelay, client: RelayClient
) -> None:
    await client.subscribe("BTCUSDT@1m", bars=2)
    messages = await until(client, is_a(Snapshot))
    await relay.ping()
    relay.cut()
    await relay.close_candle(BTC)
    await asyncio.sleep(0.1)
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START + 120, START + 180]


async def test_unread_states_of_an_open_candle_are_merged_and_the_last_one_comes(
    relay: StandInRelay, client: RelayClient
) -> None:
    await client.subscribe("BTCUSDT@1m", bars=1)
    await until(client, is_a(Snapshot))
    for close in range(100, 200):
        await relay.tick(BTC, float(close))
    await relay.close_candle(BTC)
    await eventually(lambda: len(client._inbox) >= 3)
    first, closed, opened = await until(client, is_open_at(START + 240))
    assert isinstance(first, Update)
    assert isinstance(closed, Update)
    assert isinstance(opened, Update)
    assert [(one.candle.time, one.is_closed) for one in (first, closed, opened)] == [
        (START + 180, False),
        (START + 180, True),
        (START + 240, False),
    ]
    assert first.candle.close == 199.0


async def test_reader_that_leaves_too_much_unread_gets_it_all_before_the_connection_is_resumed(
    relay: StandInRelay,
) -> None:
    async with RelayClient(relay.url, backoff_s=QUICK, most_unread=10) as client:
        await client.subscribe("BTCUSDT@1m", bars=1)
        messages = await until(client, is_a(Snapshot))
        for _ in range(20):
            await relay.close_candle(BTC)
        await eventually(lambda: any(isinstance(place.message, Lost) for place in client._inbox._messages))
        assert len(client._inbox) <= 13
        await asyncio.sleep(0.1)
        assert relay.attempts == 1
        messages += await until(client, is_open_at(START + 180 + 60 * 20))
        [lost] = [message for message in messages if isinstance(message, Lost)]
        assert "does not read" in lost.reason
    assert closed_times(messages) == [START + 180 + 60 * number for number in range(20)]
    assert relay.connections == 2


# -- the end --------------------------------------------------------------------------------------------------------


async def connecting(relay: StandInRelay, client: RelayClient) -> None:
    relay.gate = asyncio.Event()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(client), 0.05)


async def connected(relay: StandInRelay, client: RelayClient) -> None:
    assert isinstance(await anext(client), Connected)


async def waiting(relay: StandInRelay, client: RelayClient) -> None:
    relay.handshake, relay.handshake_headers = 503, {"Retry-After": "60"}
    with pytest.raises(Refused):
        await anext(client)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(client), 0.05)


async def failed_unread(relay: StandInRelay, client: RelayClient) -> None:
    await connected(relay, client)
    await relay.drop(4003, "token revoked")
    await eventually(lambda: client._keeper is not None and client._keeper.done())


@pytest.mark.parametrize("reach", [connecting, connected, waiting, failed_unread])
async def test_no_task_is_left_behind(
    relay: StandInRelay, reach: Callable[[StandInRelay, RelayClient], Awaitable[None]]
) -> None:
    # The relay's own come and go.
    def of_client() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "relay client"]

    async with RelayClient(relay.url, backoff_s=QUICK) as client:
        await client.subscribe("BTCUSDT@1m")
        await reach(relay, client)
        assert len(of_client()) <= 1
    if relay.gate is not None:
        relay.gate.set()
    assert of_client() == []


async def test_cancelled_close_can_be_repeated(relay: StandInRelay, client: RelayClient) -> None:
    assert isinstance(await anext(client), Connected)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await client.symbols()


async def test_close_ends_an_iteration_that_has_messages_left(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    messages: list[Message] = []
    async with asyncio.timeout(30):
        async for message in client:
            messages.append(message)
            await client.close()
    assert len(messages) == 1


USES: dict[str, Callable[[RelayClient], Awaitable[object]]] = {
    "anext": lambda client: anext(client),
    "async for": lambda client: until(client, lambda message: True),
    "subscribe": lambda client: client.subscribe("BTCUSDT@1m"),
    "unsubscribe": lambda client: client.unsubscribe("BTCUSDT@1m"),
    "history": lambda client: client.history("BTCUSDT", "1m"),
    "symbols": lambda client: client.symbols(),
    "instruments": lambda client: client.instruments(),
    "status": lambda client: client.status(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_use_after_close_is_an_error_by_name(
    relay: StandInRelay, use: Callable[[RelayClient], Awaitable[object]]
) -> None:
    async with RelayClient(relay.url) as client:
        assert isinstance(await anext(client), Connected)
    with pytest.raises(ClientClosed, match=r"^this client is closed; make a new one$"):
        await use(client)
    assert client.is_closed
    assert relay.attempts == 1


async def test_first_attempt_that_nobody_answers_is_repeated_by_the_next_reader(
    relay: StandInRelay, client: RelayClient
) -> None:
    await relay.stop()
    for _ in range(3):
        with pytest.raises(Unreachable):
            await anext(client)
    await relay.start()
    assert isinstance(await anext(client), Connected)
