"""The WebSocket to one relay: opened, lost, opened again after a wait, by one task, whoever reads what it brings."""

import asyncio
import time

from relay.client.backoff import Backoff
from relay.client.decoding import Unreadable, decode
from relay.client.errors import ClientClosed, ClientError, Disconnected, Refused
from relay.client.http import Ended, Http, RelaySocket
from relay.client.inbox import Inbox
from relay.client.messages import Lost, Snapshot, Update
from relay.client.subscriptions import FollowedStreams
from relay.core.errors import CloseCode

_FOR_GOOD = {CloseCode.TOO_MANY_INVALID, CloseCode.TOKEN_REVOKED}


class RelayConnection:
    """One WebSocket at a time: asks for what is followed and puts what comes into the inbox, while `run` runs.

    Until the first one is open a failure ends `run`, unless `waits_for_relay`; later it is told as `Lost`. A later
    `run` goes on: the wait that is due after a failure is kept.
    """

    def __init__(
        self, http: Http, backoff: Backoff, following: FollowedStreams, inbox: Inbox, *, waits_for_relay: bool
    ) -> None:
        self._http = http
        self._backoff = backoff
        self._following = following
        self._inbox = inbox
        self._is_patient = waits_for_relay
        self._socket: RelaySocket | None = None
        self._failures = 0
        self._next_attempt = 0.0

    async def run(self) -> None:
        """Keep a connection open until cancelled, and none while the inbox is full.

        Raises `Refused` for a token or origin not allowed, `Disconnected` when the relay closed it for good, and any
        `ClientError` while it is not patient.
        """
        while True:
            if self._inbox.is_full:
                await self._inbox.emptied()
            await asyncio.sleep(max(0.0, self._next_attempt - time.monotonic()))
            try:
                socket = await self._http.upgrade()
            except ClientError as fault:
                self._inbox.put(self._failed(fault))
            else:
                await self._use(socket)

    async def ask(self) -> None:
        """Send all requests that are due; without a connection the next one brings them."""
        # One that is sent counts as asked, so a caller cancelled in between leaves the rest to the next one.
        while (socket := self._socket) is not None:
            request = self._following.next_request(time.monotonic())
            if request is None:
                return
            await socket.send(request)

    async def _use(self, socket: RelaySocket) -> None:
        self._is_patient = True
        self._following.restart()
        self._socket = socket
        opened_at = time.monotonic()
        try:
            end = await self._listen(socket)
            self._socket = None
            if time.monotonic() - opened_at >= self._backoff.most_s:
                self._failures = 0
            self._inbox.put(self._lost(end))
        finally:
            self._socket = None
            await socket.close()

    async def _listen(self, socket: RelaySocket) -> Ended:
        """Take what comes until the end, or until there is a reason to end it. Raises `Disconnected`."""
        while not self._inbox.is_full:
            await self.ask()
            heard = await socket.receive(self._following.due_at - time.monotonic())
            if isinstance(heard, Ended):
                if heard.code in _FOR_GOOD:
                    raise Disconnected(heard.code, heard.reason)
                return heard
            if heard is None:
                continue
            try:
                said = decode(heard)
            except Unreadable:
                # Skipping it could lose a closed candle; a new connection brings it again.
                return Ended(None, "the relay sent a message that cannot be read")
            if said is None:
                continue
            socket.note_news(heard)
            if isinstance(said, Update | Snapshot):
                # Data flows: the next loss is the first again.
                self._failures = 0
            size = len(heard)
            for message in self._following.take(said, time.monotonic()):
                self._inbox.put(message, size)
                size = 0
        return Ended(None, "the program does not read the messages")

    def _failed(self, fault: ClientError) -> Lost:
        refused = fault if isinstance(fault, Refused) else None
        lost = self._plan(str(fault), None, (refused and refused.retry_after) or 0.0)
        # A relay that starts, is full or shuts down takes clients later; one that refuses a token does not.
        is_final = isinstance(fault, ClientClosed) or (refused is not None and refused.status in {401, 403})
        if is_final or not self._is_patient:
            raise fault from None
        return lost

    def _lost(self, end: Ended) -> Lost:
        # 4002 asks to come back later, so it waits the longest time at once.
        least_s = self._backoff.most_s if end.code == CloseCode.RATE_LIMITED else 0.0
        words = f"connection to the relay lost{f' ({end.reason})' if end.reason else ''}"
        return self._plan(words, end.code, least_s)

    def _plan(self, reason: str, close_code: int | None, least_s: float) -> Lost:
        wait_s = max(self._backoff.wait_s(self._failures), least_s)
        self._failures += 1
        self._next_attempt = time.monotonic() + wait_s
        return Lost(reason, close_code, wait_s, {"type": "status", "status": "disconnected", "message": reason})
