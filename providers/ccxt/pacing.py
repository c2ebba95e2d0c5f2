"""When a request may be sent: one after the other, each as long after the last one as that costs."""

import asyncio


class Turns:
    """Keeps `period_s` between requests, in the order in which they ask; one that costs more takes longer.

    It takes the place of ccxt's own throttle, which looks a thousand times a second whether it is time.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._free_at = 0.0

    async def take(self, cost: float | None = None) -> None:
        """Wait for the turn of a request. One that is cancelled has used its turn up."""
        now = asyncio.get_running_loop().time()
        begins = max(now, self._free_at)
        self._free_at = begins + (1.0 if cost is None else float(cost)) * self._period_s
        if begins > now:
            await asyncio.sleep(begins - now)

    def charge(self, cost: float | None = None) -> None:
        """Have later requests wait for one that did not wait itself."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + (1.0 if cost is None else float(cost)) * self._period_s
