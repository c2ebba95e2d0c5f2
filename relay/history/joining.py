"""One subscription from its request until it is joined to its stream: attach, fetch the past, splice.

The stream is wanted, and what it tells is kept, from the request on; only then is the past asked for. So the stream's
promise begins before the past ends, whatever the provider's history is like and however long it takes.
"""

import asyncio
import dataclasses
import math
from itertools import takewhile
from typing import Protocol

from relay.core.errors import ProviderError, RateLimited, StoreError
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey, parted
from relay.history.range_walk import HistoryRequest, LiveEdge, PastCandles
from relay.history.service import HistoryService
from relay.history.snapshot import SplicedPast, had_up_to, is_joined, is_whole, left_out, splice
from relay.plugins.provider import Provider
from relay.protocol.client_requests import PastWanted, Request, SubscribeOptions
from relay.streams.hub import Hub
from relay.streams.subscriptions import CONNECTED, NO_FLOOR, Stream

MOST_SINCE = 20_000
"""Candles that a resume may bring; beyond, the newest are sent and the snapshot is not complete."""
MOST_REVISED = 2000
"""Revised candles that a resume brings, the newest; beyond, it says that there are others."""
MOST_WAIT_S = 150.0
"""A past that has to wait for the provider's budget is waited for so long at most."""
NOT_GIVEN = "the provider's history could not give it"
LAG_WAIT_S = 0.5
"""So long history that may lag is waited for before it is asked again; twice as long each time."""


class CandleQuota(Protocol):
    """Counts the candles that one client is given of the past."""

    @property
    def client(self) -> str:
        """Whom the past is for, as history's calls take turns."""
        ...

    def check(self) -> None:
        """Raise `RequestError` when the client had its share."""

    def spend(self, rows: int) -> None:
        """Count candles that were fetched."""


def live_of(stream: Stream | None) -> LiveEdge | None:
    """Return what a stream knows of the present, if it is live and nothing is missing."""
    if stream is None or stream.status != CONNECTED:
        return None
    series, last = stream.series, stream.series.last
    if series.is_catching_up or last is None:
        return None
    due_at = series.due_at()
    if due_at is not None and stream.feeder.clock.now() > due_at + stream.feeder.close_grace_s:
        # It has been silent for so long that candles may have closed unseen.
        return None
    # From right behind the candle before, if that is known: then nothing is left to ask the provider for.
    before = None if series.last_is_closed else series.closed_before(last.time)
    return LiveEdge(last.time if before is None else before + 1, last, series.last_is_closed)


