"""The ends of connections, so many in a turn of the event loop: thousands may end at once."""

import asyncio
from collections import deque
from collections.abc import Callable

MOST_A_TURN = 250
"""About 5 ms."""


class Leaving:
    """Does what ends connections, at once or in one of the next turns of the event loop, in order."""

    def __init__(self, most_a_turn: int = MOST_A_TURN) -> None:
        self._most = most_a_turn
        self._left = most_a_turn
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_planned = False

    def do(self, work: Callable[[], None]) -> None:
        """Do one piece of work now if there is room for it in this turn, else when its turn comes."""
        if not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._go_on)
        if self._left and not self._waiting:
            self._left -= 1
            work()
        else:
            self._waiting.append(work)

    def _go_on(self) -> None:
        self._left = self._most
        self._is_planned = bool(self._waiting)
        if self._is_planned:
            # First, so that the others have their turn whatever one of them does.
            asyncio.get_running_loop().call_soon(self._go_on)
        while self._left and self._waiting:
            self._left -= 1
            self._waiting.popleft()()
