"""Connections that are no WebSockets: how many there may be, and how much of their answers may wait unread.

Descriptors and memory are shared with prices. Who takes many of them is refused, or cut, before others notice.
"""

import logging
import math
import resource
from collections import defaultdict
from typing import Protocol

from relay.core.errors import Code, RequestError
from relay.core.rate_limits import TokenBucket
from relay.telemetry.events import event
from relay.web.access import client_address
from relay.web.access.access import Access

log = logging.getLogger(__name__)

LEAST_PER_ADDRESS = 100
"""So many connections one address may have, however few of its WebSockets are allowed."""
KEPT_FILES = 64
"""Descriptors that no client gets: upstreams, the store and names need some."""
MOST_UNREAD_BYTES = 64 * 1024 * 1024
"""So much of all answers may wait for clients that do not read them."""
WARNINGS_PER_S = 1 / 60


class HttpConnection(Protocol):
    """One connection; `cut` ends it at once."""

    def cut(self) -> None: ...


class HttpConnections:
    """Counts connections until they end or become WebSockets, which `access` counts.

    An address has as many as it may have WebSockets, and all together `max_clients`. The last of the files that the
    system gives this process, `most_files`, are for none of them, and one address gets half of the others at most.
    """

    def __init__(
        self, access: Access, *, most_files: int | None = None, most_unread_bytes: int = MOST_UNREAD_BYTES
    ) -> None:
        self._access = access
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if most_files is None else most_files
        # Where there are very few, clients get a quarter: a relay that takes none is of no use.
        self._most_files = math.inf if files == resource.RLIM_INFINITY else max(files - KEPT_FILES, files // 4)
        self._most_unread_bytes = most_unread_bytes
        self._of: dict[HttpConnection, str] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._unread: defaultdict[str, dict[HttpConnection, int]] = defaultdict(dict)
        self._unread_bytes: defaultdict[str, int] = defaultdict(int)
        self._warnings = TokenBucket(WARNINGS_PER_S, 1)

    def __len__(self) -> int:
        return len(self._of)

    def came(self, connection: HttpConnection, peer: str | None) -> RequestError | None:
        """Count a new connection; return why it has to go, if it has to."""
        owner = client_address.owner_of(client_address.client_address(peer, (), ()))
        config = self._access.config
        most = min(max(LEAST_PER_ADDRESS, config.max_clients_per_address), self._most_files // 2)
        most_of_all = min(max(LEAST_PER_ADDRESS, config.max_clients), self._most_files - self._access.clients)
        refusal = None
        if len(self._of) >= most_of_all:
            refusal = RequestError(Code.INTERNAL, "the relay is full; try again later", retry_after=10)
        elif self._counts[owner] >= most and not client_address.is_from_proxy(peer, config.trusted_proxies):
            refusal = RequestError(
                Code.RATE_LIMITED,
                f"too many connections from one address; at most {most:g} over HTTP are allowed",
                retry_after=10,
            )
        self._of[connection] = owner
        self._counts[owner] += 1
        if refusal is not None and self._warnings.try_acquire():
            log.warning(
                "HTTP connections are refused: %d are open, %d of them from %s: %s",
                len(self._of),
                self._counts[owner],
                owner,
                refusal,
                extra=event("connections_refused", address=owner, count=len(self._of)),
            )
        return refusal

    def left(self, connection: HttpConnection) -> None:
        """Count a connection less, which ended or became a WebSocket. Harmless when it was not counted."""
        self.reads(connection)
        owner = self._of.pop(connection, None)
        if owner is not None:
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]

    def waits(self, connection: HttpConnection, unread_bytes: int) -> None:
        """Note that so much of an answer waits to be read. Where that is too much, who holds most is cut."""
        owner = self._of.get(connection)
        if owner is None:
            return
        self._unread_bytes[owner] += unread_bytes - self._unread[owner].get(connection, 0)
        self._unread[owner][connection] = unread_bytes
        while sum(self._unread_bytes.values()) > self._most_unread_bytes:
            largest = max(self._unread_bytes, key=self._unread_bytes.__getitem__)
            # It waits for longest.
            first = next(iter(self._unread[largest]))
            self.reads(first)
            first.cut()

    def reads(self, connection: HttpConnection) -> None:
        """Note that nothing waits for a connection any more."""
        owner = self._of.get(connection)
        if owner is None or connection not in self._unread.get(owner, ()):
            return
        self._unread_bytes[owner] -= self._unread[owner].pop(connection)
        if not self._unread[owner]:
            del self._unread[owner], self._unread_bytes[owner]
