"""The part of a plan's credits that is one relay's while others spend of them that it cannot see; pure."""

import math
from collections.abc import Mapping

WHOLE = 1
"""Parts, our own way to say that it is all."""


class Portion:
    """One of `parts` equal parts: of what was left of each day when they were made, and of each minute."""

    def __init__(self) -> None:
        self.parts = self._parts_before = WHOLE
        self.larger_from = -math.inf
        """When this relay's part of a minute grows: the others may have spent of the minute before."""
        self._left: Mapping[int, int] = {}
        self._spent: dict[int, int] = {}

    def divide(self, parts: int, left: Mapping[int, int], larger_from: float) -> None:
        """Take one of so many parts of what is `left` of each day; of a minute a larger part than before only then."""
        if parts < self.parts:
            self._parts_before, self.larger_from = self.parts, larger_from
        elif parts > self.parts:
            self.larger_from = -math.inf
        self.parts = parts
        self._left = {day: max(0, count) // parts for day, count in left.items()}
        self._spent = {}

    def charge(self, count: int, days: tuple[int, int]) -> None:
        """Count credits that this relay spends, of each day that it may be."""
        for day in set(days):
            self._spent[day] = self._spent.get(day, 0) + count
        for day in [day for day in self._spent if day < days[0]]:
            del self._spent[day]

    def of_minute(self, per_minute: int, moment: float) -> int:
        """Return this relay's credits of the minute at a moment: one at least, or it would never ask."""
        return max(1, per_minute // (self.parts if moment >= self.larger_from else self._parts_before))

    def left_of_day(self, day: int, per_day: int) -> int:
        """Return how many of a day's credits are left to this relay."""
        if self.parts == WHOLE:
            return per_day
        return max(0, self._left.get(day, max(1, per_day // self.parts)) - self._spent.get(day, 0))
