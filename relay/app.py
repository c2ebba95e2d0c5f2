"""Puts one relay together as an aiohttp application: what exists, in which order it starts, and how it ends."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from relay.config.cluster_needs import check_cluster
from relay.config.given_settings import outward_proxies
from relay.config.provider_settings import check_tables
from relay.config.settings import Config
from relay.core.clock import STEP_S, Clock, ProviderClock
from relay.core.errors import StoreError
from relay.core.intake import Intake
from relay.core.model import PriceUpdate
from relay.core.outward_proxies import OutwardProxies
from relay.core.saved_value import Memory
from relay.history.final_candles import News
from relay.history.identity_checks import AGAIN_S, IdentityChecks
from relay.history.live_edge import live_of
from relay.history.service import HistoryService
from relay.instruments.directory import Directory
from relay.instruments.saved_list import WAITS, ListWaits
from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming
from relay.plugins.loader import PluginHost
from relay.plugins.loop_guard import RelayLoop
from relay.plugins.provider import Provider
from relay.plugins.provider_session import new_session
from relay.protocol.positions import ToldRevision
from relay.storage.documents import Documents
from relay.storage.retention import Retention
from relay.storage.store import Store
from relay.streams.fanout import FANOUT_LIMITS, FanoutLimits
from relay.streams.hub import Hub
from relay.streams.other_instrument import begin_anew
from relay.streams.slow_consumers import SLOW_CONSUMER_LIMITS, SlowConsumerLimits
from relay.streams.subscriptions import Stream
from relay.supervision.supervisor import Supervisor
from relay.supervision.timing import FEED_TIMING, FeedTiming
from relay.telemetry.logs import conceal_in_logs
from relay.telemetry.loop_monitor import LoopMonitor, names_of, owners
from relay.web import pages
from relay.web.access.access import ACCESS, ADDRESS_LIMITS, Access, AddressLimits, add_headers
from relay.web.access.http_connections import MOST_UNREAD_BYTES, HttpConnections
from relay.web.contract import routes as contracts
from relay.web.facades.catalogue import chosen_facades
from relay.web.facades.facade import FACADE_TIMING, FACADES, FacadeParts, FacadeTiming
from relay.web.http import history as history_route
from relay.web.http import routes as rest
from relay.web.http.cached_body import KeptBodies
from relay.web.http.instrument_lists import InstrumentLists
from relay.web.idle_connections import IdleConnections
from relay.web.middleware import Middleware
from relay.web.ops import metrics
from relay.web.ops.status import StatusReport
from relay.web.request_counts import RequestCounts
from relay.web.sse import route as sse
from relay.web.ws import route as ws
from relay.web.ws.context import ConnectionContext

if TYPE_CHECKING:
    from relay.cluster.cluster import Cluster

CONFIG = web.AppKey("config", Config)
HOST = web.AppKey("plugin_host", PluginHost)
HUB = web.AppKey("hub", Hub)
STORE = web.AppKey("store", Store)
MEMORIES = web.AppKey("memories", list[Memory])
IDENTITIES = web.AppKey("identities", IdentityChecks)
HISTORY = web.AppKey("history", HistoryService)
DIRECTORY = web.AppKey("directory", Directory)
PROXIES = web.AppKey("outward_proxies", OutwardProxies)
PROVIDERS = web.AppKey("providers", dict[str, Provider])
SUPERVISORS = web.AppKey("supervisors", dict[str, Supervisor])
CLOCK = web.AppKey("clock", Clock)
SERVER_TIME: web.AppKey[Callable[[], float]] = web.AppKey("server_time")
INTAKE = web.AppKey("intake", Intake)
STATUS = web.AppKey("status", StatusReport)
REQUESTS = web.AppKey("requests", RequestCounts)
LOOP_MONITOR = web.AppKey("loop_monitor", LoopMonitor)
CLUSTER: web.AppKey["Cluster"] = web.AppKey("cluster")
"""Only where the relay is one of several."""
NEWCOMERS = web.AppKey("idle_connections", IdleConnections)


class RelayLimits(NamedTuple):
    """How long the parts of a relay wait, and how much they take: the same in each, but for tests that wait less."""

    plugins: PluginTiming = PLUGIN_TIMING
    feeds: FeedTiming = FEED_TIMING
    lists: ListWaits = WAITS
    addresses: AddressLimits = ADDRESS_LIMITS
    pings: ws.ClientPings = ws.CLIENT_PINGS
    slow_consumers: SlowConsumerLimits = SLOW_CONSUMER_LIMITS
    fanout: FanoutLimits = FANOUT_LIMITS
    identity_again_s: float = AGAIN_S
    facades: FacadeTiming = FACADE_TIMING
    first_request_s: float = 20.0
    """A connection that asks nothing within this is closed."""
    most_unread_bytes: int = MOST_UNREAD_BYTES


RELAY_LIMITS = RelayLimits()
LIMITS = web.AppKey("limits", RelayLimits)


def load_plugins(config: Config, builtin: Iterable[object], *, installed: bool = True) -> PluginHost:
    """Load all plugins and make their instances, as the configuration has them. Raises `ConfigError`.

    Those that are installed as packages are left out if not `installed`.
    """
    host = PluginHost()
    host.find(builtin, config.plugins, installed=installed, config=config)
    check_tables(config, host.names, host.having)
    host.configure(config)
    return host


def build_app(
    config: Config,
    builtin: Iterable[object],
    clock: Clock | None = None,
    *,
    limits: RelayLimits = RELAY_LIMITS,
    installed: bool = True,
    server_time: Callable[[], float] | None = None,
) -> web.Application:
    """Build the application. Raises `ConfigError`; starting it raises `StoreError` if the database cannot be used.

    Plugins of installed packages are left out if not `installed`. `server_time` is what clients are told that the time
    is, in Unix seconds; by default that of this machine.
    """
    clock = clock or Clock()
    host = load_plugins(config, builtin, installed=installed)
    host.check_any()
    access = Access(config, limits.addresses)
    idle_connections = IdleConnections(
        limits.first_request_s, HttpConnections(access, most_unread_bytes=limits.most_unread_bytes)
    )
    requests = RequestCounts()
    facades = chosen_facades(config.facades)
    own = [
        *history_route.ROUTES,
        *rest.ROUTES,
        *ws.ROUTES,
        *sse.ROUTES,
        *metrics.ROUTES,
        *contracts.ROUTES,
        *pages.routes(),
    ]
    middleware = Middleware(idle_connections, access, requests, facades.of, {route.path for route in own})
    app = web.Application(middlewares=[middleware.enter], client_max_size=64 * 1024)
    app[CONFIG] = config
    app[CLOCK] = clock
    app[SERVER_TIME] = server_time or time.time
    app[INTAKE] = Intake()
    app[LIMITS] = limits
    app[HOST] = host
    app[ACCESS] = access
    app[REQUESTS] = requests
    app[FACADES] = facades
    app[NEWCOMERS] = idle_connections
    app[PROXIES] = outward_proxies(config)
    app[PROVIDERS] = {
        name: host.bind(loaded, loaded.settings, ProviderClock(clock), limits.plugins, app[PROXIES])
        for name, loaded in host.loaded.items()
    }
    for provider in app[PROVIDERS].values():
        conceal_in_logs(provider.conceal)
    if config.cluster_nats:
        check_cluster(config)
        # Not at the top: a relay that is alone does without it.
        from relay.cluster.configured import configured_cluster

        app[CLUSTER] = cluster = configured_cluster(config, clock)
        shared: dict[str, Provider] = {name: cluster.shared(own) for name, own in app[PROVIDERS].items()}
        app[PROVIDERS] = shared
    conceal_in_logs(app[PROXIES].conceal)
    app.add_routes([*own, *facades.routes()])
    app.on_response_prepare.extend([add_headers, middleware.count_websocket])
    # Before aiohttp waits for open requests to end: a WebSocket is one of them.
    app.on_shutdown.append(_send_clients_away)
    # In dependency order; aiohttp undoes them in reverse.
    app.cleanup_ctx.extend(
        [_loop_monitor, _store, _sessions, _identity_checks, _directory, _new_files, _history, _hub, _clients]
    )
    return app


async def _loop_monitor(app: web.Application) -> AsyncIterator[None]:
    host = app[HOST]
    plugins = {loaded.info.name: loaded.plugin for loaded in host.loaded.values()}
    wrappings = {wrapping.source: wrapping.plugin for wrapping in host.wrappings}
    blocks = {name: provider.blocks for name, provider in app[PROVIDERS].items()}
    owner_of = owners({**wrappings, **plugins})

    def blame(owner: str) -> None:
        for name in names_of(owner):
            if (provider := app[PROVIDERS].get(name)) is not None:
                provider.failures.failed += 1

    if isinstance(loop := asyncio.get_running_loop(), RelayLoop):
        # Those that come with the relay are trusted not to end the process.
        are_strange = any(not loaded.source.startswith("builtin:") for loaded in host.loaded.values())
        loop.know(owner_of, blame, guards_callbacks=are_strange or bool(wrappings))
    app[LOOP_MONITOR] = LoopMonitor(owner_of, blocks)
    async with app[LOOP_MONITOR]:
        yield


async def _store(app: web.Application) -> AsyncIterator[None]:
    # Half of the cache is for encoded candles, half for whole answers.
    cache_bytes = app[CONFIG].history_cache_mb * 2**19
    latest = {name: provider.clock.latest for name, provider in app[PROVIDERS].items()}
    app[STORE] = await Store.open(app[CONFIG].database, app[CLOCK], cache_bytes=cache_bytes, latest=latest)
    retention = Retention(app[STORE], app[CLOCK], app[CONFIG].retention)
    retention.start()
    yield
    await retention.close()
    await app[STORE].close()


async def _sessions(app: web.Application) -> AsyncIterator[None]:
    """One HTTP session for each provider: it reads the provider's clock from every answer."""
    app[MEMORIES] = []
    for provider in app[PROVIDERS].values():
        provider.open(new_session(provider.clock, provider.proxies, app[INTAKE]), app[INTAKE])
        memory = await _memory(app[STORE].documents, f"memory:{provider.name}")
        app[MEMORIES].append(app[CLUSTER].memory(provider.name, memory) if CLUSTER in app else memory)
        provider.remember(app[MEMORIES][-1])
    yield
    # Together: each may have to wait for its plugin.
    await asyncio.gather(*(provider.close() for provider in app[PROVIDERS].values()))


