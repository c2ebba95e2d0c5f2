"""Puts one relay together as an aiohttp application: what exists, in which order it starts, and how it ends."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable

from aiohttp import web

from relay.clock import Clock, ProviderClock
from relay.config import Config, check_tables, provider_settings
from relay.directory import Directory
from relay.errors import ConfigError
from relay.history import History
from relay.hub import Hub, Stream
from relay.model import PriceUpdate
from relay.plugins import PluginHost, Provider, new_session
from relay.store import Store
from relay.supervisor import Supervisor
from relay.web import rest, ws
from relay.web.access import Access, access_middleware
from relay.web.problems import problems

CONFIG = web.AppKey("config", Config)
HOST = web.AppKey("plugin_host", PluginHost)
HUB = web.AppKey("hub", Hub)
STORE = web.AppKey("store", Store)
HISTORY = web.AppKey("history", History)
DIRECTORY = web.AppKey("directory", Directory)
ACCESS = web.AppKey("access", Access)
PROVIDERS = web.AppKey("providers", dict[str, Provider])
SUPERVISORS = web.AppKey("supervisors", dict[str, Supervisor])
CLOCK = web.AppKey("clock", Clock)


def load_plugins(config: Config, builtin: Iterable[object]) -> PluginHost:
    """Load all plugins and check the configuration's tables against them. Raises `ConfigError`."""
    host = PluginHost()
    host.load(builtin, config.plugins)
    known = [*host.loaded, *(failure.name for failure in host.failures)]
    check_tables(config, known)
    return host


def build_app(config: Config, builtin: Iterable[object], clock: Clock | None = None) -> web.Application:
    """Build the application. Raises `ConfigError`; starting it raises `StoreError` if the database cannot be used."""
    clock = clock or Clock()
    host = load_plugins(config, builtin)
    if not host.loaded:
        raise ConfigError("no provider could be loaded")
    access = Access(config)
    app = web.Application(middlewares=[access_middleware(access), problems], client_max_size=64 * 1024)
    app[CONFIG] = config
    app[CLOCK] = clock
    app[HOST] = host
    app[ACCESS] = access
    app[PROVIDERS] = {
        name: host.bind(loaded, provider_settings(config, loaded.info), ProviderClock(clock))
        for name, loaded in host.loaded.items()
    }
    app.add_routes([*rest.ROUTES, *ws.ROUTES])
    # Before aiohttp waits for open requests to end: a WebSocket is one of them.
    app.on_shutdown.append(_send_clients_away)
    # In dependency order; aiohttp undoes them in reverse.
    app.cleanup_ctx.extend([_store, _sessions, _directory, _history, _hub, _clients])
    return app


async def _store(app: web.Application) -> AsyncIterator[None]:
    app[STORE] = await Store.open(app[CONFIG].database, app[CLOCK])
    yield
    await app[STORE].close()


async def _sessions(app: web.Application) -> AsyncIterator[None]:
    """One HTTP session for each provider: it reads the provider's clock from every answer."""
    sessions = []
    for provider in app[PROVIDERS].values():
        session = new_session(provider.clock)
        provider.open(session)
        sessions.append(session)
    yield
    for session in sessions:
        await session.close()


async def _directory(app: web.Application) -> AsyncIterator[None]:
    def delisted(provider: Provider, symbols: set[str]) -> None:
        app[SUPERVISORS][provider.name].delist(symbols)

    supervisors: dict[str, Supervisor] = {}
    app[SUPERVISORS] = supervisors
    app[DIRECTORY] = Directory([*app[PROVIDERS].values()], app[STORE], on_delisted=delisted)
    app[DIRECTORY].start()
    yield
    await app[DIRECTORY].close()


async def _history(app: web.Application) -> AsyncIterator[None]:
    app[HISTORY] = History(app[STORE], app[CLOCK])
    yield
    await app[HISTORY].close()


async def _hub(app: web.Application) -> AsyncIterator[None]:
    """The hub, and a supervisor for each provider that feeds it."""
    config, store = app[CONFIG], app[STORE]

    def keep(stream: Stream, update: PriceUpdate, after: int | None) -> None:
        store.put_closed(stream.provider, stream.key, update.candle, after)

    app[HUB] = Hub(app[CLOCK], flush_s=config.flush_ms / 1000, on_closed=keep)
    for name, provider in app[PROVIDERS].items():
        app[SUPERVISORS][name] = Supervisor(
            provider, app[HUB], app[HISTORY], app[CLOCK], linger_s=config.linger_seconds
        )
    yield
    # Together: each may have to wait for a plugin that does not end.
    await asyncio.gather(*(supervisor.close() for supervisor in app[SUPERVISORS].values()))
    app[HUB].close()


async def _clients(app: web.Application) -> AsyncIterator[None]:
    """The WebSocket and the REST routes."""
    epoch = os.urandom(6).hex()
    config, access, hub, directory, history = app[CONFIG], app[ACCESS], app[HUB], app[DIRECTORY], app[HISTORY]
    clients = ws.Clients(config, access, hub, directory, history, app[SUPERVISORS], epoch)
    app[ws.CLIENTS] = clients
    app[rest.REST] = rest.Rest(
        hub=hub,
        directory=directory,
        history=history,
        store=app[STORE],
        access=access,
        supervisors=app[SUPERVISORS],
        refused=app[HOST].failures,
        epoch=epoch,
    )
    clients.start()
    yield
    await clients.close()


async def _send_clients_away(app: web.Application) -> None:
    await app[ws.CLIENTS].close()
