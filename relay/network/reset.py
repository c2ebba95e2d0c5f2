"""Ends a connection in a way that nobody takes for the end of an answer."""

import asyncio
import socket
import struct

_AT_ONCE = struct.pack("ii", 1, 0)


def reset(transport: asyncio.BaseTransport) -> None:
    """Reset a connection.

    By HTTP/1.0, which proxies like to speak, an answer of unknown length ends with its connection: closed in the usual
    way half of one would look whole.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()  # type: ignore[attr-defined]  # all that aiohttp hands out have it
