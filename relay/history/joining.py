"""One subscription with its past, from the request until it follows its stream: `Joining.run` fetches, splices, sends.

The stream is wanted, and what it tells is kept, from the request on; only then is the past asked for. So the stream's
promise begins before the past ends, whatever the provider's history is like and however long it takes.
"""

import asyncio
import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple, Protocol

from relay.core.errors import ProviderError, RateLimited, RequestError, StoreError
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey, parted
from relay.history.live_edge import LiveEdge, live_of
from relay.history.requests import HistoryRequest, PastCandles
from relay.history.service import HistoryService
from relay.history.snapshot import (
    SplicedPast,
    had_up_to,
    is_joined,
    is_left_open,
    left_out,
    splice,
    without_long_tail,
)
from relay.plugins.provider import Provider
from relay.protocol import frames
from relay.protocol.client_requests import MOST_BARS, PastWanted, Request, SubscribeOptions
from relay.streams.hub import Hub
from relay.streams.subscriptions import NO_FLOOR, Attachment, Stream, Subscriber
from relay.telemetry.events import event

MOST_SINCE = 20_000
"""Candles that a resume may bring; beyond, the newest are sent and the snapshot is not complete."""
MOST_REVISED = 2000
"""Revised candles that a resume brings, the newest; beyond, it says that there are others."""
MOST_WAIT_S = 150.0
"""A past that has to wait for the provider's budget is waited for so long at most."""
LEAST_WAIT_S = 0.5
RENEWAL_WAIT_S = 1.0
"""A past that a client is sent anew waits so long after a failure to be asked for again; twice as long each time."""
MOST_RENEWAL_WAIT_S = 30.0
NOT_GIVEN = "the provider could not deliver these candles"
LAG_WAIT_S = 0.5
"""So long history that may lag is waited for before it is asked again; twice as long each time."""
READ_WAIT_S = 0.05
"""So often a client that reads slowly is looked at, before its past is fetched."""

log = logging.getLogger(__name__)


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


@dataclass(slots=True, eq=False)
class JoiningClient:
    """One client as its subscriptions are joined: the streams it has, and what waits for its past.

    `begins` has the open time from which on the client has the candles of a stream.
    """

    hub: Hub
    history: HistoryService
    subscriber: Subscriber
    begins: dict[Stream, int] = field(default_factory=dict)
    waiting: "dict[tuple[str, StreamKey], Joining]" = field(default_factory=dict)
    turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    def follow(
        self,
        stream: Stream,
        options: SubscribeOptions,
        floor: int = NO_FLOOR,
        has_from: int | None = None,
        attachment: Attachment | None = None,
    ) -> bool:
        """Let the client have the stream's updates; say whether it had none before. The rest is as for the hub.

        It is told what is revised of the candles that opened from `has_from` on; None: of those that it is told.
        """
        clock = stream.feeder.clock
        told_from = stream.series.told_from(clock.now())
        # Before the first update a clock that is ahead may have set when the stream began.
        begin = min(told_from, int(clock.certain()) - length_s(stream.key.interval) + 1)
        if has_from is not None:
            begin = min(begin, has_from)
        is_new = self.hub.subscribe(self.subscriber, stream, options, floor=floor, begin=begin, attachment=attachment)
        self.note("subscribes to", stream)
        self.begins.setdefault(stream, told_from)
        return is_new

    def tell(self, sent: list[bytes]) -> None:
        """Send the client frames, as one write."""
        if sent:
            self.hub.send(self.subscriber, frames.join(sent), frames=len(sent))

    def note(self, verb: str, stream: Stream) -> None:
        """Log what the client does with a stream."""
        if log.isEnabledFor(logging.DEBUG):
            number, name = self.subscriber.id, stream.label
            about = event("client_stream", client=number, stream=name, action=verb)
            log.debug("client %d %s %s", number, verb, name, extra=about)


class Fetched(NamedTuple):
    """What history gave, asked at `asked_at` of the provider's time: all from `reaches_from` on, if `past` is whole.

    `revised` are candles from before that are other ones than the client has, by open time; there may be others unless
    `revisions_known`. `gap_reason` is why something is missing, if it is.
    """

    past: PastCandles = PastCandles((), True, True)
    asked_at: float = 0.0
    reaches_from: int = 0
    gap_reason: str = NOT_GIVEN
    revised: Mapping[int, Candle] = MappingProxyType({})
    revisions_known: bool = True


