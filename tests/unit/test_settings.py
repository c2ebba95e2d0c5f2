"""Flags over environment over file, for every key of the contract; complaints name the key and the value."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from providers import BUILTIN
from relay.app import load_plugins
from relay.config.given_settings import is_loopback, load_config, outward_proxies
from relay.config.likely_mistakes import likely_mistakes
from relay.config.provider_settings import check_tables, provider_settings
from relay.config.settings import SETTINGS, Config, RelaySetting
from relay.config.tokens import Tokens
from relay.core.errors import ConfigError
from relay.core.secret import Secret
from tests.support import settings_table

SAMPLES: dict[str, tuple[Any, Any, Any]] = {
    "host": ("127.0.0.2", "127.0.0.3", "127.0.0.4"),
    "port": (8001, 8002, 8003),
    "database": ("a.db", "b.db", "c.db"),
    "max_clients": (1, 2, 3),
    "max_clients_per_address": (1, 2, 3),
    "max_streams_per_client": (1, 2, 3),
    "max_streams": (1, 2, 3),
    "linger_seconds": (0.5, 1.5, 2.5),
    "flush_ms": (1.0, 2.0, 3.0),
    "log_level": ("debug", "warning", "error"),
    "log_format": ("text", "json", "text"),
    "compression": (True, False, True),
    "public_status": (True, False, True),
    "trust_env": (True, False, True),
    "max_connects_per_minute": (1, 2, 3),
    "max_requests_per_second": (1.5, 2.5, 3.5),
    "max_requests_per_second_per_address": (1.5, 2.5, 3.5),
    "max_history_rows_per_minute": (1, 2, 3),
    "max_history_rows_per_minute_per_address": (1, 2, 3),
}
DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8000,
    "database": "relay.db",
    "tokens": Tokens(),
    "tls_cert": "",
    "tls_key": "",
    "proxy": None,
    "trust_env": False,
    "public_status": False,
    "trusted_proxies": (),
    "allowed_origins": (),
    "frame_ancestors": (),
    "max_clients": 10000,
    "max_clients_per_address": 1000,
    "max_streams_per_client": 0,
    "max_streams": 2000,
    "max_connects_per_minute": 0,
    "max_requests_per_second": 50,
    "max_requests_per_second_per_address": 0,
    "max_history_rows_per_minute": 1_000_000,
    "max_history_rows_per_minute_per_address": 0,
    "linger_seconds": 5,
    "flush_ms": 20,
    "log_level": "info",
    "log_format": "text",
    "plugins": (),
    "facades": ("binance", "udf"),
}


def config_of(
    content: str, tmp_path: Path, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Config:
    path = tmp_path / "relay.toml"
    path.write_text(content, encoding="utf-8")
    return load_config(flags or {}, environ or {}, str(path))


def toml(name: str, value: Any) -> str:
    return f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n"


def settings_of(config: Config, name: str) -> Mapping[str, Any]:
    return provider_settings(config, load_plugins(config, BUILTIN, installed=False).loaded[name].info)


def test_defaults_are_those_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config({}, {})
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", SAMPLES)
def test_flag_goes_before_environment_before_file(name: str, tmp_path: Path) -> None:
    in_file, in_environment, in_flag = SAMPLES[name]
    content, environ = toml(name, in_file), {f"RELAY_{name.upper()}": str(in_environment)}
    assert getattr(config_of(content, tmp_path), name) == in_file
    assert getattr(config_of(content, tmp_path, environ), name) == in_environment
    assert getattr(config_of(content, tmp_path, environ, {name: in_flag}), name) == in_flag
    assert getattr(config_of(content, tmp_path, environ, {name: str(in_flag)}), name) == in_flag


@pytest.mark.parametrize("name", ["allowed_origins", "frame_ancestors", "plugins"])
def test_lists_are_comma_lists_in_the_environment(name: str, tmp_path: Path) -> None:
    content = f"{name} = ['https://a.example', 'https://b.example']"
    assert getattr(config_of(content, tmp_path), name) == ("https://a.example", "https://b.example")
    found = config_of(content, tmp_path, {f"RELAY_{name.upper()}": "https://c.example, https://d.example,"})
    assert getattr(found, name) == ("https://c.example", "https://d.example")


def names_of(config: Config) -> dict[str, str]:
    """What opens the relay, by name."""
    return {
        token.name: offered for token in config.tokens for offered in WORDS if is_opened(config, token.name, offered)
    }


WORDS = ("one", "two", "three", "four")


def is_opened(config: Config, name: str, offered: str) -> bool:
    token = config.tokens.match(offered.encode())
    return token is not None and token.name == name


def test_tokens_are_a_list_a_comma_list_or_a_table_of_names(tmp_path: Path) -> None:
    in_file = "tokens = ['one', 'two']"
    assert names_of(config_of(in_file, tmp_path)) == {"token 1": "one", "token 2": "two"}
    environ = {"RELAY_TOKENS": "three, four,"}
    assert names_of(config_of(in_file, tmp_path, environ)) == {"token 1": "three", "token 2": "four"}
    table = "[tokens]\nalice = 'one'\n'bob@desk-2' = 'two'\n[twelve_data]\napi_key = 'k'\n"
    config = config_of(table, tmp_path)
    assert names_of(config) == {"alice": "one", "bob@desk-2": "two"}
    assert settings_of(config, "twelve_data")["api_key"] == Secret("k")


@pytest.mark.parametrize("value", ["tokens = []", "[tokens]"])
def test_no_token_in_the_list_or_table_is_none(tmp_path: Path, value: str) -> None:
    assert not config_of(value, tmp_path).tokens
    with pytest.raises(ConfigError, match="tokens"):
        config_of(f"host = '0.0.0.0'\n{value}", tmp_path)


def test_repr_shows_names_but_no_token(tmp_path: Path) -> None:
    shown = repr(config_of("[tokens]\nalice = 'opensesame'", tmp_path))
    assert "alice" in shown
    assert "opensesame" not in shown


def test_repr_shows_no_key_of_environment_or_file(tmp_path: Path) -> None:
    config = config_of("[twelve_data]\napi_key = 'hidden1'", tmp_path, {"TWELVE_DATA_API_KEY": "hidden2"})
    assert "hidden" not in repr(config)


def test_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert config_of("port = 8001", tmp_path, {"RELAY_PORT": "", "RELAY_TOKENS": ""}).port == 8001


@pytest.mark.parametrize("written", ["k1\n", "\r\nk1", "  k1\t", "k1"])
def test_what_stands_around_a_secret_is_none_of_it(tmp_path: Path, written: str) -> None:
    for config in (
        config_of("", tmp_path, {"RELAY_TWELVE_DATA_API_KEY": written, "RELAY_TOKENS": written}),
        config_of("", tmp_path, {"TWELVE_DATA_API_KEY": written, "RELAY_TOKENS": f"other,{written}"}),
        config_of(f"tokens = [{json.dumps(written)}]\n[twelve_data]\napi_key = {json.dumps(written)}", tmp_path),
    ):
        assert settings_of(config, "twelve_data")["api_key"] == Secret("k1")
        assert config.tokens.match(b"k1") is not None


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    secret, empty = tmp_path / "secret", tmp_path / "empty"
    secret.write_text("k1\n")
    empty.write_text("\n")
    for name in ("RELAY_TWELVE_DATA_API_KEY_FILE", "TWELVE_DATA_API_KEY_FILE"):
        config = config_of("", tmp_path, {name: str(secret), "RELAY_TOKENS_FILE": str(secret)})
        assert settings_of(config, "twelve_data")["api_key"] == Secret("k1")
        assert config.tokens.match(b"k1") is not None
        assert config.sources["tokens"] == "RELAY_TOKENS_FILE"
        assert not mistakes_of(config)[1:]
    config = config_of("", tmp_path, {"RELAY_TOKENS_FILE": str(empty), "RELAY_TWELVE_DATA_API_KEY_FILE": str(empty)})
    assert not config.tokens
    assert not settings_of(config, "twelve_data")["api_key"]
    said = mistakes_of(config)
    assert [line.partition(" names a file with nothing in it")[0] for line in said if "nothing in it" in line] == [
        "RELAY_TOKENS_FILE",
        "RELAY_TWELVE_DATA_API_KEY_FILE",
    ]
    # As systemd leaves it where a credential is missing.
    empty.write_text(" ")
    assert mistakes_of(config_of("", tmp_path, {"RELAY_TOKENS_FILE": str(empty)})) == []
    # What is no secret is given as it is.
    assert config_of("", tmp_path, {"RELAY_PORT_FILE": str(secret)}).port == 8000
    assert "RELAY_PORT_FILE" in mistakes_of(config_of("", tmp_path, {"RELAY_PORT_FILE": str(secret)}))[0]


def test_a_proxy_is_a_secret_whose_address_is_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("http://me:opensesame@proxy.example:3128\n")
    for config in (
        config_of("proxy = 'http://me:opensesame@proxy.example:3128'", tmp_path),
        config_of("", tmp_path, {"RELAY_PROXY": " http://me:opensesame@proxy.example:3128"}),
        config_of("", tmp_path, {"RELAY_PROXY_FILE": str(secret)}),
    ):
        assert str(config.proxy) == str(outward_proxies(config)) == "http://proxy.example:3128"
        assert "opensesame" not in repr(config)
    assert SETTINGS["proxy"].flag == ""


@pytest.mark.parametrize(
    ("written", "is_on"),
    [
        ("true", True),
        ("Yes", True),
        ("on", True),
        ("1", True),
        ("FALSE", False),
        ("no", False),
        ("off ", False),
        ("0", False),
    ],
)
def test_a_switch_in_a_variable_is_written_as_people_do(tmp_path: Path, written: str, is_on: bool) -> None:
    assert config_of("", tmp_path, {"RELAY_TRUST_ENV": written}).trust_env is is_on
    with pytest.raises(ConfigError, match=r"^RELAY_TRUST_ENV: 'maybe' is neither true nor false; write one of them"):
        config_of("", tmp_path, {"RELAY_TRUST_ENV": "maybe"})


@pytest.mark.parametrize(
    ("content", "environ", "words"),
    [
        ("proxy = 'socks5://me:opensesame@proxy'", {}, r"^proxy in .*: the value is the address of a SOCKS proxy"),
        ("", {"RELAY_PROXY": "https://me:opensesame@proxy"}, "^RELAY_PROXY: the value begins with https://"),
        ("proxy = 3128", {}, r"^proxy in .*: the value is not a text"),
        ("proxy = ''", {}, r"^proxy in .*: the value is empty"),
        (
            "trust_env = true",
            {"HTTPS_PROXY": "socks5://me:opensesame@proxy"},
            "^HTTPS_PROXY: the value is the address of a SOCKS proxy.*; trust_env is set$",
        ),
    ],
)
def test_a_proxy_that_is_no_use_is_refused_and_not_repeated(
    tmp_path: Path, content: str, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as complaint:
        config_of(content, tmp_path, environ)
    assert "opensesame" not in str(complaint.value)


def test_a_proxy_of_the_environment_that_is_not_used_is_named(tmp_path: Path) -> None:
    environ = {"HTTPS_PROXY": "socks5://opensesame", "http_proxy": "opensesame", "NO_PROXY": "opensesame"}
    assert mistakes_of(config_of("", tmp_path, environ)) == [
        f"{name} is set and not used: connections to providers go through no proxy; trust_env = true (RELAY_TRUST_ENV) "
        "uses it, and the setting proxy (RELAY_PROXY) names another"
        for name in ("http_proxy", "HTTPS_PROXY")
    ]
    assert mistakes_of(config_of("proxy = 'proxy:1'", tmp_path, environ)) == []
    assert mistakes_of(config_of("trust_env = true", tmp_path, {"http_proxy": "proxy:1"})) == []
    assert mistakes_of(config_of("", tmp_path, {"NO_PROXY": "a"})) == []


def test_a_secret_file_that_is_no_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "k").write_text("k")
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path / "binary", "UTF-8"), (tmp_path, "directory")):
        with pytest.raises(ConfigError, match=rf"^RELAY_TOKENS_FILE: .*{words}"):
            config_of("", tmp_path, {"RELAY_TOKENS_FILE": str(path)})
    both = {"RELAY_TOKENS": "opensesame", "RELAY_TOKENS_FILE": str(tmp_path / "k")}
    with pytest.raises(ConfigError, match=r"^RELAY_TOKENS and RELAY_TOKENS_FILE are both set"):
        config_of("", tmp_path, both)


@pytest.mark.parametrize("written", ["'opensesame'", '"opensesame"', '"opensesame', "` `", "\n '"])
def test_a_key_in_quotation_marks_is_refused_and_not_repeated(tmp_path: Path, written: str) -> None:
    for variable in ("RELAY_TWELVE_DATA_API_KEY", "TWELVE_DATA_API_KEY"):
        with pytest.raises(ConfigError, match=f"^{variable}: the value begins or ends with a quotation") as complaint:
            settings_of(config_of("", tmp_path, {variable: written}), "twelve_data")
        assert "opensesame" not in str(complaint.value)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_bytes(b"\xef\xbb\xbfport = 8123\n")
    assert load_config({}, {}, str(tmp_path / "relay.toml")).port == 8123


@pytest.mark.parametrize("stronger", ["environment", "flag"])
def test_a_wrong_value_is_one_also_where_a_stronger_source_hides_it(tmp_path: Path, stronger: str) -> None:
    environ = {"RELAY_PORT": "8001"} if stronger == "environment" else {}
    flags = {"port": "8002"} if stronger == "flag" else {}
    with pytest.raises(ConfigError, match=r"port in .*relay\.toml: 'http'"):
        config_of("port = 'http'", tmp_path, environ, flags)
    with pytest.raises(ConfigError, match="RELAY_PORT: '80x'"):
        config_of("", tmp_path, {"RELAY_PORT": "80x"}, {"port": "8002"})
    table = "[twelve_data]\npoll_seconds = 'often'"
    hidden = config_of(table, tmp_path, {"RELAY_TWELVE_DATA_POLL_SECONDS": "5"})
    with pytest.raises(ConfigError, match=r"poll_seconds in \[twelve_data\]"):
        settings_of(hidden, "twelve_data")


# What Kubernetes tells every container about a Service called `relay`, and about one called `relay-binance`.
OF_SERVICES = {
    "RELAY_SERVICE_HOST": "10.0.0.11",
    "RELAY_SERVICE_PORT": "8000",
    "RELAY_SERVICE_PORT_HTTP": "8000",
    "RELAY_PORT": "tcp://10.0.0.11:8000",
    "RELAY_PORT_8000_TCP": "tcp://10.0.0.11:8000",
    "RELAY_PORT_8000_TCP_PROTO": "tcp",
    "RELAY_PORT_8000_TCP_PORT": "8000",
    "RELAY_PORT_8000_TCP_ADDR": "10.0.0.11",
    "RELAY_BINANCE_SERVICE_HOST": "10.0.0.12",
    "RELAY_BINANCE_PORT": "udp://10.0.0.12:53",
    "RELAY_BINANCE_PORT_53_UDP_ADDR": "10.0.0.12",
}


def mistakes_of(config: Config) -> list[str]:
    host = load_plugins(config, BUILTIN, installed=False)
    return list(likely_mistakes(config, [loaded.info for loaded in host.loaded.values()]))


def test_variables_of_services_are_no_settings_and_no_mistakes(tmp_path: Path) -> None:
    config = config_of("", tmp_path, OF_SERVICES)
    assert config.port == 8000
    assert mistakes_of(config) == []


def test_likely_mistakes_name_the_variable_and_what_may_be_meant_but_no_value(tmp_path: Path) -> None:
    environ = {
        "RELAY_PROT": "opensesame",
        "RELAY_TWELVEDATA_API_KEY": "opensesame",
        "RELAY_WEATHER": "opensesame",
        "RELAY_API_KEY": "opensesame",
        "RELAY_ORIGINS": "opensesame",
        "RELAY_INSECURE": "opensesame",
        "RELAY_URL": "http://127.0.0.1:8000",
        "RELAY_TOKEN": "opensesame-opensesame",
        "RELAY_TOKEN_FILE": "alice",
        "RELAY_BINANCE_REST_URL": "http://a",
        "OTHER_PROT": "opensesame",
        "RELAY_TOKENS": "opensesame",
    }
    assert mistakes_of(config_of("", tmp_path, environ)) == [
        "the token of token 1 has fewer than 16 characters and can be guessed; relay token creates a longer one",
        "no setting reads the variable RELAY_API_KEY; did you mean RELAY_TWELVE_DATA_API_KEY?",
        "no setting reads the variable RELAY_INSECURE; --insecure is a flag only",
        "no setting reads the variable RELAY_ORIGINS; did you mean RELAY_ALLOWED_ORIGINS?",
        "no setting reads the variable RELAY_PROT; did you mean RELAY_PORT?",
        "no setting reads the variable RELAY_TWELVEDATA_API_KEY; did you mean RELAY_TWELVE_DATA_API_KEY?",
        "no setting reads the variable RELAY_WEATHER",
    ]


def test_a_token_for_commands_where_a_relay_has_none_is_a_likely_mistake(tmp_path: Path) -> None:
    said = "RELAY_TOKEN{0} is for commands, and no tokens are set; did you mean RELAY_TOKENS{0}?"
    assert mistakes_of(config_of("", tmp_path, {"RELAY_TOKEN": "opensesame"})) == [said.format("")]
    assert mistakes_of(config_of("", tmp_path, {"RELAY_TOKEN_FILE": "alice"})) == [said.format("_FILE")]


def test_a_name_for_a_relay_among_others_without_others_is_a_likely_mistake(tmp_path: Path) -> None:
    said = "RELAY_CLUSTER_NODE is set and [cluster] nats is not: this relay shares its work with no other"
    assert mistakes_of(config_of("", tmp_path, {"RELAY_CLUSTER_NODE": "a"})) == [said]
    assert mistakes_of(config_of("[cluster]\nnats = ['nats://a']", tmp_path, {"RELAY_CLUSTER_NODE": "a"})) == []


def test_relay_toml_of_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text("port = 8123")
    assert load_config({}, {}).port == 8123


# -- settings of providers -------------------------------------------------------------------------

PROVIDER_KEYS: list[tuple[str, str, str, str, Any, Any]] = [
    ("binance", "ws_url", "'wss://a'", "wss://b,wss://c", ("wss://a",), ("wss://b", "wss://c")),
    ("binance", "rest_url", "['http://a', 'http://b']", "http://c", ("http://a", "http://b"), ("http://c",)),
    ("twelve_data", "api_key", "'k1'", "k2", Secret("k1"), Secret("k2")),
    ("twelve_data", "rest_url", "'http://a'", "http://b", ("http://a",), ("http://b",)),
    ("twelve_data", "ws_url", "'ws://a'", "ws://b", ("ws://a",), ("ws://b",)),
    ("twelve_data", "mode", "'poll'", "poll", "poll", "poll"),
    ("twelve_data", "poll_seconds", "7", "8", 7, 8),
    ("twelve_data", "market_hours", "'always'", "forex", "always", "forex"),
    ("twelve_data", "credits_per_minute", "9", "10", 9, 10),
    ("twelve_data", "credits_per_day", "900", "1000", 900, 1000),
]


@pytest.mark.parametrize(("provider", "name", "in_file", "in_environment", "of_file", "of_environment"), PROVIDER_KEYS)
def test_environment_goes_before_a_providers_table(
    tmp_path: Path, provider: str, name: str, in_file: str, in_environment: str, of_file: Any, of_environment: Any
) -> None:
    content = f"[{provider}]\n{name} = {in_file}\n"
    assert settings_of(config_of(content, tmp_path), provider)[name] == of_file
    variable = f"RELAY_{provider}_{name}".upper()
    assert settings_of(config_of(content, tmp_path, {variable: in_environment}), provider)[name] == of_environment


def test_provider_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    config = config_of("", tmp_path)
    binance, twelve_data = settings_of(config, "binance"), settings_of(config, "twelve_data")
    assert binance["ws_url"] == ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision")
    assert binance["rest_url"] == ("https://api.binance.com", "https://data-api.binance.vision")
    assert not twelve_data["api_key"]
    assert twelve_data["rest_url"] == ("https://api.twelvedata.com",)
    assert twelve_data["ws_url"] == ("wss://ws.twelvedata.com/v1/quotes/price",)
    assert {name: twelve_data[name] for name in ("mode", "poll_seconds", "market_hours")} == {
        "mode": "poll",
        "poll_seconds": 30,
        "market_hours": "forex",
    }
    assert (twelve_data["credits_per_minute"], twelve_data["credits_per_day"]) == (8, 800)


def test_own_variable_goes_before_the_usual_one_of_the_provider(tmp_path: Path) -> None:
    usual = {"TWELVE_DATA_API_KEY": "usual"}
    assert settings_of(config_of("", tmp_path, usual), "twelve_data")["api_key"] == Secret("usual")
    both = config_of("", tmp_path, {"RELAY_TWELVE_DATA_API_KEY": "own", **usual})
    assert settings_of(both, "twelve_data")["api_key"] == Secret("own")
    # The file is the operator's word about this relay; the usual variable may be meant for other programs.
    file = config_of("[twelve_data]\napi_key = 'file'", tmp_path, usual)
    assert settings_of(file, "twelve_data")["api_key"] == Secret("file")


# -- complaints ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "environ", "words"),
    [
        ("max_clients = 0", {}, ("max_clients", "0", "1")),
        ("max_clients = 1.5", {}, ("max_clients", "1.5", "whole")),
        ("max_clients = '1.5'", {}, ("max_clients", "'1.5'", "whole")),
        ("max_clients = '5_0_0x'", {}, ("max_clients", "number")),
        ("max_clients = -inf", {}, ("max_clients", "-inf")),
        ("flush_ms = nan", {}, ("flush_ms", "nan")),
        ("host = ''", {}, ("host", "''")),
        ("host = 5", {}, ("host", "5")),
        ("", {"RELAY_HOST": "[relay]"}, ("RELAY_HOST", "'[relay]'", "[::1]")),
        ("plugins = [1]", {}, ("plugins", "list of texts")),
        ("allowed_origins = ['https://a.example/path']", {}, ("allowed_origins", "https://charts.example.org")),
        ("frame_ancestors = ['*']", {}, ("frame_ancestors", "'*'", "list the origins")),
        ("frame_ancestors = 'https://a.example;script-src *'", {}, ("frame_ancestors", "https://charts.example.org")),
        ("frame_ancestors = ['http://[::1]:8080']", {}, ("frame_ancestors", "http://[::1]:8080", "name of a host")),
        ("frame_ancestors = ['null']", {}, ("frame_ancestors", "null")),
        ("log_format = 'xml'", {}, ("log_format", "'xml'", "text, json")),
        ("log_level = 'INFO'", {}, ("log_level", "'INFO'", "info")),
        ("", {"RELAY_PORT": "80x"}, ("RELAY_PORT", "'80x'")),
        ("", {"RELAY_LINGER_SECONDS": "-1"}, ("RELAY_LINGER_SECONDS", "'-1'", "3600")),
        ("[port]\nx = 1", {}, ("port", "number")),
        ("[[binance]]\nx = 1", {}, ("'binance'",)),
        ("unknown = 1", {}, ("'unknown'", "relay.toml", "max_clients")),
        ("trusted_proxies = ['10.0.0.1/8']", {}, ("trusted_proxies", "10.0.0.1/8", "10.0.0.0/8")),
        ("trusted_proxies = ['nginx']", {}, ("trusted_proxies", "'nginx'", "10.0.0.0/8")),
        ("public_status = 'maybe'", {}, ("public_status", "true nor false")),
        ("max_requests_per_second = 0", {}, ("max_requests_per_second", "0.1")),
        ("tls_cert = 'cert.pem'", {}, ("tls_cert", "tls_key")),
        ("", {"RELAY_TLS_KEY": "key.pem"}, ("tls_key", "tls_cert")),
    ],
)
def test_complaint_names_key_and_value(
    tmp_path: Path, content: str, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as complaint:
        config_of(content, tmp_path, environ)
    assert all(word in str(complaint.value) for word in words), complaint.value
    assert "\n" not in str(complaint.value)


@pytest.mark.parametrize(
    ("content", "environ", "words"),
    [
        ("[twelve_data]\npoll_seconds = 'often'", {}, ("poll_seconds in [twelve_data]", "'often'")),
        ("[twelve_data]\ncredits_per_minute = 0", {}, ("credits_per_minute in [twelve_data]", "0", "from 1 upwards")),
        ("[twelve_data]\nmarket_hours = 'nine to five'", {}, ("market_hours", "forex, always")),
        ("[twelve_data]\nmode = 'push'", {}, ("mode", "'push'", "poll")),
        ("[twelve_data]\ncredits = 5", {}, ("'credits'", "[twelve_data]", "credits_per_minute")),
        ("[binance]\nws_url = 'http//x'", {}, ("ws_url in [binance]", "wss://")),
        ("[binance]\nws_url = []", {}, ("ws_url in [binance]", "no address")),
        ("", {"RELAY_BINANCE_REST_URL": "example.org"}, ("RELAY_BINANCE_REST_URL", "'example.org'")),
        ("", {"RELAY_TWELVE_DATA_POLL_SECONDS": "0"}, ("RELAY_TWELVE_DATA_POLL_SECONDS", "'0'")),
    ],
)
def test_complaint_about_a_providers_key(
    tmp_path: Path, content: str, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    config = config_of(content, tmp_path, environ)
    with pytest.raises(ConfigError) as complaint:
        [settings_of(config, name) for name in ("binance", "twelve_data")]
    assert all(word in str(complaint.value) for word in words), complaint.value


def test_table_of_nobody_is_a_complaint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'kraken'.*binance"):
        load_plugins(config_of("[kraken]\nx = 1", tmp_path), BUILTIN, installed=False)


def test_table_of_a_plugin_that_failed_is_none(tmp_path: Path) -> None:
    (tmp_path / "kraken.py").write_text("import nowhere_to_be_found")
    config = config_of(f"plugins = ['{tmp_path / 'kraken.py'}']\n[kraken]\nx = 1", tmp_path)
    host = load_plugins(config, BUILTIN, installed=False)
    assert [failure.source for failure in host.failures] == [f"file:{tmp_path / 'kraken.py'}"]
    check_tables(config, [*host.loaded, "kraken"])


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("relay.example.org", False),
    ],
)  # fmt: skip
def test_open_relay_listens_on_loopback_only(host: str, is_local: bool, tmp_path: Path) -> None:
    assert is_loopback(host) is is_local
    assert config_of(toml("host", host) + "tokens = ['t']", tmp_path).host == host
    assert config_of(toml("host", host), tmp_path, flags={"insecure": True}).host == host
    if is_local:
        assert config_of(toml("host", host), tmp_path).host == host
    else:
        with pytest.raises(ConfigError, match="tokens"):
            config_of(toml("host", host), tmp_path)


@pytest.mark.parametrize(("written", "host"), [("[::1]", "::1"), ("::1", "::1"), ("[fd00::2%eth0]", "fd00::2%eth0")])
def test_an_ipv6_address_may_stand_in_brackets(tmp_path: Path, written: str, host: str) -> None:
    assert config_of(toml("host", written), tmp_path, flags={"insecure": True}).host == host
    assert host == "::1" or not is_loopback(host)


@pytest.mark.parametrize("written", ["LOCALHOST", " localhost", "127.0.0.1 ", "localhost."])
def test_a_loopback_address_is_one_however_it_is_written(tmp_path: Path, written: str) -> None:
    assert is_loopback(config_of(toml("host", written), tmp_path).host)


@pytest.mark.parametrize(
    "written", ["127.0.0.1:8000", "http://127.0.0.1", "*", "[::1", "[localhost]", "127.1", "[::1]:80"]
)
def test_what_is_no_host_is_refused_as_such(tmp_path: Path, written: str) -> None:
    with pytest.raises(ConfigError, match="is not a name or address to listen on"):
        config_of(toml("host", written), tmp_path)


def test_a_secret_in_a_file_may_have_a_byte_order_mark_before_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbfopensesame\r\n")
    config = config_of("", tmp_path, {"RELAY_TOKENS_FILE": str(tmp_path / "token")})
    assert config.tokens.match(b"opensesame") is not None


@pytest.mark.parametrize(
    ("content", "meant"),
    [
        ("hots = 'x'", "did you mean host\\?"),
        ("origins = []", "did you mean allowed_origins\\?"),
        ("[token]\nalice = 'x'", "did you mean tokens\\?"),
        ("[binanc]\nws_url = 'x'", "did you mean binance\\?"),
        ("[twelve_data]\napikey = 'x'", "did you mean api_key\\?"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(tmp_path: Path, content: str, meant: str) -> None:
    def read() -> None:
        config = config_of(content, tmp_path)
        for loaded in load_plugins(config, BUILTIN, installed=False).loaded.values():
            provider_settings(config, loaded.info)

    with pytest.raises(ConfigError, match=meant):
        read()


def test_trusted_proxies_are_addresses_and_networks(tmp_path: Path) -> None:
    expected = ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")
    in_file = config_of("trusted_proxies = ['127.0.0.1', '10.0.0.0/8', 'fd00::/8']", tmp_path)
    in_environment = config_of("", tmp_path, {"RELAY_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8,fd00::/8"})
    assert tuple(map(str, in_file.trusted_proxies)) == expected
    assert in_environment.trusted_proxies == in_file.trusted_proxies


def test_tls_takes_both_files(tmp_path: Path) -> None:
    config = config_of("tls_cert = 'cert.pem'\ntls_key = 'key.pem'", tmp_path)
    assert (config.tls_cert, config.tls_key) == ("cert.pem", "key.pem")


@pytest.mark.parametrize(
    ("content", "environ", "words"),
    [
        ("tokens = ['opensesame', '']", {}, ("tokens", "token 2", "relay token")),
        ("tokens = ['opensesame', 5]", {}, ("tokens", "token 2")),
        ("tokens = 5", {}, ("tokens", "[tokens]")),
        ("tokens = ''", {}, ("tokens", "no token")),
        ("", {"RELAY_TOKENS": " , "}, ("RELAY_TOKENS", "no token")),
        ("[tokens]\nalice = ''", {}, ("alice",)),
        ("[tokens]\nalice = 'opensesame'\nbob = 'opensesame'", {}, ("alice", "bob")),
        ("[tokens]\nalice = 'sha256:opensesame'", {}, ("alice", "64", "relay token")),
        ("[tokens]\n'opensesame of mine' = 'alice'", {}, ("name",)),
        (f"[tokens]\nopensesame{'x' * 40} = 'alice'", {}, ("name", "40")),
        ("[tokens.alice]\nx = 'opensesame'", {}, ("alice",)),
    ],
)
def test_complaint_about_tokens_repeats_none(
    tmp_path: Path, content: str, environ: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as complaint:
        config_of(content, tmp_path, environ)
    assert all(word in str(complaint.value) for word in words), complaint.value
    assert "opensesame" not in str(complaint.value)


def test_the_readme_has_a_row_for_each_setting() -> None:
    table = settings_table.parts(settings_table.README.read_text(encoding="utf-8"))[1]
    assert table == settings_table.settings_table(), "write it: python -m tests.support.settings_table"
    assert table.count("\n") > 36


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: str(setting.name))
def test_a_default_is_a_value_that_can_be_given(setting: RelaySetting) -> None:
    """A declaration whose default its own reader refuses, or reads as another value, would be two settings."""
    if setting.default not in ("", ()) and not setting.is_secret:
        is_list = isinstance(setting.default, tuple)
        assert setting.parse(",".join(setting.default) if is_list else str(setting.default)) == setting.default


# -- several relays ----------------------------------------------------------------------------------


def test_the_table_cluster_of_the_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[cluster]\nnats = ["nats://a:4222", "tls://b:4222"]\nnode = "one"\nshards = 4\n')
    config = load_config({}, {"RELAY_CLUSTER_NODE": "two"}, str(file))
    assert config.cluster_nats == ("nats://a:4222", "tls://b:4222")
    assert (config.cluster_node, config.cluster_shards, config.cluster_namespace) == ("two", 4, "relay")
    assert config.sources["cluster_shards"] == f"[cluster] shards in {file}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[cluster]\nnast = 1", "unknown key 'nast' in [cluster]"),
        ("cluster = 1", "1 is not a table; write [cluster]"),
        ('cluster_node = "a"', "unknown key 'cluster_node'"),
        ('[cluster]\nnats = "http://a"', "has an address that is none of NATS"),
        ('[cluster]\nnats = "nats://user:secret@"', "has an address that is none of NATS"),
        ('[cluster]\nnode = "a b"', "is not a name of a relay"),
        ('[cluster]\nnamespace = "a.b"', "is not a namespace"),
        ("[cluster]\nshards = 65", "has to be from 1 to 64"),
    ],
)
def test_what_is_wrong_with_the_table_cluster_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config({}, {}, str(file))
    assert complaint in str(raised.value)
    assert "secret" not in str(raised.value)
