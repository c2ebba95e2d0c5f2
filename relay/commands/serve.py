"""`relay serve`: serve clients, of the exchanges or of local stand-ins for them."""

import dataclasses
import faulthandler
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import click

from relay.commands.config_options import exit_on_relay_error, takes_settings
from relay.commands.distribution import Distribution
from relay.commands.replay_run import opened_replay
from relay.commands.time_option import moment_option
from relay.config.environment import names_of_variable
from relay.config.given_settings import load_config
from relay.config.provider_settings import USES, heading_of, instances
from relay.config.settings import SETTINGS, Config
from relay.core.outward_proxies import ALL_VARIABLES
from relay.plugins.loader import PluginHost
from relay.server.event_loop import run, without_stragglers
from relay.server.run import serve
from relay.telemetry.events import event
from relay.telemetry.logs import set_up_logs

log = logging.getLogger(__name__)

StandIns: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Settings by provider."""


@click.command("serve", short_help="Serve clients until SIGINT or SIGTERM.")
@click.option(
    "--sandbox",
    is_flag=True,
    help="Use two simulated exchanges on this machine: needs no network and no key. Stores nothing without --database.",
)
@click.option("--forex-always-open", is_flag=True, help="With --sandbox: currency pairs trade at weekends, too.")
@click.option(
    "--replay",
    "replay",
    multiple=True,
    metavar="RECORDING",
    help="Play recorded candles again: the database of a relay, or a file that `relay history` wrote, as"
    " BTCUSDT@1m=FILE (CSV or NDJSON). Can be repeated for files. Stores nothing.",
)
@click.option(
    "--from",
    "begins",
    callback=moment_option,
    metavar="TIME",
    help="With --replay: where it begins, a date or time (UTC) or Unix seconds.  [default: the first candle]",
)
@click.option(
    "--speed",
    type=click.FloatRange(1, 1_000_000),
    metavar="N",
    help="With --replay: how many times as fast as real time.  [default: 1]",
)
@takes_settings
@click.pass_obj
@without_stragglers()
def command(
    distribution: Distribution,
    /,
    sandbox: bool,
    forex_always_open: bool,
    replay: tuple[str, ...],
    begins: int | None,
    speed: float | None,
    file: str | None,
    plugins: tuple[str, ...],
    **flags: Any,
) -> None:
    """Serve clients until SIGINT or SIGTERM. SIGHUP reads tokens, certificates, origins, proxies, limits and the
    settings of providers again.

    Settings come from flags, then RELAY_… variables, then the configuration file. Tokens, keys and the proxy, which
    may have a password, have no flag: other users of the machine could read it.

    \b
    relay serve --sandbox
    relay serve --replay relay.db --from 2024-01-01 --speed 60
    relay serve --port 9000 --database /var/lib/relay/candles.db
    RELAY_TWELVE_DATA_API_KEY=… relay serve --config /etc/relay.toml
    """
    if forex_always_open and not sandbox:
        raise click.UsageError("--forex-always-open needs --sandbox: real markets close at weekends")
    if not replay and (begins is not None or speed is not None):
        raise click.UsageError(f"{'--speed' if begins is None else '--from'} needs --replay")
    if replay and sandbox:
        raise click.UsageError("--replay and --sandbox exclude each other")
    if replay and flags["database"] is not None:
        raise click.UsageError("--replay stores nothing, so it takes no --database; name the recording behind --replay")
    flags["plugins"] = plugins or None
    with exit_on_relay_error():
        config = load_config(flags, file=file)
        set_up_logs(config.log_level, config.log_format)
        # A crash in C says where: somebody cut off a file that SQLite has mapped, or an extension of a plugin's failed.
        if sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)

        def read() -> Config:
            return load_config(flags, file=file)

        if sandbox:
            run(_serve_sandbox(distribution, config, read, forex_always_open=forex_always_open))
        elif replay:
            with opened_replay(distribution, replay, begins, speed or 1.0) as played:
                run(played.serve(config, _say, read))
        else:
            run(serve(config, distribution.providers(), _say, read))


async def _serve_sandbox(
    distribution: Distribution, config: Config, read: Callable[[], Config], *, forex_always_open: bool
) -> None:
    async with distribution.sandbox(forex_always_open=forex_always_open) as sandbox:
        stand_ins = sandbox.provider_settings()
        # Nobody waits for half a minute to see the first candle of a trial.
        defaults = {"poll_seconds": 2, "market_hours": "always" if forex_always_open else "forex"}

        def pointed_at_it(config: Config) -> Config:
            _check_settings_of(distribution, config)
            return _sandboxed(config, {"twelve_data": defaults}, stand_ins)

        def say(line: str) -> None:
            _say(f"{line} (sandbox: made-up prices)")
            if ignored := sorted(_ignored(config, stand_ins)):
                log.info(
                    "--sandbox uses simulated exchanges and ignores %s",
                    ", ".join(ignored),
                    extra=event("sandbox_ignores", settings=ignored),
                )
            if config.cluster_nats:
                log.warning(
                    "--sandbox has exchanges of this relay's own, so that relays of a cluster share none of them",
                    extra=event("sandbox_cluster"),
                )
            if not forex_always_open:
                log.info(
                    "currency pairs do not trade at weekends, as on the real market; with --forex-always-open they do",
                    extra=event("sandbox_hours"),
                )

        await serve(pointed_at_it(config), distribution.providers(), say, lambda: pointed_at_it(read()))


def _check_settings_of(distribution: Distribution, config: Config) -> None:
    """Check what providers are told, also what the sandbox ignores: a wrong value is one. Raises `ConfigError`."""
    host = PluginHost()
    host.find(distribution.providers(), installed=False, config=config)
    # Those of other plugins are made later, and are none here.
    known = {name: table for name, table in config.instances.items() if table.get(USES, name) in host.names}
    host.configure(dataclasses.replace(config, instances=MappingProxyType(known)))


def _led(config: Config, stand_ins: StandIns) -> dict[str, str]:
    """Return whom the sandbox leads to its stand-ins: providers and their instances, with the provider that each is."""
    named = instances(config)
    plain = {name: name for name in stand_ins if name not in named}
    return plain | {name: uses for name, uses in named.items() if uses in stand_ins}


def _variables(config: Config, stand_ins: StandIns) -> Iterator[str]:
    """Yield the variables that would point the providers back at the real exchanges, or give them real keys."""
    for name, uses in _led(config, stand_ins).items():
        for key in stand_ins[uses]:
            for variable in (f"RELAY_{name}_{key}".upper(), f"{name}_{key}".upper()):
                yield from names_of_variable(variable, is_secret=True)


def _names_database(config: Config) -> bool:
    """Say whether a flag names the database. Made-up prices must not get among the real ones of a configuration."""
    return config.sources.get("database") == SETTINGS["database"].flag


def _ignored(config: Config, stand_ins: StandIns) -> Iterator[str]:
    if "database" in config.sources and not _names_database(config):
        yield config.sources["database"]
    yield from (name for name in _variables(config, stand_ins) if config.environ.get(name))
    for name, uses in _led(config, stand_ins).items():
        heading = heading_of(config, name)
        given = (config.tables if heading == f"[{name}]" else config.instances).get(name, {})
        yield from (f"{key} in {heading}" for key in stand_ins[uses] if key in given)


def _sandboxed(config: Config, defaults: StandIns, stand_ins: StandIns) -> Config:
    """Return the configuration with what leads to the exchanges replaced by what leads to the stand-ins."""
    tables, named = {**config.tables}, {**config.instances}
    for name, uses in _led(config, stand_ins).items():
        place = named if heading_of(config, name) != f"[{name}]" else tables
        place[name] = {**defaults.get(uses, {}), **place.get(name, {}), **stand_ins[uses]}
    dropped = set(_variables(config, stand_ins))
    if not config.trust_env:
        # Nobody needs to hear that they are not used: the stand-ins are on this machine.
        dropped.update(ALL_VARIABLES)
    environ = {name: value for name, value in config.environ.items() if name not in dropped}
    return dataclasses.replace(
        config,
        database=config.database if _names_database(config) else ":memory:",
        tables=MappingProxyType(tables),
        instances=MappingProxyType(named),
        environ=MappingProxyType(environ),
    )


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
