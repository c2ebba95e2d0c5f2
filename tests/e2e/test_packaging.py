"""What is installed with the code, and a systemd unit that is understood, and as locked up as it says."""

import asyncio
import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml

from relay.packaging import distributions
from relay.plugins.scaffold import TEMPLATE
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.relay_process import serving
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "relay" / "packaging" / "relay.service"
TEMPLATE_UNIT = UNIT.with_name("market-relay@.service")


def test_in_its_container_ci_reads_the_checkout_and_has_room_for_containers(tmp_path: Path) -> None:
    """Files of another user's, and version 2 of cgroups, as files of a folder."""
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]["all"][
        "steps"
    ]
    (prepares,) = [step["run"] for step in steps if "cgroup" in step.get("run", "")]
    assert steps.index({"run": ".ci/run"}) == len(steps) - 1
    home, groups = tmp_path / "home", tmp_path / "groups"
    home.mkdir()
    groups.mkdir()
    for name, text in (("type", "domain\n"), ("controllers", "cpu memory pids\n"), ("procs", "1\n")):
        (groups / f"cgroup.{name}").write_text(text)
    environment = {**os.environ, "HOME": str(home), "GITHUB_WORKSPACE": str(ROOT)}
    script = prepares.replace("/sys/fs/cgroup", str(groups))
    # It is refused until no process is left.
    refused = f'sed() {{ if [ -e {groups}/beside/cgroup.procs ]; then command sed "$@"; else false; fi; }}\n'
    subprocess.run(["sh", "-e", "-c", refused + script], env=environment, check=True, timeout=LONGEST_WAIT_S)
    assert (groups / "beside" / "cgroup.procs").read_text() == "1\n"
    assert (groups / "cgroup.subtree_control").read_text() == "+cpu +memory +pids\n"
    assert (home / ".gitconfig").read_text().split() == ["[safe]", "directory", "=", str(ROOT)]


@pytest.mark.parametrize("package", ["relay", "providers"])
def test_guides_template_and_pages_are_installed_with_the_code(package: str) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["options.package_data"][package].split()
    guides = set((ROOT / package).rglob("*.md"))
    assert ROOT / ("relay/server" if package == "relay" else package) / "README.md" in guides
    if package == "relay":
        guides.update(path for path in TEMPLATE.iterdir() if path.is_file())
        guides.update(path for path in (ROOT / "relay" / "web" / "static").rglob("*") if path.is_file())
        guides.update((ROOT / "relay" / "web" / "examples").glob("*/*.*"))
    assert guides <= {path for pattern in patterns for path in (ROOT / package).glob(pattern)}


def test_a_build_has_nothing_of_an_earlier_version(tmp_path: Path) -> None:
    checkout = distributions.copy_source(tmp_path / "checkout")
    built = tmp_path / "built"
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(built)]
    gone = checkout / "relay" / "core" / "gone.py"
    gone.touch()
    subprocess.run(build, cwd=checkout, check=True, timeout=LONGEST_WAIT_S)
    assert (built / "relay" / "core" / "gone.py").exists()
    gone.unlink()
    subprocess.run(build, cwd=checkout, check=True, timeout=LONGEST_WAIT_S)
    assert (built / "relay" / "core" / "version.py").exists()
    assert not (built / "relay" / "core" / "gone.py").exists()


def test_template_unit_is_the_unit_with_a_database_of_its_own_and_a_shared_port() -> None:
    def lines(unit: Path) -> list[str]:
        return unit.read_text().partition("[Unit]")[2].splitlines()

    other = [pair for pair in zip(lines(UNIT), lines(TEMPLATE_UNIT), strict=True) if pair[0] != pair[1]]
    assert [theirs for _, theirs in other] == [
        "Description=market-relay %i: live and historical candles for many clients",
        "ExecStart=/usr/local/bin/relay serve --config /etc/market-relay/relay.toml --reuse-port"
        " --database ${STATE_DIRECTORY}/relay.db --log-format json",
        "StateDirectory=market-relay-%i",
    ]


def test_unit_is_locked_up(pytestconfig: pytest.Config) -> None:
    analyze = tool("systemd-analyze", "systemd", pytestconfig)
    answer = subprocess.run(
        [analyze, "security", "--offline=true", str(UNIT)], capture_output=True, text=True, check=True
    )
    found = re.search(r"Overall exposure level for relay.service: ([0-9.]+)", answer.stdout)
    assert found, answer.stdout
    assert float(found[1]) < 2.0


