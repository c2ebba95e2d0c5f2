"""What was given of the settings: flags over environment over a TOML file; every complaint names the key."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from relay.config.environment import given_variable
from relay.config.settings import CLUSTER, INSTANCES, SETTINGS, Config
from relay.core.errors import ConfigError
from relay.core.near_names import did_you_mean
from relay.core.outward_proxies import OutwardProxies

DEFAULT_FILE = "relay.toml"
_Tables: TypeAlias = dict[str, dict[str, Any]]
_USER = re.compile(r"//[^/@\s]*@")
_QUERY = re.compile(r"\?[^'\",\s]+")


def load_config(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None, file: str | None = None) -> Config:
    """Put flags over environment over the file together. Raises `ConfigError` that names the key and the value.

    `flags` holds only what was given. `file` None reads `relay.toml` of the working directory if there is one.
    """
    environ = os.environ if environ is None else environ
    table, tables, instances, source = _read_file(file)
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, setting in SETTINGS.items():
        in_environment = given_variable(environ, setting.variable, is_secret=setting.is_secret)
        for given, where in (
            (table.get(name), f"{setting.key} in {source}"),
            in_environment or (None, ""),
            (flags.get(name), setting.flag),
        ):
            if given is not None:
                # A wrong value is one, also where a stronger source hides it for now.
                found[name] = parsed(setting.parse, given, where, is_secret=setting.is_secret)
                sources[name] = where
    config = Config(
        **found,
        insecure=bool(flags.get("insecure")),
        sources=MappingProxyType(sources),
        read_from=source,
        tables=tables,
        instances=instances,
        environ=MappingProxyType(dict(environ)),
    )
    _check_exposure(config)
    outward_proxies(config)
    if bool(config.tls_cert) != bool(config.tls_key):
        lacking, given = ("tls_key", "tls_cert") if config.tls_cert else ("tls_cert", "tls_key")
        raise ConfigError(f"{given} is set and {lacking} is not; TLS needs both")
    return config


def outward_proxies(config: Config, proxies: OutwardProxies | None = None) -> OutwardProxies:
    """Return the proxies by which providers are reached; those given are changed to them. Raises `ConfigError`."""
    proxies = OutwardProxies() if proxies is None else proxies
    try:
        proxies.go_by(config.proxy, config.environ if config.trust_env else {})
    except ValueError as error:
        raise ConfigError(f"{error}; trust_env is set") from None
    return proxies


def parsed(parse: Callable[[Any], Any], given: Any, where: str, *, is_secret: bool = False) -> Any:
    """Return what was given as it is read. Raises `ConfigError` that names where it is from, and no secret."""
    try:
        return parse(given)
    except ValueError as error:
        raise ConfigError(f"{where}: {'the value' if is_secret else quoted(given)} {error}") from None


def quoted(given: Any) -> str:
    """Return what was given as an error shows it."""
    return masked(repr(given))


def masked(text: str) -> str:
    """Return a text without what may be secret in an address: its user and its query."""
    return _QUERY.sub("?***", _USER.sub("//***@", text))


def _read_file(file: str | None) -> tuple[dict[str, Any], _Tables, _Tables, str]:
    path = Path(file or DEFAULT_FILE)
    if file is None and not path.is_file():
        return {}, {}, {}, ""
    try:
        # Some editors put a byte order mark before the text.
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    instances = _instances_of(content.pop(INSTANCES, {}), path)
    cluster = _cluster_of(content.pop(CLUSTER, {}), path)
    tables = {name: value for name, value in content.items() if isinstance(value, dict) and name not in SETTINGS}
    table = {name: value for name, value in content.items() if name not in tables}
    for name in table:
        if name not in SETTINGS or name.startswith(f"{CLUSTER}_"):
            meant = did_you_mean(name, [*SETTINGS, INSTANCES])
            raise ConfigError(
                f"unknown key {name!r} in {path}{meant or '; known keys are ' + ', '.join(sorted(SETTINGS))}"
            )
    return {**table, **cluster}, tables, instances, str(path)


def _cluster_of(given: Any, path: Path) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{CLUSTER} in {path}: {quoted(given)} is not a table; write [{CLUSTER}]")
    known = [name.removeprefix(f"{CLUSTER}_") for name in SETTINGS if name.startswith(f"{CLUSTER}_")]
    for name in given:
        if name not in known:
            meant = did_you_mean(name, known)
            raise ConfigError(
                f"unknown key {name!r} in [{CLUSTER}] of {path}{meant or '; known keys are ' + ', '.join(known)}"
            )
    return {f"{CLUSTER}_{name}": value for name, value in given.items()}


def _instances_of(given: Any, path: Path) -> _Tables:
    if not isinstance(given, dict):
        raise ConfigError(f"{INSTANCES} in {path}: {quoted(given)} is not a table; write [{INSTANCES}.NAME]")
    for name, table in given.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"{name} in [{INSTANCES}]: the value is not a table; write [{INSTANCES}.{name}] with the keys uses and "
                "enabled"
            )
    return given


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_exposure(config: Config) -> None:
    if not config.tokens and not config.insecure and not is_loopback(config.host):
        raise ConfigError(
            f"host {config.host!r} is reachable from other machines and no tokens are set: anybody could use the "
            "relay. Set tokens (RELAY_TOKENS), or give --insecure if everybody is allowed to"
        )
