"""Values as people write them in flags, environment and TOML: each reader takes one or complains in words; pure."""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from relay.core.hosts import parse_host, parse_origin
from relay.core.near_names import did_you_mean
from relay.core.outward_proxies import OutwardProxy, parse_proxy
from relay.core.secret import Secret, clean_secret

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_NODE = re.compile(r"[A-Za-z0-9_:-][A-Za-z0-9._:-]{0,63}", re.ASCII)
_SUBJECT = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_BUS_SCHEMES = ("nats", "tls", "ws", "wss")
_UNITS_S = {"h": 3600, "d": 86_400, "w": 604_800, "y": 365 * 86_400}


class Period(NamedTuple):
    """How long candles of an interval are kept, as it was written and in seconds."""

    interval: str
    text: str
    seconds: int

    def __str__(self) -> str:
        return f"{self.interval}={self.text}"


def text(value: Any) -> str:
    """Take a text that is not empty."""
    if not isinstance(value, str):
        raise ValueError("is not a text; write it in quotation marks")
    if not value:
        raise ValueError("is empty")
    return value


def node_name(value: Any) -> str:
    """Take the name of a relay among others: a host's name, with a port or without."""
    given = text(value)
    if not _NODE.fullmatch(given):
        raise ValueError("is not a name of a relay; it has up to 64 letters, digits and . : _ -")
    return given


def subject_token(value: Any) -> str:
    """Take a name of letters, digits, _ and -, which can be a part of a subject of NATS."""
    given = text(value)
    if not _SUBJECT.fullmatch(given):
        raise ValueError("is not a namespace; it has up to 32 letters, digits, _ and -")
    return given


def bus_urls(value: Any) -> tuple[str, ...]:
    """Take addresses of NATS servers, a list or one text with commas."""
    found = texts(value)
    for one in found:
        parts = urlsplit(one)
        try:
            is_good = parts.scheme in _BUS_SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good:
            raise ValueError("has an address that is none of NATS, such as nats://127.0.0.1:4222 or tls://HOST:4222")
    return found


def host(value: Any) -> str:
    """Take a name or an address to listen on; an IPv6 address may stand in brackets, as it does in a URL."""
    given = text(value).strip()
    six = given[1:-1] if given.startswith("[") and given.endswith("]") else given
    with suppress(ValueError):
        ipaddress.IPv6Address(six)
        return six
    found = parse_host(given)
    if found is None or found.port is not None:
        raise ValueError("is not a name or address to listen on, such as 127.0.0.1, [::1] or localhost, without a port")
    return found.name


def secret(value: Any) -> Secret:
    """Take a text that nobody is to see."""
    return Secret(clean_secret(text(value)))


def proxy(value: Any) -> OutwardProxy:
    """Take the address of a proxy, which may hold a password."""
    return parse_proxy(clean_secret(text(value)))


def number(kind: type, least: float, most: float) -> Callable[[Any], Any]:
    """Make a reader of numbers in a range, also such that are written as text."""
    if math.isinf(least) or math.isinf(most):
        span = "" if math.isinf(least) else f"from {least:.15g} upwards"
        span = span if math.isinf(most) else f"at most {most:.15g}"
    else:
        span = f"from {least:.15g} to {most:.15g}"
    fault = f"is not a {'whole ' if kind is int else ''}number {span}".rstrip()

    def parse(value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = kind(value)
            except ValueError:
                raise ValueError(fault) from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(fault)
        if not math.isfinite(value):
            raise ValueError(fault)
        if not least <= value <= most:
            raise ValueError(f"is out of range; it has to be {span}")
        if kind(value) != value:
            raise ValueError(fault)
        return kind(value)

    return parse


def one_of(*choices: str) -> Callable[[Any], str]:
    """Make a reader of one of some words."""

    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}{did_you_mean(str(value), choices)}")
        return str(value)

    return parse


def some_of(*choices: str) -> Callable[[Any], tuple[str, ...]]:
    """Make a reader of some of these words, each once: a list, or one text with commas; none of them is `()`."""

    def parse(value: Any) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(texts(value)))
        for one in found:
            if one not in choices:
                raise ValueError(f"has {one!r}, which is none of {', '.join(choices)}{did_you_mean(one, choices)}")
        return found

    return parse


