"""Ends what runs a plugin's code, whatever the plugin does about it."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from relay.core.errors import Killed
from relay.telemetry.events import event

log = logging.getLogger(__name__)


class PluginTiming(NamedTuple):
    """How long what runs a plugin's code may take, in seconds."""

    call_timeout_s: float = 60.0
    """One call of `relay_candles` or `relay_instruments`."""
    call_grace_s: float = 1.0
    """The end of a call after it was cancelled."""
    feed_grace_s: float = 3.0
    """The end of a feed after it was cancelled; a WebSocket that has to be closed needs some of it."""
    close_timeout_s: float = 2.0
    """One call of `relay_close`."""
    kill_grace_s: float = 0.5
    """The end of either after it was cancelled once more, and then killed."""


PLUGIN_TIMING = PluginTiming()


async def end_task(
    task: asyncio.Task[Any],
    grace_s: float = PLUGIN_TIMING.feed_grace_s,
    kill_grace_s: float = PLUGIN_TIMING.kill_grace_s,
    on_kill: Callable[[], object] | None = None,
    *,
    provider: str = "",
) -> None:
    """Cancel a task that runs the code of a `provider`'s plugin and wait for its end, some seconds (`grace_s`) at most.

    A plugin that swallows `CancelledError`, or whose clean-up never ends, is killed where it waits, with a line in the
    log and a call of `on_kill`. The task's name has to say whose it is. Being cancelled here does not cut the waiting
    short.
    """
    ending = asyncio.create_task(_end(task, grace_s, kill_grace_s, on_kill, provider))
    is_cancelled = False
    while not ending.done():
        try:
            await asyncio.wait((ending,))
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError


async def _end(
    task: asyncio.Task[Any], grace_s: float, kill_grace_s: float, on_kill: Callable[[], object] | None, provider: str
) -> None:
    for patience_s in (grace_s, kill_grace_s):
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=patience_s)
    if not task.done():
        if on_kill is not None:
            on_kill()
        log.error(
            "%s did not end when it was cancelled and was killed; its plugin must be corrected",
            task.get_name(),
            extra=event("task_stuck", provider=provider, task=task.get_name()),
        )
        coroutine = task.get_coro()
        # Whatever the plugin raises on its last way out, and if it only waits for something else.
        with suppress(BaseException):
            if coroutine is not None:
                coroutine.throw(Killed())
        task.cancel()
        await asyncio.wait((task,), timeout=kill_grace_s)
    if not task.done():
        about = event("task_lost", provider=provider, task=task.get_name())
        log.error("%s cannot be stopped", task.get_name(), extra=about)
    elif not task.cancelled():
        # Seen, so that asyncio does not report what nobody asks for.
        task.exception()


def let_go(value: object) -> None:
    """Close a coroutine that nobody will await, or Python warns about it later."""
    if inspect.iscoroutine(value):
        value.close()
