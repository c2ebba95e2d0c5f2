"""The package ccxt for tests in this process, and their time: it jumps to what is due next."""

import asyncio
import importlib.util
import sys
from collections.abc import Callable

import pytest

from tests.peers.environments import environment
from tests.support.own_time import OwnTimeLoop

CCXT = "ccxt==4.5.90"


def find_ccxt() -> None:
    """Let `import ccxt` find it in an environment of its own, behind all that is installed here.

    It wants some packages in exact versions, and takes those that are here.
    """
    if importlib.util.find_spec("ccxt") is None:
        home = environment(CCXT).parents[1]
        sys.path.extend(map(str, home.glob("lib/python3*/site-packages")))
        importlib.invalidate_caches()


@pytest.fixture(scope="session")
def ccxt_library() -> None:
    find_ccxt()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Leave the machine's time to tests with third-party clients, which are processes."""
    if item.path.name.startswith("test_ccxt_") and item.get_closest_marker("real_time") is None:
        return {"own time": OwnTimeLoop}
    return {"real time": asyncio.new_event_loop}
