"""How many random examples a test has: a few where nothing is said, and on demand many times as many."""

from hypothesis import settings

USUAL = 25
"""A quarter of what Hypothesis has where nothing is said: `--examples 1`. `.ci/run` tries four times as many once."""
FEW = 0.4
"""So many times that number in a run that says nothing: what is wrong in most examples is found at once."""


def load_examples(times: float) -> None:
    """Have each test so many times its number; call it before the modules of tests are imported."""
    settings.register_profile(
        "asked for", settings.get_profile("repeatable"), max_examples=max(1, round(USUAL * times))
    )
    settings.load_profile("asked for")


def examples(usual: int) -> int:
    """Return how many examples a test has in this run that has `usual` of them with `--examples 1`."""
    return max(1, usual * settings.get_profile("asked for").max_examples // USUAL)
