"""Whether a venue answers requests: who may ask it while it does not, and who hears that it does again."""

import asyncio
from collections.abc import Callable

from relay.core.errors import ProviderError

FAILURES = 2
"""So many failures in a row, with no answer in between, are an outage."""
PAUSES_S = (1.0, 2.0, 4.0, 5.0)
"""In an outage one request is let through after so long each; the last one is what clients are told to wait."""


class Outage:
    """What the requests to one venue came to lately. `on_end` are called when it answers after an outage."""

    def __init__(self) -> None:
        self.on_end: list[Callable[[], None]] = []
        self._failures = 0
        self._failure: ProviderError | None = None
        self._asks_at = 0.0

    def refusal(self) -> ProviderError | None:
        """Return why the venue is not asked now, its last failure; None lets this request through, and others later."""
        if self._failures < FAILURES or self._failure is None:
            return None
        if asyncio.get_running_loop().time() < self._asks_at:
            return self._failure
        # Whether it comes back or not: the next one is let through later.
        self._pause()
        return None

    def note(self, failure: ProviderError) -> None:
        """Note that the venue did not answer, or said that it is broken."""
        self._failures += 1
        self._failure = failure
        self._pause()

    def end(self) -> None:
        """Note that the venue answered."""
        was_away = self._failures >= FAILURES
        self._failures, self._failure = 0, None
        if was_away:
            for tell in [*self.on_end]:
                tell()

    def _pause(self) -> None:
        place = min(max(0, self._failures - FAILURES), len(PAUSES_S) - 1)
        self._asks_at = asyncio.get_running_loop().time() + PAUSES_S[place]
