"""One subscription with its past, from the request until it follows its stream: `Joining.run` fetches, splices, sends.

The stream is wanted, and what it tells is kept, from the request on; only then is the past asked for. So the stream's
promise begins before the past ends, whatever the provider's history is like and however long it takes.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from relay.core.errors import RateLimited, RequestError
from relay.core.intervals import length_s, next_open
from relay.core.model import StreamKey, parted
from relay.history.live_edge import live_of
from relay.history.past_fetch import CandleQuota, Fetched, PastFetch, PastTurns
from relay.history.service import HistoryService
from relay.history.snapshot import SplicedPast, had_up_to, is_left_open, left_out, splice, without_long_tail
from relay.plugins.provider import Provider
from relay.protocol import frames
from relay.protocol.client_requests import PastWanted, Request, SubscribeOptions
from relay.protocol.positions import tag_of
from relay.protocol.server_messages import StreamState
from relay.streams.hub import Hub
from relay.streams.subscriptions import NO_FLOOR, Attachment, Stream, Subscriber
from relay.telemetry.events import event

LEAST_WAIT_S = 0.5
MOST_TRIES = 5
"""So often a past is asked for because it changed meanwhile; then the client is told that it cannot be had."""
READ_WAIT_S = 0.05
"""So often a client that reads slowly is looked at, before its past is fetched."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class JoiningClient:
    """One client as its subscriptions are joined: the streams it has, and what waits for its past.

    `begins` has the open time from which on the client has the candles of a stream, `turns` those of its pasts, by
    provider.
    """

    hub: Hub
    history: HistoryService
    subscriber: Subscriber
    begins: dict[Stream, int] = field(default_factory=dict)
    waiting: "dict[tuple[str, StreamKey], Joining]" = field(default_factory=dict)
    turns: Mapping[str, PastTurns] = field(default_factory=lambda: defaultdict(PastTurns))

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
        if stream.told_to == NO_FLOOR:
            last = stream.series.last
            has_closed = last is not None and stream.series.last_is_closed
            stream.told_to = told_from if has_closed else told_from - 1
        if self.subscriber.resumed is not None:
            self.subscriber.resumed = self.subscriber.resumed.without(tag_of(stream.provider, stream.key))
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


