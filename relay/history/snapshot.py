"""The past and the live stream of a subscription as one sequence: spliced by open time, no hole, no duplicate; pure."""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from relay.core.intervals import first_open_after, length_s, next_open, open_time
from relay.core.model import Candle, newer_of, parted
from relay.core.spans import FOREVER, Span, clip_spans, gaps_between, merge_spans
from relay.history.doubts import holes_beside, is_long
from relay.history.requests import PastCandles
from relay.protocol.client_requests import PastWanted
from relay.streams.gaps import SeriesGap
from relay.streams.series import Series

_DAY_S = 86_400
_AHEAD_S = 5
"""So far another relay, which a client comes from, may be ahead of what is the time here."""


class SplicedPast(NamedTuple):
    """The candles that a subscription starts with, and the gaps that are left in them.

    `revised` are closed candles from before them that are other ones than the client has, None if it did not ask; of
    others it is not known where `revisions_known` is False.
    """

    candles: Sequence[Candle]
    last_is_closed: bool
    is_complete: bool
    gaps: Sequence[SeriesGap] = ()
    revised: Sequence[Candle] | None = None
    revisions_known: bool = True


def is_joined(past: PastCandles, series: Series, wanted: PastWanted, *, has_open: bool) -> bool:
    """Say whether no candle can be missing between an answer of history and what the stream itself answers for.

    `has_open` says that the provider's answers end with the open candle: then what closed before is there for sure.
    Else the candle right before has to be there, or another question later will tell.
    """
    begin = answered_from(series)
    if begin is None:
        return True
    times = [candle.time for candle in past.candles]
    if not past.last_is_closed and times[-1] < begin:
        return False
    if has_open and times and times[-1] >= begin:
        return True
    before = [time for time in times if time < begin]
    if wanted.bars is not None and len(times) - len(before) >= wanted.bars:
        return True
    if before:
        end = next_open(series.key.interval, before[-1])
    elif wanted.since is not None:
        end = first_open_after(series.key.interval, wanted.since, _an_open(series, times))
    else:
        return False
    return end >= begin or series.market.is_closed(end, begin)


def _an_open(series: Series, times: Iterable[int]) -> int | None:
    """Return an open time of the stream, the newest of its own if there is one."""
    return next(iter(times), None) if series.last is None else series.last.time


def answered_from(series: Series) -> int | None:
    """Return the open time from which on the stream itself tells, or remembers, every candle; None if it does not."""
    if series.void and series.last is not None:
        valid = (time for time in series.closed if time >= series.valid_from)
        return next(valid, _told_to(series, series.last))
    if series.closed:
        return next(iter(series.closed))
    if series.promised_at is not None:
        return series.owed_from()
    return None if series.last is None else series.last.time


def _told_to(series: Series, last: Candle) -> int:
    """Return the open time of the newest candle, or right behind it if nobody knows what it is now."""
    is_void = series.last_is_closed and last.time in series.void
    return next_open(series.key.interval, last.time) if is_void else last.time


def had_up_to(series: Series, since: int, now: float) -> int | None:
    """Return up to which open time a client has closed candles that the stream has not reached, None if there are none.

    Its `since` says so, but no candle that is not over can have closed: who sends the time of a clock, even of one that
    is ahead, is still owed what is open. `now` is the provider's time.
    """
    interval, last = series.key.interval, series.last
    now += _AHEAD_S
    over_until = open_time(interval, int(now)) - 1 if interval == "1M" else int(now) - length_s(interval)
    # The last candle of a session may be over before its interval is.
    had = since if series.market.end_of(interval, since) <= now else min(since, over_until)
    is_reached = last is not None and (last.time > had or (last.time == had and series.last_is_closed))
    return None if is_reached else had


def is_left_open(series: Series, at: float, forming: Candle | None = None) -> bool:
    """Say whether the newest candle was over at a moment and still stands as open: nobody could say how it closed.

    It may be one that is `forming` by an answer, and of which the stream has told nothing yet.
    """
    last = series.last if not series.last_is_closed else None
    if forming is not None and (series.last is None or forming.time > series.last.time):
        last = forming
    return last is not None and series.market.end_of(series.key.interval, last.time) <= at


