"""Log lines on their way to a file descriptor: a thread writes them, so that nobody waits for who reads them."""

import os
import select
import threading
from collections import deque
from collections.abc import Callable

MOST_BYTES = 1024 * 1024
"""So much waits at most while nothing can be written; later lines are lost, and counted."""


class LineWriter:
    """Writes lines to `number` in their order. Who reads there may stop reading, for ever: only the thread waits then.

    `on_lost` is called in the thread, once it can write again, with how many lines there was no room for.
    """

    def __init__(self, number: int, on_lost: Callable[[int], None], *, most_bytes: int = MOST_BYTES) -> None:
        self._number = number
        self._on_lost = on_lost
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0  # what is being written counts until it is
        self._lost = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """Write a line soon; never waits."""
        with self._changed:
            if self._waiting_bytes + len(line) > self._most_bytes:
                self._lost += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify_all()
            if self._thread is None:
                # A daemon: the process does not wait for it where nobody reads.
                self._thread = threading.Thread(target=self._run, name="log lines", daemon=True)
                self._thread.start()

    def drain(self, within_s: float) -> None:
        """Wait until all is written, for some time only."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting_bytes, within_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                data = b"".join(self._lines)
                self._lines.clear()
            self._write(data)
            with self._changed:
                self._waiting_bytes -= len(data)
                lost, self._lost = self._lost, 0
                self._changed.notify_all()
            if lost:
                self._on_lost(lost)

    def _write(self, data: bytes) -> None:
        """Write to the descriptor itself: Python waits at its end for a file object that a thread writes to."""
        while data:
            try:
                data = data[os.write(self._number, data) :]
            except BlockingIOError:
                # Who started the process made it so.
                select.select([], [self._number], [])
            except OSError:
                # Nobody is there.
                return
