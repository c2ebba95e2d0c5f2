"""One connection of a stand-in: what its client subscribed, what waits for it, and what it is not to hear."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import WSMsgType, web

_MOST_WAITING = 50_000


class _Outgoing(NamedTuple):
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
        self.has_subscribed = False
        self.key = ""
        self.frames_sent = 0
        self.outgoing: asyncio.Queue[_Outgoing] = asyncio.Queue()
        self.recent: list[float] = []
        self.life: asyncio.TimerHandle | None = None
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._muted: set[str] = set()
        self._is_muted = False
        self._resubscribe_helps = False

    def send(self, data: bytes | str, kind: WSMsgType = WSMsgType.TEXT) -> None:
        """Queue a frame; never blocks. A client that lets far too many pile up is cut off."""
        raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
        if self.outgoing.qsize() >= _MOST_WAITING:
            self.abort()
            return
        self.outgoing.put_nowait(_Outgoing(kind, raw, time.monotonic()))

    def close(self, code: int, reason: str = "") -> None:
        """Queue an orderly close behind the frames that wait."""
        self.send(code.to_bytes(2, "big") + reason.encode(), WSMsgType.CLOSE)

    def mute(self, streams: Sequence[str], *, resubscribe_helps: bool) -> None:
        """Hold back data of these streams, or of all."""
        self._resubscribe_helps = resubscribe_helps
        if streams or resubscribe_helps:
            self._muted.update(streams or self.subscriptions)
        else:
            self._is_muted = True

    def unmute(self, streams: Sequence[str]) -> None:
        """Let data of these streams pass again, or of all."""
        self._muted.difference_update(streams or tuple(self._muted))
        self._is_muted = self._is_muted and bool(streams)

    def subscribe(self, stream: str) -> None:
        """Note a new subscription; it may end the stream's silence."""
        self.subscriptions[stream] = None
        if self._resubscribe_helps:
            self._muted.discard(stream)

    def hears(self, stream: str) -> bool:
        """Tell whether data of a stream may be sent."""
        return not (self._is_muted or stream in self._muted)

    def abort(self) -> None:
        """Cut the TCP connection at once, without a close frame."""
        transport = self.request.transport
        if transport is not None:
            transport.abort()
