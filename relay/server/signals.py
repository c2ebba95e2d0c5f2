"""What signals ask of the relay is done, whatever happens to the event loop or to the handlers meanwhile."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from relay.telemetry.events import event
from relay.telemetry.loop_monitor import place_of

log = logging.getLogger(__name__)

END_WITHIN_S = 40.0
"""So long after the first signal that ends it the process is ended by force; else it takes half a minute at most."""
CHECK_S = 1.0


class Signals:
    """Calls functions in the running loop when signals come, while it is entered in the main thread.

    The handlers are Python's and not the loop's: a loop that is ended in every round loses signals. One that somebody
    replaces is put back within `check_s`. After one of `ending` the process has `end_within_s`; then a thread ends it.
    """

    def __init__(
        self,
        calls: Mapping[signal.Signals, Callable[[], object]],
        ending: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
        *,
        end_within_s: float = END_WITHIN_S,
        check_s: float = CHECK_S,
    ) -> None:
        self._calls = calls
        self._ending = ending
        self._end_within_s = end_within_s
        self._check_s = check_s
        self._before: dict[signal.Signals, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for number in self._calls:
            self._before[number] = signal.signal(number, self._came)
        self._check = self._loop.call_later(self._check_s, self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._check.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for number, before in self._before.items():
            signal.signal(number, before)

    def _came(self, number: int, frame: FrameType | None) -> None:
        came = signal.Signals(number)
        if came in self._ending and self._timer is None:
            self._timer = threading.Timer(self._end_within_s, self._end)
            self._timer.daemon = True
            self._timer.start()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._calls[came])

    def _keep(self) -> None:
        for number in self._calls:
            if signal.getsignal(number) != self._came:
                signal.signal(number, self._came)
                about = event("signal_taken", signal=number.name)
                log.error(
                    "a plugin replaced the handler of %s, which belongs to the relay; the relay has restored it",
                    number.name,
                    extra=about,
                )
        self._check = self._loop.call_later(self._check_s, self._keep)

    def _end(self) -> None:
        """Runs in a thread."""
        innermost = sys._current_frames().get(threading.main_thread().ident or 0)
        place = None if innermost is None else place_of(innermost, lambda file: None)
        about = event("ended_by_force", place=str(place))
        where = "the event loop waits" if place is None else f"it is in {place}"
        log.error(
            "the relay did not end within %g s after the signal: %s; it is ended by force",
            self._end_within_s,
            where,
            extra=about,
        )
        logging.shutdown()
        os._exit(1)
