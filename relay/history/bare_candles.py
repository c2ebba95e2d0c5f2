"""Stored candles that carry nothing beside prices and volume although their provider gives it: asked for once more.

They are of an earlier version of the database, or came from an answer that did not have it. Nobody asks before somebody
wants it; what an answer does not bring then is not asked for again in this run.
"""

import asyncio
from collections.abc import Iterator, Sequence

from relay.core.clock import Clock
from relay.core.errors import ProviderError, RateLimited, StoreError
from relay.core.intervals import length_s, next_open
from relay.core.model import StreamKey
from relay.core.spans import Span, merge_spans, span_at
from relay.history.provider_calls import ProviderCall, ProviderCalls
from relay.history.requests import HistoryRequest, PageRequest, ProviderAnswer
from relay.storage.past_seen import PastSeen
from relay.storage.store import Store

AGAIN_S = 60.0
"""After a failure nothing is asked of a stream for so long, or as long as the provider says."""
MOST_PAGES = 50
"""Provider calls that one request may cause; the next one gets farther."""
_MOST_STREAMS = 4096
_SHORTEST_MONTH_S = 28 * 86_400
_ROOM = 2


class BareCandles:
    """Knows what was asked for already. It makes ordinary `calls`, in the turn of the client and within the budgets."""

    def __init__(self, calls: ProviderCalls, store: Store, clock: Clock, *, again_s: float = AGAIN_S) -> None:
        self._calls = calls
        self._store = store
        self._clock = clock
        self._again_s = again_s
        # By stream: what was stored by then, and what was asked for.
        self._asked: dict[tuple[str, StreamKey], tuple[PastSeen, list[Span]]] = {}
        self._again_at: dict[tuple[str, StreamKey], float] = {}

    def wanted(self, asked: HistoryRequest, times: Sequence[int]) -> list[int]:
        """Return which of some bare candles, by their open times, are still to be asked for."""
        source = asked.source
        if not asked.needs_extras or not source.info.candle_extras or not source.has_history:
            return []
        done = self._done((source.name, asked.key))
        return [time for time in times if span_at(done, time) is None]

    async def fill(self, asked: HistoryRequest, times: Sequence[int]) -> bool:
        """Ask for what some candles carry, `times` being their open times, ascending; return whether anything came.

        What comes is put into the store. No failure is raised: the candles stay bare, and another request asks again
        after a while.
        """
        source, key = asked.source, asked.key
        stream, now = (source.name, key), self._clock.monotonic()
        wanted = self.wanted(asked, times)
        if not wanted or now < self._again_at.get(stream, now):
            return False
        calls: dict[ProviderCall, None] = {}
        try:
            for page in list(_pages(key, wanted, source.info.candles_per_call))[-MOST_PAGES:]:
                busy = self._calls.under_way(source, key, page.span)
                for call in busy or [self._calls.start(source, key, page, asked.client)]:
                    call.turn.hasten(asked.client)
                    calls[call] = None
            await self._calls.wait(calls)
            self._again_at.pop(stream, None)
        except (ProviderError, StoreError) as error:
            wait_s = error.retry_after if isinstance(error, RateLimited) else 0.0
            self._again_at[stream] = self._clock.monotonic() + max(self._again_s, wait_s)
        done = [call.span for call in calls if _has_answered(call.task)]
        self._note(stream, done)
        return bool(done)

    def _done(self, stream: tuple[str, StreamKey]) -> list[Span]:
        seen, spans = self._asked.get(stream, (None, []))
        # Else the past or the file may be another one now.
        return spans if seen is not None and seen.has_all(*stream) else []

    def _note(self, stream: tuple[str, StreamKey], spans: Sequence[Span]) -> None:
        if spans:
            merged = merge_spans([*self._done(stream), *spans])
            self._asked.pop(stream, None)
            self._asked[stream] = self._store.look(), merged
        for notes in (self._asked, self._again_at):
            while len(notes) > _MOST_STREAMS:
                del notes[next(iter(notes))]


def _has_answered(task: "asyncio.Task[ProviderAnswer]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _pages(key: StreamKey, times: Sequence[int], most: int) -> Iterator[PageRequest]:
    """Cut what lies around some open times into pages, none of which can hold more candles than one call gives."""
    shortest = _SHORTEST_MONTH_S if key.interval == "1M" else length_s(key.interval)
    room_s = max(1, most - _ROOM) * shortest
    start, last = times[0], times[0]
    for time in times[1:]:
        if time >= start + room_s:
            yield _page(key, start, last, most)
            start = time
        last = time
    yield _page(key, start, last, most)


def _page(key: StreamKey, start: int, last: int, most: int) -> PageRequest:
    return PageRequest(start, next_open(key.interval, last), most, None, False, is_bounded=True)
