"""One bound provider: what its hooks answer is judged here, and what they raise leaves as `ProviderError`."""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from relay.core.clock import ProviderClock, StatedClock
from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
    Killed,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    UnknownSymbol,
    log_text,
)
from relay.core.intake import Intake
from relay.core.model import (
    Budget,
    Candle,
    Instrument,
    NativeAnswer,
    OpenHours,
    PriceUpdate,
    ProviderInfo,
    StreamKey,
)
from relay.core.outward_proxies import OutwardProxies
from relay.core.past_change import PastChange
from relay.core.saved_value import Memory
from relay.core.secret import pattern_of, texts_of
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from relay.network.http_sessions import open_session
from relay.plugins.arrivals import Loaded, lacking_setting
from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming, end_task, let_go
from relay.plugins.failure_judge import FailureJudge, without_addresses
from relay.plugins.judged_instruments import judged_answer, judged_list
from relay.plugins.settings_use import SettingsUse
from relay.plugins.validation import (
    CandleValidator,
    fault_of_budget,
    fault_of_hours,
    fault_of_native,
    fault_of_type,
    kind_of,
    list_fault,
)
from relay.telemetry.events import SPEAKER, Speaker, event
from relay.telemetry.loop_monitor import Blocks
from relay.upstream.watchlist import Watchlist

log = logging.getLogger(__name__)

SESSION_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)

_MOST_AT_A_TIME = 100
_MOST_TOLD = 100_000
_LONGEST_SPELLING = 10_000
"""More than any spelling of a secret has."""
_MOST_ORIGINS = 64
_MOST_MARKETS = 4096


def new_session(
    clock: ProviderClock, proxies: OutwardProxies | None = None, intake: Intake | None = None
) -> aiohttp.ClientSession:
    """Return an HTTP session for one provider, which reads the provider's clock from every answer.

    Its connections go through `proxies`, and its WebSockets are read when `intake` lets them be.
    """

    def read(headers: Mapping[str, str]) -> None:
        with suppress(TypeError, ValueError):
            stamp = parsedate_to_datetime(headers.get("Date", ""))
            clock.observe(stamp.replace(tzinfo=stamp.tzinfo or UTC).timestamp())

    return open_session(timeout=SESSION_TIMEOUT, on_headers=read, proxies=proxies, intake=intake)


