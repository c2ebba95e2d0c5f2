"""A clock of the sandbox that a test can wait for and move on."""

import asyncio

from providers.sandbox.clock import SandboxClock


class StagedClock(SandboxClock):
    """The exchange's time, as the test wants it."""

    def jump(self, seconds: float) -> None:
        """Move the exchange's time by so many seconds at once; sleepers notice only when they wake."""
        self._origin += seconds

    async def sleep_until(self, moment: float) -> None:
        """Wait until the exchange's time has reached `moment`; at least one turn of the loop."""
        await asyncio.sleep(self.real_seconds_until(moment))
        while (left := self.real_seconds_until(moment)) > 0:  # noqa: ASYNC110  timers may fire a little early
            await asyncio.sleep(left)
