"""What time it is at a provider: as it says itself, or by its stamps, the `Date` of its answers and this machine."""

import math
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import NamedTuple

STEP_S = 5.0
"""A stamp that is off by more than this moves the clock only when others say the same."""
UNCONFIRMED_S = 60.0
"""So far a clock that nobody confirmed may be off."""
AGREEING = 3
_DATE_STEP_S = 1.0
"""The `Date` of an answer has no fractions."""
_LASTS_S = 60.0
_FITS_LAST_S = 10.0
"""A symbol whose stamp fitted so long ago still says that the clock is right, however often others spoke since."""
_LOOK_EVERY = 8
_MOST_CLAIMS = 64
_MOST_SYMBOLS = 2


class Clock:
    """The two clocks of this machine, passed in wherever time is read so that tests can supply their own."""

    def __init__(self, wall: Callable[[], float] | None = None, monotonic: Callable[[], float] | None = None) -> None:
        # Looked up now, not when this module was imported: `relay.testing` speeds time up for a while.
        self.wall = wall or time.time
        self.monotonic = monotonic or time.monotonic

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
    first `Date` is taken over it. What lies behind may just be late: it is believed only if the wall clock agrees, if
    two symbols and a `Date` said so often are behind by more than `UNCONFIRMED_S`, or if nothing that fits arrives for
    `remember` stamps.
    """

    def __init__(self, clock: Clock, *, remember: int = 64) -> None:
        self._wall = clock.wall
        self.monotonic = clock.monotonic
        self._offsets: deque[float] = deque(maxlen=remember)
        self._remember = remember
        # Nothing fits before something is believed.
        self._best = -math.inf
        # So far single stamps may draw it ahead until another source says the same.
        self._limit = -math.inf
        self._wall_error = 0.0
        self._date_fits = False
        self._fits = 0
        self._claims: dict[str | None, _Claim] = {}
        # How many stamps of symbols had fitted when the claims began, and at the last claim.
        self._fits_before = self._fits_last = 0
        self._fit_at, self._fit_by = -math.inf, ""
        # When a symbol's stamp fitted after another one's.
        self._two_fit_at = -math.inf
        self._late = 0
        self.is_synchronised = False
        self.set_backs = 0
        """How often what was believed turned out to be ahead by more than `UNCONFIRMED_S`."""
        self.ahead_s = UNCONFIRMED_S
        """What is further ahead comes from the future; before anything is believed the wall clock may be at fault."""
        # No time before this one is possible: a candle had opened.
        self._least = -math.inf

    def observe(self, stamp_s: float, symbol: str | None = None) -> float:
        """Take a moment stamped by the provider, in Unix seconds: in a symbol's message, else the `Date` of an answer.

        Returns how long ago it was by the provider's time; below 0: it lies ahead, and not enough others say so.
        """
        now = self.monotonic()
        offset = stamp_s - now
        if not -STEP_S <= offset - self._best <= STEP_S:
            return self._judge(offset, symbol, stamp_s)
        if offset > self._limit and not self._is_seconded(offset):
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
            self._limit = offset + _DATE_STEP_S + STEP_S
            self._late = 0
            self._claims.pop(None, None)
        else:
            self._fits += 1
            if symbol != self._fit_by and now - self._fit_at <= _LASTS_S:
                self._two_fit_at = now
            self._fit_at, self._fit_by = now, symbol
        return self._best - offset

    def _is_seconded(self, offset: float) -> bool:
        """Say whether this machine's clock agrees with a stamp that lies beyond what single ones may claim."""
        if abs(self._wall() - self.monotonic() - offset) > STEP_S:
            return False
        self._limit = offset + STEP_S
        return True

    def is_contradicted(self, symbol: str) -> bool:
        """Say whether another symbol's stamps fitted within the last seconds, so that late ones are not the feed's."""
        return self._fit_by != symbol and self.monotonic() - self._fit_at <= _FITS_LAST_S

    def now(self) -> float:
        """Return the provider's time in Unix seconds."""
        if not self.is_synchronised:
            return self._wall()
        return self.monotonic() + self._best

    def reach(self) -> float:
        """Return the time up to which something may have happened: the latest that anybody says while one source does.

        What is asked for, and let in, goes by this one: a source that is behind hides nothing that others know of.
        """
        return self.now() if self._is_confirmed() else max(self.now(), self._wall())

    def _is_confirmed(self) -> bool:
        """Say whether the wall clock or a symbol's stamps agree with what is believed."""
        return self.is_synchronised and (self._fits > 0 or abs(self._wall() - self.now()) <= STEP_S)

    def at(self, monotonic: float) -> float:
        """Return the provider's time (Unix seconds) when this machine's clock read `monotonic`, as is believed now."""
        return self.now() - (self.monotonic() - monotonic)

    def at_best(self, moment: float, monotonic: float) -> float:
        """Return what is believed now of a `moment` that was read here when this machine's clock read `monotonic`.

        When it was read nobody may have known yet what time it was.
        """
        return self.at(monotonic)

    def see(self, open_time: float) -> None:
        """Take it from an answer that a candle had opened at `open_time`: a wall clock that is behind it is wrong."""
        self._least = max(self._least, open_time - self.monotonic())

    @property
    def is_wall_behind(self) -> bool:
        """Say whether candles had opened before the wall clock says that they do."""
        return self._wall() - self.monotonic() < self._least - STEP_S

    def over(self) -> float:
        """Return the time up to which candles are over: not ahead of the wall clock, unless that is known to be wrong.

        A stamp that is a little ahead moves the clock at once, and so does the first `Date`; whether they are right
        symbols say, or candles. In no case are they over that an answer of the last minute calls the future.
        """
        now, wall = self.now(), self._wall()
        is_confirmed = self.is_wall_behind or (self._fits > 0 and abs(now - wall) > UNCONFIRMED_S)
        return min(now if is_confirmed else min(now, wall), self._dated())

    def _dated(self) -> float:
        """Return what time it is by a `Date` of the last minute that does not fit; far ahead if there is none.

        Nor is one left that this machine and two symbols contradict, and none is from before a candle that had opened:
        there are copies of answers.
        """
        claim, at = self._claims.get(None), self.monotonic()
        if claim is None or at - claim.at > _LASTS_S:
            return math.inf
        if at - self._two_fit_at <= _LASTS_S and abs(self._wall() - self.now()) <= STEP_S:
            return math.inf
        return at + max(claim.offset, self._least)

    def certain(self) -> float:
        """Return the time up to which something may be written down as past: never one that a single source gives.

        That is `now` when the wall clock or a symbol's stamps agree, unless a `Date` of the last minute is more than
        `UNCONFIRMED_S` earlier (some are those of a copy); else the earliest that anybody says.
        """
        now = self.now()
        if self._is_confirmed():
            dated = self._dated()
            return now if dated >= now - UNCONFIRMED_S else dated
        at = self.monotonic()
        return min(
            [now, self._wall(), *(at + claim.offset for claim in self._claims.values() if at - claim.at <= _LASTS_S)]
        )

    def latest(self) -> float | None:
        """Return `reach`, None while nothing was believed: what is later than this one cannot be known."""
        return self.reach() if self.is_synchronised else None

    # -- what does not fit -------------------------------------------------------------------------

    def _judge(self, offset: float, symbol: str | None, stamp_s: float) -> float:
        """Take a stamp that does not fit; return how long ago it was by the time that holds then."""
        # Before anything is believed: a feed may be so late, a wall clock may be off by more.
        is_late = offset < self._best if self.is_synchronised else 0 < self._wall() - stamp_s <= UNCONFIRMED_S
        claim = self._claim(offset, symbol, is_late=is_late)
        # When the relay itself is slow all stamps are late, and weighing them is not free.
        if symbol is None or not is_late or self._late % _LOOK_EVERY <= 1:
            self._weigh(claim, is_late=is_late)
        return self.now() - stamp_s

    def _claim(self, offset: float, symbol: str | None, *, is_late: bool) -> _Claim:
        now, claims = self.monotonic(), self._claims
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
        wall = self._wall() - self.monotonic()
        wall_agrees = abs(wall - claim.offset) <= STEP_S
        wall_holds = abs(wall - self._best) <= STEP_S
        is_seconded = wall_agrees
        if not wall_agrees and not wall_holds:
            # It may be wrong and still go on while this machine sleeps, unlike the other.
            wall -= self._wall_error
            wall_agrees = abs(wall - claim.offset) <= STEP_S
            wall_holds = abs(wall - self._best) <= STEP_S if self.is_synchronised else not wall_agrees
        date = agreeing.get(None)
        dates = 0 if date is None else 1 if date.times < AGREEING and self.is_synchronised else 2
        symbols = min(len(agreeing) - (date is not None), _MOST_SYMBOLS)
        agree = symbols + dates + (wall_agrees and not wall_holds)
        is_fresh = self.monotonic() - self._fit_at <= _FITS_LAST_S and self._fit_by not in self._claims
        is_fitting = self._fits > self._fits_before or is_fresh
        contradict = (wall_holds and not wall_agrees) + self._date_fits + is_fitting
        if agree <= contradict or (agree < 2 and claim.times < AGREEING):
            return
        # Before anything is believed the first `Date` is worth more than the wall clock.
        is_first_date = date is not None and not self.is_synchronised
        # A feed may be late, and so may be all that a slow machine reads; not by so much, and not both.
        is_behind = symbols + dates == _MOST_SYMBOLS + 2 and claim.offset < self._best - UNCONFIRMED_S
        is_trusted = (wall_agrees and not wall_holds) or is_first_date or is_behind
        if is_late and not is_trusted and self._late < self._remember:
            return
        # The shortest step on which they agree.
        offsets = [other.offset for other in agreeing.values()] if len(agreeing) > 1 else [claim.nearest]
        self._believe(max(offsets) if is_late else min(offsets), agreeing, is_seconded=is_seconded or is_behind)

    def _believe(self, offset: float, agreeing: Collection[str | None], *, is_seconded: bool) -> None:
        """Go by an offset. With `is_seconded` symbols do not say so alone, and one among those agreeing fits."""
        self.set_backs += offset < self._best - UNCONFIRMED_S
        self._best = offset
        self._limit = offset + STEP_S
        self.ahead_s = STEP_S
        self._offsets.clear()
        self._offsets.append(offset)
        self._wall_error = self._wall() - self.monotonic() - offset
        self._date_fits = None in agreeing
        self._claims.clear()
        self._fits_before = self._fits_last = self._late = 0
        symbol = next((source for source in agreeing if source is not None), None) if is_seconded else None
        self._fits = int(symbol is not None)
        self._two_fit_at = -math.inf
        self._fit_at, self._fit_by = (-math.inf, "") if symbol is None else (self.monotonic(), symbol)
        self.is_synchronised = True


