"""What was asked for decides how many workers there are, and how tests are dealt out."""

from collections.abc import Iterable
from pathlib import Path

UNIT = Path(__file__).parents[1] / "unit"


def are_unit_tests(asked_for: Iterable[str], folder: Path) -> bool:
    """Say whether nothing but unit tests is asked for by what pytest is to run, which it names relative to `folder`."""
    paths = [(folder / text.partition("::")[0]).resolve() for text in asked_for]
    return bool(paths) and all(path.is_relative_to(UNIT) for path in paths)
