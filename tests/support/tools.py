"""Programs that tests run and that pip does not install: found, or the test is skipped with a reason."""

import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

_OF_NPM = Path(__file__).parents[1] / "js" / "node_modules" / ".bin"


def tool(name: str, package: str, config: pytest.Config) -> str:
    """Return where a program is. Without it the test is skipped, or fails with `--need-tools`."""
    # Where Debian puts servers only root looks.
    return _found(
        shutil.which(name) or shutil.which(name, path="/usr/sbin"),
        f"{name} is not installed (Debian: apt-get install {package})",
        config,
    )


def docker_daemon(config: pytest.Config) -> str:
    """Return where Docker's daemon is; without it, or without its command, as `tool`.

    Without Compose 2, which not every Debian has, the test is skipped.
    """
    docker = tool("docker", "docker.io", config)
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker has no plugin compose (Debian 13: docker-compose)")
    return tool("dockerd", "docker.io", config)


def npm_tool(name: str, config: pytest.Config) -> str:
    """Return where a program is that npm installs, in `tests/js` or for all; without it as `tool`."""
    found = shutil.which(name, path=str(_OF_NPM)) or shutil.which(name)
    said = f"{name} is not installed (npm install --prefix tests/js --no-package-lock)"
    return _found(found, said, config)


def unavailable(said: str, config: pytest.Config) -> NoReturn:
    """Skip the test with a sentence; with `--need-tools` fail."""
    if config.getoption("--need-tools"):
        pytest.fail(said)
    pytest.skip(said)


def _found(program: str | None, said: str, config: pytest.Config) -> str:
    return unavailable(said, config) if program is None else program
