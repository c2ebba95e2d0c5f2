"""What a provider's streams missed: fetched before the live updates that wait for it, told as a gap if it cannot be."""

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence

from relay.core.clock import Clock
from relay.core.counted import counted
from relay.core.errors import ProviderError, ProviderUnavailable, RateLimited, StoreError, UnknownSymbol, log_text
from relay.core.intervals import first_open_after, length_s, next_open
from relay.core.model import Candle, PriceUpdate, StreamKey, parted
from relay.core.spans import Span
from relay.core.trading_hours import TradingHours
from relay.history.requests import HistoryRequest, PastCandles
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.streams.catching_up import Missing
from relay.streams.hub import Hub
from relay.streams.subscriptions import CONNECTED, Stream
from relay.supervision.missing_candles import MissingCandles, holes_in
from relay.supervision.stream_facts import STALE, THROTTLED
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.timing import FEED_TIMING, FeedTiming
from relay.telemetry.events import event

log = logging.getLogger(__name__)

AT_A_TIME = 8
BUDGET_PATIENCE_S = 150.0
"""Live updates wait so long for history where the provider's budget is used up: that is known to end."""
MOST_WAIT_S = 30.0
STEP_S = 1.0
PAGE = 5000
LAG_WAIT_S = 0.5
HOLE_WAIT_S = 2.5
LEAST_WAIT_S = 0.5
DOES_NOT_HAVE_IT = "the provider does not have these candles"


