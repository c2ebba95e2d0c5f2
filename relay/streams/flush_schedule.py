"""When frames that wait are written. Knows the event loop, but neither groups nor sockets."""

import asyncio
from collections.abc import Callable

from relay.core.intake import Intake

QUIET_PART = 1 / 8
"""Of the window: so long nothing may come until a burst counts as over."""
LONGEST_PART = 1.2
"""Of the window: so long a burst is waited for at most."""
READ_PART = 0.2
"""Of the window: so long updates are waited with at most while those are read that came after them."""
MANY_WRITES = 100
"""To write so many sockets twice costs about a millisecond; for fewer no burst is waited for."""
SURE, MOST_SURE = 2, 3
READ_TURNS = 6
"""So many turns of the event loop may bring nothing while something is on its way from a socket to here: to read it, to
cut a slice, to wake the feed, which gives way twice now and then, and to see that it brought an update."""


class FlushSchedule:
    """Calls `write` for what was noted, so that one write to each client carries as much as possible, and soon.

    Three rules. `flush_s` is the window, `flush_ms` of the configuration.

    1. The first update after a quiet moment is written at once: as soon as the event loop has made a turn that brought
       no further update. A burst that comes in one piece is read in several turns, and leaves whole.
    2. What follows within a window after a flush waits for the end of that window. So a client gets at most one write
       in a window, however many streams it has, and no update waits longer than a window, and what takes to read the
       last ones.
    3. Some bursts come in many pieces: then the first write, of a few updates, goes to many clients who are written
       again a window later. When that happened at the last quiet moments, and many clients would be written, the next
       burst is waited for instead: until nothing has come for an eighth of a window, at most for 1.2 windows. One
       moment without such a burst costs an update an eighth of a window, and two of them end the waiting.

    While one update waits the `intake` is held: what comes after it is read in one go, when it can be written. Whether
    a burst is over is seen by what the kernel has of it.

    What the window buys: a larger one makes fewer writes, and a write is most of what a client costs; a smaller one
    makes prices newer. 0 writes after each turn of the event loop. A quiet stream is never made later by it.
    `writes` tells how many sockets a flush would write now.
    """

    def __init__(
        self, flush_s: float, write: Callable[[], None], writes: Callable[[], int], intake: Intake | None = None
    ) -> None:
        self._flush_s = flush_s
        self._write = write
        self._writes = writes
        self._intake = intake or Intake()
        self._handle: asyncio.Handle | None = None
        self._noted = 0
        self._first_at = 0.0
        self._flushed_at = float("-inf")
        # Of a burst that is waited for: what had come when it was seen to begin, and at the last look.
        self._begun = 0
        self._looked = (0, 0)
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
            self._handle = loop.call_soon(self._await_quiet, -1, 1, 1, now + self._flush_s, self._on_first)
        else:
            self._intake.hold()
            self._handle = loop.call_at(due, self._read, self._on_due)

    def _judge(self, *, is_split: bool) -> None:
        """Remember whether more followed right after a quiet moment."""
        self._is_judged = True
        self._splits = min(self._splits + 1, MOST_SURE) if is_split else max(self._splits - 1, 0)

    def _read(self, then: Callable[[], None]) -> None:
        """Let in what came while the intake was held, and go on when it is here."""
        turns, latest = 1, self._first_at + self._flush_s
        if self._intake.release():
            turns, latest = READ_TURNS, asyncio.get_running_loop().time() + READ_PART * self._flush_s
        self._await_quiet(-1, turns, turns, latest, then)

    def _await_quiet(self, seen: int, left: int, turns: int, latest: float, then: Callable[[], None]) -> None:
        """Go on as soon as so many turns of the loop bring nothing more; `left` are those that are still to come."""
        loop, noted = asyncio.get_running_loop(), self._noted
        left = left - 1 if noted == seen else turns
        if left > 0 and loop.time() < latest:
            self._handle = loop.call_soon(self._await_quiet, noted, left, turns, latest, then)
        else:
            then()

    def _on_due(self) -> None:
        self._is_judged = True
        self._write_now()

    def _on_first(self) -> None:
        self._begun = self._noted
        if self._splits >= SURE and self._writes() >= MANY_WRITES:
            self._intake.hold()
            self._wait_for_more()
        else:
            self._is_judged = False
            self._write_now()

    def _wait_for_more(self) -> None:
        self._looked = self._noted, self._intake.unread_bytes()
        self._handle = asyncio.get_running_loop().call_later(self._flush_s * QUIET_PART, self._look)

    def _look(self) -> None:
        """Read the rest as soon as a burst seems over, or takes too long."""
        latest = self._first_at + self._flush_s * (LONGEST_PART - QUIET_PART)
        if asyncio.get_running_loop().time() <= latest and self._looked != (self._noted, self._intake.unread_bytes()):
            self._wait_for_more()
        else:
            self._read(self._on_over)

    def _on_over(self) -> None:
        self._is_judged = False
        if self._noted != self._begun:
            self._judge(is_split=True)
        self._write_now()

    def _write_now(self) -> None:
        self._handle = None
        self._write()

    def begin(self) -> None:
        """Learn that what waits is being written, by whomever; until `finish` nothing else is planned."""
        self._let_go()
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

    def _let_go(self) -> None:
        """Plan nothing any more."""
        self._intake.release()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def close(self) -> None:
        """Write nothing any more."""
        self._is_busy = True
        self._let_go()
