"""Conditions that tests wait for."""

import asyncio
import inspect
import time
from collections.abc import Callable

LONGEST_WAIT_S = 100.0
"""What has not come about by then never will, where twenty programs share two processors either."""


async def eventually(check: Callable[[], object], timeout_s: float = LONGEST_WAIT_S) -> None:
    """Wait until a condition, or what is awaited for it, holds. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout_s
    while True:
        holds = check()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come about")
        await asyncio.sleep(0.01)