async def _memory(documents: Documents, name: str) -> Memory:
    """Return what a provider saved under this name, and the way to save more."""

    async def write(body: bytes) -> bool:
        try:
            await documents.put(name, body)
        except StoreError:
            return False
        return True

    try:
        document = await documents.get(name)
    except StoreError:
        document = None
    return Memory(None if document is None else document.body, write)


async def _identity_checks(app: web.Application) -> AsyncIterator[None]:
    def changed(provider: str, symbol: str, before: int | None) -> None:
        if (history := app.get(HISTORY)) is not None:
            history.calls.doubts.drop(provider, symbol)
        if (hub := app.get(HUB)) is not None:
            begin_anew(hub, provider, symbol, before)
        if CLUSTER in app:
            app[CLUSTER].begin_anew(provider, symbol, before)

    app[IDENTITIES] = IdentityChecks(app[STORE], app[CLOCK], on_changed=changed, again_s=app[LIMITS].identity_again_s)
    providers = app[PROVIDERS].values()
    await app[IDENTITIES].start(providers, [provider.name for provider in providers if provider.lists_instruments])
    yield
    await app[IDENTITIES].close()


async def _directory(app: web.Application) -> AsyncIterator[None]:
    app[DIRECTORY] = Directory(
        [*app[PROVIDERS].values()],
        app[STORE].documents,
        waits=app[LIMITS].lists,
        on_list=app[IDENTITIES].note_list,
        switched_off=app[HOST].switched_off,
    )
    await app[DIRECTORY].start()
    yield
    await app[DIRECTORY].close()