def splice(
    series: Series,
    told: Mapping[int, Candle],
    past: PastCandles,
    wanted: PastWanted,
    *,
    closed_only: bool = False,
    before: int | None = None,
    confirmed_at: float | None = None,
    names_holes: bool = False,
    an_open: int | None = None,
) -> SplicedPast:
    """Return what is sent first, up to exactly what the stream has told until now.

    `told` are closed candles that the stream told since the past was asked for, by open time. With `before` the
    subscriber has all from that open time on already. With `closed_only` an open candle is left out and does not
    count. What closed after `confirmed_at` (the provider's time) is there in any case: the subscriber is owed it. With
    `names_holes` what an answer left out, and is not believed yet, is a gap. Where no candle is known, open times are
    reckoned from `an_open`.
    """
    last = series.last
    known, open_time = _known_now(series, told, past, wanted.since)
    times = known.keys()
    candles = [
        candle
        for time, candle in known.items()
        if (wanted.since is None or time > wanted.since)
        and (before is None or time < before)
        and not (closed_only and time == open_time)
    ]
    if wanted.bars is not None:
        owed_after = FOREVER if confirmed_at is None else confirmed_at
        owed = [candle for candle in candles if next_open(series.key.interval, candle.time) > owed_after]
        if past.is_whole and past.candles:
            # Between older ones that the stream remembers some may be missing: the answer says nothing of them.
            first = min(candle.time for candle in (past.candles[0], *owed))
            candles = [candle for candle in candles if candle.time >= first]
        count = max(wanted.bars, len(owed))
        candles = candles[-count:] if count else []
    begin = candles[0].time if candles else None
    if wanted.since is not None and wanted.bars is None:
        opened = _an_open(series, times)
        begin = first_open_after(series.key.interval, wanted.since, an_open if opened is None else opened)
    end = series.owed_from() if last is None else _told_to(series, last)
    end = end if before is None else min(end, before)
    gaps = list(dict.fromkeys(_gaps(series, past, times, begin, end, is_new=before is None)))
    until = answered_from(series) if names_holes else None
    holes: Sequence[SeriesGap] = [] if begin is None else left_out(series, past, begin, end, times, tail_until=until)
    is_complete = past.is_complete and not gaps and not holes and not _may_be_cut(series, past, candles, wanted, end)
    if names_holes:
        holes = without_long_tail(series, past, holes)
        if holes and holes[0].start == begin and begin <= min(times, default=begin):
            # Nobody knows whether there was a candle before it, so that is where the provider's candles begin.
            holes = holes[is_long(*holes[0], series.key.interval) :]
        told_of = merge_spans(Span(*gap) for gap in gaps)
        gaps = sorted([*gaps, *(SeriesGap(*part) for hole in holes for part in gaps_between(told_of, *hole))])
    if not past.is_complete and not gaps and wanted.since is not None and wanted.bars is None:
        # All that was asked for is known; what follows comes as updates, or is told as a gap in its turn.
        is_complete = last is not None or series.promised_at is not None
    return SplicedPast(candles, not candles or candles[-1].time != open_time, is_complete, gaps)


def _known_now(
    series: Series, told: Mapping[int, Candle], past: PastCandles, since: int | None
) -> tuple[dict[int, Candle], int | None]:
    """Return what is known by open time, ascending, up to what the stream has told, and which of it is open."""
    closed, forming = parted(past.candles, past.last_is_closed)
    known = {candle.time: candle for candle in closed}
    last = series.last
    open_time: int | None = None
    for candle in (*told.values(), *series.closed.values(), *(() if last is None else (last,))):
        if candle.time not in series.void:
            known[candle.time] = newer_of(known.get(candle.time), candle)
    # Of what is older than all that is known nobody vouches for what lies between.
    first = min(known, default=FOREVER) if since is None else since
    for candle in series.recalled:
        if candle.time > first:
            # A repair may have told it, and who joins is told no gap there.
            known.setdefault(candle.time, candle)
    if last is not None and forming is not None and forming.time == last.time and last.time in series.void:
        known[last.time] = forming
    known = dict(sorted(known.items()))
    while known and series.is_to_come(next(reversed(known))):
        # It comes as an update, and would come twice.
        known.popitem()
    if last is not None:
        if not series.last_is_closed:
            open_time = last.time
        elif forming is not None and forming.time == next_open(series.key.interval, last.time):
            # The stream has told nothing of it yet, and nothing can come before it.
            open_time = forming.time
            known[open_time] = forming
    return known, open_time


