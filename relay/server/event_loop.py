"""Runs the event loop of the process, and ends both, whatever a plugin does to the loop, to tasks or with threads."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from relay.core.counted import counted
from relay.plugins.loop_guard import RelayLoop, new_loop
from relay.telemetry.events import event
from relay.telemetry.loop_monitor import place_of

log = logging.getLogger(__name__)

END_S = 1.0
"""How long tasks, and then threads, may take to end once all that the relay started has ended."""
_NAMED = 3


def run(work: Coroutine[Any, Any, None], end_s: float = END_S) -> None:
    """Run a coroutine to its end in a loop of its own: uvloop's where it is installed, else asyncio's.

    Ctrl-C cancels it and is raised as KeyboardInterrupt at the end. The loop goes on when somebody else tries to stop
    it, or lets SystemExit or KeyboardInterrupt out of a task or a callback: the log says who and where. Tasks that are
    left at the end are cancelled and waited for, `end_s` seconds at most.
    """
    loop = new_loop()
    task = loop.create_task(work, name="relay")
    try:
        with _interrupts(loop, task) as interrupts:
            try:
                _complete(loop, task)
            except asyncio.CancelledError:
                if interrupts:
                    raise KeyboardInterrupt from None
                raise
    finally:
        try:
            _complete(loop, loop.create_task(_end_tasks(loop, end_s)))
        finally:
            loop.release()
            # A callback that comes again in every round does not let uvloop close.
            with suppress(RuntimeError):
                loop.close()


@contextmanager
def without_stragglers(end_s: float = END_S) -> Iterator[None]:
    """Leave the process at the end of the block if threads that were started in it do not end within `end_s` seconds.

    Python itself would wait for them for ever. The exit code stays what it would have been.
    """
    before = set(threading.enumerate())
    status: object = 0
    try:
        yield
    except SystemExit as error:
        status = error.code or 0
        raise
    except BaseException:
        status = 1
        raise
    finally:
        if left := _stragglers(before, end_s):
            if status == 1:
                traceback.print_exc()
            places = ", ".join(_place(thread) for thread in left[:_NAMED])
            log.error(
                "%s of a plugin did not end: %s%s; the relay ends without waiting",
                counted(len(left), "thread"),
                places,
                " and others" if len(left) > _NAMED else "",
                extra=event("threads_left", count=len(left)),
            )
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status if isinstance(status, int) else 1)


@contextmanager
def _interrupts(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> Iterator[list[int]]:
    """Cancel the task at the first Ctrl-C; give the list of those that came. Later ones reach whatever runs."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def interrupt(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


def _complete(loop: RelayLoop, task: asyncio.Task[None]) -> None:
    """Run the loop until the task is done, however often somebody ends it before."""
    loop.work = task
    while not task.done():
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            if task.done():
                break
            if isinstance(error, SystemExit | KeyboardInterrupt):
                loop.note_end(error)
            elif loop.is_closed():
                raise
    task.result()


async def _end_tasks(loop: RelayLoop, end_s: float) -> None:
    """Cancel what still runs, and close the async generators that nobody closed."""
    left = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=end_s)
    for task in left:
        log.error(
            "%s did not end when it was cancelled; the relay ends without it", task.get_name(), extra=event("task_left")
        )
    loop.release()
    with suppress(TimeoutError):
        async with asyncio.timeout(end_s):
            await loop.shutdown_asyncgens()


def _stragglers(before: set[threading.Thread], end_s: float) -> list[threading.Thread]:
    deadline = time.monotonic() + end_s
    new = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in new:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread for thread in new if thread.is_alive()]


def _place(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return f"{thread.name} in {None if frame is None else place_of(frame, lambda file: None)}"
