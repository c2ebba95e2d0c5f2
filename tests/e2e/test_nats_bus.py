"""The bus over a real NATS server, which may refuse a relay for a while."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.cluster.bus import BusError
from relay.cluster.nats_bus import NatsAccess, NatsBus
from relay.cluster.wire.history_messages import candles_answer, read_candles
from relay.core.model import ExtendedCandle
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.nats_server import HoldingLine, NatsServer, nats_program, nats_running

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


class LineThatHoldsSubscriptions(HoldingLine):
    """Holds back what is subscribed to through it, and what comes after, until it goes on."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.held = asyncio.Event()

    async def before(self, data: bytes) -> None:
        if b"SUB " in data and not self.held.is_set():
            self.held.set()
            self.hold()
        await super().before(data)


async def test_a_bus_is_connected_when_the_server_knows_what_it_answers(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with (
        nats_running(nats_program(request.config), tmp_path) as server,
        LineThatHoldsSubscriptions(server.port) as line,
        bus_running(f"nats://127.0.0.1:{server.port}") as asking,
        bus_running(f"nats://127.0.0.1:{line.port}") as owner,
    ):

        async def answer(_: bytes) -> bytes:
            return b"here"

        owner.answer("mr.test.call.owner", answer)
        await line.held.wait()
        assert not owner.is_connected
        line.go_on()
        await eventually(lambda: owner.is_connected and asking.is_connected)
        assert await asking.request("mr.test.call.owner", b"?", LONGEST_WAIT_S) == b"here"


def worth_of(count: int) -> list[ExtendedCandle]:
    """Candles with all that Binance gives, which hardly fold."""
    dice = random.Random(7)
    return [
        ExtendedCandle(
            60 * at,
            *(1.0, 2.0, 0.5, 1.5),
            round(dice.random() * 1e5, 5),
            quote_volume=round(dice.random() * 1e10, 8),
            trades=dice.randrange(1_000_000),
            taker_volume=round(dice.random() * 1e5, 5),
            taker_quote_volume=round(dice.random() * 1e10, 8),
            written="".join(map(str, (dice.randrange(10**9) for _ in range(20)))),
        )
        for at in range(count)
    ]


@pytest.mark.parametrize(("rows", "most"), [(20_000, 2**20), (6_000, 65_536)])
async def test_an_answer_that_is_larger_than_a_message_arrives_whole(
    request: pytest.FixtureRequest, tmp_path: Path, rows: int, most: int
) -> None:
    file = tmp_path / "nats.conf"
    file.write_text(f"max_payload: {most}\n")
    candles = worth_of(rows)
    body = candles_answer(candles, None)
    assert len(body) > most
    async with nats_running(nats_program(request.config), tmp_path, "-c", str(file)) as server:
        url = f"nats://127.0.0.1:{server.port}"
        async with bus_running(url) as owner, bus_running(url) as asking:

            async def answer(_: bytes) -> bytes:
                return body

            owner.answer("mr.test.call.owner", answer)
            await eventually(lambda: owner.is_connected and asking.is_connected)
            assert asking.most_bytes == most
            found, _ = read_candles(await asking.request("mr.test.call.owner", b"?", LONGEST_WAIT_S))
            assert found == candles
            # Nobody answers: that is said at once, and not only when the time is over.
            with pytest.raises(BusError, match="NoResponders"):
                await asking.request("mr.test.call.nobody", b"?", 600.0)


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
