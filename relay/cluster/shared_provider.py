"""A provider as a relay of several sees it: its feeds and its past come from whoever carries them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from relay.cluster.shared_feed import FeedSource, feed_of
from relay.core.errors import ProviderError
from relay.core.model import Candle, Instrument, PriceUpdate, StreamKey
from relay.plugins.judged_instruments import judged_list
from relay.plugins.provider import Provider
from relay.upstream.watchlist import Watchlist

CHECK_TIMEOUT_S = 5.0


class SharedSource(FeedSource, Protocol):
    """Who knows the provider for all relays; None where the provider itself is to be asked."""

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle] | None:
        """Return history from another relay. Raises `ProviderError`."""

    def doubts(self, key: StreamKey) -> Callable[[Sequence[Candle], Sequence[Candle]], None] | None:
        """Return what is to hear what another relay gave and what the provider says itself; None for most answers."""

    async def instruments(self) -> Sequence[Instrument] | None:
        """Return what another relay knows that the provider lists. Raises `ProviderError`."""


class SharedProvider(Provider):
    """The provider `own`, whose feeds come from `source`, and its history where `source` has it.

    Both are one: settings, session, clock, counts and border. What comes is judged as all that comes from a provider.
    """

    def __init__(self, own: Provider, source: SharedSource) -> None:
        self.__dict__ = own.__dict__
        self._source = source

    def open_feed(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Return the updates of the streams on a watchlist from whoever carries them, unjudged."""
        watchlist.bind(self)
        return feed_of(watchlist, self._source)

    def feeds_wait(self) -> None:
        """Return None: what another relay may carry is never refused here."""

    async def given(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        """Return history as another relay or the hook gives it, unjudged. Raises `ProviderError`."""
        judge = self._source.doubts(key)
        found = await self._source.candles(key, start, end, limit)
        if found is None:
            return await super().given(key, start, end, limit)
        if judge is None or not found:
            return found
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                own = await super().given(key, start, end, limit)
        except (ProviderError, TimeoutError):
            return found
        judge(found, own)
        return own

    async def instruments(self) -> Sequence[Instrument]:
        """Return what can be streamed; entries that make no sense are left out. Raises `ProviderError`."""
        found = await self._source.instruments()
        return await super().instruments() if found is None else await judged_list([*found], self.info, self.conceal)
