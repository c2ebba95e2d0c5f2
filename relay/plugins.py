"""Find, check and bind provider plugins; a plugin that fails is reported and the others serve."""

import asyncio
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import aiohttp
import pluggy

from relay import hookspecs
from relay.clock import ProviderClock
from relay.errors import AuthenticationFailed, BadAnswer, PluginError, ProviderError, ProviderTimeout
from relay.errors import ProviderUnavailable as Unavailable
from relay.intervals import INTERVALS
from relay.model import Budget, Candle, Instrument, PriceUpdate, ProviderInfo, StreamKey
from relay.watchlist import Watchlist

log = logging.getLogger(__name__)

ENTRY_POINTS = "relay.providers"
CALL_TIMEOUT_S = 60.0


class PluginFailure(NamedTuple):
    """A plugin that was refused, and why."""

    source: str
    error: str


class Loaded(NamedTuple):
    """A provider plugin that passed the checks on arrival."""

    info: ProviderInfo
    plugin: object
    source: str
    version: str


class PluginHost:
    """The plugins of one relay."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.loaded: dict[str, Loaded] = {}
        self.failures: list[PluginFailure] = []

    def load(self, builtin: Iterable[object], named: Iterable[str] = ()) -> None:
        """Take the built-in providers, then installed entry points, then modules and files named in `plugins`."""
        for plugin in builtin:
            name = getattr(plugin, "__name__", type(plugin).__name__)
            self._take(f"builtin:{name}", partial(_itself, plugin), "")
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            version = entry.dist.version if entry.dist is not None else ""
            self._take(f"entry point:{entry.name}", entry.load, version)
        for name in named:
            self._take(f"{'file' if name.endswith('.py') else 'module'}:{name}", partial(_import, name), "")

    def _take(self, source: str, find: Callable[[], object], version: str) -> None:
        try:
            self._add(source, find, version)
        except PluginError as error:
            self.failures.append(PluginFailure(source, error.reason))
            log.error("%s", error)

    def _add(self, source: str, find: Callable[[], object], version: str) -> None:
        plugin: object = None
        try:
            plugin = find()
            if inspect.isclass(plugin):
                plugin = plugin()
            self._manager.register(plugin, name=source)
            self._manager.check_pending()
            loaded = self._check(plugin, source, version)
        except PluginError:
            self._discard(plugin)
            raise
        except Exception as error:
            self._discard(plugin)
            log.debug("plugin %s failed", source, exc_info=True)
            raise PluginError(source, f"{type(error).__name__}: {error}") from error
        if loaded is None:
            return
        previous = self.loaded.get(loaded.info.name)
        if previous is not None:
            log.warning("provider %s of %s replaces the one of %s", loaded.info.name, source, previous.source)
            self._manager.unregister(previous.plugin)
        self.loaded[loaded.info.name] = loaded

    def _discard(self, plugin: object) -> None:
        if plugin is not None and self._manager.is_registered(plugin):
            self._manager.unregister(plugin)

    def _check(self, plugin: object, source: str, version: str) -> Loaded | None:
        """Return the provider, or None for a plugin that only wraps the hooks of others. Raises `PluginError`."""
        callers = self._manager.get_hookcallers(plugin) or []
        own = {
            caller.name
            for caller in callers
            for impl in caller.get_hookimpls()
            if impl.plugin is plugin and not impl.wrapper and not impl.hookwrapper
        }
        if not callers:
            raise PluginError(source, "implements no hook; mark its functions with @hookimpl")
        if not own:
            return None
        if "relay_provider" not in own:
            raise PluginError(source, "lacks the hook relay_provider")
        info = self._caller("relay_provider", plugin)()
        if not isinstance(info, ProviderInfo):
            raise PluginError(source, f"relay_provider returned {type(info).__name__}, not ProviderInfo")
        if info.api != hookspecs.API_VERSION:
            advice = (
                "upgrade relay or use an older plugin" if info.api > hookspecs.API_VERSION else "upgrade the plugin"
            )
            raise PluginError(
                source, f"needs provider API {info.api}, this relay has {hookspecs.API_VERSION}; {advice}"
            )
        if "relay_stream" not in own:
            raise PluginError(source, "lacks the hook relay_stream")
        if not info.name.isidentifier() or info.name != info.name.lower():
            raise PluginError(source, f"name {info.name!r} is not a lower-case identifier such as my_exchange")
        unknown = [interval for interval in info.intervals if interval not in INTERVALS]
        if unknown or not info.intervals:
            raise PluginError(source, f"intervals {unknown or '()'} are not among {' '.join(INTERVALS)}")
        return Loaded(info, plugin, source, version)

    def _caller(self, hook: str, plugin: object) -> Any:
        """Return a hook bound to one provider: other providers are left out, wrappers stay."""
        others = [other for other in self._manager.get_plugins() if other is not plugin and not self._only_wraps(other)]
        return self._manager.subset_hook_caller(hook, remove_plugins=others)

    def _only_wraps(self, plugin: object) -> bool:
        return not any(
            impl.plugin is plugin and not impl.wrapper and not impl.hookwrapper
            for caller in self._manager.get_hookcallers(plugin) or []
            for impl in caller.get_hookimpls()
        )

    def implements(self, plugin: object, hook: str) -> bool:
        """Say whether a plugin itself implements a hook."""
        caller = getattr(self._manager.hook, hook)
        return any(impl.plugin is plugin for impl in caller.get_hookimpls())

    def bind(self, loaded: Loaded, settings: Mapping[str, Any], clock: ProviderClock) -> "Provider":
        """Return the provider with its hooks bound to it alone."""
        hooks = {
            hook: self._caller(hook, loaded.plugin)
            for hook in ("relay_stream", "relay_candles", "relay_instruments", "relay_budgets")
            if self.implements(loaded.plugin, hook)
        }
        return Provider(loaded, hooks, settings, clock)


def _itself(plugin: object) -> object:
    return plugin


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.name}")
    module_name = f"relay_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


class Provider:
    """One provider with its settings, session and clock. Whatever a plugin raises leaves here as ProviderError."""

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
        self._session: aiohttp.ClientSession | None = None

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

    async def stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        """Yield the updates of one feed. Raises `ProviderError`."""
        if self.refusal is not None:
            raise AuthenticationFailed(self.refusal)
        try:
            updates = self._hooks["relay_stream"](watchlist=watchlist, session=self.session, settings=self.settings)
            async with aclosing(updates):
                async for update in updates:
                    yield update
        except ProviderError:
            raise
        except Exception as error:
            raise self._blame("relay_stream", error) from error

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        """Return history as the hook gives it. Raises `ProviderError`."""
        answer = await self._call(
            "relay_candles", symbol=key.symbol, interval=key.interval, start=start, end=end, limit=limit
        )
        return self._list_of(Candle, "relay_candles", answer)

    async def instruments(self) -> Sequence[Instrument]:
        """Return what can be streamed. Raises `ProviderError`."""
        return self._list_of(Instrument, "relay_instruments", await self._call("relay_instruments"))

    def budgets(self) -> Sequence[Budget]:
        """Return how much of the provider's limits is used; nothing if the plugin fails."""
        hook = self._hooks.get("relay_budgets")
        if hook is None:
            return ()
        try:
            return tuple(hook(settings=self.settings) or ())
        except Exception:
            log.exception("provider %s failed in relay_budgets", self.name)
            return ()

    async def _call(self, hook: str, **arguments: Any) -> Any:
        if self.refusal is not None and hook != "relay_instruments":
            raise AuthenticationFailed(self.refusal)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                pending: Awaitable[Any] = self._hooks[hook](session=self.session, settings=self.settings, **arguments)
                return await pending
        except ProviderError:
            raise
        except TimeoutError:
            raise ProviderTimeout(f"{self.info.title} did not answer in time") from None
        except Exception as error:
            raise self._blame(hook, error) from error

    def _list_of(self, kind: type, hook: str, answer: Any) -> Sequence[Any]:
        if not isinstance(answer, Sequence) or not all(isinstance(item, kind) for item in answer):
            raise BadAnswer(f"provider {self.name}: {hook} did not return a list of {kind.__name__}")
        return answer

    def _blame(self, hook: str, error: Exception) -> Unavailable:
        """Log what a plugin raised, and return what clients may know of it."""
        log.error("provider %s failed in %s", self.name, hook, exc_info=error)
        return Unavailable(f"provider {self.name} failed ({type(error).__name__} in {hook})")
