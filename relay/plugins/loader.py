"""Check and bind provider plugins; a plugin that fails is reported and the others serve."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pluggy

from relay.core.clock import ProviderClock
from relay.core.errors import PluginError
from relay.core.model import ProviderInfo, Setting
from relay.core.outward_proxies import OutwardProxies
from relay.plugins import discovery, hookspecs
from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming, let_go
from relay.plugins.declarations import fault_of_info
from relay.plugins.provider import Loaded, Provider
from relay.plugins.validation import kind_of, shown
from relay.telemetry.events import event

log = logging.getLogger(__name__)


class PluginFailure(NamedTuple):
    """A plugin that was refused, and why. `name` is the best guess at what its provider is called."""

    source: str
    error: str
    name: str = ""


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
        for source, find, version in discovery.installed() if installed else ():
            self._take(source, find, version)
        for name in named:
            find, version = partial(discovery.import_named, name), discovery.version_of(name)
            self._take(f"{'file' if name.endswith('.py') else 'module'}:{name}", find, version)

    def _take(self, source: str, find: Callable[[], object], version: str) -> None:
        try:
            self._add(source, find, version)
        except PluginError as error:
            self.failures.append(PluginFailure(source, error.reason, error.name or discovery.guess_name(source)))
            log.error("%s", error, extra=event("plugin_refused", source=source))

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
        except BaseException as error:
            self._discard(plugin)
            log.debug("plugin %s failed", source, exc_info=True, extra=event("plugin_failed", source=source))
            raise PluginError(source, shown(error)) from error
        if isinstance(loaded, Wrapping):
            self.wrappings.append(loaded)
            return
        previous = self.loaded.get(loaded.info.name)
        if previous is not None:
            log.warning(
                "provider %s of %s replaces the one of %s",
                loaded.info.name,
                source,
                previous.source,
                extra=event("provider_replaced", provider=loaded.info.name, source=source, previous=previous.source),
            )
            self._manager.unregister(previous.plugin)
        self.loaded[loaded.info.name] = loaded

    def _is_known(self, plugin: object, source: str, version: str) -> bool:
        """Say whether the very same plugin came in by another door already; the later door gives the name."""
        if not self._manager.is_registered(plugin):
            return False
        for name, loaded in self.loaded.items():
            if loaded.plugin is plugin:
                self.loaded[name] = loaded._replace(source=source, version=version or loaded.version)
                about = event("plugin_known", source=source, provider=name)
                log.info("plugin %s was already loaded as %s", source, loaded.source, extra=about)
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
                raise PluginError(
                    source, f"marks {name} as a hook, but there is no such hook; hooks are {', '.join(specs)}"
                )
            wanted = inspect.signature(getattr(plugin, name)).parameters.values()
            for parameter in wanted:
                if parameter.name not in specs[name] and parameter.default is parameter.empty:
                    given = ", ".join(specs[name]) or "no arguments"
                    raise PluginError(
                        source, f"{name} has an argument {parameter}, which does not exist; it can have {given}"
                    )

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
            let_go(info)
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

    def bind(
        self,
        loaded: Loaded,
        settings: Mapping[str, Any],
        clock: ProviderClock,
        timing: PluginTiming = PLUGIN_TIMING,
        proxies: OutwardProxies | None = None,
    ) -> "Provider":
        """Return the provider with its hooks bound to it alone."""
        hooks = {
            spec.__name__: self._caller(spec.__name__, loaded.plugin)
            for spec in hookspecs.HOOKS
            if spec is not hookspecs.relay_provider and self.implements(loaded.plugin, spec.__name__)
        }
        return Provider(loaded, hooks, settings, clock, timing, proxies)


def _itself(plugin: object) -> object:
    return plugin


def _guarded(setting: Setting) -> Setting:
    """Return the setting with a check that cannot raise: a plugin's mistake must not end the relay."""
    check = setting.check
    if check is None:
        return setting

    def guarded(value: object) -> str | None:
        try:
            fault = check(value)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            about = event("setting_unchecked", setting=setting.name)
            log.debug("the check of the setting %s failed", setting.name, extra=about)
            return f"cannot be checked: {type(error).__name__}"
        return None if fault is None else str(fault)

    return setting._replace(check=guarded)
