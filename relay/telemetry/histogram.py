"""Numbers that are kept where things happen and read when somebody asks; counting costs an addition, no lock."""

from bisect import bisect_left
from collections.abc import Sequence

LAG_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WRITE_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Histogram:
    """Counts observations by size. `counts[i]` are those up to `bounds[i]`, the last one those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation. A negative one, which only a clock's mistake can be, counts as 0."""
        self.counts[bisect_left(self.bounds, value)] += 1
        if value > 0:
            self.total += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Return the size that so large a share of all observations stays below, to within a bucket; None of none.

        Above the largest bound there is nothing to tell sizes apart by: the answer is that bound.
        """
        rank = share * self.count
        if not self.count:
            return None
        lower, seen = 0.0, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and seen + count >= rank:
                return lower + (bound - lower) * max(0.0, rank - seen) / count
            lower, seen = bound, seen + count
        return self.bounds[-1]
