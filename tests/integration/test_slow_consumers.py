"""Clients that do not keep up: they cost the others nothing, lose no closed candle, and go when it takes too long."""

import asyncio

import pytest

from relay.app import RelayLimits
from relay.core.errors import CloseCode
from relay.streams.slow_consumers import SlowConsumerLimits
from relay.web.ws.connection import SLOW_CLOSE_TIMEOUT_S
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.raw_socket import check_positions, parsed, parsed_events, raw_clients
from tests.support.sandbox import Sandbox
from tests.support.transports import TRANSPORTS, Transport

pytestmark = pytest.mark.usefixtures("way")

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "BNBUSDT")
LONGER = [f"{symbol}@{interval}" for symbol in SYMBOLS for interval in ("1m", "3m", "5m", "15m", "30m", "1h")]
SLOW = {
    "websocket": b"\x88\x0f" + (4000).to_bytes(2, "big") + b"slow consumer",
    "sse": b'event: close\ndata: {"code":4000,"reason":"slow consumer"}\n\n',
}
WRITTEN = [("direct", TRANSPORTS[0]), ("native", TRANSPORTS[0]), ("native", TRANSPORTS[1]), ("aiohttp", TRANSPORTS[1])]
"""All ways in which bytes are written, and both transports, but not each with each."""
MANY = [*LONGER, *(f"{symbol}@1s" for symbol in SYMBOLS)]


async def test_fifty_clients_that_never_read_change_nothing_for_the_others(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(flush_ms=0)
    readers = [await over.subscriber(relay, "BTCUSDT@1m", "BTCUSDT@1s") for over in TRANSPORTS]
    with raw_clients(relay.url, 25, *LONGER) as dead, raw_clients(relay.url, 25, *LONGER, over="sse") as other_dead:
        for client in (*dead, *other_dead):
            await client.open()
        await eventually(lambda: len(relay.hub.subscribers) == 52)
        await eventually(lambda: relay.hub.fanout.lagging >= 50, 60)
        # 52 clients were served; now only the readers are: every closed second still comes, without a hole.
        for reader in readers:
            closes = [await reader.update(interval="1s", is_closed=True) for _ in range(4)]
            times = [update["candle"]["time"] for update in closes]
            assert times == list(range(times[0], times[0] + 4))
        waiting = max(subscriber.outbox.waiting_bytes for subscriber in relay.hub.subscribers)
        assert waiting <= 64 * 1024, "a dead reader holds too much memory"
    await eventually(lambda: len(relay.hub.subscribers) == 2)
    assert relay.hub.fanout.lagging == 0


async def test_stalled_client_returns_to_newest_open_candles_and_every_closed_one(
    relay_with: StartRelay, over: Transport
) -> None:
    relay = await relay_with(flush_ms=0)
    with raw_clients(relay.url, 1, *MANY, over=over.name) as (client,):
        await client.open()
        await eventually(lambda: relay.hub.fanout.lagging == 1, 60)
        (subscriber,) = relay.hub.subscribers
        await eventually(lambda: subscriber.outbox.conflated > 100)
        got = await client.read_for(2)
        await eventually(lambda: relay.hub.fanout.lagging == 0)
        got += await client.read_for(1)
    messages = parsed(got) if over.name == "websocket" else parsed_events(got)
    if over.name == "sse":
        assert check_positions(got) > 50
    seconds = [
        message["candle"]["time"]
        for message in messages
        if message["type"] == "price_update" and message["symbol"] == "BTCUSDT" and message["interval"] == "1s"
        and message["is_closed"]
    ]  # fmt: skip
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    newest = {(m["symbol"], m["interval"]): m["seq"] for m in messages if m["type"] == "price_update"}
    for stream in relay.hub.streams.values():
        assert newest[(stream.name, stream.key.interval)] >= stream.seq - 30


@pytest.mark.parametrize(("way", "over"), WRITTEN, indirect=True)
async def test_client_that_reads_nothing_for_too_long_is_closed_with_4000(
    relay_with: StartRelay, over: Transport
) -> None:
    relay = await relay_with(flush_ms=0, limits=RelayLimits(slow_consumers=SlowConsumerLimits(patience_s=1.0)))
    with raw_clients(relay.url, 1, *MANY, over=over.name) as (client,):
        await client.open()
        await eventually(lambda: relay.hub.subscribers)
        await eventually(lambda: not relay.hub.subscribers, 60)
        got = await client.read_for(5)
    assert got.endswith(SLOW[over.name])


@pytest.mark.parametrize(("way", "over"), WRITTEN, indirect=True)
async def test_client_whose_closed_candles_pile_up_is_closed_with_4000(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(flush_ms=0, limits=RelayLimits(slow_consumers=SlowConsumerLimits(most_kept_bytes=4000)))
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1s")
    with raw_clients(relay.url, 1, *MANY, over=over.name) as (client,):
        await client.open()
        await eventually(lambda: len(relay.hub.subscribers) == 2)
        await eventually(lambda: len(relay.hub.subscribers) == 1, 60)
        got = await client.read_for(5)
    assert got.endswith(SLOW[over.name])
    await other.update(is_closed=True)


async def test_client_that_is_being_closed_slowly_does_not_hold_up_the_end_of_the_relay(
    relay_with: StartRelay, over: Transport
) -> None:
    relay = await relay_with()
    with raw_clients(relay.url, 1, "BTCUSDT@1s", over=over.name) as (client,):
        await client.open()
        await eventually(lambda: relay.hub.subscribers)
        (connection,) = relay.clients.connections
        # An hour stands for the time that others are given to read what waits.
        connection.end(CloseCode.SLOW_CONSUMER, "slow consumer", 360 * SLOW_CLOSE_TIMEOUT_S)
        async with asyncio.timeout(30):
            await relay.clients.close()
            await eventually(lambda: not relay.clients.connections)
