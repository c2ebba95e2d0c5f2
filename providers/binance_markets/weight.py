"""The request weight that Binance allows an address, and its bans."""

import time
from collections.abc import Callable
from typing import Any

from relay import Budget, RateLimited

UNIT_S = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}
"""In seconds; enums.md, "Rate limit intervals", which has no hour."""
PAUSE_S = 60.0
"""Our choice, after a refusal that names no time: the minute in which weights are counted."""
_MOST_PAUSE_S = 900.0
"""Our choice: refusals in a row double the pause up to this."""


class Weight:
    """The request weight that this address may use a minute, and the bans; asks nobody and never waits.

    Other programs behind the same address are seen through the header only, hence the margin. A lower limit than
    `limit` that the exchange states is kept to. While other relays ask from the same address that cannot be seen,
    `divide` leaves each its part.
    """

    def __init__(
        self,
        limit: int,
        *,
        wall: Callable[[], float] | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._usual = self._limit = limit
        self._wall = wall or time.time
        self._monotonic = monotonic or time.monotonic
        self._minute = 0
        self._used = 0
        self._own = 0
        self._parts = 1
        self._blocked_until = float("-inf")
        self._blocked_why = ""
        self._unclear = 0

    def spend(self, weight: int) -> None:
        """Count a call before it is made. Raises `RateLimited` when it must not be made now."""
        if (wait := self._blocked_until - self._monotonic()) > 0:
            raise RateLimited(self._blocked_why, wait)
        self._turn()
        most = self._limit * 9 // 10
        if self._used + weight > most or self._own + weight > most // self._parts:
            raise RateLimited("the request weight of this minute is used up", self._resets_at() - self._wall())
        self._used += weight
        self._own += weight

    def divide(self, parts: int) -> None:
        """Use one of so many equal parts of each minute's weight from now on; 1 is all of it."""
        self._parts = parts

    def learn(self, used: str | None) -> None:
        """Take what the exchange counted, from its header; it knows of more than this relay."""
        self._turn()
        if used is not None and used.isascii() and used.isdigit():
            self._used = max(self._used, min(int(used), 10 * self._limit))

    def state(self, limit: int, span_s: int) -> None:
        """Take the weight that the exchange says it allows in so many seconds; more than usual is not made use of."""
        if limit > 0 and span_s > 0:
            self._limit = min(self._usual, max(1, limit * 60 // span_s))

    def relent(self) -> None:
        """Note that a call was not refused."""
        self._unclear = 0

    def pause_s(self) -> float:
        """Return how long to wait after a refusal that does not say so: each one in a row doubles it."""
        self._unclear += 1
        return min(_MOST_PAUSE_S, PAUSE_S * 2.0 ** (self._unclear - 1))

    def block(self, seconds: float, why: str) -> None:
        """Let nobody ask for so long; a shorter block does not end a longer one."""
        until = self._monotonic() + seconds
        if until > self._blocked_until:
            self._blocked_until, self._blocked_why = until, why

    def budget(self) -> Budget:
        """Say how much is used; all of it during a ban."""
        self._turn()
        if (wait := self._blocked_until - self._monotonic()) > 0:
            return Budget("request weight a minute", self._limit, self._limit, self._wall() + wait)
        if self._parts > 1:
            limit = self._limit // self._parts
            return Budget("request weight a minute", limit, min(self._own, limit), self._resets_at())
        return Budget("request weight a minute", self._limit, min(self._used, self._limit), self._resets_at())

    def _turn(self) -> None:
        minute = int(self._wall() // 60)
        if minute != self._minute:
            self._minute, self._used, self._own = minute, 0, 0

    def _resets_at(self) -> float:
        return (self._minute + 1) * 60.0


def learn_limit(weight: Weight, body: Any) -> None:
    """Take the request weight that exchangeInfo says is allowed, where it says so."""
    limits = body.get("rateLimits") if isinstance(body, dict) else None
    for limit in limits if isinstance(limits, list) else ():
        if not isinstance(limit, dict) or limit.get("rateLimitType") != "REQUEST_WEIGHT":
            continue
        most, number, unit_s = limit.get("limit"), limit.get("intervalNum"), UNIT_S.get(str(limit.get("interval")))
        if type(most) is int and type(number) is int and unit_s is not None:
            weight.state(most, number * unit_s)
