"""`relay check-config` explains what a relay would do, names where each setting comes from, and shows no secret."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from relay.cli import main

FILE = """
host = "0.0.0.0"
allowed_origins = ["https://charts.example.org"]
proxy = "http://me:hunter2@proxy.example.org:3128"
[tokens]
alice = "a-token-that-nobody-may-see"
[binance]
ws_url = "wss://me:hunter2@stream.example.org/x?key=swordfish"
[twelve_data]
api_key = "a-key-that-nobody-may-see"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["check-config", *words], env=env)


def lines_of(result: Result) -> dict[str, str]:
    """Return what follows the first words of each line."""
    rows = [line.rsplit("  ", 1) for line in result.output.splitlines() if "  " in line]
    return {" ".join(row[0].split()): row[-1].strip() for row in rows}


def test_nothing_set_is_explained_in_words(here: Path) -> None:
    result = check()
    assert result.exit_code == 0
    assert "serves      http://127.0.0.1:8000, this machine only\n" in result.output
    assert "who may     everybody on this machine; there are no tokens\n" in result.output
    assert "candles     relay.db (will be created)\n" in result.output
    assert "upstreams   directly, through no proxy\n" in result.output
    assert "provider    binance (builtin:BinanceProvider): ready\n" in result.output
    assert lines_of(result)["max_requests_per_second_per_address automatic"] == "default"
    assert "api_key is not set: requests for its symbols are answered by provider_unavailable\n" in result.output
    assert list(here.iterdir()) == []


def test_every_setting_says_where_it_comes_from_and_secrets_are_not_shown(here: Path) -> None:
    (here / "relay.toml").write_text(FILE, encoding="utf-8")
    (here / "relay.db").write_bytes(b"x" * 2_000_000)
    result = check("--max-clients", "7", env={"RELAY_PORT": "9000"})
    assert result.exit_code == 0
    assert "serves      http://0.0.0.0:9000, other machines can reach it\n" in result.output
    assert "who may     who has a token: alice\n" in result.output
    assert "pages       the relay's own, https://charts.example.org\n" in result.output
    assert "candles     relay.db (2.0 MB)\n" in result.output
    assert "upstreams   through the proxy http://proxy.example.org:3128\n" in result.output
    assert "provider    twelve_data (builtin:TwelveDataProvider): ready\n" in result.output
    lines = lines_of(result)
    assert lines["host 0.0.0.0"] == "host in relay.toml"
    assert lines["port 9000"] == "RELAY_PORT"
    assert lines["max_clients 7"] == "--max-clients"
    assert lines["flush_ms 20"] == "default"
    assert lines["proxy http://proxy.example.org:3128"] == "proxy in relay.toml"
    assert lines["tokens 1 set"] == "tokens in relay.toml"
    assert lines["[twelve_data] api_key set, not shown"] == "api_key in [twelve_data]"
    assert lines["[binance] ws_url wss://***@stream.example.org/x?***"] == "ws_url in [binance]"
    for secret in ("nobody-may-see", "hunter2", "swordfish"):
        assert secret not in result.output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--port", "99999"), "--port: '99999' is out of range"),
        (("--host", "0.0.0.0"), "no tokens are set"),
        (("--database", "nowhere/relay.db"), "its folder does not exist"),
        (("--database", "."), "is a folder"),
        (("--tls-cert", "c.pem", "--tls-key", "k.pem"), "cannot be read"),
    ],
)
def test_what_would_keep_the_relay_from_starting_exits_2(here: Path, words: tuple[str, ...], complaint: str) -> None:
    result = check(*words)
    assert result.exit_code == 2
    assert complaint in result.output


def test_open_relay_is_said_in_capitals(here: Path) -> None:
    result = check("--host", "0.0.0.0", "--insecure")
    assert result.exit_code == 0
    assert "EVERYBODY" in result.output


def test_refused_plugin_is_named_and_exits_1(here: Path) -> None:
    (here / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    result = check("--plugins", "./broken.py")
    assert result.exit_code == 1
    assert "refused     " in result.output
    assert "broken.py: " in result.output


def test_relays_that_share_their_work_are_explained_without_the_password(here: Path) -> None:
    (here / "relay.toml").write_text('[cluster]\nnats = "tls://me:hunter2@nats.example.org:4222"\nshards = 2\n')
    result = check()
    assert result.exit_code == 0
    told = "shares its work with those of the namespace relay, over NATS at tls://***@nats.example.org:4222"
    assert f"relays      {told}\n" in result.output
    assert "hunter2" not in result.output
    assert lines_of(result)["[cluster] shards 2"] == "[cluster] shards in relay.toml"


@pytest.mark.parametrize(
    ("lacking", "settings", "told"),
    [
        ("nats", "", "the package nats-py is not installed; install market-relay[cluster]"),
        (
            "nkeys",
            'credentials = "relay.creds"\n',
            "the package nkeys is not installed; install market-relay[credentials]",
        ),
    ],
)
def test_a_package_that_the_part_in_a_cluster_needs_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, settings: str, told: str
) -> None:
    (here / "relay.toml").write_text(f'[cluster]\nnats = "nats://127.0.0.1:4222"\n{settings}')
    monkeypatch.setitem(sys.modules, lacking, None)
    result = check()
    assert (result.exit_code, told in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gone.creds", "is not a file that can be read"),
        (".", "is not a file that can be read"),
        ("empty.creds", "is not a .creds file: it has no NATS USER JWT"),
        ("half.creds", "is not a .creds file: it has no USER NKEY SEED"),
    ],
)
def test_credentials_that_cannot_be_used_are_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    (here / "relay.toml").write_text(f'[cluster]\nnats = "nats://127.0.0.1:4222"\ncredentials = "{name}"\n')
    (here / "empty.creds").touch()
    (here / "half.creds").write_text("-----BEGIN NATS USER JWT-----\nhunter2\n------END NATS USER JWT------\n")
    package = ModuleType("nkeys")
    package.__spec__ = ModuleSpec("nkeys", None)
    monkeypatch.setitem(sys.modules, "nkeys", package)
    result = check()
    assert (result.exit_code, f"credentials {name!r} {told}" in result.output) == (2, True), result.output
    assert "hunter2" not in result.output
