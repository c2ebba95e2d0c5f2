"""How many of a plan's credits may be spent now, a minute and a day, and by whom; pure: the clocks are passed in."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from providers.twelve_data.credit_memory import remembered
from providers.twelve_data.portion import WHOLE, Portion
from providers.twelve_data.stated import StatedSpan, stated_limit
from relay import Budget, RateLimited

WINDOW_S = 61.0
"""A minute, in which credits are counted (support article 5615854: by the clock), and a second of our choice."""
SKEW_S = 120.0
"""Our choice: so far the server's midnight may be from ours, before an answer has said what time it is there."""
DAY_SKEW_S = 5.0
"""Our choice: so far the server's midnight may be from what its answers' headers say."""
MINUTE_SKEW_S = 2.0
"""Our choice: so far its minute may be from what the headers say, which have no fractions of seconds."""
DAY_S = 86_400
"""Credits of a day are counted until midnight UTC: support article 5615854."""
_UNLIMITED = 1 << 40
"""Our choice: more than any plan has."""
_FOREIGN_S = 2 * WINDOW_S
"""Our choice: what other programs spent in one minute they may spend in the next."""
_PROMISE_S = 120.0
"""Our choice: so long credits stay promised to polls."""
MOST_PAUSE_S = 900.0
"""Our choice. The longest pause after refusals that do not say how long to wait: it doubles with each one in a row."""


class CreditUse(Enum):
    """What credits are spent on: each use leaves the other one its share."""

    POLL = "poll"
    HISTORY = "history"


class Spent:
    """Credits of one call: they count until the server's minute of its answer is over, or as long as there is none."""

    __slots__ = ("answered", "count", "use")

    def __init__(self, count: int, use: CreditUse | None = None, answered: float | None = None) -> None:
        self.count = count
        self.use = use
        self.answered = answered


class _Seen(NamedTuple):
    # At a moment the server counted so many used in its minute; `answered` of our own were answered until then.
    # Where it said how long to wait it holds `until` then at least.
    at: float
    used: int
    answered: int
    until: float = -math.inf


