"""The updates of one feed as they leave a plugin: what makes no sense is left out, and its errors are judged."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from relay.core.errors import AuthenticationFailed, Killed, ProviderError
from relay.core.model import NativeUpdate, PriceUpdate
from relay.plugins.failure_judge import FailureJudge
from relay.plugins.hook_calls import HookCalls
from relay.plugins.validation import CandleValidator, kind_of
from relay.upstream.watchlist import Watchlist

_MOST_AT_A_TIME = 100


class JudgedFeeds:
    """The feeds of one provider. `refusal` returns why none may open, `on_repair` hears of candles without extras."""

    def __init__(
        self,
        calls: HookCalls,
        border: CandleValidator,
        failures: FailureJudge,
        refusal: Callable[[], str | None],
        on_repair: Callable[[], None],
    ) -> None:
        self.name = calls.name
        self._calls = calls
        self._border = border
        self._failures = failures
        self._refusal = refusal
        self._on_repair = on_repair

    async def stream(
        self, watchlist: Watchlist, open_feed: Callable[[Watchlist], AsyncGenerator[PriceUpdate, None]]
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Yield the updates of one feed; what makes no sense is reported to the watchlist and left out.

        Raises `ProviderError`.
        """
        if (refusal := self._refusal()) is not None:
            raise AuthenticationFailed(refusal)
        failure: ProviderError
        self._calls.speak()
        fault_of_update, in_a_row, is_left = self._border.fault_of_update, 0, False
        leaps = self._border.leaps(watchlist)
        task = asyncio.current_task()
        let_settings_go, settings = self._calls.use.hold(), self._calls.use.present
        try:
            async with aclosing(open_feed(watchlist)) as updates:
                async for update in updates:
                    in_a_row += 1
                    if in_a_row > _MOST_AT_A_TIME:
                        # A plugin that never waits would keep everybody else waiting.
                        in_a_row = 0
                        await asyncio.sleep(0)
                    fault = fault_of_update(update, watchlist)
                    if fault is not None:
                        if (repaired := self._border.repaired(update, watchlist)) is None:
                            watchlist.skip(fault)
                            continue
                        update = repaired
                        self._on_repair()
                    told = (update,) if leaps is None or leaps.passes(update) else leaps.weigh(update)
                    try:
                        for one in told:
                            yield one
                    except GeneratorExit:
                        is_left = True
                        raise
            return
        except BaseException as error:
            if _is_ended(error, task, is_left=is_left):
                raise
            failure = self._judged("relay_stream", error, settings)
        finally:
            let_settings_go()
        # Raised out here: inside `except` it would drag the original along, which may hold a key.
        raise failure

    async def native_stream(self, watchlist: Watchlist) -> AsyncGenerator[NativeUpdate, None]:
        """Yield what streams of the venue's own say; what makes no sense is reported to the watchlist and left out.

        Raises `ProviderError`.
        """
        if (refusal := self._refusal()) is not None:
            raise AuthenticationFailed(refusal)
        failure: ProviderError
        self._calls.speak()
        in_a_row, is_left, task = 0, False, asyncio.current_task()
        let_settings_go, settings = self._calls.use.hold(), self._calls.use.present
        try:
            async with aclosing(self._calls.open_feed(watchlist, "relay_native_stream")) as updates:
                async for update in updates:
                    in_a_row += 1
                    if in_a_row > _MOST_AT_A_TIME:
                        in_a_row = 0
                        await asyncio.sleep(0)
                    if not isinstance(update, NativeUpdate):
                        watchlist.skip(f"relay_native_stream yielded {kind_of(update)}, not NativeUpdate")
                    elif update.key in watchlist.wanted:
                        try:
                            yield update
                        except GeneratorExit:
                            is_left = True
                            raise
            return
        except BaseException as error:
            if _is_ended(error, task, is_left=is_left):
                raise
            failure = self._judged("relay_native_stream", error, settings)
        finally:
            let_settings_go()
        raise failure

    def _judged(self, hook: str, error: BaseException, settings: Mapping[str, Any]) -> ProviderError:
        """Judge how a feed ended. What the provider says of other settings than the present ones holds no other up."""
        failure = self._failures.judged(hook, error)
        if settings is self._calls.use.present:
            self._calls.feed_waits.note(failure)
        return failure


def _is_ended(error: BaseException, task: asyncio.Task[object] | None, *, is_left: bool) -> bool:
    """Say whether an error is the end that the host gave a feed.

    Whoever ends a feed cancels it, then throws the other one in; else the plugin raised them itself.
    """
    is_asked = is_left or task is None or task.cancelling()
    return bool(is_asked) and isinstance(error, asyncio.CancelledError | GeneratorExit | Killed)
