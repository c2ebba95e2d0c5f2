"""How long to wait before another try."""

import random
from typing import NamedTuple


class Backoff(NamedTuple):
    """Waits between `least_s` and a bound that doubles with each failure up to `most_s`, spread by `jitter`."""

    least_s: float
    most_s: float
    jitter: random.Random

    def wait_s(self, failures: int) -> float:
        """Return the wait after so many failures before this one."""
        bound_s = min(self.most_s, self.least_s * 2.0 ** min(failures + 1, 16))
        return self.jitter.uniform(self.least_s, bound_s)
