"""What carries messages between relays and keeps their leases, as the cluster needs it; `nats_bus` is one."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from relay.core.errors import RelayError

OnMessage = Callable[[bytes], None]
OnRequest = Callable[[bytes], Awaitable[bytes]]


class BusError(RelayError):
    """The bus did not do what it was asked: it cannot be reached, or has no bucket now."""


class BusListener(Protocol):
    """What `listen` returns."""

    def end(self) -> None:
        """Hear nothing more."""


class Bus(Protocol):
    """Messages arrive at most once, in order of one sender and subject; any of them may be lost."""

    @property
    def is_connected(self) -> bool:
        """Whether a server is reached now."""

    @property
    def lost(self) -> int:
        """How many messages were dropped because they were read too slowly, or too large."""

    @property
    def most_bytes(self) -> int:
        """How large a message may be that is sent now; answers may be larger, and go in parts."""

    async def start(self) -> None:
        """Begin to connect, and go on until `close`; returns at once."""

    async def close(self) -> None:
        """Send what waits, then disconnect."""

    def send(self, subject: str, body: bytes) -> None:
        """Send a message; nothing is kept while there is no connection."""

    def listen(self, subject: str, take: OnMessage) -> BusListener:
        """Hear all messages of a subject, also after the connection was lost."""

    def answer(self, subject: str, give: OnRequest) -> BusListener:
        """Answer all requests to a subject."""

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Return the whole answer to a request. Raises `BusError`, also when parts of it are missing."""

    async def acquire(self, name: str, value: bytes) -> int | None:
        """Write a lease that nobody has; return its revision, None if somebody has it. Raises `BusError`."""

    async def renew(self, name: str, value: bytes, revision: int) -> int | None:
        """Write a lease anew; return its revision, None if that is another one by now. Raises `BusError`."""

    async def give_up(self, name: str, revision: int) -> None:
        """Delete a lease, unless it is somebody else's by now. Raises `BusError`."""

    async def touch(self, name: str, value: bytes) -> None:
        """Write a value whoever wrote it before: if it can be, so can leases. Raises `BusError`."""
