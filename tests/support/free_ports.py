"""Ports of loopback for servers whose address has to be known before they listen, or that come back to it."""

import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_EPHEMERAL = 32_768
_LOWEST = 10_000
_SHARES = 256
"""So many test processes may run at a time on this machine, in whatever runs of the tests."""


def _claimed() -> int:
    """Return the number of a share of ports that no other process has as long as this one lives."""
    folder = Path(tempfile.gettempdir(), f"test-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for number in range(_SHARES):
        lock = os.open(folder / str(number), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return number
    raise AssertionError(f"{_SHARES} processes run tests at a time")


def _ports(share: int) -> Iterator[int]:
    """Yield the ports of a share, in turn.

    They lie below those that the kernel gives to connections: one of these may be taken between the moment at which
    nobody has it and the moment at which a server listens, or while the server is away.
    """
    lowest_ephemeral = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else _USUAL_EPHEMERAL
    highest = lowest_ephemeral if lowest_ephemeral > _LOWEST else _USUAL_EPHEMERAL
    size = (highest - _LOWEST) // _SHARES
    start = _LOWEST + share * size
    # A run that had this share before may have left connections that end.
    first = os.getpid() % size
    return (start + (first + number) % size for number in itertools.count())


_own = _ports(_claimed())


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
