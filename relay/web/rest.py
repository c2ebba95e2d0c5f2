"""The REST routes: history, symbols, instruments, status and health."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import orjson
from aiohttp import web

from relay import wire
from relay.directory import Directory
from relay.errors import Code, RequestError, StoreError
from relay.history import History
from relay.hub import Hub
from relay.intervals import parse_interval
from relay.plugins import PluginFailure
from relay.snapshot import live_of
from relay.store import Store
from relay.supervisor import Supervisor
from relay.version import VERSION
from relay.web.access import Access
from relay.web.problems import problem

PREFIX = "/api/v1/market-data"
MOST_CANDLES = 5000
DEFAULT_CANDLES = 500
LATEST_TIME = 10**11

_WHOLE = re.compile(r"-?[0-9]{1,15}")


class Rest:
    """Answers the REST routes from the hub, the directory and history."""

    def __init__(
        self,
        *,
        hub: Hub,
        directory: Directory,
        history: History,
        store: Store,
        access: Access,
        supervisors: dict[str, Supervisor],
        refused: Sequence[PluginFailure],
        epoch: str,
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._history = history
        self._store = store
        self._access = access
        self._supervisors = supervisors
        self._refused = refused
        self._epoch = epoch
        self._started = time.monotonic()

    async def history(self, request: web.Request) -> web.Response:
        """Candles of one stream, ascending."""
        query = _query(request, "symbol", "interval", "start_time", "end_time", "limit")
        pin, symbol = wire.parse_symbol(_required(query, "symbol", "BTCUSDT"))
        interval = parse_interval(_required(query, "interval", "1m"))
        start = _whole(query, "start_time", 0, LATEST_TIME)
        end = _whole(query, "end_time", 0, LATEST_TIME)
        limit = _whole(query, "limit", 1, MOST_CANDLES)
        if start is not None and end is not None and start > end:
            raise RequestError(Code.INVALID_REQUEST, f"start_time {start} is after end_time {end}")
        await self._directory.settled(pin, symbol)
        target = self._directory.resolve(pin, symbol, interval)
        past = await self._history.candles(
            target.provider,
            target.key,
            start=start,
            end=end,
            limit=limit or DEFAULT_CANDLES,
            live=lambda: live_of(self._hub.streams.get((target.provider.name, target.key))),
        )
        return _json(
            {
                "symbol": target.name,
                "interval": interval,
                "candles": [candle._asdict() for candle in past.candles],
                "last_is_closed": past.last_is_closed,
            }
        )

    async def symbols(self, request: web.Request) -> web.Response:
        """The symbols that can be had, sorted."""
        await self._directory.settled()
        listed = self._directory.listed(_query(request, "asset_class").get("asset_class"))
        return _json(sorted({self._directory.name_of(provider, one.symbol.upper()) for provider, one in listed}))

    async def instruments(self, request: web.Request) -> web.Response:
        """The instruments that can be had, with provider and intervals."""
        await self._directory.settled()
        listed = self._directory.listed(_query(request, "asset_class").get("asset_class"))
        return _json(
            [
                {
                    "symbol": self._directory.name_of(one.provider, one.instrument.symbol.upper()),
                    "provider": one.provider.name,
                    "asset_class": one.instrument.asset_class,
                    "base": one.instrument.base,
                    "quote": one.instrument.quote,
                    "intervals": list(one.intervals),
                    "attribution": one.provider.info.attribution,
                }
                for one in listed
            ]
        )

    async def status(self, request: web.Request) -> web.Response:
        """What the relay is doing, and how well."""
        _query(request)
        now = time.monotonic()
        summary: dict[str, Any]
        try:
            summary = (await self._store.streams_summary())._asdict()
        except StoreError:
            summary = {}
        hub = self._hub
        return _json(
            {
                "version": VERSION,
                "epoch": self._epoch,
                "server_time": time.time(),
                "uptime_s": round(now - self._started, 1),
                "clients": {"connected": self._access.clients, "subscribers": len(hub.subscribers)},
                "traffic": {
                    "updates_in": hub.updates_in,
                    "frames_out": hub.frames_out,
                    "writes_out": hub.writes_out,
                    "bytes_out": hub.bytes_out,
                },
                "store": {**summary, "problem": self._store.problem},
                "plugins_refused": [{"source": _base_name(failure.source)} for failure in self._refused],
                "providers": [self._provider(supervisor) for supervisor in self._supervisors.values()],
                "connections": sum(supervisor.open_feeds for supervisor in self._supervisors.values()),
                "budgets": [
                    {"provider": name, **budget._asdict()}
                    for name, supervisor in self._supervisors.items()
                    for budget in supervisor.provider.budgets()
                ],
                "streams": [
                    {
                        "symbol": stream.name,
                        "interval": stream.key.interval,
                        "provider": stream.provider,
                        "status": stream.status,
                        "message": stream.message,
                        "subscribers": len(stream.subscribers),
                        "last_update": None
                        if stream.updated_at is None
                        else round(time.time() - (now - stream.updated_at), 3),
                        "lag_ms": None if stream.lag_ms is None else round(stream.lag_ms, 1),
                        "seq": stream.seq,
                        "merged": stream.conflated,
                        "gaps": stream.gap_count,
                        "open_gaps": [list(gap) for gap in stream.series.gaps],
                        "reconnects": stream.reconnects,
                        "backfilled": stream.series.backfilled,
                        "revised": stream.series.revised,
                        "duplicates": stream.series.duplicates,
                        "late": stream.series.late,
                        "events": [{"time": round(at, 3), "event": event} for at, event in stream.events],
                    }
                    for stream in hub.streams.values()
                ],
            }
        )

    def _provider(self, supervisor: Supervisor) -> dict[str, Any]:
        provider = supervisor.provider
        trouble = provider.refusal or self._directory.problem(provider.name)
        return {
            "name": provider.name,
            "title": provider.info.title,
            "source": _base_name(provider.source),
            "state": "unavailable" if provider.refusal else "degraded" if trouble else "ok",
            "message": trouble or "",
            "intervals": list(provider.info.intervals),
            "connections": supervisor.open_feeds,
            "connects": supervisor.connects,
            "reconnects": dict(supervisor.reconnects),
            "backfills": supervisor.backfills,
            "longest_recovery_s": round(supervisor.longest_recovery_s, 3),
            "messages_skipped": supervisor.skipped,
        }

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
    _route(f"{PREFIX}/history", Rest.history),
    _route(f"{PREFIX}/symbols", Rest.symbols),
    _route(f"{PREFIX}/instruments", Rest.instruments),
    _route(f"{PREFIX}/status", Rest.status),
    _route("/healthz", Rest.healthz),
    _route("/readyz", Rest.readyz),
]


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")


def _base_name(source: str) -> str:
    """Return where a plugin came from without the path of its file; the reason of a failure may name one too."""
    door, _, name = source.partition(":")
    return f"{door}:{PurePath(name).name}"


def _query(request: web.Request, *known: str) -> dict[str, str]:
    """Return the query, each known parameter at most once. Raises `RequestError`."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in known:
            accepted = f"known are {', '.join(known)}" if known else "there are none here"
            raise RequestError(Code.INVALID_REQUEST, f"unknown parameter {wire.shown(name)}; {accepted}")
        if name in found:
            raise RequestError(Code.INVALID_REQUEST, f"{name} is given twice")
        found[name] = value
    return found


def _required(query: Mapping[str, str], name: str, example: str) -> str:
    value = query.get(name)
    if not value:
        raise RequestError(Code.INVALID_REQUEST, f"{name} is missing; give one, for example {name}={example}")
    return value


def _whole(query: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise RequestError(
            Code.INVALID_REQUEST, f"{name} {wire.shown(text)} is not a whole number from {least} to {most}"
        )
    return int(text)
