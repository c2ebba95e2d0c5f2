"""The past of an interval that a provider lacks: built of its shorter candles for each answer, and never stored.

So it is what they say by now, whatever was revised or found since, and costs the provider what they cost: what is known
of them is not asked for again.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from relay.core.derived_intervals import Derivation
from relay.core.intervals import length_s
from relay.core.model import Candle, StreamKey, parted
from relay.core.periods import CandlePeriod
from relay.core.spans import Span, clip_spans, merge_spans
from relay.history.built_candles import FoldedCandles, PartsSaid, built_of, is_begun, lacks_one
from relay.history.known_answers import EncodedCandles, encoded_past
from relay.history.live_edge import LiveEdge
from relay.history.requests import CallAllowance, CandleSource, HistoryRequest, PastCandles
from relay.storage.revisions import Revisions

_PAGE = 2000
"""So many short candles are put together at a time: that takes some ten milliseconds."""
_CLOCKS_S = 3600
"""A month may be longer by an hour, when clocks are set back."""
_MOST_STORED = 50_000
"""So many short candles are read at most where the provider cannot be asked."""
_MOST_RANGES = 100
"""Ranges of revised candles that one answer may ask for."""
_FEW = 100
"""Our own bound: a venue that keeps so few candles of an instrument keeps all of them, and the oldest is its first.

