"""The server's end of one WebSocket: how it closes after too much, and how much the kernel keeps of it."""

import asyncio
import socket
import time

from aiohttp import web

from relay import wire
from relay.errors import CloseCode

KERNEL_BUFFER = 24 * 1024
TOO_BIG_LINGER_S = 1.0


class Socket(web.WebSocketResponse):
    """Says why when it closes because of a message that is too big."""

    transport: asyncio.WriteTransport | None = None
    # The answer to the handshake waits for the greeting, and both leave in one write. Without this switch, which is
    # aiohttp's own, they leave one after the other.
    _send_headers_immediately = False

    def __init__(self, *, compress: bool) -> None:
        # aiohttp refuses a message as long as the limit it is given; ours is the largest that is taken.
        super().__init__(autoping=False, autoclose=False, compress=compress, max_msg_size=wire.MESSAGE_BYTES + 1)

    async def open(self, request: web.Request, greeting: bytes) -> asyncio.WriteTransport | None:
        """Answer the handshake and send a first frame; return the transport, None if the client is gone already."""
        writer = await self.prepare(request)
        try:
            await writer.write(greeting)
        except ConnectionError:
            return None
        if request.transport is not None:
            self.transport = request.transport
            _bound_kernel_buffer(request.transport)
        return self.transport

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Close; after a message that is too big go on reading for a moment.

        Closing at once would reset the connection while the rest of the message is on its way, and the client would
        not see the reason.
        """
        if code == CloseCode.TOO_BIG and self.transport is not None and not self.closed:
            self.transport.write(wire.close_frame(code, "message too big"))
            deadline = time.monotonic() + TOO_BIG_LINGER_S
            while time.monotonic() < deadline and not self.transport.is_closing():  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.02)
            self.transport.close()
            return True
        return await super().close(code=code, message=message, drain=drain)


def _bound_kernel_buffer(transport: asyncio.WriteTransport) -> None:
    """Keep the kernel from hiding minutes of old prices for a client that does not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