class Joining:
    """A subscription on its way: the requests it answers, and what the newest of them wants.

    It is among those that wait from the beginning until it is sent, or closed. Whoever makes one awaits `run`.
    """

    def __init__(
        self,
        client: JoiningClient,
        quota: CandleQuota,
        stream: Stream,
        provider: Provider,
        request: Request,
        *,
        may_lack: bool = True,
    ) -> None:
        self.stream = stream
        self.ids = [request.id]
        self._wanted = request.past
        self._client = client
        self._provider = provider
        self._attachment = client.hub.attach(stream)
        self._confirmed_at: float | None = None
        self._tries = 0
        self.past_to_come: PastWanted | None = None
        """What of the past is still to be sent once the provider gives it, None if nothing is."""
        self._fetch = PastFetch(
            client.history, stream, provider, quota, client.turns, self._until_read, request.options, may_lack=may_lack
        )
        client.waiting[stream.provider, stream.key] = self

    async def run(self) -> None:
        """Fetch the past, splice it to the stream and send it.

        A provider that is silent is not waited for: what is known is sent, and what is missing follows. One whose
        budget is used up is: to ask twice would cost more of it. Raises `RequestError` when the client had its share
        of candles.
        """
        fetching = asyncio.ensure_future(self._run())
        try:
            await asyncio.wait({fetching}, timeout=self._fetch.turns.waits.confirm_s)
            if not fetching.done() and self._is_waiting() and not self.is_confirmed:
                self._tell_wait("backfilling", "the provider has not answered yet; the snapshot follows")
            while await self._is_provider_silent(fetching):
                self._fetch.turns.note_silence()
                asked, wanted = self._wanted, self._reachable()
                known = await self._fetch.known(wanted)
                await self._until_read()
                if fetching.done() or self._wanted != asked:
                    continue
                # Only then, so that what a client asks meanwhile is answered by this one, and afterwards by the rest.
                fetching.cancel()
                await asyncio.wait({fetching})
                if fetching.cancelled():
                    if self._wanted == asked:
                        self._send_known(wanted, known)
                        return
                    fetching = asyncio.ensure_future(self._run())
            await fetching
        except RequestError as error:
            error.symbol, error.interval = self.stream.name, self.stream.key.interval
            raise
        finally:
            if not fetching.done():
                fetching.cancel()
                await asyncio.wait({fetching})
            self.close()

    async def _is_provider_silent(self, fetching: asyncio.Future[None]) -> bool:
        """Wait until the past was sent, or the provider has given the client nothing for too long; say whether so."""
        while not fetching.done():
            left_s = self._fetch.silent_in_s()
            if left_s <= 0:
                return True
            await asyncio.wait({fetching}, timeout=left_s)
        return False

    async def _run(self) -> None:
        """Fetch the past and send it; where the provider's budget is used up, wait before. Raises as `run` does."""
        while self._is_waiting():
            try:
                if await self._attempt():
                    return
            except RateLimited as error:
                if self._is_waiting():
                    self._tell_wait("throttled", f"the snapshot follows in {error.retry_after:.0f} s: {error}")
                await self._fetch.pause(pause_s := max(error.retry_after, LEAST_WAIT_S))
                self._fetch.waited_s += pause_s

    def _tell_wait(self, status: StreamState, message: str) -> None:
        stream = self.stream
        state = frames.stream_status(stream.name, stream.key.interval, status, message)
        self._client.tell([*self._confirm(), state])

    def _reachable(self) -> PastWanted:
        """Return what is wanted in a form in which what is missing of it can be told as gaps, or comes as a whole."""
        wanted = self._wanted
        if wanted.since is None or wanted.bars is None:
            return wanted
        begin = int(self._provider.clock.now()) - wanted.bars * length_s(self.stream.key.interval)
        return wanted._replace(bars=None, since=max(wanted.since, begin))

    def _send_known(self, wanted: PastWanted, known: Fetched) -> None:
        """Send what is known of the past in the place of all of it.

        Of what is wanted since some time the rest is told as gaps, and comes with their repair.
        """
        if not self._is_waiting():
            return
        self._wanted = wanted
        self.past_to_come = wanted if wanted.since is None else None
        self._send(self._splice(known), known)

    async def _attempt(self) -> bool:
        """Fetch the past and send it; say whether it is over. Raises what the fetch does."""
        fetched = await self._fetch_newest()
        wanted, extended = self._wanted, self._options.extended
        # That of another provider may have come at the same time.
        await self._until_read()
        if wanted != self._wanted or extended < self._options.extended:
            return False
        if not self._is_enough(fetched):
            return False
        if not fetched.seen.is_same(self.stream.provider, self.stream.key.symbol):
            # A part of it may be from before the past changed.
            self._tries += 1
            if self._tries < MOST_TRIES:
                return False
            self._tries = 0
            fetched = self._fetch.without_past()
        if self._is_waiting():
            # Nothing is awaited between: no update comes between the two either.
            self._send(self._splice(fetched), fetched)
        return True

    # -- fetch -------------------------------------------------------------------------------------

    async def _fetch_newest(self) -> Fetched:
        """Fetch the past, again while a later request wants another. Raises what `PastFetch.fetch` does."""
        while True:
            wanted, extended = self._wanted, self._options.extended
            fetched = await self._fetch.fetch(wanted)
            if wanted == self._wanted and (extended or not self._options.extended):
                return fetched

    def _is_enough(self, fetched: Fetched) -> bool:
        """Say whether what was fetched may be sent."""
        return True

    async def _until_read(self) -> None:
        """Wait for a slow reader: what was fetched must not pile up before it."""
        client = self._client
        while client.subscriber.outbox.is_lagging and client.subscriber in client.hub.subscribers:  # noqa: ASYNC110
            await asyncio.sleep(READ_WAIT_S)

    # -- splice ------------------------------------------------------------------------------------

    def _splice(self, fetched: Fetched) -> SplicedPast:
        """Return what is sent first, up to exactly what the stream has told until now.

        A stream that is not live learns from the answer what it has missed, so that the snapshot reaches up to the
        present; where it does not, it is not complete. What the subscriber has already is left out.
        """
        stream, series, past = self.stream, self.stream.series, fetched.past
        is_current = live_of(stream) is not None or self._wanted.bars == 0
        reaches = past.is_whole and fetched.reaches_from <= series.needs_from()
        if not is_current and reaches and not self._lacks_one(fetched):
            closed, forming = parted(past.candles, past.last_is_closed)
            learnt = series.learn(closed, forming, fetched.asked_at, lost=past.unreadable)
            self._client.hub.tell_after_gaps(stream, learnt, "the provider does not have these candles")
            now, grace_s = self._provider.clock.now(), self._provider.info.close_grace_s
            is_recent = now - fetched.asked_at <= length_s(stream.key.interval) + grace_s
            # What was still open when a slow provider was asked may be over for long.
            over_by = max(fetched.asked_at, now - grace_s) - grace_s
            is_current = is_recent and not is_left_open(series, over_by, forming)
        before = self._has_from()
        snapshot = splice(
            series,
            self._attachment.closed,
            past,
            self._wanted,
            closed_only=self._options.closed_only,
            before=before,
            confirmed_at=self._owed_after(),
            names_holes=self._provider.info.has_every_candle,
            an_open=self._opens_after(self._wanted.since),
        )
        for gap in snapshot.gaps:
            series.owe(gap)
        snapshot = snapshot._replace(is_complete=snapshot.is_complete and is_current)
        return self._with_revised(snapshot, fetched, is_new=before is None) if self._wanted.wants_revised else snapshot

    def _has_from(self) -> int | None:
        """Return from which open time on the client has the stream and keeps what it has, None if it has nothing."""
        begin, last = self._client.begins.get(self.stream), self.stream.series.last
        if begin is None or self.replaces:
            return None
        # The first that a stream tells may have opened before it began.
        return begin if last is None else min(begin, last.time)

    def _owed_after(self) -> float | None:
        """Return after which time what closed is sent in any case, None if nothing is."""
        return self._confirmed_at

    def _lacks_one(self, fetched: Fetched) -> bool:
        """Say whether the answer lacks a candle that the stream would pass over if it learnt from it."""
        info, series, past = self._provider.info, self.stream.series, fetched.past
        if not info.has_every_candle:
            return False
        times = {*(candle.time for candle in past.candles), *(span.start for span in past.unreadable)}
        # What is owed and not over for long may follow; nothing else brings what was over before.
        settled = math.floor(fetched.asked_at - info.close_grace_s - length_s(self.stream.key.interval))
        end = max([settled, *times, *([series.owed_from()] if series.last is None else [])])
        begin, until = min([series.needs_from(), *times]), max(end, int(fetched.asked_at))
        over_by = fetched.asked_at - info.close_grace_s
        holes = [
            hole
            for hole in left_out(series, past, begin, until, times, tail_until=until)
            # One that ends with the trading in it is over before its interval is.
            if hole.start < end or self._ends_at(hole.start) <= over_by
        ]
        return bool(without_long_tail(series, past, holes))

    def _opens_after(self, since: int | None) -> int | None:
        """Return when the candle opens that follows, if the relay builds it; None if that is not known, or to come."""
        periods = self.stream.periods
        if periods is None or since is None or since >= self._provider.clock.now():
            return None
        period = periods.holding(since)
        return period.opens if period.opens > since else periods.holding(period.ends).opens

    def _ends_at(self, opened: int) -> int:
        """Return when the candle that opened then is over."""
        stream = self.stream
        if stream.periods is not None:
            return stream.periods.holding(opened).ends
        return stream.series.market.end_of(stream.key.interval, opened)

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
        floor = self._floor()
        if stream.series.last is None:
            closed, _ = parted(past.candles, past.last_is_closed)
            given = [stream.series.given_to, *(candle.time for candle in closed[-1:])]
            if stream.feeder.has_history:
                # Else what it comes back with may be owed to others.
                given.append(floor)
            stream.series.given_to = max(given)
        if self.replaces:
            # What it has counts for nothing.
            client.begins.pop(stream, None)
        client.follow(stream, self._options, floor, has_from, self._attachment)
        if begin is not None:
            # Those of gaps once they come.
            client.begins[stream] = min(begin, client.begins[stream])
        if self.is_pending or client.subscriber.pending:
            client.hub.note_pending(client.subscriber, stream, is_pending=self.is_pending)
        state = self._state()
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
                    replaces=self.replaces,
                    pending=self.is_pending,
                ),
            ]
        )

    def _state(self) -> list[bytes]:
        """Return the state as the subscriber is told it: who was confirmed before may have been told another one."""
        stream = self.stream
        return stream.state_frames() if self._confirmed_at is None else [stream.state_frame()]

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
    def replaces(self) -> bool:
        """Whether what is sent takes the place of all that the client has."""
        return self._wanted.replaces

    @property
    def is_pending(self) -> bool:
        """Whether what is sent is followed by a past that takes its place."""
        return self.past_to_come is not None

    @property
    def is_confirmed(self) -> bool:
        """Whether the subscriber was told that the stream is accepted, and waits for its past."""
        return self._confirmed_at is not None

    @property
    def _options(self) -> SubscribeOptions:
        return self._fetch.options

    def _is_waiting(self) -> bool:
        """Say whether it waits still: the client may have left the stream meanwhile."""
        return self._client.waiting.get((self.stream.provider, self.stream.key)) is self

    def replace(self, request: Request) -> None:
        """Take what a later request for the same stream wants instead, and answer it if the first was answered."""
        self.ids.append(request.id)
        self._fetch.options = request.options
        if request.past != PastWanted():
            self._want(request.past)
        if self.is_confirmed:
            self._client.tell([self.stream.confirmation(request.id)])

    def _want(self, past: PastWanted) -> None:
        """Answer with this past."""
        self._wanted = past

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
