"""The plugins that were taken, and their hooks: which there are, what is wrong with them, how one plugin is called."""

import inspect
from collections.abc import Mapping
from typing import Any

import pluggy

from relay.core.errors import PluginError
from relay.core.model import ProviderInfo
from relay.core.near_names import did_you_mean
from relay.plugins import hookspecs
from relay.plugins.arrivals import UnreadSettings
from relay.plugins.cancellation import let_go
from relay.plugins.validation import kind_of

SPECS = {spec.__name__: spec for spec in hookspecs.HOOKS}
_GIVEN = {name: tuple(inspect.signature(spec).parameters) for name, spec in SPECS.items()}


class _Manager(pluggy.PluginManager):
    """Looks for hooks only where they can be: Python's own names are half of those that an object has."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        return None if name.startswith("__") else super().parse_hookimpl_opts(plugin, name)


class HookRegistry:
    """Knows the plugins of one relay by their objects. Wrappers of hooks are called around those of all providers."""

    def __init__(self) -> None:
        self._manager = _Manager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._taken = 0

    def register(self, plugin: object, source: str) -> None:
        """Have a plugin called from now on, once."""
        if not self._manager.is_registered(plugin):
            # Several may come in by doors of the same name.
            self._taken += 1
            self._manager.register(plugin, name=f"{self._taken} {source}")

    def drop(self, plugin: object) -> None:
        """Call a plugin no more."""
        if plugin is not None and self._manager.is_registered(plugin):
            self._manager.unregister(plugin)

    def check(self, plugin: object, source: str) -> None:
        """Refuse hooks that do not exist and arguments that are never given. Raises `PluginError`."""
        marked = [name for name in dir(plugin) if self._manager.parse_hookimpl_opts(plugin, name) is not None]
        if not marked:
            unmarked = [name for name in SPECS if callable(getattr(plugin, name, None))]
            if unmarked:
                raise PluginError(source, f"{' and '.join(unmarked)} are not marked with @hookimpl")
            within = [name for name, one in vars(plugin).items() if inspect.isclass(one) and self._has_hooks(one)]
            hint = f"; name the class that does: {source.partition(':')[2]}:{within[0]}" if within else ""
            raise PluginError(source, f"implements no hook{hint or '; mark its functions with @hookimpl'}")
        for name in marked:
            if name not in SPECS:
                meant = did_you_mean(name, SPECS) or f"; it has {', '.join(SPECS)}"
                mine = f"{hookspecs.API_VERSION}.{hookspecs.API_MINOR}"
                raise PluginError(source, f"marks {name} as a hook, which provider API {mine} does not have{meant}")
            given = _GIVEN[name]
            for parameter in inspect.signature(getattr(plugin, name)).parameters.values():
                if parameter.name not in given and parameter.default is parameter.empty:
                    raise PluginError(
                        source,
                        f"{name} has an argument {parameter}, which does not exist; it can have {', '.join(given)}",
                    )

    def _has_hooks(self, plugin: object) -> bool:
        return any(self._manager.parse_hookimpl_opts(plugin, name) is not None for name in dir(plugin))

    def lack(self, plugin: object, hook: str) -> str | None:
        """Say that a plugin does not implement a hook, or None."""
        if self.implements(plugin, hook):
            return None
        if callable(getattr(plugin, hook, None)):
            return f"{hook} is not marked with @hookimpl"
        return f"lacks the hook {hook}"

    def implements(self, plugin: object, hook: str) -> bool:
        """Say whether a plugin itself implements a hook; wrapping that of others is not implementing it."""
        caller = getattr(self._manager.hook, hook)
        return any(
            impl.plugin is plugin and not impl.wrapper and not impl.hookwrapper for impl in caller.get_hookimpls()
        )

    def only_wraps(self, plugin: object) -> bool:
        """Say whether a plugin is no provider: all that it has are wrappers."""
        return not any(self.implements(plugin, name) for name in SPECS)

    def wrapped_by(self, plugin: object) -> tuple[str, ...]:
        """Return the hooks that a plugin has to do with."""
        return tuple(caller.name for caller in self._manager.get_hookcallers(plugin) or ())

    def takes_settings(self, plugin: Any) -> bool:
        """Say whether what a plugin says of itself depends on settings."""
        return "settings" in inspect.signature(plugin.relay_provider).parameters

    def info_of(self, plugin: object, source: str, settings: Mapping[str, Any]) -> ProviderInfo:
        """Return what `relay_provider` says. Raises `PluginError`, and what the plugin raises."""
        info = self._caller("relay_provider", plugin)(settings=settings)
        if not isinstance(info, ProviderInfo):
            let_go(info)
            raise PluginError(source, f"relay_provider returned {kind_of(info)}, not ProviderInfo")
        return info

    def bound(self, plugin: object) -> dict[str, Any]:
        """Return the hooks that a plugin implements, by name, bound to it alone."""
        return {name: self._caller(name, plugin) for name in SPECS if self.implements(plugin, name)}

    def said_api(self, plugin: Any) -> Any:
        """Return the API that a plugin says it is written for, before it is taken; ours, if it does not say."""
        try:
            given = {"settings": UnreadSettings()} if self.takes_settings(plugin) else {}
            return plugin.relay_provider(**given).api
        except BaseException:  # noqa: BLE001 - what is wrong with it is told anyway
            return hookspecs.API_VERSION

    def _caller(self, hook: str, plugin: object) -> Any:
        """Return a hook bound to one provider: other providers are left out, wrappers stay."""
        others = [other for other in self._manager.get_plugins() if other is not plugin and not self.only_wraps(other)]
        return self._manager.subset_hook_caller(hook, remove_plugins=others)
