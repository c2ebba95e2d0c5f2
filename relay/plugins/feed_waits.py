"""For how long a provider wants no new connections: what its feeds were told, and what another relay was."""

import asyncio
from collections.abc import Callable

from relay.core.errors import ProviderError, RateLimited
from relay.plugins.request_waits import RequestWait

_STEP_S = 0.001
"""A timer may be early by less; whoever waits until nothing is left would go round and round."""


class FeedWaits:
    """When the next feed of one provider may be opened; what is open already goes on, and so do requests."""

    def __init__(self) -> None:
        self.on_told: Callable[[float], None] | None = None
        """Hears for how long the provider itself asked to wait."""
        self._told: tuple[float, str] = (0.0, "")
        self._heard: tuple[float, str] = (0.0, "")

    def note(self, failure: ProviderError) -> None:
        """Take why a feed ended: a refusal by the provider itself holds for all that are opened here."""
        if not isinstance(failure, RateLimited) or not failure.by_provider:
            return
        until = asyncio.get_running_loop().time() + failure.retry_after
        self._told = max(self._told, (until, str(failure)))
        if self.on_told is not None and failure.retry_after > 0:
            self.on_told(failure.retry_after)

    def told_s(self) -> float:
        """Return for how long the provider itself asked to wait still, 0 if it did not."""
        return max(0.0, self._told[0] - asyncio.get_running_loop().time())

    def hear(self, seconds: float, why: str) -> None:
        """Take that no feed is to be opened for so long, because of what somebody else was told by the provider."""
        self._heard = (asyncio.get_running_loop().time() + seconds, why)

    def left(self) -> RequestWait | None:
        """Return the longer wait of both, None if there is none."""
        until, why = max(self._told, self._heard)
        left_s = until - asyncio.get_running_loop().time() if until else 0.0
        return RequestWait(max(left_s, _STEP_S), why) if left_s > 0 else None

    def forget(self) -> None:
        """Forget all: the settings are others."""
        self._told = self._heard = (0.0, "")
