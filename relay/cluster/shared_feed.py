"""A feed whose streams come from whoever carries them, this relay or another: what `relay_stream` is to the others."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection
from typing import Protocol

from relay.cluster.wire.bus_messages import Item, PlanTold, StateTold
from relay.core.errors import ProviderUnavailable
from relay.core.model import PriceUpdate, StreamKey
from relay.upstream.watchlist import PAUSES, Watchlist

MOST_WAITING = 200_000
AGAIN_S = 1.0
_NEXT = "; the next attempt"


class FeedSource(Protocol):
    """Who gives feeds their items, by `SharedFeed.deliver`."""

    def begin(self, feed: "SharedFeed") -> None:
        """Give a feed what it wants, from now on."""

    def want(self, feed: "SharedFeed", keys: Collection[StreamKey]) -> None:
        """Learn that a feed wants more streams; it lacks their state and their newest candle."""

    def leave(self, feed: "SharedFeed", keys: Collection[StreamKey]) -> None:
        """Learn that a feed wants streams no more."""

    def end(self, feed: "SharedFeed") -> None:
        """Give a feed nothing more."""


class SharedFeed:
    """Yields what its source delivers of the streams on a watchlist, and reports to that what became of them."""

    def __init__(self, watchlist: Watchlist, source: FeedSource) -> None:
        self._watchlist = watchlist
        self._source = source
        self._items: deque[tuple[StreamKey, Item]] = deque()
        self._has_items = asyncio.Event()
        self._states: dict[StreamKey, StateTold] = {}
        self._since: dict[StreamKey, int] = {}
        self._is_late = False

    def deliver(self, key: StreamKey, item: Item) -> None:
        """Take what is told about a stream; what the feed does not want is ignored."""
        if key in self._watchlist.wanted:
            if len(self._items) >= MOST_WAITING:
                self._is_late = True
                return
            self._items.append((key, item))
            self._has_items.set()

    async def updates(self) -> AsyncGenerator[PriceUpdate, None]:
        """Yield updates until the feed is closed. Raises `ProviderUnavailable` when too many wait."""
        watching = asyncio.create_task(self._watch(), name="watchlist of a shared feed")
        self._source.begin(self)
        try:
            while True:
                while self._items:
                    key, item = self._items.popleft()
                    if isinstance(item, PriceUpdate):
                        yield item
                    else:
                        self._report(key, item)
                if self._is_late:
                    raise ProviderUnavailable("updates came faster than this relay could take them")
                self._has_items.clear()
                await self._has_items.wait()
        finally:
            watching.cancel()
            self._source.end(self)

    async def _watch(self) -> None:
        watchlist, version = self._watchlist, -1
        while True:
            version = await watchlist.changed(version)
            now = {key: watchlist.wanted_since(key) for key in watchlist.streams}
            gone = [key for key in self._since if key not in now]
            new = [key for key, since in now.items() if self._since.get(key) != since]
            self._since = now
            for key in (*gone, *new):
                self._states.pop(key, None)
            if gone:
                self._source.leave(self, gone)
            if new:
                self._source.want(self, new)

    def _report(self, key: StreamKey, item: Item) -> None:
        watchlist = self._watchlist
        if isinstance(item, StateTold):
            before = self._states.get(key)
            if before != item:
                self._states[key] = item
                self._report_state(key, *item, was_paused=before is not None and before.status in PAUSES)
        elif isinstance(item, PlanTold):
            watchlist.expect(key, item.in_s, item.every_s)
        elif not isinstance(item, PriceUpdate):
            watchlist.invalidate(
                key, item.before, after=item.after, one_interval=item.one_interval, settle_s=item.settle_s
            )

    def _report_state(self, key: StreamKey, status: str, message: str, *, was_paused: bool) -> None:
        watchlist = self._watchlist
        match status:
            case "connected":
                watchlist.accept([key])
                watchlist.remark(key, "" if message == "live" else message)
            case "connecting" if _NEXT not in message:
                # Whoever begins to carry it has nothing to say yet.
                pass
            case "connecting" | "reconnecting":
                cause = message.partition(_NEXT)[0] or "the provider is not connected"
                watchlist.lose(key, ProviderUnavailable(cause), AGAIN_S)
            case "market_closed" | "throttled":
                watchlist.pause(key, status, message)
            case "error":
                reason = message.partition(f" refused {key}: ")[2] or message
                watchlist.reject(key, reason.partition(_NEXT)[0])
            case _ if was_paused:
                watchlist.accept([key])
            case _:
                # Of backfilling and stale it is found out here what they mean here.
                pass


def feed_of(watchlist: Watchlist, source: FeedSource) -> AsyncGenerator[PriceUpdate, None]:
    """Return a feed for the streams on a watchlist, not yet running."""
    return SharedFeed(watchlist, source).updates()
