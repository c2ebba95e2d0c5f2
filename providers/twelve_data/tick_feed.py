"""Twelve Data live from ticks: one feed that listens to the tick stream while polls confirm what is built of it."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import aiohttp

from providers.twelve_data.forex import Hours
from providers.twelve_data.polled import PolledStream
from providers.twelve_data.polling import SeriesPolls
from providers.twelve_data.tick_codec import TICKS, ticks_of
from providers.twelve_data.tick_source import Ticks, TickSource
from providers.twelve_data.ticked import TickedStream, have_confirmed
from providers.twelve_data.waits import WAITS, Waits
from relay import (
    AuthenticationFailed,
    Hosts,
    Leaps,
    PriceUpdate,
    ProviderError,
    RateLimited,
    Secret,
    StreamKey,
    Watchlist,
)

# All of these are our choice.
_FUTURE_S = 5.0
"""A tick that is stamped farther ahead is left out."""
_MOST_WAITING = 1000
"""Updates that polls have ready; then they wait."""


class TickFeed:
    """One feed. Streams whose ticks come in are built of them; all others live on what polls bring.

    `polls` makes the polling loop for a watchlist of the feed's own, and `polled` is what that remembers: there,
    streams may be throttled while ticks move them. A tick stream that is not available is waited for here, since
    polling goes on meanwhile. The feed ends only when polling fails and no ticks come either, or when the key is
    refused.
    """

    def __init__(
        self,
        watchlist: Watchlist,
        session: aiohttp.ClientSession,
        polls: Callable[[Watchlist], SeriesPolls],
        polled: Mapping[StreamKey, PolledStream],
        hosts: Hosts,
        key: Secret,
        *,
        hours: Callable[[str], Hours],
        monotonic: Callable[[], float],
        now: Callable[[], float],
        waits: Waits = WAITS,
    ) -> None:
        self._watchlist = watchlist
        self._polled_streams = polled
        self._hours = hours
        self._monotonic = monotonic
        self._now = now
        self._waits = waits
        self._streams: dict[StreamKey, TickedStream] = {}
        self._wishes: dict[StreamKey, int] = {}
        self._rests: dict[StreamKey, tuple[str, str]] = {}
        self._polled_at: dict[StreamKey, float] = {}
        self._news: asyncio.Queue[PriceUpdate | BaseException] = asyncio.Queue(_MOST_WAITING)
        self._look_at = 0.0
        self._leaps = Leaps(
            lambda tick: watchlist.skip(
                f"the price of a tick of {tick.key.symbol} is far from the ticks around it: {tick.candle.close}"
            )
        )
        self._polled = Watchlist(
            on_accept=self._on_polled,
            on_reject=watchlist.reject,
            on_skip=watchlist.skip,
            on_pause=self._on_rest,
            on_expect=self._on_expect,
        )
        self._source = TickSource(
            session,
            hosts,
            key,
            on_change=self._on_change,
            on_skip=watchlist.skip,
            monotonic=monotonic,
            now=now,
            waits=waits,
        )
        self._polls = polls(self._polled)

    async def updates(self) -> AsyncGenerator[PriceUpdate, None]:
        """Yield candles, until cancelled; raise what the supervisor has to wait for."""
        self._follow_wishes()
        tasks = [asyncio.create_task(part()) for part in (self._poll, self._listen, self._watch)]
        try:
            while True:
                news = await self._next_news()
                if isinstance(news, BaseException):
                    raise news
                for update in self._take(news):
                    yield update
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next_news(self) -> PriceUpdate | BaseException | None:
        """Return what comes next, None when it is time to look at the clock."""
        try:
            async with asyncio.timeout(self._waits.look_s):
                return await self._news.get()
        except TimeoutError:
            return None

    def _take(self, news: PriceUpdate | None) -> list[PriceUpdate]:
        """Return what is to be told of a tick or a polled candle, and of what has become due."""
        at, now = self._monotonic(), self._now()
        told: list[PriceUpdate] = []
        if news is None:
            pass
        elif news.key.interval == TICKS:
            told += self._take_tick(news, now)
        elif (stream := self._streams.get(news.key)) is not None:
            self._rests.pop(news.key, None)
            self._leaps.believe(ticks_of(news.key.symbol), news.candle)
            told += stream.confirm(news, now)
        if at >= self._look_at:
            self._look_at = at + self._waits.look_s
            for stream in self._streams.values():
                told += stream.advance(now)
            self._source.look(lambda symbol, seconds: self._has_traded(symbol, int(now), seconds))
        for update in told:
            if update.is_closed and (polled := self._polled_streams.get(update.key)) is not None:
                have_confirmed(polled, update)
        return told

    def _take_tick(self, tick: PriceUpdate, now: float) -> list[PriceUpdate]:
        symbol, candle = tick.key.symbol, tick.candle
        if candle.time > now + _FUTURE_S:
            self._watchlist.skip(f"a tick of {symbol} has a time in the future: {candle.time}")
            return []
        if not self._source.hear(symbol):
            return []
        streams = self._of(symbol)
        if not any(stream.is_trading(candle.time) for stream in streams):
            return []
        # Of what is built of ticks nobody can say any more which of them was wrong.
        ticks = (tick,) if self._leaps.passes(tick) else self._leaps.weigh(tick)
        return [
            update
            for one in ticks
            for stream in streams
            for update in stream.tick(one.candle.time, one.candle.close, now)
        ]

    def _of(self, symbol: str) -> list[TickedStream]:
        return [stream for key, stream in self._streams.items() if key.symbol == symbol]

    def _has_traded(self, symbol: str, now: int, seconds: float) -> bool:
        return all(stream.has_traded(now, seconds) for stream in self._of(symbol))

    # -- what is wanted ----------------------------------------------------------------------------

    async def _watch(self) -> None:
        version = self._watchlist.version
        while True:
            version = await self._watchlist.changed(version)
            self._follow_wishes()

    def _follow_wishes(self) -> None:
        """Bring both lists in line with what is wanted; a stream that left and came back is asked for anew."""
        wishes = {key: self._watchlist.wanted_since(key) for key in self._watchlist.streams}
        for key in [key for key, since in self._wishes.items() if wishes.get(key) != since]:
            for table in (self._streams, self._rests, self._polled_at, self._wishes):
                table.pop(key, None)
            self._polled.remove(key)
            if all(other.symbol != key.symbol for other in self._wishes):
                self._source.forget(key.symbol)
        for key, since in wishes.items():
            if key not in self._wishes:
                self._wishes[key] = since
                self._add(key)

    def _add(self, key: StreamKey) -> None:
        stream = self._streams[key] = TickedStream(key, self._hours(key.symbol), lambda: self._polled_in(key))
        ticks = self._source.want(key.symbol)
        if ticks.is_live:
            stream.accept(self._now())
            self._accept(key)
        self._watchlist.remark(key, ticks.reason)
        self._polled.add(key)

    def _accept(self, key: StreamKey) -> None:
        """Report that a stream is live, but not while its market is closed: it rests, whoever is connected."""
        if self._streams[key].is_trading(int(self._now())):
            self._watchlist.accept([key])

    def _polled_in(self, key: StreamKey) -> float:
        return self._polled_at.get(key, 0.0) - self._monotonic()

    # -- polling -----------------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Poll for ever; without ticks a failure ends the feed."""
        wait_s = self._waits.least_retry_s
        while True:
            try:
                async with aclosing(self._polls.updates()) as updates:
                    async for update in updates:
                        wait_s = self._waits.least_retry_s
                        await self._news.put(update)
            except ProviderError as error:
                if isinstance(error, AuthenticationFailed) or not self._source.is_live:
                    await self._news.put(error)
                    return
                self._watchlist.skip(f"polling failed while ticks come: {error}")
                await asyncio.sleep(max(wait_s, error.retry_after if isinstance(error, RateLimited) else 0.0))
                wait_s = min(self._waits.most_retry_s, 2 * wait_s)
            except Exception as error:  # noqa: BLE001 - whoever reads the feed raises it
                await self._news.put(error)
                return

    def _on_polled(self, key: StreamKey) -> None:
        self._rests.pop(key, None)
        self._accept(key)

    def _on_rest(self, key: StreamKey, status: str, message: str) -> None:
        """Pass on a rest; that polls have to wait for credits concerns only a stream without ticks."""
        self._rests[key] = (status, message)
        if status == "throttled":
            self._polled_at[key] = math.inf
            if self._streams[key].is_ticking:
                return
        self._watchlist.pause(key, status, message)

    def _on_expect(self, key: StreamKey, in_s: float, every_s: float | None) -> None:
        self._polled_at[key] = self._monotonic() + in_s
        if not self._streams[key].is_ticking:
            self._watchlist.expect(key, in_s, every_s)

    # -- listening ---------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            await self._source.listen(self._news.put)
        except Exception as error:  # noqa: BLE001 - whoever reads the feed raises it
            await self._news.put(error)

    def _on_change(self, symbol: str, ticks: Ticks) -> None:
        """Let ticks move the streams of a symbol from now on, or polls alone."""
        for stream in self._of(symbol):
            self._watchlist.remark(stream.key, ticks.reason)
            if ticks.is_live:
                stream.accept(self._now())
                self._accept(stream.key)
            else:
                stream.lose()
                if (rest := self._rests.get(stream.key)) is not None:
                    self._watchlist.pause(stream.key, *rest)
