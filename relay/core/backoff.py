"""How long to wait before the next attempt at what failed, ever longer; pure."""

import random

LEAST_WAIT_S = 1.0
MOST_WAIT_S = 30.0


class RetryBackoff:
    """Waits between attempts: doubling from `least_s` to `most_s`, with jitter, from the start after `reset`."""

    def __init__(self, rng: random.Random, *, least_s: float = LEAST_WAIT_S, most_s: float = MOST_WAIT_S) -> None:
        self._rng = rng
        self._least_s = least_s
        self._most_s = most_s
        self._attempt = 0

    def next_s(self) -> float:
        """Return how long to wait before the next attempt."""
        most = min(self._most_s, self._least_s * 2.0 ** (self._attempt + 1))
        self._attempt = min(self._attempt + 1, 30)
        return self._rng.uniform(max(self._least_s, most / 2), most)

    def reset(self) -> None:
        """Begin anew."""
        self._attempt = 0
