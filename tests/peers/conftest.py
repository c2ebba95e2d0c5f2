"""The package ccxt for tests in this process, and their time: it jumps to what is due next."""

import asyncio
from collections.abc import Callable

import pytest

from tests.peers.environments import find_ccxt
from tests.support.own_time import OwnTimeLoop


@pytest.fixture(scope="session")
def ccxt_library() -> None:
    find_ccxt()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Leave the machine's time to tests with third-party clients, which are processes."""
    if item.path.name.startswith("test_ccxt_") and item.get_closest_marker("real_time") is None:
        return {"own time": OwnTimeLoop}
    return {"real time": asyncio.new_event_loop}
