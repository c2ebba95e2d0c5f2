"""When frames that wait are written. Knows the event loop, but neither groups nor sockets."""

import asyncio
from collections.abc import Callable

QUIET_PART = 1 / 8
"""Of the window: so long nothing may come until a burst counts as over."""
LONGEST_PART = 1.2
"""Of the window: so long a burst is waited for at most."""
MANY_WRITES = 100
"""To write so many sockets twice costs about a millisecond; for fewer no burst is waited for."""
SURE, MOST_SURE = 2, 3


class FlushSchedule:
    """Calls `write` for what was noted, so that one write to each client carries as much as possible, and soon.

    Three rules. `flush_s` is the window, `flush_ms` of the configuration.

    1. The first update after a quiet moment is written at once: as soon as the event loop has made a turn that brought
       no further update. A burst that comes in one piece is read in several turns, and leaves whole.
    2. What follows within a window after a flush waits for the end of that window. So a client gets at most one write
       in a window, however many streams it has, and no update waits longer than a window.
    3. Some bursts come in many pieces: then the first write, of a few updates, goes to many clients who are written
       again a window later. When that happened at the last quiet moments, and many clients would be written, the next
       burst is waited for instead: until nothing has come for an eighth of a window, at most for 1.2 windows. One
       moment without such a burst costs an update an eighth of a window, and two of them end the waiting.

    What the window buys: a larger one makes fewer writes, and a write is most of what a client costs; a smaller one
    makes prices newer. 0 writes after each turn of the event loop. A quiet stream is never made later by it.
    `writes` tells how many sockets a flush would write now.
    """

    def __init__(self, flush_s: float, write: Callable[[], None], writes: Callable[[], int]) -> None:
        self._flush_s = flush_s
        self._write = write
        self._writes = writes
        self._handle: asyncio.Handle | None = None
        self._noted = 0
        self._first_at = 0.0
        self._flushed_at = float("-inf")
        self._splits = 0
        self._is_judged = True
        self._is_busy = False
        self._began_at = 0.0

    def note(self) -> None:
        """Learn of one frame more that waits. Never calls `write` itself."""
        self._noted += 1
        if self._handle is None and not self._is_busy:
            self._plan()

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        self._first_at = now = loop.time()
        due = self._flushed_at + self._flush_s
        is_quiet = now >= due
        if not self._is_judged:
            self._judge(is_split=not is_quiet)
        if is_quiet:
            self._handle = loop.call_soon(self._await_turn, -1, True)
        else:
            self._handle = loop.call_at(due, self._await_turn, -1, False)

    def _judge(self, *, is_split: bool) -> None:
        """Remember whether more followed right after a quiet moment."""
        self._is_judged = True
        self._splits = min(self._splits + 1, MOST_SURE) if is_split else max(self._splits - 1, 0)

    def _await_turn(self, seen: int, is_first: bool) -> None:
        """Write as soon as a turn of the loop brings nothing more."""
        loop = asyncio.get_running_loop()
        noted = self._noted
        if noted != seen and loop.time() < self._first_at + self._flush_s:
            self._handle = loop.call_soon(self._await_turn, noted, is_first)
        elif is_first and self._splits >= SURE and self._writes() >= MANY_WRITES:
            self._handle = loop.call_later(self._flush_s * QUIET_PART, self._await_burst, noted, noted)
        else:
            self._is_judged = not is_first
            self._write_now()

    def _await_burst(self, seen: int, begun: int) -> None:
        """Write as soon as a burst seems over, or takes too long."""
        loop = asyncio.get_running_loop()
        noted, pause_s = self._noted, self._flush_s * QUIET_PART
        if noted != seen and loop.time() + pause_s <= self._first_at + self._flush_s * LONGEST_PART:
            self._handle = loop.call_later(pause_s, self._await_burst, noted, begun)
        else:
            self._is_judged = False
            if noted != begun:
                self._judge(is_split=True)
            self._write_now()

    def _write_now(self) -> None:
        self._handle = None
        self._write()

    def begin(self) -> None:
        """Learn that what waits is being written, by whomever; until `finish` nothing else is planned."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._is_busy = True
        self._began_at = asyncio.get_running_loop().time()

    def finish(self, *, is_more: bool) -> float:
        """Learn that it is written, and whether more came meanwhile; return for how long the first of it waited."""
        self._flushed_at = asyncio.get_running_loop().time()
        self._is_busy = False
        waited_s = self._flushed_at - self._first_at
        if is_more:
            self._plan()
            # When exactly it came nobody knows.
            self._first_at = self._began_at
        return waited_s

    def close(self) -> None:
        """Write nothing any more."""
        self._is_busy = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
