"""When a request may be sent: one after the other, each as long after the last one as that costs."""

import asyncio


class Turns:
    """Keeps `period_s` between requests, in the order in which they ask; one that costs more takes longer.

    It takes the place of ccxt's own throttle, which looks a thousand times a second whether it is time. Time counts
    from when a request goes on: if the event loop was busy, those that waited meanwhile do not come all at once.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._free_at = 0.0
        self._first = asyncio.Lock()

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for a turn."""
        return self._first.locked()

    async def acquire(self, cost: float | None = None) -> None:
        """Wait for the turn of a request, and use it up."""
        loop = asyncio.get_running_loop()
        async with self._first:
            # A request that did not wait may be charged meanwhile.
            while (wait_s := self._free_at - loop.time()) > 0:  # noqa: ASYNC110 - only time ends it
                await asyncio.sleep(wait_s)
            self.charge(cost)

    def charge(self, cost: float | None = None) -> None:
        """Have later requests wait for one that did not wait itself."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + (1.0 if cost is None else float(cost)) * self._period_s
