"""The connection of the client: attempts, waits, refusals and ends, on real sockets."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import trustme

from relay.client import (
    BadReply,
    ClientClosed,
    Connected,
    Disconnected,
    Lost,
    Refused,
    RelayClient,
    Snapshot,
    Unreachable,
    Update,
)
from tests.support.client_readings import BTC, QUICK, START, client, closed_times, is_a, is_open_at, relay, until
from tests.support.stand_in_relay import StandInRelay

__all__ = ["client", "relay"]


@pytest.mark.parametrize(("code", "reason"), [(4001, "too many invalid messages"), (4003, "token revoked")])
async def test_codes_that_are_for_good_end_it(relay: StandInRelay, client: RelayClient, code: int, reason: str) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.drop(code, reason)
    with pytest.raises(Disconnected, match=rf"{reason}.*{code}") as caught:
        await until(client, lambda message: False)
    assert caught.value.close_code == code
    with pytest.raises(ClientClosed):
        await until(client, lambda message: False)
    assert relay.connections == 1


async def test_waits_grow_up_to_the_longest_and_start_anew_once_data_flows(relay: StandInRelay) -> None:
    class Latest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    async with RelayClient(relay.url, backoff_s=(0.01, 0.06), jitter=Latest()) as client:
        await client.subscribe("BTCUSDT@1m")
        await until(client, is_a(Update))
        relay.handshake = 500
        await relay.drop(1001)
        losses: list[float] = []
        async with asyncio.timeout(30):
            while len(losses) < 4:
                message = await anext(client)
                assert isinstance(message, Lost)
                losses.append(message.retry_in_s)
        relay.handshake = None
        await until(client, is_a(Update))
        await relay.drop(1001)
        last = (await until(client, is_a(Lost)))[-1]
    assert losses == [0.02, 0.04, 0.06, 0.06]
    assert isinstance(last, Lost)
    assert last.retry_in_s == 0.02


async def test_retry_after_of_a_full_relay_is_kept(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    relay.handshake, relay.handshake_headers = 503, {"Retry-After": "0.3"}
    await relay.drop(1001)
    lost = (await until(client, lambda message: isinstance(message, Lost) and message.close_code is None))[-1]
    assert isinstance(lost, Lost)
    assert lost.retry_in_s == 0.3
    assert "full" in lost.reason


async def test_token_that_is_no_longer_valid_ends_it(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    relay.token = "changed"
    await relay.drop(1001)
    with pytest.raises(Refused, match="valid token"):
        await until(client, lambda message: False)


async def test_nobody_at_the_address_is_an_error_at_the_start(relay: StandInRelay, client: RelayClient) -> None:
    await relay.stop()
    with pytest.raises(Unreachable, match=r"^no relay reached at http://127\.0\.0\.1:\d+: connection refused$"):
        await anext(client)
    with pytest.raises(Unreachable):
        await client.symbols()


async def test_server_that_accepts_and_says_nothing_is_an_error_at_the_start() -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with RelayClient(f"http://127.0.0.1:{port}", timeout_s=0.2) as client:
        with pytest.raises(Unreachable, match="no answer in time"):
            await anext(client)
        with pytest.raises(Unreachable, match="no answer in time"):
            await client.status()
    for writer in held:
        writer.close()
    server.close()


async def test_client_told_to_wait_connects_once_the_relay_is_there(relay: StandInRelay) -> None:
    await relay.stop()
    async with RelayClient(relay.url, waits_for_relay=True, backoff_s=QUICK) as client:
        await client.subscribe("BTCUSDT@1m")
        assert isinstance(await anext(client), Lost)
        await relay.start()
        await until(client, is_a(Update))


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "unauthorized", "token"),
        (403, "forbidden", "not allow"),
        (429, "rate_limited", "too many"),
        (503, "internal", "full"),
        (404, "", "address"),
    ],
)
async def test_refused_connection_is_an_error_at_the_start(
    relay: StandInRelay, client: RelayClient, status: int, code: str, words: str
) -> None:
    relay.handshake, relay.handshake_headers = status, {"Retry-After": "7"}
    with pytest.raises(Refused, match=words) as caught:
        await anext(client)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (status, code, 7.0)


async def test_close_from_elsewhere_ends_the_iteration(client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    reading = asyncio.create_task(until(client, lambda message: False))
    await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(30):
        assert await reading == []


async def test_relay_that_is_away_is_waited_for(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=2)
    messages = await until(client, is_a(Snapshot))
    await relay.stop()
    messages += await until(client, lambda message: isinstance(message, Lost) and message.close_code is None)
    await relay.close_candle(BTC)
    await relay.start()
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START + 120, START + 180]


@contextlib.asynccontextmanager
async def answering(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Run a server that gives each connection the same answer and closes it; the address without its scheme."""

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_one, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize("answer", [PAGE, b"SSH-2.0-OpenSSH_9.6\r\n"])
async def test_server_that_is_no_relay_is_told_apart(answer: bytes) -> None:
    async with answering(answer) as address, RelayClient(address) as client:
        with pytest.raises(BadReply, match=rf"^the answer from http://{address} is not from a relay"):
            await anext(client)
        with pytest.raises(BadReply, match="is the address right"):
            await client.symbols()


async def test_tls_where_there_is_none_is_explained(relay: StandInRelay) -> None:
    async with RelayClient(relay.url.replace("http", "https")) as client:
        with pytest.raises(Unreachable, match=r"TLS failed.*http://"):
            await anext(client)
        with pytest.raises(Unreachable, match=r"TLS failed.*http://"):
            await client.symbols()


async def test_certificate_that_is_not_trusted_and_missing_tls_are_explained() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with answering(PAGE, context) as address:
        async with RelayClient(f"https://{address}") as client:
            with pytest.raises(Unreachable, match="certificate is not trusted: unable to get local issuer"):
                await anext(client)
        async with RelayClient(f"http://{address}") as client:
            with pytest.raises(Unreachable, match=r"closed the connection.*https://"):
                await anext(client)


async def test_host_that_no_name_can_be_is_unreachable() -> None:
    async with RelayClient("http://" + "a" * 70 + ".example") as client:
        with pytest.raises(Unreachable, match="label"):
            await anext(client)
        with pytest.raises(Unreachable, match="label"):
            await client.symbols()


@pytest.mark.parametrize("owns_session", [True, False])
async def test_close_while_connecting_ends_the_iteration_at_once(owns_session: bool) -> None:
    came = asyncio.Event()
    held: list[asyncio.StreamWriter] = []

    def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        came.set()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session, server:
        client = RelayClient(f"127.0.0.1:{port}", session=None if owns_session else session)
        reading = asyncio.create_task(until(client, lambda message: False))
        await came.wait()
        await client.close()
        async with asyncio.timeout(30):
            assert await reading == []
        for writer in held:
            writer.close()


async def test_close_while_waiting_ends_the_iteration_at_once(relay: StandInRelay) -> None:
    await relay.stop()
    async with RelayClient(relay.url, waits_for_relay=True, backoff_s=(60, 60)) as client:
        assert isinstance(await anext(client), Lost)
        reading = asyncio.create_task(until(client, lambda message: False))
        await asyncio.sleep(0)
        await client.close()
        async with asyncio.timeout(30):
            assert await reading == []


async def test_reader_cancelled_after_a_loss_goes_on_with_the_next_connection(
    relay: StandInRelay, client: RelayClient
) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.say("{")
    [lost] = await until(client, is_a(Lost))
    assert isinstance(lost, Lost)
    assert "cannot be read" in lost.reason
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(client)
    assert isinstance(await anext(client), Connected)
