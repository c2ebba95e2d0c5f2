"""When a stream that its provider refused is tried again: ever more rarely, soon for a new subscriber; pure."""

import random
from math import inf

from relay.core.backoff import RetryBackoff

MOST_WAIT_S = 300.0
LEAST_BETWEEN_S = 5.0
"""So much lies between two tries at least, however many subscribers come."""


class RefusedStream:
    """One stream that was refused, from then until it delivers. Times are of the monotonic clock.

    `retry_at` is when it is tried next: infinite while that waits for a key. `received` is what it had received then.
    """

    __slots__ = ("_backoff", "_tried_at", "reason", "received", "retry_at")

    def __init__(self, rng: random.Random, received: int) -> None:
        self.received = received
        self.reason = ""
        self.retry_at = inf
        self._tried_at = -inf
        self._backoff = RetryBackoff(rng, most_s=MOST_WAIT_S)

    def note(self, reason: str, now: float) -> bool:
        """Take a refusal and plan the next try; return whether its reason is news."""
        is_news = reason != self.reason
        self.reason = reason
        self._tried_at = now
        self.retry_at = now + self._backoff.next_s()
        return is_news

    def wait_for_key(self) -> None:
        """Plan no try before `hurry` or `try_now`: the provider refused the relay itself."""
        self.retry_at = inf

    @property
    def waits_for_key(self) -> bool:
        """Whether only another key, or another try with this one, changes the answer."""
        return self.retry_at == inf

    def try_now(self, now: float) -> None:
        """Plan the next try for now."""
        self.retry_at = now

    def hurry(self, now: float) -> None:
        """Plan the next try for now, or as soon as it may be: somebody new wants the stream."""
        if not self.waits_for_key:
            self.retry_at = min(self.retry_at, max(now, self._tried_at + LEAST_BETWEEN_S))
