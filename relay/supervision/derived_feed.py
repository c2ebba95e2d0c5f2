"""Feeds a stream of an interval that the provider lacks: from the stream of the shorter candles that it is built of."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from relay.core.clock import Clock
from relay.core.derived_intervals import Derivation
from relay.core.errors import ProviderError, RateLimited, StoreError
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.periods import CandlePeriod
from relay.history.requests import HistoryRequest, PastCandles
from relay.history.service import HistoryService
from relay.history.snapshot import is_joined
from relay.plugins.provider import Provider
from relay.protocol.client_requests import PastWanted
from relay.storage.past_seen import PastSeen
from relay.streams.candle_fold import CandleFold
from relay.streams.gaps import SeriesGap
from relay.streams.hub import Hub
from relay.streams.subscriptions import CONNECTED, Stream
from relay.supervision.backfill import Backfill
from relay.supervision.silence_watch import Planned
from relay.supervision.stream_facts import BACKFILLING, ERROR, RECONNECTING, THROTTLED, StateSaid
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.timing import FEED_TIMING, FeedTiming
from relay.telemetry.events import event

log = logging.getLogger(__name__)

_LEAST_WAIT_S, _MOST_WAIT_S = 1.0, 60.0
_UNFED = ("connecting", RECONNECTING, ERROR)

Work = Callable[[], Coroutine[Any, Any, None]]


class DerivedStream(SupervisedStream):
    """A stream that the relay builds: its state is that of the stream of shorter candles, unless it lacks some itself.

    `lack` says why a part of its newest candle is not known yet, None if all of it is.
    """

    __slots__ = ("_base", "_lack", "_plan_of_base")

    def __init__(
        self,
        stream: Stream,
        base: Stream,
        plan_of_base: Callable[[], Planned | None],
        hub: Hub,
        clock: Clock,
        *,
        timing: FeedTiming = FEED_TIMING,
    ) -> None:
        super().__init__(stream, hub, clock, timing=timing)
        self._base = base
        self._plan_of_base = plan_of_base
        self._lack: StateSaid | None = None
        stream.status, stream.message = base.status, base.message

    def lack(self, state: StateSaid | None) -> None:
        """Note why a part of the newest candle is not known."""
        if state != self._lack:
            self._lack = state
            self.show()

    def follow_state(self) -> None:
        """Note that the state of the shorter candles' stream is another one."""
        is_fed = self._base.status not in _UNFED
        self._learn(is_fed=is_fed, was_fed=self._facts.was_fed or is_fed)
        self.show()

    def _plan(self) -> Planned | None:
        """Return when the shorter candles are asked for next, which have what is due."""
        return self._plan_of_base()

    def show(self) -> None:
        """Tell the subscribers the state that follows from what is known, if it is another one."""
        self._look_at_market()
        base = self._base
        state = StateSaid(base.status, base.message)
        if base.status == CONNECTED:
            state = self._lack or self._facts.past or state
        self._hub.set_state(self.stream, *state)


