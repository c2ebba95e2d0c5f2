"""The WebSocket to a relay: opened, lost, opened again after a wait or at another relay, by one task, whoever reads."""

import asyncio
import time

from relay.client.backoff import Backoff
from relay.client.decoding import Unreadable, decode
from relay.client.errors import ClientClosed, ClientError, Disconnected, Refused
from relay.client.http import Ended, RelaySocket
from relay.client.inbox import Inbox
from relay.client.messages import Lost, Snapshot, Update
from relay.client.relays import Relays, fault_of_all, is_for_good
from relay.client.rotation import Rotation
from relay.client.subscriptions import FollowedStreams
from relay.core.errors import CloseCode

_FOR_GOOD = {CloseCode.TOO_MANY_INVALID, CloseCode.TOKEN_REVOKED}


_IS_UNREAD = "the program does not read the messages"


class RelayConnection:
    """One WebSocket at a time: asks for what is followed and puts what comes into the inbox, while `run` runs.

    Until the first one is open a failure of all relays ends `run`, unless `waits_for_relay`; later each is told as
    `Lost`. A later `run` goes on: the wait that is due after a failure is kept.
    """

    def __init__(
        self,
        relays: Relays,
        rotation: Rotation,
        backoff: Backoff,
        following: FollowedStreams,
        inbox: Inbox,
        *,
        waits_for_relay: bool,
    ) -> None:
        self._relays = relays
        self._rotation = rotation
        self._backoff = backoff
        self._following = following
        self._inbox = inbox
        self._is_patient = waits_for_relay
        self._socket: RelaySocket | None = None
        # Of this round; None for a relay whose connection was open.
        self._faults: list[ClientError | None] = []

    async def run(self) -> None:
        """Keep a connection open until cancelled, and none while the inbox is full.

        Raises `Refused` for a token or origin that no relay allows, `Disconnected` when the relay closed it for good,
        and any `ClientError` while it is not patient.
        """
        while True:
            if self._inbox.is_full:
                await self._inbox.emptied()
            await asyncio.sleep(max(0.0, self._rotation.next_at - time.monotonic()))
            try:
                socket = await self._relays[self._rotation.current].upgrade()
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
        self._relays.preferred = self._rotation.current
        self._following.restart(self._rotation.current)
        self._socket = socket
        opened_at = time.monotonic()
        try:
            end = await self._listen(socket)
            self._socket = None
            if time.monotonic() - opened_at >= self._backoff.most_s:
                self._note_success()
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
                self._note_success()
            size = len(heard)
            for message in self._following.take(said, time.monotonic()):
                self._inbox.put(message, size)
                size = 0
        return Ended(None, _IS_UNREAD)

    def _note_success(self) -> None:
        self._rotation.restart()
        self._faults.clear()

    def _failed(self, fault: ClientError) -> Lost:
        """Go on at the next relay; raise where there is none that could be used."""
        self._faults.append(fault)
        asked_s = (fault.retry_after if isinstance(fault, Refused) else None) or 0.0
        wait_s = self._rotation.go_on(time.monotonic(), least_s=asked_s)
        if isinstance(fault, ClientClosed):
            raise fault from None
        faults = self._end_of_round()
        # A relay that starts, is full or shuts down takes clients later; one that refuses a token does not.
        if faults and (not self._is_patient or all(map(is_for_good, faults))):
            raise fault_of_all([one for one in faults if one is not None]) from None
        return _told(str(fault), None, wait_s)

    def _lost(self, end: Ended) -> Lost:
        words = f"connection to the relay lost{f' ({end.reason})' if end.reason else ''}"
        now = time.monotonic()
        if end.code == CloseCode.RATE_LIMITED:
            # It asks to come back later. Another relay would be asked as often, so this waits the longest time at once.
            return _told(words, end.code, self._rotation.stay(now, least_s=self._backoff.most_s))
        if end.reason is _IS_UNREAD:
            return _told(words, end.code, self._rotation.stay(now))
        self._faults.append(None)
        wait_s = self._rotation.go_on(now, was_open=True)
        self._end_of_round()
        return _told(words, end.code, wait_s)

    def _end_of_round(self) -> list[ClientError | None]:
        """Return the faults of the round that is over, none while it goes on."""
        if self._rotation.is_within_round:
            return []
        faults, self._faults = self._faults, []
        return faults


def _told(reason: str, close_code: int | None, wait_s: float) -> Lost:
    return Lost(reason, close_code, wait_s, {"type": "status", "status": "disconnected", "message": reason})
