"""The way out: connections of our own, through a proxy where there is one; whatever that does is an error naming it."""

import asyncio
import os
from contextlib import suppress
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from relay.core.outward_proxies import OutwardProxies, OutwardProxy
from relay.network.connector import TooLarge

_WANTS_LOGIN = 407
# By this one some say that a password is wrong (tinyproxy), as sites do; in a tunnel no site can answer.
_UNAUTHORIZED = 401


class ProxyFailed(aiohttp.ClientConnectionError):
    """A proxy opened no way. The text names it, and neither user nor password."""


class OutwardConnector(aiohttp.TCPConnector):
    """Opens the connections of one session, through the proxy that `proxies` has for a host."""

    def __init__(self, proxies: OutwardProxies) -> None:
        super().__init__()
        self.proxies = proxies

    def proxy_of(self, url: URL) -> OutwardProxy | None:
        """Return the proxy that leads to an address, None where none does."""
        return self.proxies.of(url.scheme, url.raw_host or "", url.port or 0)

    async def connect(self, req: aiohttp.ClientRequest, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        """Return a connection for a request. Raises `ProxyFailed` when it should go through a proxy and cannot.

        A request that names a proxy of its own goes by that.
        """
        proxy = None if req.proxy is not None else self.proxy_of(req.url)
        if proxy is None:
            return await super().connect(req, traces, timeout)
        _lead(req, proxy)
        try:
            async with asyncio.timeout(self.proxies.way_s):
                return await super().connect(req, traces, timeout)
        except (aiohttp.ClientError, OSError) as error:
            failure = ProxyFailed(_told(error, proxy, f"{req.url.host}:{req.url.port}"))
        # Raised out here: the original error holds the headers, and the password with them.
        raise failure


def _lead(req: aiohttp.ClientRequest, proxy: OutwardProxy) -> None:
    """Have a request go through a proxy: in a tunnel with TLS, without it by the whole address."""
    login = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    req.proxy, req.proxy_headers = URL(str(proxy)), CIMultiDict(login)
    if not req.is_ssl():
        req.headers.update(login)
        # In requests of HTTP there are no addresses of any other scheme.
        req.url = req.url.with_scheme("http")


def refuses_login(session: aiohttp.ClientSession, answer: aiohttp.ClientResponse) -> ProxyFailed | None:
    """Return the error for an answer by which a proxy asks for user and password, None where it is no such one."""
    # With TLS no proxy can answer.
    if answer.status != _WANTS_LOGIN or answer.url.scheme not in ("http", "ws"):
        return None
    proxy = _proxy_to(session, answer.url)
    return None if proxy is None else ProxyFailed(_login_told(answer.status, proxy))


def way_to(session: aiohttp.ClientSession, url: str | URL) -> str:
    """Say which proxy a session uses to an address, as the end of a phrase; "" where it uses none."""
    proxy = _proxy_to(session, url)
    return "" if proxy is None else f" through the proxy {proxy}"


def _proxy_to(session: aiohttp.ClientSession, url: str | URL) -> OutwardProxy | None:
    connector = session.connector
    if isinstance(connector, OutwardConnector):
        with suppress(ValueError):
            return connector.proxy_of(URL(url))
    return None


def _told(error: BaseException, proxy: OutwardProxy, target: str) -> str:
    match error:
        case aiohttp.ClientHttpProxyError(status=status) if status not in (_WANTS_LOGIN, _UNAUTHORIZED):
            # Many allow no port but 443.
            return f"the proxy {proxy} refused to connect to {target} (HTTP {status})"
        case aiohttp.ClientHttpProxyError():
            return _login_told(error.status, proxy)
        case aiohttp.ClientResponseError():
            return f"the proxy {proxy} sent an answer that is not valid HTTP"
        case TimeoutError():
            return f"the proxy {proxy} did not open a connection in time"
        case aiohttp.ServerDisconnectedError():
            return f"the proxy {proxy} closed the connection"
        case aiohttp.ClientConnectorDNSError():
            return f"the host name of the proxy {proxy} cannot be resolved"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy {proxy} cannot be reached: {_words_of(error.os_error)}"
        case aiohttp.ClientConnectorCertificateError():
            return f"the certificate that came through the proxy {proxy} is not valid"
        case aiohttp.ClientSSLError():
            return f"TLS through the proxy {proxy} failed"
        case OSError():
            return f"the connection through the proxy {proxy} was lost: {_words_of(error)}"
        case TooLarge():
            return f"the proxy {proxy} sent too much: {error}"
    return f"the proxy {proxy} did not open a connection"


def _login_told(status: int, proxy: OutwardProxy) -> str:
    asks = "refused the user and the password" if proxy.authorization else "wants a user and a password"
    return f"the proxy {proxy} {asks} (HTTP {status})"


def _words_of(error: OSError) -> str:
    # Asyncio puts the address into `strerror`, so the plain words are looked up again.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or type(error).__name__
