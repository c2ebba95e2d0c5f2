"""Releases the relay: `python -m relay.packaging.release`. Needs the extra `release`, and what the image needs.

It dates the section in CHANGELOG.md, makes all files of the release and their checksums, and then commits and tags the
date. A release that fails changes nothing. It pushes nothing. On a tag that exists, `--only-build` makes the files.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from relay.core.version import VERSION
from relay.packaging import changelog, distributions, npm_package

ROOT = distributions.ROOT
HERE = Path(__file__).parent
TAG = f"v{VERSION}"
CHANGELOG = ROOT / "CHANGELOG.md"


@contextmanager
def cut() -> Iterator[None]:
    """Date the section of this version, and commit and tag that after what is done within, or undo it if that fails.

    Raises `SystemExit` when something is not ready.
    """
    if _git("status", "--porcelain").strip():
        raise SystemExit("there are changes that are not committed; commit or undo them first")
    if _git("tag", "--list", TAG).strip():
        raise SystemExit(f"there is a tag {TAG}; raise VERSION, or make its files with --only-build")
    before = CHANGELOG.read_text(encoding="utf-8")
    today = datetime.now(UTC).date().isoformat()
    try:
        text = changelog.cut(before, VERSION, today)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    CHANGELOG.write_text(text, encoding="utf-8")
    try:
        yield
        _git("commit", "--quiet", "--message", f"Release {VERSION}", str(CHANGELOG))
    except BaseException:
        CHANGELOG.write_text(before, encoding="utf-8")
        raise
    _git("tag", TAG)


def check_tag(tag: str) -> None:
    """Raise `SystemExit` unless a tag is that of this version, and the section of this version has a date."""
    section = changelog.newest(CHANGELOG.read_text(encoding="utf-8"))
    if tag != TAG:
        raise SystemExit(f"the tag is {tag}, and the version is {VERSION}; its tag is {TAG}")
    if section.version != VERSION or section.date == changelog.UNRELEASED:
        raise SystemExit(f"CHANGELOG.md has no date for {VERSION}; release it with python -m relay.packaging.release")


def build(folder: Path, address: str, without: frozenset[str]) -> None:
    """Make all files into a folder that is empty or new, or none and raise `SystemExit` when one fails its check."""
    if folder.is_dir() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _fill(folder, address, without)
    except BaseException:
        shutil.rmtree(folder)
        raise


def _fill(folder: Path, address: str, without: frozenset[str]) -> None:
    source, wheel = distributions.make(folder, address)
    npm_package.make(folder)
    _run(sys.executable, "-m", "twine", "check", "--strict", str(source), str(wheel))
    with tempfile.TemporaryDirectory() as scratch:
        python = _installed(Path(scratch, "bare"), wheel)
        if "binary" not in without:
            _run(python, "-m", "relay.packaging.binary", "--out", str(folder), cwd=scratch)
    if "image" not in without:
        archive = folder / f"market-relay-{VERSION}-image.tar.gz"
        _run(sys.executable, "-m", "relay.packaging.image", "--out", str(folder), "--archive", str(archive), cwd=ROOT)
    notes = changelog.newest(CHANGELOG.read_text(encoding="utf-8")).text
    (folder / "RELEASE_NOTES.md").write_text(notes + "\n", encoding="utf-8")
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")


def _installed(environment: Path, wheel: Path) -> str:
    """Install the wheel where nothing else is, with the versions of the locks; return the Python that has it."""
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locks = [option for name in ("lock.txt", "lock-build.txt") for option in ("-r", str(HERE / name))]
    _run(*install, "--require-hashes", *locks)
    _run(*install, "--no-deps", str(wheel))
    _run(python, "-m", "pip", "--disable-pip-version-check", "check")
    said = _run(str(environment / "bin" / "relay"), "--version", cwd=str(environment)).split()
    if said != ["market-relay", VERSION]:
        raise SystemExit(f"the wheel of {VERSION} says that it is {' '.join(said)}")
    _run(str(environment / "bin" / "relay"), "plugins", cwd=str(environment))
    return python


def _git(*words: str) -> str:
    return _run("git", "-C", str(ROOT), *words)


def _run(*command: str, cwd: str | Path | None = None) -> str:
    program = shutil.which(command[0])
    if program is None:
        raise SystemExit(f"{command[0]} is missing")
    done = subprocess.run(
        [program, *command[1:]], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{' '.join(command)} failed")
    return done.stdout


def main() -> None:
    """Cut, unless it is done, and build."""
    parser = argparse.ArgumentParser(prog="python -m relay.packaging.release", description=f"Releases {VERSION}.")
    parser.add_argument("--only-build", action="store_true", help="change nothing in the repository")
    parser.add_argument("--of-tag", metavar="TAG", help="with --only-build: check first that this tag is to be built")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the files  [default: dist]")
    parser.add_argument("--without", action="append", choices=("binary", "image"), default=[], help="leave out")
    parser.add_argument(
        "--address",
        default="",
        metavar="URL",
        help=f"where files of the repository are shown, for the README's links: https://HOST/OWNER/NAME/blob/{TAG}",
    )
    given = parser.parse_args()
    if given.of_tag:
        check_tag(given.of_tag)
    with nullcontext() if given.only_build else cut():
        build(given.out.resolve(), given.address, frozenset(given.without))
    print(f"{VERSION} is in {given.out}", "" if given.only_build else f"; publish it with: git push origin HEAD {TAG}")


if __name__ == "__main__":
    main()
