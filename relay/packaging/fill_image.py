"""Fills the container image; runs while it is built, with the Python of its base and nothing else.

No part of a running relay, and no module of it is imported here: they are not installed yet.
"""

import compileall
import os
import subprocess
import sys
import venv
from pathlib import Path
from py_compile import PycInvalidationMode

SAME_DATE = 315_532_800
"""Of all files: 1980, as in archives that can be made again byte by byte."""


def pip(wheels: Path) -> list[str]:
    """Return how to call pip: the wheel among the packages, or the one of the base."""
    for wheel in wheels.glob("pip-*.whl"):
        return [str(wheel / "pip")]
    return ["-m", "pip"]


def install(source: Path, environment: Path) -> None:
    """Install the relay, and what it needs in the versions of the lock, into a virtual environment."""
    venv.create(environment, symlinks=True)
    wheels = source / "wheels"
    python = str(environment / "bin" / "python")
    run = [sys.executable, *pip(wheels), "--python", python, "install", "--no-compile", "--no-cache-dir", "-q"]
    run.append("--disable-pip-version-check")
    needed = ["--require-hashes", "--only-binary", ":all:", "-r", str(source / "relay" / "packaging" / "lock.txt")]
    if wheels.is_dir():
        offline = ["--no-index", "--find-links", str(wheels)]
        subprocess.run([*run, *offline, *needed], check=True)
        subprocess.run([*run, *offline, "--no-deps", "market-relay"], check=True)
    else:
        subprocess.run([*run, *needed], check=True)
        subprocess.run([*run, "--no-deps", str(source)], check=True)
    # The modules are compiled here once, since the running relay may not write; no date goes into them.
    compileall.compile_dir(environment, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    with (environment / "sbom.cdx.json").open("wb") as file:
        listed = ["--debian", "/var/lib/dpkg/status"]
        subprocess.run([python, "-m", "relay.packaging.sbom", *listed], check=True, stdout=file)


def main(source: Path, environment: Path, image: Path) -> None:
    """Make the tree of what goes on top of the base: the environment, and a folder for data that all may write to."""
    install(source, environment)
    target = image / environment.relative_to("/")
    target.parent.mkdir(parents=True)
    environment.rename(target)
    (image / "data").mkdir()
    for path in [image, *image.rglob("*")]:
        os.utime(path, (SAME_DATE, SAME_DATE), follow_symlinks=False)
    (image / "data").chmod(0o1777)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
