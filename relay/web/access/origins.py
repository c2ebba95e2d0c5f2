"""Which pages may use the relay: the `Origin` and the `Host` of a request against those that are ours or listed."""

import logging
import re
from functools import lru_cache

from aiohttp import web

from relay.config.given_settings import is_loopback
from relay.config.settings import Config
from relay.core.errors import Code, RequestError
from relay.core.hosts import Host, origin_of, parse_host, parse_origin
from relay.protocol.fields import shown
from relay.telemetry.rare_warning import RareWarning
from relay.web.access import client_address, forwarded

log = logging.getLogger(__name__)

PAGE_ORIGIN = "X-Page-Origin"
"""By this a page says its origin where browsers do not: in a request to the host that it was loaded from."""

_host_of = lru_cache(256)(parse_host)
_END_OF_HOST = re.compile("[/?#]")


class Origins:
    """Which origins and hosts are ours, by one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._listed = {origin for text in config.allowed_origins if (origin := parse_origin(text)) is not None}
        self._names = {origin.name for origin in self._listed}
        own = parse_host(f"[{config.host}]" if ":" in config.host else config.host)
        if own is not None:
            self._names.add(own.name)
        self._is_network_trusted = not is_loopback(config.host)
        self._warning = RareWarning(log, "origin_refused")

    def is_allowed(self, request: web.Request) -> bool:
        """Say whether the request's origin may use the relay; no `Origin` means that no page elsewhere sent it."""
        said = request.headers.getall("Origin", ())
        return not said or (len(said) == 1 and self._may_use(request, said[0]))

    def _may_use(self, request: web.Request, text: str) -> bool:
        origin = parse_origin(text)
        if origin is None or origin in self._listed:
            return origin is not None
        host = _host_of(request.headers.get("Host", ""))
        return (
            host is not None
            and origin == origin_of(forwarded.scheme_of(request, self._config), host)
            and self._is_known(host)
        )

    def check_page(self, request: web.Request, origin: str) -> None:
        """Refuse a page that says its own origin, as browsers do on its WebSocket only. Raises `RequestError`."""
        if not self._may_use(request, origin):
            raise self.refusal(request, origin)

    def check_host(self, request: web.Request) -> None:
        """Refuse a host that is none, also for what anybody may have. Raises `RequestError`."""
        host = request.headers.get("Host")
        if host is not None and _host_of(host) is None:
            raise RequestError(Code.INVALID_REQUEST, "Host must be a name or an address, with or without a port")

    def check(self, request: web.Request) -> None:
        """Refuse an origin that is not allowed, and a host that may be a trick. Raises `RequestError`."""
        if _names_another_host(request):
            raise RequestError(Code.INVALID_REQUEST, "the request line and the Host header name different hosts")
        if not self.is_allowed(request):
            raise self.refusal(request, ", ".join(request.headers.getall("Origin")))
        # A page asks its own origin without naming it, so the host has to tell whether that origin is ours.
        text = request.headers.get("Host")
        if text is None or self._is_known(host := _host_of(text)):
            return
        page = request.headers.get(PAGE_ORIGIN, "")
        origin = parse_origin(page)
        if origin is not None and (host is None or origin.name != host.name):
            # The page knows what the host was before a proxy changed it.
            raise self.refusal(request, page)
        self._warning.say(
            "refused a request whose Host is %s: it is neither an address, nor a name of this machine, nor in "
            "allowed_origins, and no tokens are set; if %s is a proxy, it must pass the header Host unchanged",
            shown(text),
            request.remote,
        )
        raise RequestError(
            Code.FORBIDDEN,
            "the Host of this request, which the log shows, is not a name of the relay; the operator can list it "
            "in allowed_origins, set tokens, or, if there is a proxy, configure it to pass the header Host unchanged",
        )

    def refusal(self, request: web.Request, origin: str) -> RequestError:
        """Return the error for an origin that is not allowed, and log what was compared."""
        said = request.headers.get("Host", "")
        fault = forwarded.fault_of_page(request, parse_origin(origin), _host_of(said), self._config)
        self._warning.say(
            "refused a page of origin %s: it is not in allowed_origins, and not the relay's own by Host %s and %s%s",
            shown(origin),
            shown(said),
            forwarded.scheme_of(request, self._config),
            fault.logged,
        )
        return RequestError(Code.FORBIDDEN, fault.told)

    def _is_known(self, host: Host | None) -> bool:
        """Say whether a page that was loaded from this host is one of ours.

        A token is proof enough: no browser adds it by itself. Without tokens other names than ours may point here by
        DNS rebinding. Where all machines of the network may connect anyway, so may the pages of that network.
        """
        if self._config.tokens:
            return True
        return host is not None and (
            client_address.is_own_by_nature(host)
            or host.name in self._names
            or (self._is_network_trusted and client_address.is_private_name(host.name))
        )


def _names_another_host(request: web.Request) -> bool:
    """Say whether the request line names another host than `Host`, which aiohttp sees to that there is one of."""
    target = request.raw_path
    if target.startswith("/") or target == "*":
        return False
    authority = _END_OF_HOST.split(target.partition("://")[2], 1)[0]
    return authority.lower() != request.headers.get("Host", "").lower()
