"""A stream of a longer interval made of what a stream of a shorter one tells; pure: no I/O, no clock.

What a stream tells is complete and in order, so a sum and the candle that forms are all that is kept of a period. Where
a part was told before this began, is missing, or is revised, the period is `lacking` until `complete` brings all of it
from history. Nothing is told of it meanwhile, nor that it closed if it ends so: then its series asks history.
"""

from collections.abc import Callable, Iterable

from relay.core.candle_sum import CandleSum
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.periods import CandlePeriod, Periods
from relay.streams.gaps import SeriesGap


class CandleFold:
    """Makes the updates of the stream `key`. That of shorter candles tells each one that opens at `since()` or later.

    The first one of a recording, which may begin anywhere, need not be the first one of its period. `follows` has the
    open time of the period before the present one if that was told as closed and nothing is missing between. `revised`
    has the open times of periods that were over and of which a part was told as revised, oldest news first:
    whoever asks history for them takes them out.
    """

    def __init__(
        self, key: StreamKey, periods: Periods, since: Callable[[], float], *, is_recorded: bool = False
    ) -> None:
        self.key = key
        self.follows: int | None = None
        self.revised: dict[int, None] = {}
        self._periods = periods
        self._since = since
        self._is_recorded = is_recorded
        self._period: CandlePeriod | None = None
        self._left_out: CandlePeriod | None = None
        self._is_told_closed = False
        # None while the period is lacking; what is told of it meanwhile is in `_told`.
        self._sum: CandleSum | None = None
        self._told: dict[int, Candle] = {}
        self._newest = -1
        self._forming: PriceUpdate | None = None
        self._gaps: list[SeriesGap] = []

    @property
    def lacking(self) -> CandlePeriod | None:
        """The period of which a part is not known, None if there is none."""
        is_lacking = self._sum is None and not self._is_told_closed and self._period != self._left_out
        return self._period if is_lacking else None

    def take(self, update: PriceUpdate) -> list[PriceUpdate]:
        """Take an update that the other stream told; return those that follow from it."""
        candle = update.candle
        time = candle.time
        period, current = self._periods.holding(time), self._period
        told: list[PriceUpdate] = []
        if period == self._left_out:
            return told
        if not self._periods.counts(time):
            # It says only that nothing more of the period before follows.
            if current is not None and time >= current.ends and (told := self._end(update)):
                self._is_told_closed = True
            return told
        if current is None or period.opens > current.opens:
            told = self._end(update)
            is_closed = bool(told) or self._is_told_closed
            self.follows = current.opens if current is not None and is_closed and self._join(current, period) else None
            may_be_cut = self._is_recorded and current is None and not self._periods.is_begun_by(time, period)
            self._begin(period, may_be_cut=may_be_cut)
        elif period.opens < current.opens or self._is_told_closed:
            if update.is_closed:
                self._revise(period)
            return told
        if not update.is_closed:
            if time <= self._newest:
                return told
            self._forming = update
        else:
            if self._forming is not None and self._forming.candle.time <= time:
                self._forming = None
            if update.is_revised or time <= self._newest:
                self._sum = None
            if self._sum is None:
                self._told[time] = candle
            else:
                self._sum.add(candle)
            self._newest = max(self._newest, time)
        return told + self._state(update.ts_event_ms)

    def lose(self, gap: SeriesGap) -> None:
        """Take it that the other stream told a gap."""
        self._gaps.append(gap)
        current = self._period
        if current is not None:
            self._gaps = [one for one in self._gaps if one.end > current.opens]
            if not self._is_told_closed and self._is_touched(current):
                self._sum = None

    def complete(self, candles: Iterable[Candle], forming: Candle | None) -> list[PriceUpdate]:
        """Take all candles of the period that is lacking from history, and the open one; return what follows.

        What was told meanwhile stands.
        """
        period = self.lacking
        if period is None:
            return []
        known = {one.time: one for one in candles if self._is_in(one, period)} | self._told
        self._sum = CandleSum(period.opens, (known[time] for time in sorted(known)))
        self._newest = max(known, default=self._newest)
        self._told = {}
        self._gaps = [gap for gap in self._gaps if gap.end > period.ends]
        if self._forming is not None and self._forming.candle.time <= self._newest:
            self._forming = None
        is_newer = forming is not None and self._forming is None and forming.time > self._newest
        if forming is not None and is_newer and self._is_in(forming, period):
            self._forming = PriceUpdate(self.key, forming)
        return self._state(None)

    def begin_anew(self) -> None:
        """Take it that the past of the other stream is another one: the period is lacking, and what is over is gone."""
        self._left_out = None
        self._sum, self._told, self._newest, self._forming = None, {}, -1, None
        self.revised.clear()

    def lack(self) -> None:
        """Take it that what was told of the period is not what history says any more."""
        self._sum = None
        self._told = {}

    def leave_out(self) -> None:
        """Take it that a part of the period that is lacking will never be known: nothing is told of it."""
        self._left_out = self.lacking

    def _is_in(self, candle: Candle, period: CandlePeriod) -> bool:
        return self._periods.holding(candle.time) == period and self._periods.counts(candle.time)

    def _begin(self, period: CandlePeriod, *, may_be_cut: bool) -> None:
        self._period, self._is_told_closed = period, False
        self._told, self._newest, self._forming = {}, -1, None
        is_whole = period.opens >= self._since() and not may_be_cut and not self._is_touched(period)
        self._sum = CandleSum(period.opens) if is_whole else None

    def _is_touched(self, period: CandlePeriod) -> bool:
        return any(gap.start < period.ends and period.opens < gap.end for gap in self._gaps)

    def _join(self, before: CandlePeriod, period: CandlePeriod) -> bool:
        """Say whether no gap has a part between two periods."""
        return not any(gap.start < period.opens and before.ends < gap.end for gap in self._gaps)

    def _revise(self, period: CandlePeriod) -> None:
        self.revised.pop(period.opens, None)
        self.revised[period.opens] = None

    def _end(self, update: PriceUpdate) -> list[PriceUpdate]:
        """Close the period before the one of an update, if all of it is known."""
        total = self._sum
        if total is None or self._is_told_closed or self._forming is not None or not total.count:
            return []
        return [PriceUpdate(self.key, total.candle(), is_closed=True, ts_event_ms=update.ts_event_ms)]

    def _state(self, stamp_ms: int | None) -> list[PriceUpdate]:
        total, period = self._sum, self._period
        if total is None or period is None:
            return []
        if self._forming is not None:
            return [PriceUpdate(self.key, total.with_next(self._forming.candle).candle(), ts_event_ms=stamp_ms)]
        if not total.count:
            return []
        self._is_told_closed = self._periods.is_over_with(self._newest, period)
        return [PriceUpdate(self.key, total.candle(), is_closed=self._is_told_closed, ts_event_ms=stamp_ms)]
