"""`relay plugins`: which provider plugins load, what is wrong with the others, and the settings of one."""

import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table

from relay.commands.formatting import printable
from relay.commands.run_client import shows_table
from relay.config.settings import (
    Config,
    given_setting,
    provider_settings,
    setting_default,
    setting_values,
    setting_variables,
)
from relay.core.errors import ConfigError
from relay.core.version import VERSION
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Loaded


def show(config: Config, host: PluginHost) -> None:
    """Print the plugins of a host, one a line, or as a table on a terminal. Raises `ConfigError`."""
    rows = list(_rows(config, host))
    if not shows_table():
        for row in rows:
            click.echo("\t".join(map(printable, row)))
        for wrapping in host.wrappings:
            click.echo(f"wraps\t{' '.join(wrapping.hooks)}\t{printable(wrapping.source)}")
        for failure in host.failures:
            click.echo(f"refused\t{printable(failure.source)}\t{printable(failure.error)}")
        return
    console = Console()
    table = Table("provider", "state", "source", "version", "intervals", "title", box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)
    for wrapping in host.wrappings:
        console.print(f"[cyan]wraps[/cyan] {' '.join(wrapping.hooks)}:", printable(wrapping.source), highlight=False)
    for failure in host.failures:
        console.print("[red]refused[/red]", f"{printable(failure.source)}:", printable(failure.error), highlight=False)


def show_provider(config: Config, host: PluginHost, name: str) -> None:
    """Print one provider and its settings. Raises `ConfigError` where there is none of that name."""
    loaded = host.loaded.get(name)
    if loaded is None:
        raise ConfigError(f"no provider {name!r} is loaded; there are {', '.join(host.loaded) or 'none'}")
    info = loaded.info
    (state,) = [row[1] for row in _rows(config, host) if row[0] == name]
    lines = [
        f"{name}  {info.title}, version {version_of(loaded)}, from {loaded.source}: {state}",
        f"intervals  {' '.join(info.intervals)}",
        f"of         {', '.join(info.asset_classes)}",
    ]
    if not info.settings:
        lines += ["", "It has no settings."]
    for setting in info.settings:
        _, where = given_setting(config, info, setting)
        lines += [
            "",
            f"[{name}] {setting.name}: {setting.help or 'no description'}",
            f"    {setting_values(setting)}; default: {setting_default(setting)}",
            f"    {' or '.join(setting_variables(info, setting))}" + (f"; given by {where}" if where else ""),
        ]
    click.echo("\n".join(map(printable, lines)))


def _rows(config: Config, host: PluginHost) -> Iterator[tuple[str, ...]]:
    for name, loaded in host.loaded.items():
        info = loaded.info
        settings = provider_settings(config, info)
        state = "needs a key" if info.needs_key and not settings.get(info.needs_key) else "ready"
        yield name, state, loaded.source, version_of(loaded), " ".join(info.intervals), info.title


def version_of(loaded: Loaded) -> str:
    """Return the version of a plugin: its distribution's, the relay's for a built-in one, else its `__version__`."""
    if loaded.version:
        return loaded.version
    if loaded.source.startswith("builtin:"):
        return VERSION
    plugin = loaded.plugin
    module = sys.modules.get(getattr(plugin, "__module__", "") or getattr(plugin, "__name__", ""))
    return str(getattr(module, "__version__", "") or "-")
