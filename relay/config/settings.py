"""Flags over environment over a TOML file, checked into frozen settings; every complaint names the key."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from relay.config import parsers
from relay.config.tokens import Tokens, parse_tokens
from relay.core.errors import ConfigError
from relay.core.intervals import INTERVALS
from relay.core.model import ProviderInfo, Setting

DEFAULT_FILE = "relay.toml"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True)
class Config:
    """The relay's own settings, and the tables of the providers as they were found."""

    host: str = "127.0.0.1"
    port: int = 8000
    database: str = "relay.db"
    tls_cert: str = ""
    tls_key: str = ""
    tokens: Tokens = field(default_factory=Tokens)
    public_status: bool = False
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[parsers.Network, ...] = ()
    max_clients: int = 10_000
    max_clients_per_address: int = 1_000
    max_streams_per_client: int = 200
    max_streams: int = 2_000
    max_connects_per_minute: int = 0
    max_requests_per_second: float = 50.0
    max_requests_per_second_per_address: float = 0.0
    max_history_rows_per_minute: int = 1_000_000
    max_history_rows_per_minute_per_address: int = 0
    history_cache_mb: int = 64
    retention: tuple[parsers.Period, ...] = ()
    linger_seconds: float = 5.0
    flush_ms: float = 20.0
    compression: bool = False
    log_level: str = "info"
    log_format: str = "text"
    plugins: tuple[str, ...] = ()
    insecure: bool = False
    # Where each setting that was given comes from; what is not in it has its default.
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)
    # The configuration file, "" without one.
    read_from: str = field(default="", repr=False, compare=False)
    # Both hold keys in plain text, so neither shows in `repr`.
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "host": parsers.text,
    "port": parsers.number(int, 0, 65_535),
    "database": parsers.text,
    "tls_cert": parsers.text,
    "tls_key": parsers.text,
    "tokens": parse_tokens,
    "public_status": parsers.switch,
    "allowed_origins": parsers.origins,
    "trusted_proxies": parsers.networks,
    "max_clients": parsers.number(int, 1, 1_000_000),
    "max_clients_per_address": parsers.number(int, 1, 1_000_000),
    "max_streams_per_client": parsers.number(int, 1, 100_000),
    "max_streams": parsers.number(int, 1, 100_000),
    "max_connects_per_minute": parsers.number(int, 0, 100_000_000),
    "max_requests_per_second": parsers.number(float, 0.1, 1_000_000),
    "max_requests_per_second_per_address": parsers.number(float, 0, 1_000_000),
    "max_history_rows_per_minute": parsers.number(int, 1, 1_000_000_000),
    "max_history_rows_per_minute_per_address": parsers.number(int, 0, 1_000_000_000),
    "history_cache_mb": parsers.number(int, 0, 1_000_000),
    "retention": parsers.periods(*INTERVALS),
    "linger_seconds": parsers.number(float, 0, 3_600),
    "flush_ms": parsers.number(float, 0, 1_000),
    "compression": parsers.switch,
    "log_level": parsers.one_of(*LOG_LEVELS),
    "log_format": parsers.one_of(*LOG_FORMATS),
    "plugins": parsers.texts,
}

_SECRET_KEYS = {"tokens"}
_USER = re.compile(r"//[^/@\s]*@")
_QUERY = re.compile(r"\?[^'\",\s]+")


def load_config(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None, file: str | None = None) -> Config:
    """Put flags over environment over the file together. Raises `ConfigError` that names the key and the value.

    `flags` holds only what was given. `file` None reads `relay.toml` of the working directory if there is one.
    """
    environ = os.environ if environ is None else environ
    table, tables, source = _read_file(file)
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, parse in _PARSERS.items():
        variable = f"RELAY_{name.upper()}"
        if flags.get(name) is not None:
            given, where = flags[name], f"--{name.replace('_', '-')}"
        elif environ.get(variable):
            given, where = environ[variable], variable
        elif name in table:
            given, where = table[name], f"{name} in {source}"
        else:
            continue
        sources[name] = where
        found[name] = _parsed(parse, given, where, is_secret=name in _SECRET_KEYS)
    config = Config(
        **found,
        insecure=bool(flags.get("insecure")),
        sources=MappingProxyType(sources),
        read_from=source,
        tables=tables,
        environ=MappingProxyType(dict(environ)),
    )
    _check_exposure(config)
    if bool(config.tls_cert) != bool(config.tls_key):
        lacking, given = ("tls_key", "tls_cert") if config.tls_cert else ("tls_cert", "tls_key")
        raise ConfigError(f"{given} is set and {lacking} is not; TLS needs both")
    return config


