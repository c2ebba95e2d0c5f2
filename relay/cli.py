"""The `relay` command: serves, or talks to a relay that runs."""

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import Coroutine, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from providers import BUILTIN
from relay.app import load_plugins
from relay.commands import history, status, symbols, tail
from relay.config import LOG_FORMATS, LOG_LEVELS, Config, load_config, provider_settings
from relay.errors import ConfigError, StoreError
from relay.logs import set_up_logs
from relay.server import serve as run_server
from relay.version import VERSION

CONFIG_HELP = "Configuration file (TOML); without it relay.toml of the working directory, if there is one."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="market-relay", message="%(prog)s %(version)s")
def main() -> None:
    """Relays live and historical candles from market-data providers to any number of clients.

    \b
    relay serve --sandbox            try it: no network, no key
    relay tail BTCUSDT@1m            watch a stream of a running relay
    relay history EUR/USD 1h         print candles
    """


@main.command()
@click.option("--sandbox", is_flag=True, help="Start local stand-ins for both exchanges: no network, no key needed.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", metavar="NUMBER", help="Port to listen on; 0 takes a free one.  [default: 8000]")
@click.option("--database", help="SQLite file for closed candles; :memory: keeps nothing.  [default: relay.db]")
@click.option("--config", "file", help=CONFIG_HELP)
@click.option("--plugins", multiple=True, metavar="MODULE|FILE.py", help="Load one more provider; can be repeated.")
@click.option("--allowed-origins", metavar="ORIGIN,…", help="Pages of these origins may use the relay too.")
@click.option("--max-clients", metavar="NUMBER", help="Most WebSocket clients at a time.  [default: 10000]")
@click.option("--max-clients-per-address", metavar="NUMBER", help="Most of them from one address.  [default: 1000]")
@click.option("--max-streams-per-client", metavar="NUMBER", help="Most streams of one client.  [default: 200]")
@click.option("--max-streams", metavar="NUMBER", help="Most streams of all clients together.  [default: 2000]")
@click.option("--linger-seconds", metavar="NUMBER", help="How long an upstream stays after its last subscriber.")
@click.option("--flush-ms", metavar="NUMBER", help="Updates closer together than this leave in one write.")
@click.option(
    "--compression/--no-compression", default=None, help="Compress messages for clients that ask for it.  [default: no]"
)
@click.option("--log-level", metavar="|".join(LOG_LEVELS), help="[default: info]")
@click.option("--log-format", metavar="|".join(LOG_FORMATS), help="[default: text]")
@click.option("--insecure", is_flag=True, help="Allow other machines to connect although no tokens are set.")
def serve(sandbox: bool, file: str | None, plugins: tuple[str, ...], **flags: Any) -> None:
    """Serve clients until SIGINT or SIGTERM.

    Settings come from flags, then RELAY_… variables, then the configuration file. Tokens and keys have no flag: other
    users of the machine could read it.

    \b
    relay serve --sandbox
    relay serve --port 9000 --database /var/lib/relay/candles.db
    RELAY_TWELVE_DATA_API_KEY=… relay serve --config /etc/relay.toml
    """
    flags["plugins"] = plugins or None
    with _exit_2_on_config_error():
        config = load_config(flags, file=file)
        set_up_logs(config.log_level, config.log_format)
        _run(_serve_sandbox(config) if sandbox else run_server(config, BUILTIN, _say))


async def _serve_sandbox(config: Config) -> None:
    from providers.sandbox import Sandbox

    async with Sandbox(forex_always_open=True) as sandbox:
        tables = {name: dict(table) for name, table in config.tables.items()}
        for name, settings in sandbox.provider_settings().items():
            tables[name] = {**tables.get(name, {}), **settings}
        tables.setdefault("twelve_data", {}).update(market_hours="always", poll_seconds=2)
        # The environment must not point the providers back at the real exchanges.
        environ = {
            name: value
            for name, value in config.environ.items()
            if not name.startswith(("RELAY_BINANCE_", "RELAY_TWELVE_DATA_", "TWELVE_DATA_"))
        }
        changed = dataclasses.replace(config, tables=MappingProxyType(tables), environ=MappingProxyType(environ))
        await run_server(changed, BUILTIN, lambda line: _say(f"{line} (sandbox: made-up prices)"))


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run the server on uvloop where it is installed, else on plain asyncio."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)


@contextlib.contextmanager
def _exit_2_on_config_error() -> Iterator[None]:
    try:
        yield
    except (ConfigError, StoreError) as error:
        click.echo(f"relay: {error}", err=True)
        sys.exit(2)


@main.command()
@click.option("--config", "file", help=CONFIG_HELP)
@click.option("--plugins", multiple=True, metavar="MODULE|FILE.py", help="Load one more provider; can be repeated.")
def plugins(file: str | None, plugins: tuple[str, ...]) -> None:
    """Show which provider plugins load, from where, and which do not and why.

    \b
    relay plugins
    relay plugins --plugins ./kraken.py
    """
    with _exit_2_on_config_error():
        config = load_config({"plugins": plugins or None}, file=file)
        set_up_logs("critical", "text")
        host = load_plugins(config, BUILTIN)
        rows = []
        for name, loaded in host.loaded.items():
            info = loaded.info
            settings = provider_settings(config, info)
            state = "needs a key" if info.needs_key and not settings.get(info.needs_key) else "ready"
            rows.append((name, state, loaded.source, loaded.version or VERSION, " ".join(info.intervals), info.title))
    wrappings = [(wrapping.source, " ".join(wrapping.hooks)) for wrapping in host.wrappings]
    _print_plugins(rows, wrappings, [(failure.source, failure.error) for failure in host.failures])
    if host.failures:
        sys.exit(1)


def _print_plugins(
    rows: Sequence[tuple[str, ...]], wrappings: Sequence[tuple[str, str]], failures: Sequence[tuple[str, str]]
) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        for source, hooks in wrappings:
            click.echo(f"wraps\t{hooks}\t{source}")
        for source, reason in failures:
            click.echo(f"refused\t{source}\t{reason}")
        return
    console = Console()
    table = Table("provider", "state", "source", "version", "intervals", "title", box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for source, hooks in wrappings:
        console.print(f"[cyan]wraps[/cyan] {hooks}: {source}", highlight=False)
    for source, reason in failures:
        console.print(f"[red]refused[/red] {source}: {reason}", highlight=False)


for _command in (tail.command, history.command, symbols.command, status.command):
    main.add_command(_command)