async def _new_files(app: web.Application) -> AsyncIterator[None]:
    """What is known beside candles follows the store to another file; above all what was spent of the budgets."""

    async def keep_again() -> None:
        for memory in app[MEMORIES]:
            await memory.save_again()
        await app[IDENTITIES].begin_again()
        await app[DIRECTORY].keep_again()

    app[STORE].on_new_file(keep_again)
    yield


async def _history(app: web.Application) -> AsyncIterator[None]:
    app[HISTORY] = HistoryService(app[STORE], app[CLOCK], app[IDENTITIES], app[DIRECTORY].derivation)
    app[HISTORY].calls.on_disagreement = app[IDENTITIES].note_differences
    yield
    await app[HISTORY].close()


async def _hub(app: web.Application) -> AsyncIterator[None]:
    """The hub, and a supervisor for each provider that feeds it."""
    config, history = app[CONFIG], app[HISTORY]

    def keep(stream: Stream, update: PriceUpdate, after: int | None) -> int | None:
        # What closes ahead of what is certain is told and not written down: history is asked for it once it is past.
        if stream.base is not None:
            # It is built anew of what is stored whenever somebody asks.
            return stream.revision if update.is_revised else None
        if update.candle.time > stream.feeder.clock.certain() + STEP_S:
            return None
        return history.keep(
            stream.provider,
            stream.key,
            update.candle,
            after,
            is_revised=update.is_revised,
            is_of_extras=update.is_of_extras,
        )

    def tell(news: News) -> None:
        if CLUSTER in app:
            changed = (PriceUpdate(news.key, candle, is_closed=True) for candle in (*news.changed, *news.found))
            app[CLUSTER].share_news(news.provider, changed)
        stream = app[HUB].streams.get((news.provider, news.key))
        if stream is None:
            # Whoever had it may come back.
            for candle in (*news.changed, *news.found):
                history.keep(news.provider, news.key, candle, None, is_revised=True)
            for candle in news.refined:
                history.keep(news.provider, news.key, candle, None, is_revised=True, is_of_extras=True)
            return
        stream.series.learn_extras(news.filled)
        if told := stream.series.revise(news.changed, news.found, news.asked_at, news.refined):
            app[HUB].tell(stream, told)

    limits = app[LIMITS]
    app[HUB] = Hub(
        app[CLOCK],
        flush_s=config.flush_ms / 1000,
        on_closed=keep,
        limits=limits.slow_consumers,
        fanout=limits.fanout,
        intake=app[INTAKE],
        revision=lambda: ToldRevision(history.revision, history.store_id),
    )
    history.calls.on_news = tell
    history.derived.edge_of = lambda source, key: live_of(app[HUB].streams.get((source.name, key)))
    if CLUSTER in app:
        memory = await _memory(app[STORE].documents, "cluster")
        app[MEMORIES].append(memory)
        await app[CLUSTER].start(history, app[DIRECTORY], limits.feeds, memory)
    supervisors: dict[str, Supervisor] = {}
    app[SUPERVISORS] = supervisors
    for name, provider in app[PROVIDERS].items():
        past_memory = await _memory(app[STORE].documents, f"past:{name}")
        app[MEMORIES].append(past_memory)
        supervisors[name] = Supervisor(
            provider,
            app[HUB],
            app[HISTORY],
            app[CLOCK],
            linger_s=config.linger_seconds,
            listings=app[DIRECTORY],
            timing=app[LIMITS].feeds,
            past_memory=past_memory,
        )
        await supervisors[name].start()
    yield
    # Together: each may have to wait for a plugin that does not end.
    await asyncio.gather(*(supervisor.close() for supervisor in app[SUPERVISORS].values()))
    if CLUSTER in app:
        await app[CLUSTER].close()
    app[HUB].close()


