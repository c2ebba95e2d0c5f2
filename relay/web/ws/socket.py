"""The handshake of a WebSocket, by aiohttp, and the greeting behind it; and how much the kernel keeps of it."""

import asyncio
import socket

from aiohttp import web

from relay.core.compression import DEFLATE_WINDOW_BITS
from relay.protocol import frames
from relay.streams.subscriptions import Wire
from relay.web.aiohttp_seams import HandshakeResponse
from relay.web.inlet import inlet_of

KERNEL_BUFFER = 24 * 1024


class Socket(HandshakeResponse):
    """Answers the handshake, and closes nothing: that is the session's concern."""

    def __init__(self, *, compress: bool, message_bytes: int = frames.MESSAGE_BYTES) -> None:
        # aiohttp refuses a message as long as the limit it is given; ours is the largest that is taken.
        super().__init__(autoping=False, autoclose=False, compress=compress, max_msg_size=message_bytes + 1)

    @property
    def may_compress(self) -> bool:
        """Whether the client may send compressed messages."""
        return bool(self.compress)

    @property
    def wire(self) -> Wire:
        """In which form the client is sent frames: compressed ones are so with the full window."""
        return Wire.DEFLATED if self.compress == DEFLATE_WINDOW_BITS else Wire.FRAMES

    async def open(self, request: web.Request, greeting: bytes) -> asyncio.Transport | None:
        """Answer the handshake and send a first frame; return the transport, None if the client is gone already."""
        writer = await self.prepare(request)
        try:
            await writer.write(greeting)
        except ConnectionError:
            return None
        transport = request.transport
        if transport is None:
            return None
        inlet = inlet_of(transport)
        if inlet is not None:
            inlet.begin_websocket()
            # aiohttp may have been given another one, which is slower.
            transport = inlet.transport
        if transport is not None:
            bound_kernel_buffer(transport)
        return transport

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Do nothing, when aiohttp has read something that is no WebSocket, and when the route returns."""
        return False


def bound_kernel_buffer(transport: asyncio.Transport) -> None:
    """Keep the kernel from hiding minutes of old prices for a client that does not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
