"""What one run of the conformance check knows and finds: faults, tasks and connections left behind, log lines."""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from relay.core.model import Instrument, PriceUpdate, StreamKey
from relay.core.secret import Secret
from relay.plugins.provider import Provider
from relay.telemetry.loop_monitor import LoopMonitor
from relay.testing.tolerances import Tolerances
from relay.testing.watched_feed import WatchedFeed
from relay.testing.watched_session import WatchedSession

BEAT_S, TICK_S = 0.05, 0.01
_HOST_LOGS = ("relay.plugins.loader", "relay.plugins.provider", "relay.plugins.cancellation")


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


class CheckRun:
    """One run of all checks on one provider."""

    def __init__(
        self,
        provider: Provider,
        session: WatchedSession,
        key: StreamKey,
        other: StreamKey | None,
        unknown_symbol: str,
        timeout_s: float,
        survives_loss: bool,
        tolerances: Tolerances,
    ) -> None:
        self.provider = provider
        self.session = session
        self.key = key
        self.other = other
        self.unknown = StreamKey(unknown_symbol, key.interval)
        self.timeout_s = timeout_s
        self.survives_loss = survives_loss
        self.tolerances = tolerances
        self.faults: list[str] = []
        self.checked: list[str] = []
        self.unchecked: list[str] = []
        self.instruments: Sequence[Instrument] = ()
        self.newest: PriceUpdate | None = None
        self.second: StreamKey | None = None
        self.updates_per_cpu_s: float | None = None
        self.texts: list[str] = []
        self._made: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def blame(self, fault: str) -> None:
        """Note what is wrong, once."""
        fault = self.provider.conceal(fault)
        if fault not in self.faults:
            self.faults.append(fault)

    def feed(self, *keys: StreamKey) -> WatchedFeed:
        """Return a feed of these streams, not yet running."""
        return WatchedFeed(self.provider, keys, end_s=self.tolerances.end_s)

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
        """Blame tasks that still run and connections that are still open after a part of the check, and end them."""
        # By turns, not by a clock: after a pause of the machine they still have time.
        turns = iter(range(round(self.tolerances.settle_s / 0.01)))
        while left := [task for task in self._made if not task.done()]:
            if next(turns, None) is None:
                names = ", ".join(sorted(task.get_name() for task in left))
                self.blame(f"{name}: left {len(left)} tasks running ({names[:200]}); end every task that you create")
                for task in left:
                    await self.provider.end_feed(task)
                break
            await asyncio.sleep(0.01)
        if self.session.closed:
            self.blame(f"{name}: closed the session, which belongs to the relay")
        while held := self.session.held:
            if next(turns, None) is None:
                self.blame(f"{name}: left {len(held)} connections open; use `async with` for answers and sockets")
                break
            await asyncio.sleep(0.01)

    def _judge(self, lines: _Lines, blocked_s: float) -> None:
        if blocked_s > self.tolerances.blocked_s:
            self.blame(f"blocked the event loop for {blocked_s:.1f} s: nothing else runs in that time")
        for record in lines.records:
            message = record.getMessage()
            if record.name in _HOST_LOGS and record.levelno >= logging.WARNING:
                self.blame(message.splitlines()[0])
        everything = "\n".join([lines.text(), *self.texts])
        for name, value in self.provider.settings.items():
            if isinstance(value, Secret) and value and value.reveal() in everything:
                self.blame(f"the secret {name} shows in a log line or in a text that clients see")
