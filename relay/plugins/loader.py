"""Check provider plugins, make their instances and bind them; a plugin that fails is reported and the others serve."""

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from relay.config.provider_settings import (
    check_variables,
    heading_of,
    instances,
    is_enabled,
    provider_settings,
    uses_of,
)
from relay.config.settings import Config
from relay.core.clock import ProviderClock
from relay.core.errors import ConfigError, PluginError
from relay.core.outward_proxies import OutwardProxies
from relay.core.secret import pattern_of, texts_of
from relay.plugins import discovery
from relay.plugins.arrivals import (
    Loaded,
    LostName,
    PluginFailure,
    ProviderPlugin,
    SwitchedOff,
    UnreadSettings,
    Wrapping,
)
from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming
from relay.plugins.declarations import (
    fault_of_api,
    fault_of_declarations,
    fault_of_import,
    fault_of_info,
    setting_as_used,
)
from relay.plugins.discovery import IF_USED, Door
from relay.plugins.hook_registry import HookRegistry
from relay.plugins.provider import Provider
from relay.plugins.validation import shown
from relay.telemetry.events import event

log = logging.getLogger(__name__)

NO_CONFIG = Config()


class PluginHost:
    """The plugins of one relay. `find` takes them, `configure` makes the instances that the configuration wants."""

    def __init__(self) -> None:
        self._hooks = HookRegistry()
        self._unused: dict[str, Door] = {}
        self.found: dict[str, ProviderPlugin] = {}
        self.loaded: dict[str, Loaded] = {}
        self.switched_off: dict[str, SwitchedOff] = {}
        self.lost: list[LostName] = []
        self.wrappings: list[Wrapping] = []
        self.failures: list[PluginFailure] = []

    def load(self, builtin: Iterable[object], named: Iterable[str] = (), *, installed: bool = True) -> None:
        """Take plugins, and make one instance of each provider, as if nothing was configured."""
        self.find(builtin, named, installed=installed)
        self.configure(NO_CONFIG)

    @property
    def names(self) -> list[str]:
        """The names that a configuration may have tables for."""
        known = (*self.found, *self._unused, *(failure.name for failure in self.failures))
        return list(dict.fromkeys(name for name in known if name))

    def having(self, keys: Iterable[str]) -> list[str]:
        """Return the providers that have settings of all these names; takes also those that nobody uses."""
        for name, door in [*self._unused.items()]:
            if door.on == IF_USED:
                del self._unused[name]
                self._take(door)
        return [
            name for name, found in self.found.items() if {*keys} <= {setting.name for setting in found.info.settings}
        ]

    @property
    def unread(self) -> list[str]:
        """The names of providers whose settings nobody reads: they are switched off, or were refused."""
        return [*self.switched_off, *(failure.name for failure in self.failures if failure.name)]

    def check_any(self) -> None:
        """Raise `ConfigError` if there is no provider that can serve."""
        if not self.loaded:
            off = ", ".join(self.switched_off)
            raise ConfigError(f"every provider is switched off: {off}" if off else "no provider could be loaded")

    # -- what comes in -----------------------------------------------------------------------------

    def find(
        self,
        builtin: Iterable[object],
        named: Iterable[str] = (),
        *,
        installed: bool = True,
        config: Config = NO_CONFIG,
    ) -> None:
        """Take the built-in providers, then installed entry points, then what `plugins` names.

        What is switched off is not imported, if its door says the name of its provider. Raises `ConfigError` for what
        is wrong with instances, whoever the providers are.
        """
        used = {uses for name, uses in instances(config).items() if is_enabled(config, name)}
        for door in self._doors(builtin, named, installed=installed):
            # Who names a module or a file can as well leave it out, and its name need not be the provider's.
            is_known = door.name.isidentifier() and not door.source.startswith(("file:", "module:"))
            is_on = is_enabled(config, door.name) and door.on != IF_USED
            if is_known and door.name not in used and not is_on:
                self._unused[door.name] = door
                continue
            self._take(door)

    def _doors(self, builtin: Iterable[object], named: Iterable[str], *, installed: bool) -> Iterator[Door]:
        yield from map(discovery.builtin, builtin)
        yield from discovery.installed() if installed else ()
        files: discovery.Files = {}
        yield from (discovery.named(text, files) for text in named)

    def _take(self, door: Door) -> None:
        try:
            self._add(door)
        except PluginError as error:
            self._refuse(door, error.reason, error.name or door.name)

    def _refuse(self, door: Door, reason: str, name: str) -> None:
        self.failures.append(PluginFailure(door.source, reason, name))
        log.error("plugin %s: %s", door, reason, extra=event("plugin_refused", source=door.source))

    def _add(self, door: Door) -> None:
        plugin: object = None
        try:
            origin = door.find()
            if self._is_known(origin, door):
                return
            plugin = origin() if inspect.isclass(origin) else origin
            self._check_hooks(plugin, door)
            self._hooks.register(plugin, door.source)
            found = self._check(plugin, origin, door)
        except PluginError:
            self._hooks.drop(plugin)
            raise
        except BaseException as error:
            self._hooks.drop(plugin)
            log.debug("plugin %s failed", door, exc_info=True, extra=event("plugin_failed", source=door.source))
            raise PluginError(door.source, fault_of_import(error, door.distribution) or shown(error)) from error
        if isinstance(found, Wrapping):
            self.wrappings.append(found)
            return
        name = found.info.name
        previous = self.found.get(name)
        if previous is not None:
            self._lose(name, previous.door, door.source, str(door))
            self._hooks.drop(previous.first)
        self.found[name] = found

    def _lose(self, name: str, door: Door, source: str, winner: str) -> None:
        self.lost.append(LostName(name, str(door), winner))
        about = event("provider_replaced", provider=name, source=source, previous=door.source)
        log.warning("provider %s of %s replaces the one of %s", name, winner, door, extra=about)

    def _is_known(self, origin: object, door: Door) -> bool:
        """Say whether the very same plugin came in by another door already; the later door gives the name."""
        for name, found in self.found.items():
            if found.origin is origin:
                about = event("plugin_known", source=door.source, provider=name)
                log.info("plugin %s was already loaded as %s", door, found.door, extra=about)
                version, distribution = door.version or found.door.version, door.distribution or found.door.distribution
                found.door = door._replace(version=version, distribution=distribution)
                return True
        return any(wrapping.plugin is origin for wrapping in self.wrappings)

    def _check_hooks(self, plugin: object, door: Door) -> None:
        """Refuse hooks that the API does not have. Raises `PluginError`; if a plugin says that it needs more, that."""
        try:
            self._hooks.check(plugin, door.source)
        except PluginError:
            if fault := fault_of_api(self._hooks.said_api(plugin), door.distribution):
                raise PluginError(door.source, fault) from None
            raise

    def _check(self, plugin: object, origin: object, door: Door) -> ProviderPlugin | Wrapping:
        """Ask a plugin who it is. Raises `PluginError`."""
        hooks = self._hooks
        if hooks.only_wraps(plugin):
            return Wrapping(plugin, door.source, door.version, hooks.wrapped_by(plugin))
        if lack := hooks.lack(plugin, "relay_provider"):
            raise PluginError(door.source, lack)
        takes_settings = hooks.takes_settings(plugin)
        try:
            info = hooks.info_of(plugin, door.source, UnreadSettings())
        except Exception as error:
            if not takes_settings or isinstance(error, PluginError):
                raise
            raise PluginError(
                door.source,
                f"relay_provider raised {shown(error)} when it was called before its settings are read: each is None "
                "then, and it has to say its name and which settings there are",
            ) from error
        name = info.name if isinstance(info.name, str) else ""
        if fault := fault_of_api(info.api, door.distribution) or hooks.lack(plugin, "relay_stream"):
            raise PluginError(door.source, fault, name)
        # What else it says is judged when it says that of an instance.
        if fault := fault_of_declarations(info) if takes_settings else fault_of_info(info):
            raise PluginError(door.source, fault, name)
        info = info._replace(settings=tuple(map(setting_as_used, info.settings)))
        return ProviderPlugin(door, origin, plugin, info, takes_settings=takes_settings)

    # -- instances ---------------------------------------------------------------------------------

    def configure(self, config: Config) -> None:
        """Make an instance of each provider that is not switched off, then those of the tables [providers.NAME].

        Raises `ConfigError` that names the key and the value. What a plugin does wrong refuses that instance only.
        """
        named = instances(config)
        doors = {**self._unused, **{name: found.door for name, found in self.found.items()}}
        for name, door in doors.items():
            if door.on == IF_USED and name in config.tables:
                raise ConfigError(
                    f'[{name}] needs an instance; write [providers.NAME] with uses = "{name}", for example '
                    "[providers.upstream], and move the keys there"
                )
        wanted: dict[str, ProviderPlugin] = {}
        off = {name: SwitchedOff(name, door) for name, door in self._unused.items() if door.on != IF_USED}
        for name in dict.fromkeys((*self.found, *named)):
            uses = named.get(name, name)
            if uses in self.found:
                self._note_taken_name(name, uses)
                wanted[name] = self.found[uses]
            elif is_enabled(config, name):
                self._refuse(Door(f"[providers.{name}]", object, name), f"{uses}, which it uses, was refused", name)
            else:
                off[name] = SwitchedOff(name, self._unused.get(uses), uses)
        check_variables(config, [found.info._replace(name=name) for name, found in wanted.items()])
        for name, found in wanted.items():
            if found.door.on == IF_USED and name not in named:
                continue
            if is_enabled(config, name):
                settings = provider_settings(config, found.info._replace(name=name))
                try:
                    self.loaded[name] = self._instance_of(found, name, settings, config)
                except PluginError as error:
                    about = f"{heading_of(config, name)} " if name in named else ""
                    self._refuse(found.door, f"{about}{error.reason}", name)
            else:
                off[name] = SwitchedOff(name, found.door, named.get(name, ""))
        self.switched_off = off

    def _note_taken_name(self, name: str, uses: str) -> None:
        """Say that an instance has the name of a provider that it does not use."""
        plain, door = self.found.get(name), self.found[uses].door
        if plain is not None and name != uses:
            self._lose(name, plain.door, door.source, f"[providers.{name}], which uses {uses},")

    def _instance_of(self, found: ProviderPlugin, name: str, settings: Mapping[str, Any], config: Config) -> Loaded:
        door = found.door
        try:
            plugin = found.take_object()
            self._hooks.register(plugin, door.source)
        except BaseException as error:
            raise PluginError(door.source, shown(error), name) from error
        loaded = Loaded(
            found.info._replace(name=name),
            plugin,
            door.source,
            door.version,
            distribution=door.distribution,
            uses=uses_of(config, name),
            heading=heading_of(config, name),
            takes_settings=found.takes_settings,
            settings=settings,
        )
        return self.with_settings(loaded, settings)

    def with_settings(self, loaded: Loaded, settings: Mapping[str, Any]) -> Loaded:
        """Return an instance as it describes itself with other settings. Raises `PluginError`.

        Its name, its API and which settings it has do not change.
        """
        if not loaded.takes_settings:
            return loaded._replace(settings=settings)
        info = loaded.info
        try:
            said = self._hooks.info_of(loaded.plugin, loaded.source, settings)
            info = said._replace(name=info.name, api=info.api, settings=info.settings)
            fault = fault_of_info(info)
        except PluginError as error:
            fault = error.reason
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            fault = f"relay_provider raised {shown(error)}"
        if fault is None:
            return loaded._replace(info=info, settings=settings)
        # The error of before is not kept: it may hold a key as well.
        raise PluginError(loaded.source, pattern_of(texts_of(settings.values())).sub("***", fault), info.name)

    # -- binding -----------------------------------------------------------------------------------

    def implements(self, plugin: object, hook: str) -> bool:
        """Say whether a plugin itself implements a hook; wrapping that of others is not implementing it."""
        return self._hooks.implements(plugin, hook)

    def bind(
        self,
        loaded: Loaded,
        settings: Mapping[str, Any],
        clock: ProviderClock,
        timing: PluginTiming = PLUGIN_TIMING,
        proxies: OutwardProxies | None = None,
    ) -> "Provider":
        """Return the provider with its hooks bound to it alone."""
        return Provider(loaded, self._hooks.bound(loaded.plugin), settings, clock, timing, proxies)
