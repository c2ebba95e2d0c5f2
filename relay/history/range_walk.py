"""One request's walk through time: what of its range is known, and what to ask a provider next; pure.

Open times are not computed here: the provider's grid has holes and odd ends, so everything is reckoned in spans.
"""

import math
from collections.abc import Container, Iterable, Iterator, Sequence

from relay.core.intervals import length_s
from relay.core.model import Candle, StreamKey, is_unreadable, unreadable
from relay.core.spans import FOREVER, Span, gaps_between, merge_spans, span_at, within
from relay.history.doubts import Doubt, holes_beside
from relay.history.live_edge import LiveEdge
from relay.history.requests import CandleSource, HistoryRequest, PageRequest, ProviderAnswer

# How far ahead of its clock a provider is asked about the present, in case that clock runs behind.
_CLOCK_BEHIND_S = 120
_SHORTEST_MONTH_S = 28 * 86_400


class RangeWalk:
    """The walk of one request: forwards from its `start`, or backwards from its `end`, until it has enough candles."""

    def __init__(self, asked: HistoryRequest, began_at: float) -> None:
        self.asked = asked
        self.source = asked.source
        self.key = asked.key
        self._market = asked.source.market(asked.key.symbol)
        self.is_forward = asked.start is not None
        self.low = max(asked.start or 0, 0)
        self.end = asked.end
        self.limit = asked.limit
        self.began_at = began_at
        self.is_strict = False
        self.edge: LiveEdge | None = None  # what the live stream says
        self.live: Span | None = None  # and of which open times
        self.at: int | None = self.low if self.is_forward else None  # known and read up to here
        self.rows: list[Candle] = []
        self.open_row: int | None = None  # the open time of the first row that was not closed when it was read
        self.answers: list[ProviderAnswer] = []
        self.stored: list[Span] = []  # merged
        self.is_remembered = True  # whether nothing had to be read from the database for it
        self.doubts: Sequence[Doubt] = ()
        self.lost: list[int] = []  # open times of candles that cannot be read, as far as it has gone
        self._heard: list[Span] = []  # what was passed with nobody vouching for it
        self._reach = asked.limit
        self._found = 0  # so many rows there were when it was asked last
        self._behind: int | None = None  # what was known behind where it stood then
        self._is_dense = False
        self._room = 0  # for how many candles that open while a question about the present is answered
        self._page = self.source.info.candles_per_call
        self._length = _SHORTEST_MONTH_S if self.key.interval == "1M" else length_s(self.key.interval)

    @property
    def missing(self) -> int:
        """How many candles are still wanted."""
        return self.limit - len(self.rows)

    def present(self) -> int:
        """Return an open time that no candle has reached yet."""
        return int(self.source.clock.reach()) + length_s(self.key.interval) + _CLOCK_BEHIND_S

    def high(self) -> int:
        """Return the end of the range asked for, exclusive."""
        present = self.present()
        return present if self.end is None else min(self.end + 1, present)

    def adopt_live(self, edge: LiveEdge) -> None:
        """Believe before any other answer what the live stream says."""
        candles = () if edge.candle is None else (edge.candle,)
        open_time = None if edge.candle is None or edge.is_closed else edge.candle.time
        self.edge, self.live = edge, Span(edge.since, FOREVER)
        self.adopt(ProviderAnswer(self.live, candles, open_time, self.began_at, self.began_at))

    def adopt(self, answer: ProviderAnswer) -> None:
        """Believe an answer for the rest of this request; of those about the present only the first."""
        if self.is_strict and answer.asked_at < self.began_at:
            return
        if not answer.reaches_present or not any(other.reaches_present for other in self.answers):
            self.answers.append(answer)
        count = len(answer.candles)
        is_full = count > 0 and count >= self._page - 1
        self._is_dense = is_full and answer.candles[-1].time - answer.candles[0].time <= 1.1 * count * self._length

    def known(self) -> list[Span]:
        """Return what the store or an answer knows completely, and what is in doubt and not asked for here; merged.

        Whoever takes no older answer asks for what an older one left out, but not for more than one call could give:
        an instrument that was away for days would cost page after page each time.
        """
        if not self.answers and not self.doubts:
            return self._with_closed_hours(self.stored)
        most_s = self._page * self._length
        doubts = [
            doubt.span
            for doubt in self.doubts
            if doubt.is_row or doubt.is_sparse or not self.is_strict or doubt.span.end - doubt.span.start > most_s
        ]
        return self._with_closed_hours(merge_spans([*self.stored, *(answer.span for answer in self.answers), *doubts]))

    def _with_closed_hours(self, known: list[Span]) -> list[Span]:
        """Return what is known, and the gaps in it in which the market was closed: there is nothing to ask for.

        A gap in which it was open as well is asked for as a whole. What lies in the future cannot have opened.
        """
        until = int(self.source.clock.reach()) + _CLOCK_BEHIND_S
        if self._market.never_closes(until):
            return known
        closed = []
        for gap in gaps_between(known, self.low, self.high()):
            start, end, an_open = gap.start, min(gap.end, until), gap.start - 1
            if self._market.may_open(self._length, an_open):
                # What is known ends behind a candle, and the next one opens after it.
                start = self._market.end_of(self.key.interval, an_open)
            if start >= end or not self._market.has_open_part(start, end, self._length, an_open):
                closed.append(gap)
        return merge_spans([*known, *closed]) if closed else known

    def next_known(self, high: int) -> tuple[int, int]:
        """Return where the request stands and how far from there everything is known; the same where nothing is."""
        known = self.known()
        if self.is_forward:
            at = self.low if self.at is None else self.at
            return at, next((min(span.end, high) for span in known if span.start <= at < span.end), at)
        at = high if self.at is None else self.at
        return at, next((max(span.start, 0) for span in known if span.start < at <= span.end), at)

    def is_stored(self, time: int) -> bool:
        """Say whether the store knows what there is at an open time."""
        return span_at(self.stored, time) is not None

    def answered(self, start: int, end: int) -> dict[int, Candle]:
        """Return the candles of a range that answers hold and the store does not vouch for, by open time."""
        return {
            candle.time: candle
            for answer in self.answers
            for candle in answer.candles
            if start <= candle.time < end and not self.is_stored(candle.time)
        }

    def unstored(self, start: int, end: int) -> dict[int, Candle]:
        """Return what `answered` does, and those that cannot be read."""
        if not self.answers and not self.doubts:
            return {}
        times = [doubt.span.start for doubt in self.doubts if doubt.is_row and start <= doubt.span.start < end]
        lost = {time: unreadable(time) for time in times if not self.is_stored(time)}
        return lost | self.answered(start, end)

    def with_unstored(self, rows: Sequence[Candle], start: int, end: int) -> list[Candle]:
        """Return rows of the store and what only answers have of the same range, no more than are still wanted.

        Notes which of them are open, and which candles of the range cannot be read.
        """
        extra = self.unstored(start, end)
        if not extra:
            return [*rows]
        lost = [time for time, candle in extra.items() if is_unreadable(candle)]
        merged = extra | {candle.time: candle for candle in rows}
        stored = {candle.time for candle in rows}
        found = [merged[time] for time in sorted(merged) if time in stored or time not in lost]
        if len(found) >= self.missing:
            found = found[: self.missing] if self.is_forward else found[len(found) - self.missing :]
            start, end = (start, found[-1].time) if self.is_forward else (found[0].time, end)
        self.lost += [time for time in lost if start <= time < end and time not in stored]
        self._note_open(found, stored)
        return found

    @property
    def has_hearsay(self) -> bool:
        """Whether a part of what is known is only what a provider said, or did not say, and not stored.

        What a recording leaves out does not exist.
        """
        is_said = len(self.answers) > (self.live is not None) and not self.source.info.is_recorded
        return bool(self.doubts) or is_said

    def doubted(self, times: Sequence[int], low: int, high: int) -> tuple[Span, ...]:
        """Return where between two open times only providers' answers say that there is no candle.

        Nobody vouches for that but the store, once several agreed, and the live stream. `times` are the open times of
        all candles that are known there, ascending.
        """
        if not self.has_hearsay:
            return ()
        parts = gaps_between(self.sure(), low, high)
        return tuple(hole for part in parts for hole in holes_beside(times, part, self.key.interval))

    def pass_to(self, at: int, to: int) -> None:
        """Go from one open time to another: what lies between is read, and known by what `stored` is now."""
        self._heard += gaps_between(self.sure(), min(at, to), max(at, to))
        self.at = to

    def is_outdated(self) -> bool:
        """Say whether the store has come to know of what was passed when nobody vouched for it: it may hold more."""
        return any(within(self.stored, *part) for part in self._heard)

    def begin_anew(self) -> None:
        """Go back to where it began, with the answers that it has."""
        self.at = self.low if self.is_forward else None
        self.rows, self.lost, self.open_row, self._heard = [], [], None, []

    def sure(self) -> list[Span]:
        """Return of which open times the store or the live stream vouches that nothing else is there."""
        return self.stored if self.live is None else merge_spans([*self.stored, self.live])

    def emptied(self, times: Sequence[int]) -> tuple[Span, ...]:
        """Return where before the first of `times` there may be candles although a request without a start found none.

        A provider's candles begin somewhere, and an answer that has some says where. One without any says nothing yet.
        """
        unsure = [] if self.is_forward else gaps_between(self.sure(), self.low, times[0])
        if not unsure:
            return ()
        said = [answer.span for answer in self.answers if not answer.candles and answer.span != self.live]
        bare = merge_spans([*said, *(doubt.span for doubt in self.doubts if doubt.is_bare)])
        return self.doubted(times, self.low, times[0]) if span_at(bare, unsure[-1].end - 1) is not None else ()

    def reached(self) -> tuple[int, int]:
        """Return from where to where the request went, once it has what it wants: open times, the end exclusive."""
        high = self.high()
        if self.missing > 0 or not self.rows:
            return self.low, high
        return (self.low, self.rows[-1].time + 1) if self.is_forward else (self.rows[0].time, high)

    def open_times(self) -> set[int]:
        """Return the open times of candles that are not closed."""
        return {answer.open_time for answer in self.answers if answer.open_time is not None}

    def _note_open(self, rows: Iterable[Candle], closed: Container[int]) -> None:
        """Note which of some rows is not closed, as they are read: what is learnt later says nothing of their values.

        `closed` are the open times of the rows that the store gave.
        """
        open_times = self.open_times()
        for row in rows:
            if row.time in open_times and row.time not in closed:
                self.open_row = row.time if self.open_row is None else min(self.open_row, row.time)

    def _followed_at(self, end: int) -> int | None:
        # A stored span ends after a closed candle, at an open one, or so long ago that none can be open.
        later = [span.end for span in self.stored if span.end > end]
        later += [candle.time for answer in self.answers for candle in answer.candles if candle.time >= end]
        return min(later, default=None)

    def pieces(self, high: int) -> list[PageRequest]:
        """Return what to ask now: what lies next, or several pages at once where all of them are needed."""
        at = high if self.at is None else self.at
        settled = settled_before(self.source, self.key, self.source.clock.now())
        wide = self.missing * self._length
        low, end = (at, min(at + wide, high)) if self.is_forward else (max(at - wide, self.low), at)
        if end <= settled:
            gaps = gaps_between(self.known(), low, end)
            windows = list(self._windows(gaps))
            if len(windows) > 1 or (windows and windows[0].span not in gaps):
                return windows
        return [self._piece(high)]

    def _windows(self, gaps: Iterable[Span]) -> Iterator[PageRequest]:
        """Cut what is not known into pages, none of which can hold too many candles.

        Where nobody knows how much there is, one page after the other is asked instead: it steps over holes.
        """
        known = self.known()
        page_s = self._page * self._length
        for gap in _joined(gaps, page_s) if self.asked.joins_gaps else gaps:
            is_begun = self.is_forward or (known and known[0].start <= gap.start)
            is_inside = is_begun and known and gap.end <= known[-1].end
            if not self._is_dense and not (is_inside and gap.end - gap.start <= page_s):
                continue
            start, end = gap
            while start < end:
                if self.is_forward:
                    page = Span(start, min(start + page_s, end))
                    start = page.end
                else:
                    page = Span(max(start, end - page_s), end)
                    end = page.start
                yield PageRequest(*page, self._page, self._followed_at(page.end), False, is_bounded=True)

    def _piece(self, high: int) -> PageRequest:
        """Return what to ask next.

        Candles may open before a slow provider answers: an answer that is full then does not reach the present. Each
        further question of a request has room for more of them, so that no request runs after the present.
        """
        piece = self._next_piece(high)
        if not piece.reaches_present:
            return piece
        room, self._room = self._room, 2 * self._room + 2
        return piece._replace(limit=min(piece.limit + room, self._page))

    def _next_piece(self, high: int) -> PageRequest:
        """Return what to ask for to go on. `at` is where the known time ends."""
        at = high if self.at is None else self.at
        known = self.known()
        settled = settled_before(self.source, self.key, self.source.clock.now())
        if self.is_forward:
            later = next((span.start for span in known if span.start > at), None)
            end = high if later is None else min(later, high)
            reaches_present = later is None and end > settled
            # Never just one: it could be the open candle for ever.
            limit = min(max(self.missing, 2), self._page)
            return PageRequest(
                at, self.present() if reaches_present else end, limit, self._followed_at(end), reaches_present
            )
        reaches_present = at > settled and not any(span.start >= at for span in known)
        end = self.present() if reaches_present else at
        length = self._length
        extra = max(0, int(self.source.clock.reach()) - at) // length + 2 if end > at and self.end is not None else 0
        earlier = max((span.end for span in known if span.end <= at), default=0)
        if not earlier:
            limit = min(self.missing + extra, self._page)
            return PageRequest(None, end, limit, self._followed_at(end), reaches_present)
        # The newest before `at` could run into what an earlier span holds, so the question gets a start.
        newest = min(at, max(int(self.source.clock.reach()) + 1, earlier + 1))
        start = max(earlier, newest - self._steps_back(earlier, newest) * length)
        limit = min((newest - start) // length + 2 + extra, self._page)
        return PageRequest(start, end, limit, self._followed_at(end), reaches_present)

    def _steps_back(self, earlier: int, newest: int) -> int:
        """Return how many intervals before `newest` the next question begins; `earlier` is known up to there.

        Enough for the missing candles if the grid had no holes, and more each time it turns out to have some. What
        comes of more than a page is its oldest part: the newest one lies beyond, and is searched for by halves. Where
        candles were found others come before them, so one page is enough.
        """
        steps = self._reach
        if len(self.rows) > self._found:
            steps = min(steps, max(self._page, 64))
        if self._behind is not None and earlier > self._behind:
            steps = min(steps, max(self._page - 2, (newest - earlier) // self._length // 2))
        else:
            self._behind = earlier
        self._found = len(self.rows)
        self._reach = max(steps, 64) * 8
        return steps


def _joined(gaps: Iterable[Span], most_s: int) -> Iterator[Span]:
    """Join gaps, which ascend, where one page can span them: what is known between them costs no more calls."""
    joined: Span | None = None
    for gap in gaps:
        if joined is not None and gap.end - joined.start <= most_s:
            joined = Span(joined.start, gap.end)
            continue
        if joined is not None:
            yield joined
        joined = gap
    if joined is not None:
        yield joined


def settled_before(source: CandleSource, key: StreamKey, now: float) -> int:
    """Return the open time from which on a candle may still be missing from the provider's answers."""
    return math.floor(now - length_s(key.interval) - source.info.close_grace_s)
