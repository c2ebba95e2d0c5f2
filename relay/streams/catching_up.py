"""How one stream catches up with what it missed: what history is asked for, and what becomes of its answer; pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, PriceUpdate, StreamKey, is_widened
from relay.streams.gaps import SeriesGap
from relay.streams.judged_updates import JudgedUpdates


class Missing(NamedTuple):
    """Open times to ask history for: `start` ≤ open time < `end`; `end` None means up to now."""

    start: int
    end: int | None


class CatchingUp(JudgedUpdates):
    """Takes what history says of what was missed, before the live updates that wait for it."""

    __slots__ = ("_asked_ms", "backfilled")

    def __init__(self, key: StreamKey, promised_at: float | None) -> None:
        super().__init__(key, promised_at)
        self.backfilled = 0
        # What history was asked for then is newer than updates with older stamps.
        self._asked_ms = 0

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


def _can_follow(old: Candle, new: Candle) -> bool:
    """Say whether a state of an open candle can be later than another: it only grows."""
    return new != old and new.volume >= old.volume and new.high >= old.high and new.low <= old.low
