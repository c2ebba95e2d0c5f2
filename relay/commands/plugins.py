"""`relay plugins`: which provider plugins load, what is wrong with the others, the settings of one, a new one."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from relay.app import load_plugins
from relay.commands.config_options import CONFIG_HELP, exit_on_relay_error
from relay.commands.distribution import Distribution
from relay.commands.formatting import printable
from relay.commands.run_client import shows_table
from relay.config.settings import (
    Config,
    given_setting,
    load_config,
    provider_settings,
    setting_default,
    setting_values,
    setting_variables,
)
from relay.core.errors import ConfigError
from relay.core.version import VERSION
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Loaded
from relay.plugins.scaffold import write_project
from relay.server.event_loop import without_stragglers
from relay.telemetry.logs import set_up_logs


class _PluginGroup(click.Group):
    """Takes the name of a provider where the name of a command may stand."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        def show_it() -> None:
            _with_plugins(context, lambda config, host: show_provider(config, host, name))

        return super().get_command(context, name) or click.Command(name, callback=without_stragglers()(show_it))


def _with_plugins(context: click.Context, work: Callable[[Config, PluginHost], None]) -> PluginHost:
    distribution: Distribution = context.obj
    with exit_on_relay_error():
        config = load_config({"plugins": context.params["plugins"] or None}, file=context.params["file"])
        set_up_logs("critical", "text")
        host = load_plugins(config, distribution.providers())
        work(config, host)
    return host


@click.group(
    "plugins",
    cls=_PluginGroup,
    invoke_without_command=True,
    subcommand_metavar="[NAME | new NAME]",
    short_help="Show which provider plugins load, or the settings of one; `new` creates one.",
)
@click.option("--config", "file", type=click.Path(), metavar="FILE", help=CONFIG_HELP)
@click.option("--plugins", multiple=True, metavar="MODULE|FILE.py", help="Load one more provider; can be repeated.")
@click.pass_context
@without_stragglers()
def command(context: click.Context, file: str | None, plugins: tuple[str, ...]) -> None:
    """Show which provider plugins load, from where, and why others fail; with a NAME, the settings of that provider.

    \b
    relay plugins
    relay plugins twelve_data        its settings, with their sources and defaults
    relay plugins --plugins ./kraken.py
    relay plugins new my_exchange    create a provider project to start from
    """
    if context.invoked_subcommand is None and _with_plugins(context, show).failures:
        sys.exit(1)


@command.command("new", short_help="Create the project of a provider, which works without changes.")
@click.argument("name")
@click.pass_obj
def new_plugin(distribution: Distribution, name: str) -> None:
    """Create the project of a provider, which works without changes, in the folder NAME.

    \b
    relay plugins new my_exchange
    """
    host = PluginHost()
    host.load(distribution.providers(), installed=False)
    with exit_on_relay_error():
        for path in write_project(name, Path(), host.loaded):
            click.echo(path)


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
        raise ConfigError(f"no provider {name!r} is loaded; loaded are {', '.join(host.loaded) or 'none'}")
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