_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def switch(value: Any) -> bool:
    """Take true or false, or a text that means one of them in most environments."""
    if isinstance(value, str):
        value = _SWITCHES.get(value.strip().lower())
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false; write one of them, in a variable also yes, no, on, off, 1 or 0")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Take a list of texts, or one text with commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, Sequence) or not all(isinstance(part, str) for part in value):
        raise ValueError('is not a list of texts such as ["a", "b"], or one text with commas')
    return tuple(part for part in value if part)


def origins(value: Any) -> tuple[str, ...]:
    """Take a list of origins as browsers send them: of pages, of extensions and apps, or `null`."""
    found = texts(value)
    for origin in found:
        if origin == "*":
            raise ValueError("would allow every page to use the relay; list the origins that may use it")
        if origin.endswith("/") and parse_origin(origin.rstrip("/")) is not None:
            raise ValueError(f"ends with a slash, which no browser sends; write {origin.rstrip('/')}")
        if parse_origin(origin) is None:
            raise ValueError("is not a list of origins such as https://charts.example.org")
    return tuple(origin.lower() for origin in found)


def frame_ancestors(value: Any) -> tuple[str, ...]:
    """Take a list of origins that a content policy can name."""
    found = texts(value)
    if "*" in found:
        raise ValueError("would allow every page to show charts in a frame; list the origins that may")
    for origin in origins(found):
        if origin == "null" or "[" in origin:
            raise ValueError(f"has {origin}, which a content policy cannot name; use origins with the name of a host")
    return origins(found)


def networks(value: Any) -> tuple[Network, ...]:
    """Take a list of addresses and networks."""
    try:
        return tuple(ipaddress.ip_network(part) for part in texts(value))
    except ValueError as error:
        raise ValueError(f"is not a list of addresses or networks such as 10.0.0.0/8: {error}") from None


def table(value: Any) -> Mapping[str, Any]:
    """Take a table of a file, and what is in it, so that nobody can change it."""
    if isinstance(value, str):
        raise ValueError("is not a table; a table cannot be written in a variable or as a text, only in the file")
    if not isinstance(value, Mapping):
        raise ValueError("is not a table; write its lines, key = value, below a heading of its own")
    return MappingProxyType({str(key): _frozen(part) for key, part in value.items()})


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return table(value)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def urls(value: Any) -> tuple[str, ...]:
    """Take a list of addresses, at least one."""
    found = texts(value)
    for url in found:
        scheme, _, rest = url.partition("://")
        if scheme not in {"http", "https", "ws", "wss"} or not rest:
            raise ValueError("is not a list of addresses such as https://api.example.com or wss://stream.example.com")
    if not found:
        raise ValueError("contains no address")
    return found


def periods(*names: str) -> Callable[[Any], tuple[Period, ...]]:
    """Make a reader of how long to keep what: a table such as `1s = "7d"`, or one text, `1s=7d,1m=2y`."""

    def parse(value: Any) -> tuple[Period, ...]:
        if isinstance(value, str):
            pairs = [part.partition("=")[::2] for part in value.replace(" ", "").split(",") if part]
        elif isinstance(value, dict):
            pairs = [*value.items()]
        else:
            raise ValueError('is not a table such as 1s = "7d"')
        found = []
        for name, length in pairs:
            if name not in names:
                raise ValueError(f"contains {name!r}, which is not an interval; use {' '.join(names)}")
            count, unit = (length[:-1], length[-1:]) if isinstance(length, str) else ("", "")
            if not count.isascii() or not count.isdigit() or not 0 < int(count) < 100_000 or unit not in _UNITS_S:
                raise ValueError(f"has {length!r} for {name}; write a length such as 12h, 7d, 4w or 2y")
            found.append(Period(name, length, int(count) * _UNITS_S[unit]))
        if len({period.interval for period in found}) < len(found):
            raise ValueError("contains an interval twice")
        return tuple(found)

    return parse
