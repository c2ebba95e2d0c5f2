"""What is installed with the code, and a systemd unit that is understood, and as locked up as it says."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from relay.plugins.scaffold import FILES, TEMPLATE
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "relay" / "packaging" / "relay.service"


@pytest.mark.parametrize("package", ["relay", "providers"])
def test_guides_template_and_pages_are_installed_with_the_code(package: str) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["options.package_data"][package].split()
    guides = set((ROOT / package).rglob("*.md"))
    assert ROOT / package / "README.md" in guides
    if package == "relay":
        guides.update(TEMPLATE / name for name in FILES)
        guides.update(path for path in (ROOT / "relay" / "web" / "static").rglob("*") if path.is_file())
    assert guides <= {path for pattern in patterns for path in (ROOT / package).glob(pattern)}


def test_unit_is_locked_up(pytestconfig: pytest.Config) -> None:
    analyze = tool("systemd-analyze", "systemd", pytestconfig)
    answer = subprocess.run(
        [analyze, "security", "--offline=true", str(UNIT)], capture_output=True, text=True, check=True, timeout=60
    )
    found = re.search(r"Overall exposure level for relay.service: ([0-9.]+)", answer.stdout)
    assert found, answer.stdout
    assert float(found[1]) < 2.0


def test_systemd_understands_every_line(pytestconfig: pytest.Config) -> None:
    analyze = tool("systemd-analyze", "systemd", pytestconfig)
    answer = subprocess.run([analyze, "verify", "--man=no", str(UNIT)], capture_output=True, text=True, timeout=60)
    faults = [
        line
        for line in (answer.stdout + answer.stderr).splitlines()
        # The program is not installed where the tests run; other units of the machine are not ours.
        if "relay.service" in line and "/usr/local/bin/relay" not in line
    ]
    assert faults == []
