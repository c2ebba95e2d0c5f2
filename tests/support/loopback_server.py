"""A server of a test's own on loopback."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.support.connect_proxy import tls_front


@asynccontextmanager
async def loopback_server(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve on a free port until the end; yields `127.0.0.1:PORT`.

    With `tls` it is behind a front, which cuts what is open at the end: aiohttp leaves such connections to the event
    loop until the other side has ended TLS as well, and the loop of a test may be closed by then.
    """
    if tls is not None:
        async with loopback_server(app) as address, tls_front(int(address.rpartition(":")[2]), tls) as port:
            yield f"127.0.0.1:{port}"
        return
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def app_of(handler: Any) -> web.Application:
    """Return an application that has one handler for all paths and methods."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    return app
