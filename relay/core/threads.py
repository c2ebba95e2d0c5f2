"""Where the relay's own blocking work runs: in threads that no plugin can fill, replace or shut down."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


MANY = 1000
"""Of what takes a few microseconds a piece, so many take the event loop some milliseconds."""


async def in_thread_if_many(count: int, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Return what a function returns that looks at so many things: called at once for a few, in a thread for many."""
    return work(*given, **named) if count <= MANY else await in_thread(work, *given, **named)


async def in_thread(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Return what a function returns that is called in a thread.

    That is a thread of `relay_threads` of the running loop, or where the loop has none, of its default executor.
    """
    loop = asyncio.get_running_loop()
    own: Executor | None = getattr(loop, "relay_threads", None)
    return await loop.run_in_executor(own, partial(work, *given, **named))
