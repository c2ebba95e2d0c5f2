"""Pasts that a provider is changing: for how long its history is not asked for them, since not all of it is new yet."""

from relay.core.clock import Clock
from relay.core.errors import RateLimited
from relay.core.past_change import PastChange
from relay.core.spans import Span

_MOST = 4096
_MOST_OF_SYMBOL = 16
_LEAST_S = 0.1


class Settling:
    """Changes that take a moment, by provider and symbol; the memory is bounded, the oldest is forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[tuple[str, str], list[tuple[PastChange, float]]] = {}

    def begin(self, provider: str, change: PastChange) -> None:
        """Have nothing asked of what changed for as long as it says."""
        identity = (provider, change.symbol)
        now = self._clock.monotonic()
        others = [one for one in self._of.pop(identity, []) if one[0][:4] != change[:4] and one[1] > now][
            -_MOST_OF_SYMBOL:
        ]
        if change.settle_s > 0:
            others.append((change, now + change.settle_s))
        if others:
            self._of[identity] = others
        while len(self._of) > _MOST:
            del self._of[next(iter(self._of))]

    def check(self, provider: str, symbol: str, interval: str, span: Span) -> None:
        """Raise `RateLimited` if a part of some open times is not to be asked for yet."""
        if not self._of:
            return
        now = self._clock.monotonic()
        waits = [
            until - now
            for change, until in self._of.get((provider, symbol), ())
            if until > now and change.concerns(interval) and _overlap(change.span(interval), span)
        ]
        if waits:
            raise RateLimited(f"the provider is changing the history of {symbol}", max(_LEAST_S, max(waits)))


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end
