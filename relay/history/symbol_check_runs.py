"""Checks of symbols on their way: what they compare, how long they wait in between, and what follows."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.spans import FOREVER
from relay.history.aside_candles import AsideCandles
from relay.history.identity import UNKNOWN, Verdict
from relay.history.symbol_check import SymbolCheck
from relay.history.symbol_comparison import SymbolComparison, is_tight


class SymbolCheckRuns:
    """Runs checks, each in a task of its own; `on_over` gets those that have ended, `is_under_way` knows the others.

    `again_s` is the time between the two comparisons that have to show the same, `retry_s` that until one that showed
    nothing is made again, and for `patience_s` somebody may wait for the first. Those that are started in turn are
    `pace_s` apart.
    """

    def __init__(
        self,
        aside: AsideCandles,
        comparison: SymbolComparison,
        clock: Clock,
        *,
        on_changed: Callable[[str, str, int | None], None],
        on_over: Callable[[SymbolCheck], None],
        is_under_way: Callable[[SymbolCheck], bool],
        again_s: float,
        retry_s: tuple[float, float],
        patience_s: float,
        pace_s: float,
    ) -> None:
        self.again_s = again_s
        self._aside = aside
        self._comparison = comparison
        self._clock = clock
        self._on_changed = on_changed
        self._on_over = on_over
        self._is_under_way = is_under_way
        self._retry_s = retry_s
        self._patience_s = patience_s
        self._pace_s = pace_s
        self._turns: deque[SymbolCheck] = deque()
        self._turn_task: asyncio.Task[None] | None = None
        self._is_closed = False

    def start(self, check: SymbolCheck) -> None:
        """Run a check, unless it is under way or waits to be tried again."""
        is_under_way = check.task is not None and not check.task.done()
        if not is_under_way and not self._is_closed and self._clock.monotonic() >= check.retry_at:
            check.is_compared.clear()
            check.patience_ends = self._clock.monotonic() + self._patience_s
            name = f"identity of {check.source.name} {check.symbol}"
            check.task = asyncio.create_task(self._run(check), name=name)

    def start_in_turn(self, checks: Iterable[SymbolCheck]) -> None:
        """Run them one after the other, while their provider's budget has plenty left; who is asked for is first."""
        self._turns.extend(checks)
        if self._turn_task is None or self._turn_task.done():
            self._turn_task = asyncio.create_task(self._take_turns(), name="identities in turn")

    async def _take_turns(self) -> None:
        while self._turns:
            check = self._turns.popleft()
            while is_tight(check.source):  # noqa: ASYNC110 (a budget frees by time)
                await asyncio.sleep(self._pace_s)
            if self._is_under_way(check):
                self.start(check)
                await asyncio.sleep(self._pace_s)

    async def end_turns(self) -> None:
        """Forget whose turn has not come."""
        self._turns.clear()
        if self._turn_task is not None:
            self._turn_task.cancel()
            await asyncio.gather(self._turn_task, return_exceptions=True)

    def close(self) -> None:
        """Start no more checks."""
        self._is_closed = True

    async def _run(self, check: SymbolCheck) -> None:
        least_s, most_s = self._retry_s
        wait_s = least_s
        try:
            while True:
                if not check.is_aside:
                    check.is_compared.clear()
                verdict = await self._comparison.compare(check)
                try:
                    if verdict.is_same is not None:
                        if await self._follow(check, verdict):
                            self._on_over(check)
                            return
                    elif not check.is_faint:
                        await self._aside.take_away(check)
                except StoreError:
                    verdict = UNKNOWN
                if verdict.is_same is not None:
                    wait_s = least_s
                    pause_s = check.pause_s(self.again_s)
                else:
                    pause_s = wait_s
                    wait_s = min(2 * wait_s, most_s)
                    if check.is_faint:
                        check.retry_at = self._clock.monotonic() + pause_s
                        return
                check.is_compared.set()
                await asyncio.sleep(pause_s)
        finally:
            check.is_compared.set()

    async def _follow(self, check: SymbolCheck, verdict: Verdict) -> bool:
        """Do what a comparison asks for; return whether the check is over. Raises `StoreError`."""
        before = check.verdict
        # Where a provider's history begins later each time it only does not reach back so far.
        is_sliding = before is not None and (before.begins or FOREVER) < (verdict.begins or 0)
        if verdict.is_same or is_sliding:
            await self._aside.give_back(check)
            return True
        await self._aside.take_away(check)
        if before != verdict:
            check.verdict = verdict
            self._on_changed(*check.identity, check.changed_at if verdict.begins is None else verdict.begins)
            return False
        await self._aside.set_aside(check, verdict)
        return True
