"""`relay plugins` and `relay check-config` on instances, what is off, replaced or older, and settings; no values."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay.cli import main

PLUGINS = Path(__file__).parents[1] / "plugins"
FILE = f"""
plugins = [
    "{PLUGINS / "exchanges.py"}:Exchanges",
    "{PLUGINS / "first_api.py"}:FirstApi",
    "{PLUGINS / "other_binance.py"}",
]

[providers.kraken]
uses = "exchanges"
exchange = "kraken"
api_key = "a-key-that-nobody-may-see"
quotes = ["JPY"]

[providers.kraken.options]
password = "swordfish"

[providers.twelve_data]
enabled = false

[providers.coinbase]
uses = "exchanges"
enabled = false
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(FILE, encoding="utf-8")
    return tmp_path


def relay(*words: str, **env: str) -> Result:
    result = CliRunner().invoke(main, words, env=env)
    for secret in ("nobody-may-see", "swordfish", "hunter2"):
        assert secret not in result.output
    return result


def lines(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.output.splitlines()]


def test_plugins_shows_instances_what_is_off_older_and_replaced(here: Path) -> None:
    result = relay("plugins")
    assert result.exit_code == 0
    rows = [row for row in lines(result) if row[0] != "setting"]
    exchanges, first = f"file:{PLUGINS / 'exchanges.py'}:Exchanges", f"file:{PLUGINS / 'first_api.py'}:FirstApi"
    assert [(row[0], row[1], row[2], row[-1]) for row in rows[:7]] == [
        ("binance", "ready", f"file:{PLUGINS / 'other_binance.py'}", "-"),
        ("binance_usdm", "ready", "builtin:BinanceUsdmProvider", "-"),
        ("exchanges", "needs exchange", exchanges, "-"),
        ("first_api", "needs a key", first, "-"),
        ("kraken", "ready", exchanges, "exchanges"),
        ("twelve_data", "off", "builtin:TwelveDataProvider", "-"),
        ("coinbase", "off", exchanges, "exchanges"),
    ]
    assert rows[7:] == [
        ["older", "first_api", f"{first} is written for provider API 1 and works as it is; this relay has 2.1"],
        [
            "replaced",
            "binance",
            f"the provider of builtin:BinanceProvider: that of file:{PLUGINS / 'other_binance.py'} came later",
        ],
    ]


def test_plugins_shows_each_setting_with_its_help_and_whether_it_is_set(here: Path) -> None:
    found = {row[1]: row[2:] for row in lines(relay("plugins", RELAY_KRAKEN_DEPTH="7")) if row[0] == "setting"}
    assert found["[providers.kraken] api_key"] == [
        "a secret",
        "none",
        "RELAY_KRAKEN_API_KEY or RELAY_KRAKEN_API_KEY_FILE",
        "api_key in [providers.kraken]",
        "The key",
    ]
    assert found["[providers.kraken] depth"] == [
        "a whole number from 1 to 9",
        "5",
        "RELAY_KRAKEN_DEPTH",
        "RELAY_KRAKEN_DEPTH",
        "How deep",
    ]
    names = [name + end for name in ("RELAY_EXCHANGES_API_KEY", "EXCHANGES_KEY") for end in ("", "_FILE")]
    assert found["[exchanges] api_key"][2:4] == [" or ".join(names), "not set"]
    assert found["[exchanges] quotes"][:2] == ["texts, with commas", "USD, EUR"]
    assert found["[exchanges] options"][:2] == ["a table, in the file only", "a table of retries"]
    assert found["[exchanges] testnet"][:2] == ["true or false", "false"]
    assert found["[first_api] api_key"][0] == "a secret"


