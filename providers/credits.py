"""How many of a plan's credits may be spent now, a minute and a day; pure: the clocks are passed in."""

from collections.abc import Callable

from relay import Budget, RateLimited

WINDOW_S = 61.0
SKEW_S = 120.0
_DAY_S = 86_400


class Spent:
    """Credits of one call: they count until `WINDOW_S` after its answer, and for as long as there is none."""

    __slots__ = ("answered", "count")

    def __init__(self, count: int, answered: float | None = None) -> None:
        self.count = count
        self.answered = answered


class Credits:
    """Credits of a clock minute and a UTC day, never more than the plan has, whatever the server's clock says.

    The server counts in minutes of its own clock. Any such minute lies within a window that slides along with ours,
    so at most `per_minute` in any window is at most that in any of its minutes. Near midnight a credit is charged to
    both days. What other programs spend with the same key shows in the answers' headers and is charged too.
    """

    def __init__(
        self, per_minute: int, per_day: int, *, wall: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self.per_minute = per_minute
        self.per_day = per_day
        self._wall = wall
        self._monotonic = monotonic
        self._spent: list[Spent] = []
        self._days: dict[int, int] = {}

    def available(self, reserve: int = 0) -> int:
        """Return how many may be spent now, when `reserve` of the minute's are to be left for others."""
        return max(0, min(self.per_minute - reserve - self._in_window(), self._left_today()))

    def take(self, count: int, reserve: int = 0) -> Spent:
        """Spend credits on one call; give the result to `settle` when it was answered or failed.

        Raises `RateLimited` and spends nothing when there are not enough.
        """
        if count > self.available(reserve):
            raise self.shortage(count, reserve)
        spent = Spent(count)
        self._spent.append(spent)
        self._charge_day(count)
        return spent

    def settle(self, spent: Spent, used: int | None = None, left: int | None = None) -> None:
        """Note that a call has ended, with the server's count for its present minute where the answer gave it."""
        now = self._monotonic()
        spent.answered = now
        if used is not None and (others := used - self._in_window()) > 0:
            self._spent.append(Spent(others, now))
            self._charge_day(others)
        if left is not None and (missing := self.per_minute - self._in_window() - left) > 0:
            # The plan is smaller than configured: what it lacks was not spent, so the day is not charged.
            self._spent.append(Spent(missing, now))

    def exhaust_minute(self) -> None:
        """Believe the server that the minute's credits are gone."""
        if (rest := self.per_minute - self._in_window()) > 0:
            self._spent.append(Spent(rest, self._monotonic()))

    def exhaust_day(self) -> None:
        """Believe the server that the day's credits are gone."""
        self._days[self._today()[0]] = self.per_day

    def wait_for(self, count: int, reserve: int = 0) -> float:
        """Return the seconds until so many may be spent in one call, 0 for now."""
        if count > self._left_today():
            return self._day_ends_in()
        return self.waits(count, reserve)[-1]

    def waits(self, count: int, reserve: int = 0) -> list[float]:
        """Return the seconds until each of the next `count` credits may be spent, if they are spent as they come."""
        now = self._monotonic()
        slots = max(1, self.per_minute - reserve)
        frees = sorted(
            WINDOW_S if spent.answered is None else spent.answered + WINDOW_S - now
            for spent in self._live(now)
            for _ in range(spent.count)
        )
        # When more is under way than this caller may use, its first slot is free once only slots - 1 others are left.
        frees = [0.0] * (slots - len(frees)) + frees[-slots:]
        today = self._left_today()
        tomorrow = self._day_ends_in()
        rounds = (divmod(place, slots) for place in range(count))
        return [
            frees[slot] + number * WINDOW_S if number * slots + slot < today else tomorrow for number, slot in rounds
        ]

    def shortage(self, count: int = 1, reserve: int = 0) -> RateLimited:
        """Build the error that says which limit is used up, and for how long."""
        if count > self._left_today():
            text = f"the {self.per_day} credits of this day are used up"
        else:
            text = f"the {self.per_minute} credits of this minute are used up"
        return RateLimited(text, self.wait_for(count, reserve))

    def budgets(self) -> tuple[Budget, Budget]:
        """Say how much is used of the minute's and the day's credits."""
        wall, now = self._wall(), self._monotonic()
        live = self._live(now)
        newest = max((now if spent.answered is None else spent.answered for spent in live), default=now - WINDOW_S)
        used = min(self.per_minute, self._in_window())
        return (
            Budget("credits a minute", self.per_minute, used, wall + newest + WINDOW_S - now),
            Budget("credits a day", self.per_day, self.per_day - self._left_today(), wall + self._day_ends_in()),
        )

    def _live(self, now: float) -> list[Spent]:
        self._spent = [spent for spent in self._spent if spent.answered is None or spent.answered + WINDOW_S > now]
        return self._spent

    def _in_window(self) -> int:
        return sum(spent.count for spent in self._live(self._monotonic()))

    def _today(self) -> tuple[int, int]:
        """Return the UTC days that the server may be in."""
        wall = self._wall()
        return int((wall - SKEW_S) // _DAY_S), int((wall + SKEW_S) // _DAY_S)

    def _charge_day(self, count: int) -> None:
        days = self._today()
        for day in set(days):
            self._days[day] = self._days.get(day, 0) + count
        self._days = {day: used for day, used in self._days.items() if day >= days[0]}

    def _left_today(self) -> int:
        return max(0, self.per_day - max(self._days.get(day, 0) for day in self._today()))

    def _day_ends_in(self) -> float:
        wall = self._wall()
        return ((wall - SKEW_S) // _DAY_S + 1) * _DAY_S + SKEW_S - wall
