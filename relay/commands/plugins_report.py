"""What `relay plugins` says of providers, their settings and what is not used: as JSON values and as lines; pure.

No value of a setting is in it.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from relay.config.environment import names_of_variable
from relay.config.given_settings import masked
from relay.config.provider_settings import (
    given_setting,
    setting_default,
    setting_values,
    setting_variables,
)
from relay.config.settings import Config
from relay.core.model import Setting
from relay.core.version import VERSION
from relay.plugins.arrivals import Loaded, SwitchedOff, lacking_setting
from relay.plugins.declarations import api_text, remark_on_api
from relay.plugins.hookspecs import API_MINOR, API_VERSION, SINCE
from relay.plugins.loader import PluginHost


def plugins_report(config: Config, host: PluginHost) -> dict[str, Any]:
    """Return all that is known of the plugins of a host, as JSON values."""
    providers = [_provider(config, name, loaded, host) for name, loaded in host.loaded.items()]
    return {
        "api": api_text((API_VERSION, API_MINOR)),
        "providers": [*providers, *map(_switched_off, host.switched_off.values())],
        "wraps": [
            {"hooks": list(one.hooks), "source": one.source, "version": one.version or None} for one in host.wrappings
        ],
        "replaced": [{"name": one.name, "source": one.source, "by": one.winner} for one in host.lost],
        "refused": [{"name": one.name, "source": one.source, "error": one.error} for one in host.failures],
    }


def _provider(config: Config, name: str, loaded: Loaded, host: PluginHost) -> dict[str, Any]:
    hooks = [hook for hook in SINCE if host.implements(loaded.plugin, hook)]
    info, lacking = loaded.info, lacking_setting(loaded.info, loaded.settings)
    state = "ready" if lacking is None else "needs a key" if lacking.is_secret else f"needs {lacking.name}"
    return {
        "name": name,
        "state": state,
        "uses": loaded.uses or None,
        "source": loaded.source,
        "distribution": loaded.distribution or None,
        "version": version_of(loaded),
        "api": api_text(info.api),
        "remark": remark_on_api(info.api, hooks) or None,
        "title": info.title,
        "asset_classes": list(info.asset_classes),
        "intervals": list(info.intervals),
        "table": loaded.heading,
        "settings": [_setting(config, loaded, setting) for setting in info.settings],
    }


def _switched_off(off: SwitchedOff) -> dict[str, Any]:
    door = off.door
    return {
        "name": off.name,
        "state": "off",
        "uses": off.uses or None,
        "source": "" if door is None else door.source,
        "distribution": (door.distribution if door else "") or None,
        "version": None if door is None else _version(door.version, door.source),
        "api": None,
        "remark": None,
        "title": "",
        "asset_classes": [],
        "intervals": [],
        "table": None,
        "settings": [],
    }


def _setting(config: Config, loaded: Loaded, setting: Setting) -> dict[str, Any]:
    _, where = given_setting(config, loaded.info, setting)
    return {
        "name": setting.name,
        "kind": setting.kind,
        "values": setting_values(setting),
        "help": setting.help,
        "default": masked(setting_default(setting)),
        "variables": [] if setting.kind == "table" else [*_variables(config, loaded, setting)],
        "is_set": where is not None,
        "given_by": where,
    }


def _variables(config: Config, loaded: Loaded, setting: Setting) -> Iterator[str]:
    for name in setting_variables(config, loaded.info, setting):
        yield from names_of_variable(name, is_secret=setting.is_secret)


def version_of(loaded: Loaded) -> str:
    """Return the version of a plugin: its distribution's, the relay's for a built-in one, else its `__version__`."""
    if known := _version(loaded.version, loaded.source):
        return known
    plugin = loaded.plugin
    module = sys.modules.get(getattr(plugin, "__module__", "") or getattr(plugin, "__name__", ""))
    return str(getattr(module, "__version__", "") or "-")


def _version(version: str, source: str) -> str | None:
    return version or (VERSION if source.startswith("builtin:") else None)


# -- as lines --------------------------------------------------------------------------------------


def provider_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one provider of the report as cells: `PROVIDER_COLUMNS`."""
    words = (one["version"] or "-", " ".join(one["intervals"]), one["title"], one["distribution"] or "-")
    return (one["name"], one["state"], one["source"], *words, one["uses"] or "-")


PROVIDER_COLUMNS = ("provider", "state", "source", "version", "intervals", "title", "distribution", "uses")


def setting_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield each setting of all providers as cells: name, values, default, variables, where it is given, help."""
    for provider in report["providers"]:
        for one in provider["settings"]:
            variables, given_by = " or ".join(one["variables"]) or "-", one["given_by"] or "not set"
            name = f"{provider['table']} {one['name']}"
            yield name, one["values"], one["default"], variables, given_by, one["help"]


def remarks(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what is to be said beside the tables: a word, whom it is about, and a sentence."""
    for one in report["providers"]:
        if one["remark"]:
            is_older = one["api"].partition(".")[0] != str(API_VERSION)
            yield "older" if is_older else "api", one["name"], f"{one['source']} {one['remark']}"
    for one in report["wraps"]:
        yield "wraps", " ".join(one["hooks"]), one["source"]
    for one in report["replaced"]:
        yield "replaced", one["name"], f"the provider of {one['source']}: that of {one['by']} came later"
    for one in report["refused"]:
        yield "refused", one["source"], one["error"]


def provider_lines(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines about one provider of the report."""
    origin = f"from {one['source']}" + (f" of {one['distribution']}" if one["distribution"] else "")
    if one["uses"]:
        origin += f", an instance of {one['uses']}"
    if one["state"] == "off":
        yield f"{one['name']}  {origin}: switched off"
        return
    yield f"{one['name']}  {one['title']}, version {one['version']}, {origin}: {one['state']}"
    yield f"intervals  {' '.join(one['intervals'])}"
    yield f"of         {', '.join(one['asset_classes'])}"
    yield f"API        {one['api']}" + (f"; it {one['remark']}" if one["remark"] else "")
    if not one["settings"]:
        yield from ("", "It has no settings.")
    yield from setting_lines(one)


def setting_lines(one: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines about the settings of one provider of the report."""
    for setting in one["settings"]:
        given = f"; given by {setting['given_by']}" if setting["is_set"] else ""
        yield from (
            "",
            f"{one['table']} {setting['name']}: {setting['help'] or 'no description'}",
            f"    {setting['values']}; default: {setting['default']}",
            f"    {' or '.join(setting['variables']) or 'no variable'}{given}",
        )
