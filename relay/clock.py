"""What time it is at a provider, learnt from what it sends; the local wall clock is only the first guess."""

import time
from collections import deque
from collections.abc import Callable

STEP_S = 5.0
"""A stamp that is further ahead than this is believed only when those that follow are, too."""
AGREEING = 3


class Clock:
    """The two clocks of this machine, passed in wherever time is read so that tests can supply their own."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.wall = wall
        self.monotonic = monotonic


class ProviderClock:
    """Estimates the provider's time from stamps in its messages and the monotonic clock.

    A stamp arrives late, never early, so the largest recent offset is the best estimate. A system clock that jumps or
    runs behind therefore changes nothing once one stamp was seen. A single stamp from the future changes nothing
    either: a jump ahead takes several in a row, as after this machine was suspended.
    """

    def __init__(self, clock: Clock, *, remember: int = 64) -> None:
        self._clock = clock
        self._offsets: deque[float] = deque(maxlen=remember)
        self._ahead: list[float] = []
        self._best = 0.0
        self.is_synchronised = False

    def observe(self, stamp_s: float) -> float:
        """Take a moment stamped by the provider, in Unix seconds; return how long ago it was by the provider's time."""
        offset = stamp_s - self._clock.monotonic()
        if self.is_synchronised and offset > self._best + STEP_S:
            self._take_jump(offset)
        else:
            if self._ahead:
                self._ahead.clear()
            self._take(offset)
        return self._best - offset

    def _take(self, offset: float) -> None:
        offsets = self._offsets
        leaving = offsets[0] if len(offsets) == offsets.maxlen else None
        offsets.append(offset)
        if not self.is_synchronised or offset >= self._best:
            self._best = offset
        elif leaving == self._best:
            self._best = max(offsets)
        self.is_synchronised = True

    def _take_jump(self, offset: float) -> None:
        """Believe a jump ahead, the shortest, once enough stamps in a row are ahead."""
        self._ahead.append(offset)
        if len(self._ahead) >= AGREEING:
            self._take(min(self._ahead))
            self._ahead.clear()

    def now(self) -> float:
        """Return the provider's time in Unix seconds."""
        if not self.is_synchronised:
            return self._clock.wall()
        return self._clock.monotonic() + self._best
