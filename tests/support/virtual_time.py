"""An event loop whose time is its own: when nothing is ready it jumps to the next timer instead of waiting.

Databases have no thread in it, so that a play is the same each time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from tests.support.threadless_database import threadless

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREAD_WAIT_S = 30.0
"""So long a thread may work for the loop; nobody waits in vain for longer."""
ODD_WAIT_S = 1.0
"""So long a thread may take that was begun in another way, such as that of a database that is closed."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time. While a thread works for the loop, no time passes either."""

    def __init__(self) -> None:
        self._jumping = _Selector(self)
        super().__init__(self._jumping)
        # Sums of floats may miss a timer by the last digit.
        self._clock_resolution = 1e-6
        self.now = 0.0

    def time(self) -> float:
        """Return the loop's own time."""
        return self.now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Do as the loop of asyncio does, and let no time pass until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.in_threads += 1
        future.add_done_callback(self._jumping.note_done)
        return future


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self.in_threads = 0

    def note_done(self, _: object) -> None:
        self.in_threads -= 1

    def select(self, timeout: float | None = None) -> Any:
        if self.in_threads or timeout is None:
            found = super().select(timeout if timeout == 0 else THREAD_WAIT_S if self.in_threads else ODD_WAIT_S)
            if not found and timeout is None:
                raise RuntimeError("everybody waits for somebody else")
            return found
        # There is no socket to look at.
        self._loop.now += max(0.0, timeout)
        return []


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a loop of its own, whose time begins with 0."""
    loop = VirtualLoop()
    with threadless(), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
