"""How late the event loop runs what is due: the first sign of a blocked loop or of too little CPU."""

import asyncio
from collections import deque

from relay.telemetry.histogram import LAG_BOUNDS_S, Histogram

EVERY_S = 0.5
RECENT = 120


class LoopLag:
    """Sleeps again and again and notes how much longer it took than asked for."""

    def __init__(self) -> None:
        self.lateness = Histogram(LAG_BOUNDS_S)
        self._recent: deque[float] = deque(maxlen=RECENT)

    @property
    def longest_recent_s(self) -> float:
        """The longest delay of the last minute."""
        return max(self._recent, default=0.0)

    async def watch(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            late_s = max(0.0, loop.time() - due)
            self.lateness.observe(late_s)
            self._recent.append(late_s)
