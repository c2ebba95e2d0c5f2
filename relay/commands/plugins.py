"""`relay plugins`: which provider plugins load, what is wrong with the others, the settings of one, a new one."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relay.app import load_plugins
from relay.commands.config_options import CONFIG_HELP, exit_on_relay_error
from relay.commands.distribution import Distribution
from relay.commands.formatting import json_line, printable
from relay.commands.plugins_report import (
    PROVIDER_COLUMNS,
    plugins_report,
    provider_lines,
    provider_row,
    remarks,
    setting_lines,
    setting_rows,
)
from relay.commands.run_client import shows_table
from relay.config.given_settings import load_config
from relay.config.settings import Config
from relay.core.errors import ConfigError
from relay.core.near_names import did_you_mean
from relay.plugins.loader import PluginHost
from relay.plugins.scaffold import KINDS, write_project
from relay.server.event_loop import without_stragglers
from relay.telemetry.logs import set_up_logs


class _PluginGroup(click.Group):
    """Takes the name of a provider where the name of a command may stand."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        def show_it(file: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
            before = context.params
            is_json = as_json or before["as_json"]
            _with_plugins(
                context,
                file or before["file"],
                (*before["plugins"], *plugins),
                lambda config, host: show_provider(config, host, name, as_json=is_json),
            )

        # The options may stand behind the name as well.
        options: list[click.Parameter] = [one for one in self.params if isinstance(one, click.Option)]
        return super().get_command(context, name) or click.Command(
            name, params=options, callback=without_stragglers()(show_it)
        )


def _with_plugins(
    context: click.Context, file: str | None, plugins: tuple[str, ...], work: Callable[[Config, PluginHost], None]
) -> PluginHost:
    distribution: Distribution = context.obj
    with exit_on_relay_error():
        config = load_config({"plugins": plugins or None}, file=file)
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
@click.option(
    "--plugins", multiple=True, metavar="MODULE|MODULE:NAME|FILE.py", help="Load one more provider; can be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.pass_context
@without_stragglers()
def command(context: click.Context, file: str | None, plugins: tuple[str, ...], as_json: bool) -> None:
    """Show which providers there are, from where, with which settings, which are switched off, replaced or refused,
    and why; with a NAME, one of them.

    \b
    relay plugins
    relay plugins twelve_data        its settings, with their sources and defaults
    relay plugins --plugins ./kraken.py
    relay plugins new my_exchange    create a provider project to start from
    """
    if context.invoked_subcommand is None:
        host = _with_plugins(context, file, plugins, lambda config, host: show(config, host, as_json=as_json))
        if host.failures:
            sys.exit(1)


@command.command("new", short_help="Create the project of a provider, which works without changes.")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="websocket",
    show_default=True,
    help="What the venue has: a stream of candles, no stream, or a stream of trades.",
)
@click.pass_obj
def new_plugin(distribution: Distribution, name: str, kind: str) -> None:
    """Create the project of a provider, which works without changes, in the folder NAME.

    \b
    relay plugins new my_exchange
    relay plugins new my_exchange --kind polling
    """
    host = PluginHost()
    host.load(distribution.providers(), installed=False)
    with exit_on_relay_error():
        for path in write_project(name, Path(), host.loaded, kind):
            click.echo(path)


def show(config: Config, host: PluginHost, *, as_json: bool = False) -> None:
    """Print the plugins of a host: a line each, as tables on a terminal, or as one JSON object."""
    report = plugins_report(config, host)
    if as_json:
        click.echo(json_line(_told(report)))
        return
    providers = list(map(provider_row, report["providers"]))
    if not shows_table():
        rows = [*providers, *(("setting", *row) for row in setting_rows(report)), *remarks(report)]
        for row in rows:
            click.echo("\t".join(map(printable, row)))
        return
    console = Console()
    table = Table(*PROVIDER_COLUMNS, box=None, header_style="bold")
    for cells in providers:
        table.add_row(*map(_cell, cells))
    console.print(table)
    for word, about, sentence in remarks(report):
        colour = "red" if word == "refused" else "cyan"
        console.print(f"[{colour}]{word}[/{colour}]", f"{_cell(about)}:", _cell(sentence), highlight=False)
    # No table: the name of a variable that is cut off is of no use.
    for one in report["providers"]:
        for line in setting_lines(one):
            console.print(_cell(line), highlight=False, soft_wrap=True)


def _told(value: Any) -> Any:
    """Return JSON values whose texts can be encoded: the name of a file may be none."""
    if isinstance(value, dict):
        return {name: _told(part) for name, part in value.items()}
    if isinstance(value, list):
        return list(map(_told, value))
    return printable(value) if isinstance(value, str) else value


def _cell(text: str) -> str:
    # Headings such as [kraken] are no markup.
    return escape(printable(text))


def show_provider(config: Config, host: PluginHost, name: str, *, as_json: bool = False) -> None:
    """Print one provider and its settings. Raises `ConfigError` where there is none of that name."""
    (found, *_) = [one for one in plugins_report(config, host)["providers"] if one["name"] == name] or [None]
    if found is None:
        refused = next((failure.error for failure in host.failures if failure.name == name), "")
        if refused:
            raise ConfigError(f"no provider {name!r} is loaded: it {refused}")
        if name in host.names:
            raise ConfigError(
                f'the provider {name!r} serves nothing by itself: write [providers.NAME] with uses = "{name}", '
                "and `relay plugins NAME` shows its settings"
            )
        off = f"; switched off are {', '.join(host.switched_off)}" if host.switched_off else ""
        there_are = f"loaded are {', '.join(host.loaded) or 'none'}{off}"
        nearest = did_you_mean(name, [*host.loaded, *host.switched_off])
        raise ConfigError(f"there is no provider {name!r}; {there_are}{nearest}")
    click.echo(json_line(_told(found)) if as_json else "\n".join(map(printable, provider_lines(found))))
