"""The REST routes: symbols, instruments, status and health."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from relay.directory import Directory
from relay.errors import Code
from relay.storage.store import Store
from relay.web import parameters
from relay.web.access import Access
from relay.web.problems import problem
from relay.web.status import Status

PREFIX = "/api/v1/market-data"


class Rest:
    """Answers the REST routes from the hub, the directory and history."""

    def __init__(
        self,
        *,
        directory: Directory,
        store: Store,
        access: Access,
        status: Status,
    ) -> None:
        self._directory = directory
        self._store = store
        self._access = access
        self._status = status

    async def symbols(self, request: web.Request) -> web.Response:
        """The symbols that can be had, sorted."""
        asked = parameters.INSTRUMENTS.read(request)
        await self._directory.settled()
        listed = self._directory.listed(asked.asset_class)
        return _json(sorted({self._directory.name_of(provider, one.symbol.upper()) for provider, one in listed}))

    async def instruments(self, request: web.Request) -> web.Response:
        """The instruments that can be had, with provider and intervals."""
        asked = parameters.INSTRUMENTS.read(request)
        await self._directory.settled()
        listed = self._directory.listed(asked.asset_class)
        return _json(
            [
                {
                    "symbol": self._directory.name_of(one.provider, one.instrument.symbol.upper()),
                    "provider": one.provider.name,
                    "asset_class": one.instrument.asset_class,
                    "base": one.instrument.base,
                    "quote": one.instrument.quote,
                    "intervals": list(one.intervals),
                    "status": one.instrument.status,
                    "attribution": one.provider.info.attribution,
                }
                for one in listed
            ]
        )

    async def status(self, request: web.Request) -> web.Response:
        """What the relay is doing, and how well."""
        parameters.NOTHING.read(request)
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
        return _json({"status": "ok"})


REST = web.AppKey("rest", Rest)


def _route(path: str, method: Callable[[Rest, web.Request], Awaitable[web.Response]]) -> web.RouteDef:
    async def handle(request: web.Request) -> web.Response:
        return await method(request.app[REST], request)

    return web.get(path, handle)


ROUTES = [
    _route(f"{PREFIX}/symbols", Rest.symbols),
    _route(f"{PREFIX}/instruments", Rest.instruments),
    _route(f"{PREFIX}/status", Rest.status),
    _route("/healthz", Rest.healthz),
    _route("/readyz", Rest.readyz),
]


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")
