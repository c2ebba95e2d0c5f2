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
from relay.config.settings import LOG_FORMATS, LOG_LEVELS, Config, load_config
from relay.core.errors import ConfigError, StoreError
from relay.core.version import VERSION
from relay.plugins.loader import PluginHost
from relay.plugins.scaffold import write_project
from relay.server.event_loop import run, without_stragglers
from relay.server.run import serve as run_server
from relay.telemetry.logs import set_up_logs

CONNECTS_HELP = (
    "New WebSocket connections of one address.  "
    "[default: as --max-clients-per-address, at least 300; any number from this machine]"
)
CONFIG_HELP = "Configuration file (TOML); without it relay.toml of the working directory, if there is one."


SETTINGS = (
    click.option("--host", help="Address to listen on.  [default: 127.0.0.1]"),
    click.option("--port", metavar="NUMBER", help="Port to listen on; 0 takes a free one.  [default: 8000]"),
    click.option("--database", help="SQLite file for closed candles; :memory: keeps nothing.  [default: relay.db]"),
    click.option("--config", "file", help=CONFIG_HELP),
    click.option("--plugins", multiple=True, metavar="MODULE|FILE.py", help="Load one more provider; can be repeated."),
    click.option("--allowed-origins", metavar="ORIGIN,…", help="Pages of these origins may use the relay too."),
    click.option(
        "--trusted-proxies", metavar="ADDRESS|NETWORK,…", help="Their X-Forwarded-For and -Proto are believed."
    ),
    click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM); with it the relay speaks https and wss."),
    click.option("--tls-key", metavar="FILE", help="Its private key (PEM)."),
    click.option(
        "--public-status/--no-public-status", default=None, help="Status and metrics need no token.  [default: no]"
    ),
    click.option("--max-clients", metavar="NUMBER", help="Most WebSocket clients at a time.  [default: 10000]"),
    click.option("--max-clients-per-address", metavar="NUMBER", help="Most of them from one address.  [default: 1000]"),
    click.option("--max-streams-per-client", metavar="NUMBER", help="Most streams of one client.  [default: 200]"),
    click.option("--max-streams", metavar="NUMBER", help="Most streams of all clients together.  [default: 2000]"),
    click.option("--max-connects-per-minute", metavar="NUMBER", help=CONNECTS_HELP),
    click.option(
        "--max-requests-per-second", metavar="NUMBER", help="Requests of one WebSocket client.  [default: 50]"
    ),
    click.option(
        "--max-requests-per-second-per-address",
        metavar="NUMBER",
        help="Requests of one address or, over HTTP, token.  [default: 1000, any number from this machine]",
    ),
    click.option(
        "--max-history-rows-per-minute",
        metavar="NUMBER",
        help="Past candles for a WebSocket client.  [default: 1000000]",
    ),
    click.option(
        "--max-history-rows-per-minute-per-address",
        metavar="NUMBER",
        help="Past candles for one address or, over HTTP, token.  [default: 10000000, any number for this machine]",
    ),
    click.option("--history-cache-mb", metavar="NUMBER", help="Memory for answers of history.  [default: 64]"),
    click.option("--retention", metavar="1s=7d,…", help="Delete candles when they are so old.  [default: never]"),
    click.option(
        "--linger-seconds", metavar="NUMBER", help="How long an upstream stays after its last subscriber.  [default: 5]"
    ),
    click.option(
        "--flush-ms", metavar="NUMBER", help="Updates closer together than this leave in one write.  [default: 20]"
    ),
    click.option(
        "--compression/--no-compression",
        default=None,
        help="Compress messages for clients that ask for it.  [default: no]",
    ),
    click.option("--log-level", metavar="|".join(LOG_LEVELS), help="How much is logged, on stderr.  [default: info]"),
    click.option(
        "--log-format", metavar="|".join(LOG_FORMATS), help="Lines for people or JSON objects.  [default: text]"
    ),
    click.option("--insecure", is_flag=True, help="Allow other machines to connect although no tokens are set."),
)
"""A flag for each setting that is no secret."""


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of all settings."""
    for option in reversed(SETTINGS):
        command = option(command)
    return command


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
    from providers.sandbox import Sandbox

    async with Sandbox(forex_always_open=True) as sandbox:

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


@main.group("plugins", invoke_without_command=True, short_help="Show which provider plugins load; `new` writes one.")
@click.option("--config", "file", help=CONFIG_HELP)
@click.option("--plugins", multiple=True, metavar="MODULE|FILE.py", help="Load one more provider; can be repeated.")
@click.pass_context
@without_stragglers()
def plugins(context: click.Context, file: str | None, plugins: tuple[str, ...]) -> None:
    """Show which provider plugins load, from where, and which do not and why.

    \b
    relay plugins
    relay plugins --plugins ./kraken.py
    relay plugins new my_exchange    write a provider project to start from
    """
    if context.invoked_subcommand is not None:
        return
    with _exit_2_on_config_error():
        config = load_config({"plugins": plugins or None}, file=file)
        set_up_logs("critical", "text")
        host = load_plugins(config, BUILTIN)
        plugin_list.show(config, host)
    if host.failures:
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