class Provider:
    """One provider with its settings, session and clock. Whatever a plugin raises leaves here as ProviderError.

    No error or log line that leaves here holds one of the provider's secrets.
    """

    def __init__(
        self,
        loaded: Loaded,
        hooks: Mapping[str, Any],
        settings: Mapping[str, Any],
        clock: ProviderClock,
        timing: PluginTiming = PLUGIN_TIMING,
        proxies: OutwardProxies | None = None,
    ) -> None:
        self.info = loaded.info
        self.name = loaded.info.name
        self.source = loaded.source
        self._speaker = Speaker(loaded.info.name, is_instance=bool(loaded.uses))
        self.proxies = proxies or OutwardProxies()
        self._timing = timing
        self.border = CandleValidator(loaded.info)
        self.has_history = "relay_candles" in hooks
        self.lists_instruments = "relay_instruments" in hooks
        self.looks_up_instruments = "relay_instrument" in hooks
        self.tells_past_changes = "relay_past_changes" in hooks
        self._tells_hours = self.has_hours = "relay_hours" in hooks
        self.answers_natively = "relay_native" in hooks
        self.loaded = loaded
        self._hooks = hooks
        self._use = SettingsUse(
            self.name,
            settings,
            self._let_go if "relay_close" in hooks else None,
            self._note_close,
            self._end,
            timing,
        )
        self.refusal: str | None = self._missing_key()
        self._secrets = {*texts_of(settings.values())}
        self._secret = pattern_of(self._secrets)
        self.failures = FailureJudge(self.name, self.conceal, lambda: bool(loaded.info.needs_key or self._secrets))
        self._session: aiohttp.ClientSession | None = None
        self.is_closed = False
        self._intake: Intake | None = None
        self._has_bad_extras = False
        self._markets: dict[str, TradingHours] = {}
        self.blocks = Blocks()
        self.killed = 0
        self.clock: ProviderClock = self._stated_clock(clock) or clock

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings by name, as they are now."""
        return self._use.present

    @property
    def keeps_clients(self) -> bool:
        """Whether the plugin may keep connections and tasks of its own until `close`: it has a hook that ends them."""
        return "relay_close" in self._hooks

    def _missing_key(self) -> str | None:
        lacking = lacking_setting(self.info, self.settings)
        if lacking is None:
            return None
        variable = f"RELAY_{self.name}_{lacking.name}".upper()
        what = "a key" if lacking.is_secret else f"the setting {lacking.name}"
        heading = self.loaded.heading or f"[{self.name}]"
        return f"{self.info.title} needs {what}: set {variable}, or {lacking.name} in {heading} of the configuration"

    @property
    def lacks_key(self) -> bool:
        """Whether nothing works because a key is not set; only other settings change that."""
        return self._missing_key() is not None

    def _lists_without(self) -> bool:
        """Say whether the list may be asked for although the provider is refused: without a key, not without more."""
        lacking = lacking_setting(self.info, self.settings)
        return lacking is None or lacking.is_secret

    def readmit(self) -> None:
        """Forget that the provider refused the relay: it may be asked again, unless its key is not set."""
        self.refusal = self._missing_key()

    def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Give other settings to whatever is called from now on; feeds and calls under way keep theirs.

        Once the last of those has ended the plugin lets go of what it made with the settings of before. Their secrets
        are still taken out of texts: who was given them may speak of them.
        """
        self._use.replace(settings)
        self._markets.clear()
        self._secrets.update(texts_of(settings.values()))
        self._secret = pattern_of(self._secrets)
        self.readmit()

    def open(self, session: aiohttp.ClientSession, intake: Intake | None = None) -> None:
        """Use this session from now on, until `close`; another one in its place gets this `intake`."""
        self._session = session
        self.is_closed = False
        self._intake = intake

    async def close(self) -> None:
        """Have the plugin let go of its own, then close the session: once, after the last feed and call."""
        if self._session is not None and not self.is_closed:
            self.is_closed = True
            await self._use.close()
            await self._session.close()

    def _note_close(self, error: BaseException) -> None:
        failure = self.failures.judged("relay_close", error)
        about = event("close_failed", provider=self.name)
        log.warning("relay_close of %s failed: %s", self.name, log_text(failure), extra=about)

    def _let_go(self, settings: Mapping[str, Any]) -> object:
        SPEAKER.set(self._speaker)
        return self._hooks["relay_close"](session=self.session, settings=settings)

    def remember(self, memory: Memory) -> None:
        """Hand the plugin its place for what it wants to know after a restart."""
        if "relay_memory" not in self._hooks:
            return
        try:
            self._ask("relay_memory", memory=memory)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_memory", error)

    def _stated_clock(self, clock: ProviderClock) -> StatedClock | None:
        """Return the clock that the plugin states, None if it leaves that to the relay, or fails."""
        if "relay_clock" not in self._hooks:
            return None
        is_blamed = False

        def blame(error: Exception) -> None:
            nonlocal is_blamed
            # Read for each update: once is enough to know.
            if not is_blamed:
                is_blamed = True
                self.failures.judged("relay_clock", error)

        try:
            read = self._ask("relay_clock")
            return None if read is None else StatedClock(clock, read, blame)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_clock", error)
            return None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The provider's HTTP session; another one when the plugin closed it, or its connector."""
        if self._session is None:
            raise ProviderUnavailable(f"{self.name} is not open")
        if self._session.closed:
            self.failures.failed += 1
            log.error(
                "provider %s closed its session, which belongs to the relay; it must be corrected",
                self.name,
                extra=event("session_closed", provider=self.name),
            )
            self._session = new_session(self.clock, self.proxies, self._intake)
        return self._session

    async def end_feed(self, task: asyncio.Task[Any]) -> None:
        """End a task that runs a feed, or other code of the plugin; one that has to be killed counts as `killed`."""
        await self._end(task, self._timing.feed_grace_s)

    async def _end(self, task: asyncio.Task[Any], grace_s: float) -> None:
        await end_task(task, grace_s, self._timing.kill_grace_s, self._note_kill)

    async def end_stream(self, task: asyncio.Task[Any]) -> None:
        """End a task that follows one stream of a feed, in less time than a feed has to end."""
        grace_s = self._timing.feed_grace_s
        await end_task(task, grace_s / 3, min(self._timing.kill_grace_s, grace_s / 6), self._note_kill)

    def judge_stream(self, key: StreamKey, error: BaseException) -> ProviderError:
        """Return what may be told of an error of one stream alone; a mistake of the plugin's is logged."""
        return self.failures.judged_in_stream(key, error)

    def _note_kill(self) -> None:
        self.killed += 1

    def conceal(self, text: str) -> str:
        """Return a text without secrets of the provider and of proxies, whichever way it spells them."""
        told = self.proxies.conceal(self._secret.sub("***", text[:_MOST_TOLD]))
        # A secret may be cut in two there.
        return told if len(text) <= _MOST_TOLD else f"{told[:-_LONGEST_SPELLING]} …"

    def tell(self, text: str) -> str:
        """Return a text as clients may read it: without secrets and addresses."""
        return without_addresses(self.conceal(text))

    def said_again(self) -> ProviderInfo:
        """Return what `relay_provider` of the plugin says when it is called once more, under the instance's name."""
        said: ProviderInfo = self._hooks["relay_provider"](settings=self.settings)
        return said._replace(name=self.name, api=self.info.api, settings=self.info.settings)

    def _ask(self, hook: str, **arguments: Any) -> Any:
        """Return what a hook returns at once. Raises what the plugin raises."""
        token = SPEAKER.set(self._speaker)
        try:
            return self._hooks[hook](settings=self.settings, **arguments)
        finally:
            SPEAKER.reset(token)

    def open_feed(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Return what `relay_stream` returns, unjudged. Raises what the plugin raises, or `BadAnswer`."""
        watchlist.bind(self)
        updates = self._hooks["relay_stream"](watchlist=watchlist, session=self.session, settings=self.settings)
        if not isinstance(updates, AsyncGenerator):
            advice = "; write `def`, not `async def`, around `return`" if inspect.iscoroutine(updates) else ""
            let_go(updates)
            raise BadAnswer(f"relay_stream returned {kind_of(updates)}, not an async generator{advice}")
        return updates

    async def stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Yield the updates of one feed; what makes no sense is reported to the watchlist and left out.

        Raises `ProviderError`.
        """
        if self.refusal is not None:
            raise AuthenticationFailed(self.refusal)
        failure: ProviderError
        SPEAKER.set(self._speaker)
        fault_of_update, in_a_row, is_left = self.border.fault_of_update, 0, False
        leaps = self.border.leaps(watchlist)
        task = asyncio.current_task()
        let_settings_go = self._use.hold()
        try:
            async with aclosing(self.open_feed(watchlist)) as updates:
                async for update in updates:
                    in_a_row += 1
                    if in_a_row > _MOST_AT_A_TIME:
                        # A plugin that never waits would keep everybody else waiting.
                        in_a_row = 0
                        await asyncio.sleep(0)
                    fault = fault_of_update(update, watchlist)
                    if fault is not None:
                        if (repaired := self.border.repaired(update, watchlist)) is None:
                            watchlist.skip(fault)
                            continue
                        update = repaired
                        self._tell_bad_extras()
                    told = (update,) if leaps is None or leaps.passes(update) else leaps.weigh(update)
                    try:
                        for one in told:
                            yield one
                    except GeneratorExit:
                        is_left = True
                        raise
            return
        except BaseException as error:
            # Whoever ends a feed cancels it, then throws the other one in; else the plugin raised them itself.
            is_ended = is_left or task is None or task.cancelling()
            if is_ended and isinstance(error, asyncio.CancelledError | GeneratorExit | Killed):
                raise
            failure = self.failures.judged("relay_stream", error)
        finally:
            let_settings_go()
        # Raised out here: inside `except` it would drag the original along, which may hold a key.
        raise failure

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        """Return history, judged: a candle whose values cannot be used is `unreadable`. Raises `ProviderError`."""
        given = await self.given(key, start, end, limit)
        found = self.border.past(given, key.interval, self.clock.reach() + self.clock.ahead_s)
        self._tell_bad_extras()
        return found

    def _tell_bad_extras(self) -> None:
        """Log once that candles are taken without what they carry beside prices and volume."""
        fault = self.border.bad_extras
        if fault is not None and not self._has_bad_extras:
            self._has_bad_extras = True
            log.warning(
                "provider %s: candles are used without quote volume, trades and taker volumes: %s",
                self.name,
                self.conceal(fault),
                extra=event("extras_refused", provider=self.name),
            )

    async def given(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        """Return history as the hook gives it, unjudged. Raises `ProviderError`."""
        answer = await self._list(
            "relay_candles", Candle, symbol=key.symbol, interval=key.interval, start=start, end=end, limit=limit
        )
        for candle in answer:
            if (fault := fault_of_type(candle)) is not None:
                raise BadAnswer(self.conceal(f"provider {self.name}: relay_candles: {fault}"))
        return answer

    async def instruments(self) -> Sequence[Instrument]:
        """Return what can be streamed; entries that make no sense are left out. Raises `ProviderError`."""
        return await judged_list(await self._list("relay_instruments", Instrument), self.info, self.conceal)

    async def instrument(self, symbol: str) -> Instrument | None:
        """Return what a symbol in upper case denotes, None if the provider has none. Raises `ProviderError`."""
        try:
            found: Instrument | None = await self._call(
                "relay_instrument",
                lambda answer: None if answer is None else judged_answer(answer, symbol, self.info, self.conceal),
                symbol=symbol,
            )
        except UnknownSymbol:
            return None
        return found

    async def past_changes(self, since: int | None) -> Sequence[PastChange]:
        """Return what changed of the provider's past since a moment. Raises `ProviderError`."""
        found: Sequence[PastChange] = await self._list("relay_past_changes", PastChange, since=since)
        for change in found:
            try:
                change.check()
            except (TypeError, ValueError) as error:
                raise BadAnswer(self.conceal(f"provider {self.name}: relay_past_changes: {error}")) from None
        return found

    async def native(self, path: str, query: Mapping[str, str]) -> NativeAnswer:
        """Return the venue's own answer to a request in its own protocol, judged. Raises `ProviderError`."""
        if not self.answers_natively:
            raise BadAnswer(f"{self.info.title} gives no answers in its own protocol")

        def read(answer: Any) -> NativeAnswer:
            if (fault := fault_of_native(answer)) is not None:
                raise BadAnswer(f"provider {self.name}: relay_native {fault}")
            return answer  # type: ignore[no-any-return]

        found: NativeAnswer = await self._call("relay_native", read, path=path, query=query)
        return found

    def budgets(self) -> Sequence[Budget]:
        """Return how much of the provider's limits is used; nothing if the plugin fails."""
        if "relay_budgets" not in self._hooks:
            return ()
        try:
            answer = self._ask("relay_budgets")
            found = () if answer is None else tuple(answer)
            fault = next(filter(None, map(fault_of_budget, found)), None)
            if fault is not None:
                raise BadAnswer(f"provider {self.name}: relay_budgets: {fault}")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_budgets", error)
            return ()
        return found

    def origins(self) -> Sequence[str]:
        """Return the marks of the relays that the candles come through; nothing if the plugin fails, or asks none."""
        if "relay_origins" not in self._hooks:
            return ()
        try:
            answer = self._ask("relay_origins")
            found = () if answer is None else tuple(answer)
            if len(found) > _MOST_ORIGINS or not all(isinstance(one, str) for one in found):
                raise BadAnswer(f"provider {self.name}: relay_origins returned no texts, or more than {_MOST_ORIGINS}")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_origins", error)
            return ()
        return found

    def market(self, symbol: str) -> TradingHours:
        """Return when a symbol is traded: always, as far as is known, if the plugin does not say."""
        market = self._markets.get(symbol)
        if market is None:
            if len(self._markets) >= _MOST_MARKETS:
                self._markets.clear()
            hours = TradingHours(lambda moment: self._hours(symbol, moment)) if self._tells_hours else TradingHours()
            market = self._markets[symbol] = hours
        return market

    def session_text(self, symbol: str) -> str | None:
        """Return the weekly hours of a symbol as text, `0930-1600 America/New_York`; None if no calendar says them."""
        calendar = self.calendar(symbol)
        return None if calendar is None else calendar.text

    def calendar(self, symbol: str) -> TradingCalendar | None:
        """Return the calendar of a symbol, None if the plugin has none."""
        calendar = self._asked_hours(symbol, int(self.clock.now())) if self._tells_hours else None
        return calendar if isinstance(calendar, TradingCalendar) else None

    def _hours(self, symbol: str, moment: int) -> OpenHours | None:
        hours = self._asked_hours(symbol, moment)
        if isinstance(hours, TradingCalendar):
            return None if hours.is_always_open else hours.session_at(moment)
        return hours

    def _asked_hours(self, symbol: str, moment: int) -> TradingCalendar | OpenHours | None:
        if not self._tells_hours:
            return None
        hours: TradingCalendar | OpenHours | None
        try:
            hours = self._ask("relay_hours", symbol=symbol, moment=moment)
            if hours is not None and (fault := fault_of_hours(hours, moment)) is not None:
                raise ValueError(f"relay_hours {fault}")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            # Asked for each candle: once is enough to know.
            self._tells_hours = False
            self.failures.judged("relay_hours", error)
            return None
        return hours

    async def _list(self, hook: str, kind: type, **arguments: Any) -> list[Any]:
        """Return the list that a hook returns. Raises `ProviderError`."""

        def read(answer: Any) -> list[Any]:
            if (fault := list_fault(answer, kind)) is not None:
                raise BadAnswer(f"provider {self.name}: {hook} {fault}")
            return list(answer)

        found: list[Any] = await self._call(hook, read, **arguments)
        return found

    async def _call(self, hook: str, read: Callable[[Any], Any], **arguments: Any) -> Any:
        """Return what a hook returns after a while, as `read` has it; that may run into the plugin's code.

        Raises `ProviderError`.
        """
        if self.refusal is not None and (hook != "relay_instruments" or not self._lists_without()):
            raise AuthenticationFailed(self.refusal)
        # A task of its own, so that whoever waits can be cancelled whatever the plugin does.
        task = asyncio.create_task(self._answer(hook, read, arguments), name=f"{hook} of {self.name}")
        try:
            done, _ = await asyncio.wait((task,), timeout=self._timing.call_timeout_s)
        finally:
            if not task.done():
                await self._end(task, self._timing.call_grace_s)
            elif not task.cancelled():
                # Seen, so that asyncio does not report the error of a call whose caller was cancelled as it ended.
                task.exception()
        if not done:
            raise ProviderTimeout(f"{self.info.title} did not answer in time")
        if task.cancelled():
            raise ProviderUnavailable(f"provider {self.name} failed (CancelledError in {hook})")
        return task.result()

    async def _answer(self, hook: str, read: Callable[[Any], Any], arguments: Mapping[str, Any]) -> Any:
        failure: ProviderError
        SPEAKER.set(self._speaker)
        task = asyncio.current_task()
        try:
            with self._use.held() as settings:
                pending = self._hooks[hook](session=self.session, settings=settings, **arguments)
                if not inspect.isawaitable(pending):
                    told = f"{hook} returned {kind_of(pending)}; write it with `async def`"
                    raise BadAnswer(f"provider {self.name}: {told}")
                return read(await pending)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit | Killed) and (task is None or task.cancelling()):
                raise
            failure = self.failures.judged(hook, error)
        raise failure