class Joining:
    """A subscription on its way: the requests it answers, and what the newest of them wants.

    It is among those that wait from the beginning until it is sent, or closed. Whoever makes one awaits `run`. A
    renewal sends a client that has the stream its past anew, for which it did not ask: however long that takes.
    """

    def __init__(
        self,
        client: JoiningClient,
        quota: CandleQuota,
        stream: Stream,
        provider: Provider,
        request: Request,
        *,
        is_renewal: bool = False,
    ) -> None:
        self.stream = stream
        self.ids = [] if is_renewal else [request.id]
        self._is_renewal = is_renewal
        self._options: SubscribeOptions = request.options
        self._wanted = self._renewed = request.past
        self._client = client
        self._quota = quota
        self._provider = provider
        self._attachment = client.hub.attach(stream)
        self._confirmed_at = provider.clock.now() if is_renewal else None
        self._bars = request.past.bars or 0
        self._waited_s = 0.0
        # One past at a time of each provider: they are large, and a provider that hangs holds up no other.
        self._turn = client.turns.setdefault(stream.provider, asyncio.Lock())
        client.waiting[stream.provider, stream.key] = self

    async def run(self) -> None:
        """Fetch the past, splice it to the stream and send it; where the provider's budget is used up, wait before.

        Raises `RequestError` when the client had its share of candles.
        """
        client, stream = self._client, self.stream
        failure_wait_s = RENEWAL_WAIT_S
        try:
            while self._is_waiting():
                self._reach_back()
                try:
                    age = self._age()
                    fetched = await self._fetch()
                    if age != self._age():
                        # A part of it may be from before the past changed.
                        continue
                    if self._is_waiting():
                        # Nothing is awaited between: no update comes between the two either.
                        self._send(self._splice(fetched), fetched)
                    return
                except RateLimited as error:
                    if self._is_waiting():
                        message = f"the snapshot follows in {error.retry_after:.0f} s: {error}"
                        state = frames.stream_status(stream.name, stream.key.interval, "throttled", message)
                        client.tell([*self._confirm(), state])
                    await asyncio.sleep(pause_s := max(error.retry_after, LEAST_WAIT_S))
                    self._waited_s += pause_s
                except (ProviderError, StoreError):
                    # Only a renewal has these: less than the client has may not take the place of that.
                    await asyncio.sleep(failure_wait_s)
                    failure_wait_s = min(MOST_RENEWAL_WAIT_S, 2 * failure_wait_s)
        except RequestError as error:
            error.symbol, error.interval = stream.name, stream.key.interval
            raise
        finally:
            self.close()

    def _reach_back(self) -> None:
        """Have a renewal that had to wait reach as far back as when it began, unless a request wants another past."""
        wanted, began_at = self._wanted, self._confirmed_at
        if self._is_renewal and wanted.bars is not None and wanted is self._renewed and began_at is not None:
            opened = math.ceil((self._provider.clock.now() - began_at) / length_s(self.stream.key.interval))
            self._wanted = self._renewed = wanted._replace(bars=min(MOST_BARS, self._bars + opened))

    def _age(self) -> int:
        return self._client.history.age(self._provider, self.stream.key.symbol)

    # -- fetch -------------------------------------------------------------------------------------

    async def _fetch(self) -> Fetched:
        """Fetch the past, again while a later request wants another; what cannot be had makes it incomplete.

        Raises `RequestError` when there were too many rows, and `RateLimited` when the provider's budget is used up
        for a time that is worth waiting for.
        """
        while True:
            wanted, extended = self._wanted, self._options.extended
            fetched = Fetched() if wanted.bars == 0 else await self._fetch_past(wanted)
            if wanted.wants_revised:
                async with self._turn:
                    await self._until_read()
                    fetched = await self._fetch_revised(wanted, fetched)
            if wanted == self._wanted and (extended or not self._options.extended):
                return fetched

    async def _fetch_past(self, wanted: PastWanted) -> Fetched:
        """Ask until the answer reaches what the stream itself answers for, or is old enough to be believed."""
        series, info, quota = self.stream.series, self._provider.info, self._quota
        settled_at = self._provider.clock.now() + info.close_grace_s
        pause_s, spent, is_strict, more = LAG_WAIT_S, 0, False, 0
        while True:
            # Who waits to ask again leaves the turn to others.
            async with self._turn:
                await self._until_read()
                quota.check()
                fetched = await self._ask(wanted, is_strict, more)
            rows = _rows_for(fetched.past, wanted)
            quota.spend(max(0, rows - spent))
            spent = max(spent, rows)
            if not fetched.past.is_whole:
                return fetched
            if (lacking := self._rows_lacking(fetched, wanted)) > 0:
                # As many may become newer than the stream while it is asked again.
                more += 2 * lacking
                continue
            if is_joined(fetched.past, series, wanted, has_open=info.history_has_open):
                return fetched
            if is_strict:
                if info.history_has_open or fetched.asked_at >= settled_at:
                    return fetched
                await asyncio.sleep(pause_s)
                pause_s *= 2
            is_strict = True

    async def _until_read(self) -> None:
        """Wait for a slow reader: what was fetched must not pile up before it."""
        client = self._client
        while client.subscriber.outbox.is_lagging and client.subscriber in client.hub.subscribers:  # noqa: ASYNC110
            await asyncio.sleep(READ_WAIT_S)

    def _rows_lacking(self, fetched: Fetched, wanted: PastWanted) -> int:
        """Return how many older rows are to be asked for: too many of the answer are newer than what is sent first.

        Those come as updates. What the stream remembers of older ones does not make up for them: nobody vouches for
        what lies between.
        """
        past, series = fetched.past, self.stream.series
        if wanted.bars is None or fetched.reaches_from == 0 or len(past.candles) >= MOST_SINCE:
            return 0
        times = (candle.time for candle in reversed(past.candles))
        rows = len(past.candles) - sum(1 for _ in takewhile(series.is_to_come, times))
        # With `closed_only` the one that the stream has open does not count.
        has_open = series.last is not None and not series.last_is_closed
        return wanted.bars + (self._options.closed_only and has_open) - rows

    async def _ask(self, wanted: PastWanted, is_strict: bool, more: int) -> Fetched:
        history, most, asked_at = self._client.history, MOST_SINCE, self._provider.clock.now()
        start: int | None = None
        is_live = self._live() is not None
        if wanted.since is not None and wanted.bars is None:
            start = wanted.since + 1
            if not is_live and self._provider.has_history:
                start = min(start, self.stream.series.needs_from())
            start = max(0, start)
        else:
            most = min(MOST_SINCE, self._rows_back(wanted.bars or 1, is_live) + more)
        # A stream that is not live learns from the answer, for others too.
        extended = not is_live or self._options.extended
        newest = dataclasses.replace(self._request(most), is_spliced=True, extended=extended)
        gap_reason = NOT_GIVEN
        try:
            past = await history.candles(dataclasses.replace(newest, start=start, must_be_new=is_strict))
            if start is not None and len(past.candles) >= most:
                # It may go on beyond; the newest are worth more.
                await history.candles(newest)
            elif past.is_whole:
                is_all = start is None and len(past.candles) < most
                return Fetched(past, asked_at, 0 if is_all else past.candles[0].time if start is None else start)
        except RateLimited as error:
            if self._is_renewal or self._waited_s + error.retry_after <= MOST_WAIT_S:
                raise
            gap_reason = f"the provider was not asked; these candles follow later: {error}"
        except ProviderError:
            if self._is_renewal:
                raise
        except StoreError:
            if self._is_renewal:
                raise
            return Fetched(PastCandles((), True, False), asked_at)
        try:
            # All that is known by now, also of what the provider gave before it failed.
            return Fetched(await history.stored(newest), asked_at, gap_reason=gap_reason)
        except (ProviderError, StoreError):
            return Fetched(PastCandles((), True, False), asked_at, gap_reason=gap_reason)

    async def _fetch_revised(self, wanted: PastWanted, fetched: Fetched) -> Fetched:
        """Fetch what the client has not, or not as it is now, of what opened up to `since`."""
        history, quota, since = self._client.history, self._quota, wanted.since or 0
        revised: dict[int, Candle] = {}
        are_known = True
        if wanted.revision is not None:
            try:
                extended = self._options.extended
                found = await history.revisions(self._provider, self.stream.key, wanted.revision, extended=extended)
                known = found.candles if not found.is_forgotten else await self._all_anew(since, found.candles)
                candles = [candle for candle in known if candle.time <= since]
                revised = {candle.time: candle for candle in candles[-MOST_REVISED:]}
                are_known = found.is_complete and len(candles) <= MOST_REVISED
            except StoreError:
                are_known = False
        asked = self._request(MOST_REVISED)
        for start, end in wanted.gaps:
            quota.check()
            try:
                past = await history.candles(dataclasses.replace(asked, start=start, end=min(end - 1, since)))
            except (ProviderError, StoreError):
                # The client has not got it, knows so, and asks again.
                continue
            closed, _ = parted(past.candles, past.last_is_closed)
            quota.spend(len(closed))
            revised |= {candle.time: candle for candle in closed}
        return fetched._replace(revised=revised, revisions_known=are_known)

    async def _all_anew(self, since: int, revised: Sequence[Candle]) -> Sequence[Candle]:
        """Return what is revised, and the newest candles up to `since`: all of them may be other ones now.

        Only the former where nothing else can be had. Raises `StoreError`.
        """
        self._quota.check()
        try:
            asked = dataclasses.replace(self._request(MOST_REVISED), end=since)
            past = await self._client.history.candles(asked)
        except ProviderError:
            return revised
        closed, _ = parted(past.candles, past.last_is_closed)
        self._quota.spend(len(closed))
        found = {candle.time: candle for candle in (*closed, *revised)}
        return [found[time] for time in sorted(found)]

    def _request(self, most: int) -> HistoryRequest:
        """Return the question for the newest `most` candles."""
        extended = self._options.extended
        return HistoryRequest(
            self._provider,
            self.stream.key,
            None,
            None,
            most,
            self._live,
            client=self._quota.client,
            extended=extended,
            needs_extras=extended,
        )

    def _live(self) -> LiveEdge | None:
        return live_of(self.stream)

    def _rows_back(self, bars: int, is_live: bool) -> int:
        """Return how many of the newest candles to ask for; a stream that is not live needs what it has missed, too."""
        bars += self._options.closed_only
        if is_live or not self._provider.has_history:
            return bars
        series = self.stream.series
        behind_s = max(0.0, self._provider.clock.now() - series.needs_from())
        # The first of them is still to come where the stream has told nothing.
        return min(MOST_SINCE, bars + (series.last is None) + int(behind_s // length_s(self.stream.key.interval)))

    # -- splice ------------------------------------------------------------------------------------

    def _splice(self, fetched: Fetched) -> SplicedPast:
        """Return what is sent first, up to exactly what the stream has told until now.

        A stream that is not live learns from the answer what it has missed, so that the snapshot reaches up to the
        present; where it does not, it is not complete. What the subscriber has already is left out.
        """
        stream, series, past = self.stream, self.stream.series, fetched.past
        before = self._client.begins.get(stream)
        is_current = self._live() is not None or self._wanted.bars == 0
        reaches = past.is_whole and fetched.reaches_from <= series.needs_from()
        if not is_current and reaches and not self._lacks_one(fetched):
            closed, forming = parted(past.candles, past.last_is_closed)
            learnt = series.learn(closed, forming, fetched.asked_at, lost=past.unreadable)
            self._client.hub.tell_after_gaps(stream, learnt, "the provider does not have these candles")
            age_s = self._provider.clock.now() - fetched.asked_at
            grace_s = self._provider.info.close_grace_s
            is_current = age_s <= length_s(stream.key.interval) + grace_s and not is_left_open(
                series, fetched.asked_at - grace_s
            )
        snapshot = splice(
            series,
            self._attachment.closed,
            past,
            self._wanted,
            closed_only=self._options.closed_only,
            before=before,
            confirmed_at=self._confirmed_at,
            names_holes=self._provider.info.has_every_candle,
        )
        for gap in snapshot.gaps:
            series.owe(gap)
        snapshot = snapshot._replace(is_complete=snapshot.is_complete and is_current)
        return self._with_revised(snapshot, fetched, is_new=before is None) if self._wanted.wants_revised else snapshot

    def _lacks_one(self, fetched: Fetched) -> bool:
        """Say whether the answer lacks a candle that the stream would pass over if it learnt from it."""
        info, series, past = self._provider.info, self.stream.series, fetched.past
        if not info.has_every_candle:
            return False
        times = {*(candle.time for candle in past.candles), *(span.start for span in past.unreadable)}
        # What is owed and not over for long may follow; nothing else brings what was over before.
        settled = math.floor(fetched.asked_at - info.close_grace_s - length_s(self.stream.key.interval))
        end = max([settled, *times, *([series.owed_from()] if series.last is None else [])])
        begin = min([series.needs_from(), *times])
        return bool(without_long_tail(series, past, left_out(series, past, begin, end, times, tail_until=end)))

    def _with_revised(self, snapshot: SplicedPast, fetched: Fetched, *, is_new: bool) -> SplicedPast:
        told, since = self._attachment, self._wanted.since or 0
        # What was revised while it was asked for, a gap that was repaired so too: others were told of it already.
        since_asked = {time: told.closed[time] for time in told.revised if time <= since}
        revised = {time: candle for time, candle in fetched.revised.items() if time not in since_asked}
        revised |= since_asked if is_new else {}
        candles = [revised[time] for time in sorted(revised)]
        return snapshot._replace(revised=candles, revisions_known=fetched.revisions_known)

    # -- send --------------------------------------------------------------------------------------

    def _send(self, past: SplicedPast, fetched: Fetched) -> None:
        """Let the updates follow, and before them confirm, tell the state, and send what was spliced."""
        client, stream, wanted = self._client, self.stream, self._wanted
        self._have_compared(past, fetched.asked_at)
        begin = past.candles[0].time if past.candles else None
        if wanted.since is not None and wanted.bars is None:
            begin = wanted.since + 1
        # Whoever resumes may have any from before, and is told their revisions.
        has_from = begin if wanted.since is None else 0
        client.follow(stream, self._options, self._floor(), has_from, self._attachment)
        if begin is not None:
            # Those of gaps once they come.
            client.begins[stream] = min(begin, client.begins[stream])
        state = stream.state_frames() if self._confirmed_at is None else [stream.state_frame()]
        if self._is_renewal and not self._waited_s:
            state = []
        client.tell(
            [
                *self._confirm(),
                *state,
                *(stream.gap_frame(gap, fetched.gap_reason) for gap in past.gaps),
                frames.snapshot(
                    stream.name,
                    stream.key.interval,
                    past.candles,
                    last_is_closed=past.last_is_closed,
                    complete=past.is_complete,
                    seq=stream.seq,
                    provider=stream.provider,
                    revision=client.history.revision,
                    revised=past.revised,
                    revisions_known=past.revisions_known,
                    is_extended=self._options.extended,
                    replaces=self._is_renewal,
                ),
            ]
        )

    def _have_compared(self, past: SplicedPast, asked_at: float) -> None:
        """Have the closed candles that are sent and were over only a moment before compared when they have settled."""
        if self.stream.base is not None:
            return
        info, interval = self._provider.info, self.stream.key.interval
        settled_before = asked_at - info.close_grace_s - info.fresh_s
        closed, _ = parted(past.candles, past.last_is_closed)
        fresh = takewhile(lambda candle: next_open(interval, candle.time) > settled_before, reversed(closed))
        self._client.history.calls.finals.note_given(self._provider, self.stream.key, [*fresh])

    def _floor(self) -> int:
        """Return up to which open time the subscriber has candles that the stream has not reached yet, if it says so.

        Whoever resumes may come from a relay, or a run of this one, that was ahead of what this stream has told.
        """
        if self._wanted.since is None:
            return NO_FLOOR
        floor = had_up_to(self.stream.series, self._wanted.since, self._provider.clock.reach())
        return NO_FLOOR if floor is None else floor

    # -- meanwhile ---------------------------------------------------------------------------------

    @property
    def is_confirmed(self) -> bool:
        """Whether the subscriber was told that the stream is accepted, and waits for its past."""
        return self._confirmed_at is not None

    def _is_waiting(self) -> bool:
        """Say whether it waits still: the client may have left the stream meanwhile."""
        return self._client.waiting.get((self.stream.provider, self.stream.key)) is self

    def replace(self, request: Request) -> None:
        """Take what a later request for the same stream wants instead, and answer it if the first was answered."""
        self.ids.append(request.id)
        self._options = request.options
        if request.past != PastWanted():
            self._wanted = request.past
        if self.is_confirmed:
            self._client.tell([self.stream.confirmation(request.id)])

    def _confirm(self) -> list[bytes]:
        """Return the confirmations that are due; with them the subscriber is owed every candle that closes."""
        if self.is_confirmed:
            return []
        self._confirmed_at = self._provider.clock.now()
        return [self.stream.confirmation(request_id) for request_id in self.ids]

    def leave(self) -> None:
        """End it: the client leaves the stream. Its requests are answered all the same: the stream was accepted."""
        self._client.tell(self._confirm())
        self.close()

    def close(self) -> None:
        """Let go of the stream: it is subscribed to, or not wanted any more."""
        if self._is_waiting():
            del self._client.waiting[self.stream.provider, self.stream.key]
        self._client.hub.detach(self._attachment)


def _rows_for(past: PastCandles, wanted: PastWanted) -> int:
    """Return how many candles of an answer a client asked for; others were fetched for the stream's sake."""
    rows = len(past.candles)
    if wanted.since is not None:
        rows = sum(candle.time > wanted.since for candle in past.candles)
    return rows if wanted.bars is None else min(rows, wanted.bars)
