"""Find, check and bind provider plugins; a plugin that fails is reported and the others serve."""

import asyncio
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import aiohttp
import pluggy

from relay import hookspecs
from relay.clock import ProviderClock
from relay.errors import (
    AuthenticationFailed,
    BadAnswer,
    PluginError,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    UnknownSymbol,
)
from relay.errors import ProviderUnavailable as Unavailable
from relay.model import Budget, Candle, Instrument, PriceUpdate, ProviderInfo, Setting, StreamKey
from relay.rest import MAX_RETRY_AFTER_S, RETRY_AFTER_S, RestAnswer, network_cause
from relay.sanity import (
    fault_of_budget,
    fault_of_candle,
    fault_of_info,
    fault_of_instrument,
    fault_of_update,
    kind_of,
    list_fault,
)
from relay.secret import Secret
from relay.version import VERSION
from relay.watchlist import Watchlist

log = logging.getLogger(__name__)

ENTRY_POINTS = "relay.providers"
CALL_TIMEOUT_S = 60.0
"""How long one call of `relay_candles` or `relay_instruments` may take."""
END_GRACE_S = 3.0
"""How long a feed may take to end after it was cancelled; a WebSocket that has to be closed needs some of it."""
CALL_GRACE_S = 1.0
"""How long a call may take to end after it was cancelled."""
KILL_GRACE_S = 0.5
SESSION_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)

_MOST_AT_A_TIME = 100
_MESSAGE_LENGTH = 300
_LEAST_SECRET = 4
_NETWORK_ERRORS = (aiohttp.ClientError, ConnectionError, TimeoutError)


class PluginFailure(NamedTuple):
    """A plugin that was refused, and why. `name` is the best guess at what its provider is called."""

    source: str
    error: str
    name: str = ""


class Loaded(NamedTuple):
    """A provider plugin that passed the checks on arrival."""

    info: ProviderInfo
    plugin: object
    source: str
    version: str


class Wrapping(NamedTuple):
    """A plugin that is no provider: it wraps hooks of others."""

    plugin: object
    source: str
    version: str
    hooks: tuple[str, ...]


