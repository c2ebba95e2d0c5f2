"""`relay plugins new`: what it writes, and what it refuses and why. That its test passes is tested with the guide."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.core.version import VERSION
from relay.plugins.scaffold import KINDS, TEMPLATE, write_project

ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module in the folder of a project, with the relay and its project importable."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    return subprocess.run([sys.executable, "-m", *arguments], cwd=folder, env=environ, capture_output=True, text=True)


def test_new_project_is_whole_loads_and_is_well_written(tmp_path: Path) -> None:
    made = run(tmp_path, "relay", "plugins", "new", "my_exchange")
    assert (made.returncode, made.stderr) == (0, "")
    folder = tmp_path / "my_exchange"
    for path in folder.iterdir():
        template = (TEMPLATE / path.name).read_text(encoding="utf-8")
        assert path.read_text(encoding="utf-8") == template.replace("market-relay>=0", f"market-relay>={VERSION}")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "market_relay_my_exchange.py",
        "my_exchange_standin.py",
        "pyproject.toml",
        "test_my_exchange.py",
    ]
    assert made.stdout.splitlines() == [
        f"my_exchange/{name}"
        for name in (
            "market_relay_my_exchange.py",
            "my_exchange_standin.py",
            "test_my_exchange.py",
            "pyproject.toml",
            "README.md",
        )
    ]
    listed = run(folder, "relay", "plugins", "--plugins", "./market_relay_my_exchange.py")
    (row,) = [line for line in listed.stdout.splitlines() if line.startswith("my_exchange\t")]
    assert row.split("\t") == [
        "my_exchange",
        "ready",
        "file:./market_relay_my_exchange.py",
        "0.1",
        "1m 5m 1h 1d",
        "My Exchange",
        "-",
        "-",
    ]
    style = run(folder, "ruff", "check", "--no-cache", ".")
    assert style.returncode == 0, style.stdout


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of the relay after the first project: to read it all again takes longer than the tests."""
    return tmp_path_factory.mktemp("typed")


@pytest.mark.parametrize("kind", KINDS)
def test_new_project_of_each_kind_is_typed_strictly_and_has_its_name_only(
    kind: str, tmp_path: Path, typed: Path
) -> None:
    made = run(tmp_path, "relay", "plugins", "new", "north_sea", "--kind", kind)
    assert (made.returncode, made.stderr) == (0, "")
    folder = tmp_path / "north_sea"
    written = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert sorted(written) == [
        "README.md",
        "market_relay_north_sea.py",
        "north_sea_standin.py",
        "pyproject.toml",
        "test_north_sea.py",
    ]
    assert not [name for name, text in written.items() if re.search("my.?(exchange|polls|ticks)", text, re.IGNORECASE)]
    modules = [name for name in sorted(written) if name.endswith(".py")]
    for words in (("ruff", "check", "--no-cache", "."), ("mypy", "--strict", "--cache-dir", str(typed), *modules)):
        result = run(folder, *words)
        assert result.returncode == 0, result.stdout
    listed = run(folder, "relay", "plugins", "--plugins", "./market_relay_north_sea.py", "north_sea")
    assert listed.stdout.startswith("north_sea  North Sea, version 0.1, from file:./market_relay_north_sea.py: ready\n")


def test_new_project_of_an_unknown_kind_names_those_that_there_are(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["plugins", "new", "north_sea", "--kind", "csv"])
    assert result.exit_code == 2
    assert "'csv' is not one of 'websocket', 'polling', 'ticks'" in result.stderr


def test_new_project_has_its_name_in_every_spelling(tmp_path: Path) -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in write_project("north_sea_2", tmp_path, ())}
    assert list(written) == [
        "market_relay_north_sea_2.py",
        "north_sea_2_standin.py",
        "test_north_sea_2.py",
        "pyproject.toml",
        "README.md",
    ]
    assert 'name="north_sea_2"' in written["market_relay_north_sea_2.py"]
    assert 'title="North Sea 2"' in written["market_relay_north_sea_2.py"]
    assert "from market_relay_north_sea_2 import NorthSea2Codec" in written["test_north_sea_2.py"]
    assert 'name = "market-relay-north-sea-2"' in written["pyproject.toml"]
    assert [name for name, text in written.items() if re.search("my.?exchange", text, re.IGNORECASE)] == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Bad-Name", "'Bad-Name' is not a lower-case identifier such as my_exchange"),
        ("../up", "'../up' is not a lower-case identifier such as my_exchange"),
        ("_hidden", "'_hidden' is not a lower-case identifier such as my_exchange"),
        ("class", "'class' is a keyword of Python; choose another name such as my_class"),
        ("host", "'host' is a setting of the relay itself; choose another name such as my_host"),
        ("binance", "'binance' is a built-in provider; choose another name such as my_binance"),
        ("there", "there exists already; choose another name or move the folder"),
    ],
)
def test_bad_name_or_existing_folder_is_refused_and_nothing_is_written(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    result = CliRunner().invoke(main, ["plugins", "new", name])
    assert result.exit_code == 2
    assert result.stderr == f"relay: {sentence}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert list((tmp_path / "there").iterdir()) == []
