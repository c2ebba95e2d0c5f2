"""How many candles the requests of one client may hold while they are put together: the others wait in their order.

What is in memory as text costs next to nothing; a request for which a provider is asked holds each candle as a value,
a quarter of a kilobyte, from its first page to its last.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, suppress

MOST_ROWS = 200_000


class RowTurns:
    """Lets requests of a client begin as long as they want at most `most_rows` candles together."""

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._most_rows = most_rows
        self._held: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[tuple[int, asyncio.Future[None]]]] = {}

    @asynccontextmanager
    async def turn(self, client: Hashable, rows: int) -> AsyncIterator[None]:
        """Wait until there is room for so many candles, and hold it within the block."""
        rows = min(rows, self._most_rows)
        if client in self._waiting or self._held[client] + rows > self._most_rows:
            await self._wait(client, rows)
        else:
            self._held[client] += rows
        try:
            yield
        finally:
            self._give_back(client, rows)

    async def _wait(self, client: Hashable, rows: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(client, deque())
        queue.append((rows, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(client, rows)
            else:
                # Another one that left may have passed it over already.
                with suppress(ValueError):
                    queue.remove((rows, turn))
                self._wake(client)
            raise

    def _give_back(self, client: Hashable, rows: int) -> None:
        self._held[client] -= rows
        self._wake(client)

    def _wake(self, client: Hashable) -> None:
        """Let those begin for whom there is room."""
        queue = self._waiting.get(client, deque())
        while queue and self._held[client] + queue[0][0] <= self._most_rows:
            rows, turn = queue.popleft()
            if not turn.done():
                self._held[client] += rows
                turn.set_result(None)
        if not queue:
            self._waiting.pop(client, None)
            if not self._held[client]:
                del self._held[client]
