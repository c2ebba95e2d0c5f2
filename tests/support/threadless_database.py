"""Databases without a thread: aiosqlite's work is done where it is asked for, and its results come a turn later.

Handing each statement to a thread and back costs more than the statement, and how long that takes depends on the
machine.
"""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import aiosqlite.core


class _DoneAtOnce:
    """Takes the place of the queue to a connection's thread, which hears only that it is to end."""

    def __init__(self) -> None:
        self._ends: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def get(self) -> Any:
        return self._ends.get()

    def put_nowait(self, item: Any) -> None:
        if item is aiosqlite.core._STOP_RUNNING_SENTINEL:
            # So does aiosqlite 0.20 end.
            self._ends.put(item)
            return
        future, function = item
        result = failure = None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            failure = error
        if result is aiosqlite.core._STOP_RUNNING_SENTINEL:
            self._ends.put((None, lambda: result))
        if future is not None:
            future.get_loop().call_soon(_settle, future, result, failure)


def _settle(future: Any, result: object, failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


@contextmanager
def threadless() -> Iterator[None]:
    """Let databases that are opened inside do their work in the thread of the event loop."""
    with patch.object(aiosqlite.core, "SimpleQueue", _DoneAtOnce):
        yield
