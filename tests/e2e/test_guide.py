"""The commands of the provider guide, run as they are printed, by a shell that has nothing but the relay."""

import asyncio
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.test_hookspecs import GUIDE, Bitstamp, block
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.free_ports import free_port
from tests.support.loopback_server import loopback_server

ROOT = Path(__file__).parents[2]


def commands(heading: str) -> list[list[str]]:
    """Return the commands of the first console block below a heading."""
    section = GUIDE[GUIDE.index(f"\n## {heading}\n") :]
    found = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return [shlex.split(line.removeprefix("$ ")) for line in found[1].splitlines()]


@pytest.fixture
async def venue() -> AsyncIterator[str]:
    """The venue of the tutorial on loopback; its address."""
    async with loopback_server(Bitstamp().app) as host:
        yield f"http://{host}"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment where `relay` and `pytest` are commands, the relay has a free port, and no exchange is asked."""
    for name in ("relay", "pytest"):
        shim = tmp_path / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
        shim.chmod(0o755)
    port = free_port()
    nowhere = "127.0.0.1:1"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "PYTEST_"))},
        "PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "RELAY_PORT": str(port),
        "RELAY_URL": f"http://127.0.0.1:{port}",
        "RELAY_DATABASE": ":memory:",
        "RELAY_BINANCE_WS_URL": f"ws://{nowhere}",
        "RELAY_BINANCE_REST_URL": f"http://{nowhere}",
        "RELAY_BINANCE_USDM_REST_URL": f"http://{nowhere}",
        "RELAY_TWELVE_DATA_REST_URL": f"http://{nowhere}",
    }


async def start(command: list[str], folder: Path, environ: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """Read on to the first line that holds a text."""
    assert process.stdout is not None
    seen = []
    async with asyncio.timeout(LONGEST_WAIT_S):
        async for raw in process.stdout:
            seen.append(raw.decode())
            if text in seen[-1]:
                return seen[-1]
    raise AssertionError(f"no line with {text!r} in {seen}")


async def ended(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(LONGEST_WAIT_S):
        await process.communicate()
    assert process.returncode is not None
    return process.returncode


async def test_tutorial_ends_with_live_prices(venue: str, tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "bitstamp.py").write_text(block("bitstamp.py"))
    environ |= {"RELAY_BITSTAMP_REST_URL": venue, "RELAY_BITSTAMP_POLL_SECONDS": "0.2"}
    look, serve, tail = commands("Ten minutes to a live provider")
    looking = await start(look, tmp_path, environ)
    assert (await line_with(looking, "bitstamp")).split("\t")[:3] == ["bitstamp", "ready", "file:./bitstamp.py"]
    await looking.communicate()
    assert looking.returncode == 0
    serving = await start(serve, tmp_path, environ)
    try:
        await line_with(serving, "market-relay serves http://")
        tailing = await start(tail, tmp_path, environ)
        try:
            assert "BTC/USD" in await line_with(tailing, "BTC/USD")
        finally:
            await ended(tailing)
    finally:
        status = await ended(serving)
    assert status == 0


async def test_project_of_the_guide_is_written_and_tested(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path
    for command in commands("A project of its own"):
        if command[0] == "cd":
            folder = folder / command[1]
            continue
        process = await start(command, folder, environ)
        async with asyncio.timeout(LONGEST_WAIT_S):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
    assert "2 passed" in output.decode()
