"""What time it is at a provider, learnt from what it sends; the local wall clock is only the first guess."""

import time
from collections import deque
from collections.abc import Callable


class Clock:
    """The two clocks of this machine, passed in wherever time is read so that tests can supply their own."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.wall = wall
        self.monotonic = monotonic


class ProviderClock:
    """Estimates the provider's time from stamps in its messages and the monotonic clock.

    A stamp arrives late, never early, so the largest recent offset is the best estimate. A system clock that jumps or
    runs behind therefore changes nothing once one stamp was seen. Old stamps leave, so one absurd stamp does not stay.
    """

    def __init__(self, clock: Clock, *, remember: int = 64) -> None:
        self._clock = clock
        self._offsets: deque[float] = deque(maxlen=remember)
        self._best = 0.0
        self.is_synchronised = False

    def observe(self, stamp_s: float) -> None:
        """Take a moment stamped by the provider, in Unix seconds."""
        offset = stamp_s - self._clock.monotonic()
        offsets = self._offsets
        leaving = offsets[0] if len(offsets) == offsets.maxlen else None
        offsets.append(offset)
        if not self.is_synchronised or offset >= self._best:
            self._best = offset
        elif leaving == self._best:
            self._best = max(offsets)
        self.is_synchronised = True

    def now(self) -> float:
        """Return the provider's time in Unix seconds."""
        if not self.is_synchronised:
            return self._clock.wall()
        return self._clock.monotonic() + self._best
