"""A client whose connection is read and closed by its session itself: how it lets go when either side closes."""

import asyncio

from relay.web.ws.connection import Connection


class ProtocolConnection(Connection, asyncio.Protocol):
    """A session that is the protocol of its transport."""

    __slots__ = ()

    def eof_received(self) -> bool:
        """Close the connection in its turn; return whether it is open until then, as only one without TLS can be."""
        if self.subscriber.descriptor is None:
            return False
        self._context.leaving.do(self._transport.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything in its turn. Before this returns nothing can be written any more."""
        self._context.hub.lose_socket(self.subscriber)
        self._context.leaving.do(self.lose)
