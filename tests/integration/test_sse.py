"""Server-Sent Events: what differs from a WebSocket; what does not is tested over both, where it belongs."""

import asyncio
import re
from typing import Any

import pytest

from relay.app import RelayLimits
from relay.web.ws.route import ClientPings
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.raw_socket import RawClient, parsed_events
from tests.support.running_relay import Running, WsClient
from tests.support.sandbox import Sandbox

STREAMS = ("BTCUSDT@1s", "ETHUSDT@1s", "SOLUSDT@1s")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("direct", {"bars": 3}),
        ("native", {}),
        ("aiohttp", {"throttle_ms": 100}),
        ("native", {"throttle_ms": 100}),
        ("direct", {"closed_only": True}),
    ],
    indirect=["way"],
)
async def test_last_event_id_resumes_all_streams_without_a_gap_or_a_repeat(
    quick: Running, options: dict[str, Any]
) -> None:
    times: dict[str, list[int]] = {name.partition("@")[0]: [] for name in STREAMS}
    last_id = ""
    # Left after so many messages each time: before all streams are joined, between closes, and among them.
    for count in (30, 1, 2, 4, 5, 12, 3, 40):
        client = quick.event_client(last_id)
        await client.ask("subscribe", streams=[*STREAMS], **options)
        while len(client.received) < count or not client.last_id:
            await client.next()
        last_id = client.last_id
        for symbol, had in times.items():
            had += client.told(symbol)
        await client.close()
    for had in times.values():
        assert len(had) > 5
        assert had == list(range(had[0], had[0] + len(had)))


async def test_events_of_open_candles_have_no_id_and_clients_with_the_same_streams_share_bytes(relay: Running) -> None:
    clients = [relay.event_client() for _ in range(3)]
    for client in clients:
        await client.subscribe("BTCUSDT@1s", "ETHUSDT@1m")
    await eventually(lambda: len(relay.hub.fanout.groups) == 1)
    client = clients[0]
    await client.update(is_closed=True)
    client.fields.clear()
    for _ in range(2):
        await client.update(is_closed=True, symbol="BTCUSDT")
    told = [field for field in client.fields if field.startswith("data:")]
    is_open = [field for field in told if '"is_closed":false' in field]
    assert is_open
    assert len([field for field in client.fields if field.startswith("id:")]) == len(told) - len(is_open)
    await clients[1].update(symbol="BTCUSDT", seq=client.updates[-1]["seq"])
    assert clients[1].last_id == client.last_id


async def test_the_answer_is_one_that_proxies_leave_alone_and_pages_may_read(relay_with: StartRelay) -> None:
    page = "https://charts.example.org"
    relay = await relay_with(allowed_origins=(page,))
    client = relay.event_client(headers={"Accept-Encoding": "gzip, br", "Origin": page})
    await client.subscribe("BTCUSDT@1s")
    assert client.answer_head is not None
    head = client.answer_head.headers
    assert (head["Cache-Control"], head["X-Accel-Buffering"]) == ("no-cache, no-transform", "no")
    assert "Content-Encoding" not in head
    assert (head["Access-Control-Allow-Origin"], head["Vary"]) == (page, "Origin")
    assert re.fullmatch(r"retry: [2-4]\d{3}", client.fields[0])


@pytest.mark.usefixtures("way")
async def test_a_quiet_connection_gets_a_comment_now_and_then(relay_with: StartRelay) -> None:
    relay = await relay_with(limits=RelayLimits(pings=ClientPings(interval_s=0.2)))
    client = relay.event_client()
    await client.subscribe("BTCUSDT@1M", closed_only=True)
    client.read_on()
    await eventually(lambda: client.fields.count(":") >= 3)
    assert relay.clients.connections


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "streams is missing"),
        ("streams=,", "streams has 0 names"),
        ("streams=" + ",".join(f"A{n}@1m" for n in range(101)), "streams has 101 names"),
        ("streams=BTCUSDT@1m&bars=-1", "bars '-1' is not"),
        ("streams=BTCUSDT@1m&since=1764000000000", "did you mean 1764000000?"),
        ("streams=BTCUSDT@1m&colour=red", "unknown parameter 'colour'"),
        ("streams=BTCUSDT@1m&last_event_id=7", "Last-Event-ID '7' is not an id that this relay sends"),
    ],
)
async def test_what_is_wrong_with_an_address_is_said(relay: Running, query: str, said: str) -> None:
    answer = await relay.get(f"sse?{query}")
    assert (answer.status, answer.body["code"]) == (400, "invalid_request")
    assert said in answer.body["detail"]
    assert relay.access.clients == 0


@pytest.mark.usefixtures("way")
async def test_client_that_sends_and_sends_is_sent_away_and_changes_nothing_for_others(
    relay: Running, bystander: WsClient
) -> None:
    client = await RawClient(relay.url, "BTCUSDT@1s", over="sse").open()
    loop = asyncio.get_running_loop()
    before = len(bystander.closed_times)
    # What the kernel takes for both sides is some megabytes.
    sending = loop.sock_sendall(client.socket, b"GET / HTTP/1.1\r\n" * 4_194_304)
    try:
        with pytest.raises((TimeoutError, ConnectionError)):
            await asyncio.wait_for(sending, 20)
    finally:
        client.close()
    while len(bystander.closed_times) < before + 3:
        await bystander.next()
    await eventually(lambda: len(relay.clients.connections) == 1)


async def test_a_few_bytes_of_a_client_are_forgotten_and_more_are_too_big(relay: Running) -> None:
    client = await RawClient(relay.url, "BTCUSDT@1s", over="sse").open()
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(client.socket, b"x" * 4096)
        assert parsed_events(await client.read_for(2.0))[-1]["type"] == "price_update"
        await loop.sock_sendall(client.socket, b"x")
        assert (await client.read_for(2.0)).endswith(
            b'event: close\ndata: {"code":1009,"reason":"message too big"}\n\n'
        )
    finally:
        client.close()


async def test_a_stream_that_cannot_be_resumed_now_keeps_its_place_for_the_next_time(
    relay_with: StartRelay, fast: Sandbox
) -> None:
    relay = await relay_with(sandbox=fast, max_history_rows_per_minute=3)
    names = ("BTCUSDT@1s", "ETHUSDT@1s")
    client = relay.event_client()
    await client.subscribe(*names)
    for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT"):
        await client.update(symbol=symbol, is_closed=True)
    await client.close()
    await asyncio.sleep(3.0)
    again = relay.event_client(client.last_id)
    await again.ask("subscribe", streams=[*names])
    refused = await again.error()
    assert refused["code"] == "rate_limited"
    symbol = refused["symbol"]
    for _ in range(3):
        await again.update(is_closed=True)
    assert symbol not in [update["symbol"] for update in again.updates]
    await again.close()
    last = relay.event_client(again.last_id)
    await last.subscribe(f"{symbol}@1s")
    await last.update(is_closed=True)
    times = client.told(symbol) + last.told(symbol)
    assert times == list(range(times[0], times[0] + len(times)))
