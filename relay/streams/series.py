"""The candle contract of one stream: order, closing, duplicates, revisions, what is missing. Pure: no I/O, no clock.

A series takes what a provider sends, in whatever order and however often, and returns what may be told to
subscribers. Whatever it gets was judged at the border: all values make sense. The rules:

- `time` never goes back, except in an update marked revised.
- Every candle that closes is told once as closed, before any later candle. When a later candle shows up first, it is
  held until history has answered for the span between: `missing` says what to ask, `fill` takes the answer.
- An answer is believed: a candle that history does not know does not exist, until the provider sends it after all
  (then it is told as revised). Only a candle that was told as open cannot vanish: it becomes a gap.
- What a closed candle carries beside prices and volume may be revised alone; that it is there or not is no revision.
- A candle that had to be widened never takes the place of one that made sense, and gives way to one, however old.
- `give_up` goes on without an answer and leaves a gap; `repair` closes one later. `gaps` hands out new ones.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from relay.core.intervals import length_s, next_open, open_time
from relay.core.model import (
    Candle,
    PriceUpdate,
    StreamKey,
    is_bare,
    is_widened,
    newer_of,
    repeats,
    worth,
)
from relay.core.spans import Span, span_at
from relay.core.trading_hours import TradingHours
from relay.streams.gaps import Gaps, SeriesGap

_DAY_S = 86_400

REMEMBERED = 128
"""Closed candles kept to recognise repeats and revisions, and to join a snapshot to the live stream."""
MOST_HELD = 512
"""Candles that wait for history at most; what is refused then leaves a hole, which is asked for in turn."""


class Missing(NamedTuple):
    """Open times to ask history for: `start` ≤ open time < `end`; `end` None means up to now."""

    start: int
    end: int | None


class Series:
    """Decides what is emitted for one stream.

    `promised_at` is the provider's time (Unix seconds) from which every closing candle has to be told, or None when
    nothing that happened before the first update matters (a provider without history). While its `market` is closed
    there are no candles: none is missed, and no gap names one. If it `is_recorded`, nothing is missing between two
    candles that a feed tells. Candles that open at `void` times, which are remembered, have other values by now, which
    are not known yet: whatever is said of them is news.
    """

    __slots__ = (
        "_asked_ms",
        "_asked_until",
        "_closed_event_ms",
        "_held",
        "_last_event_ms",
        "_mended",
        "_newest_event_ms",
        "backfilled",
        "closed",
        "duplicates",
        "gaps",
        "has_told",
        "is_catching_up",
        "is_recorded",
        "key",
        "last",
        "last_is_closed",
        "late",
        "market",
        "nonsense",
        "promised_at",
        "revised",
        "void",
    )

    def __init__(self, key: StreamKey, promised_at: float | None) -> None:
        self.key = key
        self.promised_at = promised_at
        self.market = TradingHours()
        self.is_recorded = False
        self.last: Candle | None = None
        self.last_is_closed = False
        self.is_catching_up = False
        self.has_told = False
        self.closed: dict[int, Candle] = {}
        self.gaps = Gaps(key.interval)
        self.duplicates = self.late = self.revised = self.backfilled = self.nonsense = 0
        self._asked_until = 0
        self._held: dict[int, PriceUpdate] = {}
        self.void: set[int] = set()
        # What repairs told before the stream came to it.
        self._mended: dict[int, Candle] = {}
        self._closed_event_ms: dict[int, int] = {}
        self._last_event_ms = 0
        self._newest_event_ms = 0
        self._asked_ms = 0

    # -- live updates ------------------------------------------------------------------------------

    def accept(self, update: PriceUpdate) -> Sequence[PriceUpdate]:
        """Take one live update; return what subscribers are to be told now, in order.

        Sets `is_catching_up` when the update has to wait for candles that are missing before it.
        """
        candle = update.candle
        event_ms = update.ts_event_ms or 0
        if event_ms > self._newest_event_ms:
            self._newest_event_ms = event_ms
        if self.is_catching_up:
            self._hold(update)
            return ()
        last = self.last
        if last is None or candle.time > last.time:
            if self._leaves_hole_before(candle.time):
                self.is_catching_up = True
                self._hold(update)
                return ()
            if self._mended:
                if candle.time in self._mended:
                    return self._accept_mended(update, event_ms)
                if candle.time > max(self._mended):
                    self._mended.clear()
        elif candle.time < last.time or self.last_is_closed:
            if self.void and candle.time in self.void and self.promised_at is not None:
                # It may be from before the change. History says what it is.
                self.late += 1
                return ()
            return self._accept_past(update, event_ms)
        elif not update.is_closed:
            # Whoever gives no stamps is taken to speak in order.
            if 0 < event_ms < self._last_event_ms:
                self.late += 1
                return ()
            is_repeated = candle == last and (not event_ms or event_ms == self._last_event_ms) and repeats(last, candle)
            if is_repeated and candle.time not in self.void:
                self.duplicates += 1
                return ()
        self._advance(candle, is_closed=update.is_closed, event_ms=event_ms)
        self.has_told = True
        return (update,)

    def _accept_past(self, update: PriceUpdate, event_ms: int) -> Sequence[PriceUpdate]:
        """Judge an update of a candle that is already closed, or that was passed over."""
        candle = update.candle
        if not update.is_closed:
            self.late += 1
            return ()
        time = candle.time
        known = self.closed.get(time)
        if time in self.void:
            return (self._correct(update, event_ms),)
        if known is not None and repeats(known, candle):
            self.duplicates += 1
            self.closed[time] = max(known, candle, key=lambda one: (worth(one), not is_bare(one)))
            self._closed_event_ms[time] = max(self._closed_event_ms[time], event_ms)
            return ()
        if known is not None:
            if worth(candle) < worth(known):
                self.nonsense += 1
                return ()
            # The same news arrives over several connections: an older one must not undo a newer one.
            if worth(candle) == worth(known) and 0 < event_ms < self._closed_event_ms[time]:
                self.late += 1
                return ()
        elif not self._can_be_new(time):
            self.late += 1
            return ()
        return (self._correct(update._replace(is_of_extras=known == candle), event_ms),)

    def _correct(self, update: PriceUpdate, event_ms: int) -> PriceUpdate:
        """Take what a candle that is over is now; return what is to be told."""
        candle = update.candle
        self.gaps.settle(candle.time)
        self.void.discard(candle.time)
        # What is older than all that the stream told is no part of what it answers for.
        if self.is_owed(candle.time) or candle.time >= next(iter(self.closed), candle.time + 1):
            self._remember(candle, event_ms)
        if self.last is not None and candle.time == self.last.time:
            self.last = candle
        self.revised += 1
        return update._replace(is_revised=True)

    def _accept_mended(self, update: PriceUpdate, event_ms: int) -> Sequence[PriceUpdate]:
        """Come to a candle that a repair told before; only other values are news."""
        candle = update.candle
        if not update.is_closed:
            self.late += 1
            return ()
        known = self._mended.pop(candle.time)
        if is_widened(candle):
            candle = known
        is_repeated = repeats(known, candle) and candle.time not in self.void
        self._advance(newer_of(known, candle), is_closed=True, event_ms=event_ms)
        if is_repeated:
            self.duplicates += 1
            return ()
        self.revised += 1
        return (update._replace(is_revised=True, is_of_extras=known == candle),)

    def _can_be_new(self, time: int) -> bool:
        """Say whether a closed candle that is not remembered was never told, rather than forgotten or not owed."""
        if self.gaps.hold(time):
            return True
        oldest = next(iter(self.closed), None)
        if oldest is not None and time > oldest:
            return True
        return len(self.closed) < REMEMBERED and self.is_owed(time)

    def _leaves_hole_before(self, time: int) -> bool:
        if time <= self._asked_until:
            return False
        if self.last is None:
            if self.promised_at is None or time <= self.promised_at:
                return False
            # The first of the candles before this one that closes after the promise.
            length = length_s(self.key.interval)
            return not self.market.is_closed(time + int((self.promised_at - time) // length) * length, time)
        if not self.last_is_closed:
            return True
        if self.is_recorded:
            return False
        end = next_open(self.key.interval, self.last.time)
        return time > end and not self.market.is_closed(end, time)

    def pass_over(self, until: int) -> None:
        """Take it that no candle opened before `until` but what was told: history need not be asked."""
        self._asked_until = max(self._asked_until, until)

    def _advance(self, candle: Candle, *, is_closed: bool, event_ms: int) -> None:
        self.last = candle
        self.last_is_closed = is_closed
        self._last_event_ms = event_ms
        if self.void:
            self.void = {time for time in self.void if time in self.closed and time != candle.time}
        if is_closed:
            if self.gaps.left or self.gaps.ahead:
                self.gaps.settle(candle.time)
            self._remember(candle, event_ms)

    def _remember(self, candle: Candle, event_ms: int) -> None:
        closed = self.closed
        is_newest = not closed or candle.time >= next(reversed(closed))
        closed[candle.time] = candle
        self._closed_event_ms[candle.time] = event_ms
        if not is_newest:
            self.closed = closed = dict(sorted(closed.items()))
        if len(closed) > REMEMBERED:
            oldest = next(iter(closed))
            del closed[oldest]
            del self._closed_event_ms[oldest]
            self.void.discard(oldest)

    def _hold(self, update: PriceUpdate) -> None:
        """Keep a live update until the past is known; news is never replaced by what is older or less final."""
        time = update.candle.time
        held = self._held.get(time)
        if held is None:
            if len(self._held) < MOST_HELD:
                self._held[time] = update
            else:
                self.nonsense += 1
        elif _rank(update) >= _rank(held):
            self._held[time] = update

    # -- catching up -------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Hold live updates from now on: candles may have closed unseen. `missing` says what to ask."""
        self.is_catching_up = True

    def missing(self, now: float = 0.0) -> Missing | None:
        """Return what history has to be asked for now, or None when nothing is: then `fill` with nothing goes on.

        `now` is the provider's time. What it answers is taken to be newer than every update stamped before or arrived
        until this call, and older than those that follow.
        """
        if not self.is_catching_up:
            return None
        self._asked_ms = max(self._newest_event_ms, int(now * 1000))
        start = self._first_unknown()
        if not self._held:
            return Missing(start, None)
        end = min(self._held)
        is_next = end > start and self._leaves_hole_before(end)
        return Missing(start, end) if is_next else None

    def _first_unknown(self) -> int:
        if self.last is not None:
            start = self.last.time + 1 if self.last_is_closed else self.last.time
        elif self.promised_at is not None:
            start = self.owed_from()
        else:
            start = min(self._held, default=0)
        return max(start, self._asked_until)

    def fill(
        self,
        candles: Iterable[Candle],
        until: int | None,
        forming: Candle | None = None,
        lost: Iterable[tuple[int, int]] = (),
    ) -> list[PriceUpdate]:
        """Take history's answer: the closed candles from `missing().start` on, ascending; return what is to be told.

        `until` is the end that was asked for (None: up to now). Live updates that waited follow. `forming` is the
        open candle, if the answer reached it. `lost` are candles that exist but cannot be had now, each from its open
        time to the next one: gaps. Take the `gaps` before telling.
        """
        told: list[PriceUpdate] = []
        lost = list(lost)
        is_new = self.last is None
        for start, end in lost:
            is_later = self.is_owed(start) if self.last is None else start > self.last.time
            if is_later and not self.gaps.hold(start):
                self.gaps.leave(SeriesGap(start, end))
        for candle in candles:
            if until is None or candle.time < until:
                told.extend(self._backfill(candle))
        for start, end in lost if is_new else ():
            # Nobody is owed it; but what is remembered has a hole there.
            if start > next(iter(self.closed), start) and not self.gaps.hold(start):
                self.gaps.keep(SeriesGap(start, end))
        if until is not None:
            self._believe(until)
        self.is_catching_up = False
        held, self._held = self._held, {}
        for time in sorted(held):
            told.extend(self.accept(held[time]))
        if forming is not None and forming.time not in held:
            told.extend(self._accept_forming(forming))
        if told:
            self.has_told = True
        return told

    def _believe(self, until: int) -> None:
        """Take it that nothing opened before `until` but what is known; a candle told as open has to be answered for.

        Call it before going on to a later candle.
        """
        last = self.last
        if last is not None and not self.last_is_closed and self._asked_until <= last.time < until:
            self.gaps.leave(SeriesGap(last.time, min(until, next_open(self.key.interval, last.time))))
        self._asked_until = max(self._asked_until, until)

    def _backfill(self, candle: Candle) -> Sequence[PriceUpdate]:
        last = self.last
        update = PriceUpdate(self.key, candle, is_closed=True, is_backfilled=True)
        event_ms = self._asked_ms
        if last is not None and (candle.time < last.time or (candle.time == last.time and self.last_is_closed)):
            return self._accept_past(update, event_ms)
        mended = self._mended.pop(candle.time, None)
        if mended is not None and is_widened(candle):
            candle = mended
        is_news = mended is None and (self.has_told or self.is_owed(candle.time))
        is_repair = not is_news and self.gaps.hold(candle.time)
        self._believe(candle.time)
        self._advance(candle, is_closed=True, event_ms=event_ms)
        if is_repair:
            # Somebody who joined was told that it is missing.
            return (update._replace(is_revised=True),)
        if not is_news:
            return ()
        self.backfilled += 1
        self.has_told = True
        return (update,)

    def _accept_forming(self, candle: Candle) -> Sequence[PriceUpdate]:
        """Take the open candle from history only where the live feed has not told more."""
        last = self.last
        if self.is_catching_up:
            return ()
        if last is None or candle.time > last.time:
            if self._leaves_hole_before(candle.time):
                return ()
        elif candle.time < last.time or self.last_is_closed or not _can_follow(last, candle):
            return ()
        self._advance(candle, is_closed=False, event_ms=self._asked_ms)
        return (PriceUpdate(self.key, candle),)

    def learn(
        self, candles: Iterable[Candle], forming: Candle | None, asked_s: float, lost: Iterable[tuple[int, int]] = ()
    ) -> list[PriceUpdate]:
        """Take an answer of history that reaches from `needs_from` up to the present; return what is to be told.

        `asked_s` is the provider's time when it was asked; the rest is as for `fill`. Take the `gaps` before
        telling.
        """
        self._asked_ms = max(self._asked_ms, int(asked_s * 1000))
        start = 0 if self.last is None else self._first_unknown()
        return self.fill([candle for candle in candles if candle.time >= start], None, forming, lost)

    def needs_from(self) -> int:
        """Return the open time from which on an answer of history has to hold everything for `learn`."""
        return self.owed_from() if self.last is None else self.last.time

    def give_up(self) -> list[PriceUpdate]:
        """Go on without history's answer; return what is to be told after the gap, if there is one.

        Without live updates that wait there is nothing to go on to, and nothing changes.
        """
        missing = self.missing()
        if missing is None:
            return self.fill((), None) if self.is_catching_up else []
        if missing.end is None:
            return []
        start = missing.start
        if self.last is not None and self.last_is_closed:
            start = max(start, next_open(self.key.interval, self.last.time))
        an_open = missing.end if self.last is None else self.last.time
        for part in self.market.open_parts(start, missing.end, length_s(self.key.interval), an_open):
            self.gaps.leave(SeriesGap(*part))
        self._asked_until = max(self._asked_until, missing.end)
        return self.fill((), None)

    # -- what is learnt of the past later ----------------------------------------------------------

    def owe(self, gap: SeriesGap) -> None:
        """Keep a gap for repair that was told to somebody who joined; see `Gaps.owe`."""
        self.gaps.owe(gap, self._reached())

    def pass_gaps(self) -> None:
        """Keep for repair what was told as a gap at a join and did not come although the stream went on."""
        self.gaps.reach(self._reached())

    def _reached(self) -> int:
        """Return the first open time that the stream still has to come to."""
        if self.last is None:
            return self.owed_from()
        return next_open(self.key.interval, self.last.time) if self.last_is_closed else self.last.time

    def repair(
        self,
        gap: SeriesGap,
        candles: Iterable[Candle],
        until: int | None = None,
        lost: Iterable[tuple[int, int]] = (),
    ) -> list[PriceUpdate]:
        """Take the candles of a gap after all; they are told as revised, since later ones were told already.

        `until` is the end that is answered for, None if it is the gap's. `lost` are those that cannot be had yet, as
        `fill` takes them. Nothing happens if the gap is gone.
        """
        if gap not in self.gaps.left:
            return []
        told = []
        for candle in candles:
            if not gap.start <= candle.time < gap.end or candle.time in self.closed:
                continue
            update = PriceUpdate(self.key, candle, is_closed=True, is_backfilled=True)
            if self.last is not None and candle.time == self.last.time:
                # Nothing later was told yet, so this is its ordinary closing.
                self._advance(candle, is_closed=True, event_ms=self._asked_ms)
            else:
                if self.last is None or candle.time > self.last.time:
                    self._mended[candle.time] = candle
                update = self._correct(update, self._asked_ms)
            told.append(update)
            self.backfilled += 1
        self.gaps.close(gap, gap.end if until is None else min(until, gap.end), lost)
        return told

    def revise(
        self,
        changed: Iterable[Candle],
        found: Iterable[Candle],
        asked_at: float,
        of_extras: Iterable[Candle] = (),
    ) -> list[PriceUpdate]:
        """Take what history says later of candles that are over; return what is to be told.

        `changed` have other values than before, `found` were taken not to exist, and `of_extras` carry other extras
        beside the same values; history was asked at `asked_at` of the provider's time, and what a feed said later
        stands. Of what is not told yet nothing is taken: it comes in its turn.
        """
        told: list[PriceUpdate] = []
        said = [
            *((candle, False, False) for candle in changed),
            *((candle, True, False) for candle in found),
            *((candle, False, True) for candle in of_extras),
        ]
        for candle, is_new, is_of_extras in said:
            time, last = candle.time, self.last
            if last is None or time > last.time or (time == last.time and not self.last_is_closed):
                continue
            if repeats(self.closed.get(time), candle) and time not in self.void:
                continue
            update = PriceUpdate(self.key, candle, is_closed=True, is_backfilled=is_new, is_of_extras=is_of_extras)
            if time in self.closed or (is_new and self._can_be_new(time)):
                told.extend(self._accept_past(update, int(asked_at * 1000)))
            elif not is_new:
                # Forgotten here, or older than the stream; not so by those who have it.
                told.append(self._correct(update, int(asked_at * 1000)))
        return told

    def learn_extras(self, candles: Iterable[Candle]) -> None:
        """Take what candles carry of which that was not known; nobody is told, since no value changed."""
        for candle in candles:
            known = self.closed.get(candle.time)
            if known is not None and newer_of(candle, known) is candle:
                self.closed[candle.time] = candle
                if self.last is known:
                    self.last = candle

    # -- a past that is another one ----------------------------------------------------------------

    def invalidate(self, span: Span) -> None:
        """Take it that the provider gave candles that open in a span other values; `void` has those that were told.

        They were told all the same: nothing is told a second time but as revised, and what is open is closed in its
        turn. What waits for history is asked for instead.
        """
        self.void |= {time for time in self.closed if span.start <= time < span.end}
        last = self.last
        if last is not None and span.start <= last.time < span.end:
            self.void.add(last.time)
        self._held = {time: held for time, held in self._held.items() if not span.start <= time < span.end}

    def restate(
        self, candles: Iterable[Candle], asked_at: float, unsure: Sequence[Span] = ()
    ) -> tuple[list[PriceUpdate], bool]:
        """Take what history has in the place of all void candles that are over; return what to tell.

        History was asked at `asked_at` of the provider's time. What was told meanwhile stands. Says as well whether it
        left one out, which does not exist any more then: nobody can be told that by an update. Of `unsure` spans, which
        are merged, it does not know yet.
        """
        told: list[PriceUpdate] = []
        for candle in candles:
            if candle.time in self.void and candle.time in self.closed:
                told.append(self._correct(PriceUpdate(self.key, candle, is_closed=True), int(asked_at * 1000)))
        gone = {time for time in self.void & self.closed.keys() if span_at(unsure, time) is None}
        for time in gone:
            del self.closed[time], self._closed_event_ms[time]
        self.void -= gone - {0 if self.last is None else self.last.time}
        return told, bool(gone)

    @property
    def valid_from(self) -> int:
        """The open time from which on nothing that is remembered is void."""
        return max(self.void, default=-1) + 1

    @property
    def valid(self) -> dict[int, Candle]:
        """The closed candles that are remembered and have these values still, by open time."""
        return {time: candle for time, candle in self.closed.items() if time not in self.void}

    def begin_anew(self, before: int | None) -> SeriesGap | None:
        """Forget all that opened before `before`, None: all but the newest candle; it is another instrument's past.

        What follows is asked for from there on, so nothing is told twice and `time` never goes back. Returns the
        candle that was told as open and that nobody will close, if there is one.
        """
        last = self.last
        if before is None:
            before = 0 if last is None else last.time
        self.closed = {time: candle for time, candle in self.closed.items() if time >= before}
        self._closed_event_ms = {time: self._closed_event_ms[time] for time in self.closed}
        self._held = {time: update for time, update in self._held.items() if time >= before}
        self.gaps.forget(before)
        self._mended = {time: candle for time, candle in self._mended.items() if time >= before}
        self.void = {time for time in self.void if time >= before}
        if last is None or last.time >= before:
            return None
        self._asked_until = max(self._asked_until, last.time + 1)
        if self.promised_at is not None:
            # What was told is owed to nobody again, nor what is told as a gap now.
            self.promised_at = max(self.promised_at, next_open(self.key.interval, last.time))
        lost = None if self.last_is_closed else SeriesGap(last.time, next_open(self.key.interval, last.time))
        self.last, self.last_is_closed = None, False
        return lost

    # -- what the supervisor and a snapshot ask ----------------------------------------------------

    def told_before(self, update: PriceUpdate) -> int | None:
        """Return the open time of the closed candle before this one, None if something may be missing between."""
        return None if update.is_revised else self.closed_before(update.candle.time)

    def closed_before(self, time: int) -> int | None:
        """Return the open time of the newest closed candle before `time`, None if something may be missing between."""
        before = next((other for other in reversed(self.closed) if other < time), None)
        if before is None or (self.gaps.left and self.gaps.touch(before, time)):
            return None
        return before

    def owed_from(self) -> int:
        """Return the first open time that a candle can have which closes after the promise."""
        return 0 if self.promised_at is None else _first_open(self.key.interval, self.promised_at)

    def told_from(self, now: float) -> int:
        """Return the open time from which on somebody who subscribes at `now` is told every candle."""
        if self.last is not None:
            return self.last.time
        return _first_open(self.key.interval, now if self.promised_at is None else self.promised_at)

    def is_owed(self, time: int) -> bool:
        """Say whether a candle closes after the promise: it has to be told even if nothing was told before."""
        return self.promised_at is not None and next_open(self.key.interval, time) > self.promised_at

    def is_to_come(self, time: int) -> bool:
        """Say whether a candle that is not told yet comes as an update to everybody who is subscribed by now."""
        if time in self._mended:
            return False
        return self.is_owed(time) if self.last is None else time > self.last.time

    def is_repeat(self, update: PriceUpdate) -> bool:
        """Say whether an update says what is known already: the newest candle as it is, or a closed one."""
        candle, last = update.candle, self.last
        if candle.time in self.void:
            return False
        if candle == last and (self.last_is_closed or not update.is_closed):
            return repeats(last, candle)
        return repeats(self.closed.get(candle.time), candle)

    def is_settled(self, time: int) -> bool:
        """Say whether a candle is told as closed, or was over before anything of the stream was promised."""
        if time in self.closed:
            return True
        return self.last is None and self.promised_at is not None and not self.is_owed(time)

    def due_at(self) -> int | None:
        """Return when the newest candle is over, or the following one if that is closed; None if unknown."""
        if self.last is None:
            return None
        interval, opened = self.key.interval, self.last.time
        return self.market.next_due(interval, opened) if self.last_is_closed else self.market.end_of(interval, opened)


def _rank(update: PriceUpdate) -> tuple[bool, int, int]:
    """Return what orders the updates of one candle by what they are worth, then by age."""
    return update.is_closed, worth(update.candle) if update.is_closed else 0, update.ts_event_ms or 0


def _can_follow(old: Candle, new: Candle) -> bool:
    """Say whether a state of an open candle can be later than another: it only grows."""
    return new != old and new.volume >= old.volume and new.high >= old.high and new.low <= old.low


def _first_open(interval: str, moment: float) -> int:
    """Return the first open time that a candle can have which closes after a moment."""
    if interval == "1M":
        # A month is up to three days shorter than its longest, and may begin by another zone's day.
        return open_time(interval, int(moment)) - _DAY_S
    return int(moment) - length_s(interval) + 1
