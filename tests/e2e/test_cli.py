"""The `relay` command: what it says about itself, its plugins and its mistakes."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import COMMANDS, main
from relay.config.settings import SETTINGS
from relay.core.version import VERSION
from relay.telemetry.logs import set_up_logs


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Runs commands in an empty directory without settings in the environment, and undoes what they do to logging."""
    monkeypatch.chdir(tmp_path)
    for name in ("RELAY_PORT", "RELAY_TWELVE_DATA_API_KEY", "TWELVE_DATA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    return CliRunner()


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(main, ["--version"]).output == f"market-relay {VERSION}\n"


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "relay.commands.tail":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["relay", "tail", "BTCUSDT@1m"]
from relay.__main__ import run
run()
"""


def test_an_interrupt_while_a_command_is_imported_ends_it_without_a_word() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_at_any_later_time_exits_130_without_a_word(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relay.commands.symbols.call", interrupted)
    result = runner.invoke(main, ["symbols"])
    assert (result.exit_code, result.output) == (130, "")


def test_help_names_every_command(runner: CliRunner) -> None:
    output = runner.invoke(main, ["--help"]).output
    assert not [line for line in output.splitlines()[1:] if line.endswith("...")], "a sentence is cut off"
    assert all(f"  {name} " in output for name in COMMANDS)


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    context = main.make_context("relay", ["--help"], resilient_parsing=True)
    for name, text in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert (command.name, command.get_short_help_str(200)) == (name, text)


def test_a_command_without_its_package_says_how_to_get_it(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    result = runner.invoke(main, ["mcp"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "pip install 'market-relay[mcp]'" in result.stderr


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_what_asks_for_no_command_imports_none(argument: str) -> None:
    script = f"import sys; from relay.cli import main; main([{argument!r}], standalone_mode=False); print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.splitlines()[-1].split())
    assert not loaded & {"aiohttp", "asyncio", "orjson", "pluggy", "providers", "rich", "sqlite3", "prometheus_client"}
    assert {name for name in loaded if name.startswith("relay")} == {
        *("relay", "relay.cli", "relay.commands", "relay.commands.distribution", "relay.core", "relay.core.version")
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_teaches_by_example(runner: CliRunner, command: str) -> None:
    result = runner.invoke(main, [command, "-h"])
    assert result.exit_code == 0
    assert f"relay {command}" in result.output.split("Options:")[0].split("Usage:")[1].split("\n", 1)[1]


def test_serve_has_a_flag_for_every_setting_that_is_no_secret(runner: CliRunner) -> None:
    output = runner.invoke(main, ["serve", "--help"]).output
    missing = [key for key in SETTINGS if not re.search(rf"--{key.replace('_', '-')}\b", output)]
    assert missing == ["tokens", "proxy"]


@pytest.mark.parametrize(("written", "meant"), [("sevre", "serve"), ("histroy", "history"), ("stat", "status")])
def test_a_command_that_is_nearly_right_is_named(runner: CliRunner, written: str, meant: str) -> None:
    result = runner.invoke(main, [written, "--csv"])
    assert (result.exit_code, f"there is no command '{written}'; did you mean {meant}?" in result.output) == (2, True)
    assert "No such command 'xyz'" in runner.invoke(main, ["xyz"]).output


@pytest.mark.parametrize(
    ("shell", "environ"),
    [
        ("bash", {"COMP_WORDS": "relay se", "COMP_CWORD": "1"}),
        ("zsh", {"COMP_WORDS": "relay se", "COMP_CWORD": "1"}),
        ("fish", {"COMP_WORDS": "relay se", "COMP_CWORD": "se"}),
    ],
)
def test_shells_complete_commands_and_flags(runner: CliRunner, shell: str, environ: dict[str, str]) -> None:
    script = runner.invoke(main, ["completion", shell]).output
    assert "_RELAY_COMPLETE" in script
    environ = {**os.environ, **environ, "_RELAY_COMPLETE": f"{shell}_complete"}
    program = (sys.executable, "-c", "from relay.cli import main; main(prog_name='relay')")
    said = subprocess.run(program, env=environ, capture_output=True, text=True, check=True).stdout
    assert "serve" in said
    assert "status" not in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("relay serve --config ", ["file,"]),
        ("relay serve --tls-cert ", ["file,"]),
        ("relay store --database ", ["file,"]),
        ("relay serve --log-level ", ["plain,debug", "plain,info", "plain,warning", "plain,error"]),
        ("relay serve --retention ", []),
        (
            "relay history BTCUSDT 1",
            ["plain,1s", "plain,1m", "plain,15m", "plain,1h", "plain,12h", "plain,1d", "plain,1w", "plain,1M"],
        ),
    ],
)
def test_values_are_completed(line: str, words: list[str]) -> None:
    place = str(len(line.split()) - (not line.endswith(" ")))
    environ = {**os.environ, "COMP_WORDS": line, "COMP_CWORD": place, "_RELAY_COMPLETE": "bash_complete"}
    program = (sys.executable, "-c", "from relay.cli import main; main(prog_name='relay')")
    said = subprocess.run(program, env=environ, capture_output=True, text=True, check=True).stdout
    assert said.split() == words


def test_fish_shows_whole_explanations(runner: CliRunner) -> None:
    assert 'split ","' not in runner.invoke(main, ["completion", "fish"]).output


def test_bash_takes_the_script(runner: CliRunner) -> None:
    script = runner.invoke(main, ["completion", "bash"]).output
    answer = subprocess.run(["bash", "-c", script + "complete -p relay"], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "relay_completion" in answer.stdout


def test_python_m_relay_is_the_same_command() -> None:
    answer = subprocess.run([sys.executable, "-m", "relay", "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout == f"market-relay {VERSION}\n"


def test_unknown_command_exits_2(runner: CliRunner) -> None:
    result = runner.invoke(main, ["sreve"])
    assert result.exit_code == 2
    assert "sreve" in result.output


def test_plugins_lists_those_built_in(runner: CliRunner) -> None:
    result = runner.invoke(main, ["plugins"])
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.output.splitlines()]
    rows = [row for row in lines if row[0] != "setting"]
    assert [row[:2] for row in rows] == [
        ["binance", "ready"],
        ["twelve_data", "needs a key"],
        ["binance_usdm", "ready"],
    ]
    assert rows[0][3] == VERSION


def test_plugins_sees_the_key_but_does_not_show_it(runner: CliRunner) -> None:
    result = runner.invoke(main, ["plugins"], env={"TWELVE_DATA_API_KEY": "hidden"})
    assert "twelve_data\tready" in result.output
    assert "hidden" not in result.output


def test_plugins_tells_which_was_refused_and_why(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    result = runner.invoke(main, ["plugins", "--plugins", "broken.py"])
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert last.startswith("refused\tfile:broken.py\t")
    assert "nowhere_to_be_found" in last


def test_plugins_with_a_bad_configuration_exits_2_with_one_line(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text("[twelve_data]\npoll_seconds = 0\n")
    result = runner.invoke(main, ["plugins"])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "poll_seconds" in result.output


@pytest.mark.parametrize("style", ["text", "json"])
def test_log_lines_go_to_standard_error(style: str, runner: CliRunner, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", style)
    logging.getLogger("relay.some").info("feed %s opens", "binance")
    logging.getLogger("relay.some").debug("not shown")
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("relay.some").exception("it failed")
    out, err = capsys.readouterr()
    assert out == ""
    first = err.splitlines()[0]
    if style == "text":
        assert first.endswith("Z INFO    relay.some: feed binance opens")
    else:
        lines = [json.loads(line) for line in err.splitlines()]
        assert [line["message"] for line in lines] == ["feed binance opens", "it failed"]
        assert (lines[0]["level"], lines[0]["logger"]) == ("info", "relay.some")
        assert "ValueError: inner" in lines[1]["exception"]
    assert "not shown" not in err


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_log_line_that_cannot_be_encoded_is_still_one_line(
    style: str, runner: CliRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logs("info", style)
    logging.getLogger("relay.some").info("path %s", "/caf\udce9\nforged line")
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "path" in err


def test_plugins_with_a_name_shows_each_setting_of_that_provider(runner: CliRunner) -> None:
    given = {"TWELVE_DATA_API_KEY": "hidden", "RELAY_TWELVE_DATA_CREDITS_PER_MINUTE": "55"}
    result = runner.invoke(main, ["plugins", "twelve_data"], env=given)
    assert result.exit_code == 0
    assert result.output.startswith("twelve_data  Twelve Data, version ")
    assert (
        "[twelve_data] api_key: The API key of your Twelve Data account\n    a secret; default: none\n" in result.output
    )
    own, other = "RELAY_TWELVE_DATA_API_KEY", "TWELVE_DATA_API_KEY"
    assert f"{own} or {own}_FILE or {other} or {other}_FILE; given by {other}\n" in result.output
    assert "    poll or stream; default: poll\n    RELAY_TWELVE_DATA_MODE\n" in result.output
    assert "    a whole number from 1; default: 8\n    RELAY_TWELVE_DATA_CREDITS_PER_MINUTE; given by" in result.output
    assert "hidden" not in result.output


def test_plugins_shows_the_settings_of_a_plugin_that_is_named(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from relay import API_VERSION, ProviderInfo, Setting, hookimpl\n"
        "@hookimpl\n"
        "def relay_provider():\n"
        "    setting = Setting('depth', 'int', 3, 'How deep', least=1, most=9)\n"
        "    return ProviderInfo('mine', API_VERSION, 'Mine', ('demo',), ('1m',), settings=(setting,))\n"
        "@hookimpl\n"
        "async def relay_stream(watchlist):\n"
        "    yield\n"
    )
    result = runner.invoke(main, ["plugins", "--plugins", "mine.py", "mine"])
    assert result.exit_code == 0
    assert "[mine] depth: How deep\n    a whole number from 1 to 9; default: 3\n    RELAY_MINE_DEPTH\n" in result.output


def test_plugins_with_the_name_of_a_provider_for_instances_says_how_to_use_it(runner: CliRunner) -> None:
    result = runner.invoke(main, ["plugins", "ccxt"])
    assert (result.exit_code, result.output) == (
        2,
        "relay: the provider 'ccxt' serves nothing by itself: write [providers.NAME] with uses = \"ccxt\", and "
        "`relay plugins NAME` shows its settings\n",
    )


def test_plugins_with_a_name_that_nobody_has_says_who_there_is(runner: CliRunner) -> None:
    result = runner.invoke(main, ["plugins", "krakn"])
    assert (result.exit_code, result.output) == (
        2,
        "relay: there is no provider 'krakn'; loaded are binance, twelve_data, binance_usdm\n",
    )
