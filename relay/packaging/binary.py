"""Builds the single binary: `python -m relay.packaging.binary`. Needs the extra `binary`; no part of a running relay.

The whole standard library goes in, because a provider file that somebody drops beside the binary may import any of it.
"""

import argparse
import importlib
import pkgutil
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from relay.core.version import VERSION
from relay.plugins.scaffold import TEMPLATE

LEFT_OUT = frozenset(
    {
        *("antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this"),
        *("tkinter", "turtle", "turtledemo"),
    }
)
"""Top-level modules of the standard library that no provider needs: windows, tests, tools of developers."""

WITH_DATA = ("relay", "providers", "litecharts", "tzdata")

START = "from relay.__main__ import run\n\nrun()\n"


def name() -> str:
    """Return the file name of the binary for this machine."""
    return f"relay-{VERSION}-{platform.system().lower()}-{platform.machine()}"


def standard_library() -> Iterator[str]:
    """Yield the modules and packages of the standard library that can be imported here, submodules included."""
    for top in sorted(sys.stdlib_module_names - LEFT_OUT):
        if top.startswith("_"):
            # What stands behind a public module comes with it.
            continue
        try:
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                module = importlib.import_module(top)
        except ImportError:
            # It belongs to another system (`winreg`, `msvcrt`).
            continue
        yield top
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{top}.", onerror=lambda _: None):
            if not LEFT_OUT.intersection(found.name.split(".")) and not found.name.endswith("__main__"):
                yield found.name


def build(folder: Path) -> Path:
    """Build the binary into `folder` and return its path. Raises `SystemExit` when PyInstaller is missing or fails."""
    try:
        from PyInstaller.__main__ import run
    except ImportError:
        raise SystemExit("PyInstaller is missing; install it with: pip install 'market-relay[binary]'") from None
    with tempfile.TemporaryDirectory() as scratch:
        start = Path(scratch, "start.py")
        start.write_text(START, encoding="utf-8")
        arguments = ["--onefile", "--strip", "--noconfirm", "--log-level", "WARN", "--name", name()]
        arguments += ["--distpath", str(folder), "--workpath", scratch, "--specpath", scratch]
        for module in standard_library():
            arguments += ["--hidden-import", module]
        for package in ("relay", "providers"):
            arguments += ["--collect-submodules", package]
        for package in WITH_DATA:
            arguments += ["--collect-data", package]
        # What `relay licenses` reads, of all packages that the relay needs; extras are not followed.
        for package in ("market-relay", "nats-py"):
            arguments += ["--recursive-copy-metadata", package]
        # Data too, although it ends in .py.
        arguments += ["--add-data", f"{TEMPLATE}:relay/plugins/{TEMPLATE.name}"]
        for module in ("PyInstaller", "setuptools", *LEFT_OUT):
            arguments += ["--exclude-module", module]
        run([*arguments, str(start)])
    return folder / name()


def main() -> None:
    """Build and say where the binary is and how large."""
    parser = argparse.ArgumentParser(prog="python -m relay.packaging.binary", description="Builds the single binary.")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder to put it into  [default: dist]")
    built = build(parser.parse_args().out.resolve())
    print(f"{built} ({built.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
