"""How long the client waits before another try."""

import random

from relay.client.backoff import Backoff


def test_waits_are_spread_below_a_bound_that_doubles_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 30.0, random.Random(1))
    first = [backoff.wait_s(0) for _ in range(200)]
    later = [backoff.wait_s(9) for _ in range(200)]
    assert 1 <= min(first) < 1.2
    assert 1.8 < max(first) <= 2
    assert 1 <= min(later) < 3
    assert 28 < max(later) <= 30
