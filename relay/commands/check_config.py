"""`relay check-config`: what a relay would do with a configuration, in words; opens and changes nothing."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from relay.app import load_plugins
from relay.commands.config_options import exit_on_relay_error, takes_settings
from relay.commands.distribution import Distribution
from relay.commands.formatting import printable
from relay.config.cluster_needs import check_cluster
from relay.config.given_settings import is_loopback, load_config, masked, outward_proxies
from relay.config.likely_mistakes import likely_mistakes
from relay.config.provider_settings import given_setting, shown_value
from relay.config.settings import SETTINGS, Config
from relay.core.errors import ConfigError
from relay.core.secret import Secret
from relay.plugins.arrivals import lacking_setting
from relay.plugins.loader import PluginHost
from relay.server.event_loop import without_stragglers
from relay.server.tls import Tls
from relay.telemetry.logs import set_up_logs


@click.command("check-config", short_help="Show what `relay serve` would do, without starting it.")
@takes_settings
@click.pass_obj
@without_stragglers()
def command(distribution: Distribution, /, file: str | None, plugins: tuple[str, ...], **flags: Any) -> None:
    """Show what `relay serve` would do with the same flags (except --sandbox), variables and file, without starting it.

    The exit code is 2 if the configuration cannot be used, and 1 if a provider plugin was refused.

    \b
    relay check-config --config /etc/market-relay/relay.toml
    """
    flags["plugins"] = plugins or None
    with exit_on_relay_error():
        config = load_config(flags, file=file)
        set_up_logs("critical", "text")
        host = load_plugins(config, distribution.providers())
        click.echo("\n".join(explain(config, host)))
    if host.failures:
        sys.exit(1)


def explain(config: Config, host: PluginHost) -> Iterator[str]:
    """Yield lines: what it serves and to whom, every setting with where it comes from, and each provider.

    Values that are secret are not shown. Raises `ConfigError` for what would keep the relay from starting.
    """
    if config.tls_cert:
        Tls(config.tls_cert, config.tls_key)
    host.check_any()
    check_cluster(config)
    yield f"serves      {_address(config)}"
    yield f"who may     {_who(config)}"
    yield f"pages       {_origins(config)}"
    yield f"candles     {_database(config.database)}"
    yield f"upstreams   {_way(config)}"
    if config.cluster_nats:
        yield f"relays      shares its work with those of the namespace {config.cluster_namespace}, {_bus(config)}"
    for name, loaded in host.loaded.items():
        lacking = lacking_setting(loaded.info, loaded.settings)
        what = "ready"
        if lacking is not None:
            what = f"{lacking.name} is not set: requests for its symbols are answered by provider_unavailable"
        origin = f"{loaded.heading} uses {loaded.uses}, {loaded.source}" if loaded.uses else loaded.source
        yield f"provider    {name} ({printable(origin)}): {what}"
    for name in host.switched_off:
        yield f"provider    {name}: switched off, not contacted"
    for lost in host.lost:
        yield f"replaced    {lost.name} of {printable(lost.source)}, by the one of {printable(lost.winner)}"
    for failure in host.failures:
        yield f"refused     {printable(failure.source)}: {printable(failure.error)}"
    for mistake in likely_mistakes(config, (loaded.info for loaded in host.loaded.values()), host.unread):
        yield f"mistake?    {printable(mistake)}"
    yield ""
    yield from _table(_settings(config, host))


def _address(config: Config) -> str:
    shown = f"[{config.host}]" if ":" in config.host else config.host
    scope = "this machine only" if is_loopback(config.host) else "other machines can reach it"
    return f"{'https' if config.tls_cert else 'http'}://{shown}:{config.port or '(a free port)'}, {scope}"


def _who(config: Config) -> str:
    names = ", ".join(token.name for token in config.tokens)
    if names:
        return f"who has a token: {names}" + ("; status and metrics are open" if config.public_status else "")
    everybody = "everybody on this machine" if is_loopback(config.host) else "EVERYBODY who can reach it (--insecure)"
    return f"{everybody}; there are no tokens"


def _origins(config: Config) -> str:
    users = ", ".join(["the relay's own", *config.allowed_origins])
    frames = ", ".join(config.frame_ancestors)
    return f"{users}; those of {frames} may show charts in a frame" if frames else users


def _database(database: str) -> str:
    if database == ":memory:":
        return "in memory only: nothing is stored"
    path = Path(database).absolute()
    if path.is_dir():
        raise ConfigError(f"database {database!r} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"database {database!r}: its folder does not exist")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"database {database!r} cannot be written")
    return f"{database} ({path.stat().st_size / 1e6:.1f} MB)" if path.exists() else f"{database} (will be created)"


def _way(config: Config) -> str:
    said = str(outward_proxies(config))
    return f"through the proxy {said}" if said else "directly, through no proxy"


def _bus(config: Config) -> str:
    return f"over NATS at {masked(', '.join(config.cluster_nats))}"


def _settings(config: Config, host: PluginHost) -> Iterator[tuple[str, str, str]]:
    for name, described in SETTINGS.items():
        value = getattr(config, name)
        is_automatic = bool(described.automatic) and value == 0 and described.default == 0
        yield described.key, "automatic" if is_automatic else _shown(value, name), config.sources.get(name, "default")
    for loaded in host.loaded.values():
        for setting in loaded.info.settings:
            _, where = given_setting(config, loaded.info, setting)
            yield f"{loaded.heading} {setting.name}", _shown(loaded.settings[setting.name]), where or "default"


def _shown(value: Any, name: str = "") -> str:
    if name == "tokens":
        return f"{len(list(value))} set" if value else "none"
    if isinstance(value, Secret):
        return "set, not shown"
    return f"{value:g}" if isinstance(value, float) else masked(shown_value(value))


def _table(rows: Iterator[tuple[str, str, str]]) -> Iterator[str]:
    kept = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in kept) for column in (0, 1)]
    for name, value, where in kept:
        yield f"{name:<{widths[0]}}  {value:<{min(widths[1], 60)}}  {where}"
