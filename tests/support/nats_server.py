"""A NATS server in a process of its own, and a line to it that can hold back what passes."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.cut_server import CutServer, opened, until_one_ends
from tests.support.free_ports import free_port
from tests.support.running_relay import end_process


def nats_program(config: pytest.Config) -> str:
    """Return the server's program; without it the test is skipped, or fails where tools are needed."""
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if program is None:
        if config.getoption("--need-tools"):
            pytest.fail("nats-server is not installed")
        pytest.skip("nats-server is not installed")
    return program


class NatsServer:
    """Runs on one port; each time it starts it has forgotten everything."""

    def __init__(self, program: str, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self._program = program
        self._folder = folder
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._runs = 0

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._runs += 1
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *("-js", "-sd", str(self._folder / f"nats{self._runs}"), "-a", "127.0.0.1", "-p", str(self.port)),
            *self._arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(LONGEST_WAIT_S):
            while True:
                with suppress(OSError):
                    async with opened(self.port):
                        return
                await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill it, and what it knows."""
        if self._process is not None:
            await end_process(self._process)


class HoldingLine(CutServer):
    """Leads to a port of this machine. While it holds on nothing passes and nobody is told; then it goes on."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._to = port
        self._passes = asyncio.Event()
        self._passes.set()

    def hold(self) -> None:
        """Let nothing pass from now on."""
        self._passes.clear()

    def go_on(self) -> None:
        """Let everything pass again, what was held back first."""
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passes.wait()
        async with opened(self._to) as (there, back):
            await until_one_ends(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            await self.before(data)
            sink.write(data)
            await sink.drain()

    async def before(self, data: bytes) -> None:
        """Return when what came may pass."""
        await self._passes.wait()


@asynccontextmanager
async def nats_running(program: str, folder: Path, *arguments: str) -> AsyncIterator[NatsServer]:
    """Run a server that ends with the context."""
    server = NatsServer(program, folder, *arguments)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
