"""Connections without a request: silent ones and slow ones go, all others stay."""

import asyncio
import json
import logging
from pathlib import Path

import aiohttp
import pytest

from relay.app import RelayLimits
from tests.conftest import StartRelay
from tests.support import slow_machine
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.relay_process import serving

API = "/api/v1/market-data"
IMPATIENT = RelayLimits(first_request_s=1.0)


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """Read until the relay ends the connection; return what it sent before."""
    async with asyncio.timeout(LONGEST_WAIT_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.usefixtures("patient_loop")  # Who asks has a second for it.
async def test_silent_and_slow_newcomers_go_and_who_asked_stays(
    relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await relay_with(limits=IMPATIENT)
    async with aiohttp.ClientSession() as session:
        host, port = relay.url.removeprefix("http://").split(":")
        client = await session.ws_connect(f"{relay.url}{API}/ws")
        asked, answering = await asyncio.open_connection(host, int(port))
        answering.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await asked.readline()).startswith(b"HTTP/1.1 200")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        slow, dripping = await asyncio.open_connection(host, int(port))

        async def drip() -> None:
            for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 1000:
                dripping.write(bytes([byte]))
                await asyncio.sleep(0.05)

        task = asyncio.create_task(drip())
        assert await asyncio.gather(*(end_of(reader) for reader, _ in silent), end_of(slow)) == [b""] * 21
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # Both asked before the others came, so their time would be over too.
        assert (await client.receive_json())["status"] == "connected"
        await client.send_json({"action": "ping"})
        assert (await client.receive_json(timeout=LONGEST_WAIT_S))["type"] == "pong"
        answering.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await end_of(asked)).count(b'"ok"') == 2
        for _, writer in [*silent, (slow, dripping), (asked, answering)]:
            writer.close()
        await client.close()
    told = [record for record in caplog.records if record.name not in slow_machine.SAID_BY]
    assert [record for record in told if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("options", [("--host", "localhost"), ("--host", "::1")])
async def test_it_listens_as_before(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with serving(tmp_path, "--database", ":memory:", *options) as relay, aiohttp.ClientSession() as session:
        async with session.get(f"{relay.url}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{relay.url}{API}/symbols", headers={"Origin": relay.url}) as answer:
            assert answer.status == 200
        assert await relay.stop() == 0


@pytest.mark.parametrize(
    "line",
    [
        "GET /api/v1/market-data/history?symbol=币安人生USDT&token=opensesame HTTP/1.1",
        "GET /" + "opensesame" * 1000 + " HTTP/1.1",
        "opensesame",
    ],
)
async def test_what_is_no_request_is_answered_as_a_problem_that_repeats_nothing(tmp_path: Path, line: str) -> None:
    async with serving(tmp_path, "--database", ":memory:") as relay:
        host, port = relay.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{line}\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = (await end_of(reader)).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.0 400 ")
        assert b"Content-Type: application/problem+json" in head
        problem = json.loads(body)
        assert (problem["status"], problem["code"]) == (400, "invalid_request")
        assert "use GET or HEAD, an address in ASCII with other characters percent-encoded" in problem["detail"]
        assert "opensesame" not in problem["detail"]
        assert await relay.stop() == 0
    assert not [said for said in relay.err if "opensesame" in said or "Traceback" in said]
