"""The candle contract of one stream: order, closing, duplicates, revisions, what is missing. Pure: no I/O, no clock.

A series takes what a provider sends, in whatever order and however often, and returns what may be told to
subscribers. The rules:

- `time` never goes back, except in an update marked revised.
- Every candle that closes is told once as closed, before any later candle. When a later candle shows up first, it is
  held until history has answered for the span between: `missing` says what to ask, `fill` takes the answer.
- An answer is believed: a candle that history does not know does not exist, until the provider sends it after all
  (then it is told as revised). `give_up` goes on without an answer and records a gap; `repair` closes one later.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from relay.intervals import length_s, next_open
from relay.model import Candle, PriceUpdate, StreamKey

REMEMBERED = 128
"""Closed candles kept to recognise repeats and revisions, and to join a snapshot to the live stream."""


class Missing(NamedTuple):
    """Open times to ask history for: `start` ≤ open time < `end`; `end` None means up to now."""

    start: int
    end: int | None


class Gap(NamedTuple):
    """Closed candles that could not be had: `start` ≤ open time < `end`."""

    start: int
    end: int


class Series:
    """Decides what is emitted for one stream.

    `promised_at` is the provider's time (Unix seconds) from which every closing candle has to be told, or None when
    nothing that happened before the first update matters (a provider without history).
    """

    __slots__ = (
        "_asked_until",
        "_held",
        "_last_event_ms",
        "backfilled",
        "closed",
        "duplicates",
        "gaps",
        "is_catching_up",
        "key",
        "last",
        "last_is_closed",
        "late",
        "nonsense",
        "promised_at",
        "revised",
    )

    def __init__(self, key: StreamKey, promised_at: float | None) -> None:
        self.key = key
        self.promised_at = promised_at
        self.last: Candle | None = None
        self.last_is_closed = False
        self.is_catching_up = False
        self.closed: dict[int, Candle] = {}
        self.gaps: list[Gap] = []
        self.duplicates = self.late = self.revised = self.backfilled = self.nonsense = 0
        self._asked_until = 0
        self._held: dict[int, PriceUpdate] = {}
        self._last_event_ms = 0

    # -- live updates ------------------------------------------------------------------------------

    def accept(self, update: PriceUpdate) -> Sequence[PriceUpdate]:
        """Take one live update; return what subscribers are to be told now, in order.

        Sets `is_catching_up` when the update has to wait for candles that are missing before it.
        """
        candle = update.candle
        if candle.fault() is not None:
            self.nonsense += 1
            return ()
        if self.is_catching_up:
            self._hold(update)
            return ()
        last = self.last
        if last is None or candle.time > last.time:
            if self._leaves_hole_before(candle.time):
                self.is_catching_up = True
                self._hold(update)
                return ()
            self._advance(candle, is_closed=update.is_closed, event_ms=update.ts_event_ms)
            return (update,)
        if candle.time == last.time and not self.last_is_closed:
            event_ms = update.ts_event_ms or 0
            if not update.is_closed:
                if event_ms < self._last_event_ms:
                    self.late += 1
                    return ()
                if candle == last and event_ms == self._last_event_ms:
                    self.duplicates += 1
                    return ()
            self._advance(candle, is_closed=update.is_closed, event_ms=update.ts_event_ms)
            return (update,)
        return self._accept_past(update)

    def _accept_past(self, update: PriceUpdate) -> Sequence[PriceUpdate]:
        """Judge an update of a candle that is already closed, or that was passed over."""
        candle = update.candle
        if not update.is_closed:
            self.late += 1
            return ()
        known = self.closed.get(candle.time)
        if known == candle:
            self.duplicates += 1
            return ()
        if known is None and (not self.closed or candle.time < next(iter(self.closed))):
            self.late += 1
            return ()
        self._remember(candle)
        if self.last is not None and candle.time == self.last.time:
            self.last = candle
        self.revised += 1
        return (update._replace(is_revised=True),)

    def _leaves_hole_before(self, time: int) -> bool:
        if time <= self._asked_until:
            return False
        if self.last is None:
            return self.promised_at is not None and time > self.promised_at
        return not self.last_is_closed or time > next_open(self.key.interval, self.last.time)

    def _advance(self, candle: Candle, *, is_closed: bool, event_ms: int | None) -> None:
        self.last = candle
        self.last_is_closed = is_closed
        self._last_event_ms = event_ms or 0
        if is_closed:
            self._remember(candle)

    def _remember(self, candle: Candle) -> None:
        closed = self.closed
        is_newest = not closed or candle.time >= next(reversed(closed))
        closed[candle.time] = candle
        if not is_newest:
            self.closed = closed = dict(sorted(closed.items()))
        if len(closed) > REMEMBERED:
            del closed[next(iter(closed))]

    def _hold(self, update: PriceUpdate) -> None:
        """Keep a live update until the past is known; a closed candle is never replaced by an open state."""
        held = self._held.get(update.candle.time)
        if held is None or update.is_closed or not held.is_closed:
            self._held[update.candle.time] = update

    # -- catching up -------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Hold live updates from now on: candles may have closed unseen. `missing` says what to ask."""
        self.is_catching_up = True

    def missing(self) -> Missing | None:
        """Return what history has to be asked for, or None when nothing is: then `fill` with nothing goes on."""
        if not self.is_catching_up:
            return None
        start = self._first_unknown()
        end = min(self._held) if self._held else None
        if end is not None and end <= start:
            return None
        return Missing(start, end)

    def _first_unknown(self) -> int:
        if self.last is not None:
            start = self.last.time + 1 if self.last_is_closed else self.last.time
        elif self.promised_at is not None:
            start = int(self.promised_at) - length_s(self.key.interval) + 1
        else:
            start = min(self._held, default=0)
        return max(start, self._asked_until)

    def fill(self, candles: Iterable[Candle], until: int | None, forming: Candle | None = None) -> list[PriceUpdate]:
        """Take history's answer: the closed candles from `missing().start` on, ascending; return what is to be told.

        `until` is the end that was asked for (None: up to now). Live updates that waited follow. `forming` is the
        open candle, if the answer reached it.
        """
        told: list[PriceUpdate] = []
        asked_until = self._asked_until if until is None else max(self._asked_until, until)
        for candle in candles:
            if (until is not None and candle.time >= until) or candle.fault() is not None:
                continue
            told.extend(self._backfill(candle))
        self._asked_until = asked_until
        self.is_catching_up = False
        held, self._held = self._held, {}
        for time in sorted(held):
            told.extend(self.accept(held[time]))
        if forming is not None and (self.last is None or forming.time >= self.last.time):
            told.extend(self._accept_forming(forming))
        return told

    def _backfill(self, candle: Candle) -> Sequence[PriceUpdate]:
        last = self.last
        update = PriceUpdate(self.key, candle, is_closed=True, is_backfilled=True)
        if last is not None and (candle.time < last.time or (candle.time == last.time and self.last_is_closed)):
            return self._accept_past(update)
        is_news = (
            last is not None or self.promised_at is None or next_open(self.key.interval, candle.time) > self.promised_at
        )
        self._advance(candle, is_closed=True, event_ms=None)
        self._asked_until = max(self._asked_until, candle.time)
        if not is_news:
            return ()
        self.backfilled += 1
        return (update,)

    def _accept_forming(self, candle: Candle) -> Sequence[PriceUpdate]:
        """Take the open candle from history only where the live feed has not told more."""
        last = self.last
        if self.is_catching_up or candle.fault() is not None:
            return ()
        if last is not None and (candle.time <= last.time or self._leaves_hole_before(candle.time)):
            return ()
        self._advance(candle, is_closed=False, event_ms=None)
        return (PriceUpdate(self.key, candle),)

    def give_up(self) -> tuple[Gap | None, list[PriceUpdate]]:
        """Go on without history's answer; return the gap, if live updates wait behind one, and what is to be told."""
        missing = self.missing()
        if missing is None:
            return None, self.fill((), None)
        if missing.end is None:
            return None, []
        start = missing.start
        if self.last is not None and self.last_is_closed:
            start = max(start, next_open(self.key.interval, self.last.time))
        gap = Gap(start, missing.end)
        self.gaps.append(gap)
        return gap, self.fill((), missing.end)

    def repair(self, gap: Gap, candles: Iterable[Candle]) -> list[PriceUpdate]:
        """Take the candles of a gap after all; they are told as revised, since later ones were told already."""
        if gap in self.gaps:
            self.gaps.remove(gap)
        told = []
        for candle in candles:
            if not gap.start <= candle.time < gap.end or candle.time in self.closed or candle.fault() is not None:
                continue
            if self.closed and candle.time > next(iter(self.closed)):
                self._remember(candle)
            self.backfilled += 1
            self.revised += 1
            told.append(PriceUpdate(self.key, candle, is_closed=True, is_backfilled=True, is_revised=True))
        return told

    # -- what the supervisor and a snapshot ask ----------------------------------------------------

    def told_before(self, update: PriceUpdate) -> int | None:
        """Return the open time of the closed candle before this one, None if something may be missing between."""
        if update.is_revised:
            return None
        time = update.candle.time
        before = next((other for other in reversed(self.closed) if other < time), None)
        if before is None or any(gap.start < time and gap.end > before for gap in self.gaps):
            return None
        return before

    def due_at(self) -> int | None:
        """Return when the newest candle's interval is over, or the following one's if it is closed; None if unknown."""
        if self.last is None:
            return None
        end = next_open(self.key.interval, self.last.time)
        return next_open(self.key.interval, end) if self.last_is_closed else end
