"""Hosts and origins as they are written in `Host`, `Origin` and request lines: read by a strict grammar, once.

What does not fit it exactly is no host. A lax reader finds an address in `evil.example@127.0.0.1`,
`[::1%evil.example]` or `127.0.0.1:80@evil.example`; browsers send none of these.
"""

import ipaddress
import re
from typing import NamedTuple, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

PORTS = {"http": 80, "https": 443}
LONGEST_NAME = 253

# RFC 9110 section 7.2, with the user part, escapes, zones and empty ports left out: no browser sends them.
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", re.I | re.A)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,40}", re.I | re.A)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Browsers read a name that ends so as an IPv4 address, also in octal and hexadecimal.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Host(NamedTuple):
    """A host in lower case, without brackets and the dot of the root, as an address too if it is one."""

    name: str
    port: int | None = None
    address: Address | None = None


def parse_host(text: str) -> Host | None:
    """Return the host that a text is, None if it is none: a name or an address, and a port if there is one."""
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and port > 65_535:
        return None
    if found["six"] is not None:
        six = _address(found["six"], ipaddress.IPv6Address)
        return None if six is None else Host(str(six), port, six)
    name = found["name"].lower()
    four = _address(name, ipaddress.IPv4Address)
    if four is not None:
        return Host(name, port, four)
    labels = name.removesuffix(".").split(".")
    if len(name) > LONGEST_NAME or _NUMBER.fullmatch(labels[-1]) or not all(map(_LABEL.fullmatch, labels)):
        return None
    return Host(".".join(labels), port)


def _address(text: str, kind: type[Address]) -> Address | None:
    try:
        return kind(text)
    except ValueError:
        return None


class Origin(NamedTuple):
    """An origin of the web. The port is 0 where the scheme has no usual one; the origin `null` has no name."""

    scheme: str
    name: str
    port: int


NULL = Origin("null", "", 0)


def origin_of(scheme: str, host: Host) -> Origin:
    """Return the origin of what is loaded from a host by a scheme."""
    return Origin(scheme, host.name, PORTS.get(scheme, 0) if host.port is None else host.port)


def parse_origin(text: str) -> Origin | None:
    """Return the origin that a text is, None if it is none. Extensions and apps have schemes of their own."""
    if text == "null":
        return NULL
    scheme, _, rest = text.partition("://")
    host = parse_host(rest)
    return None if host is None or not _SCHEME.fullmatch(scheme) else origin_of(scheme.lower(), host)
