"""Adds what setup.cfg cannot say: the native write, a complete source distribution, links that work outside of it.

What is built has nothing that an earlier version built in the same folder.

The native write is built where there is a compiler, and left out elsewhere.
"""

import os
import re
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent


class Complete(sdist):
    """Takes along what no package contains: tests with their data, tools, documents."""

    def make_distribution(self) -> None:
        for folder in ("tests", ".ci", ".github", "relay", "providers"):
            self.filelist.graft(folder)
        for name in ("CHANGELOG.md", ".dockerignore", ".gitignore", ".pre-commit-config.yaml", ".prettierrc.json"):
            self.filelist.append(name)
        self.filelist.prune("tests/js/node_modules")
        self.filelist.prune("relay/packaging/compose/secrets")
        for pattern in ("*.so", "*.pyc", ".env"):
            self.filelist.global_exclude(pattern)
        super().make_distribution()


class Anew(build_py):
    """Takes nothing along that an earlier build left: a module that is gone would be installed again by an upgrade."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


def readme() -> str:
    """Return the README; where the address of the repository's files is known, its links lead there."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    address = os.environ.get("RELAY_SOURCE_ADDRESS", "").rstrip("/")
    if not address:
        return text
    # The address shows a file in a page; a picture has to be the file itself.
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:)([^)\s]+)\)", rf"\1{address}/\2?raw=true)", text)
    return re.sub(r"\]\((?![a-z]+://|#|mailto:)([^)\s]+)\)", rf"]({address}/\1)", text)


setup(
    cmdclass={"build_py": Anew, "sdist": Complete},
    ext_modules=[Extension("relay.streams._native_write", ["relay/streams/_native_write.c"], optional=True)],
    long_description=readme(),
    long_description_content_type="text/markdown",
)
