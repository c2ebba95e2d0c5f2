"""The server's end of one WebSocket: how it closes after too much, and how much the kernel keeps of it."""

import asyncio
import socket
import time

from aiohttp import web

from relay.core.errors import CloseCode
from relay.protocol import frames
from relay.web.aiohttp_seams import HandshakeResponse
from relay.web.inlet import FORGOTTEN_BYTES, LINGER_S, Inlet, inlet_of

KERNEL_BUFFER = 24 * 1024
SAID_WHY = {CloseCode.TOO_BIG: ("message too big", FORGOTTEN_BYTES), CloseCode.RATE_LIMITED: ("rate limited", 0)}
"""Why this end closes while there is more to read, and how many bytes of it are read."""


class Socket(HandshakeResponse):
    """Says why when it closes because of a message that is too big, or of too much that came."""

    transport: asyncio.WriteTransport | None = None
    inlet: Inlet | None = None

    def __init__(self, *, compress: bool) -> None:
        # aiohttp refuses a message as long as the limit it is given; ours is the largest that is taken.
        super().__init__(autoping=False, autoclose=False, compress=compress, max_msg_size=frames.MESSAGE_BYTES + 1)

    async def open(self, request: web.Request, greeting: bytes) -> asyncio.WriteTransport | None:
        """Answer the handshake and send a first frame; return the transport, None if the client is gone already."""
        writer = await self.prepare(request)
        try:
            await writer.write(greeting)
        except ConnectionError:
            return None
        if request.transport is not None:
            self.transport = request.transport
            self.inlet = inlet_of(request.transport)
            _bound_kernel_buffer(request.transport)
        return self.transport

    def fault(self, code: int) -> int:
        """Return the code to close with where aiohttp's reader refused what came with this one."""
        frames = None if self.inlet is None else self.inlet.frames
        return int(CloseCode.RATE_LIMITED) if frames is not None and frames.is_flooded else code

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Close; while more is on its way, wait for a moment.

        Closing at once would reset the connection, and the client would not see the reason.
        """
        code = self.fault(code)
        if code not in SAID_WHY or self.transport is None or self.transport.is_closing() or self.closed:
            return await super().close(code=code, message=message, drain=drain)
        reason, most = SAID_WHY[CloseCode(code)]
        self.transport.write(frames.close_frame(code, reason))
        if self.inlet is not None:
            self.inlet.stop(most)
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline and not self.transport.is_closing():  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.02)
        self.transport.close()
        return True


def _bound_kernel_buffer(transport: asyncio.WriteTransport) -> None:
    """Keep the kernel from hiding minutes of old prices for a client that does not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
