"""What runs with which settings of a provider, and `relay_close` for those that nothing runs with any more."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming
from relay.plugins.validation import kind_of
from relay.telemetry.events import event

log = logging.getLogger(__name__)

Settings = Mapping[str, Any]


class GivenSettings(Mapping[str, Any]):
    """Settings as a plugin gets them: never changed, and good as a key, so that it can keep clients by them."""

    __slots__ = ("_values",)

    def __init__(self, values: Settings) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        # Tables in it have no hash; few settings are kept at the same time.
        return hash(frozenset(self._values))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"


class _Use:
    """One set of settings, and how many feeds and calls run with it."""

    __slots__ = ("count", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = GivenSettings(settings)
        self.count = 0


class SettingsUse:
    """Has a plugin let go of what it made with settings, once: when other ones have replaced them, or at the end.

    `let_go` calls the hook and returns what it returns, None where the plugin has no such hook. What it raises goes to
    `on_failure`. A call that takes longer than it may is ended with `end`.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        let_go: Callable[[Settings], object] | None,
        on_failure: Callable[[BaseException], object],
        end: Callable[[asyncio.Task[Any], float], Awaitable[None]],
        timing: PluginTiming = PLUGIN_TIMING,
    ) -> None:
        self._name = name
        self._present = _Use(settings)
        # Those that something runs with.
        self._held: list[_Use] = []
        self._let_go = let_go
        self._on_failure = on_failure
        self._end = end
        self._timing = timing
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def present(self) -> Settings:
        """The settings that are given to what begins now."""
        return self._present.settings

    @contextmanager
    def held(self) -> Iterator[Settings]:
        """Hold the present settings while a feed or a call runs with them."""
        end = self.hold()
        try:
            yield self.present
        finally:
            end()

    def hold(self) -> Callable[[], None]:
        """Hold the present settings until what is returned is called."""
        use = self._present
        use.count += 1
        if use.count == 1:
            self._held.append(use)

        def end() -> None:
            use.count -= 1
            if use.count:
                return
            self._held.remove(use)
            if use is not self._present:
                self._close(use.settings)

        return end

    def replace(self, settings: Settings) -> None:
        """Give other settings to what begins from now on.

        Those that something runs with still, because they were replaced a moment ago, are the same ones again.
        """
        before = self._present
        self._present = next((use for use in self._held if use.settings == settings), None) or _Use(settings)
        if not before.count and before is not self._present:
            self._close(before.settings)

    async def close(self) -> None:
        """Have the plugin let go of everything; wait until it has, or its time is over."""
        self._close(self.present)
        while self._closing:
            await asyncio.wait(self._closing)

    def _close(self, settings: Settings) -> None:
        if self._let_go is not None:
            task = asyncio.create_task(self._limited(settings), name=f"end of settings of {self._name}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _limited(self, settings: Settings) -> None:
        work = asyncio.create_task(self._call(settings), name=f"relay_close of {self._name}")
        done, _ = await asyncio.wait((work,), timeout=self._timing.close_timeout_s)
        if not done:
            log.error(
                "relay_close of %s did not end within %g s and is cancelled",
                self._name,
                self._timing.close_timeout_s,
                extra=event("close_late", provider=self._name),
            )
            await self._end(work, self._timing.call_grace_s)

    async def _call(self, settings: Settings) -> None:
        task = asyncio.current_task()
        try:
            pending = self._let_go(settings) if self._let_go is not None else None
            if inspect.isawaitable(pending):
                await pending
            elif pending is not None:
                raise TypeError(f"relay_close returned {kind_of(pending)}; it returns nothing")
        except BaseException as error:
            if task is not None and task.cancelling():
                raise
            self._on_failure(error)
