"""An event loop whose time is its own: when nothing is ready it jumps to the next timer instead of waiting.

Databases have no thread in it, so that a play is the same each time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.support.threadless_database import threadless

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        # Sums of floats may miss a timer by the last digit.
        self._clock_resolution = 1e-6
        self.now = 0.0

    def time(self) -> float:
        """Return the loop's own time."""
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout != 0:
            if timeout is None:
                raise RuntimeError("everybody waits for somebody else")
            self._loop.now += max(0.0, timeout)
        return found


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a loop of its own, whose time begins with 0."""
    loop = VirtualLoop()
    with threadless(), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
