"""The `relay` command: serves, or talks to a relay that runs."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from providers import BUILTIN
from relay.app import load_plugins
from relay.commands import check_config as explanation
from relay.commands import history, status, store, symbols, tail, token
from relay.commands import plugins as plugin_list
from relay.config.settings import SETTINGS, Config, RelaySetting, load_config
from relay.core.errors import ConfigError, StoreError
from relay.core.version import VERSION
from relay.plugins.loader import PluginHost
from relay.plugins.scaffold import write_project
from relay.server.event_loop import run, without_stragglers
from relay.server.run import serve as run_server
from relay.telemetry.logs import set_up_logs

CONFIG_HELP = "Configuration file (TOML); without it relay.toml of the working directory, if there is one."
INSECURE_HELP = "Allow other machines to connect although no tokens are set."


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each setting that is no secret."""
    command = click.option("--insecure", is_flag=True, help=INSECURE_HELP)(command)
    for setting in reversed(SETTINGS.values()):
        if not setting.is_secret:
            command = _flag_of(setting)(command)
    return click.option("--config", "file", help=CONFIG_HELP)(command)


def _flag_of(setting: RelaySetting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    text = f"{setting.help.removesuffix('.')}.  [default: {setting.default_text}]"
    if isinstance(setting.default, bool):
        return click.option(f"{setting.flag}/--no-{setting.flag[2:]}", default=None, help=text)
    if setting.name == "plugins":
        return click.option(setting.flag, multiple=True, metavar=setting.form, help=f"{setting.help} Can be repeated.")
    return click.option(setting.flag, metavar=setting.form or None, help=text)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="market-relay", message="%(prog)s %(version)s")
def main() -> None:
    """Relays live and historical candles from market-data providers to any number of clients.

    \b
    relay serve --sandbox            try it: no network, no key
    relay tail BTCUSDT@1m            watch a stream of a running relay
    relay history EUR/USD 1h         print candles
    """


@main.command(short_help="Serve clients until SIGINT or SIGTERM.")
@click.option(
    "--sandbox",
    is_flag=True,
    help="Start local stand-ins for both exchanges: no network, no key needed. Keeps nothing without --database.",
)
@takes_settings
@without_stragglers()
def serve(sandbox: bool, file: str | None, plugins: tuple[str, ...], **flags: Any) -> None:
    """Serve clients until SIGINT or SIGTERM. SIGHUP reads tokens, certificates, origins, limits and the
    settings of providers again.

    Settings come from flags, then RELAY_… variables, then the configuration file. Tokens and keys have no flag: other
    users of the machine could read it.

    \b
    relay serve --sandbox
    relay serve --port 9000 --database /var/lib/relay/candles.db
    RELAY_TWELVE_DATA_API_KEY=… relay serve --config /etc/relay.toml
    """
    flags["plugins"] = plugins or None
    if sandbox and flags["database"] is None:
        # Made-up prices must not get among real ones.
        flags["database"] = ":memory:"
    with _exit_2_on_config_error():
        config = load_config(flags, file=file)
        set_up_logs(config.log_level, config.log_format)

        def read() -> Config:
            return load_config(flags, file=file)

        run(_serve_sandbox(config, read) if sandbox else run_server(config, BUILTIN, _say, read))


async def _serve_sandbox(config: Config, read: Callable[[], Config]) -> None:
    from providers.sandbox import demo

    async with demo() as sandbox:

        def pointed_at_it(config: Config) -> Config:
            return _sandboxed(config, sandbox.provider_settings())

        await run_server(
            pointed_at_it(config),
            BUILTIN,
            lambda line: _say(f"{line} (sandbox: made-up prices)"),
            lambda: pointed_at_it(read()),
        )


def _sandboxed(config: Config, stand_ins: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return the configuration with the providers' settings replaced by those of the stand-ins."""
    tables = {name: dict(table) for name, table in config.tables.items()}
    for name, settings in stand_ins.items():
        tables[name] = {**tables.get(name, {}), **settings}
    tables.setdefault("twelve_data", {}).update(market_hours="always", poll_seconds=2)
    # The environment must not point the providers back at the real exchanges.
    environ = {
        name: value
        for name, value in config.environ.items()
        if not name.startswith(("RELAY_BINANCE_", "RELAY_TWELVE_DATA_", "TWELVE_DATA_"))
    }
    return dataclasses.replace(config, tables=MappingProxyType(tables), environ=MappingProxyType(environ))


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


@contextlib.contextmanager
def _exit_2_on_config_error() -> Iterator[None]:
    try:
        yield
    except (ConfigError, StoreError) as error:
        click.echo(f"relay: {error}", err=True)
        sys.exit(2)


@main.command("check-config", short_help="Explain what `relay serve` would do; start nothing.")
@takes_settings
@without_stragglers()
def check_config(file: str | None, plugins: tuple[str, ...], **flags: Any) -> None:
    """Explain what `relay serve` would do with the same flags (but --sandbox), variables and file; start nothing.

    Exits 2 on a configuration that cannot be used, 1 when a provider plugin was refused.

    \b
    relay check-config --config /etc/market-relay/relay.toml
    """
    flags["plugins"] = plugins or None
    with _exit_2_on_config_error():
        config = load_config(flags, file=file)
        set_up_logs("critical", "text")
        host = load_plugins(config, BUILTIN)
        click.echo("\n".join(explanation.explain(config, host)))
    if host.failures:
        sys.exit(1)


class _PluginGroup(click.Group):
    """Takes the name of a provider where the name of a command may stand."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        def show() -> None:
            _plugins_of(context, lambda config, host: plugin_list.show_provider(config, host, name))

        return super().get_command(context, name) or click.Command(name, callback=without_stragglers()(show))


def _plugins_of(context: click.Context, show: Callable[[Config, PluginHost], None]) -> PluginHost:
    with _exit_2_on_config_error():
        config = load_config({"plugins": context.params["plugins"] or None}, file=context.params["file"])
        set_up_logs("critical", "text")
        host = load_plugins(config, BUILTIN)
        show(config, host)
    return host


@main.group(
    "plugins",
    cls=_PluginGroup,
    invoke_without_command=True,
    subcommand_metavar="[NAME | new NAME]",
    short_help="Show which provider plugins load, or the settings of one; `new` writes one.",
)
@click.option("--config", "file", help=CONFIG_HELP)
@click.option("--plugins", multiple=True, metavar="MODULE|FILE.py", help="Load one more provider; can be repeated.")
@click.pass_context
@without_stragglers()
def plugins(context: click.Context, file: str | None, plugins: tuple[str, ...]) -> None:
    """Show which provider plugins load, from where, and which do not and why; with a NAME the settings of that one.

    \b
    relay plugins
    relay plugins twelve_data        its settings, where they come from and what they default to
    relay plugins --plugins ./kraken.py
    relay plugins new my_exchange    write a provider project to start from
    """
    if context.invoked_subcommand is None and _plugins_of(context, plugin_list.show).failures:
        sys.exit(1)


@plugins.command("new", short_help="Write a provider project that works as it stands.")
@click.argument("name")
def new_plugin(name: str) -> None:
    """Write a provider project that works as it stands into the folder NAME.

    \b
    relay plugins new my_exchange
    """
    host = PluginHost()
    host.load(BUILTIN, installed=False)
    with _exit_2_on_config_error():
        for path in write_project(name, Path(), host.loaded):
            click.echo(path)


for _command in (
    tail.command,
    history.command,
    symbols.command,
    status.command,
    token.command,
    store.make_command(BUILTIN),
):
    main.add_command(_command)