class PluginHost:
    """The plugins of one relay."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.loaded: dict[str, Loaded] = {}
        self.wrappings: list[Wrapping] = []
        self.failures: list[PluginFailure] = []

    def load(self, builtin: Iterable[object], named: Iterable[str] = (), *, installed: bool = True) -> None:
        """Take the built-in providers, then installed entry points, then modules and files named in `plugins`."""
        for plugin in builtin:
            name = getattr(plugin, "__name__", type(plugin).__name__)
            self._take(f"builtin:{name}", partial(_itself, plugin), "")
        for source, find, version in self._installed() if installed else ():
            self._take(source, find, version)
        for name in named:
            self._take(f"{'file' if name.endswith('.py') else 'module'}:{name}", partial(_import, name), "")

    def _installed(self) -> Iterator[tuple[str, Callable[[], object], str]]:
        try:
            found = list(importlib.metadata.entry_points(group=ENTRY_POINTS))
        except Exception as error:  # noqa: BLE001 - whatever a list may do to its parser
            # One distribution with a broken list hides those of all others: look at each alone.
            log.warning("an installed distribution has a malformed list of entry points (%s)", kind_of(error))
            found = []
            for distribution in importlib.metadata.distributions():
                with suppress(Exception):
                    found += [entry for entry in distribution.entry_points if entry.group == ENTRY_POINTS]
        for entry in found:
            version = ""
            with suppress(Exception):
                version = entry.dist.version if entry.dist is not None else ""
            yield f"entry point:{entry.name}", entry.load, version or ""

    def _take(self, source: str, find: Callable[[], object], version: str) -> None:
        try:
            self._add(source, find, version)
        except PluginError as error:
            self.failures.append(PluginFailure(source, error.reason, error.name or _guess_name(source)))
            log.error("%s", error)

    def _add(self, source: str, find: Callable[[], object], version: str) -> None:
        plugin: object = None
        try:
            plugin = find()
            if inspect.isclass(plugin):
                plugin = plugin()
            if self._is_known(plugin, source, version):
                return
            self._check_hooks(plugin, source)
            self._manager.register(plugin, name=source)
            loaded = self._check(plugin, source, version)
        except PluginError:
            self._discard(plugin)
            raise
        except (Exception, SystemExit) as error:
            self._discard(plugin)
            log.debug("plugin %s failed", source, exc_info=True)
            raise PluginError(source, _one_line(f"{type(error).__name__}: {error}")) from error
        if isinstance(loaded, Wrapping):
            self.wrappings.append(loaded)
            return
        previous = self.loaded.get(loaded.info.name)
        if previous is not None:
            log.warning("provider %s of %s replaces the one of %s", loaded.info.name, source, previous.source)
            self._manager.unregister(previous.plugin)
        self.loaded[loaded.info.name] = loaded

    def _is_known(self, plugin: object, source: str, version: str) -> bool:
        """Say whether the very same plugin came in by another door already; the later door gives the name."""
        if not self._manager.is_registered(plugin):
            return False
        for name, loaded in self.loaded.items():
            if loaded.plugin is plugin:
                self.loaded[name] = loaded._replace(source=source, version=version or loaded.version)
                log.info("plugin %s was already loaded as %s", source, loaded.source)
        return True

    def _discard(self, plugin: object) -> None:
        if plugin is not None and self._manager.is_registered(plugin):
            self._manager.unregister(plugin)

    # -- checks on arrival -------------------------------------------------------------------------

    def _check_hooks(self, plugin: object, source: str) -> None:
        """Refuse hooks that do not exist and arguments that are never given. Raises `PluginError`."""
        specs = {spec.__name__: tuple(inspect.signature(spec).parameters) for spec in hookspecs.HOOKS}
        marked = [name for name in dir(plugin) if self._manager.parse_hookimpl_opts(plugin, name) is not None]
        if not marked:
            unmarked = [name for name in specs if callable(getattr(plugin, name, None))]
            if unmarked:
                raise PluginError(source, f"{' and '.join(unmarked)} are not marked with @hookimpl")
            raise PluginError(source, "implements no hook; mark its functions with @hookimpl")
        for name in marked:
            if name not in specs:
                raise PluginError(source, f"marks {name} as a hook, which there is not; hooks are {', '.join(specs)}")
            wanted = inspect.signature(getattr(plugin, name)).parameters.values()
            for parameter in wanted:
                if parameter.name not in specs[name] and parameter.default is parameter.empty:
                    given = ", ".join(specs[name]) or "no arguments"
                    raise PluginError(source, f"{name} asks for {parameter}, which it is not given; it gets {given}")

    def _check(self, plugin: object, source: str, version: str) -> "Loaded | Wrapping":
        """Ask a registered plugin who it is. Raises `PluginError`."""
        own = [spec.__name__ for spec in hookspecs.HOOKS if self.implements(plugin, spec.__name__)]
        if not own:
            wrapped = tuple(caller.name for caller in self._manager.get_hookcallers(plugin) or ())
            return Wrapping(plugin, source, version, wrapped)
        if "relay_provider" not in own:
            raise PluginError(source, self._lack(plugin, "relay_provider"))
        info = self._caller("relay_provider", plugin)()
        if not isinstance(info, ProviderInfo):
            _let_go(info)
            raise PluginError(source, f"relay_provider returned {kind_of(info)}, not ProviderInfo")
        name = info.name if isinstance(info.name, str) else ""
        if type(info.api) is not int:
            raise PluginError(source, f"api is {info.api!r}, not API_VERSION", name)
        if info.api != hookspecs.API_VERSION:
            is_newer = info.api > hookspecs.API_VERSION
            advice = "upgrade relay or use an older plugin" if is_newer else "upgrade the plugin"
            raise PluginError(
                source, f"needs provider API {info.api}, this relay has {hookspecs.API_VERSION}; {advice}", name
            )
        if "relay_stream" not in own:
            raise PluginError(source, self._lack(plugin, "relay_stream"), name)
        fault = fault_of_info(info)
        if fault is not None:
            raise PluginError(source, fault, name)
        return Loaded(info._replace(settings=tuple(map(_guarded, info.settings))), plugin, source, version)

    def _lack(self, plugin: object, hook: str) -> str:
        if callable(getattr(plugin, hook, None)):
            return f"{hook} is not marked with @hookimpl"
        return f"lacks the hook {hook}"

    # -- binding -----------------------------------------------------------------------------------

    def _caller(self, hook: str, plugin: object) -> Any:
        """Return a hook bound to one provider: other providers are left out, wrappers stay."""
        others = [other for other in self._manager.get_plugins() if other is not plugin and not self._only_wraps(other)]
        return self._manager.subset_hook_caller(hook, remove_plugins=others)

    def _only_wraps(self, plugin: object) -> bool:
        return not any(self.implements(plugin, spec.__name__) for spec in hookspecs.HOOKS)

    def implements(self, plugin: object, hook: str) -> bool:
        """Say whether a plugin itself implements a hook; wrapping that of others is not implementing it."""
        caller = getattr(self._manager.hook, hook)
        return any(
            impl.plugin is plugin and not impl.wrapper and not impl.hookwrapper for impl in caller.get_hookimpls()
        )

    def bind(self, loaded: Loaded, settings: Mapping[str, Any], clock: ProviderClock) -> "Provider":
        """Return the provider with its hooks bound to it alone."""
        hooks = {
            spec.__name__: self._caller(spec.__name__, loaded.plugin)
            for spec in hookspecs.HOOKS
            if spec is not hookspecs.relay_provider and self.implements(loaded.plugin, spec.__name__)
        }
        return Provider(loaded, hooks, settings, clock)


def _itself(plugin: object) -> object:
    return plugin


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    module_name = f"relay_plugin_{path.stem}"
    number = 1
    while module_name in sys.modules:
        number += 1
        module_name = f"relay_plugin_{path.stem}_{number}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up there.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _guarded(setting: Setting) -> Setting:
    """Return the setting with a check that cannot raise: a plugin's mistake must not end the relay."""
    check = setting.check
    if check is None:
        return setting

    def guarded(value: object) -> str | None:
        try:
            fault = check(value)
        except Exception as error:  # noqa: BLE001 - a plugin is isolated here
            log.debug("the check of the setting %s failed", setting.name)
            return f"cannot be checked: {type(error).__name__}"
        return None if fault is None else str(fault)

    return setting._replace(check=guarded)


