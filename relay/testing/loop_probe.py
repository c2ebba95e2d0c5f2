"""Measures how long the event loop stood still by its own doing."""

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

BEAT_S = 0.05
TICK_S = 0.01


class LoopProbe:
    """Feels the loop's pulse while it is entered; `longest_s` is the longest time that nothing else could run.

    Told by a thread that ticks beside the loop and by the CPU time that the loop used: a pause of the whole process,
    as on a machine with too much to do, is nobody's doing and counts little.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._ticks = 0
        self._ended = threading.Event()

    async def __aenter__(self) -> Self:
        self._thread = threading.Thread(target=self._tick, name="pulse", daemon=True)
        self._thread.start()
        self._task = asyncio.create_task(self._feel(), name="pulse")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._ended.set()
        # It ends at once, and the threads that could wait for it may all be held by a plugin.
        self._thread.join()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_S):
            self._ticks += 1

    async def _feel(self) -> None:
        while True:
            ticks, used_s = self._ticks, time.thread_time()
            await asyncio.sleep(BEAT_S)
            stood_s = max((self._ticks - ticks) * TICK_S, time.thread_time() - used_s) - BEAT_S
            self.longest_s = max(self.longest_s, stood_s)
