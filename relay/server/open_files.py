"""How many files the process may have open, connections included; what is done and said about it."""

import asyncio
import errno
import logging
import os
import sys
from types import TracebackType
from typing import Self

from relay.telemetry.events import event

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

LOOK_S = 2.0
QUIET_S = 60.0
"""After one line there is none for so long, however often descriptors run out meanwhile."""
OTHERS = 256
"""For the database, upstreams and pages, beside the WebSocket clients. Our own choice."""
_USED_UP = (errno.EMFILE, errno.ENFILE)


def raise_limit() -> int | None:
    """Let the process open as many files as the system allows, and return how many; None where nobody can say."""
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (ValueError, OSError):
        pass  # macOS says that there is no limit and refuses to have none.
    return None if soft == resource.RLIM_INFINITY else soft


class DescriptorWatch:
    """While it is entered, running out of descriptors is one line in the log.

    The event loop does not tell: it lets connections wait, or closes them as they come.
    """

    def __init__(self, max_clients: int, *, look_s: float = LOOK_S, quiet_s: float = QUIET_S) -> None:
        self._max_clients = max_clients
        self._look_s, self._quiet_s = look_s, quiet_s
        self._told_at = -quiet_s
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._limit = raise_limit()
        if self._limit is not None and self._limit < self._max_clients + OTHERS:
            log.warning(
                "max_clients is %d, and the system lets this process open %d files, connections included; raise that "
                "(ulimit -Hn, LimitNOFILE= of systemd) or lower max_clients",
                self._max_clients,
                self._limit,
                extra=event("open_files_limited", limit=self._limit),
            )
        self._loop = asyncio.get_running_loop()
        self._look()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._look_s, self._look)
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno in _USED_UP and self._loop.time() - self._told_at >= self._quiet_s:
                self._told_at = self._loop.time()
                log.error(
                    "this process has reached its limit of open files (%s): it cannot open files or accept connections",
                    self._limit or error.strerror,
                    extra=event("open_files_used_up", limit=self._limit),
                )
