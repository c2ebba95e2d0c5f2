"""One bound provider: what its hooks answer is judged here, and what they raise leaves as `ProviderError`."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp

from relay.core.clock import ProviderClock, StatedClock
from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
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
    NativeLive,
    NativeUpdate,
    PriceUpdate,
    ProviderInfo,
    StreamKey,
)
from relay.core.outward_proxies import OutwardProxies
from relay.core.past_change import PastChange
from relay.core.saved_value import Memory
from relay.plugins.arrivals import Loaded, lacking_setting
from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming
from relay.plugins.failure_judge import FailureJudge
from relay.plugins.feed_waits import FeedWaits
from relay.plugins.hook_calls import HookCalls
from relay.plugins.judged_feed import JudgedFeeds
from relay.plugins.judged_instruments import judged_answer, judged_list
from relay.plugins.market_hours import MarketHours
from relay.plugins.outage import Outage
from relay.plugins.provider_secrets import ProviderSecrets
from relay.plugins.provider_session import ProviderSession
from relay.plugins.request_waits import RequestWait, RequestWaits
from relay.plugins.validation import CandleValidator, fault_of_budget, fault_of_live, fault_of_native, fault_of_type
from relay.telemetry.events import Speaker, event
from relay.telemetry.loop_monitor import Blocks
from relay.upstream.watchlist import Watchlist

log = logging.getLogger(__name__)

_MOST_ORIGINS = 64


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
        self.proxies = proxies or OutwardProxies()
        self.border = CandleValidator(loaded.info)
        self.has_history = "relay_candles" in hooks
        self.lists_instruments = "relay_instruments" in hooks
        self.looks_up_instruments = "relay_instrument" in hooks
        self.tells_past_changes = "relay_past_changes" in hooks
        self.answers_natively = "relay_native" in hooks
        self.answers_live = {"relay_native_live", "relay_native_stream"} <= {*hooks}
        self.remembers = "relay_memory" in hooks
        self.loaded = loaded
        self._secrets = ProviderSecrets(settings, self.proxies)
        self.conceal, self.tell = self._secrets.conceal, self._secrets.tell
        self.failures = FailureJudge(self.name, self.conceal, lambda: bool(loaded.info.needs_key or self._secrets))
        self._calls = HookCalls(
            loaded.info,
            Speaker(loaded.info.name, is_instance=bool(loaded.uses)),
            hooks,
            settings,
            lambda: self.session,
            self.failures,
            timing,
            self._note_close,
        )
        self.end_feed, self.end_stream = self._calls.end_feed, self._calls.end_stream
        self.refusal: str | None = self._missing_key()
        self._feeds = JudgedFeeds(self._calls, self.border, self.failures, lambda: self.refusal, self._tell_bad_extras)
        self.hours = MarketHours(self._calls, self.failures, lambda: self.clock)
        self.market = self.hours.market
        self.is_closed = False
        self.outage = Outage()
        self._has_bad_extras = False
        self.blocks = Blocks()
        self.clock: ProviderClock = self._stated_clock(clock) or clock
        self._session = ProviderSession(self.name, self.clock, self.proxies, self.failures)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings by name, as they are now."""
        return self._calls.use.present

    @property
    def keeps_clients(self) -> bool:
        """Whether the plugin may keep connections and tasks of its own until `close`: it has a hook that ends them."""
        return self._calls.has("relay_close")

    @property
    def killed(self) -> int:
        """How many tasks of the plugin did not end when they were cancelled."""
        return self._calls.killed

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
        self._calls.use.replace(settings)
        self._calls.waits.forget()
        self._calls.feed_waits.forget()
        self.hours.forget()
        self._secrets.add(settings)
        self.readmit()

    def open(self, session: aiohttp.ClientSession, intake: Intake | None = None) -> None:
        """Use this session from now on, until `close`; another one in its place gets this `intake`."""
        self._session.open(session, intake)
        self.is_closed = False

    async def close(self) -> None:
        """Have the plugin let go of its own, then close the session: once, after the last feed and call."""
        if self._session.is_open and not self.is_closed:
            self.is_closed = True
            await self._calls.use.close()
            await self._session.close()

    def _note_close(self, error: BaseException) -> None:
        failure = self.failures.judged("relay_close", error)
        about = event("close_failed", provider=self.name)
        log.warning("relay_close of %s failed: %s", self.name, log_text(failure), extra=about)

    def remember(self, memory: Memory) -> None:
        """Hand the plugin its place for what it wants to know after a restart."""
        if not self._calls.has("relay_memory"):
            return
        try:
            self._calls.ask("relay_memory", memory=memory)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_memory", error)

    def _stated_clock(self, clock: ProviderClock) -> StatedClock | None:
        """Return the clock that the plugin states, None if it leaves that to the relay, or fails."""
        if not self._calls.has("relay_clock"):
            return None
        is_blamed = False

        def blame(error: Exception) -> None:
            nonlocal is_blamed
            # Read for each update: once is enough to know.
            if not is_blamed:
                is_blamed = True
                self.failures.judged("relay_clock", error)

        try:
            read = self._calls.ask("relay_clock")
            return None if read is None else StatedClock(clock, read, blame)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_clock", error)
            return None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The provider's HTTP session; another one when the plugin closed it, or its connector."""
        return self._session.present

    def judge_stream(self, key: StreamKey, error: BaseException) -> ProviderError:
        """Return what may be told of an error of one stream alone; a mistake of the plugin's is logged."""
        return self.failures.judged_in_stream(key, error)

    def said_again(self) -> ProviderInfo:
        """Return what `relay_provider` of the plugin says when it is called once more, under the instance's name."""
        said: ProviderInfo = self._calls.ask("relay_provider")
        return said._replace(name=self.name, api=self.info.api, settings=self.info.settings)

    def stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Yield the updates of one feed; what makes no sense is reported to the watchlist and left out.

        Raises `ProviderError`.
        """
        return self._feeds.stream(watchlist, self.open_feed)

    def open_feed(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Return what `relay_stream` returns, unjudged. Raises what the plugin raises, or `BadAnswer`."""
        watchlist.bind(self)
        return self._calls.open_feed(watchlist)

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

        self._check_refusal("relay_native")
        with self._noted(path):
            found: NativeAnswer = await self._calls.call("relay_native", read, path=path, query=query)
        return found

    def native_live(self, path: str, query: Mapping[str, str]) -> NativeLive | None:
        """Return the venue's own stream that has the answer to a request; None also if the plugin fails."""
        if not self.answers_live:
            return None
        try:
            live: NativeLive | None = self._calls.ask("relay_native_live", path=path, query=query)
            if live is not None and (fault := fault_of_live(live)) is not None:
                raise BadAnswer(f"provider {self.name}: relay_native_live {fault}")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_native_live", error)
            return None
        return live

    def live_body(self, live: NativeLive, content: Any) -> bytes | None:
        """Return the answer that a stream's newest content makes; None if the plugin fails."""
        try:
            body = live.body(content)
            if type(body) is not bytes:
                raise BadAnswer(f"provider {self.name}: the body of a NativeLive is not bytes")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_native_live", error)
            return None
        return body

    def native_stream(self, watchlist: Watchlist) -> AsyncGenerator[NativeUpdate, None]:
        """Yield what the venue's own streams say. Raises `ProviderError`."""
        watchlist.bind(self)
        return self._feeds.native_stream(watchlist)

    def budgets(self) -> Sequence[Budget]:
        """Return how much of the provider's limits is used; nothing if the plugin fails."""
        if not self._calls.has("relay_budgets"):
            return ()
        try:
            answer = self._calls.ask("relay_budgets")
            found = () if answer is None else tuple(answer)
            fault = next(filter(None, map(fault_of_budget, found)), None)
            if fault is not None:
                raise BadAnswer(f"provider {self.name}: relay_budgets: {fault}")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_budgets", error)
            return ()
        return found

    def requests_wait(self) -> RequestWait | None:
        """Return for how long the provider takes no requests, None if it does as far as is known."""
        return self._calls.waits.longest()

    @property
    def request_waits(self) -> RequestWaits:
        """How long it takes no requests: what it told, and what other relays were told."""
        return self._calls.waits

    @property
    def feed_waits(self) -> FeedWaits:
        """How long it takes no new connections: what it told, and what other relays were told."""
        return self._calls.feed_waits

    def feeds_wait(self) -> RequestWait | None:
        """Return for how long no feed of candles may be opened, None if one may."""
        return self.feed_waits.left()

    @property
    def shares(self) -> bool:
        """Whether the plugin can be told to spend a part of its limits."""
        return self._calls.has("relay_share")

    def share(self, parts: int) -> None:
        """Tell the plugin to spend one of so many equal parts of its limits; 1 is all. One that cannot spends all."""
        if not self.shares:
            return
        try:
            self._calls.ask("relay_share", parts=parts)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_share", error)

    @property
    def is_of_relays(self) -> bool:
        """Whether its candles come through other relays."""
        return self._calls.has("relay_origins")

    def origins(self) -> Sequence[str]:
        """Return the marks of the relays that the candles come through; nothing if the plugin fails, or asks none."""
        if not self._calls.has("relay_origins"):
            return ()
        try:
            answer = self._calls.ask("relay_origins")
            found = () if answer is None else tuple(answer)
            if len(found) > _MOST_ORIGINS or not all(isinstance(one, str) for one in found):
                raise BadAnswer(f"provider {self.name}: relay_origins returned no texts, or more than {_MOST_ORIGINS}")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            self.failures.judged("relay_origins", error)
            return ()
        return found

    async def _list(self, hook: str, kind: type, **arguments: Any) -> list[Any]:
        """Return the list that a hook returns. Raises `ProviderError`."""
        self._check_refusal(hook)
        with self._noted(hook):
            return await self._calls.listed(hook, kind, **arguments)

    async def _call(self, hook: str, read: Callable[[Any], Any], **arguments: Any) -> Any:
        """Return what a hook returns after a while, as `read` has it. Raises `ProviderError`."""
        self._check_refusal(hook)
        with self._noted(hook):
            return await self._calls.call(hook, read, **arguments)

    @contextmanager
    def _noted(self, call: str) -> Iterator[None]:
        """Note whether the venue answers a call. What it refuses, or answers badly, says nothing about that."""
        try:
            yield
        except (ProviderUnavailable, ProviderTimeout) as failure:
            self.outage.note(call, failure)
            raise
        self.outage.end(call)

    def _check_refusal(self, hook: str) -> None:
        if self.refusal is not None and (hook != "relay_instruments" or not self._lists_without()):
            raise AuthenticationFailed(self.refusal)