@pytest.mark.parametrize("unit", [UNIT, TEMPLATE_UNIT.with_name("market-relay@1.service")], ids=["one", "several"])
def test_systemd_understands_every_line(pytestconfig: pytest.Config, tmp_path: Path, unit: Path) -> None:
    analyze = tool("systemd-analyze", "systemd", pytestconfig)
    if not unit.exists():
        unit = tmp_path / unit.name
        unit.write_text(TEMPLATE_UNIT.read_text())
    answer = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=LONGEST_WAIT_S
    )
    faults = [
        line
        for line in (answer.stdout + answer.stderr).splitlines()
        # The program is not installed where the tests run; other units of the machine are not ours.
        if unit.name in line and "/usr/local/bin/relay" not in line
    ]
    assert faults == []


def test_systemd_understands_what_the_unit_proposes_to_add(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "systemd", pytestconfig)
    unit = UNIT.read_text()
    proposed = ["\n".join(re.findall("(?m)^#   (.+)", part)) for part in unit.split("#\n") if "[Service]" in part[:20]]
    assert [name in part for name, part in zip(("CAP_NET", "tls_key"), proposed, strict=True)] == [True, True]
    (tmp_path / "relay.service").write_text(unit)
    folder = tmp_path / "relay.service.d"
    folder.mkdir()
    for number, part in enumerate([*proposed, "[Service]\nNonsense=1"]):
        (folder / f"{number}.conf").write_text(part + "\n")
    command = [analyze, "verify", "--man=no", str(tmp_path / "relay.service")]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    # That of the last one shows that they are read.
    assert re.findall(r"relay\.service\.d/(.*?):", said) == ["2.conf"]


def lines_of(name: str) -> list[str]:
    return [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]


async def test_the_service_starts_as_the_unit_says_and_ends_for_good_on_a_wrong_configuration(tmp_path: Path) -> None:
    """As far as a machine without systemd goes: the words of the unit, with its folders somewhere else."""
    (tmp_path / "relay.toml").touch()
    (tmp_path / "tokens").write_text("x" * 43 + "\n")
    # As SetCredential leaves it where the file is missing.
    for name in ("twelve_data_api_key", "proxy"):
        (tmp_path / name).write_text(" ")
    environ = dict(pair.split("=", 1) for pair in lines_of("Environment")[0].replace("%d", str(tmp_path)).split())
    assert list(environ) == ["RELAY_TOKENS_FILE", "RELAY_TWELVE_DATA_API_KEY_FILE", "RELAY_PROXY_FILE"]
    program, *words = lines_of("ExecStart")[0].replace("/etc/market-relay", str(tmp_path)).split()
    assert (program, words[0]) == ("/usr/local/bin/relay", "serve")
    words = [word.replace("${STATE_DIRECTORY}", str(tmp_path)) for word in words[1:]]
    async with serving(tmp_path, *words, env=environ) as served:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{served.url}/api/v1/market-data/symbols") as answer:
                assert answer.status == 401
            headers = {"Authorization": f"Bearer {'x' * 43}"}
            async with session.get(f"{served.url}/api/v1/market-data/symbols", headers=headers) as answer:
                assert answer.status == 200
        assert (tmp_path / "relay.db").exists()
        assert await served.stop() == 0
    (tmp_path / "relay.toml").write_text("prot = 8000\n")
    wrong = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "serve", *words, env={**os.environ, **environ}, stderr=asyncio.subprocess.PIPE
    )
    _, said = await wrong.communicate()
    assert b"'prot'" in said
    assert [str(wrong.returncode)] == lines_of("RestartPreventExitStatus")


def test_each_credential_has_a_file_a_default_and_a_variable() -> None:
    files = dict(line.split(":", 1) for line in lines_of("LoadCredential"))
    assert files == {name: f"/etc/market-relay/{name}" for name in ("tokens", "twelve_data_api_key", "proxy")}
    assert lines_of("SetCredential") == [f"{name}:\\x20" for name in files]
    assert lines_of("Environment")[0].count("%d/") == len(files)
