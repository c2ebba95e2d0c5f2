"""The route and all its clients: the greeting, the heartbeat, and how everybody leaves."""

import asyncio

import aiohttp
import pytest

from relay.app import RELAY_LIMITS, RelayLimits
from relay.web.ws.route import ClientPings
from tests.conftest import StartRelay
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("way")


async def test_first_message_is_connected_with_limits(relay: Running) -> None:
    client = await relay.connect(hello=False)
    hello = await client.next()
    assert set(hello) == {"type", "status", "message", "server_time", "epoch", "store", "limits"}
    assert hello["type"] == "status"
    assert hello["status"] == "connected"
    assert hello["limits"] == {"streams": 200, "message_bytes": 4096}
    assert isinstance(hello["server_time"], int)
    assert isinstance(hello["epoch"], str)


async def test_all_clients_of_a_run_see_one_epoch(relay: Running, relay_with: StartRelay) -> None:
    hellos = []
    for running in (relay, relay, await relay_with()):
        client = await running.connect(hello=False)
        hellos.append((await client.next())["epoch"])
    assert hellos[0] == hellos[1] != hellos[2]


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


async def test_client_that_vanishes_leaves_nothing_behind(relay: Running, sandbox: Sandbox) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", "EUR/USD@1m")
    await client.ask("subscribe", symbol="ETHUSDT", interval="1m", bars=100)
    transport = client.socket._writer.transport
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()
    await eventually(lambda: not relay.hub.subscribers and not relay.hub.streams and not relay.clients.connections)
    await eventually(lambda: not sandbox.binance.subscribed)
    assert relay.access.clients == 0


async def test_shutdown_closes_clients_with_1001(relay: Running) -> None:
    clients = [await relay.connect() for _ in range(20)]
    for client in clients:
        await client.subscribe("BTCUSDT@1s", "EUR/USD@1m")
    closing = [asyncio.create_task(client.closing()) for client in clients]
    await relay.app.shutdown()
    for task in closing:
        closed = await task
        assert (closed.code, closed.reason) == (1001, "server shutdown")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await relay.connect()
    assert refused.value.status == 503
    assert refused.value.headers is not None
    assert int(refused.value.headers["Retry-After"]) >= 1


async def test_since_in_the_future_and_gaps_in_milliseconds_are_refused(relay: Running) -> None:
    client = await relay.connect()
    await client.ask("subscribe", symbol="btcusdt", interval="1m", since=99_999_999_999)
    refusal = await client.error()
    said = "since 99999999999 (5138-11-16T09:46:39+00:00) is in the future; there are no candles yet"
    assert refusal["message"] == said
    assert (refusal["code"], refusal["symbol"], refusal["interval"]) == ("invalid_request", "BTCUSDT", "1m")
    gap = [1_764_000_000_000, 1_764_000_060_000]
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", since=1_764_000_000, gaps=[gap])
    assert (await client.error())["message"].endswith("not milliseconds: did you mean 1764000000?")