class StatedClock(ProviderClock):
    """A provider's time as the provider itself says it: nothing is estimated, and no stamp is doubted.

    It need not run at the pace of this machine's clock, and never goes back. Where `read` raises or returns no finite
    number, the time stands still and `on_fault` is told. Raises the same for the first reading.
    """

    def __init__(self, clock: ProviderClock, read: Callable[[], float], on_fault: Callable[[Exception], None]) -> None:
        super().__init__(Clock(clock._wall, clock.monotonic))
        self._read = read
        self._on_fault = on_fault
        self._last = _finite(read())
        self.is_synchronised = True
        self.ahead_s = STEP_S

    def now(self) -> float:
        """Return the provider's time in Unix seconds."""
        try:
            moment = _finite(self._read())
        except Exception as error:  # noqa: BLE001 - a plugin is isolated here
            self._on_fault(error)
            return self._last
        if moment > self._last:
            self._last = moment
        return self._last

    def observe(self, stamp_s: float, symbol: str | None = None) -> float:
        """Return how long ago a stamp was; it says nothing of the time."""
        return self.now() - stamp_s

    def reach(self) -> float:
        """Return `now`."""
        return self.now()

    def over(self) -> float:
        """Return `now`."""
        return self.now()

    def certain(self) -> float:
        """Return `now`."""
        return self.now()

    def at_best(self, moment: float, monotonic: float) -> float:
        """Return the `moment`: it was known then as well."""
        return moment

    def is_contradicted(self, symbol: str) -> bool:
        """Say that no stamp contradicts another."""
        return False

    def see(self, open_time: float) -> None:
        """Take no notice of candles."""

    @property
    def is_wall_behind(self) -> bool:
        """Say that the wall clock does not matter."""
        return False


def _finite(moment: float) -> float:
    if not isinstance(moment, int | float) or not math.isfinite(moment):
        raise TypeError(f"the time is {moment!r:.40}, not a number of Unix seconds")
    return moment
