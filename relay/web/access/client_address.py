"""Who a request comes from and which host it was meant for, as far as that can be believed; pure, decides nothing."""

import functools
import ipaddress
from collections.abc import Sequence

from relay.config.parsers import Network
from relay.core.hosts import Address, Host, parse_host

# Names that nobody can register in the public DNS, so that no page of the internet can have one of them.
_PRIVATE_ENDINGS = (".local", ".internal", ".home.arpa")


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address of the client.

    It is the peer of the connection, unless that is a trusted proxy: then it is what the proxy said, and so on from
    right to left. What stands left of the first address that is not trusted was written by who knows whom.
    """
    if not forwarded:
        return _written(peer or "unknown")
    address = _address(peer or "")
    if address is None:
        return peer or "unknown"
    hops = [hop for line in forwarded for hop in line.split(",")]
    while hops and _is_within(address, trusted):
        before = _address(hops.pop())
        if before is None:
            break
        address = before
    return str(address)


def is_from_proxy(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Say whether the connection comes from a trusted proxy, whose headers count."""
    address = _address(peer or "")
    return address is not None and _is_within(address, trusted)


@functools.lru_cache(4096)
def owner_of(address: str) -> str:
    """Return whom limits count an address for: an IPv6 host has a whole /64 to choose addresses from."""
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address) and not found.is_loopback:
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return address


@functools.lru_cache(4096)
def is_this_machine(owner: str) -> bool:
    """Say whether limits count somebody on the machine of the relay."""
    address = _address(owner)
    return address is not None and address.is_loopback


def is_own_by_nature(host: Host) -> bool:
    """Say whether no page elsewhere can have this host: an address, or a name of this very machine.

    With DNS rebinding a page of `evil.example` reaches a relay on the visitor's machine or network after its name was
    pointed there. Then `Host` and `Origin` are equal and both say `evil.example`; an address cannot be forged so.
    """
    return host.address is not None or host.name == "localhost" or host.name.endswith(".localhost")


def is_private_name(name: str) -> bool:
    """Say whether only machines of the own network can have this name."""
    return "." not in name or name.endswith(_PRIVATE_ENDINGS)


@functools.lru_cache(4096)
def _written(peer: str) -> str:
    """Return an address in its one spelling; each request asks."""
    address = _address(peer)
    return peer if address is None else str(address)


@functools.lru_cache(4096)
def _address(text: str) -> Address | None:
    """Return an address, also one with a port and brackets, as proxies write it, or a zone, as the system does."""
    text = text.strip().partition("%")[0]
    found = parse_host(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if found is None:
        return None
    address = found.address
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def _is_within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
