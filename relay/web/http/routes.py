"""The REST routes: symbols, instruments, status and health."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from relay.core.errors import Code
from relay.instruments.directory import Directory
from relay.storage.store import Store
from relay.web.access.access import Access
from relay.web.contract import queries
from relay.web.http.cached_body import ResponseHeads
from relay.web.http.instrument_lists import InstrumentLists, Kind, Selection
from relay.web.ops.status import ClusterState, StatusReport
from relay.web.problems import problem

PREFIX = "/api/v1/market-data"


class RestRoutes:
    """Answers the REST routes from the directory and the store."""

    def __init__(
        self,
        *,
        directory: Directory,
        lists: InstrumentLists,
        store: Store,
        access: Access,
        status: StatusReport,
        cluster: ClusterState | None = None,
    ) -> None:
        self._directory = directory
        self._lists = lists
        self._heads = ResponseHeads()
        self._store = store
        self._access = access
        self._status = status
        self._cluster = cluster

    async def symbols(self, request: web.Request) -> web.StreamResponse:
        """The available symbols, sorted."""
        asked = queries.SYMBOLS.read(request.query.items())
        return await self._list(request, "symbols", Selection(asked.asset_class))

    async def instruments(self, request: web.Request) -> web.StreamResponse:
        """The available instruments with their details, all or those that are searched for."""
        asked = queries.INSTRUMENTS.read(request.query.items())
        selection, client = Selection(asked.asset_class, asked.provider), self._access.caller(request).client
        wanted = await self._lists.understood(asked.search, selection, client)
        limit = queries.HITS if wanted.query is not None and asked.limit is None else asked.limit
        return await self._list(request, "instruments", wanted._replace(limit=limit))

    async def _list(self, request: web.Request, kind: Kind, wanted: Selection) -> web.StreamResponse:
        await self._directory.lists_settled()
        self._directory.check_asset_class(wanted.asset_class)
        self._directory.check_provider(wanted.provider)
        body = await self._lists.body(kind, wanted)
        return await body.answer(request, self._heads)

    async def status(self, request: web.Request) -> web.Response:
        """The state of the relay."""
        queries.NOTHING.read(request.query.items())
        return _json(await self._status.document())

    async def healthz(self, request: web.Request) -> web.Response:
        """200 while the process serves."""
        return _json({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """200 while the relay can take clients."""
        if self._access.is_closing:
            return problem(503, Code.INTERNAL, "the relay is shutting down")
        if self._store.problem is not None:
            return problem(503, Code.INTERNAL, f"the store cannot be used: {self._store.problem}")
        if self._cluster is None:
            return _json({"status": "ok"})
        return _json({"status": "ok", "cluster": "alone" if self._cluster.is_alone else "joined"})


REST = web.AppKey("rest", RestRoutes)


def _route(path: str, method: Callable[[RestRoutes, web.Request], Awaitable[web.StreamResponse]]) -> web.RouteDef:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await method(request.app[REST], request)

    return web.get(path, handle)


ROUTES = [
    _route(f"{PREFIX}/symbols", RestRoutes.symbols),
    _route(f"{PREFIX}/instruments", RestRoutes.instruments),
    _route(f"{PREFIX}/status", RestRoutes.status),
    _route("/healthz", RestRoutes.healthz),
    _route("/readyz", RestRoutes.readyz),
]


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")
