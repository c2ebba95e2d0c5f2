"""How one connection ends: who closes it, with which code, when it is cut, and what has to be let go of before."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from relay.core.errors import CloseCode
from relay.protocol import frames
from relay.web.inlet import FORGOTTEN_BYTES, LINGER_S

NORMAL = 1000
"""The code that answers the close frame of a client, whatever it holds."""
CLOSE_TIMEOUT_S = 2.0
SAID_WHY: dict[int, tuple[str, int]] = {
    CloseCode.TOO_BIG: ("message too big", FORGOTTEN_BYTES),
    CloseCode.RATE_LIMITED: ("rate limited", 0),
}
"""Why this end closes while there is more to read, and how many bytes of it are read and forgotten."""


class EndingConnection(ABC):
    """A connection and the tasks that work for it; it is `gone` when it is lost and they have ended."""

    __slots__ = ("_abort_timer", "_client_code", "_end_code", "_is_ended", "_is_lost", "_tasks", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._tasks: dict[asyncio.Task[None], None] | None = None
        self._is_ended = False
        self._is_lost = False
        self._end_code: int | None = None
        self._client_code: int | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def ending(self) -> tuple[str, int]:
        """Who ended the connection, `relay` or `client`, and with which close code; 1006 is none."""
        if self._end_code is not None:
            return "relay", self._end_code
        return "client", 1006 if self._client_code is None else self._client_code

    # -- what others do ----------------------------------------------------------------------------

    @abstractmethod
    def leave_streams(self) -> None:
        """Have nothing more sent. Harmless when that was done already."""

    @abstractmethod
    def gone(self) -> None:
        """Hear that it is over."""

    @abstractmethod
    def forget(self, most: int) -> None:
        """Read and forget at most so many bytes, and hand on nothing more."""

    def goodbye(self, code: int, reason: str) -> bytes:
        """Return what says last why the connection ends."""
        return frames.close_frame(code, reason)

    # -- tasks -------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have a task work for this connection; it is cancelled when that is lost."""
        task = asyncio.create_task(work)
        if self._tasks is None:
            self._tasks = {}
        self._tasks[task] = None
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        assert self._tasks is not None
        del self._tasks[task]
        if not self._tasks:
            self._tasks = None
            if self._is_lost:
                self.gone()

    # -- the end -----------------------------------------------------------------------------------

    def end(self, code: CloseCode, reason: str, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send the close frame and nothing after it; a client that does not answer it in time is cut off."""
        if not self._is_ended:
            self._end_code = int(code)
            self._close_with(code, reason)
            self._set_timer(timeout_s, self._transport.abort)

    def hurry(self) -> None:
        """Have an end that is under way take no longer than that of a client that reads."""
        if not self._is_lost:
            self._set_timer(CLOSE_TIMEOUT_S, self._transport.abort)

    def leave(self) -> None:
        """Close: the client wants to go, or has answered the close frame."""
        self._close_with(NORMAL, "")
        self._close()

    def fail(self, code: int) -> None:
        """Close because of what came, after a moment: to close at once while more is on its way resets the connection.

        Then the client would not see the reason.
        """
        if self._end_code is None:
            self._end_code = code
        is_first = not self._is_ended and not self._transport.is_closing()
        reason, most = SAID_WHY.get(code, ("", FORGOTTEN_BYTES))
        self._close_with(code, reason)
        if is_first:
            self.forget(most)
            self._set_timer(LINGER_S, self._close)
        else:
            self._close()

    def _close_with(self, code: int, reason: str) -> None:
        """Send the close frame, if none was sent, and nothing after it."""
        if not self._is_ended:
            self._is_ended = True
            self.leave_streams()
            if not self._transport.is_closing():
                self._transport.write(self.goodbye(code, reason))

    def _close(self) -> None:
        """Close the connection; what the client does not read must not keep it open for ever."""
        self._set_timer(CLOSE_TIMEOUT_S, self._transport.abort)
        self._transport.close()

    def _set_timer(self, after_s: float, do: Callable[[], None]) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._abort_timer = asyncio.get_running_loop().call_later(after_s, do)

    def lose(self) -> None:
        """Let go of everything: the client is gone. Harmless when it was lost already."""
        if self._is_lost:
            return
        self._is_lost = self._is_ended = True
        self.leave_streams()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._tasks is None:
            self.gone()
        else:
            for task in self._tasks:
                task.cancel()