class Credits:
    """Credits of a clock minute and a UTC day, never more than the plan has, whatever the server's clock says.

    The server counts in minutes of its own clock. Any such minute lies within a window that slides along with ours,
    so at most `per_minute` in any window is at most that in any of its minutes; where the server's clock is known, a
    credit also comes back when its minute is surely over. Near midnight a credit is charged to both days. What other
    programs spend with the same key shows in the answers' headers and is charged too.

    Polls leave history a quarter of the minute and a tenth of the day, or what is left of that; history leaves polls
    as much of a minute, and of the day what was promised to them. `per_day` 0 means that the plan is taken to have no
    such limit, until the server states one. What the server says is spent is spent, whatever the configuration allows.

    While others spend of the same credits that cannot be asked, `divide` leaves each its part.
    """

    def __init__(
        self,
        per_minute: int,
        per_day: int,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        knows_time: Callable[[], bool] = lambda: False,
    ) -> None:
        self.per_minute = self._told_per_minute = per_minute
        self.per_day = self._told_per_day = per_day
        self._wall = wall
        self._monotonic = monotonic
        self._knows_time = knows_time
        self._spent: list[Spent] = []
        self._taken = self._answered = 0
        self._seen: deque[_Seen] = deque()
        self._foreign: deque[tuple[float, int]] = deque()
        self._foreign_minute = (0, 0)
        self._days: dict[int, int] = {}
        self._history_days: dict[int, int] = {}
        self._promised = (0, -math.inf)
        # The last day that the server said was used up, and how often in a row it refused without saying why.
        self._spent_day = -1
        self._unclear = 0
        self.foreign_total = 0
        self._portion = Portion()

    def available(self, use: CreditUse) -> int:
        """Return how many may be spent now on this use."""
        now = self._monotonic()
        minute = self._left_of_minute(now, now) - self._kept_in_minute(use, now)
        return max(0, min(minute, self.left_today(use)))

    def divide(self, parts: int) -> None:
        """Spend one of so many equal parts of what is left, until it is divided otherwise; 1 is all of it."""
        if parts != self._portion.parts:
            self._divide(parts)

    def _divide(self, parts: int) -> None:
        left = {day: self.per_day - self._days.get(day, 0) for day in self._today()} if self.per_day else {}
        self._portion.divide(parts, left, self._monotonic() + WINDOW_S)

    def spend(self, count: int, use: CreditUse) -> Spent:
        """Spend credits on one call; give the result to `settle` when it was answered or failed.

        Raises `RateLimited` and spends nothing when there are not enough.
        """
        if count > self.available(use):
            raise self.shortage(count, use)
        spent = Spent(count, use)
        self._spent.append(spent)
        self._taken += count
        self._portion.charge(count, self._today())
        self._charge_day(count, use)
        return spent

    def settle(self, spent: Spent, used: int | None = None, left: int | None = None) -> None:
        """Note that a call has ended, with the server's count for its present minute where the answer gave it."""
        now = self._monotonic()
        spent.answered = now
        self._answered += spent.count
        if used is None:
            return
        if left is not None and left > 0:
            # The plan may be smaller than configured; a larger one is not made use of.
            self.per_minute = max(1, min(self._told_per_minute, used + left))
        self._note_foreign(used, now)
        self._seen.append(_Seen(now, used, self._answered))

    def _note_foreign(self, used: int, now: float) -> None:
        """Find what others spent in the server's minute: more than ours of that minute can be."""
        wall = self._wall()
        since = now - (wall % 60 + DAY_SKEW_S if self._knows_time() else WINDOW_S)
        own = sum(spent.count for spent in self._spent if spent.answered is None or spent.answered >= since)
        others = used - own
        if others <= 0:
            return
        minute = int(wall // 60)
        known = self._foreign_minute[1] if self._foreign_minute[0] == minute else 0
        if others > known:
            self._foreign_minute = (minute, others)
            self.foreign_total += others - known
            self._charge_day(others - known)
        self._foreign.append((now, others))

    def reconfigure(self, per_minute: int, per_day: int) -> None:
        """Go on with other limits of the configuration, and let the server say anew what it has of the day."""
        self.per_minute = self._told_per_minute = per_minute
        self.per_day = self._told_per_day = per_day
        self._spent_day = -1
        if self._portion.parts != WHOLE:
            self._divide(self._portion.parts)

    def refuse(self, message: str, wait_s: float | None = None) -> None:
        """Believe a refusal: which limit is spent and how large it is, where its words say so, and how long to wait.

        A day is spent until midnight UTC, a minute until its end, both for `wait_s` at least. Where nothing tells how
        long, the pause begins with a minute and doubles with each such refusal in a row, up to `MOST_PAUSE_S`.
        """
        stated = stated_limit(message)
        is_day = stated.span is StatedSpan.DAY
        if stated.limit is not None:
            self._lower(None if is_day else stated.limit, stated.limit if is_day else None)
        if stated.span is None and wait_s is None:
            wait_s = min(MOST_PAUSE_S, WINDOW_S * 2.0**self._unclear)
            self._unclear += 1
        if is_day:
            self.exhaust_day()
        if not is_day or wait_s is not None:
            self.exhaust_minute(wait_s or 0.0)

    def relent(self) -> None:
        """Note that a call was not refused."""
        self._unclear = 0

    def exhaust_minute(self, at_least_s: float = 0.0) -> None:
        """Believe the server that the minute's credits are gone, and for how long if it said so."""
        now = self._monotonic()
        used = max(self.per_minute, self._told_per_minute)
        self._seen.append(_Seen(now, used, self._answered, now + at_least_s))

    def exhaust_day(self) -> None:
        """Believe the server that the day's credits are gone."""
        self._spent_day = max(self._spent_day, self._today()[0])

    def promise(self, count: int) -> None:
        """Keep so many of the day's credits for polls: history leaves them alone. Holds for two minutes."""
        self._promised = (count, self._monotonic())

    def correct(self, used_today: int, per_minute: int | None, per_day: int | None) -> None:
        """Take what the server says about the account: its count of today, and a plan smaller than configured."""
        today = self._today()[0]
        self._days[today] = max(self._days.get(today, 0), used_today)
        self._lower(per_minute, per_day)

    def _lower(self, per_minute: int | None, per_day: int | None) -> None:
        """Take limits that the server states where they are below those of the configuration."""
        if per_minute is not None and per_minute > 0:
            self.per_minute = min(self._told_per_minute, per_minute)
        if per_day is not None and per_day > 0:
            self.per_day = min(self._told_per_day or per_day, per_day)

    # -- what is left ------------------------------------------------------------------------------

    @property
    def is_day_limited(self) -> bool:
        """Whether there is a limit a day: one is known, or the server said that the day's credits are gone."""
        return self.per_day > 0 or self._is_day_spent()

    def _is_day_spent(self) -> bool:
        return self._spent_day >= self._today()[0]

    def left_today(self, use: CreditUse | None = None) -> int:
        """Return how many of the day's credits may still be spent on a use, or by everybody."""
        if self._is_day_spent():
            return 0
        if not self.per_day:
            return _UNLIMITED
        own = min(self._portion.left_of_day(day, self.per_day) for day in self._today())
        return max(0, min(own, self._left_of_all()) - self._kept_today(use))

    def _left_of_all(self) -> int:
        return max(0, self.per_day - max(self._days.get(day, 0) for day in self._today()))

    def day_ends_in(self) -> float:
        """Return the seconds until the day's credits are back."""
        wall, skew_s = self._wall(), self._skew_s()
        return ((wall - skew_s) // DAY_S + 1) * DAY_S + skew_s - wall

    def _kept_today(self, use: CreditUse | None) -> int:
        if use is CreditUse.POLL:
            return max(
                0,
                self.per_day // self._portion.parts // 10
                - max(self._history_days.get(day, 0) for day in self._today()),
            )
        if use is CreditUse.HISTORY and self._monotonic() - self._promised[1] < _PROMISE_S:
            return self._promised[0]
        return 0

    def _kept_in_minute(self, use: CreditUse, now: float) -> int:
        kept = self._portion.of_minute(self.per_minute, now) // 4
        if use is CreditUse.HISTORY and now - self._promised[1] >= _PROMISE_S:
            # Nothing is polled.
            return 0
        other = sum(
            spent.count
            for spent in self._spent
            if spent.use is not use and spent.use is not None and self._frees_at(spent, now) > now
        )
        return max(0, kept - other)

    def _frees_at(self, spent: Spent, now: float) -> float:
        return now + WINDOW_S if spent.answered is None else self._minute_over(spent.answered)

    def _minute_over(self, moment: float) -> float:
        """Return when the server's minute that a moment lies in is over."""
        if not self._knows_time():
            return moment + WINDOW_S
        offset = self._wall() - self._monotonic()
        minute_ends = ((moment + offset + MINUTE_SKEW_S) // 60 + 1) * 60
        return min(moment + WINDOW_S, minute_ends + MINUTE_SKEW_S - offset)

    def _seen_over(self, seen: _Seen) -> float:
        return max(self._minute_over(seen.at), seen.until)

    def _left_of_minute(self, moment: float, now: float) -> int:
        """Return how many of a minute's credits are left to this relay at a moment: of its part, and of all."""
        own = self._portion.of_minute(self.per_minute, moment) - self._own_at(moment, now)
        return min(own, self.per_minute - self._used_at(moment))

    def _own_at(self, moment: float, now: float) -> int:
        return sum(spent.count for spent in self._live(now) if self._frees_at(spent, now) > moment)

    def _used_at(self, moment: float) -> int:
        """Return how many of a minute's credits count as used at a moment, if nothing is spent until then."""
        now = self._monotonic()
        own = self._own_at(moment, now)
        # Not all of it, or two relays with one key would both stand still.
        foreign = max((count for at, count in self._foreign if at + _FOREIGN_S > moment), default=0)
        foreign = min(foreign, self.per_minute // 2)
        # What was under way at that time may be in the server's count or not: it counts twice, to be safe.
        seen = max(
            (seen.used + self._taken - seen.answered for seen in self._seen if self._seen_over(seen) > moment),
            default=0,
        )
        return max(own + foreign, seen)

    def _live(self, now: float) -> list[Spent]:
        self._spent = [spent for spent in self._spent if self._frees_at(spent, now) > now]
        while self._seen and self._seen_over(self._seen[0]) <= now:
            self._seen.popleft()
        while self._foreign and self._foreign[0][0] + _FOREIGN_S <= now:
            self._foreign.popleft()
        return self._spent

    def _today(self) -> tuple[int, int]:
        """Return the UTC days that the server may be in."""
        wall, skew_s = self._wall(), self._skew_s()
        return int((wall - skew_s) // DAY_S), int((wall + skew_s) // DAY_S)

    def _skew_s(self) -> float:
        return DAY_SKEW_S if self._knows_time() else SKEW_S

    def _charge_day(self, count: int, use: CreditUse | None = None) -> None:
        days = self._today()
        for day in set(days):
            self._days[day] = self._days.get(day, 0) + count
            if use is CreditUse.HISTORY:
                self._history_days[day] = self._history_days.get(day, 0) + count
        for table in (self._days, self._history_days):
            for day in [day for day in table if day < days[0]]:
                del table[day]

    def wait_for(self, count: int, use: CreditUse) -> float:
        """Return the seconds until so many may be spent in one call, 0 for now."""
        if count > self.left_today():
            return self.day_ends_in()
        if count > self.left_today(use):
            if use is CreditUse.POLL:
                return self.day_ends_in()
            # What is promised to polls shrinks with the rest of the day.
            return self.day_ends_in() * (1 - self.left_today() / (self._promised[0] + count))
        now = self._monotonic()
        kept = self._kept_in_minute(use, now)
        # A call that needs more than there can be waits until nothing is used.
        lacks = max(0, count - self._portion.of_minute(self.per_minute, now) + kept)
        moments = {now, *(self._frees_at(spent, now) for spent in self._live(now))}
        moments |= {self._seen_over(seen) for seen in self._seen} | {at + _FOREIGN_S for at, _ in self._foreign}
        moments.add(max(now, self._portion.larger_from))
        left = ((at, self._left_of_minute(at, now) - kept + lacks) for at in sorted(moments))
        return next((at - now for at, room in left if room >= count), _FOREIGN_S)

    def shortage(self, count: int, use: CreditUse) -> RateLimited:
        """Build the error that says which limit is used up, and for how long."""
        if count > self.left_today():
            text = f"the {self.per_day or ''} credits of this day are used up".replace("  ", " ")
        elif count > self.left_today(use):
            kept = "history" if use is CreditUse.POLL else "live streams"
            text = f"the rest of this day's {self.per_day} credits is reserved for {kept}"
        elif any(seen.until > self._monotonic() for seen in self._seen):
            text = "the provider asks to wait"
        else:
            text = f"the {self.per_minute} credits of this minute are used up"
        return RateLimited(text, self.wait_for(count, use))

    def budgets(self) -> tuple[Budget, ...]:
        """Say how much is used of the minute's and the day's credits, and how much is kept for history."""
        wall, now = self._wall(), self._monotonic()
        frees = max((self._frees_at(spent, now) for spent in self._live(now)), default=now)
        spent = min(self.per_minute, self._used_at(now))
        # What is not of this relay's part is kept from its polls, too.
        others = self.per_minute - self._portion.of_minute(self.per_minute, now)
        kept = min(self.per_minute - spent, self._kept_in_minute(CreditUse.POLL, now) + others)
        minute = Budget("credits a minute", self.per_minute, spent, wall + frees - now, reserved=kept)
        if not self.is_day_limited:
            return (minute,)
        # Where no limit is known but the day is spent, it is as much as was used.
        limit = self.per_day or max(1, *(self._days.get(day, 0) for day in self._today()))
        used = limit - (0 if self._is_day_spent() else self._left_of_all())
        kept = min(limit - used, self._kept_today(CreditUse.POLL) + limit - used - self.left_today())
        return (minute, Budget("credits a day", limit, used, wall + self.day_ends_in(), reserved=kept))

    # -- over restarts -----------------------------------------------------------------------------

    def state(self, wall: float) -> dict[str, Any]:
        """Return what has to be known after a restart, as JSON; `wall` is this machine's own clock."""
        now = self._monotonic()
        spent = [
            [each.count, None if each.answered is None else wall - (now - each.answered)] for each in self._live(now)
        ]
        used = self._used_at(now) - sum(each.count for each in self._spent)
        held_s = max((seen.until - now for seen in self._seen), default=0.0)
        return {
            "at": wall,
            "spent": spent if used <= 0 else [*spent, [used, wall]],
            "plan": self._plan(),
            "spent_day": self._spent_day,
            "held_s": max(0.0, held_s),
            "days": {str(day): count for day, count in self._days.items()},
            "history": {str(day): count for day, count in self._history_days.items()},
        }

    def restore(self, state: Mapping[str, Any], wall: float) -> None:
        """Go on where an earlier run ended, as `state` described it. Raises `ValueError` when that makes no sense."""
        before = remembered(state, wall, WINDOW_S)
        now = self._monotonic()
        # What this run spent is in the state, but for what is under way.
        under_way = [each for each in self._spent if each.answered is None]
        self._spent = [*under_way, *(Spent(count, None, now - ago_s) for count, ago_s in before.spent)]
        self._days, self._history_days = before.days, before.history
        # With another plan in the configuration the server is asked what it says now.
        if state.get("plan") == self._plan():
            self._spent_day = before.spent_day
        if before.held_s > 0:
            self.exhaust_minute(before.held_s)

    def _plan(self) -> list[int]:
        return [self._told_per_minute, self._told_per_day]
