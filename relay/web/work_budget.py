"""How much all clients together have done for them in one round of the event loop, so that prices come in between."""

import asyncio
from collections import deque

PIECES = 16
"""Requests, or further streams that are named in one: a millisecond or two of work."""


class WorkBudget:
    """Lets so many pieces of work begin in each round, in the order in which they were asked for."""

    def __init__(self, most: int = PIECES) -> None:
        self._most = most
        self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_planned = False

    def try_acquire(self) -> bool:
        """Begin one piece of work at once; return False, and begin none, where that has to wait."""
        if not self._left or self._waiting:
            return False
        self._left -= 1
        if not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._begin)
        return True

    async def acquire(self) -> None:
        """Begin one piece of work: at once, or when those that wait have had their turn."""
        if not self.try_acquire():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def _begin(self) -> None:
        """Begin a round: wake those whose turn it is."""
        self._left = self._most
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            # Who was cancelled meanwhile has no need of it.
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
        self._is_planned = self._left < self._most
        if self._is_planned:
            asyncio.get_running_loop().call_soon(self._begin)
