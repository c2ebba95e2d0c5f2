"""The commands of the operators' guide."""

import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / "relay" / "packaging"
GUIDE = (FOLDER / "README.md").read_text(encoding="utf-8")


class Lines(NamedTuple):
    """The commands of all blocks without a `$`, in the order of the guide."""

    install: str
    run_container: str
    make_image: str
    run_made: str
    compose: str
    cluster: str
    restore: str


def console() -> list[str]:
    """Return all commands behind a `$`."""
    blocks = re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def lines() -> Lines:
    """Return what the guide prints in all other blocks of commands: a block more has to be run by a test, too."""
    return Lines(*(block.strip() for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)))


def words(start: str) -> str:
    """Return the only command within a sentence of the guide that starts so."""
    (found,) = re.findall(rf"`({re.escape(start)}[^`]*)`", GUIDE)
    return str(found)
