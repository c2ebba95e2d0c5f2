"""Until when a provider, or its plugin, asked to wait with requests; told to operators, and kept to."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from relay.core.errors import RateLimited
from relay.telemetry.events import event

log = logging.getLogger(__name__)

LONG_S = 90.0
"""A wait for a budget of a minute is shorter; a longer one is a ban, or a day that is used up."""


class RequestWait(NamedTuple):
    """For how many seconds requests, or new connections, are refused still, and why."""

    left_s: float
    why: str


class RequestWaits:
    """What the hooks of one provider raised that asks to wait, by hook; an answer ends a wait."""

    def __init__(self, name: str) -> None:
        self.on_told: Callable[[float], None] | None = None
        """Hears for how long the provider itself asked to wait."""
        self._name = name
        self._until: dict[str, tuple[float, str]] = {}
        self._told_by: dict[str, float] = {}
        self._heard = (0.0, "")

    def note(self, hook: str, failure: RateLimited) -> None:
        """Take what a hook raised; a long wait is logged when it begins."""
        if failure.retry_after > LONG_S and self.of(hook) is None:
            log.warning(
                "%s takes no requests for %.0f s: %s",
                self._name,
                failure.retry_after,
                failure,
                extra=event("requests_refused", provider=self._name, hook=hook, wait_s=round(failure.retry_after, 1)),
            )
        until = asyncio.get_running_loop().time() + failure.retry_after
        self._until[hook] = (until, str(failure))
        if failure.by_provider:
            self._told_by[hook] = until
            if self.on_told is not None:
                self.on_told(failure.retry_after)

    def end(self, hook: str) -> None:
        """Note that a hook had an answer."""
        self._until.pop(hook, None)
        self._told_by.pop(hook, None)

    def told_s(self) -> float:
        """Return for how long the provider itself asked to wait still, 0 if it did not."""
        return max(0.0, max(self._told_by.values(), default=0.0) - asyncio.get_running_loop().time())

    def hear(self, seconds: float, why: str) -> None:
        """Take that no hook is to be called for so long, because of what somebody else was told by the provider."""
        self._heard = (asyncio.get_running_loop().time() + seconds, why)

    def heard(self) -> RequestWait | None:
        """Return that wait, None if there is none."""
        return self._left(*self._heard)

    def forget(self) -> None:
        """Forget all: the settings are others."""
        self._until.clear()
        self._told_by.clear()
        self._heard = (0.0, "")

    def of(self, hook: str) -> RequestWait | None:
        """Return the wait of a hook, None if it may be called."""
        return self._left(*self._until.get(hook, (0.0, "")))

    def longest(self) -> RequestWait | None:
        """Return the longest wait of all hooks, None if there is none."""
        return self._left(*max([*self._until.values(), self._heard]))

    def _left(self, until: float, why: str) -> RequestWait | None:
        # A wait of nothing is none, also on a clock that began at 0.
        left_s = until - asyncio.get_running_loop().time() if until else 0.0
        return RequestWait(left_s, why) if left_s > 0 else None
