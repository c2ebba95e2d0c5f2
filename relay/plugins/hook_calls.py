"""How the hooks of one provider are called: with its settings, its session and limits; what they raise is judged."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import aiohttp

from relay.core.errors import (
    BadAnswer,
    Killed,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
)
from relay.core.model import ProviderInfo
from relay.plugins.cancellation import PluginTiming, end_task, let_go
from relay.plugins.failure_judge import FailureJudge
from relay.plugins.feed_waits import FeedWaits
from relay.plugins.request_waits import RequestWaits
from relay.plugins.settings_use import SettingsUse
from relay.plugins.validation import kind_of, list_fault
from relay.telemetry.events import SPEAKER, Speaker
from relay.upstream.watchlist import Watchlist


class HookCalls:
    """Calls hooks of one provider by their names. `killed` counts what did not end when it was cancelled.

    Its `waits` know which calls are refused for how long, its `feed_waits` when a feed may be opened; its `use` of
    settings has the plugin let go of those that nothing runs with any more.
    """

    def __init__(
        self,
        info: ProviderInfo,
        speaker: Speaker,
        hooks: Mapping[str, Any],
        settings: Mapping[str, Any],
        session: Callable[[], aiohttp.ClientSession],
        failures: FailureJudge,
        timing: PluginTiming,
        on_close_failure: Callable[[BaseException], object],
    ) -> None:
        self.name = info.name
        self.killed = 0
        self._title = info.title
        self._speaker = speaker
        self._hooks = hooks
        self._session = session
        self._failures = failures
        self._timing = timing
        self.waits = RequestWaits(self.name)
        self.feed_waits = FeedWaits()
        has_close = self.has("relay_close")
        self.use = SettingsUse(
            self.name, settings, self._let_go if has_close else None, on_close_failure, self.end, timing
        )

    def has(self, hook: str) -> bool:
        """Whether the plugin has a hook."""
        return hook in self._hooks

    def speak(self) -> None:
        """Have what the present task logs from now on count as the plugin's."""
        SPEAKER.set(self._speaker)

    def _let_go(self, settings: Mapping[str, Any]) -> object:
        self.speak()
        return self._hooks["relay_close"](session=self._session(), settings=settings)

    def ask(self, hook: str, **arguments: Any) -> Any:
        """Return what a hook returns at once. Raises what the plugin raises."""
        token = SPEAKER.set(self._speaker)
        try:
            return self._hooks[hook](settings=self.use.present, **arguments)
        finally:
            SPEAKER.reset(token)

    def open_feed(self, watchlist: Watchlist, hook: str = "relay_stream") -> AsyncGenerator[Any, None]:
        """Return the generator that a hook returns, unjudged. Raises what the plugin raises, or `BadAnswer`."""
        updates = self._hooks[hook](watchlist=watchlist, session=self._session(), settings=self.use.present)
        if not isinstance(updates, AsyncGenerator):
            advice = "; write `def`, not `async def`, around `return`" if inspect.iscoroutine(updates) else ""
            let_go(updates)
            raise BadAnswer(f"{hook} returned {kind_of(updates)}, not an async generator{advice}")
        return updates

    async def listed(self, hook: str, kind: type, **arguments: Any) -> list[Any]:
        """Return the list that a hook returns after a while. Raises `ProviderError`."""

        def read(answer: Any) -> list[Any]:
            if (fault := list_fault(answer, kind)) is not None:
                raise BadAnswer(f"provider {self.name}: {hook} {fault}")
            return list(answer)

        found: list[Any] = await self.call(hook, read, **arguments)
        return found

    async def call(self, hook: str, read: Callable[[Any], Any], **arguments: Any) -> Any:
        """Return what a hook returns after a while, as `read` has it; that may run into the plugin's code.

        Raises `ProviderError`.
        """
        self._check_wait(hook)
        # A task of its own, so that whoever waits can be cancelled whatever the plugin does.
        task = asyncio.create_task(self._answer(hook, read, arguments), name=f"{hook} of {self.name}")
        try:
            done, _ = await asyncio.wait((task,), timeout=self._timing.call_timeout_s)
        finally:
            if not task.done():
                await self.end(task, self._timing.call_grace_s)
            elif not task.cancelled():
                # Seen, so that asyncio does not report the error of a call whose caller was cancelled as it ended.
                task.exception()
        if not done:
            raise ProviderTimeout(f"{self._title} did not answer in time")
        if task.cancelled():
            raise ProviderUnavailable(f"provider {self.name} failed (CancelledError in {hook})")
        return task.result()

    def _check_wait(self, hook: str) -> None:
        """Raise `RateLimited` while the provider asks to wait with calls of a hook: to ask may prolong a ban.

        A plugin with budgets counts by itself, but does not know what others were told.
        """
        wait = self.waits.heard()
        if wait is None and not self.has("relay_budgets"):
            wait = self.waits.of(hook)
        if wait is not None:
            raise RateLimited(wait.why, wait.left_s)

    async def _answer(self, hook: str, read: Callable[[Any], Any], arguments: Mapping[str, Any]) -> Any:
        failure: ProviderError
        self.speak()
        task = asyncio.current_task()
        try:
            with self.use.held() as settings:
                pending = self._hooks[hook](session=self._session(), settings=settings, **arguments)
                if not inspect.isawaitable(pending):
                    told = f"{hook} returned {kind_of(pending)}; write it with `async def`"
                    raise BadAnswer(f"provider {self.name}: {told}")
                answer = read(await pending)
                self.waits.end(hook)
                return answer
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit | Killed) and (task is None or task.cancelling()):
                raise
            failure = self._failures.judged(hook, error)
        if isinstance(failure, RateLimited):
            self.waits.note(hook, failure)
        raise failure

    async def end_feed(self, task: asyncio.Task[Any]) -> None:
        """End a task that runs a feed, or other code of the plugin; one that has to be killed counts as `killed`."""
        await self.end(task, self._timing.feed_grace_s)

    async def end_stream(self, task: asyncio.Task[Any]) -> None:
        """End a task that follows one stream of a feed, in less time than a feed has to end."""
        grace_s = self._timing.feed_grace_s
        kill_grace_s = min(self._timing.kill_grace_s, grace_s / 6)
        await end_task(task, grace_s / 3, kill_grace_s, self._note_kill, provider=self.name)

    async def end(self, task: asyncio.Task[Any], grace_s: float) -> None:
        """End a task that runs the plugin's code and has so long to end."""
        await end_task(task, grace_s, self._timing.kill_grace_s, self._note_kill, provider=self.name)

    def _note_kill(self) -> None:
        self.killed += 1