class Backfill:
    """Asks history for the streams of one provider, one task a stream and a few questions at a time.

    A stream whose feed is lost, or that is dropped, has to be let go of with `cancel`.
    """

    def __init__(
        self,
        provider: Provider,
        hub: Hub,
        history: HistoryService,
        clock: Clock,
        rng: random.Random,
        *,
        timing: FeedTiming = FEED_TIMING,
    ) -> None:
        self.fetched = 0
        self.longest_s = 0.0
        self._provider = provider
        self._hub = hub
        self._history = history
        self._clock = clock
        self._rng = rng
        self._timing = timing
        self._fills: dict[SupervisedStream, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._repairing = asyncio.Semaphore(AT_A_TIME // 2)  # the other places are for what live updates wait for
        self._repair_at = clock.monotonic() + timing.repair_every_s
        self._repair: asyncio.Task[None] | None = None

    # -- when --------------------------------------------------------------------------------------

    def resume(self, supervised: SupervisedStream) -> None:
        """Go on with a stream that a feed delivers: at once, unless candles may have closed unseen meanwhile."""
        stream = supervised.stream
        supervised.accept()
        # Only data ends staleness: a provider may accept a stream and stay mute.
        if stream.status in (CONNECTED, STALE) or self._is_filling(supervised):
            return
        now = self._clock.monotonic()
        if stream.status != THROTTLED:
            # Polls that waited for their budget end no silence: what follows may be without news too.
            supervised.listen_anew(now)
        if not stream.series.is_catching_up and self._may_have_closed(supervised, now):
            stream.series.catch_up()
        if stream.series.is_catching_up:
            self.start(supervised)
        else:
            supervised.go_live()

    def _may_have_closed(self, supervised: SupervisedStream, now: float) -> bool:
        due_at = supervised.stream.series.due_at()
        is_over = due_at is not None and self._provider.clock.now() >= due_at
        return is_over and self._provider.has_history and not supervised.is_planned(now)

    def check_close(self, supervised: SupervisedStream, now: float) -> None:
        """Ask history for a candle whose interval is over when the feed did not close it.

        Feeds of a recording close all that there are.
        """
        provider = self._provider
        if not provider.has_history or provider.info.is_recorded:
            return
        if supervised.is_overdue(provider.clock.now(), provider.info.close_grace_s, now):
            supervised.ask_later(now)
            supervised.stream.series.catch_up()
            self.start(supervised)

    def doubt(self, supervised: SupervisedStream) -> None:
        """Ask history in place of a feed whose updates are left out, after growing pauses."""
        series = supervised.stream.series
        if self._provider.has_history and not series.is_catching_up and supervised.may_doubt(self._clock.monotonic()):
            series.catch_up()
            self.start(supervised)

    def start(self, supervised: SupervisedStream) -> None:
        """Fetch what the series of a stream waits for, unless that is under way."""
        if not self._is_filling(supervised):
            supervised.catch_up("fetching the missed candles")
            task = asyncio.create_task(self._fill(supervised), name=f"backfill {supervised.stream.key}")
            self._fills[supervised] = task
            task.add_done_callback(lambda done: self._fill_done(supervised, done))

    def _is_filling(self, supervised: SupervisedStream) -> bool:
        fill = self._fills.get(supervised)
        return fill is not None and not fill.done()

    def cancel(self, supervised: SupervisedStream) -> None:
        """Stop fetching for a stream; `resume` begins again."""
        fill = self._fills.pop(supervised, None)
        if fill is not None:
            fill.cancel()

    def repair(self, streams: Mapping[StreamKey, SupervisedStream], now: float) -> None:
        """Try, once in a while, to close gaps of each stream, the oldest first. Call it about once a second.

        `streams` are those that are carried: looked at again whenever history has answered.
        """
        if now >= self._repair_at and self._provider.has_history and (self._repair is None or self._repair.done()):
            self._repair_at = now + self._timing.repair_every_s
            self._repair = asyncio.create_task(self._repair_all(streams), name=f"repair {self._provider.name}")

    async def close(self) -> None:
        """Stop fetching for all streams."""
        tasks = [*self._fills.values(), *([] if self._repair is None else [self._repair])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- how ---------------------------------------------------------------------------------------

    def _fill_done(self, supervised: SupervisedStream, task: asyncio.Task[None]) -> None:
        if self._fills.get(supervised) is task:
            del self._fills[supervised]
        if not task.cancelled() and (error := task.exception()) is not None:
            stream = supervised.stream
            log.error("backfill of %s failed", stream.key, exc_info=error, extra=_about("backfill_failed", stream))

    async def _fill(self, supervised: SupervisedStream) -> None:
        """Fetch what is missing before the live updates that wait, and let them follow."""
        stream, series, clock = supervised.stream, supervised.stream.series, self._clock
        started = clock.monotonic()
        attempt, failure = 0, ""
        patience_s = self._timing.history_patience_s
        retry_at = 0.0
        waiting_since: float | None = None
        info = self._provider.info
        holes = MissingCandles(info.close_grace_s if info.has_every_candle else 0.0)
        while series.is_catching_up:
            missing = series.missing(self._provider.clock.now())
            if missing is None:
                self._hub.tell(stream, series.fill((), None))
                continue
            now = clock.monotonic()
            if missing.end is None:
                waiting_since = None
            elif waiting_since is None:
                waiting_since = now
            if not self._provider.has_history:
                failure = f"{self._provider.info.title} has no history"
                retry_at = now + MOST_WAIT_S
            if failure and waiting_since is not None and max(now, retry_at) > waiting_since + patience_s:
                self._tell(supervised, series.give_up(), failure)
                continue
            if retry_at > now:
                # In short steps, since a live update that has to wait for this may come meanwhile.
                await asyncio.sleep(min(retry_at - now, STEP_S))
                continue
            asked_at = self._provider.clock.now()
            try:
                past, closed, forming, until = await self.fetch(stream.key, missing)
            except RateLimited as error:
                failure, patience_s = str(error), BUDGET_PATIENCE_S
                retry_at = clock.monotonic() + max(LEAST_WAIT_S, error.retry_after)
                supervised.wait_for_budget(f"the missed candles follow in {error.retry_after:.0f} s: {error}")
                continue
            except (ProviderError, StoreError) as error:
                if isinstance(error, UnknownSymbol) and missing.end is None and supervised.is_silent:
                    # Nobody waits for what the provider says it does not have: it is silent because of that.
                    series.fill((), None)
                    break
                if missing.end is None and supervised.is_closed_for(0.0):
                    # Nobody waits for it, and it may fail all weekend: `check_close` asks again, ever more rarely.
                    series.fill((), None)
                    break
                attempt += 1
                wait_s = min(MOST_WAIT_S, 2.0 ** min(attempt - 1, 10)) * self._rng.uniform(0.5, 1)
                failure, patience_s = str(error), self._timing.history_patience_s
                retry_at = clock.monotonic() + wait_s
                supervised.catch_up(f"the missed candles cannot be fetched yet: {error}")
                continue
            failure = ""
            if self._may_lag(series.market, stream.key, missing, closed, asked_at):
                await asyncio.sleep(LAG_WAIT_S)
                continue
            lost = past.unreadable
            doubtful = holes.doubtful(self._holes_in(stream, closed, forming, until, lost), now)
            if doubtful and now <= started + self._timing.history_patience_s:
                await asyncio.sleep(HOLE_WAIT_S)
                continue
            backfilled = series.backfilled
            reason = f"{info.title} sent these candles in a form that cannot be read" if lost else DOES_NOT_HAVE_IT
            self._tell(supervised, series.fill(closed, until, forming, (*lost, *doubtful)), reason)
            self.fetched += 1
            supervised.note_answer()
            if series.backfilled > backfilled:
                supervised.note(f"backfilled {counted(series.backfilled - backfilled, 'candle')}")
        self.longest_s = max(self.longest_s, clock.monotonic() - started)
        supervised.caught_up()

    async def fetch(
        self, key: StreamKey, missing: Missing, *, must_be_new: bool = True, joins_gaps: bool = False
    ) -> tuple[PastCandles, Sequence[Candle], Candle | None, int | None]:
        """Ask history; return its answer, which may have candles in a form that cannot be read, and what is of use.

        That is the closed candles, the open one if it was reached, and the end that is answered for.
        """
        async with self._places:
            end = None if missing.end is None else missing.end - 1
            start = max(0, missing.start)
            # What closed a moment ago is just what is missing.
            asked = HistoryRequest(
                self._provider, key, start, end, PAGE, must_be_new=must_be_new, joins_gaps=joins_gaps, extended=True
            )
            past = await self._history.candles(asked)
        if not past.is_complete and not past.unreadable:
            raise ProviderUnavailable("the answer was not complete")
        closed, forming = parted(past.candles, past.last_is_closed)
        if forming is not None and missing.end is not None:
            raise ProviderUnavailable("the last of these candles is not closed there yet")
        until = missing.end
        if len(past.candles) == PAGE:
            until = past.candles[-1].time + 1
        return past, closed, forming, until

    def _holes_in(
        self,
        stream: Stream,
        closed: Sequence[Candle],
        forming: Candle | None,
        until: int | None,
        lost: Iterable[tuple[int, int]],
    ) -> list[Span]:
        """Return what an answer leaves out of what is to be told."""
        series, interval = stream.series, stream.key.interval
        times = sorted({*(candle.time for candle in closed), *(start for start, _ in lost)})
        if forming is not None:
            times.append(forming.time)
        if series.last is not None:
            begin = next_open(interval, series.last.time) if series.last_is_closed else series.last.time
        elif (times or until is not None) and series.promised_at is not None:
            # What waits for the answer opens where that was to end.
            begin = first_open_after(interval, series.owed_from() - 1, times[0] if times else until)
        else:
            return []
        return holes_in(interval, series.market, begin, [time for time in times if time >= begin], until)

    def _may_lag(
        self, market: TradingHours, key: StreamKey, missing: Missing, closed: Sequence[Candle], asked_at: float
    ) -> bool:
        """Say whether the newest missing candle may only be late in the provider's history: worth asking again.

        An answer is as old as its question, which was asked at `asked_at` by the provider's time.
        """
        end = missing.end
        if end is None or asked_at >= end + self._provider.info.close_grace_s:
            return False
        start = next_open(key.interval, closed[-1].time) if closed else missing.start
        return start < end and not market.is_closed(start, end)

    def _tell(self, supervised: SupervisedStream, updates: Sequence[PriceUpdate], reason: str) -> None:
        """Tell what a series made of an answer, and before it the gaps that it leaves."""
        stream = supervised.stream
        for gap in self._hub.tell_after_gaps(stream, updates, reason):
            supervised.note(f"gap {gap.start} to {gap.end}: {reason}")
            about = _about("gap", stream, start=gap.start, end=gap.end, reason=reason)
            log.warning("%s has a gap from %d to %d: %s", stream.key, gap.start, gap.end, reason, extra=about)

    async def _repair_all(self, streams: Mapping[StreamKey, SupervisedStream]) -> None:
        async def repair(supervised: SupervisedStream) -> None:
            async with self._repairing:
                if streams.get(supervised.stream.key) is supervised:
                    await self._repair_stream(streams, supervised)

        await asyncio.gather(*map(repair, streams.values()))

    async def _repair_stream(self, streams: Mapping[StreamKey, SupervisedStream], supervised: SupervisedStream) -> None:
        """Ask once for the next gap of a stream, and for the later ones that the same call of the provider can hold."""
        stream, series = supervised.stream, supervised.stream.series
        series.pass_gaps()
        if not series.gaps.left or series.is_catching_up:
            return
        first = series.gaps.left[0]
        # One less than a full page, after which there may be more.
        wide = (self._provider.info.candles_per_call - 1) * length_s(stream.key.interval)
        reach = max(first.end, first.start + wide)
        gaps = sorted(gap for gap in series.gaps.left if first.start <= gap.start and gap.end <= reach)
        missing = Missing(first.start, gaps[-1].end)
        asked_at = self._provider.clock.now()
        try:
            # What an answer left out is in doubt, and asked for again when it is time to.
            past, closed, _, until = await self.fetch(stream.key, missing, must_be_new=False, joins_gaps=True)
        except (ProviderError, StoreError) as error:
            log.debug("gaps of %s stay: %s", stream.key, log_text(error), extra=_about("gap_stays", stream))
            series.gaps.put_off(first)
            return
        if streams.get(stream.key) is not supervised:
            return
        lost = (*past.unreadable, *past.doubted)
        for gap in gaps:
            inside = [candle for candle in closed if gap.start <= candle.time < gap.end]
            may_lag = self._may_lag(series.market, stream.key, Missing(*gap), inside, asked_at)
            if may_lag or (until is not None and gap.start >= until):
                break
            self._tell(supervised, series.repair(gap, inside, until, lost), "")
            if gap not in series.gaps.left:
                supervised.note(f"repaired gap {gap.start} to {gap.end}")


def _about(name: str, stream: Stream, **fields: object) -> dict[str, dict[str, object]]:
    return event(name, provider=stream.provider, stream=str(stream.key), **fields)
