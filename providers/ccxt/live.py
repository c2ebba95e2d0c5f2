"""Live candles over an exchange's WebSocket, as ccxt watches it: one call for each stream, again and again."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import aiohttp

from providers.ccxt.failures import judged
from providers.ccxt.history import STEPS
from providers.ccxt.polled import newest_of, say_polled
from providers.ccxt.rows import FinalStates, read_rows_of
from providers.ccxt.venue import Venue
from relay import BadAnswer, Candle, PriceUpdate, ProviderError, StreamKey, Watchlist, each_stream, event

log = logging.getLogger(__name__)

REMARK = "live by ccxt, best effort: a candle closes when the next one begins, and updates have no time of the exchange"
_GATHERS_S = 0.05
"""Our choice: streams that come within this time are subscribed with one message, where the exchange allows it."""
_STARTS_AT_ONCE = 100
"""Our choice: the pace of messages limits them already."""
_LONG_S = 21_600
"""Our choice, six hours: from there on candles may open by another clock live than in history, such as with OKX."""
_SLOW_S = 30.0
"""Our choice: so often such a long candle is asked for, if it does."""
_FIRST_S = (15.0, 600.0)
"""Our choice: how long the first candle of a stream may take until history is asked; longer each time, up to that."""
_MOST_LEFT = 100
"""Our choice: so many streams that nobody wants any more may go on on one connection, until a new one replaces it."""


async def watched(
    venue: Venue, watchlist: Watchlist, session: aiohttp.ClientSession, batch: int
) -> AsyncGenerator[PriceUpdate, None]:
    """Yield updates of all streams of a watchlist, over connections of its own.

    All of them are of one interval: some exchanges, and ccxt with some, do not keep two of one symbol apart.
    """
    client = await venue.live_client(session)
    streams = WatchedStreams(venue, client, watchlist, session, batch)
    starts = {"starts_at_once": _STARTS_AT_ONCE, "starts_per_second": _STARTS_AT_ONCE}
    try:
        async with aclosing(each_stream(watchlist, streams.follow, **starts)) as updates:
            async for update in updates:
                yield update
    finally:
        await streams.close()
        await client.close()


class WatchedStreams:
    """The streams of one feed."""

    def __init__(
        self, venue: Venue, client: Any, watchlist: Watchlist, session: aiohttp.ClientSession, batch: int
    ) -> None:
        self._venue = venue
        self._session = session
        self._client = client
        self._watchlist = watchlist
        self._batch = batch if venue.capabilities.is_batched else 1
        self._waiting: dict[StreamKey, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone: set[StreamKey] = set()
        self._left: set[StreamKey] = set()
        self._doubts = asyncio.Lock()

    async def close(self) -> None:
        """End what subscribes still."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def follow(self, key: StreamKey) -> AsyncGenerator[PriceUpdate, None]:
        """Yield the updates of one stream until its connection is lost. Raises `ProviderError`."""
        closing, known = FinalStates(key, hears_all=True), -1
        self._venue.share_markets(self._client)
        with judged(self._venue.kinds, str(key)):
            self._client.market(key.symbol)
        if self._batch > 1 and key not in self._alone:
            await self._subscribed(key)
        try:
            while True:
                candles = await (self._first(key) if known == -1 else self._next(key))
                if candles is None:
                    async for update in self._polled(key):
                        yield update
                    return
                if self._client.connections != known:
                    # A new connection: what came before may not be all, also of what ccxt has kept of it.
                    closing.forget()
                    known = self._client.connections
                for update in closing.take(candles):
                    yield update
                self._watchlist.remark(key, REMARK)
        finally:
            self._note_end(key)

    async def _first(self, key: StreamKey) -> list[Candle] | None:
        """Return the first candles of a stream; None if it is to be polled. They come when something is traded.

        If history goes on meanwhile, the exchange did not take the subscription. ccxt counts it as taken, and does not
        ask again over this connection: a new one replaces it. If that one brings nothing either, the stream is polled.
        """
        call = asyncio.create_task(self._next(key), name=f"the first candles of {key}")
        # Whoever waits may be cancelled; a failure is no mistake that nobody saw.
        call.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            wait_s, longest_s = _FIRST_S
            before: list[Candle] = []
            while not (await asyncio.wait((call,), timeout=wait_s))[0]:
                if self._venue.is_sending or not self._client.is_connected:
                    # It may not be subscribed yet.
                    before, wait_s = [], _FIRST_S[0]
                    continue
                newest = await self._newest_if_any(key)
                if before and newest and newest != before:
                    if key in self._venue.unanswered:
                        self._venue.unanswered.discard(key)
                        return None
                    self._venue.unanswered.add(key)
                    self._watchlist.closing(f"nothing comes of {key}, which is traded")
                before = newest or before
                wait_s = min(2 * wait_s, longest_s)
            candles = call.result()
        finally:
            call.cancel()
        self._venue.unanswered.discard(key)
        if STEPS[key.interval] >= _LONG_S and not await self._is_in_history(key, candles):
            return None
        return candles

    async def _newest_if_any(self, key: StreamKey) -> list[Candle]:
        try:
            # One at a time: many may be quiet, and others want history, too.
            async with self._doubts:
                return await newest_of(self._venue, self._session, key)
        except ProviderError as error:
            log.debug("%s: history says nothing: %s", key, error, extra=event("stream_unanswered"))
            return []

    async def _next(self, key: StreamKey) -> list[Candle]:
        with judged(self._venue.kinds, str(key)):
            if self._batch == 1:
                return read_rows_of(await self._client.watch_ohlcv(key.symbol, key.interval))
            found = await self._client.watch_ohlcv_for_symbols([[key.symbol, key.interval]])
            if found.keys() != {key.symbol} or found[key.symbol].keys() != {key.interval}:
                raise BadAnswer(f"candles of another stream came for {key}", detail=str(list(found))[:200])
            return read_rows_of(found[key.symbol][key.interval])

    async def _is_in_history(self, key: StreamKey, candles: list[Candle]) -> bool:
        """Say whether history has a candle that opens when the newest live one does; once for each interval."""
        if not candles or key.interval in self._venue.agreeing:
            return True
        opened = candles[-1].time
        rows = await self._venue.rows(self._session, key.symbol, key.interval, opened, 2)
        if any(row.time == opened for row in rows):
            self._venue.agreeing.add(key.interval)
        return key.interval in self._venue.agreeing

    async def _polled(self, key: StreamKey) -> AsyncGenerator[PriceUpdate, None]:
        """Yield updates as history has them."""
        closing = FinalStates(key, hears_all=False)
        while True:
            for update in closing.take(await newest_of(self._venue, self._session, key)):
                yield update
            say_polled(self._watchlist, key, _SLOW_S)
            await asyncio.sleep(_SLOW_S)

    def _note_end(self, key: StreamKey) -> None:
        """Count a stream that goes on at the exchange: not every one can be ended, and the connection ends it."""
        if key in self._watchlist:
            self._left.discard(key)
            return
        self._left.add(key)
        if len(self._left) > _MOST_LEFT:
            self._left.clear()
            self._watchlist.closing("many streams on this connection are not wanted any more")

    # -- several streams with one message ------------------------------------------------------------

    async def _subscribed(self, key: StreamKey) -> None:
        """Wait until a stream is about to be subscribed together with others that come at the same time."""
        if not self._waiting:
            task = asyncio.create_task(self._subscribe_soon(), name="streams that are subscribed together")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        done = self._waiting[key] = asyncio.get_running_loop().create_future()
        await done

    async def _subscribe_soon(self) -> None:
        await asyncio.sleep(_GATHERS_S)
        waiting, self._waiting = self._waiting, {}
        # An exchange may have an address for each type of market, and ccxt goes by the first one.
        groups: dict[tuple[object, object], list[StreamKey]] = {}
        for key, done in waiting.items():
            if not done.done():
                market = self._client.market(key.symbol)
                groups.setdefault((market["type"], market.get("linear")), []).append(key)
        size = self._batch
        batches = [keys[at : at + size] for keys in groups.values() for at in range(0, len(keys), size)]
        await asyncio.gather(*(self._subscribe({key: waiting[key] for key in batch}) for batch in batches))

    async def _subscribe(self, batch: dict[StreamKey, asyncio.Future[None]]) -> None:
        """Subscribe to streams with one message, and let each go on before anything comes.

        An exchange that refuses one refuses all, so then each of them goes alone the next time.
        """
        pairs = [[key.symbol, key.interval] for key in batch]
        call = asyncio.ensure_future(self._client.watch_ohlcv_for_symbols(pairs))
        # It has taken its places when it has begun; whoever comes to one of them then sends nothing.
        await asyncio.sleep(0)
        for done in batch.values():
            if not done.done():
                done.set_result(None)
        try:
            with judged(self._venue.kinds, f"{len(batch)} streams"):
                await call
        except BadAnswer:
            self._alone.update(batch)
        except ProviderError as error:
            # Each of the streams hears of it, too.
            log.debug("%d streams were not subscribed: %s", len(batch), error, extra=event("streams_refused"))
