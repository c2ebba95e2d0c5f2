"""That a provider's past is another one than before, as after a split or a correction; pure."""

from typing import NamedTuple

from relay.core.intervals import INTERVALS, length_s
from relay.core.model import StreamKey
from relay.core.spans import FOREVER, Span

MOST_SETTLE_S = 3600.0
"""A provider's history may take so long to agree with itself."""
_HOUR_S, _DAY_S = 3600, 86_400


class PastChange(NamedTuple):
    """What a provider said of trading from `after` up to `before` is not valid any more; None: no bound.

    Both are in Unix seconds. It concerns the candles of the symbol of `key` that hold a part of that time, at all
    intervals, or with `one_interval` only at that of `key`. For `settle_s` seconds the provider's history is not asked
    for them, since a part of its servers may still have the old ones.
    """

    key: StreamKey
    before: int | None = None
    after: int | None = None
    one_interval: bool = False
    settle_s: float = 0.0

    @property
    def symbol(self) -> str:
        """The symbol that it concerns."""
        return self.key.symbol

    def concerns(self, interval: str) -> bool:
        """Say whether it is about candles of an interval."""
        return not self.one_interval or interval == self.key.interval

    def span(self, interval: str) -> Span:
        """Return the open times of the candles of an interval that hold a part of the time."""
        length = length_s(interval)
        if length > _HOUR_S:
            # Clocks of the provider's zone may be set back within it. A month may begin by another zone's day.
            length += _HOUR_S + (_DAY_S if interval == "1M" else 0)
        start = 0 if self.after is None else max(0, self.after - length + 1)
        return Span(start, FOREVER if self.before is None else self.before)

    def spans(self) -> dict[str, Span]:
        """Return what `span` does, for each interval that it concerns."""
        return {interval: self.span(interval) for interval in INTERVALS if self.concerns(interval)}

    def check(self) -> None:
        """Raise `TypeError` or `ValueError` if a value makes no sense."""
        key, before, after, one_interval, settle_s = self
        if not isinstance(key, StreamKey):
            raise TypeError(f"key is {key!r}, not a StreamKey")
        for name, moment in (("before", before), ("after", after)):
            if moment is not None and type(moment) is not int:
                raise TypeError(f"{name} is {moment!r}, not an open time in whole seconds or None")
        if before is not None and before <= (after or 0):
            raise ValueError(f"before is {before}, not later than {after or 0}")
        if not 0 <= settle_s <= MOST_SETTLE_S:
            raise ValueError(f"settle_s is {settle_s!r}, not a number of seconds from 0 to {MOST_SETTLE_S:.0f}")
        if one_interval and key.interval not in INTERVALS:
            raise ValueError(f"{key.interval!r} is none of the intervals {' '.join(INTERVALS)}")
