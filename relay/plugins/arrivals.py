"""What came in by the doors: providers, wrappers of hooks, and what is not used, with the reason."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from relay.core.model import ProviderInfo, Setting
from relay.plugins.discovery import Door


class Loaded(NamedTuple):
    """An instance of a provider plugin that passed the checks on arrival.

    `uses` is the provider of which it is an instance under another name, "" for the provider itself; its settings are
    below `heading` in the configuration. `distribution` is what the plugin was installed with. What it says of itself
    depends on its settings if it `takes_settings`.
    """

    info: ProviderInfo
    plugin: object
    source: str
    version: str
    distribution: str = ""
    uses: str = ""
    heading: str = ""
    takes_settings: bool = False
    settings: Mapping[str, Any] = MappingProxyType({})


def lacking_setting(info: ProviderInfo, settings: Mapping[str, Any]) -> Setting | None:
    """Return the setting that a provider requires and that is not given, None if there is none."""
    needed = info.needs_key
    if not needed or settings.get(needed):
        return None
    declared = {setting.name: setting for setting in info.settings}
    return declared.get(needed, Setting(needed, "secret", is_secret=True))


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


class LostName(NamedTuple):
    """A provider that is not used under its `name`, because what `winner` says has the same one and came later."""

    name: str
    source: str
    winner: str


class SwitchedOff(NamedTuple):
    """A provider, or an instance that `uses` one, that is not to be used. `door` is None if nothing is known of it."""

    name: str
    door: Door | None
    uses: str = ""


class UnreadSettings(dict[str, Any]):
    """The settings of a provider before they are read: each is None."""

    def __missing__(self, name: str) -> None:
        return None


class ProviderPlugin:
    """A provider as it came in: what it declares, and the objects that its instances call.

    `origin` is what was named: a class, an object or a module; `first` is what was asked who it is. Of `info` only
    name, api and settings count where it `takes_settings`.
    """

    def __init__(self, door: Door, origin: Any, first: object, info: ProviderInfo, *, takes_settings: bool) -> None:
        self.door = door
        self.origin = origin
        self.first = first
        self.info = info
        self.takes_settings = takes_settings
        self._is_taken = False

    def take_object(self) -> object:
        """Return what an instance calls: of a class an object for it alone. Raises what its constructor raises."""
        if self._is_taken and inspect.isclass(self.origin):
            return self.origin()
        self._is_taken = True
        return self.first
