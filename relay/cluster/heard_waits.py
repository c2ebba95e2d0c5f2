"""For how long a relay believes others that a provider asked them to wait; pure.

Anybody who may write to the bus can say so. What is believed is bounded: at once, and in the long run.
"""

MOST_S = 300.0
PART = 1 / 12
"""So much of the time is believed in the long run; beyond, a relay asks the provider itself, and is refused by it."""


class HeardWaits:
    """The waits that others told of one provider; the time is passed in."""

    def __init__(self, now: float) -> None:
        self._until = now
        self._left_s = MOST_S
        self._reckoned_at = now

    def hear(self, said_s: float, now: float) -> float:
        """Take that others have to wait for so long; return for how long this relay does, 0 if that is not news."""
        self._left_s = min(MOST_S, self._left_s + PART * (now - self._reckoned_at))
        self._reckoned_at = now
        begin = max(now, self._until)
        more_s = min(now + said_s - begin, self._left_s)
        if more_s <= 0:
            return 0.0
        self._left_s -= more_s
        self._until = begin + more_s
        return self._until - now
