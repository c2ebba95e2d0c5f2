"""Which streams the other relays want of one provider; pure, the time is passed in."""

from collections.abc import Iterable
from typing import NamedTuple

from relay.core.model import StreamKey

LASTS_S = 15.0
"""A wish that is not said again lapses."""
MOST_KEYS = 100_000
"""Streams that all others want together: as many as a relay may be set to serve."""
MOST_WISHERS = 256


class _Wisher(NamedTuple):
    until: dict[StreamKey, float]


class Wishes:
    """What others want, until they say otherwise, or nothing for a while; `version` grows with each change."""

    def __init__(self) -> None:
        self.version = 0
        self._wishers: dict[str, _Wisher] = {}
        self._count: dict[StreamKey, int] = {}

    def __contains__(self, key: StreamKey) -> bool:
        return key in self._count

    @property
    def keys(self) -> Iterable[StreamKey]:
        """All streams that somebody else wants."""
        return self._count.keys()

    def hear(self, id_: str, wanted: Iterable[StreamKey], unwanted: Iterable[StreamKey], now: float) -> None:
        """Take what a relay wants from now on, and what no more."""
        wisher = self._wishers.get(id_)
        if wisher is None:
            if len(self._wishers) >= MOST_WISHERS:
                return
            wisher = self._wishers[id_] = _Wisher({})
        for key in unwanted:
            self._drop(wisher, key)
        for key in wanted:
            if key not in wisher.until:
                if len(self._count) >= MOST_KEYS:
                    continue
                self._count[key] = self._count.get(key, 0) + 1
                self.version += 1
            wisher.until[key] = now + LASTS_S

    def forget(self, id_: str) -> None:
        """Take it that a relay is gone for good."""
        wisher = self._wishers.pop(id_, None)
        if wisher is not None:
            for key in [*wisher.until]:
                self._drop(wisher, key)

    def expire(self, now: float) -> None:
        """Drop what was not said again."""
        for id_, wisher in [*self._wishers.items()]:
            for key, until in [*wisher.until.items()]:
                if until <= now:
                    self._drop(wisher, key)
            if not wisher.until:
                del self._wishers[id_]

    def _drop(self, wisher: _Wisher, key: StreamKey) -> None:
        if wisher.until.pop(key, None) is not None:
            self.version += 1
            self._count[key] -= 1
            if not self._count[key]:
                del self._count[key]