def test_plugins_as_json_has_all_of_it(here: Path) -> None:
    answer: dict[str, Any] = json.loads(relay("plugins", "--json").output)
    assert answer["api"] == "2.1"
    assert {one["name"]: (one["state"], one["uses"]) for one in answer["providers"]} == {
        "binance": ("ready", None),
        "exchanges": ("needs exchange", None),
        "first_api": ("needs a key", None),
        "kraken": ("ready", "exchanges"),
        "twelve_data": ("off", None),
        "binance_usdm": ("ready", None),
        "coinbase": ("off", "exchanges"),
    }
    kraken = next(one for one in answer["providers"] if one["name"] == "kraken")
    assert kraken["title"] == "Exchanges: kraken"
    assert kraken["table"] == "[providers.kraken]"
    key = next(one for one in kraken["settings"] if one["name"] == "api_key")
    assert key == {
        "name": "api_key",
        "kind": "secret",
        "values": "a secret",
        "help": "The key",
        "default": "none",
        "variables": ["RELAY_KRAKEN_API_KEY", "RELAY_KRAKEN_API_KEY_FILE"],
        "is_set": True,
        "given_by": "api_key in [providers.kraken]",
    }
    assert [one["name"] for one in answer["replaced"]] == ["binance"]
    assert json.loads(relay("plugins", "--json", "kraken").output) == kraken
    assert json.loads(relay("plugins", "kraken", "--json").output) == kraken


def test_plugins_with_the_name_of_an_instance_shows_that(here: Path) -> None:
    output = relay("plugins", "kraken").output
    assert output.startswith("kraken  Exchanges: kraken, version -, from file:")
    assert ":Exchanges, an instance of exchanges: ready\n" in output
    assert "\n[providers.kraken] quotes: Currencies to list\n    texts, with commas; default: USD, EUR\n" in output
    assert "    RELAY_KRAKEN_QUOTES; given by quotes in [providers.kraken]\n" in output
    assert "is written for provider API 1" in relay("plugins", "first_api").output
    assert relay("plugins", "twelve_data").output == "twelve_data  from builtin:TwelveDataProvider: switched off\n"


def test_the_options_of_plugins_may_stand_behind_the_name(here: Path) -> None:
    (here / "relay.toml").write_text("")
    (here / "other.toml").write_text("[clock]\n")
    clock = str(PLUGINS / "clock.py")
    before = relay("plugins", "--plugins", clock, "clock")
    assert before.exit_code == 0
    assert relay("plugins", "clock", "--plugins", clock).output == before.output
    result = relay("plugins", "clock", "--config", "other.toml")
    assert (result.exit_code, "there is no such setting and no provider" in result.output) == (2, True)


def test_plugins_with_a_name_that_was_refused_says_why(here: Path) -> None:
    (here / "relay.toml").write_text(f"plugins = ['{PLUGINS / 'wrong_api.py'}']")
    result = relay("plugins", "wrong_api")
    assert result.exit_code == 2
    assert "no provider 'wrong_api' is loaded: it needs provider API 3, this relay has 2.1; install a" in result.output


def test_a_wrong_value_of_an_instance_exits_2_with_one_line(here: Path) -> None:
    for command in ("plugins", "check-config"):
        result = relay(command, RELAY_KRAKEN_DEPTH="10")
        assert (result.exit_code, result.output.count("\n")) == (2, 1)
        assert "RELAY_KRAKEN_DEPTH: '10' is out of range; it has to be from 1 to 9" in result.output


def test_check_config_shows_instances_and_the_values_that_hold(here: Path) -> None:
    output = relay("check-config").output
    assert f"provider    kraken ([providers.kraken] uses exchanges, file:{PLUGINS / 'exchanges.py'}:Exch" in output
    assert "provider    exchanges (file:" in output
    assert ": exchange is not set: requests for its symbols are answered by provider_unavailable\n" in output
    assert "provider    twelve_data: switched off, not contacted\n" in output
    assert "provider    coinbase: switched off, not contacted\n" in output
    assert "replaced    binance of builtin:BinanceProvider, by the one of file:" in output
    rows = {" ".join(line.split()) for line in output.splitlines()}
    assert "[providers.kraken] api_key set, not shown api_key in [providers.kraken]" in rows
    assert "[providers.kraken] quotes JPY quotes in [providers.kraken]" in rows
    assert "[providers.kraken] options a table of password options in [providers.kraken]" in rows
    assert "[providers.kraken] testnet false default" in rows