class DerivedFeed:
    """Follows the stream of shorter candles from now on until `close`, and feeds what follows to a stream.

    What was told before comes from history: the beginning of the newest candle, and candles of which a part was
    revised. Nobody is told anything at once: who subscribes is told the confirmation first.
    """

    def __init__(
        self,
        supervised: DerivedStream,
        base: Stream,
        derivation: Derivation,
        provider: Provider,
        hub: Hub,
        backfill: Backfill,
        history: HistoryService,
    ) -> None:
        self.derivation = derivation
        self._supervised = supervised
        self._stream = supervised.stream
        self._base = base
        self._provider = provider
        self._hub = hub
        self._backfill = backfill
        self._history = history
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False
        self._fold = self._new_fold()
        self._stream.base, self._stream.periods, self._stream.revision = base, derivation.periods, history.revision
        hub.follow(base, self)
        asyncio.get_running_loop().call_soon(self._begin)

    def _new_fold(self) -> CandleFold:
        clock = self._provider.clock
        self._began = clock.now(), clock.monotonic()
        is_recorded = self._provider.info.is_recorded
        return CandleFold(self._stream.key, self.derivation.periods, self._since, is_recorded=is_recorded)

    def _since(self) -> float:
        """Return when this began to follow, by the provider's time: it may turn out later what time that was."""
        return self._provider.clock.at_best(*self._began)

    def _begin(self) -> None:
        if self._is_closed:
            return
        series = self._base.series
        last = series.last
        if last is not None and last.time not in series.void:
            self.take(PriceUpdate(self._base.key, last, series.last_is_closed))
        self.note_state()

    @property
    def base_key(self) -> StreamKey:
        """The stream of the shorter candles."""
        return self._base.key

    def renew(self, derivation: Derivation) -> None:
        """Build the candles in another way from now on: the hours of the market are others."""
        waiting = self._fold.revised
        self.derivation = derivation
        self._stream.periods = derivation.periods
        self._fold = self._new_fold()
        self._fold.revised.update(waiting)
        self._begin()

    def close(self) -> list[asyncio.Task[None]]:
        """Stop following; return what has to end."""
        self._is_closed = True
        self._hub.unfollow(self._base, self)
        self._stream.base = self._stream.periods = None
        for task in self._tasks.values():
            task.cancel()
        return [*self._tasks.values()]

    # -- what the stream of shorter candles tells ----------------------------------------------------

    def take(self, update: PriceUpdate) -> None:
        """Take an update that was told."""
        self._stream.lag_ms = self._base.lag_ms
        self._publish(self._fold.take(update))
        self._look()

    def lose(self, gap: SeriesGap) -> None:
        """Take a gap that was told: nobody knows the candle that it is a part of."""
        self._fold.lose(gap)
        self._look()

    def begin_anew(self) -> None:
        """Take it that what was told is not the past any more."""
        self._fold.begin_anew()
        self._look()

    def note_state(self) -> None:
        """Take the state of the stream over; once it is live, ask for what may have closed unseen."""
        self._supervised.follow_state()
        if self._base.status == CONNECTED:
            self._backfill.resume(self._supervised)

    def _publish(self, updates: list[PriceUpdate]) -> None:
        stream, supervised = self._stream, self._supervised
        series = stream.series
        if updates:
            stream.reckon_promise()
        for update in updates:
            if update.is_closed and series.last is None and series.is_settled(update.candle.time):
                continue
            supervised.received += 1
            last = series.last
            if last is not None and last.time == self._fold.follows and series.last_is_closed:
                # The stream of shorter candles vouches for what lies between.
                series.pass_over(update.candle.time)
            if told := series.accept(update):
                self._hub.tell(stream, told)
            if series.is_catching_up:
                self._backfill.start(supervised)
            if stream.status != CONNECTED:
                supervised.hear()

    # -- what history has to say ---------------------------------------------------------------------

    def _look(self) -> None:
        if self._fold.lacking is not None:
            self._start("complete", self._complete)
        if self._fold.revised:
            self._start("revise", self._revise)

    def _start(self, name: str, work: Work) -> None:
        task = self._tasks.get(name)
        if self._is_closed or (task is not None and not task.done()):
            return
        self._tasks[name] = task = asyncio.create_task(work(), name=f"{name} {self._stream.key}")
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            about = event("derived_failed", provider=self._provider.name, stream=str(self._stream.key))
            log.error("building %s failed", self._stream.key, exc_info=error, extra=about)

    async def _complete(self) -> None:
        """Ask for the parts of the newest candle that were not told, until they are known or it is over."""
        wait_s, is_strict = _LEAST_WAIT_S, False
        while (period := self._fold.lacking) is not None:
            pause_s, seen = wait_s, self._history.look()
            try:
                parts = await self._history.derived.parts(
                    self._provider, self._stream.key, self.derivation, period, must_be_new=is_strict
                )
            except RateLimited as error:
                pause_s = max(wait_s, error.retry_after)
                state = StateSaid(THROTTLED, f"the candle so far follows in {pause_s:.0f} s: {error}")
            except (ProviderError, StoreError) as error:
                state = StateSaid(BACKFILLING, f"the candle so far cannot be fetched yet: {error}")
            else:
                if self._fold.lacking != period or not self._is_same(seen):
                    continue
                if parts.is_cut:
                    self._fold.leave_out()
                    self._stream.series.pass_over(period.ends)
                    continue
                if parts.is_whole and (self._is_joined(period, parts.closed) or self._is_settled(parts.asked_at)):
                    known = {one.time: one for one in parts.closed} | self._base.series.valid
                    self._supervised.lack(None)
                    self._publish(self._fold.complete(known.values(), parts.forming))
                    continue
                is_strict = True
                state = StateSaid(BACKFILLING, "fetching the candle so far")
                if not parts.is_whole:
                    state = StateSaid(BACKFILLING, "a part of the candle so far is missing; it is asked for again")
            self._supervised.lack(state)
            await asyncio.sleep(pause_s)
            wait_s = min(_MOST_WAIT_S, 2 * wait_s)
        self._supervised.lack(None)

    def _is_settled(self, asked_at: float) -> bool:
        return asked_at >= self._since() + self._provider.info.close_grace_s

    def _is_joined(self, period: CandlePeriod, closed: Sequence[Candle]) -> bool:
        """Say whether nothing can be missing between what history said and what the stream tells."""
        past = PastCandles(tuple(closed), True, True)
        wanted = PastWanted(since=period.opens - 1)
        return is_joined(past, self._base.series, wanted, has_open=self._provider.info.history_has_open)

    async def _revise(self) -> None:
        """Tell what candles are now of which a part was revised after they were over, in order.

        Of which history does not know yet what they are is asked again.
        """
        wait_s = _LEAST_WAIT_S
        while self._fold.revised:
            opened, self._fold.revised = self._fold.revised, {}
            # All revisions up to this one are of these candles, or were told.
            number, asked_at, seen = self._history.revision, self._provider.clock.now(), self._history.look()
            try:
                asked = {time: await self._candle(time) for time in opened}
            except (ProviderError, StoreError) as error:
                self._fold.revised = opened | self._fold.revised
                await asyncio.sleep(max(wait_s, error.retry_after) if isinstance(error, RateLimited) else wait_s)
                wait_s = min(_MOST_WAIT_S, 2 * wait_s)
                continue
            if not self._is_same(seen):
                self._fold.revised = opened | self._fold.revised
                continue
            unsure = {time: None for time, past in asked.items() if not _is_closed(past) and _may_follow(past)}
            if not unsure:
                self._stream.revision = number
            self._tell_revised([past.candles[0] for past in asked.values() if _is_closed(past)], asked_at)
            if unsure:
                self._fold.revised = unsure | self._fold.revised
                await asyncio.sleep(wait_s)
                wait_s = min(_MOST_WAIT_S, 2 * wait_s)

    def _is_same(self, seen: PastSeen) -> bool:
        return seen.is_same(self._stream.provider, self._stream.key.symbol)

    async def _candle(self, opened: int) -> PastCandles:
        asked = HistoryRequest(self._provider, self._stream.key, opened, opened, 1, extended=True)
        return await self._history.candles(asked)

    def _tell_revised(self, found: list[Candle], asked_at: float) -> None:
        series = self._stream.series
        known = series.closed
        oldest = next(iter(known), None)
        of_extras = [one for one in found if known.get(one.time) == one]
        new = [one for one in found if one.time not in known and oldest is not None and one.time > oldest]
        changed = [one for one in found if one not in new and known.get(one.time) != one]
        if told := series.revise(changed, new, asked_at, of_extras):
            self._hub.tell(self._stream, told)


def _is_closed(past: PastCandles) -> bool:
    """Say whether an answer about one candle has it, and it is over."""
    return bool(past.candles) and past.last_is_closed


def _may_follow(past: PastCandles) -> bool:
    """Say whether an answer without a closed candle may have it later."""
    return bool(past.candles or past.doubted) or not past.is_complete
