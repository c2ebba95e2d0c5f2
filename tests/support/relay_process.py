"""A `relay serve` process of its own: what it prints, where it listens, and signals."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.sandbox import Sandbox

SAYS = re.compile(r"market-relay serves (https?://\S+)")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "TWELVE_DATA_"))}

WITHOUT_FUTURES = {"RELAY_BINANCE_USDM_ENABLED": "false"}
"""For a relay without a stand-in for them: no test contacts an exchange."""


class Serving:
    """A process that accepts connections. `out` and `err` grow while it runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.out: list[str] = []
        self.err: list[str] = []
        self._grown = asyncio.Condition()
        self._open = 2
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.out)),
            asyncio.create_task(self._read(process.stderr, self.err)),
        ]

    async def _read(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        while line := await stream.readline():
            async with self._grown:
                lines.append(line.decode().rstrip("\n"))
                self._grown.notify_all()
        async with self._grown:
            self._open -= 1
            self._grown.notify_all()

    async def says(self, fits: Callable[[str], object], lines: list[str], after: int = 0) -> str:
        """Wait for a line that fits. Raises `TimeoutError` with what was printed instead, at once when it ended."""
        try:
            async with asyncio.timeout(LONGEST_WAIT_S), self._grown:
                while True:
                    for line in lines[after:]:
                        if fits(line):
                            return line
                    if not self._open:
                        raise TimeoutError
                    await self._grown.wait()
        except TimeoutError:
            raise TimeoutError("\n".join([*self.out, *self.err])) from None

    async def logs(self, words: str, after: int = 0) -> str:
        """Wait for a log line with these words."""
        return await self.says(lambda line: words in line, self.err, after)

    async def hang_up(self, words: str) -> str:
        """Send SIGHUP and wait for a log line with these words that comes after it."""
        before = len(self.err)
        self.process.send_signal(signal.SIGHUP)
        return await self.logs(words, before)

    async def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """Wait until the process is gone and all it printed is read; return the exit code."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            await self.process.wait()
            await asyncio.gather(*self._readers)
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def serving(
    cwd: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    is_sandbox: bool = True,
    always_open: bool = True,
    prepare: str = "",
) -> AsyncIterator[Serving]:
    """Run `relay serve` on a free port, with a clean environment; it is killed at the end if it still runs.

    `prepare` is Python that is run before.
    """
    command = ("-c", f"import sys; sys.argv[0] = 'relay'; {prepare}; from relay.cli import main; main()")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(command if prepare else ("-m", "relay")),
        *(
            "serve",
            "--port",
            "0",
            *(("--sandbox",) if is_sandbox else ()),
            *(("--forex-always-open",) if is_sandbox and always_open else ()),
            *arguments,
        ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**CLEAN, **({} if is_sandbox else WITHOUT_FUTURES), **(env or {})},
    )
    running = Serving(process)
    try:
        found = SAYS.match(await running.says(SAYS.match, running.out))
        assert found is not None
        running.url = found[1]
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await running.ended()


async def start_process(sandbox: Sandbox, port: int, database: Path) -> asyncio.subprocess.Process:
    """Start a relay that has spot only, of this sandbox; return when it serves."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("RELAY_")}
    environ |= {"RELAY_BINANCE_WS_URL": sandbox.binance.ws_url, "RELAY_BINANCE_REST_URL": sandbox.binance.rest_url}
    environ |= WITHOUT_FUTURES
    arguments = ("-m", "relay", "serve", "--port", str(port), "--database", str(database), "--log-level", "error")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environ, cwd=database.parent, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(LONGEST_WAIT_S):
        line = await process.stdout.readline()
    assert line, "the relay did not start"
    return process