async def _clients(app: web.Application) -> AsyncIterator[None]:
    """The WebSocket and the REST routes."""
    epoch = os.urandom(6).hex()
    config, access, hub, directory, history = app[CONFIG], app[ACCESS], app[HUB], app[DIRECTORY], app[HISTORY]
    context = ConnectionContext(access, hub, directory, history, app[SUPERVISORS], app[SERVER_TIME])
    clients = ws.Clients(context, epoch, app[LIMITS].pings)
    app[ws.CLIENTS] = clients
    app[STATUS] = StatusReport(
        hub=hub,
        clients=clients,
        history=history,
        loop_monitor=app[LOOP_MONITOR],
        directory=directory,
        store=app[STORE],
        identity_checks=app[IDENTITIES],
        access=access,
        supervisors=app[SUPERVISORS],
        refused=app[HOST].failures,
        epoch=epoch,
        facades=app[FACADES].counts,
        upstream=_upstream(app),
        cluster=app.get(CLUSTER),
    )
    bodies = KeptBodies(config.history_cache_mb * 2**19)
    lists = InstrumentLists(directory)
    app[history_route.ROUTE] = history_route.HistoryRoute(hub, directory, history, access, bodies)
    app[FACADES].begin(
        FacadeParts(
            access=access,
            hub=hub,
            directory=directory,
            history=history,
            providers=app[PROVIDERS],
            supervisors=app[SUPERVISORS],
            clients=clients,
            bodies=bodies,
            lists=lists,
            timing=app[LIMITS].facades,
        )
    )
    app[contracts.CONTRACTS] = contracts.Contracts(access, directory, app[FACADES].by_name)
    app[rest.REST] = rest.RestRoutes(
        directory=directory,
        lists=lists,
        store=app[STORE],
        access=access,
        status=app[STATUS],
        cluster=app.get(CLUSTER),
    )
    collector = metrics.RelayCollector(
        hub=hub,
        clients=clients,
        supervisors=app[SUPERVISORS],
        history=history,
        store=app[STORE],
        requests=app[REQUESTS],
        loop_monitor=app[LOOP_MONITOR],
        facades=app[FACADES].counts,
        upstream=_upstream(app),
        cluster=app.get(CLUSTER),
    )
    app[metrics.METRICS] = metrics.Metrics(collector)
    clients.start()
    yield
    await clients.close()
    await app[FACADES].close()
    await lists.close()


def _upstream(app: web.Application) -> dict[str, Supervisor]:
    """Return by provider who has the connections to it: not the side of the clients, if relays share it."""
    return app[CLUSTER].upstream() if CLUSTER in app else app[SUPERVISORS]


async def _send_clients_away(app: web.Application) -> None:
    if CLUSTER in app:
        await app[CLUSTER].leave()
    await app[ws.CLIENTS].close()
