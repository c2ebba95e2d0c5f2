"""Programs that tests run and that pip does not install: found, or the test is skipped with a reason."""

import shutil

import pytest


def tool(name: str, package: str, config: pytest.Config) -> str:
    """Return where a program is. Without it the test is skipped, or fails with `--need-tools`."""
    found = shutil.which(name)
    if found is None:
        said = f"{name} is not installed (Debian: apt-get install {package})"
        if config.getoption("--need-tools"):
            pytest.fail(said)
        pytest.skip(said)
    return found
