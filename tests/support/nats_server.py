"""A NATS server in a process of its own, and a line to it that can be cut."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.conditions import LONGEST_WAIT_S
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
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
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


class CuttableLine:
    """Leads to a port of this machine. While it is cut nothing passes and nobody is told; then it goes on, or ends."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self._passes.clear()

    def mend(self, *, resets: bool = False) -> None:
        """Let everything pass again, what was held back first; or reset the connections of before."""
        if resets:
            for writer in self._writers:
                writer.transport.abort()
        self._passes.set()

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        self.mend(resets=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passes.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                await self._passes.wait()
                sink.write(data)
                await sink.drain()
        self._writers.discard(sink)
        sink.close()


@asynccontextmanager
async def nats_running(program: str, folder: Path, *arguments: str) -> AsyncIterator[NatsServer]:
    """Run a server that ends with the context."""
    server = NatsServer(program, folder, *arguments)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
