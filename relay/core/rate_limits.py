"""How much one client or one address may use; the clock may be passed in, and who asks is decided elsewhere."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

Clock = Callable[[], float]
Owner = TypeVar("Owner", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)

MOST_BUCKETS = 50_000
SWEEP_S = 10.0


class TokenBucket:
    """Allows `burst` at once and `rate` a second in the long run."""

    __slots__ = ("_at", "_burst", "_clock", "_level", "_rate")

    def __init__(self, rate: float, burst: float, clock: Clock | None = None) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._clock = clock or time.monotonic
        self._at = self._clock()

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now

    def try_acquire(self, units: float = 1) -> bool:
        """Use units, one unless told otherwise; return False, and use none, if there are not so many."""
        self._refill()
        if self._level < units:
            return False
        self._level -= units
        return True

    def spend(self, amount: float) -> None:
        """Use units whose number was not known before, also such that are not there: the debt is waited for later."""
        self._refill()
        self._level -= amount

    def give(self, units: float) -> None:
        """Allow so many units more now, but never more than `burst`."""
        self._refill()
        self._level = min(self._burst, self._level + units)

    def set_limit(self, rate: float, burst: float) -> None:
        """Allow another rate from now on; what was used stays used."""
        self._refill()
        self._level += burst - self._burst
        self._rate, self._burst = rate, burst

    @property
    def wait_s(self) -> float:
        """Seconds until there is a unit again; 0 when there is one."""
        self._refill()
        return max(0.0, (1 - self._level) / self._rate)

    @property
    def is_full(self) -> bool:
        """Say whether nothing of it is used, so that a new one would do as well."""
        self._refill()
        return self._level >= self._burst


class Buckets(Generic[Owner]):
    """A bucket for each owner that used something lately.

    Owners come from outside, so their number is bounded: full buckets are dropped every few seconds, and above `most`
    the one that was used longest ago goes.
    """

    def __init__(self, rate: float, burst: float, clock: Clock | None = None, *, most: int = MOST_BUCKETS) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock or time.monotonic
        self._most = most
        self._buckets: OrderedDict[Owner, TokenBucket] = OrderedDict()
        self._sweep_at = self._clock() + SWEEP_S

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, owner: Owner) -> TokenBucket:
        """Return an owner's bucket. Do not keep it: it may be dropped when it is full."""
        now = self._clock()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            for full in [one for one, bucket in self._buckets.items() if bucket.is_full]:
                del self._buckets[full]
        bucket = self._buckets.get(owner)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
            bucket = self._buckets[owner] = TokenBucket(self._rate, self._burst, self._clock)
        else:
            self._buckets.move_to_end(owner)
        return bucket

    def set_limit(self, rate: float, burst: float) -> None:
        """Allow another rate from now on, to those who used something as well."""
        self._rate, self._burst = rate, burst
        for bucket in self._buckets.values():
            bucket.set_limit(rate, burst)


class FairQuota(Generic[Owner, Key]):
    """Who had which of a bounded number of things opened, so that nobody takes all of them.

    An owner may open one more while it holds no more than are free. Below half of all nobody notices: what one holds is
    less than what is free. A single owner ends at half. Each that comes later ends at half of what is left: however
    many greedy ones came first, there is something left for the next. What somebody else opened costs nothing.
    """

    def __init__(self) -> None:
        self._owners: dict[Key, Owner] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def may_open(self, owner: Owner, existing: Collection[Key], most: int) -> bool:
        """Say whether an owner may open one more, beside those that exist, of `most`."""
        free = most - len(existing)
        if len(existing) <= free:
            return True
        self._forget_others(existing)
        return 0 < free >= sum(one == owner for one in self._owners.values())

    def opened(self, key: Key, owner: Owner, existing: Collection[Key]) -> None:
        """Remember who opened a new thing."""
        if len(self._owners) > 2 * len(existing) + 100:
            self._forget_others(existing)
        self._owners[key] = owner

    def _forget_others(self, existing: Collection[Key]) -> None:
        for key in [key for key in self._owners if key not in existing]:
            del self._owners[key]
