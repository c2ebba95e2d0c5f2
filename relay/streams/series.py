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

from relay.core.intervals import next_open
from relay.core.model import Candle, PriceUpdate, newer_of, repeats
from relay.core.spans import Span, span_at
from relay.streams.catching_up import CatchingUp
from relay.streams.gaps import SeriesGap


class Series(CatchingUp):
    """Decides what is told of one stream, and what of it is told again later.

    What it remembers is in `told_candles`, how live updates are judged in `judged_updates`, and how it catches up in
    `catching_up`; here is what is learnt of its past afterwards.
    """

    __slots__ = ()

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
            if self.is_owed(time) if last is None else time > last.time:
                continue
            if last is not None and time == last.time and not self.last_is_closed:
                continue
            known = self._known(time)
            if known is not None and repeats(known[0], candle) and time not in self.void:
                continue
            update = PriceUpdate(self.key, candle, is_closed=True, is_backfilled=is_new, is_of_extras=is_of_extras)
            if known is not None or (is_new and self._can_be_new(time)):
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
        self.unjudged = {time: one for time, one in self.unjudged.items() if not span.start <= time < span.end}
        self._recalled = {time: one for time, one in self._recalled.items() if not span.start <= time < span.end}

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
        self.given_to = -1
        self.unjudged.clear()
        self._recalled.clear()
        if last is None or last.time >= before:
            return None
        self._asked_until = max(self._asked_until, last.time + 1)
        if self.promised_at is not None:
            # What was told is owed to nobody again, nor what is told as a gap now.
            self.promised_at = max(self.promised_at, next_open(self.key.interval, last.time))
        lost = None if self.last_is_closed else SeriesGap(last.time, next_open(self.key.interval, last.time))
        self.last, self.last_is_closed = None, False
        return lost
