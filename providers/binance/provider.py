"""Binance: who it is, and its hooks; the codec, calls, klines, pairs and weights are in modules of their own.

What the venue documents is named by its page in https://github.com/binance/binance-spot-api-docs, as of 2026-07-21.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp

from providers.binance.codec import BinanceCodec
from providers.binance.klines import KLINES_PAGE, Klines
from providers.binance.native import native_answer
from providers.binance.pairs import EXCHANGE_INFO_WEIGHT, read_pairs
from providers.binance.rest import RestCalls
from providers.binance.weight import Weight, learn_limit
from relay import (
    LIST_BOUNDS,
    Budget,
    Candle,
    Hosts,
    Instrument,
    NativeAnswer,
    PriceUpdate,
    ProviderInfo,
    Setting,
    Watchlist,
    hookimpl,
    websocket_feed,
)

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""web-socket-streams.md, "Kline/Candlestick chart intervals"; rest-api.md has the same."""

_WS_URLS = ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision")
"""web-socket-streams.md; the second one, for market data only, is in faqs/market_data_only.md."""
_REST_URLS = ("https://api.binance.com", "https://data-api.binance.vision")
"""rest-api.md; the second one, for public data only, is in faqs/market_data_only.md."""

_INFO = ProviderInfo(
    name="binance",
    api=(2, 1),
    title="Binance",
    asset_classes=("crypto",),
    intervals=INTERVALS,
    attribution="Market data by Binance (https://www.binance.com)",
    settings=(
        Setting("ws_url", "urls", _WS_URLS, "Addresses of the stream servers, tried in turn"),
        Setting("rest_url", "urls", _REST_URLS, "Addresses of the REST servers, tried in turn"),
    ),
    # web-socket-streams.md, "Websocket Limits": 1024; the rest is room for streams on their way in and out.
    streams_per_feed=1000,
    # web-socket-streams.md, "General WSS information".
    feed_life_s=24 * 3600.0,
    # Our choice: closing events on record came 6 ms to 1.8 s after the close.
    close_grace_s=5.0,
    fresh_s=1.0,
    instruments_ttl_s=3600.0,
    candles_per_call=KLINES_PAGE,
    calls_at_once=4,
    # Recorded klines of all intervals; only days by threes begin on a day of their pair.
    is_utc_grid=True,
    # A kline without trades has the last price and no volume; outages alone leave holes (2021-04-20, 02:00 to 04:29).
    has_every_candle=True,
    # rest-api.md: the weight of a call does not depend on how many it asks for. How many is our choice.
    candles_back=3,
    # It has thousands. In maintenance it lists a few for a while, or test pairs; even a small venue of it has these.
    least_instruments=10,
    always_listed=("BTCUSDT", "ETHUSDT", "BNBUSDT"),
    # rest-api.md, "Kline/Candlestick data"; the klines of streams have the same.
    candle_extras=("quote_volume", "trades", "taker_volume", "taker_quote_volume"),
)


class BinanceProvider:
    """The plugin; one instance a relay, which holds what its feeds and calls share."""

    def __init__(self) -> None:
        self._weight = Weight()
        self._hosts: dict[tuple[str, ...], Hosts] = {}
        self._calls = RestCalls(self._hosts_of, self._weight)
        self._klines = Klines(self._calls)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        """Say who this is."""
        return _INFO

    @hookimpl
    def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Carry all streams of the watchlist on one combined connection."""
        return websocket_feed(session, BinanceCodec(self._hosts_of(settings["ws_url"])), watchlist)

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
        """Fetch klines in pages of 1000, forwards from `start`, else backwards from `end`."""
        return await self._klines.candles(symbol, interval, start, end, limit, session, settings)

    @hookimpl
    async def relay_instruments(
        self, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> Sequence[Instrument]:
        """List all pairs with their steps and all that Binance says of them; one that does not trade now is paused."""
        query = {"showPermissionSets": "false"}
        body = await self._calls.ask(
            "/api/v3/exchangeInfo", query, EXCHANGE_INFO_WEIGHT, session, settings, LIST_BOUNDS
        )
        learn_limit(self._weight, body)
        return await read_pairs(body)

    @hookimpl
    async def relay_native(
        self, path: str, query: Mapping[str, str], session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> NativeAnswer:
        """Pass a request for public market data on."""
        return await native_answer(self._calls, path, query, session, settings)

    @hookimpl
    def relay_budgets(self) -> Sequence[Budget]:
        """Say how much of the request weight is used."""
        return (self._weight.budget(),)
