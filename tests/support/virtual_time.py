"""An event loop whose time is its own: when nothing is ready it jumps to the next timer instead of waiting.

What aiosqlite's thread does takes no time and happens at once, so that a play is the same each time.
"""

import asyncio
import queue
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

import aiosqlite.core

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time. `handed` counts what was given to a thread, `taken` what came back from one."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        # Sums of floats may miss a timer by the last digit.
        self._clock_resolution = 1e-6
        self.now = 0.0
        self.handed = self.taken = 0

    def time(self) -> float:
        """Return the loop's own time."""
        return self.now

    def call_soon_threadsafe(  # type: ignore[override]  # as typeshed has it since Python 3.12
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Note that a thread has done its work."""
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        self.taken += 1
        return handle


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        was_waiting = False
        while loop.handed > loop.taken:
            was_waiting = True
            super().select(0.02)
        found = super().select(0)
        if not found and not was_waiting and (timeout is None or timeout > 0):
            if timeout is None:
                raise RuntimeError("everybody waits for somebody else")
            loop.now += timeout
        return found


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a loop of its own, whose time begins with 0."""
    loop = VirtualLoop()

    class Counted(queue.SimpleQueue):  # type: ignore[type-arg]
        def put_nowait(self, item: Any) -> None:
            loop.handed += 1
            super().put_nowait(item)

    with patch.object(aiosqlite.core, "SimpleQueue", Counted), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
