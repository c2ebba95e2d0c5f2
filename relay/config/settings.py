"""The settings of the relay, declared once: what they are called and take, and all of them as one frozen value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple

from relay.config import parsers
from relay.config.tokens import Tokens, parse_tokens
from relay.core.intervals import INTERVALS
from relay.core.outward_proxies import OutwardProxy

INSTANCES = "providers"
"""The table of the file whose tables are instances of providers."""
CLUSTER = "cluster"
"""The table of the file with the settings that are called `cluster_…` elsewhere."""
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
FACADE_NAMES = ("binance", "udf")
_NUMBER = "NUMBER"


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
