"""The judgement of live updates of one stream: what is told at once, what waits for history, and what is late; pure."""

from collections.abc import Iterable, Mapping, Sequence

from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, PriceUpdate, StreamKey, is_bare, is_widened, newer_of, repeats, worth
from relay.streams.told_candles import REMEMBERED, ToldCandles

MOST_HELD = 512
"""Candles that wait for history at most; what is refused then leaves a hole, which is asked for in turn."""


class JudgedUpdates(ToldCandles):
    """Judges what a provider's feeds say of a stream, in whatever order and however often.

    What comes while `is_catching_up` is held. `unjudged` are updates of closed candles, by open time, that are not
    remembered here: somebody may have them from history, so that it has to be found out what they were. `given_to` is
    the open time of the newest one that somebody has, as far as that was before anything was told. If it
    `is_recorded`, nothing is missing between two candles that a feed tells.
    """

    __slots__ = (
        "_asked_until",
        "_held",
        "_newest_event_ms",
        "duplicates",
        "given_to",
        "has_told",
        "is_catching_up",
        "is_recorded",
        "late",
        "nonsense",
        "revised",
        "unjudged",
    )

    def __init__(self, key: StreamKey, promised_at: float | None) -> None:
        super().__init__(key, promised_at)
        self.is_recorded = False
        self.is_catching_up = False
        self.has_told = False
        self.unjudged: dict[int, PriceUpdate] = {}
        self.given_to = -1
        self.duplicates = self.late = self.revised = self.nonsense = 0
        # Of what opened before it history has said everything.
        self._asked_until = 0
        self._held: dict[int, PriceUpdate] = {}
        self._newest_event_ms = 0

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
        if last is None and candle.time <= self.given_to and update.is_closed and not self.is_owed(candle.time):
            return self._accept_past(update, event_ms)
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
        if time in self.void:
            return (self._correct(update, event_ms),)
        if (found := self._known(time)) is None:
            if not self._can_be_new(time):
                self._leave_unjudged(update)
                return ()
            return (self._correct(update, event_ms),)
        known, known_ms = found
        if repeats(known, candle):
            self.duplicates += 1
            best = max(known, candle, key=lambda one: (worth(one), not is_bare(one)))
            self._keep(best, max(known_ms, event_ms))
            return ()
        if worth(candle) < worth(known):
            self.nonsense += 1
            return ()
        # The same news arrives over several connections: an older one must not undo a newer one.
        if worth(candle) == worth(known) and 0 < event_ms < known_ms:
            self.late += 1
            return ()
        return (self._correct(update._replace(is_of_extras=known == candle), event_ms),)

    def _leave_unjudged(self, update: PriceUpdate) -> None:
        time = update.candle.time
        before = self.unjudged.get(time)
        if before is not None and _rank(update) < _rank(before):
            self.late += 1
        elif before is not None or len(self.unjudged) < MOST_HELD:
            self.unjudged[time] = update
        else:
            self.nonsense += 1

    def judge(
        self,
        updates: Iterable[PriceUpdate],
        known: Mapping[int, tuple[Candle, float]],
        *,
        tells_unknown: bool = False,
    ) -> list[PriceUpdate]:
        """Judge updates that were `unjudged` by what is known of closed candles; return what is to be told, as revised.

        What somebody may have is among those that are `known`, each with the provider's time from which on what is
        said of it is newer. With `tells_unknown` the others are told as well. What came meanwhile is judged in its
        turn.
        """
        told: list[PriceUpdate] = []
        for update in updates:
            time = update.candle.time
            if self.unjudged.get(time) == update:
                del self.unjudged[time]
            if self._known(time) is None and time in known:
                candle, known_from = known[time]
                self._recall(candle, int(known_from * 1000))
            event_ms = update.ts_event_ms or 0
            if self._known(time) is not None or self._can_be_new(time):
                told.extend(self._accept_past(update, event_ms))
            elif tells_unknown:
                told.append(self._correct(update, event_ms))
            else:
                self.late += 1
        return told

    def accept_settled(self, update: PriceUpdate) -> Sequence[PriceUpdate]:
        """Take a live update of a candle that `is_settled`; return what subscribers are to be told now, as revised."""
        return () if update.candle.time in self.void else self._accept_past(update, update.ts_event_ms or 0)

    def _correct(self, update: PriceUpdate, event_ms: int) -> PriceUpdate:
        """Take what a candle that is over is now; return what is to be told."""
        candle = update.candle
        self.gaps.settle(candle.time)
        self.void.discard(candle.time)
        # What is older than all that the stream told is no part of what it answers for.
        if self.is_owed(candle.time) or candle.time >= next(iter(self.closed), candle.time + 1):
            self._remember(candle, event_ms)
        if candle.time not in self.closed:
            self._recall(candle, event_ms)
        if self.last is not None and candle.time == self.last.time:
            self.last = candle
        self.revised += 1
        return update._replace(is_revised=True)

    def _keep(self, candle: Candle, event_ms: int) -> None:
        """Take what a known closed candle is in the place that it has."""
        if candle.time in self.closed:
            self.closed[candle.time] = candle
            self._closed_event_ms[candle.time] = event_ms
        else:
            self._recall(candle, event_ms)

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


def _rank(update: PriceUpdate) -> tuple[bool, int, int]:
    """Return what orders the updates of one candle by what they are worth, then by age."""
    return update.is_closed, worth(update.candle) if update.is_closed else 0, update.ts_event_ms or 0
