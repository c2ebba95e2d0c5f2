"""Whether a venue answers requests: who may ask it while it does not, and who hears that it does again."""

import asyncio
from collections.abc import Callable

from relay.core.errors import ProviderError

FAILURES = 2
"""So many failures in a row, with no answer in between, are an outage."""
PAUSES_S = (1.0, 2.0, 4.0, 5.0)
"""In an outage one request is let through after so long each; the last one is what clients are told to wait."""


class _FailuresInARow:
    """Failures in a row: the last one, how many, of which calls, and when somebody may ask again."""

    __slots__ = ("_asks_at", "_last", "calls", "count")

    def __init__(self) -> None:
        self.count = 0
        self.calls: set[str] = set()
        self._last: ProviderError | None = None
        self._asks_at = 0.0

    def add(self, call: str, failure: ProviderError) -> None:
        self.count += 1
        self.calls.add(call)
        self._last = failure
        self.pause()

    def refusal(self) -> ProviderError | None:
        return self._last if asyncio.get_running_loop().time() < self._asks_at else None

    def pause(self) -> None:
        if self.count >= FAILURES:
            place = min(self.count - FAILURES, len(PAUSES_S) - 1)
            self._asks_at = asyncio.get_running_loop().time() + PAUSES_S[place]


class Outage:
    """What the requests to one venue came to lately. `on_end` are called when it answers after an outage.

    If only one call fails, such as that for all tickers, this call alone is away: others are asked as ever. If a second
    one fails as well, and nothing was answered in between, the venue is.
    """

    def __init__(self) -> None:
        self.on_end: list[Callable[[], None]] = []
        self._venue = _FailuresInARow()
        self._calls: dict[str, _FailuresInARow] = {}

    def refusal(self, call: str) -> ProviderError | None:
        """Return why a call is not made now, the last failure; None lets this request through, and others later."""
        own, venue = self._calls.get(call), self._venue
        concerned = [own] if own is not None else []
        if len(venue.calls) > 1:
            concerned.append(venue)
        for failures in concerned:
            if (refusal := failures.refusal()) is not None:
                return refusal
        for failures in concerned:
            # Whether it comes back or not: the next one is let through later.
            failures.pause()
        return None

    def note(self, call: str, failure: ProviderError) -> None:
        """Note that the venue did not answer a call, or said that it is broken."""
        self._venue.add(call, failure)
        self._calls.setdefault(call, _FailuresInARow()).add(call, failure)

    def end(self, call: str) -> None:
        """Note that the venue answered a call."""
        was_away = self._venue.count >= FAILURES
        self._venue = _FailuresInARow()
        self._calls.pop(call, None)
        if was_away:
            for tell in [*self.on_end]:
                tell()
