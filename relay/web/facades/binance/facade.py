"""The facade for programs that are written against Binance's market data: its routes, and how each is answered."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import orjson
from aiohttp import web

from relay.plugins.provider import Provider
from relay.web.facades.binance import reading
from relay.web.facades.binance.connection import AiohttpBinanceConnection, DirectBinanceConnection
from relay.web.facades.binance.described_routes import openapi_document
from relay.web.facades.binance.described_streams import asyncapi_document
from relay.web.facades.binance.exchange_info import ExchangeInfoRoute
from relay.web.facades.binance.kline_events import CLOSED_ONLY
from relay.web.facades.binance.klines import KlineRoute
from relay.web.facades.binance.pass_through import PASSED_CALLS, PassedRoute, PassThrough
from relay.web.facades.binance.refusals import JSON, answer_of, market_data_only
from relay.web.facades.binance.venue_markets import (
    COIN_ROOT,
    MARKETS,
    SPOT,
    USDM_STREAMS,
    HeadersNow,
    VenueMarket,
    now_ms,
)
from relay.web.facades.facade import Document, Facade, FacadeParts, way_of_token, without_token
from relay.web.facades.polled_series import PolledSeries
from relay.web.ws.route import serve

ACCOUNT_ROOTS = ("/sapi", "/wapi", "/papi", "/eapi")
"""Roots of which nothing is market data that the relay has."""
_OF_ACCOUNTS = frozenset({
    "account", "allOrderList", "allOrders", "cancelReplace", "leverage", "marginType", "myAllocations", "myFilters",
    "myPreventedMatches", "myTrades", "openOrderList", "openOrders", "order", "orderList", "positionRisk", "rateLimit",
    "sor", "userDataStream", "userTrades", "balance", "income", "listenKey", "multiAssetsMargin", "positionMargin",
    "positionSide", "batchOrders", "allOpenOrders", "countdownCancelAll", "forceOrders",
})  # fmt: skip
"""Of spot and futures: the first part behind the root of paths that trade or show an account."""
SIGNATURE = "signature"
LISTEN_KEY = 32
"""A stream's name of so many characters and no kind is a key to the events of an account: recorded ones have 60."""
LOOKS_A_SECOND = 4
STREAM_ROOTS = ("/ws", "/stream", USDM_STREAMS)

Answer = Callable[[web.Request, HeadersNow], Awaitable[web.StreamResponse]]


class _Served(NamedTuple):
    # What answers the requests of one market.
    klines: KlineRoute
    exchange_info: ExchangeInfoRoute
    passed: PassedRoute


