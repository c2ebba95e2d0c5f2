"""What time it is at a provider, by those who can know: its stamps, the `Date` of its answers, this machine."""

import math
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

STEP_S = 5.0
"""A stamp that is off by more than this moves the clock only when others say the same."""
AHEAD_S = 60.0
"""What is further ahead than this comes from the future; below, it may be a clock that is a little off."""
AGREEING = 3
_LASTS_S = 60.0
_FITS_LAST_S = 10.0
"""A symbol whose stamp fitted so long ago still says that the clock is right, however often others spoke since."""
_LOOK_EVERY = 8
_MOST_CLAIMS = 64
_MOST_SYMBOLS = 2


class Clock:
    """The two clocks of this machine, passed in wherever time is read so that tests can supply their own."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.wall = wall
        self.monotonic = monotonic

    def utc(self, in_s: float) -> str:
        """Write the moment in so many seconds, to the second: `2026-11-22T20:14:09Z`."""
        return datetime.fromtimestamp(self.wall() + in_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Claim(NamedTuple):
    """What a source says that does not fit: its newest offset and when it said so, and how often in a row.

    `nearest` is the offset of that row which is nearest to what is believed.
    """

    offset: float
    nearest: float
    at: float
    times: int
    is_late: bool


class ProviderClock:
    """Estimates the provider's time from stamps in its messages and the monotonic clock.

    A stamp arrives late, never early, so the largest recent offset is the best estimate. A stamp that is off by more
    than `STEP_S` is a claim of its source, which is a symbol, or the provider for the `Date` header of its answers. It
    is believed when more sources agree with it than contradict it, and two agree or one says so `AGREEING` times. The
    wall clock of this machine is a source as well. However many symbols agree, they count as two, for they come through
    the same feed; a `Date` said so often counts as two. Until something is believed the wall clock is the time, and the
    first `Date` is taken over it. What lies behind is believed only if the wall clock agrees, or if nothing that fits
    arrives for `remember` stamps: else it may just be late.
    """

    def __init__(self, clock: Clock, *, remember: int = 64) -> None:
        self._wall = clock.wall
        self._monotonic = clock.monotonic
        self._offsets: deque[float] = deque(maxlen=remember)
        self._remember = remember
        # Nothing fits before something is believed.
        self._best = -math.inf
        self._wall_error = 0.0
        self._date_fits = False
        self._fits = 0
        self._claims: dict[str | None, _Claim] = {}
        # How many stamps of symbols had fitted when the claims began, and at the last claim.
        self._fits_before = self._fits_last = 0
        self._fit_at, self._fit_by = -math.inf, ""
        self._late = 0
        self.is_synchronised = False

    def observe(self, stamp_s: float, symbol: str | None = None) -> float:
        """Take a moment stamped by the provider, in Unix seconds: in a symbol's message, else the `Date` of an answer.

        Returns how long ago it was by the provider's time; below 0: it lies ahead, and not enough others say so.
        """
        now = self._monotonic()
        offset = stamp_s - now
        if not -STEP_S <= offset - self._best <= STEP_S:
            return self._judge(offset, symbol, stamp_s)
        offsets = self._offsets
        leaving = offsets[0] if len(offsets) == offsets.maxlen else None
        offsets.append(offset)
        if offset >= self._best:
            self._best = offset
        elif leaving == self._best:
            self._best = max(offsets)
        if symbol is None:
            self._date_fits = True
            self._late = 0
            self._claims.pop(None, None)
        else:
            self._fits += 1
            self._fit_at, self._fit_by = now, symbol
        return self._best - offset

    def now(self) -> float:
        """Return the provider's time in Unix seconds."""
        if not self.is_synchronised:
            return self._wall()
        return self._monotonic() + self._best

    def over(self) -> float:
        """Return the time up to which candles are over: not ahead of the wall clock, unless that is far off.

        A stamp that is a little ahead moves the clock at once, and nobody can tell yet whether it is right.
        """
        now, wall = self.now(), self._wall()
        return min(now, wall) if abs(now - wall) <= AHEAD_S else now

    def certain(self) -> float:
        """Return the time up to which something may be written down as past: never one that a single source gives.

        That is `now` when the wall clock or a symbol's stamps agree; else the earliest that anybody says.
        """
        now, wall = self.now(), self._wall()
        if self.is_synchronised and (self._fits or abs(wall - now) <= STEP_S):
            return now
        at = self._monotonic()
        return min([now, wall, *(at + claim.offset for claim in self._claims.values() if at - claim.at <= _LASTS_S)])

    def latest(self) -> float | None:
        """Return the latest time that it may be, None while nothing was believed: what is later cannot be known."""
        if not self.is_synchronised:
            return None
        return max(self.now(), self._wall()) if self.now() > self.certain() else self.now()

    # -- what does not fit -------------------------------------------------------------------------

    def _judge(self, offset: float, symbol: str | None, stamp_s: float) -> float:
        """Take a stamp that does not fit; return how long ago it was by the time that holds then."""
        # Before anything is believed: a feed may be so late, a wall clock may be off by more.
        is_late = offset < self._best if self.is_synchronised else 0 < self._wall() - stamp_s <= AHEAD_S
        claim = self._claim(offset, symbol, is_late=is_late)
        # When the relay itself is slow all stamps are late, and weighing them is not free.
        if symbol is None or not is_late or self._late % _LOOK_EVERY <= 1:
            self._weigh(claim, is_late=is_late)
        return self.now() - stamp_s

    def _claim(self, offset: float, symbol: str | None, *, is_late: bool) -> _Claim:
        now, claims = self._monotonic(), self._claims
        before = claims.pop(symbol, None)
        while claims:
            # The oldest comes first.
            oldest = next(iter(claims))
            if now - claims[oldest].at <= _LASTS_S and len(claims) < _MOST_CLAIMS:
                break
            del claims[oldest]
        if not claims and before is None:
            self._fits_before = self._fits
        if self._fits != self._fits_last:
            self._fits_last, self._late = self._fits, 0
        nearest, times = offset, 1
        self._late += is_late
        if before is not None and before.is_late == is_late:
            times = before.times + 1
            nearest = max(offset, before.nearest) if is_late else min(offset, before.nearest)
        claim = claims[symbol] = _Claim(offset, nearest, now, times, is_late)
        if symbol is None:
            self._date_fits = False
        return claim

    def _weigh(self, claim: _Claim, *, is_late: bool) -> None:
        """Believe a claim if more sources agree with it than contradict it."""
        agreeing = {
            source: other for source, other in self._claims.items() if abs(other.offset - claim.offset) <= STEP_S
        }
        wall = self._wall() - self._monotonic()
        # The wall clock may be wrong and still go on while this machine sleeps, unlike the other.
        walls = (wall, wall - self._wall_error)
        wall_agrees = any(abs(one - claim.offset) <= STEP_S for one in walls)
        wall_holds = any(abs(one - self._best) <= STEP_S for one in walls) if self.is_synchronised else not wall_agrees
        date = agreeing.get(None)
        dates = 0 if date is None else 1 if date.times < AGREEING and self.is_synchronised else 2
        symbols = min(len(agreeing) - (date is not None), _MOST_SYMBOLS)
        agree = symbols + dates + (wall_agrees and not wall_holds)
        is_fresh = self._monotonic() - self._fit_at <= _FITS_LAST_S and self._fit_by not in self._claims
        is_fitting = self._fits > self._fits_before or is_fresh
        contradict = (wall_holds and not wall_agrees) + self._date_fits + is_fitting
        if agree <= contradict or (agree < 2 and claim.times < AGREEING):
            return
        # Before anything is believed the first `Date` is worth more than the wall clock.
        is_first_date = date is not None and not self.is_synchronised
        if is_late and not (wall_agrees and not wall_holds) and not is_first_date and self._late < self._remember:
            return
        # The shortest step on which they agree.
        offsets = [other.offset for other in agreeing.values()] if len(agreeing) > 1 else [claim.nearest]
        self._believe(max(offsets) if is_late else min(offsets), has_date=date is not None)

    def _believe(self, offset: float, *, has_date: bool) -> None:
        self._best = offset
        self._offsets.clear()
        self._offsets.append(offset)
        self._wall_error = self._wall() - self._monotonic() - offset
        self._date_fits = has_date
        self._claims.clear()
        self._fits = self._fits_before = self._fits_last = self._late = 0
        self._fit_at = -math.inf
        self.is_synchronised = True
