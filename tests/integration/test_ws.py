"""What only the WebSocket route has: its heartbeat is pings, which a client answers."""

import asyncio

import aiohttp
import pytest

from relay.app import RELAY_LIMITS, RelayLimits
from relay.web.ws.route import ClientPings
from tests.conftest import StartRelay
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.running_relay import Running

pytestmark = pytest.mark.usefixtures("way")


async def test_relay_pings_every_20_s_and_waits_10() -> None:
    assert RELAY_LIMITS.pings[:2] == (20, 10)


async def test_relay_pings_and_keeps_a_client_that_answers(relay_with: StartRelay) -> None:
    # The next ping waits for the answer to the last one.
    relay = await relay_with(limits=RelayLimits(pings=ClientPings(interval_s=0.1)))
    client = await relay.connect(autoping=False)
    for _ in range(3):
        frame = await client.socket.receive(LONGEST_WAIT_S)
        assert frame.type is aiohttp.WSMsgType.PING
        await client.socket.pong(frame.data)
    await client.ask("ping", id=1)
    while (frame := await client.socket.receive(LONGEST_WAIT_S)).type is aiohttp.WSMsgType.PING:
        await client.socket.pong(frame.data)
    assert frame.type is aiohttp.WSMsgType.TEXT


async def test_client_that_answers_no_ping_is_dropped(relay_with: StartRelay) -> None:
    relay = await relay_with(limits=RelayLimits(pings=ClientPings(interval_s=0.1, pong_timeout_s=0.3)))
    client = await relay.connect(autoping=False)
    assert (await client.socket.receive(LONGEST_WAIT_S)).type is aiohttp.WSMsgType.PING
    while (frame := await client.socket.receive(LONGEST_WAIT_S)).type is aiohttp.WSMsgType.PING:
        pass
    assert frame.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    await eventually(lambda: not relay.hub.subscribers)
    assert relay.access.clients == 0


async def test_a_test_may_do_other_things_for_a_minute_before_its_client_reads_again(relay: Running) -> None:
    client = await relay.connect()
    await asyncio.sleep(60)
    await client.ask("ping", id=1)
    assert (await client.answer(1))["type"] == "pong"


async def test_gaps_in_milliseconds_are_refused(relay: Running) -> None:
    client = await relay.connect()
    gap = [1_764_000_000_000, 1_764_000_060_000]
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", since=1_764_000_000, gaps=[gap])
    assert (await client.error())["message"].endswith("not milliseconds: did you mean 1764000000?")
