"""Ports of loopback for servers whose address has to be known before they listen, or that come back to it."""

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL = 32_768
_LOWEST = 10_000
_MOST_WORKERS = 32


def _ports() -> Iterator[int]:
    """Yield the ports of this test process, in turn.

    They lie below those that the kernel gives to connections: one of these may be taken between the moment at which
    nobody has it and the moment at which a server listens, or while the server is away.
    """
    lowest_ephemeral = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else _USUAL_EPHEMERAL
    highest = lowest_ephemeral if lowest_ephemeral > _LOWEST else _USUAL_EPHEMERAL
    share = (highest - _LOWEST) // _MOST_WORKERS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _MOST_WORKERS
    start = _LOWEST + worker * share
    # Another run of the tests on this machine begins elsewhere.
    first = os.getpid() % share
    return (start + (first + number) % share for number in itertools.count())


_own = _ports()


def free_port() -> int:
    """Return a port on which nobody listens, and which was not given lately."""
    for port in _own:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports do not end")
