"""Tells a quiet market from a feed that went mute, from the rhythm of a stream's data alone; pure.

A socket that answers pings proves nothing, and a thin pair may say nothing for minutes. What counts is how long a
stream is silent compared with its own past.
"""

from enum import Enum

from relay.core.intervals import length_s

LEAST_PATIENCE_S = 20.0
"""No stream is called stale before it was silent for this long."""
UNKNOWN_PATIENCE_S = 60.0
"""Patience beyond one interval with a stream whose rhythm is not known yet."""
TIMES_USUAL = 4.0
DECAY = 0.98
KNOWN_AFTER = 5
"""Pauses that have to be seen before a rhythm counts as known."""
MOST_WARNINGS = 8


class Remedy(Enum):
    """What may help a silent stream."""

    RESUBSCRIBE = "resubscribe"
    REPLACE_FEED = "replace feed"


class Liveness:
    """Watches one stream. Call `tick` about once a second with a count that grows with every message received."""

    __slots__ = ("_count", "_seen", "_usual_s", "heard_at", "interval", "warnings")

    def __init__(self, interval: str, now: float) -> None:
        self.interval = interval
        self._count = 0
        self.heard_at = now
        self._usual_s = 0.0
        self._seen = 0
        self.warnings = 0

    def restart(self, now: float) -> None:
        """Begin to measure silence anew: a feed opened, or the market did."""
        self.heard_at = now

    @property
    def patience_s(self) -> float:
        """How long the stream may be silent: its usual longest pause some times over, once a few are known."""
        if self._seen < KNOWN_AFTER:
            return length_s(self.interval) + UNKNOWN_PATIENCE_S
        return max(LEAST_PATIENCE_S, TIMES_USUAL * self._usual_s)

    def tick(self, now: float, count: int) -> float | None:
        """Return how long the stream is silent beyond its patience, in seconds, or None while that is normal."""
        if count != self._count:
            pause = now - self.heard_at
            if self.warnings:
                # Nobody knows whether the market was quiet or the feed mute; learn so much that the same pause passes.
                pause = min(pause, self.patience_s) / TIMES_USUAL * 2
            self._usual_s = max(pause, self._usual_s * DECAY)
            self._seen += 1
            self._count = count
            self.heard_at = now
            self.warnings = 0
            return None
        over = now - self.heard_at - self.patience_s
        return over if over > 0 else None

    def warn(self, over_s: float) -> Remedy | None:
        """Take what `tick` returned; return what to try now, None while the last try may still help.

        The stream is subscribed anew first; then its feed is replaced, ever more rarely.
        """
        if not self.warnings:
            self.warnings = 1
            return Remedy.RESUBSCRIBE
        if over_s > self.patience_s * (2**self.warnings - 1):
            self.warnings = min(self.warnings + 1, MOST_WARNINGS)
            return Remedy.REPLACE_FEED
        return None
