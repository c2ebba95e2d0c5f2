"""`relay serve`: serve clients, of the exchanges or of local stand-ins for them."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import click

from relay.commands.config_options import exit_2_on_config_error, takes_settings
from relay.commands.distribution import Distribution
from relay.config.settings import Config, load_config
from relay.server.event_loop import run, without_stragglers
from relay.server.run import serve
from relay.telemetry.logs import set_up_logs


@click.command("serve", short_help="Serve clients until SIGINT or SIGTERM.")
@click.option(
    "--sandbox",
    is_flag=True,
    help="Start local stand-ins for both exchanges: no network, no key needed. Keeps nothing without --database.",
)
@takes_settings
@click.pass_obj
@without_stragglers()
def command(
    distribution: Distribution, /, sandbox: bool, file: str | None, plugins: tuple[str, ...], **flags: Any
) -> None:
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
    with exit_2_on_config_error():
        config = load_config(flags, file=file)
        set_up_logs(config.log_level, config.log_format)

        def read() -> Config:
            return load_config(flags, file=file)

        if sandbox:
            run(_serve_sandbox(distribution, config, read))
        else:
            run(serve(config, distribution.providers(), _say, read))


async def _serve_sandbox(distribution: Distribution, config: Config, read: Callable[[], Config]) -> None:
    async with distribution.sandbox(forex_always_open=True) as sandbox:

        def pointed_at_it(config: Config) -> Config:
            return _sandboxed(config, sandbox.provider_settings())

        await serve(
            pointed_at_it(config),
            distribution.providers(),
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
