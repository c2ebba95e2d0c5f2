"""Long candles built of short ones, and what of an answer about them may be missing; pure."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from relay.core.candle_sum import CandleSum
from relay.core.derived_intervals import Derivation
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle
from relay.core.periods import CandlePeriod, Periods
from relay.core.spans import FOREVER, Span, clip_spans
from relay.history.doubts import holes_beside
from relay.history.requests import HistoryRequest, PastCandles


class PartsSaid(NamedTuple):
    """What is known of short candles beside those that are over.

    `is_first` says that the first of them is the first one of its period, whenever it opened. With `may_go_on` the last
    of them need not be the last one of its period, whatever time it is. `asked_at` is as for `PastCandles`.
    """

    forming: Candle | None
    is_complete: bool
    unreadable: Sequence[Span]
    doubted: Sequence[Span]
    is_first: bool
    may_go_on: bool = False
    asked_at: float | None = None


class FoldedCandles:
    """Long candles as far as they are built, by period, oldest first; parts come in runs that continue each other."""

    def __init__(self, derivation: Derivation) -> None:
        self._periods = derivation.periods
        self.sums: dict[CandlePeriod, CandleSum] = {}
        self.first: dict[CandlePeriod, int] = {}
        self.last: dict[CandlePeriod, int] = {}

    def _runs(self, candles: Iterable[Candle]) -> Iterable[tuple[CandlePeriod, list[Candle]]]:
        for period, run in groupby(candles, lambda candle: self._periods.holding(candle.time)):
            yield period, list(run)

    def with_newer(self, candles: Iterable[Candle]) -> "FoldedCandles":
        """Add candles that follow those that are there."""
        for period, run in self._runs(candles):
            total = self.sums.get(period)
            if total is None:
                total = self.sums[period] = CandleSum(period.opens)
                self.first[period] = run[0].time
            for candle in run:
                total.add(candle)
            self.last[period] = run[-1].time
        return self

    def with_older(self, candles: Iterable[Candle]) -> None:
        """Add candles that come before those that are there."""
        older: dict[CandlePeriod, CandleSum] = {}
        for period, run in self._runs(candles):
            older[period] = CandleSum(period.opens, run)
            if (known := self.sums.pop(period, None)) is not None:
                older[period].extend(known)
            self.first[period] = run[0].time
            self.last.setdefault(period, run[-1].time)
        self.sums = older | self.sums

    def count_from(self, start: int) -> int:
        """Return how many periods open at a time or later."""
        return sum(period.opens >= start for period in self.sums)

    def count_until(self, end: int | None) -> int:
        """Return how many periods open up to a time."""
        return len(self.sums) if end is None else sum(period.opens <= end for period in self.sums)


def built_of(
    asked: HistoryRequest, derivation: Derivation, parts: PartsSaid, folded: FoldedCandles, asked_at: float
) -> tuple[PastCandles, tuple[Span, ...]]:
    """Return the answer that short candles make, and which candles of it may lack a part.

    Where each interval has a candle, those are left out, and so is the open one, unless that is only too new.
    """
    source, interval, periods = asked.source, asked.key.interval, derivation.periods
    sums, is_open_at_end = folded.sums, None
    if parts.forming is not None:
        period = is_open_at_end = periods.holding(parts.forming.time)
        known = sums.get(period)
        sums[period] = CandleSum(period.opens) if known is None else known
        sums[period].add(parts.forming)
        folded.first.setdefault(period, parts.forming.time)
    elif sums:
        period = [*sums][-1]
        if not periods.is_over_with(folded.last[period], period):
            waited_s = source.info.close_grace_s + (0.0 if asked.must_be_new else source.info.fresh_s)
            if parts.may_go_on or asked_at < period.ends + waited_s:
                is_open_at_end = period
            elif asked.start is not None and not parts.is_complete:
                del sums[period]
    if sums:
        oldest = next(iter(sums))
        if not (parts.is_first or is_begun_by(folded.first[oldest], oldest, derivation)):
            del sums[oldest]
    counting = [span for span in parts.unreadable if periods.counts(span.start) or periods.counts(span.end - 1)]
    lost = {periods.holding(span.start) for span in counting}
    doubted = [period for span in parts.doubted for period in _touched(folded, periods, span)]
    if source.info.has_every_candle:
        settled_at = asked_at - source.info.close_grace_s
        for period in doubted:
            if period != is_open_at_end or lacks_one(period, parts.doubted, derivation, settled_at):
                sums.pop(period, None)
    for period in lost:
        sums.pop(period, None)
    low, high = asked.start or 0, FOREVER if asked.end is None else asked.end + 1
    chosen = [period for period in sums if low <= period.opens < high]
    if len(chosen) > asked.limit:
        chosen = chosen[-asked.limit :] if asked.start is None else chosen[: asked.limit]
    if len(chosen) >= asked.limit and chosen:
        low, high = (chosen[0].opens, high) if asked.start is None else (low, chosen[-1].opens + 1)
    unreadable = _spans_of(lost, interval, low, high)
    times = [period.opens for period in chosen]
    of_parts = [Span(periods.holding(span.start).opens, span.end) for span in parts.doubted]
    of_parts += [Span(*period) for period in doubted if period not in sums and period != is_open_at_end]
    holes = [hole for span in clip_spans(of_parts, low, high) for hole in holes_beside(times, span, interval)]
    past = PastCandles(
        tuple(sums[period].candle() for period in chosen),
        not chosen or chosen[-1] != is_open_at_end,
        parts.is_complete and not unreadable,
        unreadable=unreadable if parts.is_complete else (),
        doubted=tuple(holes),
        asked_at=parts.asked_at,
    )
    return past, _spans_of({*doubted} & {*chosen}, interval, low, high)


def lacks_one(period: CandlePeriod, doubted: Iterable[Span], derivation: Derivation, moment: float) -> bool:
    """Say whether a part of the open candle is in doubt, of those that were over at a moment."""
    until = int(moment) - length_s(derivation.base)
    return any(derivation.periods.is_traded_in(period, span.start, min(span.end, until)) for span in doubted)


def _touched(folded: FoldedCandles, periods: Periods, span: Span) -> Iterator[CandlePeriod]:
    """Yield the periods, oldest first, of which a part may have opened in a span."""
    order = [*folded.sums]
    for place in range(bisect_right(order, span.start, key=_ends_of), len(order)):
        if order[place].opens >= span.end:
            break
        if periods.is_traded_in(order[place], *span):
            yield order[place]


def _ends_of(period: CandlePeriod) -> int:
    return period.ends


def _spans_of(periods: Iterable[CandlePeriod], interval: str, low: int, high: int) -> tuple[Span, ...]:
    return tuple(Span(one.opens, next_open(interval, one.opens)) for one in sorted(periods) if low <= one.opens < high)


def is_begun(candle: Candle, derivation: Derivation) -> bool:
    """Say whether no short candle can have opened before this one in its period."""
    return is_begun_by(candle.time, derivation.periods.holding(candle.time), derivation)


def is_begun_by(opened: int, period: CandlePeriod, derivation: Derivation) -> bool:
    """Say whether no part of a period can have opened before the short candle that opened then."""
    listed_at = derivation.listed_at
    return (listed_at is not None and listed_at >= period.opens) or derivation.periods.is_begun_by(opened, period)
