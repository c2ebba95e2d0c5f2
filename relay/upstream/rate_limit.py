"""Keeps what is sent within a venue's limit of messages a second."""

import asyncio
import time
from collections import deque
from collections.abc import Callable


class Pace:
    """Keeps messages within `limit` in any second as the receiver sees it; None: no limit.

    Whoever sends leaves `reserve` places free for those who must not wait: subscriptions leave two, our pings one,
    pongs none. The window is stretched a little, since messages can arrive closer together than they were sent.
    """

    def __init__(self, limit: int | None, clock: Callable[[], float] | None = None) -> None:
        self._limit = limit
        self._clock = clock or time.monotonic
        self._sent: deque[float] = deque()
        self._window_s = 1.25

    def free_in(self, reserve: int) -> float:
        """Return the seconds until a message may be sent that leaves `reserve` places free, 0 for now."""
        if self._limit is None:
            return 0.0
        now = self._clock()
        while self._sent and self._sent[0] <= now - self._window_s:
            self._sent.popleft()
        allowed = max(1, self._limit - reserve)
        if len(self._sent) < allowed:
            return 0.0
        return self._sent[len(self._sent) - allowed] + self._window_s - now

    def note(self) -> None:
        """Count a message that is sent now."""
        if self._limit is not None:
            self._sent.append(self._clock())

    async def room(self, reserve: int = 2) -> None:
        """Wait until a message may be sent that leaves `reserve` places free.

        It is not counted yet, so the caller may still change its mind.
        """
        while (wait := self.free_in(reserve)) > 0:  # noqa: ASYNC110 - only time makes room, nobody could set an event
            await asyncio.sleep(wait)

    async def turn(self, reserve: int = 2) -> None:
        """Wait until a message may be sent that leaves `reserve` places free, and count it."""
        await self.room(reserve)
        self.note()
