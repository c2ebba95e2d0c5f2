"""One connection of a simulated exchange: what its client subscribed and what waits to be sent to it."""

import asyncio
import time
from typing import NamedTuple

from aiohttp import WSMsgType, web

_MOST_WAITING = 50_000
"""Our own choice: no exchange says how much it keeps for a slow reader."""


class Outgoing(NamedTuple):
    """A frame that waits; `queued` is of the monotonic clock. A CLOSE holds code and reason."""

    kind: WSMsgType
    data: bytes
    queued: float


class Connection:
    """One WebSocket connection of a client, with what it subscribed and the frames waiting to be sent to it."""

    def __init__(self, number: int, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.number = number
        self.request = request
        self.socket = socket
        self.opened = time.monotonic()
        self.ponged = self.opened
        self.subscriptions: dict[str, None] = {}
        self.combined = False
        self.microseconds = False
        self.outgoing: asyncio.Queue[Outgoing] = asyncio.Queue()
        self.recent: list[float] = []

    def send(self, data: bytes | str, kind: WSMsgType = WSMsgType.TEXT) -> None:
        """Queue a frame; never blocks. A client that lets far too many pile up is cut off."""
        raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
        if self.outgoing.qsize() >= _MOST_WAITING:
            self.abort()
            return
        self.outgoing.put_nowait(Outgoing(kind, raw, time.monotonic()))

    def close(self, code: int, reason: str = "") -> None:
        """Queue an orderly close behind the frames that wait."""
        self.send(code.to_bytes(2, "big") + reason.encode(), WSMsgType.CLOSE)

    def abort(self) -> None:
        """Cut the TCP connection at once, without a close frame."""
        transport = self.request.transport
        if transport is not None:
            transport.abort()
