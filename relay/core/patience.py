"""Cuts a time that somebody is waited for into steps; no I/O."""

from collections.abc import Iterator
from typing import Final

STEPS: Final = 10


def steps(seconds: float) -> Iterator[float]:
    """Yield the parts of a time one by one, to be waited for one after the other.

    A pause of the whole process, as on a machine with too much to do, uses up one step at most: whoever is waited for
    still gets the others.
    """
    for _ in range(STEPS):
        yield seconds / STEPS
