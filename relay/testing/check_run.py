"""What one run of the conformance check knows and finds: faults, tasks and connections left behind, log lines."""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, NamedTuple

from relay.core.counted import counted
from relay.core.intervals import length_s
from relay.core.model import Candle, Instrument, PriceUpdate, StreamKey
from relay.core.secret import Secret
from relay.plugins.provider import Provider
from relay.telemetry.loop_monitor import LoopMonitor
from relay.testing.findings import FaultName, Finding
from relay.testing.tolerances import Tolerances
from relay.testing.watched_feed import WatchedFeed
from relay.testing.watched_session import WatchedSession

BEAT_S, TICK_S = 0.05, 0.01
"""A loop that is blocked just after a beat is measured as blocked for up to `BEAT_S` less."""
_HOST_LOGS = tuple(
    f"relay.plugins.{name}"
    for name in (
        "loader",
        "provider",
        "provider_session",
        "judged_instruments",
        "cancellation",
        "failure_judge",
        "settings_use",
    )
)
_NO_FAULTS = frozenset({"history_failed"})
"""Events of the host about what the venue refused."""


class _Lines(logging.Handler):
    """Keeps what is logged: the host says there what it had to mend."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def text(self) -> str:
        formatter = logging.Formatter()
        return "\n".join(map(formatter.format, self.records))


# A task inherits it from whoever creates it.
_running: ContextVar["CheckRun | None"] = ContextVar("_running", default=None)


_MOST_ALIKE = 3
_INVALID = frozenset({FaultName.UNSOUND_CANDLE, FaultName.TIME_UNIT, FaultName.WRONG_OPEN_TIME})


class CheckPlan(NamedTuple):
    """What an author asks the check to do, as `check_provider` explains it."""

    key: StreamKey
    other: StreamKey | None
    unknown: StreamKey
    timeout_s: float
    watch_s: float
    survives_loss: bool
    intervals: Sequence[str] | None
    expected: Mapping[StreamKey, Sequence[Candle]]
    tolerances: Tolerances


class CheckRun:
    """One run of all checks on one provider."""

    def __init__(self, provider: Provider, session: WatchedSession, plan: CheckPlan) -> None:
        self.provider = provider
        self.session = session
        self.plan = plan
        self.key = plan.key
        self.unknown = plan.unknown
        self.timeout_s = plan.timeout_s
        self.tolerances = plan.tolerances
        self.findings: list[Finding] = []
        self.checked: list[str] = []
        self.unchecked: list[str] = []
        self.instruments: Sequence[Instrument] = ()
        self.newest: PriceUpdate | None = None
        self.second: StreamKey | None = None
        self.watched: WatchedFeed | None = None
        self.at_grace: Candle | None = None
        self.rest = ""
        """Why no updates can be expected of the stream; empty if they can."""
        self.updates_per_cpu_s: float | None = None
        self.texts: list[str] = []
        self._made: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def blame(self, fault: FaultName, seen: str, expected: str = "", example: str = "") -> None:
        """Note what is wrong, once; of one kind not more than a few."""
        self.take(Finding(fault, seen, expected, example))

    def take(self, finding: Finding) -> None:
        """Note a finding, once; of one kind not more than a few."""
        conceal = self.provider.conceal
        told = finding._replace(
            seen=conceal(finding.seen), expected=conceal(finding.expected), example=conceal(finding.example)
        )
        if told not in self.findings and sum(one.fault is told.fault for one in self.findings) < _MOST_ALIKE:
            self.findings.append(told)

    @property
    def has_invalid_candles(self) -> bool:
        """Whether candles were blamed that are left out of what follows."""
        return any(finding.fault in _INVALID for finding in self.findings)

    def leave_out(self, part: str, why: str) -> None:
        """Note that a part cannot be checked, why, and what would make it possible."""
        self.unchecked.append(f"{part}: {why}")

    def intervals(self) -> list[str]:
        """Return the intervals of the symbol that are to be checked, the shortest first."""
        own = next((one.intervals for one in self.instruments if one.symbol == self.key.symbol), None)
        found = own or self.provider.info.intervals
        if self.plan.intervals is not None:
            found = tuple(name for name in found if name in self.plan.intervals or name == self.key.interval)
        return sorted(found, key=length_s)

    def closing_streams(self, keys: Sequence[StreamKey]) -> list[StreamKey]:
        """Return the streams of which three candles fit into the time of watching; none longer than asked for."""
        fitting = [key for key in keys if 3 * length_s(key.interval) <= self.plan.watch_s]
        most_s = max(length_s(self.key.interval), min((length_s(key.interval) for key in fitting), default=0))
        return [key for key in fitting if length_s(key.interval) <= most_s]

    def patience_s(self) -> float:
        """Return how long to wait for a further update: the stream may be quiet for as long as it was before."""
        if self.watched is None:
            return self.timeout_s
        moments = [one.at for one in self.watched.arrivals if one.update.key == self.key]
        return max([self.timeout_s, *(2 * (b - a) for a, b in pairwise(moments))])

    def feed(self, *keys: StreamKey) -> WatchedFeed:
        """Return a feed of these streams, not yet running."""
        return WatchedFeed(self.provider, keys, tolerances=self.tolerances)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch tasks, log lines and the loop; judge log lines and how long the loop was blocked at the end."""
        lines = _Lines()
        logger = logging.getLogger()
        logger.addHandler(lines)
        async with LoopMonitor(beat_s=BEAT_S, tick_s=TICK_S) as loop_monitor:
            token = _running.set(self)
            loop = asyncio.get_running_loop()
            factory = loop.get_task_factory()
            loop.set_task_factory(self._task_factory(factory))
            try:
                yield
            finally:
                loop.set_task_factory(factory)
                _running.reset(token)
                logger.removeHandler(lines)
        self._judge(lines, loop_monitor.longest_blocked_s)

    def _task_factory(self, inner: Any) -> Any:
        """Remember the tasks that come from the check and the provider; a stand-in in the same loop has its own."""

        def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> Any:
            task = inner(loop, work, **options) if inner else asyncio.Task(work, loop=loop, **options)
            if _running.get() is self:
                self._made.add(task)
            return task

        return make

    async def look_for_leftovers(self, name: str) -> None:
        """Blame tasks that still run and connections that are still open after a part of the check, and end them.

        A plugin with `relay_close` may keep tasks until that.
        """
        if not self.provider.keeps_clients:
            await self.look_for_left_tasks(name)
        if self.session.closed and not self.provider.is_closed:
            self.blame(FaultName.CLOSES_SESSION, f"{name}: closed the session, which belongs to the relay")
        turns = self._turns()
        while held := self.session.held:
            if next(turns, None) is None:
                self.blame(
                    FaultName.LEFTOVERS,
                    f"{name}: left {counted(len(held), 'connection')} open; use `async with` for answers and sockets",
                )
                break
            await asyncio.sleep(0.01)

    def _turns(self) -> Iterator[int]:
        # Not a clock: after a pause of the machine they still have time.
        return iter(range(round(self.tolerances.settle_s / 0.01)))

    async def look_for_left_tasks(self, name: str = "relay_close") -> None:
        """Blame tasks that still run after a part of the check, and end them."""
        turns = self._turns()
        while left := [task for task in self._made if not task.done()]:
            if next(turns, None) is None:
                names = ", ".join(sorted(task.get_name() for task in left))
                self.blame(
                    FaultName.LEFTOVERS,
                    f"{name}: left {len(left)} tasks running ({names[:200]}); end every task that you create",
                )
                for task in left:
                    await self.provider.end_feed(task)
                break
            await asyncio.sleep(0.01)

    def _judge(self, lines: _Lines, blocked_s: float) -> None:
        if blocked_s > self.tolerances.blocked_s:
            self.blame(
                FaultName.BLOCKS_LOOP, f"blocked the event loop for {blocked_s:.1f} s: nothing else runs in that time"
            )
        for record in lines.records:
            message = record.getMessage()
            if getattr(record, "fields", {}).get("event") in _NO_FAULTS:
                continue
            if record.name in _HOST_LOGS and record.levelno >= logging.WARNING:
                self.blame(_fault_of_line(message), message.splitlines()[0])
        everything = "\n".join([lines.text(), *self.texts])
        for name, value in self.provider.settings.items():
            if isinstance(value, Secret) and value and value.reveal() in everything:
                self.blame(
                    FaultName.LEAKS_SECRET, f"the secret {name} shows in a log line or in a text that clients see"
                )


def _fault_of_line(message: str) -> FaultName:
    """Return the name for what the host had to mend, by its log line."""
    if "invalid instruments" in message:
        return FaultName.WRONG_INSTRUMENTS
    if "closed its session" in message:
        return FaultName.CLOSES_SESSION
    return FaultName.DOES_NOT_END if "did not end" in message or "killed" in message else FaultName.HOOK_FAILS
