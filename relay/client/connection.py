"""The WebSocket to one relay: opened, lost, opened again after a wait; what is said over it is no concern here."""

import asyncio
import contextlib
import math
import time
from typing import Any

import aiohttp
import orjson

from relay.client.backoff import Backoff
from relay.client.errors import ClientError, Disconnected, Refused, unreachable
from relay.client.http import Http
from relay.client.messages import Lost
from relay.errors import CloseCode

_HANDSHAKE_S = 10.0
_FOR_GOOD = {CloseCode.TOO_MANY_INVALID, CloseCode.TOKEN_REVOKED}


class Connection:
    """One WebSocket at a time. Whoever calls `open` and `receive` drives it; `end` may come from elsewhere.

    Until the first one is open a failure is raised, unless `waits_for_relay`; later it is returned as `Lost`.
    """

    def __init__(self, http: Http, backoff: Backoff, *, waits_for_relay: bool) -> None:
        self._http = http
        self._backoff = backoff
        self._is_patient = waits_for_relay
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._lost: aiohttp.ClientWebSocketResponse | None = None
        self._opened_at = 0.0
        self._failures = 0
        self._next_attempt = 0.0
        self._patience: asyncio.Timeout | None = None
        self._ended = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether there is a socket to receive from."""
        return self._socket is not None

    @property
    def is_ended(self) -> bool:
        """Whether it was closed, by either side, and will not be opened again."""
        return self._ended.is_set()

    async def open(self) -> Lost | None:
        """Make the next attempt once it is due. Returns how it failed; None when it is open, or ended meanwhile.

        Raises `Refused` for a token or origin not allowed.
        """
        await self._drop_lost()
        if await self._ends_within(self._next_attempt - time.monotonic()):
            return None
        try:
            # A relay that accepts and then says nothing must not hold up the resume for long.
            async with asyncio.timeout(min(self._http.timeout_s, _HANDSHAKE_S)) as self._patience:
                socket = await self._http.upgrade()
        except TimeoutError as fault:
            return self._failed(unreachable(self._http.url, fault))
        except ClientError as fault:
            return self._failed(fault)
        finally:
            self._patience = None
        if self.is_ended:
            await socket.close()
            return None
        self._socket = socket
        self._is_patient = True
        self._opened_at = time.monotonic()
        return None

    async def receive(self, within_s: float) -> str | Lost | None:
        """Return the next text, or that the connection is lost; None when the time is over, or nothing of use came.

        Raises `Disconnected` when the relay closed it for good.
        """
        socket = self._socket
        if socket is None:
            return None
        try:
            # aiohttp takes 0 for "no timeout", as it does None.
            frame = await socket.receive(None if within_s == math.inf else max(0.001, within_s))
        except TimeoutError:
            return None
        if frame.type is aiohttp.WSMsgType.TEXT:
            text: str = frame.data
            return text
        if frame.type is aiohttp.WSMsgType.BINARY:
            return None
        reason = str(frame.extra or "") if frame.type is aiohttp.WSMsgType.CLOSE else ""
        if socket.close_code in _FOR_GOOD:
            await self.end()
            raise Disconnected(socket.close_code, reason)
        return None if self.is_ended else self.lose(reason, socket.close_code)

    async def send(self, request: dict[str, Any]) -> None:
        """Send a request; where that fails, `receive` meets the lost connection."""
        if self._socket is None or self._socket.closed:
            return
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, RuntimeError):
            await self._socket.send_str(orjson.dumps(request).decode())

    def lose(self, reason: str, close_code: int | None = None) -> Lost:
        """Give up the socket; it is closed with the next call of `open` or `end`."""
        self._socket, self._lost = None, self._socket
        if time.monotonic() - self._opened_at >= self._backoff.most_s:
            self._failures = 0
        # 4002 asks to come back later, so it waits the longest time at once.
        least_s = self._backoff.most_s if close_code == CloseCode.RATE_LIMITED else 0.0
        words = f"connection to the relay lost{f' ({reason})' if reason else ''}"
        return self._plan(words, close_code, least_s)

    def prove(self) -> None:
        """Note that data flows: the next loss is the first again."""
        self._failures = 0

    async def end(self) -> None:
        """Close the socket for good; whoever opens or receives returns."""
        self._ended.set()
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())
        await self._drop_lost()
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _drop_lost(self) -> None:
        socket, self._lost = self._lost, None
        if socket is not None:
            await socket.close()

    async def _ends_within(self, wait_s: float) -> bool:
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), wait_s)
        return self.is_ended

    def _failed(self, fault: ClientError) -> Lost | None:
        if self.is_ended:
            return None
        refused = fault if isinstance(fault, Refused) else None
        # A relay that starts, is full or shuts down takes clients later; one that refuses a token does not.
        if not self._is_patient or (refused is not None and refused.status in {401, 403}):
            raise fault from None
        return self._plan(str(fault), None, (refused and refused.retry_after) or 0.0)

    def _plan(self, reason: str, close_code: int | None, least_s: float) -> Lost:
        wait_s = max(self._backoff.wait_s(self._failures), least_s)
        self._failures += 1
        self._next_attempt = time.monotonic() + wait_s
        return Lost(reason, close_code, wait_s, {"type": "status", "status": "disconnected", "message": reason})
