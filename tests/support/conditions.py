"""Conditions that tests wait for."""

import asyncio
import time
from collections.abc import Callable

LONGEST_WAIT_S = 100.0
"""What has not come about by then never will, where twenty programs share two processors either."""


async def eventually(check: Callable[[], object], timeout_s: float = LONGEST_WAIT_S) -> None:
    """Wait until a condition holds. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come about")
        await asyncio.sleep(0.01)
