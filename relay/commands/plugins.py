"""`relay plugins`: which provider plugins load, and what is wrong with the others."""

import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table

from relay.commands.formatting import printable
from relay.commands.run_client import shows_table
from relay.config.settings import Config, provider_settings
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
