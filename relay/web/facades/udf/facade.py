"""The facade for charts that speak TradingView's UDF protocol, and for OpenBB Workspace: its routes, their answers."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import orjson
from aiohttp import web

from relay.core.errors import Code, RequestError
from relay.protocol.fields import shown
from relay.web.contract.parameters import SearchText
from relay.web.contract.queries import HITS
from relay.web.facades.facade import Document, Facade, FacadeParts
from relay.web.facades.polled_series import PolledSeries
from relay.web.facades.udf.bars import BarsRoute
from relay.web.facades.udf.bars_query import read_symbol
from relay.web.facades.udf.choices import likely_names
from relay.web.facades.udf.day_quotes import DayQuotes, empty_row, grid_row, names_in, udf_quote
from relay.web.facades.udf.described_routes import openapi_document
from relay.web.facades.udf.described_rows import asyncapi_document
from relay.web.facades.udf.live_rows import LIVE_ROWS, AiohttpRowConnection, DirectRowConnection, LiveRows
from relay.web.facades.udf.refusals import JSON, ROOT, WIDGETS, answer_of, reason_of
from relay.web.facades.udf.resolutions import RESOLUTIONS
from relay.web.facades.udf.symbol_info import exchange_of, search_row, symbol_info, type_of
from relay.web.facades.udf.widgets import LIVE, widgets
from relay.web.http.instrument_lists import Selection
from relay.web.ws.route import serve

USUAL_HITS = 30
KEPT_S = 180.0
"""A series is followed for so long after the last request: charts renew what they show every ten to sixty seconds."""
_ROUTES = ("config", "time", "search", "symbols", "history", "quotes", "rows")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Begun(NamedTuple):
    # What answers, once the relay has started.
    parts: FacadeParts
    bars: BarsRoute
    rows: LiveRows
    polled: PolledSeries


class UdfFacade(Facade):
    """Answers as a UDF server does, from the candles and instruments of all providers."""

    name = "udf"
    title = "charting libraries (UDF)"
    roots = (ROOT, WIDGETS)

    def __init__(self) -> None:
        super().__init__()
        self._begun: _Begun | None = None

    def begin(self, parts: FacadeParts) -> None:
        """Answer by these parts from now on."""
        polled = PolledSeries(parts, self.counts, timing=parts.timing._replace(kept_intervals=0, least_kept_s=KEPT_S))
        rows = LiveRows(DayQuotes(parts, polled, self.counts), WeakValueDictionary())
        self._begun = _Begun(parts, BarsRoute(parts, polled, self.counts), rows, polled)

    async def close(self) -> None:
        """Let go of what is followed because it is polled."""
        if self._begun is not None:
            self._begun.polled.close()
            await self._begun.rows.quotes.close()

    def openapi(self, *, needs_token: bool) -> Document:
        """Describe the routes."""
        return openapi_document(needs_token=needs_token)

    def asyncapi(self, host: str, prefix: str, *, is_secure: bool, needs_token: bool) -> Document:
        """Describe the WebSocket of rows; UDF itself has none."""
        return asyncapi_document(host, prefix, is_secure=is_secure, needs_token=needs_token)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; what else stands below the root is refused."""
        answers = (self._config, self._time, self._search, self._symbols, self._history, self._quotes, self._rows)
        return [
            *(self._get(f"{ROOT}/{name}", name, answer) for name, answer in zip(_ROUTES, answers, strict=True)),
            self._get(WIDGETS, "widgets", self._widgets),
            web.get(f"/{LIVE}", self._live_rows),
            web.route("*", ROOT + "/{rest:.*}", _nothing_else),
        ]

    def _get(self, path: str, name: str, answer: Answer) -> web.RouteDef:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await answer(request)
            finally:
                self.counts.answered[name] += 1

        return web.get(path, handle)

    @property
    def _begun_parts(self) -> "_Begun":
        assert self._begun is not None, "the relay has started"
        return self._begun

    @property
    def _parts(self) -> FacadeParts:
        return self._begun_parts.parts

    # -- what is answered --------------------------------------------------------------------------

    async def _config(self, request: web.Request) -> web.Response:
        directory, providers = self._parts.directory, self._parts.providers
        exchanges = [{"value": "", "name": "All exchanges", "desc": ""}]
        for name in directory.listing:
            title = providers[name].info.title
            exchanges.append({"value": exchange_of(name), "name": title, "desc": title})
        types = [{"value": "", "name": "All types"}]
        types += [{"value": type_of(name), "name": name.capitalize()} for name in directory.asset_classes]
        return _json({
            "supports_search": True,
            "supports_group_request": False,
            "supports_marks": False,
            "supports_timescale_marks": False,
            "supports_time": True,
            "supported_resolutions": [*RESOLUTIONS],
            "exchanges": exchanges,
            "symbols_types": types,
        })  # fmt: skip

    async def _time(self, request: web.Request) -> web.Response:
        return web.Response(text=str(int(self._parts.clients.context.server_time())))

    async def _search(self, request: web.Request) -> web.Response:
        directory, query = self._parts.directory, request.query
        typed = SearchText().of_text("query", query.get("query", ""))
        limit = _limit_of(query.get("limit", ""))
        provider = query.get("exchange", "").lower() or None
        wanted_type = query.get("type", "")
        await directory.lists_settled()
        directory.check_provider(provider)
        classes = [name for name in directory.asset_classes if wanted_type in ("", name, type_of(name))]
        if not classes:
            known = ", ".join(map(type_of, directory.asset_classes))
            raise RequestError(
                Code.INVALID_REQUEST, f"type {shown(wanted_type)} is not known; use one of {known}, or none"
            )
        selection = Selection(classes[0] if wanted_type else None, provider, limit=limit)
        client = self._parts.access.caller(request).client
        return _json([search_row(one) for one in await self._parts.lists.search(typed, selection, client)])

    async def _symbols(self, request: web.Request) -> web.Response:
        pin, symbol = read_symbol(request.query)
        await self._parts.directory.settled(pin, symbol, [self._parts.access.caller(request).client])
        meant = self._parts.directory.meant(pin, symbol)
        return _json(symbol_info(meant, meant.provider.clock.now()))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        return await self._begun_parts.bars.answer(request)

    async def _quotes(self, request: web.Request) -> web.Response:
        names = names_in(request.query.get("symbols", ""), "symbols")
        quotes = await self._begun_parts.rows.quotes.of_all(names, self._parts.access.caller(request))
        found = [
            {"s": "error", "n": name, "v": {}, "errmsg": reason_of(quote)}
            if isinstance(quote, Exception)
            else udf_quote(name, quote)
            for name, quote in zip(names, quotes, strict=True)
        ]
        return _json({"s": "ok", "d": found})

    # -- OpenBB Workspace --------------------------------------------------------------------------

    async def _widgets(self, request: web.Request) -> web.Response:
        await self._parts.directory.lists_settled()
        return _json(widgets(await likely_names(self._parts, self._parts.access.caller(request).client)))

    async def _rows(self, request: web.Request) -> web.Response:
        names = names_in(request.query.get("symbol", ""), "symbol")
        quotes = await self._begun_parts.rows.quotes.of_all(names, self._parts.access.caller(request))
        return _json([
            empty_row(name, reason_of(quote))
            if isinstance(quote, Exception)
            else grid_row(quote.target.name, quote.day, quote.previous)
            for name, quote in zip(names, quotes, strict=True)
        ])  # fmt: skip

    async def _live_rows(self, request: web.Request) -> web.StreamResponse:
        request[LIVE_ROWS] = self._begun_parts.rows
        return await serve(request, bytes, DirectRowConnection, AiohttpRowConnection)

    # -- errors ------------------------------------------------------------------------------------

    def answer_of(self, request: web.Request, error: Exception) -> web.StreamResponse:
        """Return an error in the form of the protocol."""
        return answer_of(request, error, f"one of {', '.join(_ROUTES)} below {ROOT}")


async def _nothing_else(request: web.Request) -> web.Response:
    if request.method not in ("GET", "HEAD"):
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
    raise web.HTTPNotFound


def _limit_of(text: str) -> int:
    if not text:
        return USUAL_HITS
    if not (text.isascii() and text.isdigit()) or not int(text[:9]):
        raise RequestError(Code.INVALID_REQUEST, f"limit {shown(text)} is not a whole number from 1 to {HITS}")
    return min(int(text[:9]), HITS)


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type=JSON)
