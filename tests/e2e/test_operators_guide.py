"""The commands of the operators' guide, run as they are printed, one after the other, by one shell."""

import asyncio
import os
import re
import sys
import venv
from pathlib import Path

import pytest

from relay.core.version import VERSION
from relay.storage.schema import MIGRATIONS
from tests.support.free_ports import free_port
from tests.support.operators_guide import FOLDER, console

ROOT = Path(__file__).parents[2]

LONGEST_SHELL_S = 800
"""For some thirty commands, each a Python that starts, where twenty programs share two processors either."""

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(LONGEST_SHELL_S + 100)]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment where `relay` is a command with a free port, and nothing else is configured."""
    shim = tmp_path / "bin" / "relay"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m relay "$@"\n')
    shim.chmod(0o755)
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "TWELVE_DATA_"))}
    path = os.pathsep.join([str(shim.parent), os.environ["PATH"]])
    address = {"RELAY_PORT": str(port), "RELAY_URL": f"http://127.0.0.1:{port}"}
    return {**clean, **address, "PATH": path, "PYTHONPATH": str(ROOT)}


async def test_every_command_works_as_it_is_printed(tmp_path: Path, environ: dict[str, str]) -> None:
    found = console()
    assert len(found) > 20
    folder = tmp_path / "home"
    # As pip leaves it: where the shell looks for no commands by itself.
    venv.create(folder / ".venv", symlinks=True)
    (tmp_path / "bin" / "relay").rename(folder / ".venv" / "bin" / "relay")
    # Each is named before it runs, and the first that fails ends the shell, which ends its relay.
    lines = ["set -e", "trap 'kill $! 2>/dev/null' EXIT"]
    for number, line in enumerate(found):
        lines += [f"echo '@@ {number}'", line]
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", "\n".join(lines)),
        cwd=folder,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(LONGEST_SHELL_S):
        said = (await shell.communicate())[0].decode()
    shown = dict(re.findall(r"@@ (\d+)\n(.*?)(?=@@ |\Z)", said, re.DOTALL))
    assert shell.returncode == 0, f"{found[len(shown) - 1]}\n{said}\n{(folder / 'relay.log').read_text()}"
    # Of a command that is there twice, what it showed last.
    by_command = {line: shown[str(number)] for number, line in enumerate(found)}
    assert "who has a token: token 1, token 2\n" in by_command["relay check-config"]
    assert "mistake?" not in by_command["relay check-config"]
    assert len(by_command["relay tail BTCUSDT@1s --count 3"].splitlines()) >= 3
    assert "nothing wrong" in by_command["relay store --check --database copy.db"]
    assert by_command["relay --version"] == f"market-relay {VERSION}\n"
    assert "binance" in by_command["relay status"]
    assert sorted(path.name for path in folder.glob("*.db")) == ["before-upgrade.db", "relay.db"]


async def test_a_newer_file_is_refused_in_the_words_of_the_guide(tmp_path: Path, environ: dict[str, str]) -> None:
    lines = "import sqlite3; c = sqlite3.connect('relay.db'); c.execute('PRAGMA user_version = 99')"
    made = f"from relay.storage.schema import open_database; open_database('relay.db', 'relay.db').close(); {lines}"
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'{sys.executable} -c "{made}" && relay serve --sandbox --database relay.db'),
        cwd=tmp_path,
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LONGEST_SHELL_S):
        said = (await shell.communicate())[1].decode()
    assert shell.returncode == 2
    page = (FOLDER / "compatibility.md").read_text(encoding="utf-8")
    assert re.findall(r"```text\n(.*?)```", page, re.DOTALL) == [said]
    assert f"up to {len(MIGRATIONS)};" in said
