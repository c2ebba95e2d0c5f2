"""What an installation consists of: the list of licences, the bill of materials, and the locks of what is released."""

import configparser
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from relay.cli import main
from relay.core.version import VERSION
from relay.packaging.components import Component, components
from relay.packaging.sbom import document

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "relay" / "packaging" / name for name in ("lock.txt", "lock-build.txt")]
STATUS = """Package: libssl3
Architecture: amd64
Version: 3.0.17-1~deb12u2
Description: Secure Sockets Layer toolkit
 with a second line
Status: install ok installed

Package: tzdata
Architecture: all
Version: 1:2025b
Status: deinstall ok config-files
"""


def needed(*extras: str) -> list[Requirement]:
    """Return what setup.cfg says that the relay needs."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [settings["options"]["install_requires"], *(settings["options.extras_require"][one] for one in extras)]
    return [Requirement(line) for text in texts for line in text.split("\n") if line]


def locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes of each package in a lock."""
    found = {}
    for block in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8")):
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        found[name] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
    return found


def test_the_relay_and_all_that_it_needs_are_listed_and_nothing_of_its_tests() -> None:
    found = {one.name: one for one in components()}
    assert found["market-relay"] == Component("market-relay", VERSION, "MIT", found["market-relay"].texts)
    assert {canonicalize_name(one.name) for one in needed()} <= found.keys()
    # Of those that others need.
    assert {"multidict", "markdown-it-py"} <= found.keys()
    assert not {"pytest", "pip", "ruff", "build"} & found.keys()
    assert [one.name for one in found.values() if not one.licence] == []
    assert [one.name for one in found.values() if not one.is_package] == ["Python", "OpenSSL", "SQLite"]


def test_what_a_running_relay_uses_of_its_extras_is_listed_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = [f'{one}; extra == "cluster"' for one in (*map(str, needed("cluster")[-1:]), "not-installed")]
    folder = tmp_path / "market_relay-9.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: market-relay", "Version: 9", 'Requires-Dist: pytest; extra == "test"']
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {one}" for one in cluster), ""]))
    monkeypatch.syspath_prepend(tmp_path)
    assert [one.name for one in components() if one.is_package] == ["market-relay", "nats-py"]


def test_command_prints_them_with_texts_or_as_json() -> None:
    said = CliRunner().invoke(main, ["licenses", "--texts"]).output
    assert re.search(r"^aiohttp +\d[\d.]+ +Apache-2\.0", said, re.MULTILINE)
    assert "Permission is hereby granted" in said
    lines = CliRunner().invoke(main, ["licenses", "--json"]).output.splitlines()
    assert {"name": "market-relay", "version": VERSION, "license": "MIT"} in map(json.loads, lines)


def test_bill_of_materials_names_licences_of_spdx_as_such_and_what_debian_has_installed() -> None:
    found = document(STATUS)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    assert found["metadata"]["component"]["name"] == "market-relay"
    by_name = {one["name"]: one for one in found["components"]}
    assert by_name["websockets"]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert by_name["libssl3"]["purl"] == "pkg:deb/debian/libssl3@3.0.17-1~deb12u2?arch=amd64"
    assert "tzdata" not in [one["name"] for one in found["components"] if "deb/" in one["purl"]]
    references = [one["bom-ref"] for one in found["components"]]
    assert len(references) == len(set(references))
    assert found["dependencies"][0]["dependsOn"] == references


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_versions_and_hashes_and_no_addresses(path: Path) -> None:
    assert [name for name, (_, hashes) in locked(path).items() if not hashes] == []
    assert "://" not in path.read_text(encoding="utf-8")


def test_the_locks_fit_what_the_relay_needs_and_each_other() -> None:
    run, build = map(locked, LOCKS)
    for one in needed("binary"):
        version, _ = {**build, **run}[canonicalize_name(one.name)]
        assert one.specifier.contains(version), f"{one} is {version} in the lock; CONTRIBUTING.md says how to write it"
    both = build.keys() & run.keys()
    assert {name: build[name] for name in both} == {name: run[name] for name in both}
    assert "pip" in build
