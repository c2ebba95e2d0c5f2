"""Keeps the unit layer what it is: no test in it opens a connection, listens, starts a process, or waits."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from tests.support.threadless_database import threadless
from tests.support.virtual_time import VirtualLoop


@pytest.fixture(scope="module", autouse=True)
def _nothing_outside() -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a unit test uses no socket and starts no process: its place is tests/integration")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("bind", "connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(os, "fork", refuse)
        patch.setattr(subprocess.Popen, "__init__", refuse)
        yield


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Let time jump to what is due next: so no test waits, and none depends on how busy the machine is."""
    return {"virtual": VirtualLoop}


@pytest.fixture(scope="module", autouse=True)
def _threadless_databases() -> Iterator[None]:
    # Of a thread that aiosqlite begins the loop knows nothing: its time would pass meanwhile.
    with threadless():
        yield
