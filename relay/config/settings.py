"""Flags over environment over a TOML file, checked into frozen settings; every complaint names the key."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from relay.config import parsers
from relay.config.environment import given_variable
from relay.config.tokens import Tokens, parse_tokens
from relay.core.errors import ConfigError
from relay.core.intervals import INTERVALS
from relay.core.near_names import did_you_mean
from relay.core.outward_proxies import OutwardProxies, OutwardProxy

DEFAULT_FILE = "relay.toml"
INSTANCES = "providers"
"""The table of the file whose tables are instances of providers."""
CLUSTER = "cluster"
"""The table of the file with the settings that are called `cluster_…` elsewhere."""
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
FACADE_NAMES = ("binance", "udf")
_NUMBER = "NUMBER"
_Tables: TypeAlias = dict[str, dict[str, Any]]


class RelaySetting(NamedTuple):
    """One setting of the relay: all that flags, environment, `check-config`, SIGHUP and the README know of it.

    `parse` takes what was given and raises `ValueError` with the end of a sentence. `form` is how a value is written;
    `automatic` says what holds where the value is empty or 0. A secret has no flag: other users of the machine see
    flags. Without `is_reloaded` a change needs a restart.
    """

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str
    form: str = ""
    automatic: str = ""
    is_reloaded: bool = False
    is_secret: bool = False

    @property
    def key(self) -> str:
        """How it is named for people: as in the file, with the table that it is in."""
        table, mark, name = self.name.partition("_")
        return f"[{table}] {name}" if mark and table == CLUSTER else self.name

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return f"RELAY_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The name of its flag, "" for a secret."""
        return "" if self.is_secret else f"--{self.name.replace('_', '-')}"

    @property
    def default_text(self) -> str:
        """What holds where nothing is given, in words."""
        if self.automatic or isinstance(self.default, bool):
            return self.automatic or ("yes" if self.default else "no")
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def _setting(parse: Callable[[Any], Any], default: Any, help: str, **more: Any) -> Any:
    """Make a field of `Config` that is a setting; `more` are fields of `RelaySetting`."""
    return field(default=default, metadata={"parse": parse, "help": help, **more})