class Joining:
    """A subscription on its way: the requests it answers, and what the newest of them wants.

    Whoever makes one calls `fetch` until it returns, then `splice`, and `close` in any case.
    """

    __slots__ = (
        "_asked_at",
        "_attachment",
        "_hub",
        "_past",
        "_provider",
        "_reaches_from",
        "_revised",
        "_revisions_known",
        "_waited_s",
        "confirmed_at",
        "gap_reason",
        "ids",
        "name",
        "options",
        "stream",
        "wanted",
    )  # fmt: skip

    def __init__(self, hub: Hub, stream: Stream, provider: Provider, request: Request) -> None:
        self.stream = stream
        self.ids = [request.id]
        self.options: SubscribeOptions = request.options
        self.wanted = request.past
        self.confirmed_at: float | None = None
        self.gap_reason = NOT_GIVEN
        self._hub = hub
        self._provider = provider
        self._attachment = hub.attach(stream)
        self._past = PastCandles((), True, True)
        self._asked_at = 0.0
        self._reaches_from = 0
        self._revised: dict[int, Candle] = {}
        self._revisions_known = True
        self._waited_s = 0.0

    @property
    def identity(self) -> tuple[str, StreamKey]:
        """The stream's place in the hub."""
        return self.stream.provider, self.stream.key

    @property
    def is_confirmed(self) -> bool:
        """Whether the subscriber was told that the stream is accepted, and waits for its past."""
        return self.confirmed_at is not None

    def confirm(self) -> None:
        """Note that the subscriber is told so: from now on it is owed every candle that closes."""
        self.confirmed_at = self._provider.clock.now()

    def replace(self, request: Request) -> None:
        """Take what a later request for the same stream wants instead."""
        self.ids.append(request.id)
        self.options = request.options
        if request.past != PastWanted():
            self.wanted = request.past

    def close(self) -> None:
        """Let go of the stream: it is subscribed to, or not wanted any more."""
        self._hub.detach(self._attachment)

    # -- fetching ----------------------------------------------------------------------------------

    async def fetch(self, history: HistoryService, meter: CandleQuota) -> None:
        """Fetch the past, again while a later request wants another; what cannot be had makes it incomplete.

        Raises `RequestError` when there were too many rows, and `RateLimited` when the provider's budget is used up
        for a time that is worth waiting for (`note_wait`).
        """
        while True:
            wanted = self.wanted
            if wanted.bars != 0:
                await self._fetch(history, meter, wanted)
            if wanted.wants_revised:
                await self._fetch_revised(history, meter, wanted)
            if wanted == self.wanted:
                return

    def note_wait(self, seconds: float) -> None:
        """Count time that was spent waiting for the provider's budget."""
        self._waited_s += seconds

    async def _fetch(self, history: HistoryService, meter: CandleQuota, wanted: PastWanted) -> None:
        """Ask until the answer reaches what the stream itself answers for, or is old enough to be believed."""
        clock, info = self._provider.clock, self._provider.info
        settled_at = clock.now() + info.close_grace_s
        pause_s, spent, is_strict, more = LAG_WAIT_S, 0, False, 0
        while True:
            meter.check()
            self._asked_at, age = clock.now(), history.age(self._provider, self.stream.key)
            self._past = await self._ask(history, meter.client, wanted, is_strict, more)
            await history.settle(self._provider, self.stream.key)
            if age != history.age(self._provider, self.stream.key):
                continue  # what was answered may be of another instrument than what the stream tells now
            rows = _rows_for(self._past, wanted)
            meter.spend(max(0, rows - spent))
            spent = max(spent, rows)
            if not is_whole(self._past):
                return
            if (lacking := self._rows_lacking(wanted)) > 0:
                # As many may become newer than the stream while it is asked again.
                more += 2 * lacking
                continue
            if is_joined(self._past, self.stream.series, wanted, has_open=info.history_has_open):
                return
            if is_strict:
                if info.history_has_open or self._asked_at >= settled_at:
                    return
                await asyncio.sleep(pause_s)
                pause_s *= 2
            is_strict = True

    def _rows_lacking(self, wanted: PastWanted) -> int:
        """Return how many older rows are to be asked for: too many of the answer are newer than what is sent first.

        Those come as updates. What the stream remembers of older ones does not make up for them: nobody vouches for
        what lies between.
        """
        past, series = self._past, self.stream.series
        if wanted.bars is None or self._reaches_from == 0 or len(past.candles) >= MOST_SINCE:
            return 0
        rows = sum(not series.is_to_come(candle.time) for candle in past.candles)
        # With `closed_only` the one that the stream has open does not count.
        has_open = series.last is not None and not series.last_is_closed
        return wanted.bars + (self.options.closed_only and has_open) - rows

    async def _ask(
        self, history: HistoryService, client: str, wanted: PastWanted, is_strict: bool, more: int
    ) -> PastCandles:
        provider, key, most = self._provider, self.stream.key, MOST_SINCE
        self.gap_reason = NOT_GIVEN
        start: int | None = None
        if wanted.since is not None and wanted.bars is None:
            start = wanted.since + 1
            if self._live() is None and self._provider.has_history:
                start = min(start, self.stream.series.needs_from())
            start = max(0, start)
        else:
            most = min(MOST_SINCE, self._rows_back(wanted.bars or 1) + more)
        newest = HistoryRequest(provider, key, None, None, most, self._live, client=client)
        try:
            past = await history.candles(dataclasses.replace(newest, start=start, must_be_new=is_strict))
            if start is not None and len(past.candles) >= most:
                # It may go on beyond; the newest are worth more.
                await history.candles(newest)
            elif is_whole(past):
                is_all = start is None and len(past.candles) < most
                self._reaches_from = 0 if is_all else past.candles[0].time if start is None else start
                return past
        except RateLimited as error:
            if self._waited_s + error.retry_after <= MOST_WAIT_S:
                raise
            self.gap_reason = f"the provider was not asked, it follows later: {error}"
        except ProviderError:
            pass
        except StoreError:
            return PastCandles((), True, False)
        try:
            # All that is known by now, also of what the provider gave before it failed.
            return await history.stored(newest)
        except StoreError:
            return PastCandles((), True, False)

    async def _fetch_revised(self, history: HistoryService, meter: CandleQuota, wanted: PastWanted) -> None:
        """Fetch what the client has not, or not as it is now, of what opened up to `since`."""
        provider, key, since = self._provider, self.stream.key, wanted.since or 0
        self._revised, self._revisions_known = {}, True
        if wanted.revision is not None:
            try:
                found = await history.revisions(provider, key, wanted.revision)
                candles = [candle for candle in found.candles if candle.time <= since]
                self._revised = {candle.time: candle for candle in candles[-MOST_REVISED:]}
                self._revisions_known = found.is_complete and len(candles) <= MOST_REVISED
            except StoreError:
                self._revisions_known = False
        asked = HistoryRequest(provider, key, None, None, MOST_REVISED, self._live, client=meter.client)
        for start, end in wanted.gaps:
            meter.check()
            try:
                past = await history.candles(dataclasses.replace(asked, start=start, end=min(end - 1, since)))
            except (ProviderError, StoreError):
                # The client has not got it, knows so, and asks again.
                continue
            closed, _ = parted(past.candles, past.last_is_closed)
            meter.spend(len(closed))
            self._revised |= {candle.time: candle for candle in closed}

    def _live(self) -> LiveEdge | None:
        return live_of(self.stream)

    def _rows_back(self, bars: int) -> int:
        """Return how many of the newest candles to ask for; a stream that is not live needs what it has missed, too."""
        bars += self.options.closed_only
        if self._live() is not None or not self._provider.has_history:
            return bars
        series = self.stream.series
        behind_s = max(0.0, self._provider.clock.now() - series.needs_from())
        # The first of them is still to come where the stream has told nothing.
        return min(MOST_SINCE, bars + (series.last is None) + int(behind_s // length_s(self.stream.key.interval)))

    # -- splicing ----------------------------------------------------------------------------------

    def splice(self, before: int | None) -> SplicedPast:
        """Return what is sent first, up to exactly what the stream has told until now; subscribe without awaiting.

        A stream that is not live learns from the answer what it has missed, so that the snapshot reaches up to the
        present; where it does not, it is not complete. `before` leaves out what the subscriber has already.
        """
        stream, series, past = self.stream, self.stream.series, self._past
        is_current = self._live() is not None or self.wanted.bars == 0
        if not is_current and is_whole(past) and self._reaches_from <= series.needs_from() and not self._lacks_one():
            closed, forming = parted(past.candles, past.last_is_closed)
            learnt = series.learn(closed, forming, self._asked_at, lost=past.unreadable)
            self._hub.tell_after_gaps(stream, learnt, "the provider's history does not have it")
            age_s = self._provider.clock.now() - self._asked_at
            is_current = age_s <= length_s(stream.key.interval) + self._provider.info.close_grace_s
        snapshot = splice(
            series,
            self._attachment.closed,
            past,
            self.wanted,
            closed_only=self.options.closed_only,
            before=before,
            confirmed_at=self.confirmed_at,
            names_holes=self._provider.info.has_every_candle,
        )
        for gap in snapshot.gaps:
            series.owe(gap)
        snapshot = snapshot._replace(is_complete=snapshot.is_complete and is_current)
        return self._with_revised(snapshot, is_new=before is None) if self.wanted.wants_revised else snapshot

    def _lacks_one(self) -> bool:
        """Say whether the answer lacks a candle that the stream would pass over if it learnt from it."""
        info, series, past = self._provider.info, self.stream.series, self._past
        if not info.has_every_candle:
            return False
        times = {*(candle.time for candle in past.candles), *(span.start for span in past.unreadable)}
        # What is owed and not over for long may follow; nothing else brings what was over before.
        settled = math.floor(self._asked_at - info.close_grace_s - length_s(self.stream.key.interval))
        end = max([settled, *times, *([series.owed_from()] if series.last is None else [])])
        begin = min([series.needs_from(), *times])
        return bool(left_out(series, past, begin, end, times, to_end=True))

    def _with_revised(self, snapshot: SplicedPast, *, is_new: bool) -> SplicedPast:
        told, since = self._attachment, self.wanted.since or 0
        # What was revised while it was asked for, a gap that was repaired so too: others were told of it already.
        since_asked = {time: told.closed[time] for time in told.revised if time <= since}
        revised = {time: candle for time, candle in self._revised.items() if time not in since_asked}
        revised |= since_asked if is_new else {}
        candles = [revised[time] for time in sorted(revised)]
        return snapshot._replace(revised=candles, revisions_known=self._revisions_known)

    def note_given(self, snapshot: SplicedPast, history: HistoryService) -> None:
        """Have the closed candles of a snapshot that were over only a moment before compared when they have settled."""
        info, interval = self._provider.info, self.stream.key.interval
        settled_before = self._asked_at - info.close_grace_s - info.fresh_s
        closed = snapshot.candles if snapshot.last_is_closed else snapshot.candles[:-1]
        fresh = takewhile(lambda candle: next_open(interval, candle.time) > settled_before, reversed(closed))
        history.calls.note_given(self._provider, self.stream.key, fresh)

    def begins_at(self, snapshot: SplicedPast) -> int | None:
        """Return from which open time on the subscriber has all candles with a snapshot, its gaps' once they come."""
        if self.wanted.since is not None and self.wanted.bars is None:
            return self.wanted.since + 1
        return snapshot.candles[0].time if snapshot.candles else None

    def has_from(self, snapshot: SplicedPast) -> int | None:
        """Return from which open time on the subscriber has candles at all, which it is to be told revisions of.

        Whoever resumes may have any from before. None: it has those that it is told.
        """
        return self.begins_at(snapshot) if self.wanted.since is None else 0

    def floor(self) -> int:
        """Return up to which open time the subscriber has candles that the stream has not reached yet, if it says so.

        Whoever resumes may come from a relay, or a run of this one, that was ahead of what this stream has told.
        """
        if self.wanted.since is None:
            return NO_FLOOR
        floor = had_up_to(self.stream.series, self.wanted.since, self._provider.clock.reach())
        return NO_FLOOR if floor is None else floor


def _rows_for(past: PastCandles, wanted: PastWanted) -> int:
    """Return how many candles of an answer a client asked for; others were fetched for the stream's sake."""
    rows = len(past.candles)
    if wanted.since is not None:
        rows = sum(candle.time > wanted.since for candle in past.candles)
    return rows if wanted.bars is None else min(rows, wanted.bars)
