"""The container image, for all modules that run it: built once."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.core.version import VERSION
from relay.packaging import distributions
from tests.support import operators_guide
from tests.support.container import TAG, Image, Images
from tests.support.tools import tool, unavailable


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Image]:
    """The image, built now as the operators' guide prints it; its archive lies beside what it consists of."""
    if os.geteuid():
        unavailable("only root makes containers by the kernel's namespaces", pytestconfig)
    for name in ("buildah", "mmdebstrap"):
        tool(name, name, pytestconfig)
    folder = tmp_path_factory.mktemp("image")
    # Any user of a container goes through it.
    for path in (folder, *folder.parents):
        if path.is_relative_to(Path(tmp_path_factory.getbasetemp()).parent):
            path.chmod(0o755)
    images = Images(folder)
    printed = operators_guide.lines()
    commands = (printed.install, operators_guide.words(".venv/bin/pip install '.[release]'"), printed.make_image)
    began = time.monotonic()
    checkout = distributions.copy_source(folder / "checkout")
    print(images.build(commands, checkout, TAG, folder), f"built in {time.monotonic() - began:.0f} s")
    yield Image(images.tree(TAG), images.config(TAG), folder / f"market-relay-{VERSION}.cdx.json", images)
    images.delete()
