"""Time that jumps to what is due next: minutes of a market in a second, with a stand-in in the same event loop."""

import asyncio
import functools
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")

BUSY_S = 1.0
"""So much of the processor the loop may use before time passes by itself: who never waits does not stop it."""
HELD_UP_S = 60.0
"""So long it may not be idle by the clock: nothing does that blocks it, or hangs in a thread."""
_THREAD_WAIT_S = 0.05


class SpedUpTime:
    """What time it is: `start`, all that was jumped over since, and what the loop worked beyond its limits.

    `busy_s` is a limit for the time of the processor, which a machine with too much to do does not use up; `held_up_s`
    for that of the machine. `real` and `used` tell them.
    """

    def __init__(
        self,
        start: float,
        *,
        busy_s: float = BUSY_S,
        held_up_s: float = HELD_UP_S,
        real: Callable[[], float] = time.perf_counter,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._start = start
        self._busy_s, self._held_up_s = busy_s, held_up_s
        self._real, self._used = real, used
        self._passed_s = 0.0
        self._idle_at, self._idle_used_s = real(), used()

    def passed_s(self) -> float:
        """Return the seconds since the start."""
        real_s = self._real() - self._idle_at
        # Asking for the time of the processor takes longer than all else here.
        if real_s <= min(self._busy_s, self._held_up_s):
            return self._passed_s
        used_s = self._used() - self._idle_used_s
        return self._passed_s + max(0.0, used_s - self._busy_s, real_s - self._held_up_s)

    def wall(self) -> float:
        """Return Unix seconds."""
        return self._start + self.passed_s()

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return 1000.0 + self.passed_s()

    def jump(self, seconds: float) -> None:
        """Let so many seconds pass: nothing is left to do before."""
        self._passed_s = self.passed_s() + seconds
        self._idle_at, self._idle_used_s = self._real(), self._used()


class _JumpingSelector(selectors.DefaultSelector):
    """Looks at sockets without waiting, and lets time pass instead."""

    def __init__(self, now: SpedUpTime) -> None:
        super().__init__()
        self._now = now
        self.in_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.in_threads or timeout is None:
            # A thread works for this loop and will wake it, or something outside of it has to.
            return super().select(_THREAD_WAIT_S)
        # Sums of floats may miss a timer by the last digit.
        self._now.jump(max(0.0, timeout) + 1e-6)
        return []


class SpedUpLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: if nothing is ready, time jumps to the next timer."""

    def __init__(self, now: SpedUpTime) -> None:
        self._now = now
        self._jumping = _JumpingSelector(now)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the seconds by which timers go."""
        return self._now.monotonic()

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function in a thread; no time passes until it has returned."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.in_threads += 1
        future.add_done_callback(self._counted)
        return future

    def _counted(self, _: asyncio.Future[Any]) -> None:
        self._jumping.in_threads -= 1


@contextmanager
def installed(now: SpedUpTime) -> Iterator[None]:
    """Have `time` tell that time to this process, until the end."""
    readers: dict[str, Callable[[], float]] = {
        "time": now.wall,
        "monotonic": now.monotonic,
        "time_ns": lambda: int(now.wall() * 1e9),
        "monotonic_ns": lambda: int(now.monotonic() * 1e9),
    }
    real = {name: getattr(time, name) for name in readers}
    for name, read in readers.items():
        setattr(time, name, read)
    try:
        yield
    finally:
        for name, read in real.items():
            setattr(time, name, read)


def sped_up(function: Callable[P, Awaitable[T]], /, *, start: float | None = None) -> Callable[P, T]:
    """Make a plain function of an async one, which runs in an event loop of its own in time that jumps.

    Nothing waits: when nothing is left to do, time goes on to the next timer at once. So an hour of a market takes as
    long as its messages need. The stand-in has to run in the same loop, so create it inside of `function`: if another
    process or host had to answer, every timeout would be over. `start` is the time at the beginning in Unix seconds,
    by default the present. `time.time()`, `time.monotonic()` and the loop's `time()` take part in it;
    `datetime.now()` and names that a module imported from `time` do not.
    """

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        now = SpedUpTime(time.time() if start is None else start)

        async def main() -> T:
            return await function(*arguments, **options)

        with installed(now), asyncio.Runner(loop_factory=lambda: SpedUpLoop(now)) as runner:
            return runner.run(main())

    return run
