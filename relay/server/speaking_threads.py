"""Threads of plugins say whose lines they log: Python hands what a task knows on to no thread that is started in it."""

import threading
from collections.abc import Callable
from typing import Self

from relay.telemetry.events import SPEAKER


class SpeakingThreads:
    """While it is entered, what a plugin runs in threads that it starts, or in those of a pool, is its own."""

    def __enter__(self) -> Self:
        self._before = threading.Thread.start
        threading.Thread.start = _start_for(self._before)  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        threading.Thread.start = self._before  # type: ignore[method-assign]


def _start_for(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    def speaking_start(thread: threading.Thread) -> None:
        speaker, run = SPEAKER.get(), thread.run

        def speaking_run() -> None:
            # Or the thread would hold itself.
            vars(thread).pop("run", None)
            SPEAKER.set(speaker)
            run()

        if speaker is not None:
            thread.run = speaking_run  # type: ignore[method-assign]
        start(thread)

    return speaking_start
