"""Proxies on the way out: how their addresses are written, and which one leads to which host; pure."""

import ipaddress
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from relay.core.hosts import PORTS, Host, parse_host
from relay.core.secret import Secret, pattern_of, texts_of

EXAMPLE = "http://user:password@proxy.example.org:3128"
VARIABLES = {"http": ("http_proxy", "HTTP_PROXY"), "https": ("https_proxy", "HTTPS_PROXY")}
"""Where environments name the proxies for a scheme; what is first goes before the other."""
NO_PROXY = ("no_proxy", "NO_PROXY")
ALL_VARIABLES = (*VARIABLES["http"], *VARIABLES["https"], *NO_PROXY)

WAY_S = 8.0
"""Less than the 10 s after which a feed gives up its connection."""

_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


@dataclass(frozen=True, slots=True)
class OutwardProxy:
    """A proxy that speaks HTTP, without TLS; as text it is its address without user and password."""

    host: str
    port: int
    login: Secret
    """`user:password`, empty where the proxy wants none."""

    @property
    def authorization(self) -> str:
        """Return what `Proxy-Authorization` says, "" where the proxy wants nothing."""
        # The surrogates are bytes of an address that are no UTF-8.
        content = self.login.reveal().encode("utf-8", "surrogateescape")
        return f"Basic {b64encode(content).decode()}" if content else ""

    def secrets(self) -> Iterator[Secret]:
        """Yield what nobody is to see."""
        yield self.login
        yield Secret(self.login.reveal().partition(":")[2])

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_proxy(text: str) -> OutwardProxy:
    """Return the proxy that a text is the address of; without a scheme it is one of `http`.

    Raises `ValueError` with the end of a sentence that repeats nothing of the text.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    if scheme.startswith("socks"):
        raise ValueError(f"is the address of a SOCKS proxy, which the relay cannot use; it can use {EXAMPLE}")
    if scheme == "https":
        # TLS within TLS: asyncio of Python 3.11 cannot end such a connection that fails.
        raise ValueError(
            "begins with https://, and the relay speaks to proxies without TLS; a proxy for HTTPS has an address such "
            f"as {EXAMPLE} too"
        )
    # A password that is not escaped may hold an @ or a slash.
    login, _, authority = rest.removesuffix("/").rpartition("@")
    host = parse_host(authority)
    # A word alone, such as "none" or a password, is none; and programs do not agree on a port for a name alone.
    if scheme != "http" or host is None or host.port == 0 or (host.port is None and not separator):
        raise ValueError(f"is not the address of a proxy such as {EXAMPLE}")
    user, colon, password = login.partition(":")
    known = "" if not login else f"{_unescaped(user)}{colon or ':'}{_unescaped(password)}"
    return OutwardProxy(host.name, PORTS["http"] if host.port is None else host.port, Secret(known))


def _unescaped(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")


def given_proxies(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return for `http` and `https` the variable that names a proxy, and its value; an empty one names none."""
    found = {}
    for scheme, names in VARIABLES.items():
        name = next((name for name in names if environ.get(name, "").strip()), None)
        if name is not None:
            found[scheme] = (name, environ[name])
    return found


class OutwardProxies:
    """Which proxy leads to which host; `go_by` changes it for all who share it. This machine is reached without.

    A proxy may take `way_s` seconds to open a connection to the other end, with TLS.
    """

    def __init__(self, proxy: OutwardProxy | None = None, *, way_s: float = WAY_S) -> None:
        self.way_s = way_s
        self._secrets: set[str] = set()
        self._use({} if proxy is None else dict.fromkeys(VARIABLES, proxy), "")

    def go_by(self, proxy: OutwardProxy | None, environ: Mapping[str, str]) -> None:
        """Use `proxy` from now on, else those that a trusted environment names; its NO_PROXY holds for both.

        Raises `ValueError` that names the variable, and not its value; then nothing changes.
        """
        found = {} if proxy is None else dict.fromkeys(VARIABLES, proxy)
        if proxy is None:
            for scheme, (name, value) in given_proxies(environ).items():
                try:
                    found[scheme] = parse_proxy(value)
                except ValueError as error:
                    raise ValueError(f"{name}: the value {error}") from None
        self._use(found, next(filter(None, (environ.get(name, "") for name in NO_PROXY)), ""))

    def _use(self, by_scheme: Mapping[str, OutwardProxy], without: str) -> None:
        self._by_scheme = by_scheme
        self._without = without.lower().replace(",", " ").split()
        self._secrets.update(texts_of(secret for one in by_scheme.values() for secret in one.secrets()))
        self._secret = pattern_of(self._secrets)

    def of(self, scheme: str, host: str, port: int) -> OutwardProxy | None:
        """Return the proxy that leads to a host, None where none does."""
        proxy = self._by_scheme.get(_SCHEMES.get(scheme, ""))
        if proxy is None or is_this_machine(host):
            return None
        asked = _host_of(host)
        is_direct = asked is not None and any(_covers(entry, asked._replace(port=port)) for entry in self._without)
        return None if is_direct else proxy

    def conceal(self, text: str) -> str:
        """Return a text without the passwords of all proxies that there are, or were."""
        return self._secret.sub("***", text)

    def __str__(self) -> str:
        """Say which proxies there are, "" without any."""
        found = self._by_scheme
        if len(found) == len(VARIABLES) and len({*map(str, found.values())}) == 1:
            return str(found["https"])
        return ", ".join(f"{proxy} for {scheme}" for scheme, proxy in found.items())


def is_this_machine(host: str) -> bool:
    """Say whether a host is the machine itself: `localhost`, a loopback address, or all addresses that there are."""
    found = _host_of(host)
    if found is None:
        return False
    if found.address is None:
        return found.name == "localhost" or found.name.endswith(".localhost")
    address = getattr(found.address, "ipv4_mapped", None) or found.address
    return address.is_loopback or address.is_unspecified


def _host_of(text: str) -> Host | None:
    """Return the host that a text is; an IPv6 address needs no brackets where no port follows."""
    return parse_host(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)


def _covers(entry: str, asked: Host) -> bool:
    """Say whether an entry of NO_PROXY is for a host: `*`, a network, or a name with all names below it."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return asked.address is not None and asked.address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    listed = _host_of(entry.removeprefix("*").removeprefix("."))
    if listed is None or listed.port not in (None, asked.port):
        return False
    return asked.name == listed.name or (listed.address is None and asked.name.endswith(f".{listed.name}"))