def _guess_name(source: str) -> str:
    door, _, where = source.partition(":")
    return Path(where).stem if door == "file" else where.rpartition(".")[2]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _let_go(value: object) -> None:
    """Close a coroutine that nobody will await, or Python warns about it later."""
    if inspect.iscoroutine(value):
        value.close()


# -- what bound providers need ---------------------------------------------------------------------


def new_session(clock: ProviderClock) -> aiohttp.ClientSession:
    """Return an HTTP session for one provider, which reads the provider's clock from every answer."""
    trace = aiohttp.TraceConfig()

    async def read(session: Any, context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        stamp = aiohttp.helpers.parse_http_date(params.response.headers.get("Date"))
        if stamp is not None:
            clock.observe(stamp.timestamp())

    trace.on_request_end.append(read)
    return aiohttp.ClientSession(
        timeout=SESSION_TIMEOUT,
        headers={"User-Agent": f"market-relay/{VERSION}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
    )


async def end_task(task: asyncio.Task[Any], grace_s: float | None = None) -> None:
    """Cancel a task that runs a plugin's code and wait for its end, a few seconds (`grace_s`) at most.

    A plugin that swallows `CancelledError`, or whose clean-up never ends, is killed where it waits, with a line in the
    log. The task's name has to say whose it is. Being cancelled here does not cut the waiting short.
    """
    ending = asyncio.create_task(_end(task, END_GRACE_S if grace_s is None else grace_s))
    is_cancelled = False
    while not ending.done():
        try:
            await asyncio.wait((ending,))
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError


async def _end(task: asyncio.Task[Any], grace_s: float) -> None:
    for patience_s in (grace_s, KILL_GRACE_S):
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=patience_s)
    if not task.done():
        log.error("%s does not end when it is cancelled and was killed; its plugin needs repair", task.get_name())
        coroutine = task.get_coro()
        # It raises when the plugin catches even GeneratorExit, or awaits something in `finally`.
        with suppress(RuntimeError):
            if coroutine is not None:
                coroutine.close()
        task.cancel()
        await asyncio.wait((task,), timeout=KILL_GRACE_S)
    if not task.done():
        log.error("%s cannot be ended at all", task.get_name())
    elif not task.cancelled():
        # Seen, so that asyncio does not report what nobody asks for.
        task.exception()


class Provider:
    """One provider with its settings, session and clock. Whatever a plugin raises leaves here as ProviderError.

    No error or log line that leaves here holds one of the provider's secrets.
    """

    def __init__(
        self, loaded: Loaded, hooks: Mapping[str, Any], settings: Mapping[str, Any], clock: ProviderClock
    ) -> None:
        self.info = loaded.info
        self.name = loaded.info.name
        self.source = loaded.source
        self.settings = settings
        self.clock = clock
        self.has_history = "relay_candles" in hooks
        self.lists_instruments = "relay_instruments" in hooks
        self.refusal: str | None = self._missing_key()
        self._hooks = hooks
        self._plugin = loaded.plugin
        self._secrets = tuple(_spellings(settings.values()))
        self._session: aiohttp.ClientSession | None = None
        self._blamed: dict[str, str] = {}

    def _missing_key(self) -> str | None:
        key = self.info.needs_key
        if not key or self.settings.get(key):
            return None
        variable = f"RELAY_{self.name}_{key}".upper()
        return f"{self.info.title} needs a key: set {variable}, or {key} in [{self.name}] of the configuration"

    def open(self, session: aiohttp.ClientSession) -> None:
        """Use this session from now on; the caller closes it."""
        self._session = session

    @property
    def session(self) -> aiohttp.ClientSession:
        """The provider's HTTP session."""
        if self._session is None:
            raise Unavailable(f"{self.name} is not open")
        return self._session

    def conceal(self, text: str) -> str:
        """Return a text of the plugin's without the provider's secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    # -- hooks -------------------------------------------------------------------------------------

    def said_again(self) -> ProviderInfo:
        """Return what `relay_provider` of the plugin says when it is called once more."""
        said: ProviderInfo = self._plugin.relay_provider()  # type: ignore[attr-defined]
        return said

    def open_feed(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Return what `relay_stream` returns, unjudged. Raises what the plugin raises, or `BadAnswer`."""
        watchlist.conceal(self.conceal)
        updates = self._hooks["relay_stream"](watchlist=watchlist, session=self.session, settings=self.settings)
        if not isinstance(updates, AsyncGenerator):
            advice = "; write `def`, not `async def`, around `return`" if inspect.iscoroutine(updates) else ""
            _let_go(updates)
            raise BadAnswer(f"relay_stream returned {kind_of(updates)}, not an async generator{advice}")
        return updates

    async def stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Yield the updates of one feed; what makes no sense is reported to the watchlist and left out.

        Raises `ProviderError`.
        """
        if self.refusal is not None:
            raise AuthenticationFailed(self.refusal)
        failure: ProviderError
        in_a_row = 0
        try:
            async with aclosing(self.open_feed(watchlist)) as updates:
                async for update in updates:
                    fault = fault_of_update(update, watchlist)
                    if fault is None:
                        yield update
                    else:
                        watchlist.skip(fault)
                    in_a_row += 1
                    if in_a_row >= _MOST_AT_A_TIME:
                        # A plugin that never waits would keep everybody else waiting.
                        in_a_row = 0
                        await asyncio.sleep(0)
            return
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled the feed: the plugin waited for something of its own that was.
            failure = self._judged("relay_stream", error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin is isolated here
            failure = self._judged("relay_stream", error)
        # Raised out here: inside `except` it would drag the original along, which may hold a key.
        raise failure

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        """Return history as the hook gives it. Raises `ProviderError`."""
        answer = await self._call(
            "relay_candles", symbol=key.symbol, interval=key.interval, start=start, end=end, limit=limit
        )
        self._check_list("relay_candles", answer, Candle)
        for candle in answer:
            # Faulty values are dropped by whoever uses them; a wrong type is a mistake in the plugin.
            if not isinstance(candle, Candle) or set(map(type, candle)) - {int, float}:
                raise BadAnswer(f"provider {self.name}: relay_candles: {fault_of_candle(candle)}")
        return list(answer)

    async def instruments(self) -> Sequence[Instrument]:
        """Return what can be streamed; entries that make no sense are left out. Raises `ProviderError`."""
        answer = await self._call("relay_instruments")
        self._check_list("relay_instruments", answer, Instrument)
        faults = [fault_of_instrument(instrument, self.info) for instrument in answer]
        found = [instrument for instrument, fault in zip(answer, faults, strict=True) if fault is None]
        first = next((fault for fault in faults if fault is not None), None)
        if first is not None:
            if not found:
                raise BadAnswer(f"provider {self.name}: relay_instruments: {first}")
            log.warning(
                "provider %s lists %d instruments that make no sense, the first: %s",
                self.name,
                len(faults) - len(found),
                first,
            )
        return found

    def budgets(self) -> Sequence[Budget]:
        """Return how much of the provider's limits is used; nothing if the plugin fails."""
        hook = self._hooks.get("relay_budgets")
        if hook is None:
            return ()
        try:
            answer = hook(settings=self.settings)
            found = () if answer is None else tuple(answer)
            fault = next(filter(None, map(fault_of_budget, found)), None)
            if fault is not None:
                raise BadAnswer(f"provider {self.name}: relay_budgets: {fault}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin is isolated here
            self._judged("relay_budgets", error)
            return ()
        return found

    async def _call(self, hook: str, **arguments: Any) -> Any:
        if self.refusal is not None and hook != "relay_instruments":
            raise AuthenticationFailed(self.refusal)
        # A task of its own, so that whoever waits can be cancelled whatever the plugin does.
        task = asyncio.create_task(self._answer(hook, arguments), name=f"{hook} of {self.name}")
        try:
            done, _ = await asyncio.wait((task,), timeout=CALL_TIMEOUT_S)
        finally:
            if not task.done():
                await end_task(task, CALL_GRACE_S)
        if not done:
            raise ProviderTimeout(f"{self.info.title} did not answer in time")
        if task.cancelled():
            raise Unavailable(f"provider {self.name} failed (CancelledError in {hook})")
        return task.result()

    async def _answer(self, hook: str, arguments: Mapping[str, Any]) -> Any:
        failure: ProviderError
        try:
            pending = self._hooks[hook](session=self.session, settings=self.settings, **arguments)
            if not inspect.isawaitable(pending):
                raise BadAnswer(f"provider {self.name}: {hook} returned {kind_of(pending)}; write it with `async def`")
            return await pending
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin is isolated here
            failure = self._judged(hook, error)
        raise failure

    def _check_list(self, hook: str, answer: object, kind: type) -> None:
        fault = list_fault(answer, kind)
        if fault is not None:
            raise BadAnswer(f"provider {self.name}: {hook} {fault}")

    # -- what plugins raise ------------------------------------------------------------------------

    def _judged(self, hook: str, error: BaseException) -> ProviderError:
        """Return what may be told of an error: it holds no secret, and drags no other error along that could."""
        if isinstance(error, ProviderError):
            failure = self._concealed(error)
        elif isinstance(error, _NETWORK_ERRORS):
            failure = _network_failure(error)
        else:
            failure = self._blame(hook, error)
        failure.__cause__ = failure.__context__ = None
        return failure

    def _concealed(self, error: ProviderError) -> ProviderError:
        text = self.conceal(str(error))
        if isinstance(error, RateLimited):
            wait_s = error.retry_after
            is_usable = isinstance(wait_s, int | float) and 0 <= wait_s <= MAX_RETRY_AFTER_S
            return RateLimited(text[:_MESSAGE_LENGTH], float(wait_s) if is_usable else RETRY_AFTER_S)
        if text == str(error) and len(text) <= _MESSAGE_LENGTH:
            return error
        kinds = (AuthenticationFailed, ProviderTimeout, UnknownSymbol, BadAnswer)
        return next((kind for kind in kinds if isinstance(error, kind)), Unavailable)(text[:_MESSAGE_LENGTH])

    def _blame(self, hook: str, error: BaseException) -> Unavailable:
        """Log what a plugin raised, in full only when it is news, and return what clients may know of it."""
        summary = self.conceal(_one_line(f"{type(error).__name__}: {error}"))
        if self._blamed.get(hook) == summary:
            log.error("provider %s failed in %s again: %s", self.name, hook, summary[:_MESSAGE_LENGTH])
        else:
            self._blamed[hook] = summary
            lines = "".join(traceback.format_exception(error))
            log.error("provider %s failed in %s\n%s", self.name, hook, self.conceal(lines).rstrip())
        return Unavailable(f"provider {self.name} failed ({type(error).__name__} in {hook})")


def _network_failure(error: BaseException) -> ProviderError:
    """Read the errors that a plugin lets through from its HTTP calls."""
    if isinstance(error, aiohttp.ContentTypeError):
        return BadAnswer("the answer is no JSON")
    if isinstance(error, aiohttp.ClientResponseError):
        return RestAnswer(error.status, error.headers or {}, None).error("")
    if isinstance(error, TimeoutError):
        return ProviderTimeout("no answer in time")
    return Unavailable(f"cannot be reached: {network_cause(error)}")


def _spellings(values: Iterable[object]) -> Iterator[str]:
    """Give every secret as it may appear in a text: as it is, and as an address spells it."""
    for value in values:
        text = value.reveal() if isinstance(value, Secret) else ""
        if len(text) >= _LEAST_SECRET:
            yield from dict.fromkeys((text, quote(text), quote(text, safe=""), quote_plus(text)))
