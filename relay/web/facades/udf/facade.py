"""The facade for charts that speak TradingView's UDF protocol: its routes, and how each is answered."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from relay.core.errors import Code, RequestError
from relay.protocol.fields import shown
from relay.web.contract.parameters import HITS, SearchText
from relay.web.facades.facade import Document, Facade, FacadeParts, without_token
from relay.web.facades.polled_series import PolledSeries
from relay.web.facades.udf.bars import JSON, BarsRoute
from relay.web.facades.udf.bars_query import read_symbol
from relay.web.facades.udf.described_routes import openapi_document
from relay.web.facades.udf.resolutions import RESOLUTIONS
from relay.web.facades.udf.symbol_info import exchange_of, search_row, symbol_info, type_of
from relay.web.http.instrument_lists import Selection
from relay.web.problems import problem_of

ROOT = "/udf"
USUAL_HITS = 30
_NEEDS_TOKEN = "a valid token is needed: put it into the address, as in /t/TOKEN/udf"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class UdfFacade(Facade):
    """Answers as a UDF server does, from the candles and instruments of all providers."""

    name = "udf"
    roots = (ROOT,)

    def __init__(self) -> None:
        super().__init__()
        self._begun: tuple[FacadeParts, BarsRoute, PolledSeries] | None = None

    def begin(self, parts: FacadeParts) -> None:
        """Answer by these parts from now on."""
        polled = PolledSeries(parts, self.counts)
        self._begun = parts, BarsRoute(parts, polled, self.counts), polled

    async def close(self) -> None:
        """Let go of what is followed because it is polled."""
        if self._begun is not None:
            self._begun[2].close()

    def openapi(self, *, needs_token: bool) -> Document:
        """Describe the routes."""
        return openapi_document(needs_token=needs_token)

    def asyncapi(self, host: str, prefix: str, *, is_secure: bool, needs_token: bool) -> None:
        """Describe nothing: the protocol has no WebSocket."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; what else stands below the root is refused."""
        return [
            self._get("config", self._config),
            self._get("time", self._time),
            self._get("search", self._search),
            self._get("symbols", self._symbols),
            self._get("history", self._history),
            web.route("*", ROOT + "/{rest:.*}", _nothing_else),
        ]

    def _get(self, name: str, answer: Answer) -> web.RouteDef:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await answer(request)
            finally:
                self.counts.answered[name] += 1

        return web.get(f"{ROOT}/{name}", handle)

    @property
    def _parts(self) -> FacadeParts:
        assert self._begun is not None, "the relay has started"
        return self._begun[0]

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
        await directory.settled()
        directory.check_provider(provider)
        classes = [name for name in directory.asset_classes if wanted_type in ("", name, type_of(name))]
        if not classes:
            known = ", ".join(map(type_of, directory.asset_classes))
            raise RequestError(
                Code.INVALID_REQUEST, f"type {shown(wanted_type)} is not known; use one of {known}, or none"
            )
        selection = Selection(classes[0] if wanted_type else None, provider, limit=limit)
        return _json([search_row(one) for one in await self._parts.lists.search(typed, selection)])

    async def _symbols(self, request: web.Request) -> web.Response:
        pin, symbol = read_symbol(request.query)
        await self._parts.directory.settled(pin, symbol)
        meant = self._parts.directory.meant(pin, symbol)
        return _json(symbol_info(meant, meant.provider.clock.now()))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        assert self._begun is not None, "the relay has started"
        return await self._begun[1].answer(request)

    # -- errors ------------------------------------------------------------------------------------

    def answer_of(self, request: web.Request, error: Exception) -> web.StreamResponse:
        """Return an error in the form of the protocol; clients look at `s`, people at the status."""
        if isinstance(error, web.HTTPException):
            path = shown(without_token(request.path))
            said = f"there is no {path}; use config, symbols, search, history or time below {ROOT}"
            if isinstance(error, web.HTTPMethodNotAllowed):
                said = f"{shown(request.method)} is not allowed here; use GET"
            return _error(error.status, said, {})
        plain = problem_of(error)
        said = orjson.loads(plain.body if isinstance(plain.body, bytes) else b"{}").get("detail", "")
        if isinstance(error, RequestError) and error.code is Code.UNAUTHORIZED:
            said = _NEEDS_TOKEN
        wait = plain.headers.get("Retry-After")
        return _error(plain.status, said, {} if wait is None else {"Retry-After": wait})


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


def _error(status: int, said: str, headers: dict[str, str]) -> web.Response:
    body = orjson.dumps({"s": "error", "errmsg": said})
    return web.Response(status=status, body=body, content_type=JSON, headers=headers)
