"""What programs ask for again and again: something begins for it, and ends some time after the last request."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

MOST_SEEN = 4096

_Asked = TypeVar("_Asked")

End = Callable[[], None]
"""Ends what was begun for what is asked again and again."""


class _Poll:
    # When it was asked for last, for how long that keeps it, and what ends it.
    __slots__ = ("asked_at", "end", "kept_s", "timer")

    def __init__(self, asked_at: float, kept_s: float) -> None:
        self.asked_at = asked_at
        self.kept_s = kept_s
        self.end: End | None = None
        self.timer: asyncio.TimerHandle | None = None


class Polls(Generic[_Asked]):
    """Knows what is polled: what is asked for a second time within some seconds, until so long after the last time."""

    def __init__(self) -> None:
        self._polls: OrderedDict[_Asked, _Poll] = OrderedDict()

    def note(self, asked: _Asked, kept_s: float, begin: Callable[[], End | None]) -> bool:
        """Note a request; `begin` with the second one within `kept_s`. Return whether something is begun for it.

        `begin` returns what ends it, None if it cannot begin now: then the next request tries again.
        """
        now = asyncio.get_running_loop().time()
        poll = self._polls.get(asked)
        if poll is None:
            self._polls[asked] = _Poll(now, kept_s)
            while len(self._polls) > MOST_SEEN:
                _, oldest = self._polls.popitem(last=False)
                _end(oldest)
            return False
        self._polls.move_to_end(asked)
        is_again = now - poll.asked_at <= poll.kept_s
        poll.asked_at = now
        if poll.end is None and is_again:
            poll.end = begin()
            if poll.end is not None:
                self._plan(asked, poll, kept_s)
        return poll.end is not None

    def touch(self, asked: _Asked) -> None:
        """Note that somebody was given an answer again."""
        poll = self._polls.get(asked)
        if poll is not None:
            poll.asked_at = asyncio.get_running_loop().time()

    def _plan(self, asked: _Asked, poll: _Poll, after_s: float) -> None:
        poll.timer = asyncio.get_running_loop().call_later(after_s, self._look, asked, poll)

    def _look(self, asked: _Asked, poll: _Poll) -> None:
        """Let go of what nobody asked for lately."""
        poll.timer = None
        left_s = poll.asked_at + poll.kept_s - asyncio.get_running_loop().time()
        if left_s > 0:
            self._plan(asked, poll, left_s)
        else:
            self._polls.pop(asked, None)
            _end(poll)

    def close(self) -> None:
        """End all of it."""
        for poll in self._polls.values():
            _end(poll)
        self._polls.clear()


def _end(poll: _Poll) -> None:
    if poll.timer is not None:
        poll.timer.cancel()
        poll.timer = None
    if poll.end is not None:
        poll.end()
        poll.end = None
