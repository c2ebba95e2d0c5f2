"""Waiting on a machine that pauses: a time of which such a pause uses up a small part only."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

STEPS: Final = 10
BEAT_S: Final = 0.02
LONGEST_S: Final = 0.06
"""An event loop that beats every `BEAT_S` and was away for longer than this did not run."""


def steps(seconds: float) -> Iterator[float]:
    """Yield the parts of a time one by one, to be waited for one after the other.

    A pause of the whole process, as on a machine with too much to do, uses up one step at most: whoever is waited for
    still gets the others.
    """
    for _ in range(STEPS):
        yield seconds / STEPS


class PauselessClock:
    """The time of an event loop without the pauses of the process: every timer of the loop waits through them.

    Entered it replaces `loop.time`. It goes as `time.monotonic` does while the loop runs, and never backwards.
    """

    def __init__(self, real: Callable[[], float] = time.monotonic) -> None:
        self._real = real
        self._now = self._seen = real()

    def time(self) -> float:
        """Return the seconds, from where `time.monotonic` was at the start."""
        seen = self._real()
        self._now += min(seen - self._seen, LONGEST_S)
        self._seen = seen
        return self._now

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.time = self.time  # type: ignore[method-assign]
        self._beat()

    async def __aexit__(self, *_: object) -> None:
        self._handle.cancel()
        del self._loop.time

    def _beat(self) -> None:
        # So that the loop never waits for long, and a long time between two looks at the clock is a pause.
        self._handle = self._loop.call_later(BEAT_S, self._beat)
