"""The time of a replay: one for all its feeds, so that no stream is ahead of another."""

import asyncio
import math
from collections.abc import Callable

MOST_BEHIND_S = 1.0
"""A replay that is late by more real time than this goes on from where it is; it does not hurry. Our own choice."""
_JUST_BEFORE_S = 0.001
_TIMERS_S = 1e-5


class ReplayClock:
    """Stands at `start` until `begin`, then runs `speed` times as fast as real time, up to `end` (Unix seconds).

    Each feed says with `hold` what it tells next. Time does not pass that moment before it is told, and who is not
    `is_first` waits for the others with `moved`: so a slow machine makes the replay slower, and nothing is late.
    """

    def __init__(self, start: float, end: float, speed: float) -> None:
        self.speed = speed
        self._end = end
        self._last = self._from = float(start)
        self._real: Callable[[], float] | None = None
        self._began_at = 0.0
        # What each feed tells next: at a moment candles close before others open or move.
        self._next: dict[object, tuple[float, bool]] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def begin(self) -> None:
        """Let time run, if it does not yet; by the clock of the running loop, as timers go."""
        if self._real is None:
            self._real = asyncio.get_running_loop().time
            self._began_at = self._real()

    def now(self) -> float:
        """Return the time in Unix seconds; it never goes back."""
        held = (moment if is_open else moment - _JUST_BEFORE_S for moment, is_open in self._next.values())
        self._last = max(self._last, min(self._due(), self._end, *held))
        return self._last

    def _due(self) -> float:
        """Return what time it is if nothing is held."""
        return self._from if self._real is None else self._from + (self._real() - self._began_at) * self.speed

    def hold(self, feed: object, moment: float, *, is_open: bool) -> None:
        """Have time stop where a feed has something to tell next: at a moment, or just before it if a candle closes."""
        if self._next.get(feed) != (moment, is_open):
            self._next[feed] = (moment, is_open)
            self._wake()

    def release(self, feed: object) -> None:
        """Let time pass as if a feed had nothing to tell."""
        self._next.pop(feed, None)
        self._wake()

    def is_first(self, feed: object) -> bool:
        """Say whether no other feed tells something before what this one holds."""
        return self._next[feed] == min(self._next.values())

    async def moved(self) -> None:
        """Wait until a feed holds something else."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def wait_s(self, moment: float) -> float:
        """Return how many real seconds a moment is away; none if it has come, or is nearer than timers can tell."""
        if self._real is None:
            return math.inf
        wait_s = (moment - self._due()) / self.speed
        return wait_s if wait_s > _TIMERS_S else 0.0

    def reach(self, moment: float) -> None:
        """Take it that a moment has come which is told now; what is told very late is not hurried for."""
        if self._real is not None and not 0 <= self._due() - moment <= MOST_BEHIND_S * self.speed:
            self._from, self._began_at = moment, self._real()