def _parsed(parse: Callable[[Any], Any], given: Any, where: str, *, is_secret: bool = False) -> Any:
    try:
        return parse(given)
    except ValueError as error:
        raise ConfigError(f"{where}: {'the value' if is_secret else _shown(given)} {error}") from None


def _shown(given: Any) -> str:
    return masked(repr(given))


def masked(text: str) -> str:
    """Return a text without what may be secret in an address: its user and its query."""
    return _QUERY.sub("?***", _USER.sub("//***@", text))


def _read_file(file: str | None) -> tuple[dict[str, Any], dict[str, dict[str, Any]], str]:
    path = Path(file or DEFAULT_FILE)
    if file is None and not path.is_file():
        return {}, {}, ""
    try:
        with path.open("rb") as handle:
            content = tomllib.load(handle)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    tables = {name: value for name, value in content.items() if isinstance(value, dict) and name not in _PARSERS}
    table = {name: value for name, value in content.items() if name not in tables}
    for name in table:
        if name not in _PARSERS:
            raise ConfigError(f"unknown key {name!r} in {path}; known are {', '.join(sorted(_PARSERS))}")
    return table, tables, str(path)


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
            "relay. Set tokens (RELAY_TOKENS), or say --insecure if that is what you want"
        )


# -- settings of providers -------------------------------------------------------------------------


def check_tables(config: Config, known: Sequence[str]) -> None:
    """Refuse tables that belong to no provider. Raises `ConfigError`."""
    for name in config.tables:
        if name not in known:
            raise ConfigError(
                f"unknown key {name!r} in the configuration file: there is no such setting and no provider of "
                f"that name; providers are {', '.join(sorted(known)) or 'none'}"
            )


def provider_settings(config: Config, info: ProviderInfo) -> Mapping[str, Any]:
    """Return one provider's settings by name, checked. Raises `ConfigError` that names the key and the value."""
    table = config.tables.get(info.name, {})
    declared = {setting.name: setting for setting in info.settings}
    for name in table:
        if name not in declared:
            raise ConfigError(
                f"unknown key {name!r} in [{info.name}]; known are {', '.join(sorted(declared)) or 'none'}"
            )
    found: dict[str, Any] = {}
    for name, setting in declared.items():
        given, where = given_setting(config, info, setting)
        if where is None:
            found[name] = setting.default
            continue
        found[name] = _parsed(_parser_of(setting), given, where, is_secret=setting.is_secret)
        fault = setting.check(found[name]) if setting.check else None
        if fault:
            raise ConfigError(f"{where}: {'the value' if setting.is_secret else _shown(given)} {fault}")
    return MappingProxyType(found)


def given_setting(config: Config, info: ProviderInfo, setting: Setting) -> tuple[Any, str | None]:
    """Return a provider's setting as it was given and where; `(None, None)` where it was not."""
    table = config.tables.get(info.name, {})
    variables = (f"RELAY_{info.name}_{setting.name}".upper(), *setting.environment)
    variable = next((variable for variable in variables if config.environ.get(variable)), None)
    if variable is not None and variable == variables[0]:
        return config.environ[variable], variable
    if setting.name in table:
        return table[setting.name], f"{setting.name} in [{info.name}]"
    return (None, None) if variable is None else (config.environ[variable], variable)


def _parser_of(setting: Setting) -> Callable[[Any], Any]:
    if setting.is_secret:
        return parsers.secret
    least = float("-inf") if setting.least is None else setting.least
    most = float("inf") if setting.most is None else setting.most
    by_kind: dict[str, Callable[[Any], Any]] = {
        "text": parsers.text,
        "urls": parsers.urls,
        "int": parsers.number(int, least, most),
        "float": parsers.number(float, least, most),
        "choice": parsers.one_of(*setting.choices),
    }
    return by_kind[setting.kind]