class BinanceFacade(Facade):
    """Answers as Binance does, from the relay's own candles and instruments of Binance."""

    name = "binance"
    title = "programs for Binance"
    roots = (SPOT.root, "/fapi", "/dapi", *ACCOUNT_ROOTS, *STREAM_ROOTS)

    def __init__(self) -> None:
        super().__init__()
        self._parts: FacadeParts | None = None
        self._served: dict[str, _Served] = {}
        self._passed: PassThrough | None = None
        self._polled: PolledSeries | None = None
        # The headers by market, and what they go by.
        self._told: dict[VenueMarket, tuple[tuple[int, ...], dict[str, str]]] = {}

    def begin(self, parts: FacadeParts) -> None:
        """Answer by these parts from now on."""
        self._parts = parts
        self._passed = PassThrough(parts, self.counts)
        self._polled = polled = PolledSeries(parts, self.counts, CLOSED_ONLY)
        for market in MARKETS:
            self._served[market.root] = _Served(
                KlineRoute(parts, market, self._passed, polled, self.counts),
                ExchangeInfoRoute(parts, market, self._passed, self.counts),
                PassedRoute(parts, market, self._passed),
            )

    def openapi(self, *, needs_token: bool) -> Document:
        """Describe the REST routes."""
        return openapi_document(needs_token=needs_token)

    def asyncapi(self, host: str, prefix: str, *, is_secure: bool, needs_token: bool) -> Document:
        """Describe the WebSocket."""
        return asyncapi_document(host, prefix, is_secure=is_secure, needs_token=needs_token)

    async def close(self) -> None:
        """End what is under way."""
        if self._polled is not None:
            self._polled.close()
        if self._passed is not None:
            await self._passed.close()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of all markets; what else stands below their roots is refused."""
        found = []
        for market in MARKETS:
            found += [
                self._get(market, "ping", self._ping),
                self._get(market, "time", self._time(market)),
                self._get(market, "exchangeInfo", self._exchange_info(market)),
                self._get(market, "klines", self._klines(market)),
            ]
            found += [self._get(market, name, self._pass(market, name)) for name in PASSED_CALLS[market.provider]]
        found.append(self._get(SPOT, "uiKlines", self._klines(SPOT)))
        found.append(self._route(SPOT, f"{COIN_ROOT}/exchangeInfo", "exchangeInfo", self._nothing_listed))
        for before in ("", USDM_STREAMS):
            found += [web.get(before + path, _streams) for path in ("/ws", "/ws/{names:.*}", "/stream")]
        for root in self.roots[: -len(STREAM_ROOTS)]:
            found.append(web.route("*", root + "/{rest:.*}", self._nothing_else))
        return found

    def _get(self, market: VenueMarket, path: str, answer: Answer) -> web.RouteDef:
        return self._route(market, f"{market.root}/{path}", path, answer)

    def _route(self, market: VenueMarket, path: str, kind: str, answer: Answer) -> web.RouteDef:
        async def handle(request: web.Request) -> web.StreamResponse:
            if _is_signed(request):
                raise market_data_only()
            try:
                return await answer(request, partial(self._headers, market))
            finally:
                self.counts.answered[kind] += 1

        return web.get(path, handle)

    # -- what is answered --------------------------------------------------------------------------

    async def _ping(self, request: web.Request, headers: HeadersNow) -> web.Response:
        reading.check_names(request.query, ())
        self.counts.weight_asked += 1
        return _json({}, headers)

    def _time(self, market: VenueMarket) -> Answer:
        async def answer(request: web.Request, headers: HeadersNow) -> web.Response:
            reading.check_names(request.query, ())
            self.counts.weight_asked += 1
            now = now_ms(self._provider_of(market))
            return _json({"serverTime": now * 1000 if reading.wants_microseconds(request, market) else now}, headers)

        return answer

    def _exchange_info(self, market: VenueMarket) -> Answer:
        async def answer(request: web.Request, headers: HeadersNow) -> web.StreamResponse:
            return await self._served[market.root].exchange_info.answer(request, headers)

        return answer

    def _klines(self, market: VenueMarket) -> Answer:
        async def answer(request: web.Request, headers: HeadersNow) -> web.StreamResponse:
            self.counts.weight_asked += market.klines_weight(request.query.get("limit"))
            return await self._served[market.root].klines.answer(request, headers)

        return answer

    def _pass(self, market: VenueMarket, name: str) -> Answer:
        async def answer(request: web.Request, headers: HeadersNow) -> web.StreamResponse:
            return await self._served[market.root].passed.answer(request, name, headers)

        return answer

    async def _nothing_listed(self, request: web.Request, headers: HeadersNow) -> web.Response:
        """Say that a market which the relay does not have lists nothing: programs load the lists of all markets."""
        body = {"timezone": "UTC", "serverTime": now_ms(None), "rateLimits": [], "exchangeFilters": [], "symbols": []}
        return _json(body, headers)

    async def _nothing_else(self, request: web.Request) -> web.Response:
        if _is_signed(request) or _is_of_account(request):
            raise market_data_only()
        raise web.HTTPNotFound

    # -- how it is answered ------------------------------------------------------------------------

    def answer_of(self, request: web.Request, error: Exception) -> web.StreamResponse:
        """Return an error in Binance's form; what is not there is answered without a word, as there."""
        path = without_token(request.path)
        headers = self._headers(next((one for one in MARKETS if path.startswith(f"{one.root}/")), SPOT))
        if isinstance(error, web.HTTPException):
            if _is_of_account(request):
                return answer_of(market_data_only(), headers)
            return web.Response(status=error.status, headers=headers)
        return answer_of(error, headers, way_of_token(request, self.roots))

    def _headers(self, market: VenueMarket) -> dict[str, str]:
        """Return what goes with every answer: the weight that the relay itself has used.

        To ask a plugin for its budget takes long beside an answer from memory, so that is done after each call upstream
        and some times a second.
        """
        ended = 0 if self._parts is None else self._parts.history.calls.ended
        state = (ended, self.counts.calls, int(time.monotonic() * LOOKS_A_SECOND))
        known = self._told.get(market)
        if known is not None and known[0] == state:
            return known[1]
        provider = self._provider_of(market)
        used = next((budget.used for budget in provider.budgets()), 0) if provider is not None else 0
        headers = {"X-MBX-USED-WEIGHT": str(used), "X-MBX-USED-WEIGHT-1M": str(used)}
        self._told[market] = state, headers
        return headers

    def _provider_of(self, market: VenueMarket) -> Provider | None:
        return None if self._parts is None else self._parts.providers.get(market.provider)


async def _streams(request: web.Request) -> web.StreamResponse:
    """Let a client in, which is sent no greeting. Raises `BinanceRefusal` for who wants the events of an account."""
    names = request.match_info.get("names", "").split("/")
    if _is_signed(request) or any("@" not in name and len(name) >= LISTEN_KEY for name in names):
        raise market_data_only()
    return await serve(request, bytes, DirectBinanceConnection, AiohttpBinanceConnection)


def _is_signed(request: web.Request) -> bool:
    """Say whether a request has a signature, however its name is written."""
    raw = request.rel_url.raw_query_string
    # To take a query apart takes long beside an answer from memory.
    return (SIGNATURE in raw or "%" in raw) and SIGNATURE in request.query


def _is_of_account(request: web.Request) -> bool:
    """Say whether a request trades or shows an account, by its path or its method: market data is only read."""
    path = without_token(request.path)
    if request.method not in ("GET", "HEAD") or path.startswith(tuple(f"{root}/" for root in ACCOUNT_ROOTS)):
        return True
    parts = path.split("/")
    return len(parts) > 3 and parts[3] in _OF_ACCOUNTS


def _json(value: object, headers: HeadersNow) -> web.Response:
    return web.Response(body=orjson.dumps(value), headers={"Content-Type": JSON, **headers()})