@dataclass(frozen=True, slots=True)
class Config:
    """The relay's own settings, and the tables of the providers as they were found.

    Each setting is declared here and nowhere else; `SETTINGS` has the declarations.
    """

    host: str = _setting(parsers.host, "127.0.0.1", "Address to listen on.")
    port: int = _setting(parsers.number(int, 0, 65_535), 8000, "Port to listen on; 0 takes a free one.", form=_NUMBER)
    reuse_port: bool = _setting(
        parsers.switch,
        False,
        "Let other relays of this machine that have it set, too, listen on the same port; the system spreads clients.",
    )
    database: str = _setting(
        parsers.text,
        "relay.db",
        "SQLite file for closed candles, used by one relay at a time; :memory: stores nothing.",
        form="FILE",
    )
    tls_cert: str = _setting(
        parsers.text,
        "",
        "Certificate chain (PEM); switches https and wss on.",
        form="FILE",
        automatic="none",
        is_reloaded=True,
    )
    tls_key: str = _setting(
        parsers.text, "", "Private key of the certificate (PEM).", form="FILE", automatic="none", is_reloaded=True
    )
    tokens: Tokens = _setting(  # noqa: RUF009 - it makes a field, and Tokens never change
        parse_tokens,
        Tokens(),
        "Tokens that clients need; the table [tokens] of a file gives each a name. Without tokens the relay listens on "
        "a loopback address only, unless --insecure is given.",
        form="TOKEN,…",
        automatic="none: open",
        is_reloaded=True,
        is_secret=True,
    )
    proxy: OutwardProxy | None = _setting(  # noqa: RUF009 - it makes a field, and proxies never change
        parsers.proxy,
        None,
        "HTTP proxy for connections to providers, except on this machine; SOCKS is not supported.",
        form="http://USER:PASSWORD@HOST:PORT",
        automatic="none",
        is_reloaded=True,
        is_secret=True,
    )
    trust_env: bool = _setting(
        parsers.switch,
        False,
        "Without a proxy setting, use HTTP_PROXY and HTTPS_PROXY of the environment, except for the hosts in NO_PROXY.",
        is_reloaded=True,
    )
    public_status: bool = _setting(parsers.switch, False, "Status and metrics need no token.", is_reloaded=True)
    allowed_origins: tuple[str, ...] = _setting(
        parsers.origins,
        (),
        "Web pages of these origins may use the relay, too.",
        form="ORIGIN,…",
        automatic="the relay's own",
        is_reloaded=True,
    )
    frame_ancestors: tuple[str, ...] = _setting(
        parsers.frame_ancestors,
        (),
        "Web pages of these origins may show charts in frames, by addresses with embed=1.",
        form="ORIGIN,…",
        automatic="none",
        is_reloaded=True,
    )
    trusted_proxies: tuple[parsers.Network, ...] = _setting(
        parsers.networks,
        (),
        "Proxies whose X-Forwarded-For, -Proto and -Prefix headers the relay uses.",
        form="ADDRESS|NETWORK,…",
        automatic="none",
        is_reloaded=True,
    )
    max_clients: int = _setting(
        parsers.number(int, 1, 1_000_000),
        10_000,
        "Maximum number of clients for live updates, over WebSocket or as Server-Sent Events.",
        form=_NUMBER,
        is_reloaded=True,
    )
    max_clients_per_address: int = _setting(
        parsers.number(int, 1, 1_000_000),
        1_000,
        "Maximum number of clients for live updates from one address.",
        form=_NUMBER,
        is_reloaded=True,
    )
    max_streams_per_client: int = _setting(
        parsers.number(int, 0, 100_000),
        0,
        "Maximum number of streams of one client.",
        form=_NUMBER,
        automatic="200; 1024 for programs that are written against Binance",
        is_reloaded=True,
    )
    max_streams: int = _setting(
        parsers.number(int, 1, 100_000),
        2_000,
        "Maximum number of different streams of all clients.",
        form=_NUMBER,
        is_reloaded=True,
    )
    max_connects_per_minute: int = _setting(
        parsers.number(int, 0, 100_000_000),
        0,
        "Maximum number of new WebSocket connections from one address per minute.",
        form=_NUMBER,
        automatic="max_clients_per_address, at least 300; no limit on this machine",
        is_reloaded=True,
    )
    max_requests_per_second: float = _setting(
        parsers.number(float, 0.1, 1_000_000),
        50.0,
        "Maximum rate of requests of one WebSocket client. A request with many streams counts as more: one more for "
        "every five streams. A burst may have the requests of ten seconds.",
        form=_NUMBER,
        is_reloaded=True,
    )
    max_requests_per_second_per_address: float = _setting(
        parsers.number(float, 0, 1_000_000),
        0.0,
        "Maximum rate of requests from one address; over HTTP, of one token.",
        form=_NUMBER,
        automatic="1000; no limit on this machine",
        is_reloaded=True,
    )
    max_history_rows_per_minute: int = _setting(
        parsers.number(int, 1, 1_000_000_000),
        1_000_000,
        "Maximum number of past candles for one client for live updates per minute.",
        form=_NUMBER,
        is_reloaded=True,
    )
    max_history_rows_per_minute_per_address: int = _setting(
        parsers.number(int, 0, 1_000_000_000),
        0,
        "Maximum number of past candles for one address per minute; over HTTP, for one token.",
        form=_NUMBER,
        automatic="10000000; no limit on this machine",
        is_reloaded=True,
    )
    history_cache_mb: int = _setting(
        parsers.number(int, 0, 1_000_000),
        64,
        "Memory for cached history: half for encoded candles, half for whole answers; 0 switches the cache off.",
        form=_NUMBER,
    )
    retention: tuple[parsers.Period, ...] = _setting(
        parsers.periods(*INTERVALS),
        (),
        "Delete candles that are older than this, by interval (h, d, w, y).",
        form="1s=7d,1m=2y,…",
        automatic="never",
    )
    linger_seconds: float = _setting(
        parsers.number(float, 0, 3_600),
        5.0,
        "How long a stream stays open at its provider after the last subscriber has left.",
        form=_NUMBER,
    )
    flush_ms: float = _setting(
        parsers.number(float, 0, 1_000),
        20.0,
        "Updates within this time are sent in one write. More saves CPU, less makes prices newer.",
        form=_NUMBER,
    )
    compression: bool = _setting(
        parsers.switch,
        False,
        "Compress messages for clients that support it (permessage-deflate), once for all clients.",
    )
    log_level: str = _setting(
        parsers.one_of(*LOG_LEVELS),
        "info",
        "Lowest level of messages in the log, which goes to stderr.",
        form="|".join(LOG_LEVELS),
        is_reloaded=True,
    )
    log_format: str = _setting(
        parsers.one_of(*LOG_FORMATS),
        "text",
        "Format of the log: lines of text or JSON objects.",
        form="|".join(LOG_FORMATS),
    )
    plugins: tuple[str, ...] = _setting(
        parsers.texts,
        (),
        "Providers to load in addition to the installed ones.",
        form="MODULE|MODULE:NAME|FILE.py",
        automatic="none",
    )
    facades: tuple[str, ...] = _setting(
        parsers.some_of(*FACADE_NAMES),
        FACADE_NAMES,
        "Protocols of other services that are served too, for programs that are written against them; empty for none.",
        form="|".join(FACADE_NAMES),
    )
    cluster_nats: tuple[str, ...] = _setting(
        parsers.bus_urls,
        (),
        "NATS servers by which relays share their work; with them this relay is one of several. TLS with tls://.",
        form="nats://HOST:PORT,…",
        automatic="none: one relay alone",
    )
    cluster_namespace: str = _setting(
        parsers.subject_token,
        "relay",
        "Relays with the same namespace share their work.",
        form="NAME",
    )
    cluster_node: str = _setting(
        parsers.node_name,
        "",
        "Name of this relay among the others.",
        form="NAME",
        automatic="the host's name and the port",
    )
    cluster_credentials: str = _setting(
        parsers.text, "", "Credentials file (.creds) for NATS.", form="FILE", automatic="none"
    )
    cluster_shards: int = _setting(
        parsers.number(int, 1, 64),
        1,
        "In how many parts the streams of a provider without a key are shared; each relay that has a part connects to "
        "the provider. The same in all relays.",
        form=_NUMBER,
    )
    insecure: bool = False
    # Where each setting that was given comes from; what is not in it has its default.
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False, compare=False)
    # The configuration file, "" without one.
    read_from: str = field(default="", repr=False, compare=False)
    # They hold keys in plain text, so none shows in `repr`. `instances` are the tables [providers.NAME], by NAME.
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    instances: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


SETTINGS = {
    one.name: RelaySetting(one.name, default=one.default, **one.metadata) for one in fields(Config) if one.metadata
}
"""The settings of the relay by name, in the order in which people read them."""

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
