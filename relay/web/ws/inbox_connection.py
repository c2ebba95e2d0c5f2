"""A client whose messages are answered in order, most of them at once; the others wait, but its end does not."""

import asyncio
from collections import deque
from collections.abc import Sequence

from relay.streams.subscriptions import Wire
from relay.web.access.access import Caller
from relay.web.ws.connection import Connection, Connections, Rest
from relay.web.ws.context import ConnectionContext
from relay.web.ws.messages import MessageKind, Received

MOST_WAITING = 64
WAITING_BYTES = 256 * 1024
"""So many messages of a client, and about so much text, wait to be answered before no more are read."""


class InboxConnection(Connection):
    """Takes messages from whoever reads them. A client has a task only while something waits for its turn."""

    __slots__ = ("_inbox", "_is_resting")

    def __init__(
        self,
        context: ConnectionContext,
        all_of_them: Connections,
        transport: asyncio.Transport,
        caller: Caller,
        wire: Wire,
        descriptor: int | None = None,
    ) -> None:
        super().__init__(context, all_of_them, transport, caller, wire, descriptor)
        self._inbox: deque[Received] | None = None
        self._is_resting = False

    def take(self, received: Sequence[Received]) -> None:
        """Answer messages, in the order in which they came, at once if they need not wait."""
        for one in received:
            if not self.hear(one):
                continue
            if self._inbox is not None and not self._goes_first(one):
                self._inbox.append(one)
            elif self._inbox is not None:
                self.answer(one)
            elif not self._context.work_budget.try_acquire():
                self._begin_inbox(None, one)
            elif (rest := self.answer(one)) is not None:
                self._begin_inbox(rest)

    def _goes_first(self, received: Received) -> bool:
        """Whether this is answered before what waits: a ping, and the end while a request may wait for long."""
        if received.kind is MessageKind.PING:
            return True
        return self._is_resting and received.kind in (MessageKind.CLOSE, MessageKind.FAULT)

    def do_first(self, rest: Rest | None) -> None:
        """Do this before any message is answered."""
        if rest is not None:
            self._begin_inbox(rest)

    def _begin_inbox(self, rest: Rest | None, *waiting: Received) -> None:
        self._inbox = deque(waiting)
        self.spawn(self._work_off(rest, self._inbox))

    async def _work_off(self, rest: Rest | None, inbox: deque[Received]) -> None:
        """Do the rest of a request and answer all that waits, in order, and end."""
        if rest is not None:
            await self._do(rest)
        while inbox:
            await self._context.work_budget.acquire()
            rest = self.answer(inbox.popleft())
            if rest is not None:
                await self._do(rest)
            if not inbox:
                self.emptied()
        self._inbox = None

    async def _do(self, rest: Rest) -> None:
        self._is_resting = True
        await rest()
        self._is_resting = False

    @property
    def is_full(self) -> bool:
        """Whether so many messages wait that no more are to be read."""
        inbox = self._inbox
        return inbox is not None and (len(inbox) > MOST_WAITING or sum(len(one.text) for one in inbox) > WAITING_BYTES)

    def emptied(self) -> None:
        """Hear that no message waits any more."""
