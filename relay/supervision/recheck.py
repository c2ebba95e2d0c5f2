"""Holds candles that streams closed against the provider's history, with what is to spare of its budgets."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.errors import ProviderError, RateLimited, StoreError, log_text
from relay.core.intervals import length_s
from relay.core.model import Budget, Candle, StreamKey
from relay.core.spans import FOREVER, Span, merge_spans
from relay.history.requests import PageRequest
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.timing import FEED_TIMING
from relay.telemetry.events import event

log = logging.getLogger(__name__)

CLIENT = "the relay itself"
"""Whose turn it is: no client's, and after those for live streams."""
MOST_CANDLES = 1000
"""Candles of one question."""
MOST_STREAMS = 4096
LATE_S = 86_400.0
"""Looks may have come so late in the last run, because the budgets had nothing to spare."""


class Look(NamedTuple):
    """Open times of a stream to be compared, and up to which that is done then, for each delay."""

    key: StreamKey
    span: Span
    marks: list[int]


class Recheck:
    """Asks one provider, a call at a time and at most every `every_s`, about candles that its streams closed.

    Each candle comes up once for each delay of `ProviderInfo.compare_after_s`; what is due for several is asked for at
    once, since it costs the same. What is in doubt of a stream goes first. Nothing is asked while anything else waits
    for the provider or its budgets have not plenty left. What comes of the answers is `ProviderCalls`' to say. Streams
    that are dropped are looked at until they were compared to their end. So are those of the last run: its looks are
    not written down, and `recall` begins again with all that may have been due.

    What a wrong time had stored of the future is forgotten as soon as the provider's time is set back, and once it is
    known in this run.
    """

    def __init__(
        self,
        provider: Provider,
        history: HistoryService,
        clock: Clock,
        *,
        every_s: float = FEED_TIMING.recheck_every_s,
    ) -> None:
        self._provider = provider
        self._calls = history.calls
        self._history = history
        self._clock = clock
        self._every_s = every_s
        self._delays = [max(after_s, provider.info.close_grace_s) for after_s in provider.info.compare_after_s]
        self._page = max(1, min(MOST_CANDLES, provider.info.candles_per_call - 2))
        self._next_at = clock.monotonic() + every_s
        self._was_followed = False
        self._set_backs = -1
        self._marks: dict[StreamKey, list[int]] = {}
        self._ends: dict[StreamKey, int] = {}
        self._most_reserved: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def recall(self) -> None:
        """Take up what the last run may have left: call it once, before anything is stored."""
        if not self._provider.has_history or not self._delays:
            return
        try:
            stored = await self._history.newest(self._provider, MOST_STREAMS)
        except StoreError as error:
            about = event("not_recalled", provider=self._provider.name)
            log.debug("what the last run stored cannot be compared: %s", error, extra=about)
            return
        now = int(self._provider.clock.now())
        stopped_at = min(now, max([known.end for _, known in stored], default=0))
        for key, (start, end) in stored:
            if key.interval not in self._provider.info.intervals:
                continue
            length = length_s(key.interval)
            # Streams that were dropped earlier were compared to their end.
            if end + length + max(self._delays) + LATE_S > stopped_at:
                back_s = min(LATE_S, MOST_CANDLES * length)
                self._marks[key] = [max(start, int(end - after_s - back_s)) for after_s in self._delays]
                self._ends[key] = min(end, now)

    def check(self, streams: Mapping[StreamKey, SupervisedStream], now: float) -> None:
        """Ask if it is time to. Call it about once a second with the streams that are carried."""
        if self._task is not None and not self._task.done():
            return
        clock = self._provider.clock
        if clock.is_synchronised and clock.set_backs != self._set_backs:
            self._task = asyncio.create_task(self._cut_future(clock.set_backs), name=f"future of {self._provider.name}")
            return
        if now < self._next_at:
            return
        self._next_at = now + self._every_s
        if not self._provider.has_history or self._provider.refusal is not None:
            return
        self._note(streams)
        pause_s = self._pause_s(self._provider.budgets())
        if pause_s is None or self._calls.is_busy(self._provider.name):
            return
        doubted = self._doubted(streams)
        look = self._due(streams)
        if doubted is None and look is None:
            return
        self._next_at = now + max(self._every_s, pause_s)
        step = self._look(look) if look is not None and doubted is None else self._ask_again(*(doubted or ()))
        self._task = asyncio.create_task(step, name=f"compare {self._provider.name}")

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- when ----------------------------------------------------------------------------------------

    def _pause_s(self, budgets: Sequence[Budget]) -> float | None:
        """Return how far apart questions have to be for what is to spare to last, None when there is nothing.

        To spare is what is left of the first half of a budget, or of history's part where the provider divides it.
        """
        pause_s = 0.0
        for budget in budgets:
            if budget.reserved is None:
                spare = budget.limit // 2 - budget.used
            else:
                most = max(budget.reserved, self._most_reserved.get(budget.name, 0))
                self._most_reserved[budget.name] = most
                spare = budget.reserved - most // 2
            if spare <= 0:
                return None
            pause_s = max(pause_s, (budget.resets_at - self._clock.wall()) / spare)
        return pause_s

    def _note(self, streams: Mapping[StreamKey, SupervisedStream]) -> None:
        """Take what streams have closed by now; those that are new count from the first that they remember."""
        for key, supervised in streams.items():
            last = supervised.stream.series.last
            if last is None:
                continue
            if key not in self._marks:
                self._marks[key] = [next(iter(supervised.stream.series.closed), last.time)] * len(self._delays)
            self._ends[key] = last.time + 1 if supervised.stream.series.last_is_closed else last.time
        for key in [key for key in self._marks if key not in streams]:
            if min(self._marks[key], default=FOREVER) >= self._ends[key]:
                del self._marks[key], self._ends[key]
        while len(self._marks) > MOST_STREAMS:
            key = next(iter(self._marks))
            del self._marks[key], self._ends[key]

    def _due(self, streams: Mapping[StreamKey, SupervisedStream]) -> Look | None:
        """Return what has waited longest of what is to be compared, with what is due of it for other delays.

        What nobody follows takes turns with the others: after a restart it may be much.
        """
        now = self._provider.clock.now()
        first: dict[bool, tuple[float, StreamKey, int]] = {}
        for key, marks in self._marks.items():
            is_followed = key in streams
            for mark, end, after_s in zip(marks, self._due_until(key, now), self._delays, strict=True):
                waited_s = now - after_s - length_s(key.interval) - mark
                if mark < end and (is_followed not in first or waited_s > first[is_followed][0]):
                    if is_followed and not _holds_one(streams[key].stream.series.closed, mark, end):
                        # Between the open times of long candles there is nothing to compare.
                        continue
                    first[is_followed] = waited_s, key, mark
        if not first:
            return None
        _, key, mark = first[not self._was_followed] if len(first) == 2 else next(iter(first.values()))
        self._was_followed = key in streams
        marks, ends = self._marks[key], self._due_until(key, now)
        due = merge_spans(Span(at, until) for at, until in zip(marks, ends, strict=True) if at < until)
        start, end = next(span for span in due if span.start <= mark < span.end)
        end = min(end, start + self._page * length_s(key.interval))
        done = [max(at, min(until, end)) if start <= at else at for at, until in zip(marks, ends, strict=True)]
        return Look(key, Span(start, end), done)

    def _due_until(self, key: StreamKey, now: float) -> list[int]:
        """Return up to which open time a stream is to be compared by now, for each delay."""
        length, last = length_s(key.interval), self._ends[key]
        return [min(int(now - after_s - length) + 1, last) for after_s in self._delays]

    def _doubted(self, streams: Mapping[StreamKey, SupervisedStream]) -> tuple[StreamKey, int] | None:
        """Return a stream that is owed something in doubt which is to be asked for again, and since when it is."""
        for name, key in self._calls.doubts.streams():
            supervised = streams.get(key) if name == self._provider.name else None
            if supervised is not None:
                since = supervised.stream.series.owed_from()
                if self._calls.must_ask_again(self._provider, key, since, FOREVER):
                    return key, since
        return None

    # -- how -----------------------------------------------------------------------------------------

    async def _look(self, look: Look) -> None:
        key, span = look.key, look.span
        length = length_s(key.interval)
        most = min((span.end - span.start) // length + 2, self._provider.info.candles_per_call)
        piece = PageRequest(span.start, span.end, most, None, False, is_bounded=True)
        try:
            await self._calls.wait([self._calls.start(self._provider, key, piece, CLIENT)])
        except (RateLimited, StoreError) as error:
            self._failed(key, error)
            return
        except ProviderError as error:
            # It is a sample: one stream whose questions fail does not hold up the others.
            self._failed(key, error)
        if key in self._marks:
            self._marks[key] = look.marks

    async def _cut_future(self, set_backs: int) -> None:
        try:
            await self._history.cut_future(self._provider)
            self._set_backs = set_backs
        except StoreError as error:
            about = event("future_not_cut", provider=self._provider.name)
            log.debug("what is stored of the future of %s stays for now: %s", self._provider.name, error, extra=about)

    async def _ask_again(self, key: StreamKey, since: int) -> None:
        try:
            await self._history.ask_again(self._provider, key, since, CLIENT)
        except (ProviderError, StoreError) as error:
            self._failed(key, error)

    def _failed(self, key: StreamKey, error: Exception) -> None:
        about = event("not_compared", provider=self._provider.name, stream=str(key))
        log.debug("%s cannot be compared now: %s", key, log_text(error), extra=about)


def _holds_one(closed: Mapping[int, Candle], start: int, end: int) -> bool:
    """Say whether a candle may have opened in a span, by those that a stream remembers: it forgets the oldest."""
    oldest = next(iter(closed), None)
    return oldest is None or start < oldest or any(start <= time < end for time in closed)
