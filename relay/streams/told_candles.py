"""What one stream has told: its newest candle, the closed ones that are remembered, and what it owes; pure."""

from relay.core.intervals import length_s, next_open, open_time
from relay.core.model import Candle, PriceUpdate, StreamKey, repeats
from relay.core.trading_hours import TradingHours
from relay.streams.gaps import Gaps

_DAY_S = 86_400

REMEMBERED = 128
"""Closed candles kept to recognise repeats and revisions, and to join a snapshot to the live stream."""
RECALLED = 512
"""Others that are kept once a provider sent them again."""


class ToldCandles:
    """What was told of a stream, as far as it is remembered, and what has to be told.

    `promised_at` is the provider's time (Unix seconds) from which every closing candle has to be told, or None when
    nothing that happened before the first update matters (a provider without history). While its `market` is closed
    there are no candles: none is missed, and no gap names one. Candles that open at `void` times, which are remembered,
    have other values by now, which are not known yet: whatever is said of them is news.
    `_recalled` are closed candles that the stream does not answer for, older ones above all, but of which it came up
    what they are: with the provider's time of that, in milliseconds.
    """

    __slots__ = (
        "_closed_event_ms",
        "_last_event_ms",
        "_mended",
        "_recalled",
        "closed",
        "gaps",
        "key",
        "last",
        "last_is_closed",
        "market",
        "promised_at",
        "void",
    )

    def __init__(self, key: StreamKey, promised_at: float | None) -> None:
        self.key = key
        self.promised_at = promised_at
        self.market = TradingHours()
        self.last: Candle | None = None
        self.last_is_closed = False
        self.closed: dict[int, Candle] = {}
        self.void: set[int] = set()
        self.gaps = Gaps(key.interval)
        # What repairs told before the stream came to it.
        self._mended: dict[int, Candle] = {}
        self._recalled: dict[int, tuple[Candle, int]] = {}
        self._closed_event_ms: dict[int, int] = {}
        self._last_event_ms = 0

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
        self._recalled.pop(candle.time, None)
        if not is_newest:
            self.closed = closed = dict(sorted(closed.items()))
        if len(closed) > REMEMBERED:
            oldest = next(iter(closed))
            del closed[oldest]
            del self._closed_event_ms[oldest]
            self.void.discard(oldest)

    def _recall(self, candle: Candle, event_ms: int) -> None:
        recalled = self._recalled
        recalled.pop(candle.time, None)
        recalled[candle.time] = candle, event_ms
        if len(recalled) > RECALLED:
            del recalled[next(iter(recalled))]

    # -- what is known of it -----------------------------------------------------------------------

    def _known(self, time: int) -> tuple[Candle, int] | None:
        """Return what a closed candle is as far as that is known here, and as of when."""
        candle = self.closed.get(time)
        return self._recalled.get(time) if candle is None else (candle, self._closed_event_ms[time])

    def told_before(self, update: PriceUpdate) -> int | None:
        """Return the open time of the closed candle before this one, None if something may be missing between."""
        return None if update.is_revised else self.closed_before(update.candle.time)

    def closed_before(self, time: int) -> int | None:
        """Return the open time of the newest closed candle before `time`, None if something may be missing between."""
        before = next((other for other in reversed(self.closed) if other < time), None)
        if before is None or (self.gaps.left and self.gaps.touch(before, time)):
            return None
        return before

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

    @property
    def valid_from(self) -> int:
        """The open time from which on nothing that is remembered is void."""
        return max(self.void, default=-1) + 1

    @property
    def valid(self) -> dict[int, Candle]:
        """The closed candles that are remembered and have these values still, by open time."""
        return {time: candle for time, candle in self.closed.items() if time not in self.void}

    @property
    def recalled(self) -> list[Candle]:
        """The closed candles, in no order, that the stream does not answer for and that somebody was told of."""
        return [candle for candle, _ in self._recalled.values()]

    # -- what is owed ------------------------------------------------------------------------------

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


def _first_open(interval: str, moment: float) -> int:
    """Return the first open time that a candle can have which closes after a moment."""
    if interval == "1M":
        # A month is up to three days shorter than its longest, and may begin by another zone's day.
        return open_time(interval, int(moment)) - _DAY_S
    return int(moment) - length_s(interval) + 1
