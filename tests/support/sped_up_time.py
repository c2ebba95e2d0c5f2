"""A process whose time jumps to what is due next: hours of a relay in seconds, with its sockets and its database.

`install` comes before any import that reads the time. What relies on private names of others (the queue of aiosqlite)
stands here alone.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple
from unittest.mock import patch

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEP_S = 0.5
"""Timers that are due within so much of each other run at once, unless another step is chosen."""
THREAD_WAIT_S = 5.0


class Time:
    """The time of this process; `wall` and `monotonic` are what `time` has them to be."""

    def __init__(self, start: float, step_s: float = STEP_S) -> None:
        self.passed_s = 0.0
        self.step_s = step_s
        self._start = start

    def wall(self) -> float:
        """Return Unix seconds."""
        return self._start + self.passed_s

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return 1000.0 + self.passed_s

    def leap(self, moment: float) -> None:
        """Let it be a later moment (Unix seconds) at once: all timers are due that would have run until then."""
        self.passed_s = max(self.passed_s, moment - self._start)


def install(start: float, step_s: float = STEP_S) -> Time:
    """Let this process live from `start` (Unix seconds) on; timers run at multiples of the step."""
    now = Time(start, step_s)
    for name, read in (("time", now.wall), ("monotonic", now.monotonic)):
        setattr(time, name, read)
    return now


class _Selector(selectors.DefaultSelector):
    """Looks at sockets without waiting, and lets time pass instead."""

    def __init__(self, now: Time) -> None:
        super().__init__()
        self._now = now
        self.in_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.in_threads or timeout is None:
            # Somebody works for this loop and will say so; meanwhile no time passes.
            ready = super().select(THREAD_WAIT_S)
            if ready:
                return ready
            if timeout is None:
                raise RuntimeError("nothing is left to do")
        assert timeout is not None
        due = self._now.passed_s + timeout
        self._now.passed_s = max(due, -(-due // self._now.step_s) * self._now.step_s)
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop that never waits: where nothing is ready, time jumps to the next timer."""

    def __init__(self, now: Time) -> None:
        self._now = now
        self._jumping = _Selector(now)
        super().__init__(self._jumping)
        # After months the last digit of the time is more than the usual resolution: a timer would be missed for ever.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._now.monotonic()

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        return self.count(super().run_in_executor(executor, func, *args))

    def count(self, future: asyncio.Future[T]) -> asyncio.Future[T]:
        """Let no time pass until a thread has done this."""
        self._jumping.in_threads += 1
        future.add_done_callback(self._counted)
        return future

    def _counted(self, _: asyncio.Future[Any]) -> None:
        self._jumping.in_threads -= 1


class _Queue(SimpleQueue[Any]):
    """The queue to the thread of one aiosqlite connection."""

    def put_nowait(self, item: Any) -> None:
        future = item[0]
        if future is not None:
            loop = future.get_loop()
            if isinstance(loop, Loop):
                loop.count(future)
        super().put_nowait(item)


def run(now: Time, main: Coroutine[Any, Any, T]) -> T:
    """Run a program in that time."""
    import aiosqlite.core

    with (
        patch.object(aiosqlite.core, "SimpleQueue", _Queue),
        asyncio.Runner(loop_factory=lambda: Loop(now)) as runner,
    ):
        return runner.run(main)
