"""Joins the past and the live stream of a subscription with a single cut: no hole, no duplicate."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from relay.errors import ProviderError, StoreError
from relay.history import History
from relay.hub import Hub
from relay.intervals import next_open
from relay.model import Candle, StreamKey
from relay.plugins.provider import Provider
from relay.ranges import Live
from relay.ranges import Past as Answer
from relay.requests import Past
from relay.series import Gap, Series
from relay.storage.coverage import FOREVER, Span, gaps_between, merge_spans
from relay.stream import CONNECTED, Stream

MOST_SINCE = 20_000
"""Candles that a resume may bring; beyond, the newest are sent and the snapshot is not complete."""


class Snapshot(NamedTuple):
    """The candles that a subscription starts with, and the gaps that are left in them."""

    candles: Sequence[Candle]
    last_is_closed: bool
    is_complete: bool
    gaps: Sequence[Gap] = ()


def live_of(stream: Stream | None) -> Live | None:
    """Return what a stream knows of the present, if it is live and nothing is missing."""
    if stream is None or stream.status != CONNECTED:
        return None
    series, last = stream.series, stream.series.last
    if series.is_catching_up or last is None:
        return None
    # From right behind the candle before, if that is known: then nothing is left to ask the provider for.
    before = None if series.last_is_closed else series.closed_before(last.time)
    return Live(last.time if before is None else before + 1, last, series.last_is_closed)


async def fetch(
    history: History, provider: Provider, key: StreamKey, find: Callable[[], Stream | None], past: Past, client: str
) -> Answer:
    """Fetch the past of a subscription; what cannot be had makes it incomplete, never an error.

    `find` returns the stream if there is one: what it knows of the present needs no provider call. `client` is whom it
    is for.
    """
    if not provider.has_history and past.bars == 0:
        return Answer((), True, True)

    def live() -> Live | None:
        return live_of(find())

    try:
        if past.since is None or past.bars is not None:
            # With both, the last `bars` candles are enough: `cut` leaves out those before `since`.
            return await history.candles(
                provider, key, start=None, end=None, limit=past.bars or 1, live=live, client=client
            )
        start = past.since + 1
        stream = find()
        if stream is not None and stream.series.last is None:
            # Nothing was told yet: the answer may anchor the stream if it reaches back to what the stream owes.
            start = max(0, min(start, stream.series.owed_from() or start))
        with suppress(ProviderError):
            answer = await history.candles(
                provider, key, start=start, end=None, limit=MOST_SINCE, live=live, client=client
            )
            if answer.is_complete and len(answer.candles) < MOST_SINCE:
                return answer
            if answer.is_complete:
                await history.candles(provider, key, start=None, end=None, limit=MOST_SINCE, live=live, client=client)
        # All that is known by now, also of what the provider gave before it failed.
        return await history.stored(provider, key, limit=MOST_SINCE, live=live)
    except (ProviderError, StoreError):
        return Answer((), True, False)


def outrun(answer: Answer) -> Answer:
    """Return an answer whose stream went on beyond what it remembers: what lies between is not known."""
    known = (Span(0, answer.candles[-1].time + 1),) if answer.candles else ()
    return answer._replace(is_complete=False, known=known)


def covers(answer: Answer, series: Series, past: Past) -> bool:
    """Say whether the series knows everything that happened since the answer was made."""
    if series.last is None or not answer.is_complete:
        return True
    oldest = next(iter(series.closed), series.last.time)
    if not answer.candles:
        return past.since is None or oldest <= next_open(series.key.interval, past.since)
    newest = answer.candles[-1].time
    return oldest <= newest or (answer.last_is_closed and oldest <= next_open(series.key.interval, newest))


def cut(hub: Hub, stream: Stream, answer: Answer, past: Past, before: int | None = None) -> Snapshot:
    """Return what is sent first, up to exactly what the stream has told until now; call it without awaiting after.

    A stream that told nothing yet begins with the answer. `before` leaves out what the subscriber has already.
    """
    series = stream.series
    closed = list(answer.candles)
    forming = closed.pop() if closed and not answer.last_is_closed else None
    if series.last is None and not series.is_catching_up and answer.is_complete:
        if closed and not series.is_owed(closed[0].time):
            # It reaches back to what was told of, so nothing is missing between.
            hub.tell(stream, series.fill(closed, None, forming))
        elif not closed and forming is not None:
            hub.tell(stream, series.fill((), None, forming))
    last = series.last
    last_is_closed = True
    if last is None:
        # What is owed to the stream's subscribers comes as updates; here it would come twice.
        candles = [candle for candle in closed if not series.is_owed(candle.time)]
    else:
        known = {candle.time: candle for candle in closed if candle.time < last.time}
        known.update((time, candle) for time, candle in series.closed.items() if time < last.time)
        known[last.time] = last
        candles = [known[time] for time in sorted(known)]
        last_is_closed = series.last_is_closed
    times = {candle.time for candle in candles}
    if past.since is not None:
        candles = [candle for candle in candles if candle.time > past.since]
    if past.bars is not None:
        candles = candles[-past.bars :] if past.bars else []
    is_complete, gaps = answer.is_complete, []
    if not is_complete and past.since is not None and past.bars is None:
        # What follows comes as updates, or is told as a gap in its turn.
        end = series.owed_from() if last is None else last.time
        begin = next_open(stream.key.interval, past.since)
        gaps = list(_unknown(series, answer.known, times, begin, end if before is None else min(end, before)))
        is_complete = last is not None or series.promised_at is not None
    if last is not None and before is None:
        # Told to others while the answer was on its way: nobody will say it again.
        begin = candles[0].time if candles else last.time
        if past.since is not None and past.bars is None:
            begin = min(begin, next_open(stream.key.interval, past.since))
        gaps += _gaps_left(series, times, begin)
    if before is not None:
        candles = [candle for candle in candles if candle.time < before]
        last_is_closed = True
    return Snapshot(candles, last_is_closed or not candles, is_complete and not gaps, gaps)


def _unknown(series: Series, spans: Sequence[Span], times: Container[int], begin: int, end: int) -> Iterator[Gap]:
    """Yield where candles may be missing between two open times, beside the gaps that the series knows itself.

    Hours in which the market was closed lie within the spans that are known.
    """
    known = list(spans)
    if series.last is not None:
        known.append(Span(next(iter(series.closed), series.last.time), FOREVER))
    for start, until in gaps_between(merge_spans(known), begin, end):
        # A span may end right behind the open time of its last candle.
        at = next_open(series.key.interval, start - 1) if start - 1 in times else start
        if at < until:
            yield Gap(at, until)


def _gaps_left(series: Series, times: Container[int], begin: int) -> Iterator[Gap]:
    """Yield the gaps of a stream from `begin` on, as far as no candle of these open times closes them."""
    for gap in series.gaps:
        at = max(gap.start, begin)
        while at < gap.end and at in times:
            at = next_open(series.key.interval, at)
        if at < gap.end:
            yield Gap(at, gap.end)
