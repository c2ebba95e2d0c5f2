"""Closed candles that feeds send again and that their streams do not remember: held against what history knows."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from relay.core.errors import StoreError
from relay.core.model import StreamKey
from relay.history.final_candles import News
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream
from relay.supervision.stream_state import SupervisedStream
from relay.telemetry.events import event

log = logging.getLogger(__name__)


class CandlesAgain:
    """Finds out what such candles of one provider's streams were, and has told as revised what is another one now.

    A client has them from a snapshot, from another run or from long ago. The provider is not asked. What history does
    not know nobody was given here; who hands on to others `tells_unknown` candles as well. What comes up once a stream
    is dropped is news of history.
    """

    def __init__(self, provider: Provider, hub: Hub, history: HistoryService, *, tells_unknown: bool = False) -> None:
        self._provider = provider
        self._hub = hub
        self._history = history
        self._tells_unknown = tells_unknown
        self._tasks: dict[Stream, asyncio.Task[None]] = {}

    def check(self, streams: Mapping[StreamKey, SupervisedStream]) -> None:
        """Look for such candles. Call it about once a second with the streams that are carried."""
        for supervised in streams.values():
            stream = supervised.stream
            if stream.series.unjudged and stream not in self._tasks:
                task = asyncio.create_task(self._judge(stream), name=f"candles of {stream.key} sent again")
                self._tasks[stream] = task
                task.add_done_callback(partial(self._end, stream))

    def _end(self, stream: Stream, _: asyncio.Task[None]) -> None:
        del self._tasks[stream]

    async def close(self) -> None:
        """Stop looking."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _judge(self, stream: Stream) -> None:
        try:
            await self._hold_against_history(stream)
        except StoreError as error:
            about = event("not_judged", provider=stream.provider, stream=str(stream.key))
            log.debug("candles of %s that were sent again wait for the store: %s", stream.key, error, extra=about)

    async def _hold_against_history(self, stream: Stream) -> None:
        series, seen = stream.series, self._history.look()
        unjudged = {**series.unjudged}
        known = await self._history.known_at(self._provider, stream.key, unjudged)
        if not seen.is_same(stream.provider, stream.key.symbol):
            return
        waiting = [update for time, update in sorted(unjudged.items()) if time in series.unjudged]
        told = series.judge(waiting, known, tells_unknown=self._tells_unknown)
        if told and self._hub.streams.get((stream.provider, stream.key)) is stream:
            self._hub.tell(stream, told)
        elif told and not self._tells_unknown:
            changed = [update.candle for update in told if not update.is_of_extras]
            refined = [update.candle for update in told if update.is_of_extras]
            now = self._provider.clock.now()
            self._history.calls.on_news(News(stream.provider, stream.key, changed, (), now, refined))
