"""Runs one relay until it is told to stop."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable

from aiohttp import web

from relay.app import HOST, NEWCOMERS, PROVIDERS, build_app
from relay.config.settings import Config
from relay.core.errors import ConfigError
from relay.server.open_files import DescriptorWatch
from relay.server.reload import Reload, tell_proxies, warn_of_likely_mistakes
from relay.server.sd_notify import ServiceManager
from relay.server.signals import END_WITHIN_S, Signals
from relay.server.speaking_threads import SpeakingThreads
from relay.server.stray_errors import StrayErrors
from relay.server.tls import Tls
from relay.telemetry.events import event
from relay.web.aiohttp_seams import tell_missing
from relay.web.idle_connections import IdleConnections, Runner

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 2.5
"""How long requests may go on when the relay ends. aiohttp waits so long twice: for their ends, then once more."""
KEEPALIVE_S = 75.0
BACKLOG = 4096
COLLECTOR_THRESHOLDS = (10_000, 5, 200)
"""New objects until the collector looks at them, and how often it does that until it looks at older ones as well."""


async def serve(
    config: Config,
    builtin: Iterable[object],
    say: Callable[[str], None],
    read: Callable[[], Config],
    *,
    end_within_s: float = END_WITHIN_S,
    installed: bool = True,
    server_time: Callable[[], float] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `say` gets one line once connections are accepted.

    On SIGHUP `read` gives the configuration as it is now; the signal ends the relay when its terminal was closed.
    `end_within_s` after it was told to stop the process is ended by force. `installed` and `server_time` are as
    `build_app` takes them.
    Raises `ConfigError` when the address cannot be used, `StoreError` when the database cannot.
    """
    tls = Tls(config.tls_cert, config.tls_key) if config.tls_cert else None
    app = build_app(config, builtin, installed=installed, server_time=server_time)
    warn_of_likely_mistakes(config, app)
    tell_proxies(app)
    _tell_switched_off(app)
    tell_missing()
    runner = Runner(
        app,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        keepalive_timeout=KEEPALIVE_S,
        # Two hours, as the kernel has it, are longer than any connection stays silent here.
        tcp_keepalive=False,
    )
    stop = asyncio.Event()
    reload = Reload(app, read(), read, tls)
    manager = ServiceManager()

    def on_hangup() -> None:
        if _is_hung_up():
            stop.set()
        else:
            with manager.reloading():
                reload()

    signals = {signal.SIGINT: stop.set, signal.SIGTERM: stop.set, signal.SIGHUP: on_hangup}
    with (
        StrayErrors(),
        SpeakingThreads(),
        Signals(signals, end_within_s=end_within_s),
        DescriptorWatch(config.max_clients),
    ):
        try:
            await runner.setup()
            address = await _listen(runner, app[NEWCOMERS], config, tls)
            # What exists now lives as long as the process: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            # Thousands of connections come and stay: walking them all at every few hundred allocations is wasted. The
            # first two numbers bound the pauses while they come: 60,000 objects, 25 ms, are walked in one of them.
            gc.set_threshold(*COLLECTOR_THRESHOLDS)
            say(f"market-relay serves {address}")
            _tell_keys_that_lack(app)
            manager.ready(f"serves {address}")
            await stop.wait()
            log.info("shutting down", extra=event("stopping"))
            await manager.stopping()
            if config.reuse_port:
                # The system would give new clients to this relay as well, although others of them can serve.
                runner.stop_listening()
            # While the address still answers: who asks now is told that this relay is going.
            await app.shutdown()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await runner.cleanup()


def _tell_switched_off(app: web.Application) -> None:
    if names := [*app[HOST].switched_off]:
        log.info("switched off, not contacted: %s", ", ".join(names), extra=event("providers_off", providers=names))


def _tell_keys_that_lack(app: web.Application) -> None:
    """Say in the log why a provider will refuse all its streams."""
    for provider in app[PROVIDERS].values():
        if provider.lacks_key:
            log.info(
                "%s; its symbols answer provider_unavailable until then",
                provider.refusal,
                extra=event("key_lacks", provider=provider.name),
            )


async def _listen(runner: Runner, idle_connections: IdleConnections, config: Config, tls: Tls | None) -> str:
    context = tls.context if tls else None
    try:
        host, port = await runner.listen(
            idle_connections,
            config.host,
            config.port,
            ssl_context=context,
            backlog=BACKLOG,
            reuse_port=config.reuse_port,
        )
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            raise ConfigError(
                f"reuse_port is set, but this system cannot share port {config.port} of {config.host} among processes; "
                "leave it out, and give each relay a port of its own"
            ) from None
        # What asyncio says of it repeats the address; a name that is not found has no number of the system.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or error
        if config.reuse_port and number == errno.EADDRINUSE:
            reason = f"{reason} by a process that does not share it (reuse_port has to be set in all)"
        raise ConfigError(
            f"cannot listen on {config.host} port {config.port}: {reason}; choose another with "
            f"{'--host' if _is_about_host(error) else '--port'}"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def _is_about_host(error: OSError) -> bool:
    return isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL


def _is_hung_up() -> bool:
    """Say whether standard input is a terminal that was closed; the same signal asks a service to reload."""
    try:
        os.tcgetpgrp(0)
    except OSError as error:
        return error.errno == errno.EIO
    return False
