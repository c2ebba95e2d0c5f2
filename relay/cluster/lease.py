"""The lease of one shard: when to take, renew, ask for and give it up; pure, the time is passed in.

A lease is a value in a bucket whose values vanish `ttl_s` after they were written. Only one relay can write it: taking
succeeds where there is none, renewing where the revision is the one of before.
"""

import math
from enum import Enum
from typing import NamedTuple


class LeaseTiming(NamedTuple):
    """Seconds of leases; the same in all relays, but for tests."""

    ttl_s: float = 2.0
    """Without renewal the bucket forgets a lease after this."""
    renew_s: float = 0.5
    fence_s: float = 1.5
    """An owner trusts its lease for so long after it asked for the last renewal: less than the bucket keeps it."""
    wait_s: float = 0.3
    """Who is not the favourite leaves it so much time to take a lease that is free."""
    settle_s: float = 3.0
    """A relay asks for the shards of which it is the favourite this long after it first wanted to."""
    ask_s: float = 1.0
    yield_s: float = 2.0
    """Who handed a lease over does not take it back within this."""


LEASE_TIMING = LeaseTiming()


class Move(Enum):
    """What to do about a lease now."""

    NOTHING = "nothing"
    TAKE = "take"
    RENEW = "renew"
    ASK = "ask"


class LeaseView(NamedTuple):
    """What a relay sees of a shard: who claims to have it, and who is the favourite among those that could; by id."""

    claimed_by: str | None
    favourite: str | None


class Lease:
    """One relay's side of the lease of one shard; `revision` is the one it wrote last, None while it has none."""

    __slots__ = (
        "_asked_at",
        "_favoured_since",
        "_free_since",
        "_me",
        "_timing",
        "_trusted_from",
        "_yields_until",
        "revision",
    )

    def __init__(self, me: str, timing: LeaseTiming = LEASE_TIMING) -> None:
        self.revision: int | None = None
        self._me = me
        self._timing = timing
        self._trusted_from = 0.0
        self._free_since: float | None = None
        self._favoured_since: float | None = None
        self._asked_at = self._yields_until = -math.inf

    def is_held(self, now: float) -> bool:
        """Say whether the lease is this relay's for certain: it may not be, once a renewal is late."""
        return self.revision is not None and now - self._trusted_from < self._timing.fence_s

    def move(self, now: float, view: LeaseView) -> Move:
        """Return what to do now; call it a few times a second."""
        timing = self._timing
        if self.revision is not None:
            self._free_since = self._favoured_since = None
            return Move.RENEW if now - self._trusted_from >= timing.renew_s else Move.NOTHING
        is_favourite = view.favourite == self._me
        if view.claimed_by is None:
            self._favoured_since = None
            if self._free_since is None:
                self._free_since = now
            may_take = view.favourite is not None and now >= self._yields_until
            is_first = is_favourite or now - self._free_since >= timing.wait_s
            return Move.TAKE if may_take and is_first else Move.NOTHING
        self._free_since = None
        if not is_favourite:
            self._favoured_since = None
            return Move.NOTHING
        if self._favoured_since is None:
            self._favoured_since = now
        if now - self._favoured_since < timing.settle_s or now - self._asked_at < timing.ask_s:
            return Move.NOTHING
        self._asked_at = now
        return Move.ASK

    def hold(self, revision: int, asked_at: float) -> None:
        """Take note that the lease was written, and when that was asked for: it lasts at least from then."""
        self.revision = revision
        self._trusted_from = asked_at

    def lose(self) -> None:
        """Take note that the lease is somebody else's, or nobody's."""
        self.revision = None

    def hand_over(self, now: float) -> None:
        """Take note that the lease is given up for another relay, which is to take it."""
        self.revision = None
        self._yields_until = now + self._timing.yield_s
