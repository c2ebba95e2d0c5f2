"""How the client of a request came, also behind a proxy: believed of trusted ones; and what a proxy is set wrong in.

What is told to clients repeats nothing that a proxy sent, which may name hosts of the inside; the log does.
"""

import ipaddress
import re
from typing import NamedTuple

from aiohttp import web

from relay.config.settings import Config
from relay.core.hosts import Host, Origin
from relay.protocol.fields import shown
from relay.web.access import client_address

FOR, PROTO, PREFIX = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix"
# Some proxies name the scheme of the WebSocket.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){1,8}")


def is_from_proxy(request: web.Request, config: Config) -> bool:
    """Say whether a request comes from a trusted proxy, whose headers count."""
    return client_address.is_from_proxy(request.remote, config.trusted_proxies)


def scheme_of(request: web.Request, config: Config) -> str:
    """Return how the client came, `http` or `https`, behind trusted proxies as well."""
    said = request.headers.getall(PROTO, [])
    if said and is_from_proxy(request, config):
        scheme = said[-1].rpartition(",")[2].strip().lower()
        if scheme in _SCHEMES:
            return _SCHEMES[scheme]
    return request.scheme


def prefix_of(request: web.Request, config: Config) -> str:
    """Return the path below which a trusted proxy says that it serves the relay, such as `/relay`; mostly empty."""
    said = request.headers.get(PREFIX, "").rstrip("/")
    return said if said and _PREFIX.fullmatch(said) and is_from_proxy(request, config) else ""


class ProxyFault(NamedTuple):
    """What is wrong, as it is `told` to the client and `logged` for the operator."""

    told: str
    logged: str


def fault_of_page(request: web.Request, origin: Origin | None, host: Host | None, config: Config) -> ProxyFault:
    """Return why a page that is refused may be one of ours all the same, from behind a proxy that is set wrong."""
    says = ", ".join(request.headers.getall(PROTO, ()))
    if says and not is_from_proxy(request, config):
        return ProxyFault(
            "this page came through a proxy that the relay does not trust; the operator can add the proxy to "
            "trusted_proxies (the log has its address)",
            f"; {PROTO} is {shown(says)}, but {request.remote}, which sent it, is not in trusted_proxies",
        )
    told = (
        "this Origin is not allowed; the operator can add it to allowed_origins, or, if a proxy is in front of the "
        "relay, make the proxy pass "
    )
    logged = f"; if {request.remote} is a proxy that serves this page, it must pass "
    if origin is None or host is None or origin.name != host.name:
        return ProxyFault(f"{told}Host unchanged", f"{logged}Host unchanged")
    came_by = scheme_of(request, config)
    if origin.scheme == came_by:
        return ProxyFault(f"{told}Host with its port", f"{logged}Host with its port")
    return ProxyFault(
        f"{told}{PROTO}, and add it to trusted_proxies: the page uses {origin.scheme}, its request came by {came_by}",
        f"{logged}{PROTO} and must be in trusted_proxies",
    )


def lacks_of_handshake(request: web.Request) -> str | None:
    """Return which header somebody left out of the handshake of a WebSocket, None if it has both or is none."""
    headers = request.headers
    if "Sec-WebSocket-Key" not in headers:
        return None
    if headers.get("Upgrade", "").lower() != "websocket":
        return "Upgrade"
    return None if "upgrade" in headers.get("Connection", "").lower() else "Connection"


def is_unknown_proxy(request: web.Request, config: Config) -> bool:
    """Say whether a request seems to come from a proxy nearby that is none of the trusted ones."""
    if FOR not in request.headers or is_from_proxy(request, config):
        return False
    try:
        peer = ipaddress.ip_address((request.remote or "").partition("%")[0])
    except ValueError:
        return False
    return peer.is_private
