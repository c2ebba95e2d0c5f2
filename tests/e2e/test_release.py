"""What a release publishes: distributions that are complete, the same each time, and work where nothing else is."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from relay.core.version import VERSION
from relay.packaging import distributions

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
ADDRESS = f"https://example.org/owner/market-relay/blob/v{VERSION}"
TOP = f"market_relay-{VERSION}"
CUT = "with cut(): pass"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release without binary and image, which tests of their own build."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    command = [sys.executable, "-m", "relay.packaging.release", "--only-build", "--out", str(folder)]
    command += ["--address", ADDRESS, "--without", "binary", "--without", "image"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with what a release changes, and the code that does."""
    shutil.copytree(ROOT / "relay", tmp_path / "relay", ignore=shutil.ignore_patterns("*.pyc", "__pycache__", "*.so"))
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {VERSION} (unreleased)\n\n- All.\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "Begin")
    return tmp_path


def git(repository: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *who, *words], cwd=repository, capture_output=True, text=True, check=True).stdout


def release(repository: Path, call: str) -> str:
    """Run one step of a release in a repository; return what it complains about."""
    names = {f"GIT_{kind}_{what}": "a@example.org" for kind in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **names, "PYTHONPATH": str(repository)}
    script = f"from relay.packaging.release import cut, check_tag\n{call}"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=repository, env=environment, capture_output=True, text=True, check=False
    ).stderr


def test_a_release_is_dated_committed_and_tagged_once(repository: Path) -> None:
    tag = f"v{VERSION}"
    assert f"no date for {VERSION}" in release(repository, f"check_tag({tag!r})")
    (repository / "relay" / "new.py").touch()
    assert "changes that are not committed" in release(repository, CUT)
    (repository / "relay" / "new.py").unlink()
    assert release(repository, CUT) == ""
    assert git(repository, "log", "-1", "--format=%s %D").startswith(f"Release {VERSION} ")
    assert git(repository, "tag", "--points-at", "HEAD").split() == [tag]
    assert re.search(
        rf"^## {re.escape(VERSION)} \(20\d\d-\d\d-\d\d\)$", (repository / "CHANGELOG.md").read_text(), re.M
    )
    assert f"there is a tag {tag}" in release(repository, CUT)
    git(repository, "tag", "--delete", tag)
    assert f"{VERSION} was released on 20" in release(repository, CUT)
    git(repository, "tag", tag)
    assert release(repository, f"check_tag({tag!r})") == ""
    assert "the tag is v9.9.9" in release(repository, "check_tag('v9.9.9')")


def test_a_release_that_fails_changes_nothing(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD")
    assert "no twine" in release(repository, "with cut(): raise SystemExit('no twine')")
    assert git(repository, "status", "--porcelain") == git(repository, "tag") == ""
    assert git(repository, "rev-parse", "HEAD") == before
    assert release(repository, CUT) == ""


def test_a_release_into_a_folder_with_files_changes_nothing(repository: Path) -> None:
    (repository / "dist").mkdir()
    (repository / "dist" / "sbom.json").touch()
    (repository / ".gitignore").write_text("__pycache__\ndist\n")
    git(repository, "commit", "--quiet", "--all", "-m", "Ignore what is built")
    assert "dist is not empty" in release(repository, "from relay.packaging.release import main\nmain()")
    assert git(repository, "status", "--porcelain") == git(repository, "tag") == ""
    assert (repository / "dist" / "sbom.json").exists()


def test_sums_are_those_of_the_files(released: Path) -> None:
    lines = (released / "SHA256SUMS").read_text().splitlines()
    names = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    assert names == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in released.iterdir()
        if path.name != "SHA256SUMS"
    }
    kinds = {re.sub(r"^market[_-]relay(-client)?-[\d.]+(-cp\S+?_\w+)?\.(?=tar|whl|tgz)", "", name) for name in names}
    assert kinds == {"tar.gz", "whl", "tgz", "RELEASE_NOTES.md"}


def test_they_are_the_same_when_they_are_made_again(released: Path, tmp_path: Path) -> None:
    for again in distributions.make(tmp_path, ADDRESS):
        assert again.read_bytes() == (released / again.name).read_bytes()


def test_source_distribution_has_all_that_the_repository_has(released: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (archive,) = released.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.removeprefix(f"{TOP}/") for name in opened.getnames()}
    assert {*tracked.splitlines()} - names == set()
    assert [name for name in names if "node_modules" in name or name.endswith((".so", ".pyc"))] == []


def test_the_readme_of_the_wheel_links_to_what_is_outside_of_it(released: Path) -> None:
    (wheel,) = released.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        about = opened.read(f"{TOP}.dist-info/METADATA").decode()
    links = re.findall(r"(?<!`)\]\(([^)\s]+)\)", about)
    assert f"{ADDRESS}/relay/server/README.md" in links
    assert [link for link in links if "://" not in link and not link.startswith("#")] == []
    assert re.findall(r"!\[[^\]]*\]\(([^)]+)\)", about) == [f"{ADDRESS}/tests/e2e/browser/chart-page.png?raw=true"]
