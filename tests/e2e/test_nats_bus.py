"""The bus over a real NATS server, which may refuse a relay for a while."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.cluster.nats_bus import NatsAccess, NatsBus
from tests.support.conditions import eventually
from tests.support.nats_server import NatsServer, nats_program

GOOD, OTHER = "hush-hush", "changed"


def write_password(file: Path, password: str) -> None:
    file.write_text(f'authorization {{ user: relay, password: "{password}" }}\n')


@asynccontextmanager
async def bus_running(*urls: str, credentials: str = "") -> AsyncIterator[NatsBus]:
    bus = NatsBus(NatsAccess(urls, credentials, "relay"), "relay_test_leases", ttl_s=2.0)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def server_running(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[tuple[NatsServer, Path]]:
    file = folder / "nats.conf"
    write_password(file, GOOD)
    server = NatsServer(nats_program(request.config), folder, "-c", str(file))
    await server.start()
    try:
        yield server, file
    finally:
        await server.kill()


async def test_a_password_that_was_changed_and_is_right_again_brings_the_bus_back(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with server_running(request, tmp_path) as (server, file):
        address = f"127.0.0.1:{server.port}"
        async with (
            bus_running(f"nats://relay:{GOOD}@{address}") as bus,
            bus_running(f"nats://relay:{GOOD}@{address}") as other,
        ):
            heard: list[bytes] = []
            bus.listen("mr.test", heard.append)
            await eventually(lambda: bus.is_connected and other.is_connected)
            write_password(file, OTHER)
            server.signal(signal.SIGHUP)
            await eventually(lambda: not bus.is_connected and not other.is_connected)
            # Long enough to be refused.
            await asyncio.sleep(1.5)
            write_password(file, GOOD)
            server.signal(signal.SIGHUP)
            await eventually(lambda: bus.is_connected and other.is_connected)

            def is_heard() -> bool:
                other.send("mr.test", b"hello")
                return bool(heard)

            await eventually(is_heard)


async def test_a_credentials_file_that_cannot_be_read_is_tried_again(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with server_running(request, tmp_path) as (server, _):
        credentials = tmp_path / "relay.creds"
        credentials.write_text("no credentials")
        async with bus_running(f"nats://127.0.0.1:{server.port}", credentials=str(credentials)) as bus:
            await eventually(lambda: "NATS: " in caplog.text)
            assert not bus.is_connected
            assert "nats" in {task.get_name() for task in asyncio.all_tasks()}
