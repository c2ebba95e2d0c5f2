"""A service manager is told when the relay is ready, reloads, lives and ends: a real process and a real socket."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.server.sd_notify import ServiceManager
from tests.support.conditions import LONGEST_WAIT_S


class Manager:
    """Listens as systemd does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    async def told(self) -> list[str]:
        """Return the lines of the next message."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            data = await asyncio.get_running_loop().sock_recv(self.socket, 4096)
        return data.decode().split("\n")

    async def told_until(self, line: str) -> list[list[str]]:
        """Return the messages up to the first that holds this line."""
        messages = [await self.told()]
        while line not in messages[-1]:
            messages.append(await self.told())
        return messages


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.socket.close()


async def test_service_manager_hears_of_the_relays_whole_life(manager: Manager, tmp_path: Path) -> None:
    environ = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "300000"}
    relay = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "serve", "--sandbox", "--port", "0", "--database", ":memory:"),
        cwd=tmp_path,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        ready = await manager.told()
        assert ready[0] == "READY=1"
        assert ready[1].startswith("STATUS=serves http://127.0.0.1:")
        # The watchdog goes on, not once only.
        assert [await manager.told() for _ in range(2)] == [["WATCHDOG=1"], ["WATCHDOG=1"]]
        relay.send_signal(signal.SIGHUP)
        reloading = next(m for m in reversed(await manager.told_until("RELOADING=1")) if m != ["WATCHDOG=1"])
        assert reloading[1].startswith("MONOTONIC_USEC=")
        assert (await manager.told_until("READY=1"))[-1] == ["READY=1"]
        relay.send_signal(signal.SIGTERM)
        assert (await manager.told_until("STOPPING=1"))[-1] == ["STOPPING=1"]
        assert await relay.wait() == 0
        with pytest.raises(BlockingIOError):
            manager.socket.recv(4096)
    finally:
        if relay.returncode is None:
            relay.kill()
            await relay.wait()


async def test_nothing_is_sent_without_a_manager_and_a_deaf_one_does_no_harm(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1000"}):
        manager = ServiceManager(environ)
        manager.ready("serves")
        with manager.reloading():
            pass
        await manager.stopping()


async def test_watchdog_of_another_process_is_not_ours(manager: Manager) -> None:
    relay = ServiceManager({"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    relay.ready("serves")
    assert await manager.told() == ["READY=1", "STATUS=serves"]
    await asyncio.sleep(0.05)
    with pytest.raises(BlockingIOError):
        manager.socket.recv(4096)
    await relay.stopping()


async def test_abstract_addresses_are_understood(tmp_path: Path) -> None:
    name = f"market-relay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready("serves")
        assert listener.recv(100) == b"READY=1\nSTATUS=serves"
