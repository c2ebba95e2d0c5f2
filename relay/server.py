"""Runs one relay until it is told to stop."""

import asyncio
import contextlib
import gc
import logging
import signal
import ssl
from collections.abc import Callable, Iterable

from aiohttp import web

from relay.app import build_app
from relay.config import Config
from relay.errors import ConfigError

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 5.0
BACKLOG = 4096


async def serve(config: Config, builtin: Iterable[object], say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `say` gets one line once connections are accepted.

    Raises `ConfigError` when the address cannot be used, `StoreError` when the database cannot.
    """
    app = build_app(config, builtin)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S, handle_signals=False)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await runner.setup()
        address = await _listen(runner, config, None)
        # What exists now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # Thousands of connections come and stay: walking them all at every few hundred allocations is wasted.
        gc.set_threshold(10_000, 20, 50)
        say(f"market-relay serves {address}")
        await stop.wait()
        log.info("shutting down")
        # While the address still answers: who asks now is told that this relay is going.
        await app.shutdown()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()


async def _listen(runner: web.AppRunner, config: Config, tls: ssl.SSLContext | None) -> str:
    site = web.TCPSite(runner, config.host, config.port, ssl_context=tls, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.host} port {config.port}: {error.strerror or error}; choose another with --port"
        ) from None
    host, port = runner.addresses[0][:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"
