"""The names in one client's requests that wait: for what a provider has, or behind an earlier one for the same stream.

What is asked of one stream is answered in order, and nothing else waits for that.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from relay.core.errors import RequestError
from relay.instruments.directory import Directory
from relay.protocol.client_requests import Request
from relay.web.work_budget import WorkBudget

MOST_WAITING = 200
"""So many names of one client wait at most; what it asks after that waits until one of them is answered."""


class WaitingName:
    """One name of a request of a `client`. `provider` is whose stream it means, as far as that is certain.

    `fault` is why nobody knows what it means.
    """

    __slots__ = (
        "_client",
        "_directory",
        "_on_settled",
        "_settling",
        "_target",
        "fault",
        "is_begun",
        "name",
        "provider",
        "request",
        "stream",
    )

    def __init__(
        self,
        directory: Directory,
        request: Request,
        name: tuple[str, str],
        target: tuple[str | None, str, str],
        client: str,
    ) -> None:
        self.request = request
        self.name = name
        self._client = client
        self._directory = directory
        self._target = target
        pin, symbol, interval = target
        self.provider, symbol = directory.holder(pin, symbol)
        self.stream = (symbol, interval)
        self.is_begun = False
        self.fault: BaseException | None = None
        self._settling: asyncio.Task[None] | None = None
        self._on_settled: Callable[[asyncio.Task[None]], None] | None = None

    def may_be(self, other: "WaitingName") -> bool:
        """Whether both may mean the same stream, if symbol and interval are the same."""
        return self.provider is None or other.provider is None or self.provider == other.provider

    def begin(self, on_due: Callable[["WaitingName"], None]) -> None:
        """Have it settled what it means, and say when that is done."""
        self.is_begun = True
        pin, symbol, interval = self._target
        if self.request.action == "unsubscribe" or self._directory.is_settled(pin, symbol):
            on_due(self)
            return
        try:
            self._settling = self._directory.settling(pin, symbol, self._client)
        except RequestError as error:
            error.symbol, error.interval = symbol if pin is None else f"{pin}:{symbol}", interval
            self.fault = error
            on_due(self)
            return
        self._on_settled = partial(self._settle, on_due)
        self._settling.add_done_callback(self._on_settled)

    def _settle(self, on_due: Callable[["WaitingName"], None], settling: asyncio.Task[None]) -> None:
        self._settling = None
        if not settling.cancelled():
            self.fault = settling.exception()
            on_due(self)

    def close(self) -> None:
        """Wait no longer."""
        if self._settling is not None and self._on_settled is not None:
            self._settling.remove_done_callback(self._on_settled)


class WaitingClient(Protocol):
    """Whose names they are: `answer_due` does what is left of one once nothing has to be waited for.

    `none_waits` is called when the last one is answered.
    """

    def spawn(self, work: Coroutine[Any, Any, None]) -> object: ...

    def answer_due(self, waiting: WaitingName) -> None: ...

    def none_waits(self) -> None: ...


class WaitingNames:
    """Begins each name when no earlier one of the same stream waits, and has those that are due answered in turn."""

    def __init__(self, client: WaitingClient, work_budget: WorkBudget) -> None:
        self._client = client
        self._work_budget = work_budget
        self._of_stream: dict[tuple[str, str], list[WaitingName]] = {}
        self._count = 0
        self._due: deque[WaitingName] = deque()
        self._is_answering = False
        self._has_room = asyncio.Event()

    def is_behind(self, waiting: WaitingName) -> bool:
        """Whether one that came before has to be answered first."""
        return any(map(waiting.may_be, self._of_stream.get(waiting.stream, ())))

    def add(self, waiting: WaitingName) -> bool:
        """Let a name wait; return False if there is no room for it."""
        if self._count >= MOST_WAITING:
            return False
        self._count += 1
        self._of_stream.setdefault(waiting.stream, []).append(waiting)
        self._begin_next(waiting.stream)
        return True

    async def room(self) -> None:
        """Wait until one of them is answered."""
        self._has_room.clear()
        await self._has_room.wait()

    def close(self) -> None:
        """Let go of all of them: the client is gone."""
        for names in self._of_stream.values():
            for one in names:
                one.close()
        self._of_stream.clear()
        self._due.clear()
        self._count = 0
        self._has_room.set()

    def _begin_next(self, stream: tuple[str, str]) -> None:
        """Begin those of a stream that none is before."""
        names = self._of_stream.get(stream, [])
        for number, one in enumerate(names):
            if not (one.is_begun or any(map(one.may_be, names[:number]))):
                one.begin(self._on_due)

    def _on_due(self, one: WaitingName) -> None:
        self._due.append(one)
        if not self._is_answering:
            self._is_answering = True
            self._client.spawn(self._answer())

    async def _answer(self) -> None:
        while self._due:
            await self._work_budget.acquire()
            if not self._due:
                break
            one = self._due.popleft()
            self._client.answer_due(one)
            if one.stream in self._of_stream:
                self._forget(one)
        self._is_answering = False
        if not self._count:
            self._client.none_waits()

    def _forget(self, one: WaitingName) -> None:
        names = self._of_stream[one.stream]
        names.remove(one)
        if not names:
            del self._of_stream[one.stream]
        self._count -= 1
        self._has_room.set()
        self._begin_next(one.stream)