A recording may begin anywhere.
"""


class ShortPast(Protocol):
    """History of the candles that a provider has."""

    async def candles(self, asked: HistoryRequest) -> PastCandles:
        """Return what is asked for."""
        ...

    async def stored(self, asked: HistoryRequest) -> PastCandles:
        """Return of the last candles those that are known."""
        ...


class PeriodParts(NamedTuple):
    """What history says of a period: the candles that are over, the open one, and whether none of them is missing.

    With `is_cut` it is final that some are: a recording begins within the period. It is the answer of a question that
    was asked at `asked_at` of the provider's time, which somebody else may have done.
    """

    closed: Sequence[Candle]
    forming: Candle | None
    is_whole: bool
    asked_at: float
    is_cut: bool = False


class DerivedHistory:
    """Builds answers. `edge_of` gives what a live stream knows of the present, so that nobody is asked for it."""

    def __init__(
        self,
        past: ShortPast,
        version: Callable[[str, StreamKey], int],
        monotonic: Callable[[], float],
        *,
        most_stored: int = _MOST_STORED,
    ) -> None:
        self._most_stored = most_stored
        self.edge_of: Callable[[CandleSource, StreamKey], LiveEdge | None] = _no_edge
        self._past = past
        self._version = version
        self._monotonic = monotonic

    # -- answers -----------------------------------------------------------------------------------

    async def candles(self, asked: HistoryRequest, derivation: Derivation) -> PastCandles:
        """Return what is asked for. Raises what history of the short candles raises."""
        past, _ = await self._candles(asked, derivation)
        return past

    async def _candles(self, asked: HistoryRequest, derivation: Derivation) -> tuple[PastCandles, tuple[Span, ...]]:
        """Return what is asked for, and which candles of it may lack a part."""
        if asked.limit <= 0:
            return PastCandles((), True, True), ()
        asked_at = _settled_at(asked.source)
        collect = self._backwards if asked.start is None else self._forwards
        parts, folded = await collect(asked, derivation)
        if parts.asked_at is not None:
            # Somebody else may have asked before.
            asked_at = min(asked_at, asked.source.clock.at(parts.asked_at))
        if asked.source.info.is_recorded and folded.sums and parts.forming is None:
            parts = parts._replace(may_go_on=await self._may_go_on(asked, derivation, folded))
        return built_of(asked, derivation, parts, folded, asked_at)

    async def _may_go_on(self, asked: HistoryRequest, derivation: Derivation, folded: FoldedCandles) -> bool:
        """Say whether the newest candle of a recording may lack parts, whatever time it is: it may end anywhere.

        A short candle that opened later says that the recording goes on, and that there was none between.
        """
        period = [*folded.sums][-1]
        if derivation.periods.is_over_with(folded.last[period], period):
            return False
        after = await self._past.candles(self._request(asked, derivation, period.ends, None, 1))
        return not after.candles

    async def text(self, asked: HistoryRequest, derivation: Derivation) -> EncodedCandles:
        """Return what `candles` does, encoded. It holds until what is stored of the short candles changes."""
        source, base = asked.source, _base_key(asked.key, derivation)
        version, edge = self._version(source.name, base), self.edge_of(source, base)
        began_at = self._monotonic()
        past, doubted = await self._candles(asked, derivation)
        found = encoded_past(asked, past)
        found = found._replace(doubted=(*found.doubted, *doubted))
        if version < 0:
            version = self._version(source.name, base)
        end = asked.end
        is_of_present = end is None or end + length_s(asked.key.interval) > _settled_at(source)
        if not past.is_complete or found.doubted or version < 0:
            return found

        def is_current() -> bool:
            if version != self._version(source.name, base):
                return False
            if not is_of_present:
                return True
            return edge.is_current() if edge is not None else self._monotonic() - began_at < source.info.fresh_s

        return found._replace(is_current=is_current)

    async def stored(self, asked: HistoryRequest, derivation: Derivation) -> PastCandles:
        """Return of what is asked for what is known without asking the provider, and what is `known` of it."""
        asked_at = _settled_at(asked.source)
        start = None if asked.start is None else max(0, asked.start - derivation.periods.ahead_s)
        end = None if asked.end is None else asked.end + length_s(asked.key.interval) + _CLOCKS_S
        # Of what comes before the range and behind it, too.
        most = min(self._most_stored, (asked.limit + 3) * _parts_of(derivation))
        past = await self._past.stored(self._request(asked, derivation, start, end, most))
        is_cut = start is not None and len(past.candles) >= most
        closed, forming = _parted(past, derivation)
        parts = PartsSaid(forming, False, past.unreadable, past.doubted, False, asked.source.info.is_recorded)
        built, _ = built_of(asked, derivation, parts, FoldedCandles(derivation).with_newer(closed), asked_at)
        # What is before the first candle that is known completely may lack a part.
        periods = derivation.periods
        known: list[Span] = []
        for span in past.known:
            inside = [one.time for one in past.candles if span.start <= one.time < span.end]
            if inside:
                first, last = periods.holding(inside[0]), periods.holding(inside[-1])
                is_begun = span.start <= first.opens or periods.is_begun_by(inside[0], first)
                # What is known ends right behind a candle.
                is_over = span.end >= last.ends or periods.is_over_with(inside[-1], last)
                known.append(Span(first.opens if is_begun else first.ends, last.ends if is_over else last.opens))
        spans = tuple(merge_spans(known))
        if is_cut:
            # The last period may have more parts.
            spans = tuple(clip_spans(spans, 0, periods.holding(past.candles[-1].time).opens))
        whole = [one for one in built.candles if any(span.start <= one.time < span.end for span in spans)]
        if built.candles and not built.last_is_closed and built.candles[-1] not in whole:
            return PastCandles(tuple(whole), True, False, known=spans, doubted=built.doubted)
        return PastCandles(tuple(whole), built.last_is_closed or not whole, False, known=spans, doubted=built.doubted)

    async def parts(
        self,
        source: CandleSource,
        key: StreamKey,
        derivation: Derivation,
        period: CandlePeriod,
        *,
        must_be_new: bool = False,
    ) -> "PeriodParts":
        """Return the short candles of a period up to now. Raises what history of the short candles raises."""
        asked = HistoryRequest(source, key, None, None, 1, must_be_new=must_be_new, extended=True)
        start, asked_at = max(0, period.opens - derivation.periods.ahead_s), source.clock.now()
        past = await self._past.candles(self._request(asked, derivation, start, None, _parts_of(derivation) + _PAGE))
        asked_at = past.asked_by(source.clock, asked_at)
        closed, forming = _parted(past, derivation)
        holding = derivation.periods.holding
        inside = [candle for candle in closed if holding(candle.time) == period]
        first = next(iter(inside), forming)
        is_first = first is None or is_begun(first, derivation)
        if first is not None and not is_first and past.is_whole:
            is_first, _ = await self._is_first(asked, derivation, first, len(past.candles))
        lacks = any(derivation.periods.is_traded_in(period, *span) for span in past.unreadable)
        if source.info.has_every_candle:
            lacks = lacks or lacks_one(period, past.doubted, derivation, _settled_at(source))
        is_cut = source.info.is_recorded and past.is_complete and not is_first
        return PeriodParts(inside, forming, past.is_whole and is_first and not lacks, asked_at, is_cut)

    async def revisions(
        self, source: CandleSource, key: StreamKey, derivation: Derivation, of_parts: Revisions, *, extended: bool
    ) -> Revisions:
        """Return the closed candles of which a part was revised, as they are now."""
        of_long = derivation.periods
        periods = sorted({of_long.holding(one.time) for one in of_parts.candles if of_long.counts(one.time)})
        found: list[Candle] = []
        is_complete = of_parts.is_complete
        ranges = list(_ranges(periods))
        for first, last in ranges[-_MOST_RANGES:]:
            count = (last - first) // length_s(key.interval) + 2
            asked = HistoryRequest(source, key, first, last, count, extended=extended)
            past = await self.candles(asked, derivation)
            is_complete = is_complete and past.is_whole
            closed, _ = parted(past.candles, past.last_is_closed)
            opens = {period.opens for period in periods}
            found += [one for one in closed if one.time in opens]
        return Revisions(found, is_complete and len(ranges) <= _MOST_RANGES, of_parts.is_forgotten)

    # -- the short candles ---------------------------------------------------------------------------

    def _request(
        self, asked: HistoryRequest, derivation: Derivation, start: int | None, end: int | None, limit: int
    ) -> HistoryRequest:
        source, base = asked.source, _base_key(asked.key, derivation)
        return dataclasses.replace(
            asked, key=base, start=start, end=end, limit=limit, live=lambda: self.edge_of(source, base)
        )

    async def _forwards(self, asked: HistoryRequest, derivation: Derivation) -> "tuple[PartsSaid, FoldedCandles]":
        allowance = asked.allowance or CallAllowance()
        asked = dataclasses.replace(asked, allowance=allowance)
        begin = max(0, asked.start or 0)
        start = max(0, begin - derivation.periods.ahead_s)
        end = None if asked.end is None else asked.end + length_s(asked.key.interval) + _CLOCKS_S
        folded = FoldedCandles(derivation)
        forming: Candle | None = None
        is_complete, count, first = True, 0, None
        asked_at: float | None = None
        unreadable: list[Span] = []
        doubted: list[Span] = []
        while True:
            past = await self._past.candles(self._request(asked, derivation, start, end, _PAGE))
            closed, forming = _parted(past, derivation)
            folded.with_newer(closed)
            is_complete = past.is_whole
            unreadable += past.unreadable
            doubted += past.doubted
            asked_at = past.asked_at if asked_at is None else asked_at
            count += len(past.candles)
            if first is None and past.candles:
                first = past.candles[0]
            # The last period may go on.
            if not past.is_whole or len(past.candles) < _PAGE or folded.count_from(begin) > asked.limit:
                break
            start = past.candles[-1].time + 1
            await asyncio.sleep(0)
        is_first = first is None or is_begun(first, derivation)
        if first is not None and not is_first and is_complete:
            is_first, _ = await self._is_first(asked, derivation, first, count if end is None else _FEW)
        return PartsSaid(forming, is_complete, unreadable, doubted, is_first, asked_at=asked_at), folded

    async def _is_first(
        self, asked: HistoryRequest, derivation: Derivation, first: Candle, count: int
    ) -> tuple[bool, Sequence[Span]]:
        """Say whether a candle that does not begin its period is the first part of it all the same.

        It is if one of another period is known before it: then there was none between. Else the venue may keep no older
        ones. Returns as well where in the period an older one is in doubt, as where one was found just now.
        """
        period = derivation.periods.holding(first.time)
        before = await self._past.candles(self._request(asked, derivation, None, first.time - 1, 1))
        older = before.candles[-1].time if before.candles else None
        if older is not None and derivation.periods.holding(older) == period and derivation.periods.counts(older):
            return False, [Span(*period)]
        doubted = clip_spans(before.doubted, period.opens, first.time)
        return bool(before.candles) or _has_all_of(asked.source, count), doubted

    async def _backwards(self, asked: HistoryRequest, derivation: Derivation) -> "tuple[PartsSaid, FoldedCandles]":
        allowance = asked.allowance or CallAllowance()
        asked = dataclasses.replace(asked, allowance=allowance)
        end = None if asked.end is None else asked.end + length_s(asked.key.interval) + _CLOCKS_S
        most = min(_PAGE, (asked.limit + 2) * _parts_of(derivation))
        folded = FoldedCandles(derivation)
        forming: Candle | None = None
        is_complete, count, first = True, 0, None
        asked_at: float | None = None
        unreadable: list[Span] = []
        doubted: list[Span] = []
        while True:
            past = await self._past.candles(self._request(asked, derivation, None, end, most))
            closed, open_candle = _parted(past, derivation)
            forming = open_candle or forming
            folded.with_older(closed)
            is_complete = past.is_whole
            unreadable += past.unreadable
            doubted += past.doubted
            asked_at = past.asked_at if asked_at is None else asked_at
            count += len(past.candles)
            first = next(iter(past.candles), first)
            is_end = len(past.candles) < most
            # The first one may lack its beginning.
            if not past.is_whole or is_end or folded.count_until(asked.end) > asked.limit + 1:
                break
            end, most = past.candles[0].time - 1, _PAGE
            await asyncio.sleep(0)
        is_first = is_complete and is_end and _has_all_of(asked.source, count)
        if is_first and first is not None and not is_begun(first, derivation):
            # An answer that leaves out others may leave out the oldest, too.
            is_first, unsure = await self._is_first(asked, derivation, first, count)
            doubted += unsure
        return PartsSaid(forming, is_complete, unreadable, doubted, is_first, asked_at=asked_at), folded


def _has_all_of(source: CandleSource, count: int) -> bool:
    """Say whether a source has `count` candles of an instrument because there are no more."""
    return count < _FEW and not source.info.is_recorded


def _parted(past: PastCandles, derivation: Derivation) -> tuple[Sequence[Candle], Candle | None]:
    """Return the candles that are over, and the one that is open; those that are in no long candle are left out."""
    counts = derivation.periods.counts
    closed, forming = parted(past.candles, past.last_is_closed)
    return [one for one in closed if counts(one.time)], forming if forming and counts(forming.time) else None


def _parts_of(derivation: Derivation) -> int:
    """Return how many short candles a long one has at most."""
    return length_s(derivation.periods.interval) // length_s(derivation.base)


def _base_key(key: StreamKey, derivation: Derivation) -> StreamKey:
    return key._replace(interval=derivation.base)


def _ranges(periods: Sequence[CandlePeriod]) -> Iterable[tuple[int, int]]:
    """Yield where periods that follow one another begin: the first and the last of each run."""
    first = last = None
    for period in periods:
        if first is not None and last is not None and period.opens <= last.ends:
            last = period
            continue
        if first is not None and last is not None:
            yield first.opens, last.opens
        first = last = period
    if first is not None and last is not None:
        yield first.opens, last.opens


def _settled_at(source: CandleSource) -> float:
    return min(source.clock.now(), source.clock.certain())


def _no_edge(source: CandleSource, key: StreamKey) -> None:
    """Know nothing of the present."""
