"""How many random examples a test has: enough to find what is likely, and on demand some times as many."""

from hypothesis import settings

USUAL = 25
"""A quarter of what Hypothesis has where nothing is said; `.ci/run` tries four times as many once, without coverage."""


def load_examples(times: float) -> None:
    """Have each test so many times its usual number; call it before the modules of tests are imported."""
    settings.register_profile("asked for", settings.get_profile("repeatable"), max_examples=round(USUAL * times))
    settings.load_profile("asked for")


def examples(usual: int) -> int:
    """Return how many examples a test has in this run that has `usual` of them without the option `--examples`."""
    return max(1, usual * settings.get_profile("asked for").max_examples // USUAL)
