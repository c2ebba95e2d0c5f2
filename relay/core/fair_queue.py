"""Whose call a provider gets next: live streams first, then the clients in turn; no I/O.

A provider's budgets are shared, too: a part is left to live streams, and no client has all of the rest.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from relay.core.errors import RateLimited
from relay.core.model import Budget

CLIENTS_SHARE = 0.8
"""Of a budget: once so much is used, by whomever, the rest is for live streams; providers may divide it themselves."""
ONE_CLIENTS_SHARE = 0.75
"""Of a budget: what one client may use of it."""
LEAST_SHARED = 4
"""Budgets of fewer units are not divided."""


class QueueTurn:
    """The place of one call in the queue; the call is made inside of `async with`.

    It waits in the queue of each client that waits for it (`clients`), and is made for the one whose turn comes first
    (`client`). `weight` is what it cost, in units of the first budget, where the caller knows that it is not what
    others cost.
    """

    __slots__ = ("_turns", "client", "clients", "go", "used", "weight")

    def __init__(self, turns: "FairQueue", client: str | None) -> None:
        self._turns = turns
        self.client = client
        self.clients = [] if client is None else [client]
        self.go: asyncio.Future[None] | None = None
        self.used: dict[str, int] = {}
        self.weight: int | None = None

    def hasten(self, client: str | None) -> None:
        """Let somebody else wait for the same call: it comes with the next turn of either.

        For a live stream it comes first from now on.
        """
        if client is None and self.client is not None:
            self._turns.move(self)
        elif client is not None and self.client is not None and client not in self.clients and not self._is_decided:
            self.clients.append(client)
            self._turns.share(self, client)

    @property
    def _is_decided(self) -> bool:
        return self.go is not None and self.go.done()

    async def __aenter__(self) -> Self:
        await self._turns.acquire(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.end(self)


class _Usage:
    # What clients spent of one budget until it is back to 0: calls, and the units of those that said what they weigh.
    def __init__(self, resets_at: float) -> None:
        self.resets_at = resets_at
        self.calls: Counter[str] = Counter()
        self.weighed: Counter[str] = Counter()


class FairQueue:
    """The calls to one provider: at most `most` at a time for clients, and as many again for live streams."""

    def __init__(
        self, most: int, budgets: Callable[[], Sequence[Budget]], wall: Callable[[], float] | None = None
    ) -> None:
        self._most = most
        self._budgets = budgets
        self._wall = wall or time.time
        self._running = 0
        self._live: deque[QueueTurn] = deque()
        self._queues: OrderedDict[str, deque[QueueTurn]] = OrderedDict()
        self._periods: dict[str, _Usage] = {}
        self._cost: dict[str, int] = {}

    def turn(self, client: str | None) -> QueueTurn:
        """Return a place for a call; None is a live stream."""
        return QueueTurn(self, client)

    async def acquire(self, turn: QueueTurn) -> None:
        """Wait until the call may be made. Raises `RateLimited` when its client had its share of a budget."""
        turn.go = asyncio.get_running_loop().create_future()
        if turn.client is None:
            self._live.append(turn)
        else:
            for client in turn.clients:
                self._queues.setdefault(client, deque()).append(turn)
        self._next()
        try:
            await turn.go
        except asyncio.CancelledError:
            if turn.go.done() and not turn.go.cancelled() and turn.go.exception() is None:
                self.end(turn)
            else:
                self._leave(turn)
            raise

    def end(self, turn: QueueTurn) -> None:
        """Let the next one go."""
        self._running -= 1
        for place, budget in enumerate(self._budgets()):
            if turn.weight is not None:
                if not place and turn.client is not None:
                    period = self._period(budget)
                    period.calls[turn.client] = max(0, period.calls[turn.client] - 1)
                    period.weighed[turn.client] += turn.weight
                continue
            # Other calls count into the difference as well, so the smallest one seen is what a call costs. A ban, in
            # which all is used, says nothing of it.
            spent = budget.used - turn.used.get(budget.name, budget.used)
            if spent > 0 and budget.used < budget.limit:
                self._cost[budget.name] = min(spent, self._cost.get(budget.name, spent))
        self._next()

    def move(self, turn: QueueTurn) -> None:
        """Put a call that still waits before those of all clients."""
        if turn.go is not None and not turn.go.done():
            self._leave(turn)
            self._live.append(turn)
        turn.client = None
        self._next()

    def share(self, turn: QueueTurn, client: str) -> None:
        """Let a call that still waits come in the turn of another client, too."""
        if turn.go is not None:
            self._queues.setdefault(client, deque()).append(turn)
            self._next()

    def _leave(self, turn: QueueTurn) -> None:
        if turn in self._live:
            self._live.remove(turn)
        for client in turn.clients:
            queue = self._queues.get(client)
            if queue is not None and turn in queue:
                queue.remove(turn)
                if not queue:
                    del self._queues[client]

    def _next(self) -> None:
        while self._live and self._running < 2 * self._most:
            self._start(self._live.popleft())
        while self._queues and self._running < self._most:
            client, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[client] = queue
            if turn.go is None or turn.go.done():
                # It is cancelled, and has not left yet.
                continue
            refusal = self._refusal(client)
            if refusal is None:
                turn.client = client
                self._leave(turn)
                self._start(turn)
            elif not any(turn in self._queues.get(other, ()) for other in turn.clients):
                turn.go.set_exception(refusal)

    def _start(self, turn: QueueTurn) -> None:
        if turn.go is None or turn.go.done():
            return
        self._running += 1
        turn.used = {budget.name: budget.used for budget in self._budgets()}
        turn.go.set_result(None)

    def _period(self, budget: Budget) -> _Usage:
        period = self._periods.get(budget.name)
        if period is None or self._wall() >= period.resets_at:
            period = self._periods[budget.name] = _Usage(budget.resets_at)
        return period

    def _refusal(self, client: str) -> RateLimited | None:
        """Count one more call of a client, or say why there is none for it now."""
        now = self._wall()
        periods = []
        for budget in self._budgets():
            period = self._period(budget)
            periods.append(period)
            if budget.limit < LEAST_SHARED:
                continue
            wait_s = max(1.0, budget.resets_at - now)
            if budget.reserved is None and budget.used >= CLIENTS_SHARE * budget.limit:
                is_spent = budget.used >= budget.limit  # a ban looks like this, too
                text = f"the {budget.name} is used up"
                rest = f"the rest of the {budget.name} is reserved for live streams"
                return RateLimited(text if is_spent else rest, wait_s)
            units = (period.calls[client] + 1) * self._cost.get(budget.name, 1) + period.weighed[client]
            # The first call is let go whatever it seems to cost: else nobody would learn that it costs less.
            if units > self._cost.get(budget.name, 1) and units > ONE_CLIENTS_SHARE * budget.limit:
                return RateLimited(f"one client may use at most {ONE_CLIENTS_SHARE:.0%} of the {budget.name}", wait_s)
        for period in periods:
            period.calls[client] += 1
        return None
