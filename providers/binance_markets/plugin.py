"""The hooks of a market of Binance, by its rules; the codec, calls, klines, lists and weights are in modules here."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp

from providers.binance_markets.description import description_of
from providers.binance_markets.instruments import read_list
from providers.binance_markets.klines import Klines
from providers.binance_markets.native import native_answer
from providers.binance_markets.rest import RestCalls
from providers.binance_markets.rules import MarketRules
from providers.binance_markets.weight import Weight, learn_limit
from relay import (
    LIST_BOUNDS,
    BadAnswer,
    Budget,
    Candle,
    Hosts,
    Instrument,
    NativeAnswer,
    NativeLive,
    NativeUpdate,
    PriceUpdate,
    ProviderInfo,
    Watchlist,
    hookimpl,
    native_websocket_feed,
    websocket_feed,
)


class MarketPlugin:
    """The plugin of one market; one instance a relay, which holds what its feeds and calls share."""

    def __init__(self, rules: MarketRules) -> None:
        self._info = description_of(rules)
        self._rules = rules
        self._weight = Weight(rules.weight_a_minute)
        self._hosts: dict[tuple[str, ...], Hosts] = {}
        self._calls = RestCalls(self._hosts_of, self._weight)
        self._klines = Klines(rules, self._calls)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        """Say who this is."""
        return self._info

    @hookimpl
    def relay_share(self, parts: int) -> None:
        """Use one of so many parts of the request weight: other relays, perhaps of this address, cannot be asked."""
        self._weight.divide(parts)

    @hookimpl
    def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Carry all streams of the watchlist on one combined connection."""
        return websocket_feed(session, self._rules.codec(self._hosts_of(settings["ws_url"])), watchlist)

    def _hosts_of(self, urls: tuple[str, ...]) -> Hosts:
        """Return which of these addresses works; settings may change while the relay runs."""
        return self._hosts.setdefault(urls, Hosts(urls))

    @hookimpl
    async def relay_candles(
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int,
        limit: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> Sequence[Candle]:
        """Fetch klines page by page, forwards from `start`, else backwards from `end`."""
        return await self._klines.candles(symbol, interval, start, end, limit, session, settings)

    @hookimpl
    async def relay_instruments(
        self, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> Sequence[Instrument]:
        """List all symbols with their steps and all that Binance says of them; one that does not trade is paused."""
        rules = self._rules
        query, weight = dict(rules.list_query), rules.native_weights["exchangeInfo"](rules.list_query)
        body = await self._calls.ask(f"{rules.root}/exchangeInfo", query, weight, session, settings, LIST_BOUNDS)
        learn_limit(self._weight, body)
        return await read_list(body, rules.instrument)

    @hookimpl
    async def relay_native(
        self, path: str, query: Mapping[str, str], session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> NativeAnswer:
        """Pass a request for public market data on."""
        return await native_answer(self._rules, self._calls, path, query, session, settings)

    @hookimpl
    def relay_native_live(self, path: str, query: Mapping[str, str]) -> NativeLive | None:
        """Say which stream has the answer to such a request."""
        return self._rules.live(path, query)

    @hookimpl
    def relay_native_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> AsyncGenerator[NativeUpdate, None]:
        """Carry these streams on a connection of their own. Raises `BadAnswer` for a market without any."""
        codec = self._rules.live_codec
        if codec is None:
            raise BadAnswer(f"{self._info.title} has no streams of what is passed on")
        return native_websocket_feed(session, codec(self._hosts_of(settings["ws_url"])), watchlist)

    @hookimpl
    def relay_budgets(self) -> Sequence[Budget]:
        """Say how much of the request weight is used."""
        return (self._weight.budget(),)
