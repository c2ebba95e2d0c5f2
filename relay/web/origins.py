"""Which pages may use the relay: the `Origin` and the `Host` of a request against those that are ours or listed."""

from aiohttp import web

from relay.config import Config, is_loopback
from relay.errors import Code, RequestError
from relay.fields import shown
from relay.web import callers

_MOST_REMEMBERED = 256


class Origins:
    """Which origins and hosts are ours, by one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[str, bool] = {}

    def is_allowed(self, request: web.Request) -> bool:
        """Say whether the request's origin may use the relay; no `Origin` means that no page elsewhere sent it."""
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        origin = origin.lower()
        if origin in self._config.allowed_origins:
            return True
        host = request.headers.get("Host", "")
        return origin == f"{scheme_of(request, self._config)}://{host}".lower() and self._is_known(host)

    def check(self, request: web.Request) -> None:
        """Refuse an origin that is not allowed, and a host that may be a trick. Raises `RequestError`."""
        if not self.is_allowed(request):
            raise RequestError(Code.FORBIDDEN, "this Origin is not allowed; the operator can add it to allowed_origins")
        # A page asks its own origin without naming it, so the host has to tell whether that origin is ours.
        host = request.headers.get("Host")
        if host is not None and not self._is_known(host):
            raise RequestError(
                Code.FORBIDDEN,
                f"the relay is not known as {shown(host)}; the operator can list that origin in allowed_origins, or "
                "set tokens",
            )

    def _is_known(self, host: str) -> bool:
        is_known = self._known.get(host)
        if is_known is None:
            is_known = _is_known_host(host, self._config)
            if len(self._known) < _MOST_REMEMBERED:
                self._known[host] = is_known
        return is_known


def scheme_of(request: web.Request, config: Config) -> str:
    """Return how the client came, `http` or `https`, behind trusted proxies as well."""
    said = request.headers.getall("X-Forwarded-Proto", [])
    if said and callers.is_from_proxy(request.remote, config.trusted_proxies):
        scheme = said[-1].rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            return scheme
    return request.scheme


def _is_known_host(host: str, config: Config) -> bool:
    """Say whether a page that was loaded from this host is one of ours.

    A token is proof enough: no browser adds it by itself. Without tokens other names than ours may point here by DNS
    rebinding. Where all machines of the network may connect anyway, so may the pages of that network.
    """
    name = callers.host_name(host)
    return (
        bool(config.tokens)
        or callers.is_own_by_nature(name)
        or name == config.host.lower()
        or any(name == callers.host_name(origin.partition("://")[2]) for origin in config.allowed_origins)
        or (not is_loopback(config.host) and callers.is_private_name(name))
    )
