"""The event loop that the relay and all plugins run in: who tries to end or to rearrange it is refused and named."""

import asyncio
import errno
import logging
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial
from types import CodeType, CoroutineType, FunctionType, MethodType
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from relay.telemetry.events import event
from relay.telemetry.loop_monitor import CodePlace, place_of

log = logging.getLogger(__name__)
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PYTHONS = frozenset((FunctionType, MethodType, partial))
RELAY_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _nobody(file: str) -> str | None:
    return None


class LoopRefused(RuntimeError):
    """What would end or rearrange the loop for all was refused."""


class RelayLoop(asyncio.AbstractEventLoop):
    """What is different from the loops of asyncio and uvloop, one of which is the other base.

    Until `release` its owner alone ends it, when `work` is done; `stop`, `close` and what changes the loop for all
    raise RuntimeError. SystemExit and KeyboardInterrupt end the task or callback of a plugin that lets them out, and
    nothing else. `relay_threads` are the relay's own, the default executor is another one. Each place where the loop
    was harmed, or a callback fails, is said once in the log, and again after 10, 100, … times.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.relay_threads = ThreadPoolExecutor(thread_name_prefix="relay")
        self._owner_of: Callable[[str], str | None] = _nobody
        self._owners: dict[str, str | None] = {}
        self._blame: Callable[[str], None] = lambda owner: None
        self.work: asyncio.Future[Any] | None = None
        self._shared_threads = ThreadPoolExecutor(thread_name_prefix="plugins")
        self._is_guarded = True
        self._times: Counter[str] = Counter()

    def know(
        self, owner_of: Callable[[str], str | None], blame: Callable[[str], None], *, guards_callbacks: bool = True
    ) -> None:
        """Take it that this says whose plugin a file is; `blame` is called with the owner whenever one does harm.

        To guard callbacks takes 0.4 µs for each step of a task. Without it SystemExit in every round stays in uvloop.
        """
        self._owner_of, self._blame, self._owners = owner_of, blame, {}
        if guards_callbacks:
            self.call_soon = self._guarding(super().call_soon)  # type: ignore[method-assign]
            self.call_soon_threadsafe = self._guarding(super().call_soon_threadsafe)  # type: ignore[method-assign]

    def release(self) -> None:
        """Let everybody change it: what used it has ended."""
        self._is_guarded = False

    # -- what its owner alone may do ---------------------------------------------------------------

    def stop(self) -> None:
        """End `run_until_complete`, which calls this when the work is done."""
        if self.work is not None and not self.work.done():
            self._refuse("loop.stop()")
        super().stop()

    def close(self) -> None:
        """Close the loop, and its threads without waiting for them."""
        self._check("loop.close()")
        for threads in (self.relay_threads, self._shared_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        super().close()

    async def shutdown_default_executor(self, *given: Any) -> None:
        """End the threads that all plugins share."""
        self._check("loop.shutdown_default_executor()")
        await super().shutdown_default_executor(*given)

    async def shutdown_asyncgens(self) -> None:
        """Close all async generators."""
        self._check("loop.shutdown_asyncgens()")
        await super().shutdown_asyncgens()

    def set_default_executor(self, executor: Any) -> None:
        """Set the threads that all plugins share."""
        self._check("loop.set_default_executor()")
        super().set_default_executor(executor)

    def set_task_factory(self, factory: Any) -> None:
        """Set what makes all tasks."""
        self._check("loop.set_task_factory()")
        super().set_task_factory(factory)

    def set_exception_handler(self, handler: Any) -> None:
        """Set what is told of all exceptions that nobody catches."""
        self._check("loop.set_exception_handler()")
        super().set_exception_handler(handler)

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have a signal handled, but none of the relay's."""
        if sig in RELAY_SIGNALS:
            self._check("loop.add_signal_handler()")
        super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Have a signal handled no more, but none of the relay's."""
        if sig in RELAY_SIGNALS:
            self._check("loop.remove_signal_handler()")
        return super().remove_signal_handler(sig)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function in a thread, without an executor in one that all plugins share.

        There its log lines are those of the plugin that wanted it, whoever's the thread was first.
        """
        if executor is None:
            return super().run_in_executor(self._shared_threads, copy_context().run, func, *args)
        return super().run_in_executor(executor, func, *args)

    # -- what runs in it ---------------------------------------------------------------------------

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Run a coroutine."""
        if isinstance(coro, CoroutineType) and self._owner_in(coro.cr_code.co_filename) is not None:
            coro = self._awaited(coro)
        return super().create_task(coro, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what nobody catches: of a plugin as its harm, else not each time that it comes from the same place."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return  # Of each connection that it could not accept; relay.server.open_files says it once.
        if isinstance(error, LoopRefused):
            return  # It was said when it was refused.
        frames = _frames_of(error)
        if (owner := self._owner_of_any(frames)) is not None and isinstance(error, BaseException):
            lines = "".join(traceback.format_exception(error)).rstrip()
            self._note(owner, f"raised {type(error).__name__} in a task or callback", _place_of(frames), lines)
            return
        if frames and not self._is_news(f"{type(error).__name__} {_place_of(frames)}"):
            return
        super().call_exception_handler(context)

    def _guarding(self, call: Callable[..., asyncio.Handle]) -> Any:
        """Return what does as `call_soon` does, and contains what a plugin's function lets out."""

        def guarded(callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
            # Of all that is called few are Python's own functions: wake-ups of tasks are not.
            if type(callback) in _PYTHONS and self._owner(callback) is not None:
                return call(partial(self._contained, callback, *args), context=context)
            return call(callback, *args, context=context)

        return guarded

    def _contained(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt) as error:
            self.note_end(error)

    async def _awaited(self, coro: Coroutine[Any, Any, T]) -> T:
        try:
            return await coro
        except (SystemExit, KeyboardInterrupt) as error:
            self.note_end(error)
            raise asyncio.CancelledError(f"{type(error).__name__} in a task") from None

    def _owner(self, callback: Any) -> str | None:
        while isinstance(callback, partial):
            callback = callback.func
        code = getattr(getattr(callback, "__func__", callback), "__code__", None)
        return None if code is None else self._owner_in(code.co_filename)

    def _owner_in(self, file: str) -> str | None:
        if file not in self._owners:
            self._owners[file] = self._owner_of(file)
        return self._owners[file]

    # -- who harms it ------------------------------------------------------------------------------

    def note_end(self, error: BaseException) -> None:
        """Say that somebody's task or callback let out what ends the loop."""
        frames = _frames_of(error)
        did = f"raised {type(error).__name__} in the event loop, which continues"
        lines = "".join(traceback.format_exception(error)).rstrip()
        self._note(self._owner_of_any(frames), did, _place_of(frames), lines)

    def _owner_of_any(self, frames: Sequence[tuple[CodeType, int]]) -> str | None:
        return next(filter(None, (self._owner_in(code.co_filename) for code, _ in reversed(frames))), None)

    def _check(self, what: str) -> None:
        if self._is_guarded:
            self._refuse(what)

    def _refuse(self, what: str) -> NoReturn:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        place: CodePlace | None = place_of(frame, self._owner_in)
        owner = None if place is None else place.owner
        self._note(owner, f"called {what}, which is not allowed", str(place or "a callback"), "")
        raise LoopRefused(f"{what} is not allowed: the event loop belongs to the relay and is shared")

    def _note(self, owner: str | None, did: str, where: str, more: str) -> None:
        if owner is not None:
            self._blame(owner)
        place = f"{did}: {where}"
        if not self._is_news(place):
            return
        times = self._times[place]
        who = "a plugin" if owner is None else f"the plugin of {owner}"
        often = "" if times == 1 else f" ({times:,} times so far)"
        about = event("loop_harmed", provider=owner, place=where, times=times)
        shown = f"\n{more}" if more and times == 1 else ""
        log.error("%s %s, in %s%s; it must be corrected%s", who, did, where, often, shown, extra=about)

    def _is_news(self, what: str) -> bool:
        """Count something that is said when it came once, 10, 100, … times."""
        self._times[what] += 1
        times = self._times[what]
        return times == int(10 ** (len(str(times)) - 1))


def _frames_of(error: object) -> list[tuple[CodeType, int]]:
    """Return which code an exception came through, at which line, the innermost last."""
    found = error.__traceback__ if isinstance(error, BaseException) else None
    return [(frame.f_code, line) for frame, line in traceback.walk_tb(found)]


def _place_of(frames: Sequence[tuple[CodeType, int]]) -> str:
    code, line = frames[-1]
    return f"{code.co_qualname} ({code.co_filename}, line {line})"


class _PlainLoop(RelayLoop, asyncio.SelectorEventLoop):
    pass


def new_loop() -> RelayLoop:
    """Return a loop of uvloop where that is installed, else of asyncio."""
    try:
        import uvloop
    except ImportError:
        return _PlainLoop()
    loop: RelayLoop = type("_FastLoop", (RelayLoop, uvloop.Loop), {})()
    return loop