def left_out(
    series: Series,
    past: PastCandles,
    begin: int,
    end: int,
    times: Collection[int] = (),
    *,
    tail_until: int | None = None,
) -> list[SeriesGap]:
    """Return where a candle may be missing between two open times, the first of them one: the provider left it out.

    That is no gap, unless each interval has a candle: nobody knows of one. It is told as revised once it is found.
    `times` are the open times of candles that are known from elsewhere. What lies behind the answer's last candle
    counts up to `tail_until`, and not at all without it.
    """
    doubted = past.doubted
    if past.candles:
        tail = past.candles[-1].time + 1
        doubted = (*clip_spans(doubted, 0, tail), *clip_spans(doubted, tail, tail_until or 0))
    if not doubted:
        return []
    interval, ordered = series.key.interval, sorted(times)
    an_open = _an_open(series, times)
    found: list[SeriesGap] = []
    for part in clip_spans(doubted, begin, end):
        for hole in holes_beside(ordered, part, interval):
            for start, until in series.market.open_parts(*hole, length_s(interval), an_open):
                at = _open_from(interval, start, times, begin)
                if at >= until:
                    continue
                # What is known of the time between two is nothing where no candle can open there.
                if found and at == _open_from(interval, found[-1].end, times, begin):
                    at = found.pop().start
                found.append(SeriesGap(at, until))
    return found


def without_long_tail(series: Series, past: PastCandles, holes: Sequence[SeriesGap]) -> Sequence[SeriesGap]:
    """Leave out what is long behind the answer's last candle: an instrument that was halted or away has none there."""
    is_tail = holes and past.candles and holes[-1].start > past.candles[-1].time
    return holes[:-1] if is_tail and is_long(*holes[-1], series.key.interval) else holes


def _may_be_cut(series: Series, past: PastCandles, candles: Sequence[Candle], wanted: PastWanted, end: int) -> bool:
    """Say whether there are fewer candles than asked for, and nobody vouches that there are none before them."""
    if wanted.bars is None or len(candles) >= wanted.bars:
        return False
    first = candles[0].time if candles else end
    since = 0 if wanted.since is None else wanted.since + 1
    interval = series.key.interval
    holes = [hole for part in clip_spans(past.doubted, since, first) for hole in holes_beside((), part, interval)]
    return any(series.market.has_open_part(*hole, length_s(interval)) for hole in holes)


def _gaps(
    series: Series, past: PastCandles, times: Collection[int], begin: int | None, end: int, *, is_new: bool
) -> Iterator[SeriesGap]:
    """Yield the gaps to be told with a snapshot from `begin` to `end`; `times` are the open times of all candles known.

    `is_new` says that the subscriber was told nothing of the stream before.
    """
    last = series.last
    if begin is not None:
        yield from (
            SeriesGap(*lost) for lost in past.unreadable if begin <= lost.start < end and lost.start not in times
        )
        if not past.is_whole:
            yield from _unknown(series, past.known, times, begin, end)
    if is_new:
        # Told to others while the answer was on its way, or learnt from it: nobody will say it again.
        told_from = series.owed_from() if last is None else last.time
        yield from _gaps_left(series, times, told_from if begin is None else min(begin, told_from))


def _unknown(
    series: Series, spans: Sequence[Span], times: Collection[int], begin: int, end: int
) -> Iterator[SeriesGap]:
    """Yield where candles may be missing between two open times, beside the gaps that the series knows itself.

    Hours in which the market was closed are known, or named by nobody.
    """
    remembered = (one.time for one in (*series.recalled, *series.closed.values()))
    known = [*spans, *(Span(time, next_open(series.key.interval, time)) for time in remembered if time in times)]
    if series.last is not None:
        known.append(Span(answered_from(series) or series.last.time, FOREVER))
    for start, until in gaps_between(merge_spans(known), begin, end):
        # A span may end anywhere between two open times.
        at = _open_from(series.key.interval, start, times, begin)
        if at < until:
            length, an_open = length_s(series.key.interval), _an_open(series, times)
            yield from (SeriesGap(*part) for part in series.market.open_parts(at, until, length, an_open))


def _open_from(interval: str, start: int, times: Collection[int], begin: int) -> int:
    """Return the first open time from `start` on, as far as it can be reckoned; `begin` is one."""
    length = length_s(interval)
    if length < _DAY_S:
        return start + (next(iter(times), begin) - start) % length
    return next_open(interval, start - 1) if start - 1 in times else start


def _gaps_left(series: Series, times: Container[int], begin: int) -> Iterator[SeriesGap]:
    """Yield the gaps of a stream from `begin` on, as far as no candle of these open times closes them."""
    for gap in series.gaps.left:
        at = max(gap.start, begin)
        while at < gap.end and at in times:
            at = next_open(series.key.interval, at)
        if at < gap.end:
            yield SeriesGap(at, gap.end)
