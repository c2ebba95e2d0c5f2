"""One bound provider: what its hooks answer is judged here, and what they raise leaves as `ProviderError`."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from relay.core.clock import ProviderClock
from relay.core.compact_instruments import compact
from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)
from relay.core.intake import Intake
from relay.core.model import Budget, Candle, Instrument, OpenHours, PriceUpdate, ProviderInfo, StreamKey
from relay.core.outward_proxies import OutwardProxies
from relay.core.packed_extras import ExtrasTooLarge
from relay.core.saved_value import Memory
from relay.core.secret import pattern_of, texts_of
from relay.core.threads import in_thread_if_many
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from relay.network.http_sessions import open_session
from relay.plugins.arrivals import Loaded, lacking_setting
from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming, end_task, let_go
from relay.plugins.validation import (
    CandleValidator,
    fault_of_budget,
    fault_of_hours,
    fault_of_instrument,
    fault_of_type,
    kind_of,
    list_fault,
    shown,
    text_of,
)
from relay.telemetry.events import INSTANCE, event
from relay.telemetry.loop_monitor import Blocks
from relay.upstream.rest import MAX_RETRY_AFTER_S, NETWORK_ERRORS, RETRY_AFTER_S, network_failure
from relay.upstream.watchlist import Watchlist

log = logging.getLogger(__name__)

SESSION_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)

_MOST_AT_A_TIME = 100
_MESSAGE_LENGTH = 300
# Of what a plugin says; and more than any spelling of a secret has.
_MOST_TOLD = 100_000
_LONGEST_SPELLING = 10_000
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
        self._speaks_as = loaded.info.name if loaded.uses else ""
        self.settings = settings
        self.clock = clock
        self.proxies = proxies or OutwardProxies()
        self._timing = timing
        self.border = CandleValidator(loaded.info)
        self.has_history = "relay_candles" in hooks
        self.lists_instruments = "relay_instruments" in hooks
        self._tells_hours = self.has_hours = "relay_hours" in hooks
        self.loaded = loaded
        self.refusal: str | None = self._missing_key()
        self._hooks = hooks
        self._secrets = {*texts_of(settings.values())}
        self._secret = pattern_of(self._secrets)
        self._session: aiohttp.ClientSession | None = None
        self._intake: Intake | None = None
        self._blamed: dict[str, str] = {}
        self._has_bad_extras = False
        self._markets: dict[str, TradingHours] = {}
        self.blocks = Blocks()
        self.failed = 0
        self.killed = 0

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

        The secrets of before are still taken out of texts: who was given them may speak of them.
        """
        self.settings = settings
        self._markets.clear()
        self._secrets.update(texts_of(settings.values()))
        self._secret = pattern_of(self._secrets)
        self.readmit()

    def open(self, session: aiohttp.ClientSession, intake: Intake | None = None) -> None:
        """Use this session from now on, until `close`; another one in its place gets this `intake`."""
        self._session = session
        self._intake = intake

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    def remember(self, memory: Memory) -> None:
        """Hand the plugin its place for what it wants to know after a restart."""
        if "relay_memory" not in self._hooks:
            return
        try:
            self._ask("relay_memory", memory=memory)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self._judged("relay_memory", error)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The provider's HTTP session; another one when the plugin closed it, or its connector."""
        if self._session is None:
            raise ProviderUnavailable(f"{self.name} is not open")
        if self._session.closed:
            self.failed += 1
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

    def _note_kill(self) -> None:
        self.killed += 1

    def conceal(self, text: str) -> str:
        """Return a text without secrets of the provider and of proxies, whichever way it spells them."""
        told = self.proxies.conceal(self._secret.sub("***", text[:_MOST_TOLD]))
        # A secret may be cut in two there.
        return told if len(text) <= _MOST_TOLD else f"{told[:-_LONGEST_SPELLING]} …"

    def said_again(self) -> ProviderInfo:
        """Return what `relay_provider` of the plugin says when it is called once more, under the instance's name."""
        said: ProviderInfo = self._hooks["relay_provider"](settings=self.settings)
        return said._replace(name=self.name, api=self.info.api, settings=self.info.settings)

    def _ask(self, hook: str, **arguments: Any) -> Any:
        """Return what a hook returns at once. Raises what the plugin raises."""
        token = INSTANCE.set(self._speaks_as)
        try:
            return self._hooks[hook](settings=self.settings, **arguments)
        finally:
            INSTANCE.reset(token)

    def open_feed(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Return what `relay_stream` returns, unjudged. Raises what the plugin raises, or `BadAnswer`."""
        watchlist.conceal(self.conceal)
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
        INSTANCE.set(self._speaks_as)
        fault_of_update, in_a_row, is_left = self.border.fault_of_update, 0, False
        leaps = self.border.leaps(watchlist)
        task = asyncio.current_task()
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
            if is_ended and isinstance(error, asyncio.CancelledError | GeneratorExit):
                raise
            failure = self._judged("relay_stream", error)
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
        answer = await self._call(
            "relay_candles", Candle, symbol=key.symbol, interval=key.interval, start=start, end=end, limit=limit
        )
        for candle in answer:
            if (fault := fault_of_type(candle)) is not None:
                raise BadAnswer(self.conceal(f"provider {self.name}: relay_candles: {fault}"))
        return answer

    async def instruments(self) -> Sequence[Instrument]:
        """Return what can be streamed; entries that make no sense are left out. Raises `ProviderError`."""
        answer = await self._call("relay_instruments", Instrument)
        faults: list[str | None] = []
        known: dict[str, Instrument] = {}
        for instrument in answer:
            fault = fault_of_instrument(instrument, self.info)
            if fault is None:
                symbol = instrument.symbol
                first_of_it = known.setdefault(symbol if symbol.isupper() else symbol.upper(), instrument)
                # The same row twice does no harm: pages of a venue overlap.
                if first_of_it is not instrument and first_of_it != instrument:
                    fault = (
                        f"{symbol} is listed twice with other values, first as {first_of_it.symbol}; case is ignored"
                    )
            faults.append(fault)
            if not len(faults) % _MOST_AT_A_TIME:
                await asyncio.sleep(0)
        found = answer
        first = next((self.conceal(fault) for fault in faults if fault is not None), None)
        if first is not None:
            found = [instrument for instrument, fault in zip(answer, faults, strict=True) if fault is None]
            if not found:
                raise BadAnswer(f"provider {self.name}: relay_instruments: {first}")
            log.warning(
                "provider %s lists %d invalid instruments, the first: %s",
                self.name,
                len(faults) - len(found),
                first,
                extra=event("instruments_refused", provider=self.name, count=len(faults) - len(found)),
            )
        try:
            return await in_thread_if_many(len(found), compact, found)
        except (ExtrasTooLarge, TypeError, ValueError) as error:
            raise BadAnswer(f"provider {self.name}: relay_instruments: {self.conceal(text_of(error))}") from None

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
            self._judged("relay_budgets", error)
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
        calendar = self._asked_hours(symbol, int(self.clock.now())) if self._tells_hours else None
        return calendar.text if isinstance(calendar, TradingCalendar) else None

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
            self._judged("relay_hours", error)
            return None
        return hours

    async def _call(self, hook: str, kind: type, **arguments: Any) -> list[Any]:
        if self.refusal is not None and (hook != "relay_instruments" or not self._lists_without()):
            raise AuthenticationFailed(self.refusal)
        # A task of its own, so that whoever waits can be cancelled whatever the plugin does.
        task = asyncio.create_task(self._answer(hook, kind, arguments), name=f"{hook} of {self.name}")
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

    async def _answer(self, hook: str, kind: type, arguments: Mapping[str, Any]) -> list[Any]:
        failure: ProviderError
        INSTANCE.set(self._speaks_as)
        task = asyncio.current_task()
        try:
            pending = self._hooks[hook](session=self.session, settings=self.settings, **arguments)
            if not inspect.isawaitable(pending):
                raise BadAnswer(f"provider {self.name}: {hook} returned {kind_of(pending)}; write it with `async def`")
            answer = await pending
            if (fault := list_fault(answer, kind)) is not None:
                raise BadAnswer(f"provider {self.name}: {hook} {fault}")
            return list(answer)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit) and (task is None or task.cancelling()):
                raise
            failure = self._judged(hook, error)
        raise failure

    def _judged(self, hook: str, error: BaseException) -> ProviderError:
        """Return what may be told of an error: it holds no secret, and drags no other error along that could."""
        if isinstance(error, ProviderError):
            failure = self._concealed(error)
        elif isinstance(error, NETWORK_ERRORS):
            failure = network_failure(error)
        else:
            failure = self._blame(hook, error)
        if isinstance(failure, AuthenticationFailed) and not (self.info.needs_key or self._secrets):
            # Without a key no key was refused: somebody in front of the provider answered so, which passes.
            failure = ProviderUnavailable(str(failure))
        failure.__cause__ = failure.__context__ = None
        return failure

    def _concealed(self, error: ProviderError) -> ProviderError:
        said = text_of(error)
        text = self.conceal(said)
        if isinstance(error, RateLimited):
            wait_s = error.retry_after
            is_usable = isinstance(wait_s, int | float) and 0 <= wait_s <= MAX_RETRY_AFTER_S
            return RateLimited(text[:_MESSAGE_LENGTH], float(wait_s) if is_usable else RETRY_AFTER_S)
        if text == said and len(text) <= _MESSAGE_LENGTH:
            return error
        kinds = (AuthenticationFailed, ProviderTimeout, UnknownSymbol, BadAnswer)
        return next((kind for kind in kinds if isinstance(error, kind)), ProviderUnavailable)(text[:_MESSAGE_LENGTH])

    def _blame(self, hook: str, error: BaseException) -> ProviderUnavailable:
        """Log what a plugin raised, in full only when it is news, and return what clients may know of it."""
        self.failed += 1
        summary = self.conceal(shown(error))
        about = event("provider_failed", provider=self.name, hook=hook)
        if self._blamed.get(hook) == summary:
            text = summary[:_MESSAGE_LENGTH]
            log.error("provider %s failed in %s again: %s", self.name, hook, text, extra=about)
        else:
            self._blamed[hook] = summary
            lines = "".join(traceback.format_exception(error))
            log.error("provider %s failed in %s\n%s", self.name, hook, self.conceal(lines).rstrip(), extra=about)
        return ProviderUnavailable(f"provider {self.name} failed ({type(error).__name__} in {hook})")
