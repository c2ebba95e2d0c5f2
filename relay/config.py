"""Flags over environment over a TOML file, checked into frozen settings; every complaint names the key."""

import ipaddress
import math
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from relay.errors import ConfigError
from relay.model import ProviderInfo, Setting
from relay.secret import Secret

DEFAULT_FILE = "relay.toml"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True, slots=True)
class Config:
    """The relay's own settings, and the tables of the providers as they were found."""

    host: str = "127.0.0.1"
    port: int = 8000
    database: str = "relay.db"
    tokens: tuple[Secret, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_clients: int = 10_000
    max_clients_per_address: int = 1_000
    max_streams_per_client: int = 200
    max_streams: int = 2_000
    linger_seconds: float = 5.0
    flush_ms: float = 20.0
    compression: bool = False
    log_level: str = "info"
    log_format: str = "text"
    plugins: tuple[str, ...] = ()
    insecure: bool = False
    # Both hold keys in plain text, so neither shows in `repr`.
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is not a text")
    return value


def _number(kind: type, least: float, most: float) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = kind(value)
            except ValueError:
                raise ValueError(f"is not a number from {least:g} to {most:g}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"is not a number from {least:g} to {most:g}")
        if not least <= value <= most:
            raise ValueError(f"is out of range; it has to be from {least:g} to {most:g}")
        if not math.isfinite(value) or kind(value) != value:
            raise ValueError(f"is not a {'whole ' if kind is int else ''}number from {least:g} to {most:g}")
        return kind(value)

    return parse


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return str(value)

    return parse


def _switch(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, Sequence) or not all(isinstance(part, str) for part in value):
        raise ValueError("is not a list of texts")
    return tuple(part for part in value if part)


def _secrets(value: Any) -> tuple[Secret, ...]:
    return tuple(Secret(text) for text in _texts(value))


def _origins(value: Any) -> tuple[str, ...]:
    origins = _texts(value)
    for origin in origins:
        scheme, _, rest = origin.partition("://")
        if scheme not in {"http", "https"} or not rest or "/" in rest:
            raise ValueError("is not a list of origins such as https://charts.example.org")
    return tuple(origin.lower() for origin in origins)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "host": _text,
    "port": _number(int, 0, 65_535),
    "database": _text,
    "tokens": _secrets,
    "allowed_origins": _origins,
    "max_clients": _number(int, 1, 1_000_000),
    "max_clients_per_address": _number(int, 1, 1_000_000),
    "max_streams_per_client": _number(int, 1, 100_000),
    "max_streams": _number(int, 1, 100_000),
    "linger_seconds": _number(float, 0, 3_600),
    "flush_ms": _number(float, 0, 1_000),
    "compression": _switch,
    "log_level": _one_of(*LOG_LEVELS),
    "log_format": _one_of(*LOG_FORMATS),
    "plugins": _texts,
}

_SECRET_KEYS = {"tokens"}


def load_config(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None, file: str | None = None) -> Config:
    """Put flags over environment over the file together. Raises `ConfigError` that names the key and the value.

    `flags` holds only what was given. `file` None reads `relay.toml` of the working directory if there is one.
    """
    environ = os.environ if environ is None else environ
    table, tables, source = _read_file(file)
    values: dict[str, Any] = {}
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
        values[name] = _parsed(parse, given, where, is_secret=name in _SECRET_KEYS)
    config = Config(
        **values, insecure=bool(flags.get("insecure")), tables=tables, environ=MappingProxyType(dict(environ))
    )
    _check_exposure(config)
    return config


def _parsed(parse: Callable[[Any], Any], given: Any, where: str, *, is_secret: bool = False) -> Any:
    try:
        return parse(given)
    except ValueError as error:
        raise ConfigError(f"{where}: {'the value' if is_secret else repr(given)} {error}") from None


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
    values: dict[str, Any] = {}
    for name, setting in declared.items():
        variables = (f"RELAY_{info.name}_{name}".upper(), *setting.environment)
        variable = next((variable for variable in variables if config.environ.get(variable)), None)
        if variable is not None and variable == variables[0]:
            given, where = config.environ[variable], variable
        elif name in table:
            given, where = table[name], f"{name} in [{info.name}]"
        elif variable is not None:
            given, where = config.environ[variable], variable
        else:
            values[name] = setting.default
            continue
        values[name] = _parsed(_parser_of(setting), given, where, is_secret=setting.is_secret)
        fault = setting.check(values[name]) if setting.check else None
        if fault:
            raise ConfigError(f"{where}: {'the value' if setting.is_secret else repr(given)} {fault}")
    return MappingProxyType(values)


def _parser_of(setting: Setting) -> Callable[[Any], Any]:
    if setting.is_secret:
        return lambda value: Secret(_text(value))
    least = float("-inf") if setting.least is None else setting.least
    most = float("inf") if setting.most is None else setting.most
    parsers: dict[str, Callable[[Any], Any]] = {
        "text": _text,
        "urls": _urls,
        "int": _number(int, least, most),
        "float": _number(float, least, most),
        "choice": _one_of(*setting.choices),
    }
    return parsers[setting.kind]


def _urls(value: Any) -> tuple[str, ...]:
    urls = _texts(value)
    for url in urls:
        scheme, _, rest = url.partition("://")
        if scheme not in {"http", "https", "ws", "wss"} or not rest:
            raise ValueError("is not a list of addresses such as https://api.example.com or wss://stream.example.com")
    if not urls:
        raise ValueError("holds no address")
    return urls
